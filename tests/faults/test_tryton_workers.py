"""Several workers on one Tryton, and a Tryton that stops in the middle of a batch or limits the rate."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal

import pytest

from deploy.tryton.screen import Screen
from deploy.tryton.server import Tryton
from sink.database import Connection, connect
from sink.erp.contract import RetryError, SlowDownError
from sink.erp.kinds import ErpRef, Milestone
from tests.erp_contract.tryton_data import TrytonData
from tests.erp_contract.tryton_target import TrytonTarget
from tests.faults.rpc_proxy import RpcProxy
from tests.faults.tryton_chain import orders, there_once, until_done, worker
from tests.fix_erp import CUSTOMER, ORDER, change, drain, held, mark, pass_deadlines, rows

ORDERS = 4
HELD = "SELECT type, key, reason FROM ordertap_shop.document WHERE state = 'held'"
ALL_THE_WAY = {"goal": "processing"}


@pytest.fixture
def other(database: str, middle: Connection) -> Iterator[Connection]:
    """A connection as of another process."""
    with closing(connect(database, "ordertap_shop")) as connection:
        yield connection


def _nothing_came_twice(clerk: Screen) -> None:
    sales = clerk.rows("sale.sale", [], "invoices", "shipments")
    assert [(len(sale["invoices"]), len(sale["shipments"])) for sale in sales] == [(1, 1)] * ORDERS


@pytest.mark.parametrize("moment", ["party.party.create", "sale.sale.create", "sale.sale.quote", "sale.sale.confirm"])
def test_what_a_worker_sends_late_meets_what_another_has_done_since(
    tryton_place: TrytonTarget, tryton_proxy: RpcProxy, tryton_clerk: Screen, middle: Connection, other: Connection,
    profile_path: str, moment: str,
) -> None:  # fmt: skip
    """A worker's call is stopped before Tryton until its lease has ended and the other has done everything. Then the
    call goes on."""
    orders(middle, ORDERS)
    stands, goes_on = threading.Event(), threading.Event()

    def pause(method: str) -> None:
        if method.endswith(moment) and not stands.is_set():
            stands.set()
            goes_on.wait(120)

    tryton_proxy.on_call = pause
    slow = worker(other, profile_path, tryton_place.adapter(url=tryton_proxy.url, orders=ALL_THE_WAY), "slow")
    quick = worker(middle, profile_path, tryton_place.adapter(orders=ALL_THE_WAY), "quick")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(drain, slow)
        try:
            assert stands.wait(60)
            pass_deadlines(middle)
            until_done(middle, quick)
        finally:
            goes_on.set()
        running.result()
    until_done(middle, slow, quick)
    assert held(middle) == []
    there_once(tryton_place.adapter(), ORDERS)
    _nothing_came_twice(tryton_clerk)


@pytest.mark.parametrize(
    ("when", "moment"),
    [("on_done", "sale.sale.create"), ("on_call", "sale.sale.confirm"), ("on_done", "sale.sale.confirm")],
)
def test_a_tryton_that_is_restarted_in_the_middle_of_a_batch(
    tryton_place: TrytonTarget, tryton_proxy: RpcProxy, tryton_clerk: Screen, tryton: Tryton, middle: Connection,
    other: Connection, profile_path: str, when: str, moment: str,
) -> None:  # fmt: skip
    """Tryton stops before a call arrives, or after doing it and before the answer."""
    orders(middle, ORDERS)
    killed: list[str] = []

    def kill(method: str) -> None:
        if method.endswith(moment) and not killed:
            killed.append(method)
            tryton.kill()

    setattr(tryton_proxy, when, kill)
    first = worker(other, profile_path, tryton_place.adapter(url=tryton_proxy.url, orders=ALL_THE_WAY), "first")
    second = worker(middle, profile_path, tryton_place.adapter(orders=ALL_THE_WAY), "second")
    try:
        with pytest.raises(RetryError):
            drain(first)
    finally:
        tryton.start()
    assert killed
    until_done(middle, second, first)
    assert held(middle) == []
    there_once(tryton_place.adapter(), ORDERS)
    _nothing_came_twice(tryton_clerk)
    drain(first)


@pytest.mark.parametrize("cancelled", [True, False])
def test_a_draft_that_a_clerk_has_edited_before_we_knew_of_it_is_known_as_ours(
    tryton_place: TrytonTarget, tryton_proxy: RpcProxy, middle: Connection, profile_path: str, cancelled: bool
) -> None:
    """The create came to a draft, and its next call was lost. The draft was once held as unknown to the ledger, and the
    shop's cancellation with it."""
    erp, sale = tryton_place.adapter(url=tryton_proxy.url, orders=ALL_THE_WAY), ErpRef("order", "shop/order/1/1")
    only = worker(middle, profile_path, erp)
    _cut_before_the_first_button(tryton_proxy)
    mark(middle, ORDER, CUSTOMER)
    drain(only)
    assert tryton_proxy.calls[-1] == QUOTE
    tryton_place.clerk.edits(sale, "quantity", Decimal(3), "l1")
    tryton_proxy.calls.clear()
    if cancelled:
        change(middle, "UPDATE orders SET status = 'cancelled'")
        mark(middle, ORDER)
    pass_deadlines(middle)
    drain(only)
    assert QUOTE not in tryton_proxy.calls
    if cancelled:
        assert held(middle) == []
        assert erp.observe([sale])[sale].milestone is Milestone.CANCELLED
    else:
        (reason,) = held(middle)
        assert reason.startswith("changed in the ERP: net: we wrote 10.00, the ERP has 15.00")


QUOTE = "model.sale.sale.quote"


def _cut_before_the_first_button(proxy: RpcProxy) -> None:
    """Cuts the first call of it, once."""

    def cut(method: str) -> None:
        if method == QUOTE and proxy.calls.count(QUOTE) == 1:
            proxy.faults[:] = ["cut"]

    proxy.on_call = cut


def test_a_tryton_that_asks_for_a_rest_again_and_again_gets_all_and_nothing_is_held(
    tryton_place: TrytonTarget, tryton_proxy: RpcProxy, tryton_clerk: Screen, middle: Connection, profile_path: str
) -> None:
    """Tryton limits the rate after each call that it takes."""
    orders(middle, ORDERS)
    only = worker(middle, profile_path, tryton_place.adapter(url=tryton_proxy.url, orders=ALL_THE_WAY))
    tryton_proxy.faults[:] = ["rest", None] * 20
    for _ in range(4):  # one for the buyer, three for the orders
        with pytest.raises(SlowDownError) as rest:
            drain(only)
        assert rest.value.seconds == 3
        assert rows(middle, HELD) == []
        pass_deadlines(middle)
    until_done(middle, only)
    there_once(tryton_place.adapter(), ORDERS)
    _nothing_came_twice(tryton_clerk)


@pytest.fixture
def queue(tryton: Tryton, tryton_data: TrytonData) -> Iterator[None]:
    """Tryton leaves work to its queue, and nobody does it."""
    settings = tryton.folder / "trytond.conf"
    at_once = settings.read_text()
    settings.write_text(at_once.replace("worker = False", "worker = True"))
    tryton.kill()
    tryton.start()
    yield
    settings.write_text(at_once)
    tryton.kill()
    tryton.start()
    tryton_data.run("DELETE FROM ir_queue")


def test_an_order_is_changed_and_cancelled_while_trytons_queue_stands_still(
    queue: None, tryton_place: TrytonTarget, tryton_data: TrytonData, middle: Connection, profile_path: str
) -> None:
    """The cancellation was once held, half done."""
    erp, sale = tryton_place.adapter(orders=ALL_THE_WAY), ErpRef("order", "shop/order/1/1")
    only = worker(middle, profile_path, erp)
    mark(middle, ORDER, CUSTOMER)
    drain(only)
    for statement, becomes in (("gross = 9.90", Milestone.PROCESSING), ("status = 'cancelled'", Milestone.CANCELLED)):
        change(middle, f"UPDATE orders SET {statement}")
        mark(middle, ORDER)
        drain(only)
        assert held(middle) == []
        assert erp.observe([sale])[sale].milestone is becomes
    assert tryton_data.run("SELECT 1 FROM ir_queue WHERE dequeued_at IS NULL"), "the premise: Tryton has not done it"
