"""What a clerk types, or another worker does, between two calls of one step is not overwritten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pytest

from deploy.tryton.screen import Screen
from sink.database import Connection
from sink.erp.contract import ConflictError, HowFar, NotDone, Observed, Step, StepResult, basis
from sink.erp.kinds import Milestone, not_kept
from tests.erp_contract.cells import CHEAPER_LINE, FEWER
from tests.erp_contract.records import REF, SALE, Sink, create, step
from tests.erp_contract.tryton_target import TrytonTarget
from tests.faults.rpc_proxy import RpcProxy
from tests.faults.tryton_chain import until_done, worker
from tests.fix_erp import ORDER as OF_SHOP
from tests.fix_erp import change, drain, held, mark, pass_deadlines

ORDER = REF["order"]
GOALS = {Milestone.DRAFT: "draft", Milestone.CONFIRMED: "quotation", Milestone.PROCESSING: "processing"}
REMARK = "ring twice"
SALE_WRITE = "model.sale.sale.write"
REOPEN = "model.sale.sale.draft"
VALIDATE = "model.sale.amendment.validate_amendment"


@pytest.fixture
def sink_at(tryton_place: TrytonTarget, tryton_proxy: RpcProxy) -> Callable[[Milestone], Sink]:
    """A sink whose calls go through the proxy, with an order at a milestone."""

    def made(at: Milestone) -> Sink:
        sink = Sink(tryton_place.adapter(url=tryton_proxy.url, orders={"goal": GOALS[at]}))
        sink.seed("customer")
        sink.done(replace(create(SALE, ORDER), goal=at))
        tryton_proxy.calls.clear()
        return sink

    return made


def amend(sink: Sink) -> Step:
    return step("amend", ORDER, CHEAPER_LINE, sink.see(ORDER), 2)


def once(proxy: RpcProxy, moment: str, number: int, does: Callable[[], object]) -> None:
    """Does something before the writing call with this number arrives, or after it is done and before it is
    answered."""

    def at(_: str) -> None:
        if len(proxy.calls) == number:
            does()

    setattr(proxy, "on_call" if moment == "before" else "on_done", at)


def remarks(clerk: Screen) -> Callable[[], None]:
    """Types a remark into the comment, above our line."""

    def does() -> None:
        (row,) = clerk.rows("sale.sale", [], "comment")
        clerk("sale.sale", "write", [row["id"]], {"comment": f"{REMARK}\n{row['comment']}"})

    return does


def is_remarked(clerk: Screen) -> bool:
    (row,) = clerk.rows("sale.sale", [], "comment")
    return REMARK in row["comment"]


def conflicts(result: StepResult) -> bool:
    return isinstance(result, NotDone) and isinstance(result.error, ConflictError)


@pytest.mark.parametrize(
    ("at", "moment", "number", "calls"),
    [
        (Milestone.CONFIRMED, "before", 2, ["model.sale.sale.draft", SALE_WRITE]),
        (Milestone.CONFIRMED, "after", 1, ["model.sale.sale.draft"]),
        (Milestone.PROCESSING, "before", 3, [SALE_WRITE, VALIDATE, SALE_WRITE]),
        (Milestone.PROCESSING, "after", 2, [SALE_WRITE, VALIDATE]),
    ],
)
def test_a_remark_stays(
    sink_at: Callable[[Milestone], Sink],
    tryton_proxy: RpcProxy,
    tryton_clerk: Screen,
    at: Milestone,
    moment: str,
    number: int,
    calls: list[str],
) -> None:
    """The shop does not own the remark. Our line is written beside it all the same."""
    sink = sink_at(at)
    once(tryton_proxy, moment, number, remarks(tryton_clerk))
    (result,) = sink.apply(amend(sink))
    assert tryton_proxy.calls[:number] == calls, "the premise: which of our calls it was"
    assert is_remarked(tryton_clerk)
    if moment == "before":
        assert conflicts(result), result
        sink.done(replace(sink.planned(ORDER, CHEAPER_LINE, SALE), key=3, goal=at))
    assert not_kept(CHEAPER_LINE, sink.see(ORDER).record) == ""
    assert sink.see(ORDER).milestone is at
    assert is_remarked(tryton_clerk)


@pytest.mark.parametrize(("moment", "number"), [("after", 1), ("after", 2), ("before", 3)])
def test_a_value_of_the_shops_that_is_changed_beside_our_slip_is_held(
    tryton_place: TrytonTarget,
    sink_at: Callable[[Milestone], Sink],
    tryton_proxy: RpcProxy,
    moment: str,
    number: int,
) -> None:
    """The slip does not change how the order was paid, so somebody else has changed it."""
    sink = sink_at(Milestone.PROCESSING)
    once(tryton_proxy, moment, number, lambda: tryton_place.clerk.edits(ORDER, "payment_means", "cash"))
    (result,) = sink.apply(amend(sink))
    assert tryton_proxy.calls == [SALE_WRITE, VALIDATE, SALE_WRITE][:number]
    assert conflicts(result), result
    _is_held(sink)


def _is_held(sink: Sink) -> None:
    """The newly planned step leaves the clerk's value, which is held."""
    anew = replace(sink.planned(ORDER, CHEAPER_LINE, SALE), key=3)
    assert anew.noted is not None
    assert sink.done(anew).record.fields["payment_means"] == "cash"
    assert not_kept(anew.want, sink.see(ORDER).record) == ""


def test_a_value_that_is_changed_after_a_lost_call_is_held(
    tryton_place: TrytonTarget, sink_at: Callable[[Milestone], Sink], tryton_proxy: RpcProxy
) -> None:
    """Our slip is validated, and we have not written the comment yet: a changed payment in it is the clerk's."""
    sink = sink_at(Milestone.PROCESSING)
    wanted = amend(sink)
    tryton_proxy.faults[:] = [None, None, "cut"]
    assert isinstance(sink.apply(wanted)[0], NotDone)
    assert sink.how_far(wanted) is HowFar.PARTLY
    tryton_place.clerk.edits(ORDER, "payment_means", "cash")
    assert sink.how_far(wanted) is HowFar.NOT_DONE
    _is_held(sink)


def test_a_remark_that_is_typed_after_a_lost_call_stays(
    sink_at: Callable[[Milestone], Sink], tryton_proxy: RpcProxy, tryton_clerk: Screen
) -> None:
    """The step continues, because nothing of the shop's was changed."""
    sink = sink_at(Milestone.PROCESSING)
    wanted = amend(sink)
    tryton_proxy.faults[:] = [None, None, "cut"]
    assert isinstance(sink.apply(wanted)[0], NotDone)
    remarks(tryton_clerk)()
    found = sink.erp.progress([wanted])[0]
    assert found.how_far is HowFar.PARTLY
    sink.done(replace(wanted, before=basis(found.observed)))
    assert is_remarked(tryton_clerk)


def test_a_value_that_is_changed_in_a_draft_of_ours_after_a_lost_call_is_held(
    tryton_place: TrytonTarget, tryton_proxy: RpcProxy, tryton_clerk: Screen, middle: Connection, profile_path: str
) -> None:
    """Our amendment has written all, and only the state is short. It does not go on over what the clerk has typed."""
    goal = {"orders": {"goal": "quotation"}}
    sends = worker(middle, profile_path, tryton_place.adapter(url=tryton_proxy.url, **goal), goal=Milestone.CONFIRMED)
    mark(middle)
    until_done(middle, sends)
    change(middle, "UPDATE orders SET gross = 9.90")
    mark(middle, OF_SHOP)
    tryton_proxy.calls.clear()
    tryton_proxy.faults[:] = [None, None, "cut"]
    drain(sends)
    assert tryton_proxy.calls == ["model.sale.sale.draft", SALE_WRITE, "model.sale.sale.quote"]
    tryton_place.clerk.edits(ORDER, "payment_means", "cash")
    pass_deadlines(middle)
    drain(sends)
    assert held(middle) == ["changed in the ERP: payment_means: we wrote card, the ERP has cash"]
    seen = Sink(tryton_place.adapter()).see(ORDER)
    assert (seen.state, seen.record.fields["payment_means"]) == ("draft", "cash")
    assert seen.record.fields["gross"] == Decimal("9.90")
    tryton_place.clerk.edits(ORDER, "payment_means", "card")
    mark(middle, OF_SHOP)
    until_done(middle, sends)
    assert Sink(tryton_place.adapter()).see(ORDER).state == "quotation"


@pytest.mark.parametrize("meanwhile", ["the shop takes it back", "a clerk edits the draft"])
def test_an_amendment_that_only_reopened_the_order_is_planned_anew(
    tryton_place: TrytonTarget, tryton_proxy: RpcProxy, middle: Connection, profile_path: str, meanwhile: str
) -> None:
    """The reply to its first call was lost. The old change is not written first, and the order is no draft for good."""
    goal = {"orders": {"goal": "quotation"}}
    sends = worker(middle, profile_path, tryton_place.adapter(url=tryton_proxy.url, **goal), goal=Milestone.CONFIRMED)
    mark(middle)
    until_done(middle, sends)
    change(middle, "UPDATE orders SET gross = 9.90")
    mark(middle, OF_SHOP)
    tryton_proxy.calls.clear()
    tryton_proxy.faults[:] = ["lost"]
    drain(sends)
    assert tryton_proxy.calls == [REOPEN]
    if meanwhile == "a clerk edits the draft":
        tryton_place.clerk.edits(ORDER, "payment_means", "cash")
    else:
        change(middle, "UPDATE orders SET gross = 11.90")
        mark(middle, OF_SHOP)
    pass_deadlines(middle)
    drain(sends)
    erp = Sink(tryton_place.adapter())
    if meanwhile == "a clerk edits the draft":
        assert held(middle) == ["changed in the ERP: payment_means: we wrote card, the ERP has cash"]
        assert erp.see(ORDER).record.fields["gross"] == Decimal("9.90")
        tryton_place.clerk.edits(ORDER, "payment_means", "card")
        mark(middle, OF_SHOP)
        drain(sends)
    else:
        assert tryton_proxy.calls == [REOPEN, "model.sale.sale.quote"]
    assert held(middle) == []
    assert erp.see(ORDER).state == "quotation"


def test_a_slip_that_was_broken_off_is_gone_with_the_next(
    sink_at: Callable[[Milestone], Sink], tryton_proxy: RpcProxy, tryton_clerk: Screen
) -> None:
    """A clerk who sees it could validate it."""
    sink = sink_at(Milestone.PROCESSING)
    tryton_proxy.faults[:] = ["lost"]
    assert isinstance(sink.apply(amend(sink))[0], NotDone)
    slips = lambda: tryton_clerk.rows("sale.amendment", [], "description", "state")  # noqa: E731
    assert [(one["description"], one["state"]) for one in slips()] == [("ordertap:2", "draft")]
    sink.done(step("amend", ORDER, FEWER, sink.see(ORDER), 3))
    assert [(one["description"], one["state"]) for one in slips()] == [("ordertap:3", "validated")]


def test_an_order_is_taken_on_between_two_states_that_are_one_milestone(
    tryton_place: TrytonTarget, tryton_proxy: RpcProxy, middle: Connection, profile_path: str
) -> None:
    """A quotation counts as confirmed. The step that was to confirm it still knows that it has not come so far."""
    goal = {"orders": {"goal": "confirmed"}}
    sends = worker(middle, profile_path, tryton_place.adapter(url=tryton_proxy.url, **goal), goal=Milestone.CONFIRMED)

    def cuts(method: str) -> None:
        if method.endswith(".confirm") and tryton_proxy.calls.count(method) == 1:
            tryton_proxy.faults[:] = ["cut"]

    tryton_proxy.on_call = cuts
    mark(middle)
    drain(sends)
    assert Sink(tryton_place.adapter()).see(ORDER).state == "quotation"
    pass_deadlines(middle)
    until_done(middle, sends)
    assert Sink(tryton_place.adapter()).see(ORDER).state in ("confirmed", "processing")


def test_a_later_step_of_another_worker_is_not_written_over(
    tryton_place: TrytonTarget, sink_at: Callable[[Milestone], Sink], tryton_proxy: RpcProxy
) -> None:
    """A worker that was frozen finds the next step done by another, and does not take it for its own call."""
    sink, other = sink_at(Milestone.DRAFT), Sink(tryton_place.adapter())
    wanted = amend(sink)
    later = replace(wanted, want=FEWER, key=3)
    once(tryton_proxy, "before", 1, lambda: other.done(later))
    (result,) = sink.apply(wanted)
    assert conflicts(result), result
    seen = sink.see(ORDER)
    assert isinstance(seen, Observed)
    assert (seen.key, seen.record.fields["gross"]) == (3, FEWER.fields["gross"])
    assert seen.record.parts["line"]["1"]["quantity"] == Decimal(2)
