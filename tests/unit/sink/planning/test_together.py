"""A hold keeps back only its group: what is sent and what is held is together what the shop wants, and the ERP's
document always adds up."""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sink.erp.contract import Found, Moved, Observed, Step
from sink.erp.fields import FIELDS
from sink.erp.kinds import KINDS, ErpRecord, ErpRef, Fields, Kind, Milestone, PartKind
from sink.planning.changes import changes
from sink.planning.decisions import Decisions
from sink.planning.planner import SEND, TABLE, DoneByHand, Plan, Standpoint, can_be_divided, plan
from sink.planning.policy import Absence, Check, Hold, Policy
from sink.planning.together import FIGURES, group_of, with_groups

REF = ErpRef("order", "shop/order/1/1")
POLICY = Policy("shop")
SUMS = ("net", "tax", "gross")


def _rows(sign: int) -> st.SearchStrategy[Mapping[str, Fields]]:
    """Children by key; net, tax and gross of each fit."""
    row = st.tuples(st.integers(1, 3), st.integers(0, 3), st.sampled_from("AB")).map(
        lambda one: {
            "quantity": Decimal(one[0]), "net": sign * Decimal(one[0]), "tax": sign * Decimal(one[1]),
            "gross": sign * Decimal(one[0] + one[1]), "sku": one[2],
        }
    )  # fmt: skip
    return st.dictionaries(st.sampled_from("123"), row, max_size=2)


def _order(parts: Mapping[PartKind, Mapping[str, Fields]], more: Fields) -> ErpRecord:
    """An order whose totals are the sums of its children."""
    rows = [row for many in parts.values() for row in many.values()]
    totals = {name: sum((row[name] for row in rows), Decimal(0)) for name in SUMS}  # type: ignore[misc]
    return ErpRecord("order", {**more, **totals}, parts)


_HEAD = {
    "number": st.sampled_from(["S-1", "S-2"]),
    "account": st.sampled_from([ErpRef("customer", "a"), ErpRef("customer", "b")]),
    "currency": st.sampled_from(["EUR", "USD"]),
    "paid": st.sampled_from([Decimal(5), Decimal(9)]),
    "payment_means": st.sampled_from(["card", "cash"]),
    "billing_city": st.sampled_from(["Bonn", "Ulm"]),
    "shipping_street": st.sampled_from(["A 1", "B 2"]),
    "shipping_city": st.sampled_from(["Bonn", "Ulm"]),
    "cancelled": st.booleans(),
}
_PARTS = {"line": _rows(1), "charge": _rows(1), "discount": _rows(-1)}
ORDERS = st.builds(_order, st.fixed_dictionaries(_PARTS), st.fixed_dictionaries(_HEAD))


def _adds_up(record: ErpRecord) -> bool:
    rows = [row for many in record.parts.values() for row in many.values()]
    return all(record.fields[name] == sum(row[name] for row in rows) for name in SUMS)  # type: ignore[misc]


def _seen(record: ErpRecord, milestone: Milestone) -> Observed:
    """The document as an ERP shows it, where the state tells whether it is cancelled."""
    fields = {name: value for name, value in record.fields.items() if name != "cancelled"}
    return Observed(replace(record, fields=fields), milestone, "1", "stamp", 1)


def _groups(record: ErpRecord) -> dict[str, Any]:
    """The fields and parts of each group."""
    found: dict[str, dict[str, Any]] = {FIGURES: {"parts": record.parts}}
    for name, value in record.fields.items():
        found.setdefault(group_of(record.kind, "", name), {})[name] = value
    return found


@settings(max_examples=300, deadline=None)
@given(
    ORDERS,
    ORDERS,
    ORDERS,
    st.sets(st.sampled_from([FIGURES, "payment_means", "shipping", "number"])),
    st.sampled_from(list(Milestone)),
)
def test_what_goes_and_what_is_held_is_what_is_wanted(
    desired: ErpRecord, applied: ErpRecord, other: ErpRecord, edited: set[str], milestone: Milestone
) -> None:
    """Whatever the shop has changed, and a person in the ERP (`edited`), and what has become of the document there."""
    world = _World(desired, applied, with_groups(applied, edited, other), milestone)
    said = Decisions()
    for _ in range(10):
        result = world.at_rest(said)
        if not isinstance(result, Hold):
            break
        assert result.disputed, "a person can say that it stays"
        said = said.accepting(result.disputed)
    assert result == [], "once they have, nothing is held"
    if Milestone.CANCELLED is not world.milestone:
        accepted = {group_of("order", one.part, one.name) for one in said.fields}
        ours, theirs = _groups(desired), _groups(world.there)
        assert {group for group in ours if ours[group] != theirs[group]} <= accepted | {"cancelled"}
        assert ("cancelled" in accepted) or not desired.fields["cancelled"]


class _World:
    """The document as the shop has it, as it was last written, and as the ERP has it."""

    def __init__(self, desired: ErpRecord, applied: ErpRecord, there: ErpRecord, milestone: Milestone) -> None:
        self.desired, self.applied, self.there = desired, applied, there
        self.milestone = Milestone.CANCELLED if applied.fields["cancelled"] else milestone

    def at_rest(self, said: Decisions) -> Plan:
        """The plan that remains once every step that can be done is done."""
        for key in range(1, 6):
            ledger = Standpoint(self.applied, key=key, accepted=said.fields)
            result = plan(REF, self.desired, ledger, _seen(self.there, self.milestone), POLICY)
            if isinstance(result, DoneByHand):
                self.applied = result.record
            elif isinstance(result, Hold) or not result:
                return result
            else:
                self._do(result[0])
        raise AssertionError("it never comes to rest")

    def _do(self, step: Step) -> None:
        assert _adds_up(step.want), "what goes is never torn"
        ours, theirs = _groups(self.desired), _groups(self.there)
        for group, fields in _groups(step.want).items():
            assert group == "cancelled" or fields in (ours[group], theirs[group]), f"{group} is torn"
        assert step.verb == "amend" or self.desired.fields["cancelled"]
        for change in changes(step.want, self.there) - {"cancel"}:
            assert TABLE[change][self.milestone] == SEND
        if step.verb == "cancel":
            assert TABLE["cancel"][self.milestone] == SEND
            self.milestone = Milestone.CANCELLED
        self.there, self.applied = step.want, step.written


def _plan(
    desired: ErpRecord, milestone: Milestone, there: ErpRecord | None = None, absent: Absence | None = None
) -> Plan:
    return plan(REF, desired, Standpoint(ORDER), _seen(there or ORDER, milestone), Policy("shop", absent or Absence()))


def _head(**fields: Any) -> ErpRecord:
    return replace(ORDER, fields={**ORDER.fields, **fields})


LINE = {"sku": "A", "quantity": Decimal(3), "net": Decimal(10), "tax": Decimal(2), "gross": Decimal(12)}
ORDER = ErpRecord(
    "order",
    {
        "number": "S-1", "net": Decimal(10), "tax": Decimal(2), "gross": Decimal(12), "currency": "EUR",
        "paid": Decimal(12), "payment_means": "card", "billing_street": "A 1", "billing_city": "Bonn",
        "shipping_street": "A 1", "shipping_city": "Bonn", "cancelled": False,
    },
    {"line": {"1": LINE}, "charge": {}},
    {"p": {"means": "card", "amount": Decimal(12), "reference": None}},
)  # fmt: skip
CHEAPER = {"net": Decimal(5), "tax": Decimal(1), "gross": Decimal(6)}
MOVED = {"shipping_street": "B 2", "shipping_city": "Ulm"}


def _step(result: Plan) -> Step:
    assert isinstance(result, list)
    return result[0]


@pytest.mark.parametrize(
    ("milestone", "changed", "goes"),
    [
        (Milestone.CONFIRMED, {**CHEAPER, **MOVED, "paid": Decimal(6)}, {**CHEAPER, **MOVED, "paid": Decimal(6)}),
        (Milestone.DELIVERED, {**CHEAPER, **MOVED}, CHEAPER),
        (Milestone.INVOICED, {**CHEAPER, **MOVED, "paid": Decimal(6)}, {"paid": Decimal(6)}),
        (Milestone.DELIVERED, {**CHEAPER, "currency": "USD", "paid": Decimal(6)}, {"paid": Decimal(6)}),
        (Milestone.DELIVERED, {**CHEAPER, "cancelled": True, "paid": Decimal(0)}, {"paid": Decimal(0)}),
    ],
    ids=["all", "a price without its address", "a payment alone", "a price in its currency", "what was given back"],
)
def test_what_is_held_keeps_what_it_adds_up_with_and_nothing_else(
    milestone: Milestone, changed: dict[str, Any], goes: dict[str, Any]
) -> None:
    step = _step(_plan(_head(**changed), milestone))
    assert step.want == _head(**goes)
    assert (step.noted is None) is (changed == goes)


def test_half_an_address_is_never_sent() -> None:
    """A person corrects the street in the ERP, the shop the city: the goods would go to neither."""
    there = _head(shipping_street="A 1a")
    step = _step(_plan(_head(shipping_city="Ulm", paid=Decimal(6)), Milestone.CONFIRMED, there))
    assert step.want == replace(there, fields={**there.fields, "paid": Decimal(6)})
    assert step.noted == _head(paid=Decimal(6)), "by that the next look finds the edit again"
    again = plan(
        REF,
        _head(shipping_city="Ulm", paid=Decimal(6)),
        Standpoint(step.noted),
        _seen(step.want, Milestone.CONFIRMED),
        POLICY,
    )
    assert isinstance(again, Hold)
    assert {one.name for one in again.disputed} == {"shipping_street", "shipping_city"}


def test_what_a_person_has_done_of_a_change_is_not_undone_by_the_rest() -> None:
    """The person has written the new price, and the ledger does not know it yet. The payment is sent."""
    by_hand = _head(**CHEAPER)
    step = _step(_plan(_head(**CHEAPER, **MOVED, paid=Decimal(6)), Milestone.INVOICED, by_hand))
    assert step.want == _head(**CHEAPER, paid=Decimal(6))


WRAPPED = replace(_head(net=Decimal(12), gross=Decimal(14), paid=Decimal(14), **MOVED), parts={
    "line": {"1": LINE}, "charge": {"2": {"net": Decimal(2), "tax": Decimal(0), "gross": Decimal(2)}}
})  # fmt: skip
NARROWED = {"add charges": "there is no room for one"}


def test_what_an_adapter_cannot_add_keeps_back_neither_payment_nor_address() -> None:
    """Gift wrap is added in processing, and the difference is paid."""
    seen = replace(_seen(ORDER, Milestone.PROCESSING), may_not=NARROWED)
    step = _step(plan(REF, WRAPPED, Standpoint(ORDER), seen, POLICY))
    assert (step.want, step.noted) == (_head(paid=Decimal(14), **MOVED),) * 2
    seen = replace(_seen(step.want, Milestone.PROCESSING), may_not=NARROWED)
    rest = plan(REF, WRAPPED, Standpoint(step.written), seen, POLICY)
    assert isinstance(rest, Hold)
    assert (rest.reason, rest.check) == ("add charges, but there is no room for one", Check.POSTED)
    assert {one.name or one.part for one in rest.disputed} == {"net", "gross", "charge"}


def test_after_a_refusal_payment_and_address_go_first_and_the_rest_by_itself() -> None:
    """What only the ERP knows: nothing has narrowed the cell."""
    whole = _step(_plan(WRAPPED, Milestone.PROCESSING))
    assert whole.want == WRAPPED
    assert can_be_divided(whole, ORDER)
    first = _step(plan(REF, WRAPPED, Standpoint(ORDER, refused=True), _seen(ORDER, Milestone.PROCESSING), POLICY))
    assert (first.want, first.goal) == (_head(paid=Decimal(14), **MOVED), Milestone.PROCESSING)
    assert not can_be_divided(first, ORDER)
    for refused in (False, True):
        ledger = Standpoint(first.written, refused=refused)
        rest = _step(plan(REF, WRAPPED, ledger, _seen(first.want, Milestone.PROCESSING), POLICY))
        assert (rest.want, rest.noted) == (WRAPPED, None)
        assert not can_be_divided(rest, first.written)


def test_of_rows_that_are_gone_the_rest_goes() -> None:
    desired = replace(_head(**MOVED, paid=Decimal(5)), payments={}, parts={"line": {}})
    held = _plan(desired, Milestone.CONFIRMED, absent=Absence(payments="hold", lines="hold"))
    assert _step(held).want == _head(**MOVED)
    after = plan(
        REF, desired, Standpoint(_step(held).written), _seen(_head(**MOVED), Milestone.CONFIRMED),
        Policy("shop", Absence(payments="hold", lines="hold")),
    )  # fmt: skip
    assert isinstance(after, Hold)
    assert after.check is Check.ABSENT


def test_a_return_of_more_than_was_sold_gets_its_number() -> None:
    line = {"order_line": REF.child("line", "1"), "quantity": Decimal(1)}
    back = ErpRecord("return", {"number": "R", "order": REF}, {"line": {"r": line}})
    more = ErpRecord("return", {"number": "R-1", "order": REF}, {"line": {"r": {**line, "quantity": Decimal(9)}}})
    order = Found(REF, replace(_seen(ORDER, Milestone.DELIVERED), moved={"1": Moved()}))
    ref = ErpRef("return", "shop/return/1/1")
    step = _step(plan(ref, more, Standpoint(back), _seen(back, Milestone.CONFIRMED), POLICY, order))
    assert step.want == replace(back, fields={**back.fields, "number": "R-1"})
    rest = plan(ref, more, Standpoint(step.written), _seen(step.want, Milestone.CONFIRMED), POLICY, order)
    assert isinstance(rest, Hold)
    assert rest.check is Check.CAP


@pytest.mark.parametrize("kind", KINDS)
def test_amounts_of_a_document_are_one_group_with_its_children(kind: Kind) -> None:
    amounts = {name for name, field in FIELDS[kind].items() if field.type == "money" and name != "paid"}
    assert {group_of(kind, "", name) for name in amounts} <= {FIGURES}
    assert group_of(kind, "line", "quantity") == FIGURES
