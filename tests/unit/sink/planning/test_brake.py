"""Which changes the brake counts."""

from decimal import Decimal
from typing import Any

import pytest

from sink.erp.contract import Basis, Step, Verb
from sink.erp.kinds import ErpRecord, ErpRef, Kind, Milestone
from sink.planning.brake import Brake, Mass, counted

LIMITS = Brake(percent=20)


def _step(kind: Kind, verb: Verb, **fields: Any) -> Step:
    before = Basis(Milestone.CONFIRMED, "1")
    return Step(ErpRef(kind, f"shop/{kind}/1/1"), verb, ErpRecord(kind, fields), before, Milestone.CONFIRMED, 2)


@pytest.mark.parametrize(
    ("kind", "verb", "mass"),
    [
        ("order", "create", None),
        ("order", "amend", "orders"),
        ("order", "cancel", "orders"),
        ("order", "advance", None),
        ("return", "amend", "orders"),
        ("refund", "cancel", "orders"),
        ("customer", "amend", None),
        ("price", "create", None),
        ("price", "remove", "prices"),
    ],
)
def test_what_the_erp_has_counts_when_it_is_changed(kind: Kind, verb: Verb, mass: Mass | None) -> None:
    assert counted(_step(kind, verb), None, LIMITS) == mass


@pytest.mark.parametrize(
    ("was", "now", "large"),
    [("10", "12", False), ("10", "8", False), ("10", "12.01", True), ("10", "7.99", True), ("0", "0.01", True)],
)
def test_a_price_counts_by_the_size_of_its_change(was: str, now: str, large: bool) -> None:
    price = {"currency": "EUR", "tax_included": True}
    before = ErpRecord("price", {**price, "amount": Decimal(was)})
    assert counted(_step("price", "amend", **price, amount=Decimal(now)), before, LIMITS) == (
        "prices" if large else None
    )


@pytest.mark.parametrize("other", [{"currency": "CHF"}, {"tax_included": False}])
def test_a_price_in_another_currency_or_without_its_tax_is_another_price(other: dict[str, Any]) -> None:
    price = {"currency": "EUR", "tax_included": True, "amount": Decimal(10)}
    assert counted(_step("price", "amend", **price | other), ErpRecord("price", price), LIMITS) == "prices"
