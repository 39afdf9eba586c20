"""How long master data is known, and how often Tryton is asked for it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from decimal import Decimal
from typing import Any, cast

import pytest

from sink.erp.contract import HoldError
from sink.erp.tryton import catalogue
from sink.erp.tryton.catalogue import MasterData
from sink.erp.tryton.rpc import Rpc
from sink.erp.tryton.settings import TrytonSettings

D = Decimal
SETTINGS = {
    "kind": "tryton", "url": "http://tryton", "database": "d", "user": "u", "password": "p", "web_shop": "w",
    "payment_term": "t",
}  # fmt: skip
SHOP = {"id": 1, "company": 1, "warehouses": [1]}


def tax(number: int, rate: str | None, amount: str | None = None, **others: Any) -> dict[str, Any]:
    return {
        "id": number, "name": f"tax {number}", "type": "fixed" if amount else "percentage", "active": True,
        "parent": None, "group.": None, "rate": rate and D(rate), "amount": amount and D(amount), **others,
    }  # fmt: skip


class Server:
    """A Tryton with these taxes and items. `asked`: the models that were asked for. `meanwhile` is done in each
    call."""

    def __init__(self) -> None:
        self.taxes = [tax(1, "0.19"), tax(2, "0.07")]
        self.skus: dict[str, int] = {"A": 1, "B": 2, "SHIPPING-19": 3}
        self.of_cent: list[int] = []
        self.asked: list[str] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def search(self, model: str, *_: Any) -> list[dict[str, Any]]:
        self._ask(model)
        return {"account.tax": [*self.taxes], "web.shop": [SHOP], "currency.currency": [{"id": 1}]}[model]

    def among(self, model: str, name: str, values: Collection[Any], *_: Any) -> list[dict[str, Any]]:
        self._ask(model)
        if name == "code":
            units = {"template.": {"sale_uom": 1, "default_uom": 1}}
            return [{"id": one, "code": sku, **units} for sku, one in self.skus.items() if sku in values]
        return [{"id": one, "name": "Unit", "digits": 0, "factor": 1} for one in values]

    def call(self, model: str, *_: Any) -> Any:
        self._ask(model)
        return [{"id": 4, "account_category.": {"customer_taxes_used": self.of_cent}}]

    def _ask(self, model: str) -> None:
        self.asked.append(model)
        self.meanwhile()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def master(server: Server) -> MasterData:
    return MasterData(cast(Rpc, server), TrytonSettings.model_validate(SETTINGS))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(catalogue, "time", made)
    return made


def batch(master: MasterData, skus: Sequence[str]) -> None:
    """What forty orders ask for."""
    assert master.salable(skus) == {*skus}
    master.items(skus)
    for _ in range(40):
        for sku in skus:
            master.item(sku)
        master.service("shipping", D(19))
        for rate in (D(19), D(7)):
            assert master.rate_of([master.tax(rate)]) == rate
        _ = (master.warehouse, master.company, master.currency("EUR"))


def test_a_batch_asks_for_nothing_that_is_known_and_once_a_minute_for_all(
    server: Server, master: MasterData, clock: Clock
) -> None:
    counts = []
    for seconds in (0, 20, 15, 25):  # items are asked for in time before their minute is over
        clock.now += seconds
        server.asked.clear()
        batch(master, ["A", "B"])
        counts.append(len(server.asked))
    assert counts == [6, 0, 2, 4]


def test_a_tax_that_was_replaced_is_used_for_a_minute_and_read_for_ever(
    server: Server, master: MasterData, clock: Clock
) -> None:
    assert master.tax(D(19)) == 1
    server.taxes = [tax(1, "0.19", active=False), tax(2, "0.07"), tax(3, "0.19")]
    assert master.rate_of([3]) == D(19), "a tax that is not known yet is asked for"
    clock.now += 60
    assert master.tax(D(19)) == 3
    assert master.rate_of([1]) == D(19)
    assert master.rates() == [D(7), D(19)]


def test_what_is_missing_is_asked_for_before_it_is_said(server: Server, master: MasterData) -> None:
    with pytest.raises(HoldError, match="no tax of 16 %"):
        master.tax(D(16))
    with pytest.raises(HoldError, match="no item CENT-19"):
        master.cent(D(19))
    server.taxes += [tax(4, "0.16"), tax(5, None, "0.05")]
    server.skus["CENT-19"], server.of_cent = 4, [5]
    assert master.tax(D(16)) == 4
    with pytest.raises(HoldError, match=r"CENT-19 is not an active one of 0\.01"):
        master.cent(D(19))
    server.taxes.append(tax(6, None, "0.01"))
    server.of_cent = [6]
    assert master.cent(D(19)) == 6
    assert master.is_cent([6])
    assert not master.is_cent([5])


def test_an_item_stays_known_if_another_thread_forgets_it_meanwhile(server: Server, master: MasterData) -> None:
    assert master.salable(["A"]) == {"A"}
    server.meanwhile = master.forget
    assert master.salable(["A", "B"]) == {"A", "B"}
    assert master.items(["A", "B"]).keys() == {"A", "B"}
