"""Each step is done once, either whole or in a part that can be continued.

That holds whatever dies on the way, and however late a call comes.
"""

import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest

from sink.erp.contract import ConflictError, HoldError, HowFar, NotDone, Observed, RetryError, Step, StepResult, basis
from sink.erp.kinds import ErpRecord, ErpRef, Kind, Milestone, Value, not_kept
from sink.planning.adoption import Target as Named
from sink.planning.adoption import adopt
from tests.erp_contract.records import (
    ALL,
    BY_KIND,
    CHARGES,
    CHEAPER,
    CUSTOMER,
    LINES,
    PRICE,
    REF,
    REFUND,
    RETURN,
    SALE,
    D,
    Sink,
    changed,
    create,
    fewer_back,
    line,
    refused,
    sale,
    step,
)
from tests.erp_contract.target import Killed, Moment, Target

ORDER = REF["order"]
# What is there before, what the shop wants, and what was written last.
STEPS: dict[str, tuple[tuple[Kind, ...], ErpRecord | None, ErpRecord | None]] = {
    "create customer": ((), CUSTOMER, None),
    "amend customer": (("customer",), changed(CUSTOMER, name="Ann B."), CUSTOMER),
    "create order": (("customer",), SALE, None),
    "amend order": (("customer", "order"), CHEAPER, SALE),
    "cancel order": (("customer", "order"), changed(SALE, cancelled=True), SALE),
    "create return": (("customer", "order"), RETURN, None),
    "amend return": (("customer", "order", "return"), fewer_back("1"), RETURN),
    "create refund": (("customer", "order"), REFUND, None),
    "amend refund": (("customer", "order", "refund"), changed(REFUND, means="voucher"), REFUND),
    "create price": ((), PRICE, None),
    "amend price": (("price",), changed(PRICE, amount=D("9.50")), PRICE),
    "remove price": (("price",), None, PRICE),
}


@contextmanager
def _killed_at(target: Target, number: int) -> Iterator[None]:
    """Ends the process before or after one of the calls of a step."""
    left = number

    def count(_: Moment) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    with target.hooked(count):
        yield


def _survives(target: Target, sink: Sink, wanted: Step) -> int:
    """Dies at each moment of the step in turn, and continues each time from what the ERP says of the step. Returns how
    many moments there were."""
    before, todo = target.content(), wanted
    for moment in range(1, 60):
        results: list[StepResult] = []
        with suppress(Killed), _killed_at(target, moment):
            results = sink.apply(todo)
        if results:
            assert isinstance(results[0], Observed), results
            return moment - 1
        gc.collect()  # closes what the dead process held open
        found = sink.erp.progress([wanted])[0]
        if found.how_far is HowFar.DONE:
            return moment
        if found.how_far is HowFar.PARTLY:
            todo = replace(wanted, before=basis(found.observed))
        else:
            assert target.content() == before, f"something is there after moment {moment}"
    raise AssertionError("it never ends")


@pytest.mark.parametrize("name", STEPS)
def test_a_kill_at_each_moment_leaves_nothing_twice_and_a_lost_result_is_found(
    target: Target, sink: Sink, name: str
) -> None:
    there, desired, applied = STEPS[name]
    sink.seed(*there)
    kind: Kind = name.split()[1]  # type: ignore[assignment]
    wanted = sink.planned(REF[kind], desired, applied)
    assert name == f"{wanted.verb} {wanted.ref.kind}"
    assert _survives(target, sink, wanted) >= 2
    done = target.content()
    # The last round did the step, and its reply was lost: the ERP says so, and a repeat changes nothing.
    assert sink.how_far(wanted) is HowFar.DONE
    assert sink.done(wanted).reference == sink.see(wanted.ref).reference
    assert target.content() == done
    assert sink.plans(REF[kind], desired, wanted.want) == [], "nothing is left to do"


def _typed_in(target: Target, sink: Sink, kind: Kind) -> Step:
    """A document that people typed in, and the step that gives it our keys."""
    sink.seed(*(("customer", "order") if kind in ("return", "refund") else ("customer",) if kind == "order" else ()))
    sink.seed(kind)
    hand = target.clerk.forgets(REF[kind])
    seen = sink.see(hand)
    assert sink.erp.observe([REF[kind]]) == {}
    found = adopt(REF[kind], BY_KIND[kind], Named(hand, seen), 0)
    assert isinstance(found, list), found
    return found[0]


def _can_be_adopted(target: Target, sink: Sink, wanted: Step) -> bool:
    """Whether the ERP can adopt the document. If not, it says so and changes nothing."""
    if wanted.ref.kind in target.can.adopts:
        return True
    before = target.content()
    assert refused(sink.apply(wanted)) == ["HoldError"]
    assert target.content() == before
    assert sink.how_far(wanted) is HowFar.NOT_DONE
    return False


@pytest.mark.parametrize("kind", ["customer", "order", "return", "refund"])
def test_what_was_typed_in_gets_our_keys_once_whatever_dies(target: Target, sink: Sink, kind: Kind) -> None:
    wanted = _typed_in(target, sink, kind)
    if not _can_be_adopted(target, sink, wanted):
        return
    assert _survives(target, sink, wanted) >= 2
    done = target.content()
    assert sink.how_far(wanted) is HowFar.DONE
    assert sink.done(wanted).key == wanted.key
    assert target.content() == done, "a repeat changes nothing"
    seen = sink.see(REF[kind])
    assert not_kept(BY_KIND[kind], seen.record) == "", "the lines have our keys, too"
    assert wanted.adopts is not None
    assert sink.erp.observe([ErpRef(kind, wanted.adopts.document)]) == {}, "it is ours now"
    assert sink.plans(REF[kind], BY_KIND[kind], wanted.want) == []


def test_what_a_clerk_changed_before_it_was_adopted_is_a_conflict(target: Target, sink: Sink) -> None:
    wanted = _typed_in(target, sink, "order")
    if not _can_be_adopted(target, sink, wanted):
        return
    assert wanted.adopts is not None
    target.clerk.sets(ErpRef("order", wanted.adopts.document), Milestone.INVOICED)
    before = target.content()
    assert refused(sink.apply(wanted)) == ["ConflictError"]
    assert target.content() == before
    assert sink.how_far(wanted) is HowFar.NOT_DONE


def test_what_is_gone_or_another_ones_meanwhile_is_not_adopted(target: Target, sink: Sink) -> None:
    wanted = _typed_in(target, sink, "order")
    if not _can_be_adopted(target, sink, wanted):
        return
    other = ErpRef("order", "shop/order/2/1")
    assert wanted.adopts is not None
    theirs = replace(
        wanted,
        ref=other,
        adopts=wanted.adopts._replace(
            children={key: ours.replace("/1/1/", "/2/1/") for key, ours in wanted.adopts.children.items()}
        ),
    )
    sink.done(theirs)
    before = target.content()
    assert refused(sink.apply(wanted)) == ["ConflictError"]
    assert target.content() == before
    assert sink.how_far(wanted) is HowFar.NOT_DONE


def test_a_document_is_not_adopted_beside_one_that_has_the_key(target: Target, sink: Sink) -> None:
    wanted = _typed_in(target, sink, "order")
    if not _can_be_adopted(target, sink, wanted):
        return
    sink.done(create(changed(SALE, number="S-2"), ORDER, 7))
    before = target.content()
    assert refused(sink.apply(wanted)) == ["ConflictError"]
    assert target.content() == before


def test_many_are_adopted_together_and_a_conflict_is_its_own(target: Target, sink: Sink) -> None:
    sink.seed("customer")
    steps = []
    for one in _many(6):
        sink.done(one)
        hand = target.clerk.forgets(one.ref)
        found = adopt(one.ref, one.want, Named(hand, sink.see(hand)), 0)
        assert isinstance(found, list)
        steps += found
    if not _can_be_adopted(target, sink, steps[0]):
        return
    assert steps[2].before is not None
    steps[2] = replace(steps[2], before=steps[2].before._replace(stamp="an older one"))
    assert refused(sink.apply(*steps)) == ["", "", "ConflictError", "", "", ""]
    assert sink.erp.observe([one.ref for one in steps]).keys() == {one.ref for one in steps} - {steps[2].ref}


@pytest.mark.parametrize("kind", ALL)
def test_a_record_comes_back_as_it_was_written(sink: Sink, kind: Kind) -> None:
    sink.seed(*(("customer", "order") if kind in ("return", "refund") else ("customer",) if kind == "order" else ()))
    told = sink.done(create(BY_KIND[kind], REF[kind], 7))
    found = sink.see(REF[kind])
    assert not_kept(BY_KIND[kind], found.record) == ""
    assert {*found.record.fields} <= {*BY_KIND[kind].fields} | {"company", "tax_id"} | {
        name for name in found.record.fields if name.startswith(("billing_", "shipping_"))
    }
    assert (found.key, found.milestone, told.record) == (7, told.milestone, found.record)
    if kind == "order":
        assert not found.rates or found.rates == {D(19): tuple(SALE.fields[name] for name in ("net", "tax", "gross"))}


@pytest.mark.parametrize("kind", ALL)
def test_a_second_create_of_a_key_makes_nothing(target: Target, sink: Sink, kind: Kind) -> None:
    sink.seed(*ALL)
    before = target.content()
    assert isinstance(sink.apply(create(BY_KIND[kind], REF[kind]))[0], Observed), "the same once more"
    assert refused(sink.apply(create(BY_KIND[kind], REF[kind], 2))) == ["ConflictError"]
    assert target.content() == before


def test_a_create_that_finds_other_content_under_its_key_is_a_conflict(target: Target, sink: Sink) -> None:
    """As with a lost ledger: the step's key is the same by chance."""
    sink.seed("customer", "order")
    before = target.content()
    assert refused(sink.apply(create(CHEAPER, ORDER))) == ["ConflictError"]
    assert target.content() == before


def test_a_late_step_on_an_older_state_changes_nothing(target: Target, sink: Sink) -> None:
    sink.seed("customer", "order")
    late = sink.planned(ORDER, CHEAPER, SALE)
    cancel = sink.planned(ORDER, changed(SALE, cancelled=True), SALE)
    sink.done(step("amend", ORDER, changed(SALE, paid=D(0)), sink.see(ORDER), 5))
    before = target.content()
    for old in (late, cancel):
        for key in (1, 2, 4, 6):
            assert refused(sink.apply(replace(old, key=key))) == ["ConflictError"]
    assert target.content() == before


@pytest.mark.parametrize("verb", ["amend", "cancel"])
def test_a_step_that_was_planned_on_another_state_is_not_done(target: Target, sink: Sink, verb: str) -> None:
    """A clerk invoices between our look and our write."""
    sink.seed("customer", "order")
    wanted = sink.planned(ORDER, CHEAPER if verb == "amend" else changed(SALE, cancelled=True), SALE)
    target.clerk.sets(ORDER, Milestone.INVOICED)
    before = target.content()
    assert refused(sink.apply(wanted)) == ["ConflictError"]
    assert target.content() == before


def test_a_line_that_a_clerk_changed_meanwhile_is_a_conflict(target: Target, sink: Sink) -> None:
    sink.seed("customer", "order")
    wanted = sink.planned(ORDER, changed(SALE, payment_means="voucher"), SALE)
    target.clerk.adds_line(ORDER)
    before = target.content()
    assert refused(sink.apply(wanted)) == ["ConflictError"]
    assert target.content() == before


def test_after_its_time_nothing_takes_effect(target: Target, sink: Sink) -> None:
    sink.seed("customer", "order")
    before = target.content()
    over = sink.soon(-0.01)
    wanted = [create(SALE, ErpRef("order", "shop/order/2/1")), sink.planned(ORDER, CHEAPER, SALE)]
    assert refused(list(sink.erp.apply(wanted, over))) == ["ConflictError", "ConflictError"]
    assert target.content() == before


def test_a_process_that_stands_still_in_the_middle_comes_too_late(target: Target, sink: Sink) -> None:
    """It writes in time, and then stops."""
    sink.seed("customer", "order")
    wanted, before = sink.planned(ORDER, CHEAPER, SALE), target.content()
    not_after = sink.erp.clock() + timedelta(seconds=3)
    stood: list[bool] = []

    def stand_still(moment: Moment) -> None:
        if moment == "after" and not stood:
            stood.append(True)
            time.sleep((not_after - sink.erp.clock()).total_seconds() + 0.2)

    with target.hooked(stand_still):
        results = list(sink.erp.apply([wanted], not_after))
    assert (refused(results), stood) == (["ConflictError"], [True])
    if target.can.at_once:
        assert target.content() == before
        return
    # The ERP says what was done, and the step can be continued.
    (result,) = results
    assert isinstance(result, NotDone)
    assert result.reached is not None
    seen = sink.see(ORDER)
    assert (result.reached.record, basis(result.reached)) == (seen.record, basis(seen))
    assert sink.how_far(wanted) is HowFar.PARTLY
    sink.done(replace(wanted, before=basis(result.reached)))


def _race(calls: Sequence[Callable[[], list[StepResult]]]) -> list[StepResult]:
    barrier = threading.Barrier(len(calls))

    def one(call: Callable[[], list[StepResult]]) -> StepResult:
        barrier.wait()
        return call()[0]

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, calls))


def test_replicas_that_create_one_key_make_one_document(target: Target) -> None:
    first, second = Sink(target.adapter()), Sink(target.adapter())
    first.seed("customer")
    for number in range(5):
        ref = ErpRef("order", f"shop/order/{number}/1")
        wanted = [create(sale(LINES, number=f"S-{number}"), ref, key) for key in (1, 2)]
        found = _race([partial(erp.apply, one) for erp, one in zip((first, second), wanted, strict=True)])
        assert sorted(refused(found)) == ["", "ConflictError"]
    page = first.erp.page(["order"], "", 100)
    assert [len(one.observed.record.parts["line"]) for one in page.found] == [2] * 5


def test_of_racing_amendments_one_is_done(target: Target) -> None:
    first, second = Sink(target.adapter()), Sink(target.adapter())
    first.seed("customer", "order")
    wanted = [first.planned(ORDER, one, SALE) for one in (changed(SALE, payment_means="other"), CHEAPER)]
    found = _race([partial(first.apply, wanted[0]), partial(second.apply, replace(wanted[1], key=3))])
    assert sorted(refused(found)) == ["", "ConflictError"]
    done = next(one for one, result in zip(wanted, found, strict=True) if isinstance(result, Observed))
    assert not_kept(done.want, first.see(ORDER).record) == ""


WRONG: dict[str, dict[str, Value]] = {
    "an item that is not there": {"sku": "NONE"},
    "no amount": {"net": None},
    "a quantity of more decimals than are kept": {"quantity": D("0.33333")},
    "a name that is too long": {"name": "x" * 301},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_the_erp_refuses_or_does_not_keep_is_held_and_leaves_nothing(
    target: Target, sink: Sink, wrong: str
) -> None:
    sink.seed("customer")
    before = target.content()
    bad = (
        sale({**LINES, "9": {**line("1", "1"), **WRONG[wrong]}}, CHARGES)
        if wrong != "no amount"
        else replace(SALE, parts={**SALE.parts, "line": {**LINES, "9": {**line("1", "1"), **WRONG[wrong]}}})
    )
    result = sink.apply(create(bad, ORDER))[0]
    if wrong == "a name that is too long" and isinstance(result, Observed):
        assert not_kept(bad, result.record) == "", "whatever its column says, it keeps it"
        return
    assert refused([result]) == ["HoldError"]
    assert target.content() == before
    sink.seed("order")
    before = target.content()
    wanted = sink.planned(ORDER, bad, SALE)
    assert refused(sink.apply(wanted)) == ["HoldError"]
    assert target.content() == before
    assert sink.how_far(wanted) is HowFar.NOT_DONE


def test_f7_a_rounded_amount_is_named_with_both_values(sink: Sink) -> None:
    """The shop has three decimals, as a dinar has; the ERP keeps two."""
    sink.seed("customer")
    net, tax = D("1.234"), D("0.001")
    rounded = {**line("1", "1.235"), "net": net, "tax": tax, "gross": net + tax}
    (result,) = sink.apply(create(sale({"1": rounded}), ORDER))
    assert isinstance(result, NotDone)
    assert isinstance(result.error, HoldError)
    assert "gross: the shop has 1.235, the ERP stored 1.2" in result.error.message
    assert result.error.cause == "data"
    assert ORDER not in sink.erp.observe([ORDER])


def _many(count: int) -> list[Step]:
    return [
        create(sale(LINES, CHARGES, number=f"S-{n}"), ErpRef("order", f"shop/order/{n}/1")) for n in range(1, count + 1)
    ]


@pytest.mark.parametrize("bad", [(), (17,), (1, 2, 40)])
def test_one_bad_step_never_fails_the_others(target: Target, sink: Sink, bad: tuple[int, ...]) -> None:
    sink.seed("customer")
    steps = _many(40)
    for number in bad:
        one = steps[number - 1]
        lines = {**LINES, "2": {**LINES["2"], "sku": "NONE"}}
        steps[number - 1] = replace(one, want=replace(one.want, parts={**one.want.parts, "line": lines}))
    results = sink.apply(*steps)
    assert [n for n, one in enumerate(results, 1) if isinstance(one, NotDone)] == list(bad)
    assert refused([results[n - 1] for n in bad]) == ["HoldError"] * len(bad)
    found = sink.erp.observe([one.ref for one in steps])
    assert len(found) == 40 - len(bad)
    assert [one.reference for one in results if isinstance(one, Observed)] == [one.reference for one in found.values()]


def test_many_are_amended_and_cancelled_together_and_conflicts_are_their_own(target: Target, sink: Sink) -> None:
    sink.seed("customer")
    made = sink.apply(*_many(20))
    amended = [
        step("amend", one.ref, replace(CHEAPER, fields={**CHEAPER.fields, "number": f"S-{n}"}), seen, 2)
        for n, (one, seen) in enumerate(zip(_many(20), made, strict=True), 1)
        if isinstance(seen, Observed)
    ]
    target.clerk.adds_line(amended[4].ref)
    results = sink.apply(*amended)
    assert [n for n, one in enumerate(results) if isinstance(one, NotDone)] == [4]
    assert refused([results[4]]) == ["ConflictError"]
    found = sink.erp.observe([one.ref for one in amended])
    assert [not_kept(one.want, found[one.ref].record) == "" for one in amended] == [n != 4 for n in range(20)]
    cancelled = [step("cancel", one.ref, one.want, found[one.ref], 3) for one in amended[10:]]
    assert refused(sink.apply(*cancelled)) == [""] * 10
    assert sink.see(amended[10].ref).milestone is Milestone.CANCELLED


def test_what_refers_to_another_may_come_in_the_same_call_after_it(sink: Sink) -> None:
    steps = [create(BY_KIND[kind], REF[kind]) for kind in ALL]
    assert refused(sink.apply(*steps)) == [""] * 5
    alone = ErpRef("return", "shop/return/2/1")
    assert (
        refused(
            sink.apply(
                create(
                    replace(SALE, fields={**SALE.fields, "account": ErpRef("customer", "x")}),
                    ErpRef("order", "shop/order/2/1"),
                ),
                create(RETURN, alone),
            )
        )[0]
        == "HoldError"
    )


@pytest.mark.parametrize("kind", ["return", "refund"])
def test_what_belongs_to_an_order_waits_for_it(target: Target, sink: Sink, kind: Kind) -> None:
    before = target.content()
    (result,) = sink.apply(create(BY_KIND[kind], REF[kind]))
    assert isinstance(result, NotDone)
    assert "its order is not in the ERP" in result.error.message
    assert target.content() == before


def test_a_return_of_a_line_that_the_order_has_not_is_refused(target: Target, sink: Sink) -> None:
    sink.seed("customer", "order")
    before = target.content()
    odd = {**RETURN.parts["line"]["r1"], "order_line": ORDER.child("line", "99")}
    (result,) = sink.apply(create(replace(RETURN, parts={"line": {"r1": odd}}), REF["return"]))
    assert refused([result]) == ["HoldError"]
    assert target.content() == before


def test_f6_a_return_moves_to_another_order(sink: Sink) -> None:
    """The shop had booked it to the wrong order."""
    other = ErpRef("order", "shop/order/2/1")
    sink.seed("customer", "order", "return")
    sink.done(create(sale(LINES, CHARGES, number="S-2"), other))
    line_of = {**RETURN.parts["line"]["r1"], "order_line": other.child("line", "1")}
    moved = replace(RETURN, fields={**RETURN.fields, "order": other}, parts={"line": {"r1": line_of}})
    sink.done(step("amend", REF["return"], moved, sink.see(REF["return"]), 2))
    assert sink.see(REF["return"]).record.fields["order"] == other
    assert sink.see(ORDER).moved == {}
    assert sink.see(other).moved["1"].returned == {REF["return"].external: D(2)}


def test_a_document_is_advanced_and_only_as_far_as_it_shall(sink: Sink) -> None:
    sink.seed("customer")
    made = sink.done(replace(create(SALE, ORDER), goal=Milestone.DRAFT))
    assert made.milestone is Milestone.DRAFT
    on = replace(step("amend", ORDER, SALE, made, 2), verb="advance", goal=Milestone.CONFIRMED)
    assert sink.done(on).milestone is Milestone.CONFIRMED
    assert sink.done(on).milestone is Milestone.CONFIRMED, "a repeat changes nothing"
    assert sink.how_far(on) is HowFar.DONE


def test_an_amendment_takes_a_document_on_that_did_not_come_to_its_goal(sink: Sink) -> None:
    sink.seed("customer")
    made = sink.done(replace(create(SALE, ORDER), goal=Milestone.DRAFT))
    amended = sink.done(replace(step("amend", ORDER, CHEAPER, made, 2), goal=Milestone.CONFIRMED))
    assert (amended.milestone, not_kept(CHEAPER, amended.record)) == (Milestone.CONFIRMED, "")
    assert sink.see(ORDER).milestone is Milestone.CONFIRMED


def test_deleted_by_hand_is_held(target: Target, sink: Sink) -> None:
    sink.seed("customer", "order")
    wanted = sink.planned(ORDER, CHEAPER, SALE)
    target.clerk.deletes(ORDER)
    assert ORDER not in sink.erp.observe([ORDER])
    assert refused(sink.apply(wanted)) == ["HoldError"]
    assert ORDER not in sink.erp.observe([ORDER])


def test_fields_of_the_erp_itself_stay(target: Target, sink: Sink) -> None:
    sink.seed("customer")
    wanted = sink.planned(REF["customer"], changed(CUSTOMER, name="Ann B."), CUSTOMER)
    target.clerk.edits_own(REF["customer"])
    owned = target.content()
    assert isinstance(sink.apply(wanted)[0], Observed), "what is none of ours is no conflict"
    assert str(target.content()).count("500") == str(owned).count("500")


def test_a_blocked_call_ends_in_time_and_changes_nothing(target: Target, sink: Sink) -> None:
    sink.seed("customer", "order")
    hasty = target.adapter(timeout=0.3)
    wanted = sink.planned(ORDER, CHEAPER, SALE)
    with target.blocked(ORDER):
        (result,) = hasty.apply([wanted], sink.soon())
        assert isinstance(result, NotDone)
        assert isinstance(result.error, RetryError)
        assert not isinstance(result.error, ConflictError)
    assert sink.how_far(wanted) is HowFar.NOT_DONE
    sink.done(wanted)
