"""The way to the ERP: a sink that freezes or dies in a call, and a network that loses replies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest

from deploy.embedded import Postgres, die_with_parent
from sink.apply.rules import Rules
from sink.apply.worker import Worker
from sink.database import Connection, connect, transaction
from sink.documents.profile import load_profile
from sink.erp.contract import Erp, RetryError
from sink.erp.sql.adapter import SqlErp
from sink.erp.sql.mapping import load_mapping
from sink.planning.policy import Policy
from tests.faults.proxy import Proxy
from tests.fix_erp import ORDER, ROOT, change, drain, held, mark, pass_deadlines, run
from tests.programs import standing_still

LEASE, TIMEOUT = 5.0, 3.0
PATIENCE = 60.0
_WORK = "import sys; from tests.faults.test_erp_network import work; work(*sys.argv[1:])"
COUNTS = "SELECT (SELECT count(*) FROM customers), (SELECT count(*) FROM orders), (SELECT count(*) FROM order_lines)"


@pytest.fixture
def proxy(postgres: Postgres) -> Iterator[Proxy]:
    with Proxy(postgres.port) as made:
        yield made


@contextmanager
def _erp(url: str, timeout: float = TIMEOUT) -> Iterator[SqlErp]:
    adapter = SqlErp(url, load_mapping(ROOT / "deploy/erp/mapping.yaml"), timeout)
    with closing(adapter):
        yield adapter


def _worker(connection: Connection, erp: Erp, profile_path: str, owner: str) -> Worker:
    rules = Rules("shop", Policy("shop"), apply=True, settle_seconds=0, lease_seconds=LEASE)
    return Worker(connection, load_profile(profile_path), erp, rules, owner)


def work(database: str, erp_url: str, profile_path: str) -> None:
    """Runs in a process: a worker until nothing is due. Its time limit is longer than its leases, so that a late call
    does reach the ERP."""
    with closing(connect(database, "ordertap_shop")) as connection, _erp(erp_url, 4 * LEASE) as erp:
        drain(_worker(connection, erp, profile_path, f"process {os.getpid()}"))


Start = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def process(database: str, erp_url: str, profile_path: str, proxy: Proxy) -> Iterator[Start]:
    """Starts a worker in a process of its own, behind the proxy, and kills it at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", _WORK, database, proxy.url(erp_url), profile_path]
        started.append(subprocess.Popen(command, cwd=ROOT, preexec_fn=die_with_parent()))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.wait()


def _intents(database: str) -> int:
    """Documents with an intent."""
    return int(run(database, "SELECT count(*) FROM ordertap_shop.document WHERE intent IS NOT NULL")[0][0])


def _until(met: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not met():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def _told(middle: Connection) -> list[tuple[str, str, int]]:
    """Counts of what the ERP did."""
    with transaction(middle) as cursor:
        cursor.execute(
            "SELECT type, event, count(*)::int FROM ordertap_shop.history WHERE event <> 'retry'"
            " GROUP BY 1, 2 ORDER BY 1, 2"
        )
        return cursor.fetchall()


def _first_order(middle: Connection, erp: Erp, profile_path: str) -> None:
    """The ERP has the order, and the shop has changed its amount."""
    mark(middle)
    drain(_worker(middle, erp, profile_path, "first"))
    change(middle, "UPDATE orders SET gross = 9.90")
    mark(middle, ORDER)


@pytest.mark.parametrize("verb", ["create", "amend"])
def test_a_sink_that_stands_still_between_intent_and_call_comes_too_late(
    middle: Connection, database: str, erp: SqlErp, erp_url: str, profile_path: str, proxy: Proxy,
    process: Start, verb: str,
) -> None:  # fmt: skip
    """When its lease has ended, another worker decides and has the ERP do what the shop wants by then. Then the first
    one continues."""
    if verb == "amend":
        _first_order(middle, erp, profile_path)
    else:
        mark(middle)
    other = _worker(middle, erp, profile_path, "other")
    with proxy.holding(lambda: _intents(database) > 0) as call:
        stopped = process()
        assert call.reached.wait(PATIENCE), "it writes to the ERP"
        with standing_still(stopped):
            assert _intents(database) == (2 if verb == "create" else 1), "an order with its new buyer, or alone"
            before = run(erp_url, "SELECT count(*) FROM customers")
            assert other.step() is False, "nobody else may decide yet"
            _until(other.step, "its lease ends")
            drain(other)
            change(middle, "UPDATE orders SET gross = 8.80")
            mark(middle, ORDER)
            drain(other)
            told = _told(middle)
            assert before == [(0 if verb == "create" else 1,)]
    assert stopped.wait(PATIENCE) == 0
    assert run(erp_url, COUNTS) == [(1, 1, 1)]
    assert run(erp_url, "SELECT gross::text FROM orders") == [("8.80",)]
    assert _told(middle) == told, "what it did afterwards"
    assert (held(middle), _intents(database)) == ([], 0)


def test_a_call_of_a_sink_that_stood_still_takes_no_effect_though_nobody_decided_meanwhile(
    middle: Connection, database: str, erp_url: str, profile_path: str, proxy: Proxy, process: Start
) -> None:
    mark(middle)
    with proxy.holding(lambda: _intents(database) > 0) as call:
        stopped = process()
        assert call.reached.wait(PATIENCE), "it writes to the ERP"
        with standing_still(stopped):
            time.sleep(LEASE + 0.5)
            proxy.lose_answer(then_refuse=True)  # the next COMMIT is that of the late call: nothing comes after it
            call.goes_on.set()
        _until(lambda: proxy.lost == 1, "its COMMIT has reached the ERP")
        assert run(erp_url, COUNTS) == [(0, 0, 0)]


def test_another_sink_takes_over_from_one_that_is_killed_between_intent_and_call(
    middle: Connection, database: str, erp: SqlErp, erp_url: str, profile_path: str, proxy: Proxy,
    process: Start,
) -> None:  # fmt: skip
    mark(middle)
    other = _worker(middle, erp, profile_path, "other")
    with proxy.holding(lambda: _intents(database) > 0) as call:
        killed = process()
        assert call.reached.wait(PATIENCE), "it writes to the ERP"
        killed.send_signal(signal.SIGKILL)
        assert killed.wait(PATIENCE) == -signal.SIGKILL
        assert other.step() is False, "its call may still arrive"
        _until(other.step, "its lease ends")
    drain(other)
    assert run(erp_url, COUNTS) == [(1, 1, 1)]
    assert _told(middle) == [("customer", "create", 1), ("sales_order", "create", 1)]
    assert (held(middle), _intents(database)) == ([], 0)


@pytest.mark.parametrize("verb", ["create", "amend"])
def test_an_answer_that_is_lost_is_asked_for_and_nothing_is_done_twice(
    middle: Connection, database: str, erp: SqlErp, erp_url: str, profile_path: str, proxy: Proxy, verb: str
) -> None:
    if verb == "amend":
        _first_order(middle, erp, profile_path)
    else:
        mark(middle)
    with _erp(proxy.url(erp_url)) as through:
        proxy.lose_answer()
        drain(_worker(middle, through, profile_path, "unlucky"))
        assert (proxy.lost, _intents(database)) == (1, 2 if verb == "create" else 1)
        done = "orders" if verb == "create" else "orders WHERE gross = 9.90"
        assert run(erp_url, f"SELECT count(*) FROM {done}") == [(1,)], "it is done, and nobody knows"
        pass_deadlines(middle)
        drain(_worker(middle, through, profile_path, "next"))
    assert run(erp_url, COUNTS) == [(1, 1, 1)]
    events = [("sales_order", "amend", 1)] if verb == "amend" else []
    assert _told(middle) == [("customer", "create", 1), *events, ("sales_order", "create", 1)]
    assert (held(middle), _intents(database)) == ([], 0)


def test_a_network_that_swallows_everything_ends_no_worker(
    middle: Connection, erp_url: str, profile_path: str, proxy: Proxy
) -> None:
    """Connections stay open and nothing passes: neither the server's nor TCP's time-outs end the wait."""
    mark(middle)
    with _erp(proxy.url(erp_url)) as through, ThreadPoolExecutor(1) as pool:
        worker = _worker(middle, through, profile_path, "patient")
        worker.check()
        with proxy.hole():
            assert isinstance(pool.submit(drain, worker).exception(PATIENCE), RetryError)
        pass_deadlines(middle)
        drain(worker)
    assert run(erp_url, COUNTS) == [(1, 1, 1)]


def test_a_call_that_is_never_answered_ends(
    middle: Connection, database: str, erp_url: str, profile_path: str, proxy: Proxy
) -> None:
    """One connection hangs while the ERP answers on others: only that document is tried again."""
    mark(middle)
    with _erp(proxy.url(erp_url)) as through, ThreadPoolExecutor(1) as pool:
        worker = _worker(middle, through, profile_path, "patient")
        with proxy.holding(lambda: _intents(database) > 0) as call:
            waiting = pool.submit(drain, worker)
            assert call.reached.wait(PATIENCE), "it writes to the ERP"
            waiting.result(PATIENCE)
        pass_deadlines(middle)
        drain(worker)
    assert run(erp_url, COUNTS) == [(1, 1, 1)]
