"""Tryton among people and networks: what happens to its calls, and between them."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from typing import Final, NamedTuple

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
    Verb,
    basis,
)
from sink.erp.kinds import ErpRecord, ErpRef, Kind, Milestone, Value, not_kept
from tests.erp_contract.cells import CHEAPER_LINE, VOID, component, refund
from tests.erp_contract.records import (
    BY_KIND,
    CUSTOMER,
    PRICE,
    REF,
    REFUND,
    RETURN,
    SALE,
    Sink,
    changed,
    create,
    fewer_back,
    refused,
    step,
)
from tests.erp_contract.target import Moment
from tests.erp_contract.tryton_data import TrytonData
from tests.erp_contract.tryton_target import TrytonTarget
from tests.faults.rpc_proxy import Fault, RpcProxy

ORDER = REF["order"]
CONFIRMED, PROCESSING = Milestone.CONFIRMED, Milestone.PROCESSING
ALL_THE_WAY = {"goal": "processing"}


class Wanted(NamedTuple):
    """A step. calls: how many writing calls it takes. there: the milestone of the document that is there before; None
    if none is."""

    verb: Verb
    want: ErpRecord
    calls: int
    there: Milestone | None = None


STEPS: Final[Mapping[str, Wanted]] = {
    "create order": Wanted("create", SALE, 4),
    "amend order": Wanted("amend", CHEAPER_LINE, 3, PROCESSING),
    "amend quotation": Wanted("amend", CHEAPER_LINE, 3, CONFIRMED),
    "cancel order": Wanted("cancel", VOID, 4, PROCESSING),
    "create return": Wanted("create", RETURN, 2),
    "amend return": Wanted("amend", fewer_back("1"), 3, PROCESSING),
    "cancel return": Wanted("cancel", RETURN, 2, PROCESSING),
    "create refund": Wanted("create", REFUND, 3),
    "amend refund": Wanted("amend", refund(c1=component("line", "11.90", "1")), 3, PROCESSING),
    "cancel refund": Wanted("cancel", REFUND, 2, PROCESSING),
    "create customer": Wanted("create", CUSTOMER, 1),
    "amend customer": Wanted("amend", changed(CUSTOMER, name="Ann B."), 1, CONFIRMED),
    "create price": Wanted("create", PRICE, 1),
    "amend price": Wanted("amend", changed(PRICE, amount=Decimal("9.50")), 1, CONFIRMED),
    "remove price": Wanted("remove", PRICE, 1, CONFIRMED),
}


def _number(name: str) -> int:
    """Each step has a document of its own. Returns and refunds are of order 1."""
    return [*STEPS].index(name) + 2


def _own(name: str, record: ErpRecord) -> ErpRecord:
    number = _number(name)
    fields: dict[Kind, dict[str, Value]] = {
        "customer": {"number": str(100_000 + number)},
        "order": {"shipping_street": f"{number} Lane"},
        "price": {"minimum_quantity": Decimal(number)},
    }
    return changed(record, **fields.get(record.kind, {}))


def _ref(name: str) -> ErpRef:
    kind = STEPS[name].want.kind
    return ErpRef(kind, f"shop/{kind}/{_number(name)}/1")


def _create(record: ErpRecord, ref: ErpRef, goal: Milestone = PROCESSING) -> Step:
    """Makes a document. A return stays a quotation until somebody receives the goods."""
    return replace(create(record, ref), goal=goal if record.kind in ("order", "refund") else CONFIRMED)


def _stands(place: TrytonTarget, sink: Sink, *names: str) -> None:
    """Makes together what is there before these steps. A clerk has confirmed the returns."""
    made = [create(CUSTOMER, REF["customer"]), _create(SALE, ORDER)]
    for name in names:
        if there := STEPS[name].there:
            made.append(_create(_own(name, BY_KIND[_ref(name).kind]), _ref(name), there))
    assert refused(sink.apply(*made)) == [""] * len(made)
    for one in made:
        if one.ref.kind == "return":
            place.clerk.sets(one.ref, PROCESSING)


def _wanted(sink: Sink, name: str) -> Step:
    verb, ref, want = STEPS[name].verb, _ref(name), _own(name, STEPS[name].want)
    return _create(want, ref) if verb == "create" else step(verb, ref, want, sink.see(ref), 2)


@pytest.fixture
def faulty(tryton_place: TrytonTarget, tryton_proxy: RpcProxy) -> Sink:
    """A sink whose calls go through the proxy, and which takes orders to processing."""
    return Sink(tryton_place.adapter(url=tryton_proxy.url, orders=ALL_THE_WAY))


@pytest.mark.parametrize("fault", ["cut", "lost", "late"])
def test_each_call_of_each_step_may_be_cut_lost_or_late(
    tryton_place: TrytonTarget, tryton_proxy: RpcProxy, tryton_clerk: Screen, faulty: Sink, fault: Fault
) -> None:
    """One call after the other meets the fault until the step is done. A sink that is killed before a call leaves
    Tryton as if the call was cut, and one that is killed after it as if its answer was lost."""
    _stands(tryton_place, faulty, *STEPS)
    # A price that is made by a late call is the exception that the README of the adapter names.
    every = [_wanted(faulty, name) for name in STEPS if (fault, name) != ("late", "create price")]
    for wanted, calls in zip(every, map(_calls, every), strict=True):
        assert _meets(faulty, tryton_proxy, wanted, fault) >= calls, wanted
    _are_done(faulty, every)
    _came_once(tryton_clerk)


def _calls(wanted: Step) -> int:
    return next(one.calls for name, one in STEPS.items() if _ref(name) == wanted.ref)


def _meets(sink: Sink, proxy: RpcProxy, wanted: Step, fault: Fault) -> int:
    """Tries the step until it is done, going by what Tryton says of it, as the sink does. A `late` call arrives after a
    look that did not find it, as for a sink that did not wait. Returns how many calls met the fault."""
    todo, met = wanted, 0
    for _ in range(2 * _calls(wanted) + 2):
        # The call that was cut before gets through now, and the next one is cut.
        proxy.faults[:] = [None, fault] if fault == "cut" and met else [fault]
        (result,) = sink.apply(todo)
        met += not proxy.faults
        proxy.faults.clear()
        if isinstance(result, Observed):
            assert wanted.verb == "cancel" or result.key == wanted.key, wanted
            return met
        assert type(result.error) in (RetryError, ConflictError), (wanted, result)
        found = sink.erp.progress([wanted])[0]
        proxy.settled()
        assert found.how_far is not HowFar.UNCLEAR, wanted
        as_before = basis(found.observed) == wanted.before
        assert found.how_far is not HowFar.NOT_DONE or as_before, f"it would be replanned: {wanted}"
        todo = replace(wanted, before=basis(found.observed)) if found.how_far is HowFar.PARTLY else wanted
    raise AssertionError(f"it never ends: {wanted}")


def test_each_call_of_each_step_may_arrive_twice(
    tryton_place: TrytonTarget, tryton_proxy: RpcProxy, tryton_clerk: Screen, faulty: Sink
) -> None:
    """The answer is the second call's, which Tryton refuses because it was done already. That is no conflict."""
    _stands(tryton_place, faulty, *STEPS)
    every = [_wanted(faulty, name) for name in STEPS]
    for wanted in every:
        tryton_proxy.faults[:], tryton_proxy.calls[:] = ["twice"] * 20, []
        faulty.done(wanted)
        tryton_proxy.faults.clear()
        assert len(tryton_proxy.calls) >= _calls(wanted), (wanted, tryton_proxy.calls)
    _are_done(faulty, every)
    _came_once(tryton_clerk)


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


def _are_done(sink: Sink, steps: Sequence[Step]) -> None:
    """Each document is as wanted, and there once."""
    seen = sink.erp.observe([one.ref for one in steps])
    keys = [ref for kind in {one.ref.kind for one in steps} for ref in sink.erp.keys([kind], "", 100).refs]
    for wanted, found in zip(steps, sink.erp.progress(steps), strict=True):
        away = wanted.verb in ("cancel", "remove")
        assert (seen[wanted.ref].milestone is Milestone.CANCELLED) == away, wanted
        assert away or not_kept(wanted.want, seen[wanted.ref].record) == ""
        assert keys.count(wanted.ref) == 1, wanted
        assert found.how_far is HowFar.DONE, wanted


def _came_once(clerk: Screen) -> None:
    """Nothing that comes of a sale is there twice."""
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
    _are_done(two[0], [wanted])
    _came_once(tryton_clerk)


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
    tryton_place: TrytonTarget, tryton_proxy: RpcProxy, faulty: Sink
) -> None:
    """Our amendment was validated, and the notes were not written yet. What the clerk changed since is theirs."""
    faulty.seed("customer")
    faulty.done(replace(create(SALE, ORDER), goal=PROCESSING))
    wanted = step("amend", ORDER, CHEAPER_LINE, faulty.see(ORDER), 2)
    tryton_proxy.faults[:] = [None, None, "cut"]
    (result,) = faulty.apply(wanted)
    assert isinstance(result, NotDone)
    assert tryton_proxy.calls[-3:] == [
        "model.sale.sale.write", "model.sale.amendment.validate_amendment", "model.sale.sale.write",
    ]  # fmt: skip
    assert faulty.how_far(wanted) is HowFar.PARTLY
    tryton_place.clerk.amends(ORDER, "1", Decimal(5))
    assert faulty.how_far(wanted) is HowFar.NOT_DONE
    assert "changed in the ERP" in faulty.held(ORDER, CHEAPER_LINE, SALE)


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
    _stands(tryton_place, sink, name)
    wanted = _wanted(sink, name)
    with tryton_place.lacking(group):
        (result,) = sink.apply(wanted)
    assert isinstance(result, NotDone)
    assert isinstance(result.error, StopError), result
    assert named in f"{result.error.message} {result.error.hint}"
    found = sink.erp.progress([wanted])[0]
    sink.done(replace(wanted, before=basis(found.observed)) if found.how_far is HowFar.PARTLY else wanted)
