"""What a person has accepted of a document, and holds on a change that do not hold its cancellation."""

from dataclasses import replace
from decimal import Decimal

import pytest

from sink.erp.contract import Observed
from sink.erp.kinds import ErpRecord, ErpRef, Milestone
from sink.planning.decisions import Decisions, agreed, as_written
from sink.planning.planner import Plan, Standpoint, plan
from sink.planning.policy import Check, Disputed, Hold, Policy

LINE = {"sku": "A", "quantity": Decimal(3), "gross": Decimal(12)}
HEAD = {"number": "S-1", "gross": Decimal(12), "paid": Decimal(12), "means": "card", "cancelled": False}
ORDER = ErpRecord("order", HEAD, {"line": {"1": LINE}})
REF = ErpRef("order", "shop/order/1/1")


def head(**fields: object) -> ErpRecord:
    return replace(ORDER, fields={**HEAD, **fields})


def seen(record: ErpRecord, milestone: Milestone = Milestone.CONFIRMED) -> Observed:
    fields = {name: value for name, value in record.fields.items() if name != "cancelled"}
    return Observed(replace(record, fields=fields), milestone, "1", "stamp", 1)


def planned(desired: ErpRecord, observed: Observed, said: Decisions, applied: ErpRecord = ORDER) -> Plan:
    return plan(REF, desired, Standpoint(applied, accepted=said.fields), observed, Policy("shop"))


def accepting(hold: Plan, said: Decisions | None = None) -> Decisions:
    """The decisions after a person has accepted a hold, written to JSON and read back."""
    assert isinstance(hold, Hold)
    found = (said or Decisions()).accepting(hold.disputed)
    assert Decisions.from_json(found.to_json()) == found
    return found


CASH = seen(head(means="cash"))


def test_a_field_counts_as_equal_until_either_changes() -> None:
    said = accepting(planned(ORDER, CASH, Decisions()))
    assert planned(ORDER, CASH, said) == []
    [amend] = planned(head(paid=Decimal(5)), CASH, said)  # type: ignore[misc]
    assert amend.want.fields == {**HEAD, "paid": Decimal(5), "means": "cash"}
    for desired, observed in ((ORDER, seen(head(means="cheque"))), (head(means="bank"), CASH)):
        for applied in (ORDER, head(means="cash")):  # as it was written before, or since
            assert isinstance(planned(desired, observed, said, applied), Hold)


def test_a_shop_that_comes_to_what_the_erp_has_agrees_with_it() -> None:
    said = accepting(planned(ORDER, CASH, Decisions()))
    cash = head(means="cash")
    assert planned(cash, CASH, said, cash) == []
    assert planned(ORDER, seen(ORDER), said, head(means="cash")) == [], "a clerk has undone it"


@pytest.mark.parametrize(
    "there", [{}, {"1": LINE, "9": LINE}, {"1": {**LINE, "quantity": Decimal(2)}}], ids=["missing", "new", "changed"]
)
def test_lines_are_accepted(there: dict[str, dict[str, object]]) -> None:
    observed = seen(replace(ORDER, parts={"line": there}))  # type: ignore[arg-type]
    said = accepting(planned(ORDER, observed, Decisions()))
    assert planned(ORDER, observed, said) == []
    [amend] = planned(head(paid=Decimal(5)), observed, said)  # type: ignore[misc]
    assert amend.want.parts == {"line": there}
    changed = replace(ORDER, parts={"line": {"1": {**LINE, "quantity": Decimal(5)}}})
    assert isinstance(planned(changed, observed, said), list if "9" in there else Hold)


def test_of_what_the_erp_does_not_change_any_more_the_rest_goes() -> None:
    invoiced = seen(ORDER, Milestone.INVOICED)
    both, paid = head(gross=Decimal(9), paid=Decimal(9)), head(paid=Decimal(9))
    [amend] = planned(both, invoiced, Decisions())  # type: ignore[misc]
    assert (amend.want, amend.written) == (paid, paid)
    invoiced = seen(paid, Milestone.INVOICED)
    hold = planned(both, invoiced, Decisions(), paid)
    assert isinstance(hold, Hold)
    assert [one.name for one in hold.disputed] == ["gross"]
    said = accepting(hold)
    assert planned(both, invoiced, said, paid) == []
    assert isinstance(planned(head(gross=Decimal(8), paid=Decimal(9)), invoiced, said, paid), Hold)


def test_what_is_undone_counts_as_it_was_written() -> None:
    said = accepting(planned(ORDER, CASH, Decisions()))
    assert as_written(head(means="cash"), said.fields) == ORDER
    assert as_written(head(means="bank"), said.fields) == head(means="bank"), "it was written anew since"


def test_what_is_said_anew_takes_the_place_of_what_was_said() -> None:
    said = accepting(planned(ORDER, CASH, Decisions()))
    cheque = seen(head(means="cheque"))
    said = accepting(planned(ORDER, cheque, said), said)
    assert [one.theirs for one in said.fields] == [{"means": "cheque"}]


def test_what_the_erp_does_not_give_back_counts_by_the_shop_alone() -> None:
    hidden = Disputed("", "", "secret", {"secret": "a"}, {"secret": "b"}, {"secret": "b"})
    desired, applied = agreed(head(secret="a"), head(secret="b"), seen(ORDER), [hidden])
    assert desired.fields["secret"] == applied.fields["secret"] == "b"


def test_a_version_passes_the_check_that_it_was_released_for() -> None:
    said = Decisions(released={"cap": "v1"})
    assert said.passes("v1") == {Check.CAP}
    assert not said.passes("v2")
    assert not Decisions(released={"cap": ""}).passes("")
    assert Decisions(kept="v1").keeps("v1")
    assert not Decisions().keeps("")


def test_decisions_about_a_version_end_with_another_one() -> None:
    said = Decisions(kept="missing", released={"deleted": "missing", "cap": "v1"}, linked="hand:7")
    assert said.about("missing") == Decisions(kept="missing", released={"deleted": "missing"}, linked="hand:7")
    assert said.about("v1") == Decisions(released={"cap": "v1"}, linked="hand:7")
    assert said.about("") == said, "it could not be built"


def test_what_the_shop_deleted_is_cancelled_where_the_erp_can() -> None:
    ledger = Standpoint(ORDER, released=frozenset({Check.DELETED}))
    came: dict[Milestone, Plan] = {
        milestone: plan(REF, None, ledger, seen(ORDER, milestone), Policy("shop"))
        for milestone in (Milestone.CONFIRMED, Milestone.INVOICED, Milestone.CANCELLED)
    }
    steps, held, over = came.values()
    assert isinstance(steps, list)
    assert [step.verb for step in steps] == ["cancel"]
    assert isinstance(held, Hold)
    assert held.check is Check.POSTED
    assert over == []


@pytest.mark.parametrize("refused", [True, False])
def test_a_cancellation_goes_without_what_keeps_the_rest(refused: bool) -> None:
    wanted = head(cancelled=True, gross=Decimal(9))
    edited = planned(head(cancelled=True, means="bank"), CASH, Decisions())
    assert isinstance(edited, list)
    [cancel] = edited
    assert (cancel.verb, cancel.want.fields) == ("cancel", {**HEAD, "means": "cash", "cancelled": True})
    steps = plan(REF, wanted, Standpoint(ORDER, refused=refused), seen(ORDER), Policy("shop"))
    assert isinstance(steps, list)
    assert [step.verb for step in steps] == (["cancel"] if refused else ["amend", "cancel"])
    narrowed = replace(seen(ORDER), may_not={"change prices": "it is locked"})
    alone = planned(wanted, narrowed, Decisions())
    assert isinstance(alone, list)
    assert [step.want.fields["gross"] for step in alone] == [Decimal(12)]
    delivered = planned(wanted, seen(head(means="cash"), Milestone.DELIVERED), Decisions())
    assert isinstance(delivered, Hold), "the last figures of an order that cannot be cancelled wait with it"


def test_what_adds_up_is_accepted_together() -> None:
    """The shop changes the sum again: the accepted line alone beside it would not add up."""
    there = replace(ORDER, fields={**HEAD, "gross": Decimal(8)}, parts={"line": {"1": {**LINE, "gross": Decimal(8)}}})
    said = accepting(planned(ORDER, seen(there), Decisions()))
    assert {(one.part, one.name) for one in said.fields} == {("", "gross"), ("line", "gross")}
    assert planned(ORDER, seen(there), said) == []
    charged = replace(ORDER, fields={**HEAD, "gross": Decimal(15)}, parts={**ORDER.parts, "charge": {"c": LINE}})
    again = planned(charged, seen(there), said, there)
    assert isinstance(again, Hold)
    assert again.check is Check.CHANGED
