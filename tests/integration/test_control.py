"""`sink pause` and `sink resume`: a person's word stops all copies of the sink, and lets them go on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import pytest

from schemas.errors import SettingsError
from sink.commands import control as commands
from sink.commands.status import told
from sink.database import Connection, connect, transaction
from sink.erp.contract import Step, StepResult
from sink.erp.sql.adapter import SqlErp
from sink.erp.sql.mapping import load_mapping
from sink.ledger import documents
from sink.operations import control
from sink.operations.status import status
from tests.fix_erp import CUSTOMER, ORDER, ROOT, change, drain, held, make_worker, mark, run


@pytest.fixture
def other(database: str, middle: Connection) -> Iterator[Connection]:
    connection = connect(database, "ordertap_shop")
    yield connection
    connection.close()


class Watched(SqlErp):
    """Someone has a word to say while a call is under way."""

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
    """The buyer's call is under way; the order's, of the same lease, would be the next."""
    worker = make_worker(middle, watched, profile_path)
    watched.during = [(other, "Ada")]
    mark(middle)
    assert not worker.step()
    assert watched.calls == 1
    counts = "SELECT (SELECT count(*) FROM customers)::int, (SELECT count(*) FROM orders)::int"
    assert run(erp_url, counts) == [(1, 0)]
    with transaction(middle) as cursor:
        found = documents.entries_of(cursor, [CUSTOMER, ORDER])
    assert found[CUSTOMER].applied is not None
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
