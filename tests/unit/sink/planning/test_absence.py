"""What is gone from an order that is there: kept, held, or amended."""

from dataclasses import replace
from decimal import Decimal

import pytest

from sink.documents.records import from_json, paid_by, to_json
from sink.erp.kinds import ErpRecord, Fields
from sink.planning.absence import Present, with_absent
from sink.planning.policy import Absence

LINES = {"1": {"sku": "A", "gross": Decimal(60)}, "2": {"sku": "B", "gross": Decimal(40)}}


def _payment(amount: int, reference: str = "r") -> Fields:
    return {"means": "card", "amount": Decimal(amount), "reference": reference}


def _order(cancelled: bool = False, **payments: Fields) -> ErpRecord:
    head = {"number": "S-1", "cancelled": cancelled, **paid_by(payments)}
    return ErpRecord("order", head, {"line": LINES, "charge": {}}, payments)


ONE, TWO = _payment(60, "r1"), _payment(40, "r2")
APPLIED = _order(p1=ONE, p2=TWO)


def _wanted(desired: ErpRecord, absence: Absence, applied: ErpRecord = APPLIED) -> ErpRecord:
    found = _present(desired, absence, from_json(to_json(applied)))
    assert found.hold is None
    return found.desired


def _present(
    desired: ErpRecord, absence: Absence, applied: ErpRecord = APPLIED, there: ErpRecord | None = None
) -> Present:
    return with_absent(desired, applied, there or applied, absence)


@pytest.mark.parametrize("left", [{}, {"p1": ONE}, {"p2": TWO}])
def test_f8_payments_that_are_gone_stay_counted(left: dict[str, Fields]) -> None:
    assert _wanted(_order(**left), Absence()).fields == APPLIED.fields
    assert _wanted(_order(**left), Absence(payments="amend")).fields == _order(**left).fields
    held = _present(_order(**left), Absence(payments="hold"))
    assert held.hold is not None
    assert "the ERP was told 100" in held.hold.reason
    assert held.desired == APPLIED
    corrected = _order(**left)
    assert _present(_order(**left), Absence(payments="hold"), there=corrected) == (corrected, None), "by a person"


def test_what_changed_of_the_payments_that_are_left_is_taken() -> None:
    wanted = _wanted(_order(p1=_payment(50, "r1")), Absence())
    assert (wanted.fields["paid"], wanted.payments) == (Decimal(90), {"p1": _payment(50, "r1"), "p2": TWO})


def test_a_payment_lowered_or_given_back_is_no_absence() -> None:
    for desired in (_order(p1=ONE, p2=_payment(30)), _order(p1=ONE, p2=TWO, p3=_payment(-20))):
        assert _wanted(desired, Absence(payments="hold")) == desired


def test_a_payment_under_another_key_is_the_same_one() -> None:
    desired = _order(p1=ONE, p9=TWO)
    assert _wanted(desired, Absence(payments="hold")) == desired


def test_payments_in_the_place_of_others_are_held_where_they_are_less() -> None:
    assert _wanted(_order(p3=_payment(100)), Absence()).fields["paid"] == Decimal(100)
    assert _present(_order(p3=_payment(90)), Absence()).hold


def test_a_release_before_knew_the_sum_alone() -> None:
    before = replace(APPLIED, payments=None)
    assert _wanted(_order(), Absence(), before).fields == APPLIED.fields
    for desired in (_order(p1=ONE), _order(p1=ONE, p2=TWO, p3=_payment(-20))):
        assert _wanted(desired, Absence(), before) == desired, "nobody knows whether one is gone"
    assert _present(_order(), Absence(payments="hold"), before).hold


def test_f8_a_line_that_is_gone_is_taken_out_or_held() -> None:
    desired = replace(APPLIED, parts={"line": {"1": LINES["1"]}, "charge": {}})
    assert _wanted(desired, Absence()) == desired
    held = _present(desired, Absence(lines="hold"))
    assert held.hold is not None
    assert held.hold.reason == "gone in the shop, but still in the ERP: line:2"
    assert held.desired == APPLIED
    assert _present(desired, Absence(lines="hold"), there=desired).hold is None, "a person has taken it out there"
    more = replace(APPLIED, parts={"line": {**LINES, "3": LINES["1"]}, "charge": {}})
    assert _wanted(more, Absence(lines="hold")) == more


def test_what_is_held_keeps_no_cancellation() -> None:
    desired = replace(_order(cancelled=True), parts={"line": {}, "charge": {}})
    for absence, parts in ((Absence(lines="hold"), APPLIED.parts), (Absence(payments="hold"), desired.parts)):
        wanted = _wanted(desired, absence)
        assert wanted.fields == {**APPLIED.fields, "cancelled": True}
        assert wanted.parts == parts
