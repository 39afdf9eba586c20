"""Units: an order is for units of sale, a price list for units of stock."""

from __future__ import annotations

from collections.abc import Collection
from decimal import Decimal
from typing import Any, cast

import pytest

from sink.erp.contract import HoldError, Sells
from sink.erp.tryton import catalogue
from sink.erp.tryton.catalogue import Item, MasterData
from sink.erp.tryton.rpc import Rpc
from sink.erp.tryton.settings import TrytonSettings
from sink.erp.tryton.setup import Needs

D = Decimal
PIECE, KILO, BAG, EACH = 1, 2, 3, 4
UNITS = {PIECE: ("Unit", 0, D(1)), KILO: ("Kilogram", 3, D(1)), BAG: ("Bag 25 kg", 0, D(25)), EACH: ("Each", 1, D(1))}
SOLD = {"A": (PIECE, PIECE), "BAG": (BAG, KILO), "EACH": (EACH, PIECE), "OLD": (None, KILO)}
SETTINGS = {"kind": "tryton", "url": "http://t", "database": "d", "user": "u", "password": "p", "web_shop": "w"}


class Server:
    """Has these products and units. `asked`: the models of its calls."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.digits = {unit: digits for unit, (_, digits, _) in UNITS.items()}

    def among(self, model: str, name: str, values: Collection[Any], *_: object) -> list[dict[str, Any]]:
        self.asked += [model] if values else []
        if model == "product.uom":
            return [
                {"id": one, "name": UNITS[one][0], "digits": self.digits[one], "factor": UNITS[one][2]}
                for one in values
            ]
        assert (model, name) == ("product.product", "code")
        return [
            {"id": 10 + n, "code": sku, "template.": {"sale_uom": sold, "default_uom": stocked}}
            for n, (sku, (sold, stocked)) in enumerate(SOLD.items())
            if sku in values
        ]


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def master(server: Server) -> MasterData:
    return MasterData(cast(Rpc, server), TrytonSettings.model_validate(SETTINGS | {"payment_term": "t"}))


def test_an_item_is_booked_by_its_unit_of_sale(master: MasterData, server: Server) -> None:
    found = master.items([*SOLD, "GONE"])
    assert found == {
        "A": Item(10, PIECE, 0), "BAG": Item(11, BAG, 0), "EACH": Item(12, EACH, 1), "OLD": Item(13, KILO, 3),
    }  # fmt: skip
    assert server.asked == ["product.product", "product.uom"]
    assert [master.item(sku) for sku in found] == [*found.values()], "without another call"
    assert len(server.asked) == 2


def test_a_unit_that_got_more_decimals_is_seen_within_a_minute(
    master: MasterData, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert master.salable(["A"]) == {"A"}
    assert master.item("A").digits == 0
    server.digits[PIECE] = 2
    assert master.item("A").digits == 0
    monkeypatch.setattr(catalogue, "_A_MINUTE", 0.0)
    master.salable(["A"])
    assert master.item("A").digits == 2


def test_a_price_for_another_unit_than_the_lists_is_held(master: MasterData, server: Server) -> None:
    assert [master.priced(sku) for sku in ("A", "OLD")] == [10, 13]
    assert "product.uom" not in server.asked, "most products are sold by what they are stocked by"
    assert master.priced("EACH") == 12, "of one size, by another name"
    with pytest.raises(HoldError, match="for one Bag 25 kg, the ERP's price lists are for one Kilogram") as held:
        master.priced("BAG")
    assert held.value.cause == "master data"


def test_units_that_may_mislead_are_advised(master: MasterData, server: Server) -> None:
    sells = Sells(skus=[*SOLD, "GONE"], decimals={"A": 1, "EACH": 1, "BAG": 2, "GONE": 3})
    found = [*Needs(cast(Rpc, server), master, sells)._units()]
    packed, parts = (one.message for one in found)
    assert packed.endswith("SKUs by another unit than it stocks: BAG (by Bag 25 kg, not Kilogram)")
    assert "that Tryton does not divide: A (decimals: 1, in Tryton 0), BAG (decimals: 2, in Tryton 0): " in parts
    assert all(one.hint and one.make is None for one in found)
    assert [*Needs(cast(Rpc, server), master, Sells(skus=["A", "EACH"], decimals={"EACH": 1}))._units()] == []
