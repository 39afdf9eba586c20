"""Tryton among people and networks: what happens to its calls, and between them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal

import pytest

from deploy.tryton import provision
from deploy.tryton.screen import Screen
from sink.erp.contract import (
    ConflictError,
    HowFar,
    NotDone,
    Observed,
    RetryError,
    SlowDownError,
    Step,
    StopError,
    basis,
)
from sink.erp.kinds import ErpRecord, Kind, Milestone, not_kept
from tests.erp_contract.cells import CHEAPER_LINE
from tests.erp_contract.records import CUSTOMER, PRICE, REF, REFUND, RETURN, SALE, Sink, changed, create, step
from tests.erp_contract.target import Moment
from tests.erp_contract.tryton_data import TrytonData
from tests.erp_contract.tryton_target import TrytonTarget
from tests.faults.rpc_proxy import Fault, RpcProxy

ORDER = REF["order"]
PROCESSING = Milestone.PROCESSING
ALL_THE_WAY = {"goal": "processing"}
# Documents that are there before; the milestone; what is wanted; how many writing calls it takes.
STEPS: dict[str, tuple[tuple[Kind, ...], Milestone, ErpRecord, int]] = {
    "create order": (("customer",), PROCESSING, SALE, 4),
    "amend order": (("customer", "order"), PROCESSING, CHEAPER_LINE, 3),
    "amend quotation": (("customer", "order"), Milestone.CONFIRMED, CHEAPER_LINE, 3),
    "cancel order": (("customer", "order"), PROCESSING, changed(SALE, cancelled=True), 4),
    "create return": (("customer", "order"), PROCESSING, RETURN, 2),
    "create refund": (("customer", "order"), PROCESSING, REFUND, 3),
    "create customer": ((), PROCESSING, CUSTOMER, 1),
    "amend customer": (("customer",), PROCESSING, changed(CUSTOMER, name="Ann B."), 1),
    "create price": ((), PROCESSING, PRICE, 1),
    "amend price": (("price",), PROCESSING, changed(PRICE, amount=Decimal("9.50")), 1),
}


def _stands(sink: Sink, kinds: tuple[Kind, ...], at: Milestone) -> None:
    sink.seed(*(kind for kind in kinds if kind != "order"))
    if "order" in kinds:
        sink.done(replace(create(SALE, ORDER), goal=at))


def _wanted(sink: Sink, name: str) -> Step:
    _, at, want, _ = STEPS[name]
    verb, ref = name.split()[0], REF[want.kind]
    if verb == "create":
        return replace(create(want, ref), goal=at) if want.kind in ("order", "refund") else create(want, ref)
    return step("amend" if verb == "amend" else "cancel", ref, want, sink.see(ref), 2)


@pytest.mark.parametrize("fault", ["cut", "lost", "late"])
@pytest.mark.parametrize("name", ["create order", "amend order", "cancel order"])
def test_each_call_of_a_step_may_be_cut_lost_or_late(
    tryton_place: TrytonTarget, tryton_proxy: RpcProxy, tryton_clerk: Screen, name: str, fault: Fault
) -> None:
    """One call after the other meets the fault until the step is done, going by what Tryton says of the step, as the
    sink does. A `late` call arrives after a look that did not find it, as for a sink that did not wait."""
    clean, faulty = Sink(tryton_place.adapter()), Sink(tryton_place.adapter(url=tryton_proxy.url, orders=ALL_THE_WAY))
    _stands(clean, *STEPS[name][:2])
    wanted = todo = _wanted(faulty, name)
    met = 0
    for _ in range(2 * STEPS[name][3] + 2):
        # The call that was cut before gets through now, and the next one is cut.
        tryton_proxy.faults[:] = [None, fault] if fault == "cut" and met else [fault]
        (result,) = faulty.apply(todo)
        met += not tryton_proxy.faults
        if isinstance(result, Observed):
            break
        assert type(result.error) in (RetryError, ConflictError), result
        found = faulty.erp.progress([wanted])[0]
        tryton_proxy.settled()
        assert found.how_far is not HowFar.UNCLEAR
        assert found.how_far is not HowFar.NOT_DONE or basis(found.observed) == wanted.before, "it would be replanned"
        todo = replace(wanted, before=basis(found.observed)) if found.how_far is HowFar.PARTLY else wanted
    assert met >= STEPS[name][3], f"{met} calls met it"
    assert faulty.done(todo).key == (2 if "amend" in name else 1)
    _is_there_once(faulty, tryton_clerk, wanted)


@pytest.mark.parametrize("name", STEPS)
def test_each_call_of_a_step_may_arrive_twice(
    tryton_place: TrytonTarget, tryton_proxy: RpcProxy, tryton_clerk: Screen, name: str
) -> None:
    """The answer is the second call's, which Tryton refuses because it was done already. That is no conflict."""
    clean, faulty = Sink(tryton_place.adapter()), Sink(tryton_place.adapter(url=tryton_proxy.url, orders=ALL_THE_WAY))
    _stands(clean, *STEPS[name][:2])
    wanted = _wanted(faulty, name)
    tryton_proxy.faults[:], tryton_proxy.calls[:] = ["twice"] * 20, []
    faulty.done(wanted)
    assert len(tryton_proxy.calls) >= STEPS[name][3], tryton_proxy.calls
    _is_there_once(faulty, tryton_clerk, wanted)


def test_a_price_of_a_call_that_arrives_once_more_is_in_the_list_once(
    tryton_place: TrytonTarget, tryton_proxy: RpcProxy, tryton_clerk: Screen
) -> None:
    """The answer is the first call's. Nothing in Tryton refuses the second line, which would stay when the price
    ends."""
    sink = Sink(tryton_place.adapter(url=tryton_proxy.url))
    tryton_proxy.faults[:] = ["again"]
    sink.done(create(PRICE, REF["price"]))
    assert tryton_proxy.faults == []
    (line,) = tryton_clerk.rows("product.price_list.line", [])
    assert sink.see(REF["price"]).reference == str(line["id"])
    sink.done(step("remove", REF["price"], PRICE, sink.see(REF["price"]), 2))
    assert sink.see(REF["price"]).milestone is Milestone.CANCELLED


def _is_there_once(sink: Sink, clerk: Screen, wanted: Step) -> None:
    """The document is as wanted, and nothing that came of it is there twice."""
    seen = sink.see(wanted.ref)
    assert (seen.milestone is Milestone.CANCELLED) == (wanted.verb == "cancel")
    assert wanted.verb == "cancel" or not_kept(wanted.want, seen.record) == ""
    assert sink.erp.keys([wanted.ref.kind], "", 100).refs == [wanted.ref]
    assert sink.how_far(wanted) is HowFar.DONE
    for sale in clerk.rows("sale.sale", [], "invoices", "shipments", "shipment_returns"):
        assert len(sale["invoices"]) <= 1
        assert len(sale["shipments"]) + len(sale["shipment_returns"]) <= 1


def test_two_who_do_the_same_step_at_the_same_time_do_it_once(tryton_place: TrytonTarget, tryton_clerk: Screen) -> None:
    """Each call of one waits for a call of the other. What one is refused, the other has done."""
    two = [Sink(tryton_place.adapter(orders=ALL_THE_WAY)) for _ in range(2)]
    two[0].seed("customer")
    wanted = replace(create(SALE, ORDER), goal=PROCESSING)
    at_once = threading.Barrier(2)
    met: list[int] = []

    def together(moment: Moment) -> None:
        """When one has no more calls, the other goes on alone after a while."""
        if moment == "before":
            with suppress(threading.BrokenBarrierError):
                met.append(at_once.wait(5 if met else 60))

    with tryton_place.hooked(together), ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda sink: sink.apply(wanted)[0], two))
    assert met, "no two calls were there at once"
    assert any(isinstance(result, Observed) for result in results), results
    assert all(isinstance(one, Observed) or isinstance(one.error, RetryError) for one in results), results
    two[0].done(wanted)
    _is_there_once(two[0], tryton_clerk, wanted)


def test_a_clerk_who_presses_a_button_before_ours_leaves_the_order_that_we_made_ours(
    tryton_place: TrytonTarget,
) -> None:
    """If a create stops at a draft, its result says so: the ledger must know of the draft."""
    sink = Sink(tryton_place.adapter(orders=ALL_THE_WAY))
    sink.seed("customer")
    seen: list[str] = []

    def clerk(moment: str) -> None:
        seen.append(moment)
        if len(seen) == 5:  # an address, the sale, and before its first button
            tryton_place.clerk.edits(ORDER, "payment_means", "cash")

    with tryton_place.hooked(clerk):
        (result,) = sink.apply(replace(create(SALE, ORDER), goal=PROCESSING))
    assert isinstance(result, NotDone), result
    assert isinstance(result.error, ConflictError)
    assert result.reached is not None, "a draft is there"
    assert result.reached.record == sink.see(ORDER).record


def test_a_clerk_who_amends_after_our_slip_is_not_written_over(
    tryton_place: TrytonTarget, tryton_proxy: RpcProxy
) -> None:
    """Our amendment was validated, and the notes were not written yet. What the clerk changed since is theirs."""
    sink = Sink(tryton_place.adapter(orders=ALL_THE_WAY, url=tryton_proxy.url))
    _stands(sink, ("customer", "order"), PROCESSING)
    wanted = step("amend", ORDER, CHEAPER_LINE, sink.see(ORDER), 2)
    tryton_proxy.faults[:] = [None, None, "cut"]
    (result,) = sink.apply(wanted)
    assert isinstance(result, NotDone)
    assert tryton_proxy.calls[-3:] == [
        "model.sale.sale.write", "model.sale.amendment.validate_amendment", "model.sale.sale.write",
    ]  # fmt: skip
    assert sink.how_far(wanted) is HowFar.PARTLY
    tryton_place.clerk.amends(ORDER, "1", Decimal(5))
    assert sink.how_far(wanted) is HowFar.NOT_DONE
    assert "changed in the ERP" in sink.held(ORDER, CHEAPER_LINE, SALE)


def test_a_rate_limit_asks_for_a_rest_and_holds_nothing(tryton_place: TrytonTarget, tryton_proxy: RpcProxy) -> None:
    sink = Sink(tryton_place.adapter(url=tryton_proxy.url))
    sink.seed("customer")
    tryton_proxy.faults[:] = ["rest"]
    (result,) = sink.apply(create(SALE, ORDER))
    assert isinstance(result, NotDone)
    assert isinstance(result.error, SlowDownError)
    assert result.error.seconds == 3
    sink.done(create(SALE, ORDER))


def test_trytons_own_limit_of_log_ins_is_a_rest_and_no_wrong_password(
    tryton_place: TrytonTarget, tryton_data: TrytonData
) -> None:
    """Somebody has tried passwords for our user, so Tryton refuses every log-in of that name for a while."""
    tryton_data.run(
        "INSERT INTO res_user_login_attempt (create_date, login, ip_address, ip_network)"
        " SELECT now(), %s, '192.0.2.1', '192.0.2.0/24' FROM generate_series(1, 9)",
        provision.API,
    )
    try:
        with pytest.raises(SlowDownError):
            tryton_place.adapter().check()
    finally:
        tryton_data.run("DELETE FROM res_user_login_attempt")
    tryton_place.adapter().check()


@pytest.mark.parametrize(
    ("name", "group", "named"),
    [("cancel order", "Stock", "stock.shipment.out"), ("amend order", "Sale Amendment", "Sale Amendment")],
)
def test_a_right_that_the_user_has_not_stops_and_is_named(
    tryton_place: TrytonTarget, name: str, group: str, named: str
) -> None:
    """Every document would be refused alike, so none is held for it."""
    sink = Sink(tryton_place.adapter(orders=ALL_THE_WAY))
    _stands(sink, *STEPS[name][:2])
    wanted = _wanted(sink, name)
    with tryton_place.lacking(group):
        (result,) = sink.apply(wanted)
    assert isinstance(result, NotDone)
    assert isinstance(result.error, StopError), result
    assert named in f"{result.error.message} {result.error.hint}"
    found = sink.erp.progress([wanted])[0]
    sink.done(replace(wanted, before=basis(found.observed)) if found.how_far is HowFar.PARTLY else wanted)
