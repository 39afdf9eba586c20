"""Each cell of the planner's table, and the rules around it."""

from dataclasses import replace
from decimal import Decimal

import pytest

from sink.erp.contract import Observed
from sink.erp.kinds import ErpRecord, Milestone
from sink.planning.planner import SEND, TABLE, Hold, Policy, plan

LINE = {"sku": "A", "quantity": Decimal(3), "net": Decimal(10), "gross": Decimal(12)}
HEAD = {"number": "S-1", "gross": Decimal(12), "paid": Decimal(12), "shipping_city": "Bonn", "cancelled": False}
ORDER = ErpRecord("order", HEAD, {"line:1": LINE})
POLICY = Policy("shop")
CHANGES = {
    "change prices": replace(ORDER, lines={"line:1": {**LINE, "net": Decimal(9)}}),
    "change quantities": replace(ORDER, lines={"line:1": {**LINE, "quantity": Decimal(2)}}),
    "change addresses": replace(ORDER, fields={**HEAD, "shipping_city": "Ulm"}),
    "change payment": replace(ORDER, fields={**HEAD, "paid": Decimal(5)}),
    "change head": replace(ORDER, fields={**HEAD, "number": "S-2"}),
    "cancel": replace(ORDER, fields={**HEAD, "cancelled": True}),
}


def _seen(milestone: Milestone, record: ErpRecord = ORDER, returned: str = "0") -> Observed:
    return Observed(record, milestone, "1", 1, {"line:1": {"by hand": Decimal(returned)}})


@pytest.mark.parametrize("milestone", list(Milestone))
@pytest.mark.parametrize("change", CHANGES)
def test_each_cell_of_an_order(change: str, milestone: Milestone) -> None:
    result = plan(CHANGES[change], ORDER, _seen(milestone), POLICY)
    sends = TABLE[change][milestone] == SEND
    assert isinstance(result, Hold) is not sends
    if isinstance(result, list):
        assert [command.verb for command in result] == ["cancel" if change == "cancel" else "amend"]


def test_only_what_differs_by_value_is_sent() -> None:
    same = replace(ORDER, fields={**HEAD, "gross": Decimal("12.00")})
    assert plan(same, ORDER, _seen(Milestone.DRAFT), POLICY) == []
    result = plan(CHANGES["change prices"], ORDER, _seen(Milestone.DRAFT), POLICY)
    assert isinstance(result, list)
    assert result[0].set_lines == {"line:1": {"net": Decimal(9)}}
    assert result[0].fields == {}


def test_made_once_and_gone_in_the_erp_is_held() -> None:
    assert isinstance(plan(ORDER, ORDER, None, POLICY), Hold)


def test_deleted_in_the_shop_is_held() -> None:
    assert isinstance(plan(None, ORDER, _seen(Milestone.CONFIRMED), POLICY), Hold)
    assert plan(None, None, None, POLICY) == []


@pytest.mark.parametrize(("quantity", "back", "held"), [("1", "2", False), ("2", "2", True), ("4", "0", True)])
def test_a_return_is_capped_by_sold_less_what_the_erp_has_back(quantity: str, back: str, held: bool) -> None:
    goods = ErpRecord("return", {"number": "R"}, {"1": {"order_line": "line:1", "quantity": Decimal(quantity)}})
    result = plan(goods, None, None, POLICY, _seen(Milestone.DELIVERED, returned=back))
    assert isinstance(result, Hold) is held


def test_a_refund_is_capped_by_what_was_paid() -> None:
    for gross, held in (("12", False), ("12.01", True)):
        refund = ErpRecord("refund", {"number": "G", "gross": Decimal(gross)})
        assert isinstance(plan(refund, None, None, POLICY, _seen(Milestone.PAID)), Hold) is held


def test_an_order_without_lines_is_never_made() -> None:
    assert isinstance(plan(replace(ORDER, lines={}), None, None, POLICY), Hold)


RETURN = ErpRecord("return", {"number": "R"}, {"r1": {"order_line": "line:1", "quantity": Decimal(2)}})
REFUND = ErpRecord("refund", {"number": "G", "gross": Decimal(5), "means": "card"})
CUSTOMER = ErpRecord("customer", {"number": "100001", "name": "Ann"})
PRICE = ErpRecord("price", {"sku": "A", "amount": Decimal(10)})
# Row of the table: what was written, and what the shop wants now (None: it has it no more).
OTHERS: dict[str, tuple[ErpRecord, ErpRecord | None]] = {
    "change return": (RETURN, replace(RETURN, lines={"r1": {**RETURN.lines["r1"], "quantity": Decimal(1)}})),
    "change refund": (REFUND, replace(REFUND, fields={**REFUND.fields, "gross": Decimal(4)})),
    "change customer": (CUSTOMER, replace(CUSTOMER, fields={**CUSTOMER.fields, "name": "Ann B."})),
    "change price list": (PRICE, replace(PRICE, fields={**PRICE.fields, "amount": Decimal(9)})),
    "remove price": (PRICE, None),
}


@pytest.mark.parametrize("milestone", list(Milestone))
@pytest.mark.parametrize("change", OTHERS)
def test_each_cell_of_returns_refunds_customers_and_prices(change: str, milestone: Milestone) -> None:
    applied, desired = OTHERS[change]
    order = _seen(Milestone.DELIVERED) if applied.kind in ("return", "refund") else None
    result = plan(desired, applied, _seen(milestone, applied), POLICY, order)
    if change == "remove price" and milestone is Milestone.CANCELLED:
        assert result == [], "it is as the shop wants it"
    elif TABLE[change][milestone] == SEND:
        assert isinstance(result, list)
        assert [(one.verb, one.expected) for one in result] == [("amend" if desired else "remove", milestone)]
    else:
        assert isinstance(result, Hold)
        assert result.next_step


@pytest.mark.parametrize("milestone", list(Milestone))
@pytest.mark.parametrize(("change", "record"), [("return goods", RETURN), ("refund money", REFUND)])
def test_the_order_must_take_a_return_or_refund(change: str, record: ErpRecord, milestone: Milestone) -> None:
    result = plan(record, None, None, POLICY, _seen(milestone))
    if TABLE[change][milestone] == SEND:
        assert isinstance(result, list)
        assert [one.verb for one in result] == ["create"]
    else:
        assert isinstance(result, Hold)
        assert result.reason == f"its order: {change}, but {TABLE[change][milestone]}"


@pytest.mark.parametrize("milestone", list(Milestone))
def test_a_cancelled_order_is_never_opened_again(milestone: Milestone) -> None:
    result = plan(ORDER, CHANGES["cancel"], _seen(milestone), POLICY)
    assert isinstance(result, Hold)
    assert result.reason.startswith("reopen, but")


@pytest.mark.parametrize("applied", [ORDER, RETURN, REFUND, PRICE])
def test_cancelled_by_hand_is_held_even_if_the_shop_wants_nothing_new(applied: ErpRecord) -> None:
    result = plan(applied, applied, _seen(Milestone.CANCELLED, applied), POLICY)
    assert isinstance(result, Hold)
    assert result.reason == "changed in the ERP: it was cancelled"


def test_a_price_that_was_typed_over_is_held_until_someone_says_whose_it_is() -> None:
    typed = replace(PRICE, fields={**PRICE.fields, "amount": Decimal(12)})
    wanted = replace(PRICE, fields={**PRICE.fields, "amount": Decimal(9)})
    result = plan(wanted, PRICE, _seen(Milestone.CONFIRMED, typed), POLICY)
    assert isinstance(result, Hold)
    assert "amount: we wrote 10, the ERP has 12" in result.reason
    assert isinstance(plan(typed, PRICE, _seen(Milestone.CONFIRMED, typed), POLICY), list), "both sides say the same"


def test_where_the_erp_owns_prices_none_is_sent() -> None:
    policy = Policy("erp")
    assert plan(PRICE, None, None, policy) == []
    assert plan(None, PRICE, _seen(Milestone.CONFIRMED, PRICE), policy) == []


@pytest.mark.parametrize("applied", [ORDER, RETURN, REFUND])
def test_a_delete_in_the_shop_is_no_cancellation(applied: ErpRecord) -> None:
    seen = _seen(Milestone.DRAFT, applied)
    assert isinstance(plan(None, applied, seen, POLICY), Hold)
    assert plan(None, applied, seen, Policy("shop", "keep")) == []
    assert plan(None, CUSTOMER, _seen(Milestone.CONFIRMED, CUSTOMER), POLICY) == []


def test_cancelled_before_the_erp_heard_of_it_is_not_made() -> None:
    assert plan(CHANGES["cancel"], None, None, POLICY) == []


def test_a_key_that_the_ledger_knows_nothing_of_is_held() -> None:
    assert isinstance(plan(ORDER, None, _seen(Milestone.DRAFT), POLICY), Hold)


def test_several_changes_need_each_their_cell() -> None:
    """The payment might be sent alone, but half of a change is none."""
    both = replace(ORDER, fields={**HEAD, "paid": Decimal(5), "shipping_city": "Ulm"})
    assert isinstance(plan(both, ORDER, _seen(Milestone.DELIVERED), POLICY), Hold)


def test_lines_come_go_and_change_in_one_command() -> None:
    wanted = replace(ORDER, lines={"line:2": LINE})
    result = plan(wanted, ORDER, _seen(Milestone.CONFIRMED), POLICY)
    assert isinstance(result, list)
    assert (result[0].set_lines, result[0].remove_lines) == ({"line:2": LINE}, ("line:1",))


def test_two_lines_of_one_return_share_the_cap() -> None:
    two = {f"r{n}": {"order_line": "line:1", "quantity": Decimal(2)} for n in (1, 2)}
    result = plan(replace(RETURN, lines=two), None, None, POLICY, _seen(Milestone.DELIVERED))
    assert isinstance(result, Hold)
    assert result.reason == "line:1: 4 come back, sold 3, back already 0"


def test_a_return_of_what_was_never_sold_is_held() -> None:
    odd = replace(RETURN, lines={"r1": {"order_line": "line:9", "quantity": Decimal(1)}})
    assert isinstance(plan(odd, None, None, POLICY, _seen(Milestone.DELIVERED)), Hold)


def test_a_document_does_not_count_against_itself() -> None:
    order = replace(_seen(Milestone.PAID), returned={"line:1": {"R": Decimal(2)}}, refunded={"G": Decimal(12)})
    for change in ("change return", "change refund"):
        applied, desired = OTHERS[change]
        assert isinstance(plan(desired, applied, _seen(Milestone.DRAFT, applied), POLICY, order), list)


@pytest.mark.parametrize(("gross", "held"), [("7", False), ("7.01", True)])
def test_a_refund_counts_what_was_given_back_by_hand(gross: str, held: bool) -> None:
    order = replace(_seen(Milestone.PAID), refunded={"by hand": Decimal(5)})
    refund = replace(REFUND, fields={**REFUND.fields, "gross": Decimal(gross)})
    assert isinstance(plan(refund, None, None, POLICY, order), Hold) is held


def test_only_fields_that_the_erp_has_are_compared() -> None:
    """A mapping may leave fields out: those were never written, and are no edit."""
    few = replace(ORDER, fields={"gross": Decimal("12.00")}, lines={"line:1": {"quantity": Decimal(3)}})
    assert plan(ORDER, ORDER, _seen(Milestone.CONFIRMED, few), POLICY) == []


def test_what_the_shop_changes_of_an_order_that_both_have_cancelled_wants_nothing() -> None:
    applied = CHANGES["cancel"]
    desired = replace(applied, fields={**applied.fields, "gross": Decimal(0)})
    assert plan(desired, applied, _seen(Milestone.CANCELLED, applied), POLICY) == []


def test_what_was_paid_before_a_cancellation_is_written_before_it() -> None:
    desired = replace(ORDER, fields={**HEAD, "paid": Decimal(24), "cancelled": True})
    result = plan(desired, ORDER, _seen(Milestone.CONFIRMED), POLICY)
    assert not isinstance(result, Hold)
    amend, cancel = result
    assert (amend.verb, dict(amend.fields)) == ("amend", {"paid": Decimal(24)})
    assert amend.record.fields["cancelled"] is False  # a crash in between leaves the cancellation to be done
    assert (cancel.verb, cancel.record) == ("cancel", desired)
