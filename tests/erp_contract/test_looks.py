"""What an adapter reads: people's changes in the ERP, returns and refunds, documents that are not ours, and whether the
ERP can be used."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from schemas.model.errors import SettingsError
from sink.erp.contract import StopError
from sink.erp.kinds import BY_HAND, ErpRef, Milestone
from tests.erp_contract.records import (
    CHARGES,
    CHEAPER,
    CUSTOMER,
    LINES,
    REF,
    REFUND,
    RETURN,
    SALE,
    D,
    Sink,
    changed,
    create,
    fewer_back,
    sale,
)
from tests.erp_contract.target import Clerk, Target

ORDER = REF["order"]


def test_unknown_items_are_named(sink: Sink) -> None:
    assert sink.erp.unknown_items({"A", "B", "X", "a"}) == {"X", "a"}
    assert sink.erp.unknown_items(set()) == set()


def test_what_is_not_there_is_left_out(sink: Sink) -> None:
    sink.seed("customer", "order", "price")
    found = sink.erp.observe([*REF.values(), ErpRef("order", "shop/order/9/1")])
    assert found.keys() == {REF["customer"], REF["order"], REF["price"]}
    assert sink.erp.observe([]) == {}


def test_a_price_change_reaches_a_confirmed_order_and_no_invoiced_one(target: Target, sink: Sink) -> None:
    sink.seed("customer", "order")
    sink.done(sink.planned(ORDER, CHEAPER, SALE))
    assert sink.see(ORDER).record.parts["line"]["1"]["unit_price"] == D("9.00")
    target.clerk.sets(ORDER, Milestone.INVOICED)
    dearer = changed(SALE, paid=CHEAPER.fields["paid"])  # the payment is sent in any case
    assert "posted documents are not changed" in sink.held(ORDER, dearer, CHEAPER)


def test_returns_and_refunds_are_seen_on_their_order(target: Target, sink: Sink) -> None:
    sink.seed("customer", "order", "return", "refund")
    found = sink.see(ORDER)
    assert {line: moved.returned for line, moved in found.moved.items()} == {"1": {REF["return"].external: D(2)}}
    assert found.refunded == {REF["refund"].external: D("20.00")}
    more = ErpRef("return", "shop/return/2/1")
    assert "line:1: 2 returned now, but 3 were sold and 2 already returned" in sink.held(more, RETURN, None)
    target.clerk.sets(REF["return"], Milestone.CANCELLED)
    target.clerk.sets(REF["refund"], Milestone.CANCELLED)
    found = sink.see(ORDER)
    assert (found.moved, found.refunded) == ({}, {})
    assert sink.planned(more, RETURN, None).verb == "create"


def test_what_a_clerk_took_back_counts(target: Target, sink: Sink) -> None:
    sink.seed("customer", "order")
    target.clerk.takes_back(ORDER, "1", D(2))
    target.clerk.gives_back(ORDER, D(20))
    assert "2 already returned" in sink.held(REF["return"], RETURN, None)
    assert "20.00 already refunded" in sink.held(REF["refund"], REFUND, None)
    sink.done(sink.planned(REF["return"], fewer_back("1"), None))
    counts = sink.see(ORDER).moved["1"].returned
    assert sorted(counts.values()) == [D(1), D(2)]
    assert [key.startswith(BY_HAND) for key, count in counts.items() if count == 2] == [True]


def test_cancel_keeps_the_document(sink: Sink) -> None:
    sink.seed("customer", "order")
    sink.done(sink.planned(ORDER, changed(SALE, cancelled=True), SALE))
    found = sink.see(ORDER)
    assert found.milestone is Milestone.CANCELLED
    assert len(found.record.parts["line"]) == 2


def _edits(clerk: Clerk, what: str) -> None:
    match what:
        case "an amount":
            clerk.edits(ORDER, "paid", D(1))
        case "a quantity":
            clerk.edits(ORDER, "quantity", D(9), "1")
        case "a line less":
            clerk.drops_line(ORDER, "2")
        case "a line more":
            clerk.adds_line(ORDER)
        case "cancelled":
            clerk.sets(ORDER, Milestone.CANCELLED)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("an amount", "paid: we wrote 35.25, the ERP has 1.00"),
        ("a quantity", "line:1 "),
        ("a line less", "line:2 is missing"),
        ("a line more", " is new"),
        ("cancelled", "it was cancelled"),
    ],
)
def test_edits_by_hand_are_seen_and_held(target: Target, sink: Sink, what: str, reason: str) -> None:
    sink.seed("customer", "order")
    before = sink.see(ORDER).stamp
    assert sink.see(ORDER).stamp == before, "a look changes nothing"
    _edits(target.clerk, what)
    assert sink.see(ORDER).stamp != before
    assert reason in sink.held(ORDER, SALE, SALE), "also when the shop wants nothing new"
    wanted = changed(SALE, payment_means="other")
    if what == "cancelled":
        assert reason in sink.held(ORDER, wanted, SALE)
        return
    parts = sink.see(ORDER).record.parts
    amend = sink.planned(ORDER, wanted, SALE)  # sends what is not held
    done = sink.done(amend)
    assert done.record.fields["payment_means"] == "other"
    assert done.record.parts == parts, "what the clerk did stays"
    assert reason in sink.held(ORDER, wanted, amend.written)
    if what == "a quantity":  # an ERP may change the amounts with it, and they are named first
        assert sink.see(ORDER).record.parts["line"]["1"]["quantity"] == D(9)


def test_a_state_that_nobody_named_holds_its_document_alone(target: Target, sink: Sink) -> None:
    other = ErpRef("order", "shop/order/2/1")
    sink.seed("customer", "order")
    sink.done(create(sale(LINES, number="S-2"), other))
    target.clerk.sets_unknown(ORDER)
    found = sink.erp.observe([ORDER, other])
    assert (found[ORDER].milestone, found[other].milestone) == (None, Milestone.CONFIRMED)
    assert found[ORDER].problem
    assert found[ORDER].problem in sink.held(ORDER, CHEAPER, SALE)
    assert len(sink.erp.page(["order"], "", 10).found) == 2


def test_pages_meet_everything_once(target: Target, sink: Sink) -> None:
    sink.seed("customer", "order", "price")
    for number in range(5):
        target.clerk.types_in(f"7{number}")
        sink.done(create(changed(CUSTOMER, number=f"9{number}"), ErpRef("customer", f"shop_2/customer/{number}/1")))
    seen: list[ErpRef] = []
    after: str | None = ""
    while after is not None:
        page = sink.erp.page(["customer", "price"], after, 3)
        assert len(page.found) <= 3
        seen += [one.ref for one in page.found]
        names = sink.erp.keys(["customer", "price"], after, 3)
        assert (list(names.refs), names.next) == ([one.ref for one in page.found], page.next)
        after = page.next
    assert len(seen) == len({*seen}) == 12
    assert sum(ref.external.startswith(BY_HAND) for ref in seen) == 5
    assert {REF["customer"], REF["price"]} <= {*seen}


def test_documents_are_found_by_their_fields(target: Target, sink: Sink) -> None:
    sink.seed("customer", "order")
    target.clerk.types_in("77")
    (ours,) = sink.erp.find("order", {"number": "S-1"})
    assert ours.ref == ORDER
    assert ours.observed.record == sink.see(ORDER).record
    assert sink.erp.find("order", {"reference": sink.see(REF["order"]).reference}) == [ours]
    (typed_in,) = sink.erp.find("customer", {"number": "77"})
    assert sink.see(typed_in.ref) == typed_in.observed
    assert typed_in.ref.external.startswith(BY_HAND)
    assert sink.erp.observe([typed_in.ref]) == {typed_in.ref: typed_in.observed}
    assert [one.ref for one in sink.erp.find("customer", {"email": "A@Example.org"})] == [REF["customer"]]
    assert sink.erp.find("customer", {"number": "78"}) == []
    with pytest.raises(SettingsError, match="shoe_size"):
        sink.erp.find("customer", {"shoe_size": "44"})


def test_an_order_is_booked_to_an_account_that_is_none_of_ours(target: Target, sink: Sink) -> None:
    target.clerk.types_in("77")
    (account,) = sink.erp.find("customer", {"number": "77"})
    made = sink.done(create(changed(SALE, account=account.ref), ORDER))
    assert made.record.fields["account"] == account.ref


def test_check_tells_the_identity_and_what_is_missing(target: Target, sink: Sink) -> None:
    checked = sink.erp.check()
    assert checked.identity
    assert checked.version
    assert not checked.advice
    with target.lacking() as name, pytest.raises(StopError, match=name):
        sink.erp.check()
    assert sink.erp.check().identity == checked.identity, "what was fixed is seen without a restart"
    target.copied()
    assert sink.erp.check().identity != checked.identity


def test_its_clock_runs(sink: Sink) -> None:
    first = sink.erp.clock()
    assert first.tzinfo is not None
    assert sink.erp.clock() >= first


def test_threads_that_begin_at_once_see_the_same(target: Target) -> None:
    Sink(target.adapter()).seed("customer", "order")
    fresh = Sink(target.adapter())
    barrier = threading.Barrier(4)

    def look(_: int) -> int:
        barrier.wait()
        return sum(map(len, fresh.see(ORDER).record.parts.values()))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(look, range(4))) == [3] * 4


def test_charges_and_lines_are_told_apart(sink: Sink) -> None:
    sink.seed("customer", "order")
    parts = sink.see(ORDER).record.parts
    assert parts["line"].keys() == LINES.keys()
    assert parts["charge"].keys() == CHARGES.keys()
