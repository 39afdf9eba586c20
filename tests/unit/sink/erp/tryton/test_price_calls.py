"""How many calls to Tryton prices take: each costs it as much as twenty prices."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, cast

from sink.erp.contract import Observed, Step
from sink.erp.kinds import ErpRecord, ErpRef, Milestone
from sink.erp.tryton.catalogue import MasterData
from sink.erp.tryton.prices import Prices
from sink.erp.tryton.rpc import Rpc, WriteCalls
from sink.erp.tryton.settings import TrytonSettings

LINE = "product.price_list.line"
LIST = {"id": 1, "name": "list", "tax_included": True, "company.": {"currency.": {"code": "EUR"}}}
SETTINGS = {"kind": "tryton", "url": "http://tryton", "database": "d", "user": "u", "password": "p", "web_shop": "w"}


class Server:
    """A Tryton with one price list and every item. `asked`: the calls, by model and field. `unseen`: no look at a
    product shows its lines."""

    def __init__(self) -> None:
        self.unseen = False
        self.lines: list[dict[str, Any]] = []
        self.asked: list[str] = []

    def search(self, model: str, domain: Sequence[Any], names: Sequence[str], *_: Any) -> list[dict[str, Any]]:
        self.asked.append(f"{model} {domain[0][0] if domain else ''}".strip())
        if model == LINE:
            return [*self.lines]
        return [{"id": 1, "company": 1}] if model == "web.shop" else [LIST]

    def among(
        self, model: str, name: str, values: Sequence[Any], names: Sequence[str], *_: Any
    ) -> list[dict[str, Any]]:
        if not values:
            return []
        self.asked.append(f"{model} {name}")
        if model == "product.product":
            units = {"sale_uom": 1, "default_uom": 1}
            return [{"id": int(sku), "code": sku, "template.": units} for sku in values]
        if model != LINE:
            return [LIST]
        of = (lambda row: row["product."]["id"]) if name == "product" else (lambda row: row[name])
        return [row for row in self.lines if of(row) in values and not self.unseen]

    def call(self, model: str, method: str, values: Sequence[Any]) -> list[int]:
        self.asked.append(f"{model} {method}")
        if method == "delete":
            self.lines = [row for row in self.lines if row["id"] not in values]
            return []
        first = len(self.lines) + 1
        for number, one in enumerate(values, first):
            product = {"id": one["product"], "code": str(one["product"])}
            self.lines.append({**one, "id": number, "_timestamp": "1", "product.": product})
        return list(range(first, first + len(values)))


def step(sku: int) -> Step:
    fields = {
        "sku": str(sku), "price_list": "list", "currency": "EUR", "amount": Decimal("9.90"), "tax_included": True,
        "valid_from": None, "valid_until": None, "minimum_quantity": Decimal(1),
    }  # fmt: skip
    ref = ErpRef("price", f"shop/price/{sku}/1")
    return Step(ref, "create", ErpRecord("price", fields), None, Milestone.CONFIRMED, 1)


def test_a_batch_of_new_prices_takes_three_calls_once_lists_and_lines_are_known() -> None:
    server = Server()
    rpc = cast(Rpc, server)
    master = MasterData(rpc, TrytonSettings.model_validate(SETTINGS | {"payment_term": "t"}))
    prices = Prices(rpc, master)
    for skus in ((1, 2), (3, 4)):
        server.asked.clear()
        assert master.salable([str(sku) for sku in skus]) == {str(sku) for sku in skus}
        results = prices.do("create", [step(sku) for sku in skus], cast(WriteCalls, server))
        assert [result.reference for result in results if isinstance(result, Observed)] == [str(sku) for sku in skus]
    assert server.asked == ["product.product code", f"{LINE} create", f"{LINE} product"]
