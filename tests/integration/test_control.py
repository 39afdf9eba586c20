"""`sink pause`, `sink resume` and `sink go-live`: a person stops and starts all sinks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

import pytest

from schemas.model.errors import SettingsError
from sink.commands import control as commands
from sink.commands.status import told
from sink.database import Connection, connect, transaction
from sink.erp.contract import Observed, Step, StepResult
from sink.erp.kinds import ErpRef
from sink.erp.sql.adapter import SqlErp
from sink.erp.sql.mapping import load_mapping
from sink.ledger import documents
from sink.operations import control
from sink.operations.go_live import go_live
from sink.operations.status import status
from tests.fix_erp import CUSTOMER, ORDER, PRICE, RETURN, ROOT, change, drain, held, make_worker, mark, run


@pytest.fixture
def other(database: str, middle: Connection) -> Iterator[Connection]:
    connection = connect(database, "ordertap_shop")
    yield connection
    connection.close()


class Watched(SqlErp):
    """Lets something happen while a call is under way."""

    during: list[tuple[Connection, str]]
    calls = 0

    def apply(self, steps: Sequence[Step], not_after: datetime) -> Sequence[StepResult]:
        self.calls += 1
        for connection, person in self.during:
            control.pause(connection, person, "stocktaking")
        self.during = []
        return super().apply(steps, not_after)


@pytest.fixture
def watched(erp_url: str) -> Iterator[Watched]:
    adapter = Watched(erp_url, load_mapping(ROOT / "deploy/erp/mapping.yaml"))
    adapter.during = []
    yield adapter
    adapter.close()


def test_what_is_paused_is_staged_and_marked_and_not_sent_by_any_copy(
    middle: Connection, other: Connection, erp: SqlErp, profile_path: str, erp_url: str
) -> None:
    workers = [make_worker(middle, erp, profile_path), make_worker(other, erp, profile_path, "w2")]
    assert len(list(commands.pause(middle, "Ada", "stocktaking"))) == 2
    mark(middle)
    assert [worker.step() for worker in workers] == [False, False]
    assert run(erp_url, "SELECT count(*)::int FROM orders") == [(0,)]
    with transaction(middle) as cursor:
        assert documents.counts(cursor) == {("customer", "due"): 1, ("sales_order", "due"): 1}
    lines = list(told(status(middle, True)))
    assert any(line.startswith("applying is paused by Ada since ") and "stocktaking" in line for line in lines)
    with pytest.raises(SettingsError, match="paused already by Ada"):
        control.pause(other, "Bob", "")
    assert control.resume(other, "Bob").person == "Ada"
    drain(workers[1])
    assert run(erp_url, "SELECT count(*)::int FROM orders") == [(1,)]
    with transaction(middle) as cursor:
        cursor.execute("SELECT event, person FROM history WHERE type = 'applying' ORDER BY id")
        assert cursor.fetchall() == [("paused", "Ada"), ("resumed", "Bob")]
    with pytest.raises(SettingsError, match="applying is not paused"):
        list(commands.resume(middle, "Bob"))


def test_a_call_that_is_under_way_ends_and_the_next_one_is_not_made(
    middle: Connection, other: Connection, watched: Watched, profile_path: str, erp_url: str
) -> None:
    """The order's call is under way. The return's, under the same lease, would be next."""
    change(middle, "INSERT INTO returns VALUES (5, 1, 1, 5.95)")
    worker = make_worker(middle, watched, profile_path)
    watched.during = [(other, "Ada")]
    mark(middle, ORDER, CUSTOMER, RETURN)
    assert not worker.step()
    assert watched.calls == 1
    counts = "SELECT (SELECT count(*) FROM orders)::int, (SELECT count(*) FROM returns)::int"
    assert run(erp_url, counts) == [(1, 0)]
    with transaction(middle) as cursor:
        found = documents.entries_of(cursor, [ORDER, RETURN])
    assert found[ORDER].applied is not None
    assert all(one.intent is None for one in found.values()), "its result is written"
    control.resume(middle, "Ada")
    drain(worker)
    assert run(erp_url, counts) == [(1, 1)]


def test_a_change_that_came_while_it_was_paused_is_sent_as_it_is_then(
    middle: Connection, erp: SqlErp, profile_path: str, erp_url: str
) -> None:
    worker = make_worker(middle, erp, profile_path)
    mark(middle)
    drain(worker)
    control.pause(middle, "Ada", "")
    for gross in ("9.90", "8.90"):
        change(middle, f"UPDATE orders SET gross = {gross}")
        mark(middle, ORDER)
        assert not worker.step()
    control.resume(middle, "Ada")
    drain(worker)
    assert run(erp_url, "SELECT gross::text FROM orders") == [("8.90",)]
    assert held(middle) == []


def test_a_new_shop_sends_nothing_until_a_person_lets_it_and_then_without_a_restart(
    middle: Connection, other: Connection, erp: SqlErp, profile_path: str, erp_url: str
) -> None:
    workers = [
        make_worker(middle, erp, profile_path, apply=False),
        make_worker(other, erp, profile_path, "w2", apply=False),
    ]
    with pytest.raises(SettingsError, match="nothing is planned"):
        go_live(middle, False, True, "Ada", execute=True)
    change(middle, "INSERT INTO orders SELECT 2, 'S-2', '7', placed_at, 'open', 'NEW', 1, 5.95 FROM orders")
    mark(middle, ORDER, ORDER._replace(key="2"), CUSTOMER)
    drain(workers[0])
    dry = go_live(middle, False, True, "Ada", execute=False)
    assert [(one.verb, one.kind, one.commands, one.after) for one in dry.planned] == [
        ("create", "customer", 1, 0),
        ("create", "order", 1, Decimal("11.90")),
    ]
    assert (dry.held, dry.due) == ({"master data": 1}, 0)
    lines = list(commands.go_live(dry, execute=False))
    assert lines[-1] == "nothing was changed; --execute sends it"
    assert any("`sink go-live --person NAME`" in line for line in told(status(middle, True)))
    assert not workers[1].step()
    assert run(erp_url, ORDERS) == [(0,)]
    go_live(middle, False, True, "Ada", execute=True)
    drain(workers[1])
    assert run(erp_url, ORDERS) == [(1,)]
    run(erp_url, "INSERT INTO items VALUES ('NEW', 'n')")
    mark(middle, ORDER._replace(key="2"))
    drain(workers[0])
    assert run(erp_url, ORDERS) == [(2,)]
    drain(make_worker(middle, erp, profile_path, "w3", apply=False))
    with pytest.raises(SettingsError, match="the shop is live by Ada"):
        go_live(middle, False, True, "Bob", execute=False)


ORDERS = "SELECT count(*)::int FROM orders"


def test_what_another_worker_planned_before_it_heard_of_it_is_sent_all_the_same(
    middle: Connection, other: Connection, erp: SqlErp, profile_path: str, erp_url: str
) -> None:
    """The first worker has sent everything. The second is at the batch that it leased before, and ends with it."""
    first = make_worker(other, erp, profile_path, "w2", apply=False)
    mark(middle, PRICE)
    change(middle, "INSERT INTO prices VALUES ('A', 10)")
    drain(first)

    class Slow(SqlErp):
        before: list[Callable[[], None]]

        def observe(self, refs: Collection[ErpRef]) -> Mapping[ErpRef, Observed]:
            if self.before:
                self.before.pop()()
            return super().observe(refs)

    def meanwhile() -> None:
        go_live(other, False, True, "Ada", execute=True)
        drain(first)

    slow = Slow(erp_url, load_mapping(ROOT / "deploy/erp/mapping.yaml"))
    try:
        mark(middle)
        slow.before = [meanwhile]
        second = make_worker(middle, slow, profile_path, apply=False)
        second.step()
        assert run(erp_url, "SELECT (SELECT count(*) FROM orders)::int, (SELECT count(*) FROM prices)::int") == [(0, 1)]
        drain(first)
        assert run(erp_url, ORDERS) == [(1,)]
    finally:
        slow.close()


def test_nobody_goes_live_on_a_copy_that_is_not_the_shop(middle: Connection, erp: SqlErp, profile_path: str) -> None:
    mark(middle)
    drain(make_worker(middle, erp, profile_path, apply=False))
    with transaction(middle) as cursor:
        cursor.execute("UPDATE copy SET state = 'catching up'")
    with pytest.raises(SettingsError, match="the copy is catching up"):
        go_live(middle, False, True, "Ada", execute=True)
    with pytest.raises(SettingsError, match="the settings have mode: apply"):
        go_live(middle, True, True, "Ada", execute=True)
