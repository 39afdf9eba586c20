"""Each cell of the planner's table, and the rules around it."""

from dataclasses import replace
from decimal import Decimal

import pytest

from sink.erp.contract import Found, Moved, Observed, Step
from sink.erp.kinds import ErpRecord, ErpRef, Milestone
from sink.planning.caps import with_step
from sink.planning.changes import changes
from sink.planning.planner import SEND, TABLE, DoneByHand, Plan, Standpoint, taken_back
from sink.planning.planner import plan as plan_step
from sink.planning.policy import Absence, Check, Hold, Policy
from sink.planning.ways_out import Way, ways

LINE = {"sku": "A", "quantity": Decimal(3), "net": Decimal(10), "gross": Decimal(12)}
HEAD = {"number": "S-1", "gross": Decimal(12), "paid": Decimal(12), "shipping_city": "Bonn", "cancelled": False}
ORDER = ErpRecord("order", HEAD, {"line": {"1": LINE}, "charge": {}})
POLICY = Policy("shop")
CHANGES = {
    "change prices": replace(ORDER, parts={"line": {"1": {**LINE, "net": Decimal(9)}}}),
    "change quantities": replace(ORDER, parts={"line": {"1": {**LINE, "quantity": Decimal(2)}}}),
    "change addresses": replace(ORDER, fields={**HEAD, "shipping_city": "Ulm"}),
    "change payment": replace(ORDER, fields={**HEAD, "paid": Decimal(5)}),
    "change number": replace(ORDER, fields={**HEAD, "number": "S-2"}),
    "change head": replace(ORDER, fields={**HEAD, "currency": "USD"}),
    "change tax rates": replace(ORDER, parts={"line": {"1": {**LINE, "tax_rate": Decimal(7)}}}),
    "add charges": replace(ORDER, parts={"line": {"1": LINE}, "charge": {"1": LINE}}),
    "add lines": replace(ORDER, parts={"line": {"1": LINE, "2": LINE}}),
    "cancel": replace(ORDER, fields={**HEAD, "cancelled": True}),
}


SOLD = ErpRef("order", "shop/order/1/1")
SOLD_LINE = SOLD.child("line", "1")


def _seen(milestone: Milestone, record: ErpRecord = ORDER, returned: str = "0") -> Observed:
    paid = record.fields.get("paid")
    return Observed(
        record, milestone, "1", "stamp", 1, moved={"1": Moved({"hand:1": Decimal(returned)})},
        paid=paid if isinstance(paid, Decimal) else None,
    )  # fmt: skip


def plan(
    desired: ErpRecord | None,
    applied: ErpRecord | None,
    observed: Observed | None,
    policy: Policy,
    order: Observed | None = None,
) -> Plan:
    kind = (desired or applied or ORDER).kind
    ref = ErpRef(kind, f"shop/{kind}/1/1")
    return plan_step(ref, desired, Standpoint(applied), observed, policy, Found(SOLD, order) if order else None)


@pytest.mark.parametrize("milestone", list(Milestone))
@pytest.mark.parametrize("change", CHANGES)
def test_each_cell_of_an_order(change: str, milestone: Milestone) -> None:
    assert changes(CHANGES[change], ORDER) == {change}
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
    assert result[0].want == CHANGES["change prices"]


def test_made_once_and_gone_in_the_erp_is_held() -> None:
    assert isinstance(plan(ORDER, ORDER, None, POLICY), Hold)


def test_deleted_in_the_shop_is_held() -> None:
    assert isinstance(plan(None, ORDER, _seen(Milestone.CONFIRMED), POLICY), Hold)
    assert plan(None, None, None, POLICY) == []


@pytest.mark.parametrize(("quantity", "back", "held"), [("1", "2", False), ("2", "2", True), ("4", "0", True)])
def test_a_return_is_capped_by_sold_less_what_the_erp_has_back(quantity: str, back: str, held: bool) -> None:
    goods = ErpRecord(
        "return", {"number": "R"}, {"line": {"1": {"order_line": SOLD_LINE, "quantity": Decimal(quantity)}}}
    )
    result = plan(goods, None, None, POLICY, _seen(Milestone.DELIVERED, returned=back))
    assert isinstance(result, Hold) is held


def test_a_refund_is_capped_by_what_was_paid() -> None:
    for gross, held in (("12", False), ("12.01", True)):
        refund = ErpRecord("refund", {"number": "G", "gross": Decimal(gross)})
        assert isinstance(plan(refund, None, None, POLICY, _seen(Milestone.PAID)), Hold) is held


def test_an_order_without_lines_is_never_made() -> None:
    assert isinstance(plan(replace(ORDER, parts={"line": {}}), None, None, POLICY), Hold)


RETURN = ErpRecord("return", {"number": "R"}, {"line": {"r1": {"order_line": SOLD_LINE, "quantity": Decimal(2)}}})
REFUND = ErpRecord("refund", {"number": "G", "gross": Decimal(5), "means": "card"})
CUSTOMER = ErpRecord("customer", {"number": "100001", "name": "Ann"})
PRICE = ErpRecord("price", {"sku": "A", "amount": Decimal(10)})
# A row of the table: what was written, and what the shop wants now (None: it no longer has it).
OTHERS: dict[str, tuple[ErpRecord, ErpRecord | None]] = {
    "change return": (
        RETURN,
        replace(RETURN, parts={"line": {"r1": {**RETURN.parts["line"]["r1"], "quantity": Decimal(1)}}}),
    ),
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
        assert [(one.verb, one.before) for one in result] == [("amend" if desired else "remove", (milestone, "stamp"))]
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


def test_a_cancelled_order_is_never_opened_again() -> None:
    result = plan(ORDER, CHANGES["cancel"], _seen(Milestone.CANCELLED), POLICY)
    assert isinstance(result, Hold)
    assert result.reason.startswith("reopen, but")


@pytest.mark.parametrize("milestone", list(Milestone)[:-1])
def test_an_order_that_a_person_opened_again_goes_on(milestone: Milestone) -> None:
    """The person did what the hold asks for. Other changes of the shop are planned after that."""
    result = plan(CHANGES["change payment"], CHANGES["cancel"], _seen(milestone), POLICY)
    assert result == DoneByHand(ORDER)


@pytest.mark.parametrize("milestone", list(Milestone)[:-1])
def test_a_cancelled_order_that_a_person_opened_again_is_held(milestone: Milestone) -> None:
    """Its goods would go out, though the shop has cancelled it as before."""
    result = plan(CHANGES["cancel"], CHANGES["cancel"], _seen(milestone, CHANGES["cancel"]), POLICY)
    assert isinstance(result, Hold)
    assert result.reason == "changed in the ERP: it was opened again"


@pytest.mark.parametrize("milestone", list(Milestone))
@pytest.mark.parametrize("change", [name for name in CHANGES if name != "cancel"])
def test_what_a_person_has_changed_in_the_erp_as_the_shop_wants_it_is_done(change: str, milestone: Milestone) -> None:
    wanted = CHANGES[change]
    result = plan(wanted, ORDER, _seen(milestone, wanted), POLICY)
    if milestone is Milestone.CANCELLED:
        assert isinstance(result, Hold), "and the shop did not want it cancelled"
    else:
        assert result == DoneByHand(wanted)


def test_what_the_erp_does_not_give_back_is_sent_though_all_else_is_there() -> None:
    wanted = replace(CHANGES["change prices"], fields=CHANGES["change payment"].fields)
    few = replace(wanted, fields={"gross": Decimal(12)})
    (step,) = _steps(plan(wanted, ORDER, _seen(Milestone.DRAFT, few), POLICY))
    assert step.want == wanted


@pytest.mark.parametrize("change", ["change return", "change refund"])
def test_a_return_or_refund_that_a_person_has_changed_is_done(change: str) -> None:
    applied, wanted = OTHERS[change]
    assert wanted is not None
    sold = _seen(Milestone.DELIVERED, returned="3")  # the cap would refuse it
    result = plan(wanted, applied, _seen(Milestone.INVOICED, wanted), POLICY, sold)
    assert result == DoneByHand(wanted)


@pytest.mark.parametrize("milestone", list(Milestone)[:-1])
def test_f9_an_item_that_the_erp_has_since_goods_left_stays_as_it_was_booked(milestone: Milestone) -> None:
    """Before that the line is booked on it. Afterwards there is nothing to do, whether a person has done it or not."""
    policy = Policy("shop", placeholder="MISC")
    booked = replace(ORDER, parts={"line": {"1": {**LINE, "sku": "MISC", "name": "A Cup"}}})
    wanted = replace(ORDER, parts={"line": {"1": {**LINE, "name": "Cup"}}})
    result = plan(wanted, booked, _seen(milestone, booked), policy)
    goods_left = TABLE["change quantities"][milestone] != SEND
    assert result == [] if goods_left else _steps(result)[0].want == wanted
    rebooked = plan(wanted, booked, _seen(milestone, wanted), policy)
    assert rebooked == DoneByHand(wanted)
    if goods_left:
        fewer = replace(ORDER, parts={"line": {"1": {**LINE, "name": "Cup", "quantity": Decimal(1)}}})
        assert isinstance(plan(fewer, booked, _seen(milestone, booked), policy), Hold)


def test_half_of_what_the_shop_changed_is_not_done() -> None:
    both = replace(CHANGES["change quantities"], fields=CHANGES["change addresses"].fields)
    for half in (CHANGES["change quantities"], CHANGES["change addresses"]):
        assert isinstance(plan(both, ORDER, _seen(Milestone.INVOICED, half), POLICY), Hold)


def test_what_the_erp_does_not_give_back_is_no_sign_that_it_was_done() -> None:
    few = replace(ORDER, fields={"gross": Decimal(12)})
    assert isinstance(plan(CHANGES["change addresses"], ORDER, _seen(Milestone.DELIVERED, few), POLICY), Hold)


def test_an_order_that_a_person_cancelled_as_the_shop_did_is_done_with_the_figures_that_the_erp_has() -> None:
    desired = replace(CHANGES["change prices"], fields=CHANGES["cancel"].fields)
    seen = _seen(Milestone.CANCELLED, CHANGES["cancel"])
    result = plan(desired, ORDER, seen, POLICY)
    assert result == DoneByHand(CHANGES["cancel"])
    assert plan(desired, CHANGES["cancel"], seen, POLICY) == [], "and nothing is left"


def test_an_order_stays_on_its_collective_account_when_a_person_changes_it() -> None:
    one, other = ({**HEAD, "account": ErpRef("customer", f"hand:{number}")} for number in (1, 2))
    wanted = replace(CHANGES["change quantities"], fields=other)
    done = replace(wanted, fields=one)
    result = plan(wanted, replace(ORDER, fields=one), _seen(Milestone.INVOICED, done), POLICY)
    assert result == DoneByHand(done)


@pytest.mark.parametrize("applied", [ORDER, RETURN, REFUND])
def test_what_the_shop_has_no_more_is_over_once_it_is_cancelled_in_the_erp(applied: ErpRecord) -> None:
    for seen in (_seen(Milestone.CANCELLED, applied), None):
        assert plan(None, applied, seen, POLICY) == []
        assert _taken_back(applied, seen) == []
    assert isinstance(_taken_back(applied, _seen(Milestone.CONFIRMED, applied)), Hold)


def _taken_back(applied: ErpRecord, seen: Observed | None, policy: Policy = POLICY) -> Plan:
    return taken_back(ErpRef(applied.kind, f"shop/{applied.kind}/1/1"), Standpoint(applied), seen, policy)


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
    assert "amount: we wrote 10.00, the ERP has 12.00" in result.reason
    assert plan(typed, PRICE, _seen(Milestone.CONFIRMED, typed), POLICY) == DoneByHand(typed), "both say the same"


def test_where_the_erp_owns_prices_none_is_sent() -> None:
    policy = Policy("erp")
    assert plan(PRICE, None, None, policy) == []
    assert plan(None, PRICE, _seen(Milestone.CONFIRMED, PRICE), policy) == []


@pytest.mark.parametrize("applied", [ORDER, RETURN, REFUND])
def test_f8_a_delete_in_the_shop_is_no_cancellation(applied: ErpRecord) -> None:
    seen = _seen(Milestone.DRAFT, applied)
    assert isinstance(plan(None, applied, seen, POLICY), Hold)
    assert plan(None, applied, seen, Policy("shop", Absence(orders="keep", returns="keep", refunds="keep"))) == []
    assert plan(None, CUSTOMER, _seen(Milestone.CONFIRMED, CUSTOMER), POLICY) == []


@pytest.mark.parametrize("applied", [ORDER, RETURN, REFUND])
def test_a_draft_of_which_the_shop_has_nothing_more_is_cancelled_where_the_policy_says_so(applied: ErpRecord) -> None:
    policy = Policy("shop", Absence(orders="cancel_if_draft", returns="cancel_if_draft", refunds="cancel_if_draft"))
    (step,) = _steps(plan(None, applied, _seen(Milestone.DRAFT, applied), policy))
    assert (step.verb, step.goal, step.want.fields["cancelled"]) == ("cancel", Milestone.CANCELLED, True)
    assert isinstance(plan(None, applied, _seen(Milestone.CONFIRMED, applied), policy), Hold)
    name = next(name for name in applied.fields if name in ("gross", "number"))
    edited = replace(applied, fields={**applied.fields, name: Decimal(1)})
    assert isinstance(plan(None, applied, _seen(Milestone.DRAFT, edited), policy), Hold), "a clerk works on it"


def _steps(found: Plan) -> list[Step]:
    assert isinstance(found, list)
    return found


def test_f8_prices_that_are_gone_are_removed_held_or_kept() -> None:
    seen = _seen(Milestone.CONFIRMED, PRICE)
    assert [one.verb for one in _steps(plan(None, PRICE, seen, POLICY))] == ["remove"]
    assert isinstance(plan(None, PRICE, seen, Policy("shop", Absence(prices="hold"))), Hold)
    assert plan(None, PRICE, seen, Policy("shop", Absence(prices="keep"))) == []
    over = _taken_back(PRICE, seen, Policy("shop", Absence(prices="keep")))
    assert [one.verb for one in _steps(over)] == ["remove"], "its row is there, and says that it is over"


def test_cancelled_before_the_erp_heard_of_it_is_not_made() -> None:
    assert plan(CHANGES["cancel"], None, None, POLICY) == []


@pytest.mark.parametrize("wanted", [ORDER, CUSTOMER, PRICE, CHANGES["cancel"]])
def test_what_the_ledger_has_forgotten_is_known_again_where_it_is_as_the_shop_has_it(wanted: ErpRecord) -> None:
    """A restored ledger has forgotten documents. The ERP may have renumbered a customer's account since."""
    numbered = {**wanted.fields, "number": "100007"} if wanted.kind == "customer" else wanted.fields
    there = replace(wanted, fields=numbered)
    milestone = Milestone.CANCELLED if wanted.fields.get("cancelled") else Milestone.CONFIRMED
    assert plan(wanted, None, _seen(milestone, there), POLICY) == DoneByHand(there, _seen(milestone, there))


@pytest.mark.parametrize(
    ("milestone", "there"),
    [
        (Milestone.DRAFT, CHANGES["change prices"]),
        (Milestone.DRAFT, replace(ORDER, parts={"line": {**ORDER.parts["line"], "hand:7": LINE}})),
        (Milestone.CANCELLED, ORDER),
    ],
    ids=["another price", "one line more", "cancelled"],
)
def test_what_the_ledger_has_forgotten_and_is_otherwise_waits_for_a_word(
    milestone: Milestone, there: ErpRecord
) -> None:
    seen = _seen(milestone, there)
    found = plan(ORDER, None, seen, POLICY)
    assert isinstance(found, Hold)
    assert found.check is Check.STRANGER
    ref, ledger = ErpRef("order", "shop/order/1/1"), Standpoint(released=frozenset({Check.STRANGER}))
    known = plan_step(ref, ORDER, ledger, seen, POLICY)
    assert isinstance(known, DoneByHand)
    assert known.record.parts["line"] == there.parts["line"]
    assert known.record.fields["cancelled"] is (milestone is Milestone.CANCELLED)


def test_a_value_that_the_shop_overrules_is_written_once_and_not_over_the_next_one() -> None:
    typed = replace(ORDER, fields={**HEAD, "shipping_city": "Ulm"})
    found = plan(ORDER, ORDER, _seen(Milestone.DRAFT, typed), POLICY)
    assert isinstance(found, Hold)
    ref, ledger = ErpRef("order", "shop/order/1/1"), Standpoint(ORDER, overruled=found.disputed)
    (step,) = _steps(plan_step(ref, ORDER, ledger, _seen(Milestone.DRAFT, typed), POLICY))
    assert (step.verb, step.want) == ("amend", ORDER)
    assert plan_step(ref, ORDER, ledger, _seen(Milestone.DRAFT), POLICY) == []
    again = replace(ORDER, fields={**HEAD, "shipping_city": "Kiel"})
    assert isinstance(plan_step(ref, ORDER, ledger, _seen(Milestone.DRAFT, again), POLICY), Hold)
    refused = plan_step(ref, ORDER, ledger, _seen(Milestone.INVOICED, typed), POLICY)
    assert isinstance(refused, Hold)
    assert refused.check is Check.POSTED, "the table rules, whoever has spoken"


def test_what_the_erp_does_not_change_any_more_keeps_nothing_else() -> None:
    paid = {**HEAD, "paid": Decimal(5)}
    both = replace(ORDER, fields={**paid, "shipping_city": "Ulm"})
    (step,) = _steps(plan(both, ORDER, _seen(Milestone.DELIVERED), POLICY))
    done = replace(ORDER, fields=paid)
    assert (step.verb, step.want, step.noted) == ("amend", done, done)
    rest = plan(both, done, _seen(Milestone.DELIVERED, done), POLICY)
    assert isinstance(rest, Hold)
    assert rest.reason.startswith("change addresses, but")
    assert [one.name for one in rest.disputed] == ["shipping_city"]


def test_lines_come_go_and_change_in_one_command() -> None:
    wanted = replace(ORDER, parts={"line": {"2": LINE}})
    result = plan(wanted, ORDER, _seen(Milestone.CONFIRMED), POLICY)
    assert isinstance(result, list)
    assert [(one.verb, one.want) for one in result] == [("amend", wanted)]


def test_two_lines_of_one_return_share_the_cap() -> None:
    two = {f"r{n}": {"order_line": SOLD_LINE, "quantity": Decimal(2)} for n in (1, 2)}
    result = plan(replace(RETURN, parts={"line": two}), None, None, POLICY, _seen(Milestone.DELIVERED))
    assert isinstance(result, Hold)
    assert result.reason == "line:1: 4 returned now, but 3 were sold and 0 already returned"


def test_a_return_of_what_was_never_sold_is_held() -> None:
    odd = replace(RETURN, parts={"line": {"r1": {"order_line": SOLD.child("line", "9"), "quantity": Decimal(1)}}})
    assert isinstance(plan(odd, None, None, POLICY, _seen(Milestone.DELIVERED)), Hold)


def test_a_document_does_not_count_against_itself() -> None:
    moved = {"1": Moved({"shop/return/1/1": Decimal(2)})}
    order = replace(_seen(Milestone.PAID), moved=moved, refunded={"shop/refund/1/1": Decimal(12)})
    for change in ("change return", "change refund"):
        applied, desired = OTHERS[change]
        assert isinstance(plan(desired, applied, _seen(Milestone.DRAFT, applied), POLICY, order), list)


@pytest.mark.parametrize(("gross", "held"), [("7", False), ("7.01", True)])
def test_a_refund_counts_what_was_given_back_by_hand(gross: str, held: bool) -> None:
    order = replace(_seen(Milestone.PAID), refunded={"hand:1": Decimal(5)})
    refund = replace(REFUND, fields={**REFUND.fields, "gross": Decimal(gross)})
    assert isinstance(plan(refund, None, None, POLICY, order), Hold) is held


def test_only_fields_that_the_erp_has_are_compared() -> None:
    """A mapping may leave fields out: those were never written, and are no edit."""
    few = replace(ORDER, fields={"gross": Decimal("12.00")}, parts={"line": {"1": {"quantity": Decimal(3)}}})
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
    assert (amend.verb, amend.want.fields["paid"]) == ("amend", Decimal(24))
    assert amend.want.fields["cancelled"] is False  # a crash in between leaves the cancellation to be done
    assert (cancel.verb, cancel.want) == ("cancel", desired)


def test_keys_of_steps_rise_above_those_of_ledger_and_erp() -> None:
    """A ledger from a backup counts from an older step."""
    seen = replace(_seen(Milestone.CONFIRMED), key=7)
    for ledger, first in ((3, 8), (9, 10)):
        steps = plan_step(SOLD, CHANGES["cancel"], Standpoint(ORDER, None, ledger), seen, POLICY)
        assert isinstance(steps, list)
        assert [step.key for step in steps] == [first]


@pytest.mark.parametrize(
    ("reached", "now", "goal", "verbs"),
    [
        (Milestone.DRAFT, Milestone.DRAFT, Milestone.CONFIRMED, ["advance"]),
        (Milestone.CONFIRMED, Milestone.CONFIRMED, Milestone.PROCESSING, ["advance"]),
        (Milestone.DRAFT, Milestone.DELIVERED, Milestone.CONFIRMED, []),
        (Milestone.CONFIRMED, Milestone.DRAFT, Milestone.CONFIRMED, []),  # a person set it back
        (None, Milestone.DRAFT, Milestone.CONFIRMED, []),  # an earlier release made it
    ],
)
def test_what_did_not_come_to_its_goal_goes_on(
    reached: Milestone | None, now: Milestone, goal: Milestone, verbs: list[str]
) -> None:
    policy = Policy("shop", goal=goal)
    steps = plan_step(SOLD, ORDER, Standpoint(ORDER, reached, 1), _seen(now), policy)
    assert isinstance(steps, list)
    assert [(step.verb, step.goal) for step in steps] == [(verb, goal) for verb in verbs]


@pytest.mark.parametrize(
    ("reached", "goal"), [(Milestone.DRAFT, Milestone.CONFIRMED), (Milestone.CONFIRMED, Milestone.DRAFT)]
)
def test_an_amendment_takes_on_what_did_not_come_to_its_goal_and_nothing_else(
    reached: Milestone, goal: Milestone
) -> None:
    ledger = Standpoint(ORDER, reached, 1)
    steps = plan_step(SOLD, CHANGES["change prices"], ledger, _seen(Milestone.DRAFT), POLICY)
    assert isinstance(steps, list)
    assert [(step.verb, step.goal) for step in steps] == [("amend", goal)]


def test_a_new_document_is_taken_to_its_goal() -> None:
    made = plan(ORDER, None, None, Policy("shop", goal=Milestone.DRAFT))
    assert isinstance(made, list)
    assert (made[0].goal, made[0].before) == (Milestone.DRAFT, None)
    credit = plan(REFUND, None, None, POLICY)
    assert isinstance(credit, list)
    assert credit[0].goal is Milestone.DRAFT, "a person posts it"


CREDITING = Policy("shop", goal=Milestone.PROCESSING, refund_goal=Milestone.PROCESSING)
REFUNDED, RETURNED = ErpRef("refund", "shop/refund/1/1"), ErpRef("return", "shop/return/1/1")


@pytest.mark.parametrize("sold", list(Milestone))
def test_a_refund_becomes_a_credit_note_once_its_order_has_an_invoice(sold: Milestone) -> None:
    """Whether the shop refunds it now, or did so when the order was not as far."""
    order, none = Found(SOLD, _seen(sold)), (Milestone.DRAFT, Milestone.CONFIRMED, Milestone.CANCELLED)
    goal = Milestone.DRAFT if sold in none else Milestone.PROCESSING
    made = plan_step(REFUNDED, REFUND, Standpoint(), None, CREDITING, order)
    assert isinstance(made, Hold) if sold is Milestone.CLOSED else [one.goal for one in _steps(made)] == [goal]
    there = _seen(Milestone.DRAFT, REFUND)
    later = _steps(plan_step(REFUNDED, REFUND, Standpoint(REFUND, Milestone.DRAFT, 1), there, CREDITING, order))
    assert [(one.verb, one.goal) for one in later] == ([] if sold in none else [("advance", goal)])


def test_what_was_made_before_the_goal_was_raised_goes_on_at_a_later_look() -> None:
    """From `quotation` to `processing`: the order and its refund. A return waits for the goods."""
    order = Found(SOLD, _seen(Milestone.CONFIRMED))
    first = Standpoint(ORDER, Milestone.CONFIRMED, 1)
    (advance,) = _steps(plan_step(SOLD, ORDER, first, order.observed, CREDITING))
    assert (advance.verb, advance.goal) == ("advance", Milestone.PROCESSING)
    order = Found(SOLD, _seen(Milestone.PROCESSING))
    returned = Standpoint(RETURN, Milestone.CONFIRMED, 1)
    assert plan_step(RETURNED, RETURN, returned, _seen(Milestone.CONFIRMED, RETURN), CREDITING, order) == []
    refunded = Standpoint(REFUND, Milestone.DRAFT, 1)
    (credit,) = _steps(plan_step(REFUNDED, REFUND, refunded, _seen(Milestone.DRAFT, REFUND), CREDITING, order))
    assert (credit.verb, credit.goal) == ("advance", Milestone.PROCESSING)
    done = Standpoint(REFUND, credit.goal, 2)
    assert plan_step(REFUNDED, REFUND, done, _seen(Milestone.PROCESSING, REFUND), CREDITING, order) == []


@pytest.mark.parametrize(
    ("ref", "record", "at", "policy", "held"),
    [
        (RETURNED, RETURN, Milestone.CONFIRMED, POLICY, "its goods never left"),
        (RETURNED, RETURN, Milestone.CANCELLED, POLICY, "changed in the ERP: it was cancelled"),
        (REFUNDED, REFUND, Milestone.PROCESSING, CREDITING, "there is no invoice to credit"),
        (REFUNDED, REFUND, Milestone.INVOICED, CREDITING, "there is no invoice to credit"),
        (REFUNDED, REFUND, Milestone.DRAFT, CREDITING, ""),
        (REFUNDED, REFUND, Milestone.INVOICED, POLICY, ""),
    ],
)
def test_what_a_cancelled_order_leaves_behind_is_held(
    ref: ErpRef, record: ErpRecord, at: Milestone, policy: Policy, held: str
) -> None:
    """Only of credit notes: elsewhere a refund is the money that went back, which is so."""
    order = Found(SOLD, _seen(Milestone.CANCELLED))
    found = plan_step(ref, record, Standpoint(record, at, 1), _seen(at, record), policy, order)
    if not held:
        assert found == []
        return
    assert isinstance(found, Hold)
    assert held in found.reason
    assert Way.ACCEPT in ways(found.check, in_erp=True)


def test_a_draft_credit_note_is_cancelled_with_the_drafts() -> None:
    policy = replace(CREDITING, absent=Absence(refunds="cancel_if_draft"))
    for at in (Milestone.DRAFT, Milestone.PROCESSING):
        assert [one.verb for one in _steps(plan(None, REFUND, _seen(at, REFUND), policy))] == ["cancel"]
    assert isinstance(plan(None, REFUND, _seen(Milestone.INVOICED, REFUND), policy), Hold)


def test_an_adapter_narrows_a_cell_and_says_why() -> None:
    seen = replace(_seen(Milestone.CONFIRMED), may_not={"change prices": "its approval runs"})
    result = plan(CHANGES["change prices"], ORDER, seen, POLICY)
    assert isinstance(result, Hold)
    assert result.reason == "change prices, but its approval runs"
    assert isinstance(plan(CHANGES["change quantities"], ORDER, seen, POLICY), list)


@pytest.mark.parametrize("desired", [ORDER, None])
def test_on_a_document_that_cannot_be_read_nothing_is_planned(desired: ErpRecord | None) -> None:
    seen = replace(_seen(Milestone.CONFIRMED), milestone=None, problem="it is in limbo")
    result = plan(desired, ORDER, seen, POLICY)
    assert isinstance(result, Hold)
    assert result.reason == "it is in limbo"
    result = plan(RETURN, None, None, POLICY, seen)
    assert isinstance(result, Hold)
    assert result.reason == "its order: it is in limbo"


def test_where_the_erp_says_nothing_of_payments_the_order_itself_is_the_cap() -> None:
    order = replace(_seen(Milestone.CONFIRMED), paid=None, refunded={"hand:1": Decimal(5)})
    for gross, held in (("7", False), ("7.01", True)):
        refund = replace(REFUND, fields={**REFUND.fields, "gross": Decimal(gross)})
        assert isinstance(plan(refund, None, None, POLICY, order), Hold) is held


def test_what_was_planned_before_is_seen_by_what_is_planned_after() -> None:
    """Two returns, and two refunds, of one order in one batch."""
    order = Found(SOLD, _seen(Milestone.DELIVERED))
    for kind, record, reason in (("return", RETURN, "2 already returned"), ("refund", REFUND, "already refunded")):
        wanted = replace(record, fields={**record.fields, "gross": Decimal(5)})
        first = plan_step(ErpRef(kind, "1"), wanted, Standpoint(), None, POLICY, order)  # type: ignore[arg-type]
        assert isinstance(first, list)
        most = replace(wanted, fields={**wanted.fields, "gross": Decimal(8)})
        second = ErpRef(kind, "2")  # type: ignore[arg-type]
        assert isinstance(plan_step(second, most, Standpoint(), None, POLICY, order), list)
        after = plan_step(second, most, Standpoint(), None, POLICY, with_step(order, first[0]))
        assert isinstance(after, Hold)
        assert reason in after.reason


def test_parts_that_an_earlier_release_did_not_write_down_are_no_change() -> None:
    components = replace(REFUND, parts={"component": {"c1": {"gross": Decimal(5)}}})
    assert plan(components, REFUND, _seen(Milestone.CONFIRMED, REFUND), POLICY) == []


def test_an_order_stays_on_its_collective_account() -> None:
    one, other = (replace(ORDER, fields={**HEAD, "account": ErpRef("customer", f"hand:{number}")}) for number in (1, 2))
    assert plan(one, other, _seen(Milestone.DELIVERED), POLICY) == []
    ours = replace(ORDER, fields={**HEAD, "account": ErpRef("customer", "shop/customer/1/1")})
    assert isinstance(plan(ours, other, _seen(Milestone.DELIVERED), POLICY), Hold)


def test_a_deleted_draft_that_a_clerk_has_changed_goes_by_a_word() -> None:
    typed = replace(ORDER, fields={**HEAD, "shipping_city": "Ulm"})
    policy = replace(POLICY, absent=POLICY.absent.model_copy(update={"orders": "cancel_if_draft"}))
    ref, seen = ErpRef("order", "shop/order/1/1"), _seen(Milestone.DRAFT, typed)
    found = plan_step(ref, None, Standpoint(ORDER), seen, policy)
    assert isinstance(found, Hold)
    assert found.check is Check.CHANGED
    for said in (Standpoint(ORDER, overruled=found.disputed), Standpoint(ORDER, accepted=found.disputed)):
        (step,) = _steps(plan_step(ref, None, said, seen, policy))
        assert step.verb == "cancel"
