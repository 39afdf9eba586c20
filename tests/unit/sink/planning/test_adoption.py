"""Matching lines that people typed into the ERP with the shop's."""

from collections.abc import Mapping

import pytest

from sink.erp.contract import Observed, Step
from sink.erp.kinds import ErpRecord, ErpRef, Fields, Milestone
from sink.planning.adoption import Target, adopt, matched
from sink.planning.policy import Check, Hold
from tests.erp_contract.records import REF, D, changed, line, sale

ORDER, HAND = REF["order"], ErpRef("order", "hand:7")
Rows = Mapping[str, tuple[str, str, str]]  # key → SKU, quantity, price of one


def _lines(rows: Rows) -> dict[str, Fields]:
    return {key: line(quantity, price, sku) for key, (sku, quantity, price) in rows.items()}


def _pairs(ours: Rows, theirs: Rows) -> dict[str, str]:
    found = matched(sale(_lines(ours)), sale(_lines({f"hand:{key}": row for key, row in theirs.items()})))
    assert not found.unclear
    return {one.key: other.key.removeprefix("hand:") for one, other in found.pairs}


A1, A2 = ("A", "1", "10.00"), ("A", "2", "10.00")


@pytest.mark.parametrize(
    ("ours", "theirs", "pairs"),
    [
        ({"1": A1, "2": A2}, {"8": A2, "9": A1}, {"1": "9", "2": "8"}),
        ({"1": A1}, {"8": ("A", "1.000", "9.00")}, {"1": "8"}),
        ({"1": A1}, {"8": ("A", "3", "9.00")}, {"1": "8"}),
        ({"1": A1, "2": ("A", "1", "9.00")}, {"8": ("A", "1", "9.00"), "9": A1}, {"1": "9", "2": "8"}),
        ({"1": A1, "2": A1}, {"8": A1, "9": A1}, {"1": "8", "2": "9"}),
        ({"1": A1, "2": ("A", "1", "9.00")}, {"8": ("A", "1", "8.00"), "9": A1}, {"1": "9", "2": "8"}),
        ({"1": A1, "2": A2}, {"8": ("A", "3", "10.00")}, {}),
        ({"1": A1}, {"8": ("B", "1", "10.00")}, {}),
    ],
)
def test_lines_are_matched_by_item_quantity_and_price(ours: Rows, theirs: Rows, pairs: dict[str, str]) -> None:
    assert _pairs(ours, theirs) == pairs


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"1": A1, "2": A1}, {"8": A1}),
        ({"1": A1}, {"8": A1, "9": A1}),
        ({"1": A1, "2": ("A", "1", "9.00")}, {"8": ("A", "1", "8.00"), "9": ("A", "1", "7.00")}),
    ],
)
def test_what_could_be_one_of_several_is_held(ours: Rows, theirs: Rows) -> None:
    found = _adopted(sale(_lines(ours)), sale(_lines({f"hand:{key}": row for key, row in theirs.items()})))
    assert isinstance(found, Hold)
    assert found.check is Check.LINK
    assert "line:1" in found.reason


def _adopted(desired: ErpRecord, theirs: ErpRecord, milestone: Milestone | None = Milestone.CONFIRMED) -> Step | Hold:
    found = adopt(ORDER, desired, Target(HAND, Observed(theirs, milestone, "7", "s", 2)), 1)
    return found if isinstance(found, Hold) else found[0]


def test_a_charge_that_was_typed_in_as_a_line_is_one() -> None:
    desired = sale(_lines({"1": A1}), {"c": line("1", "4.90", None, "charge")})
    theirs = sale({"hand:1": line("1", "4.00", None, "charge"), "hand:2": line("1", "10.00")})
    step = _adopted(desired, theirs)
    assert isinstance(step, Step)
    assert step.adopts
    assert step.adopts.document == "hand:7"
    assert step.adopts.children == {
        "hand:1": ORDER.child("charge", "c").external,
        "hand:2": ORDER.child("line", "1").external,
    }
    assert step.want.parts["charge"]["c"]["gross"] == D("4.00"), "as the ERP has it"
    assert step.key == 3, "past that of a document that was ours once"


def test_what_is_on_one_side_only_keeps_its_own_key() -> None:
    step = _adopted(sale(_lines({"1": A1})), sale(_lines({"hand:1": A1, "hand:2": ("B", "1", "1.00")})))
    assert isinstance(step, Step)
    assert [*step.want.parts["line"]] == ["hand:2", "1"]


def test_what_the_erp_does_not_keep_is_as_the_shop_has_it_and_a_cancelled_one_is_cancelled() -> None:
    desired = changed(sale(_lines({"1": A1})), payment_reference="x")
    whole = sale(_lines({"hand:1": A1}), number="P-5")
    kept = {name: value for name, value in whole.fields.items() if name not in ("payment_reference", "cancelled")}
    step = _adopted(desired, ErpRecord("order", kept, {"line": whole.parts["line"]}), Milestone.CANCELLED)
    assert isinstance(step, Step)
    wanted = {name: step.want.fields[name] for name in ("payment_reference", "number", "cancelled")}
    assert wanted == {"payment_reference": "x", "number": "P-5", "cancelled": True}
    assert step.goal is Milestone.CANCELLED


def test_what_is_not_there_or_cannot_be_read_is_held() -> None:
    gone = adopt(ORDER, sale({}), Target(HAND, None), 0)
    assert isinstance(gone, Hold)
    assert (gone.check, "hand:7" in gone.reason) == (Check.LINK, True)
    limbo = _adopted(sale({}), sale({}), milestone=None)
    assert isinstance(limbo, Hold)
    assert limbo.check is Check.UNREADABLE
