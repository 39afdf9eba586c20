"""A worker that dies at each step of each command, in the ledger and in the ERP, and an ERP that goes away."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa

import sink.database
from sink.apply import desired, sending, worker
from sink.database import Connection, connect, transaction
from sink.documents.profile import load_profile
from sink.documents.refs import DocumentRef
from sink.erp.contract import RetryError, Step, StepResult
from sink.erp.sql.adapter import SqlErp
from sink.ledger import documents
from sink.reconcile.sides import reconcile
from tests.fix_erp import (
    CUSTOMER,
    ORDER,
    PRICE,
    REFUND,
    RETURN,
    adapter_of,
    change,
    drain,
    held,
    in_erp,
    make_worker,
    mark,
    pass_deadlines,
    run,
)


class Killed(BaseException):
    """The process ends here, so nothing of ours may catch it."""


class Doom:
    """Counts the steps of a worker, which dies at one of them."""

    def __init__(self) -> None:
        self.left = 0

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed

    @contextmanager
    def transaction(self, connection: Connection, isolation: str = "READ COMMITTED") -> Iterator[Any]:
        """Dies before the commit, or after it and before anyone has heard of it."""
        with transaction(connection, isolation) as cursor:
            yield cursor
            self.step()
        self.step()

    def executed(self, _c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith(("INSERT", "UPDATE", "DELETE")):
            self.step()


class DoomedErp(SqlErp):
    """An ERP whose reply may be lost."""

    doom: Doom

    def apply(self, steps: Sequence[Step], not_after: datetime) -> Sequence[StepResult]:
        done = super().apply(steps, not_after)
        self.doom.step()
        return done


@pytest.fixture
def doomed(erp_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[DoomedErp]:
    adapter = adapter_of(DoomedErp, erp_url)
    adapter.doom = Doom()
    adapter.check()
    for module in (sink.database, worker, desired, sending):
        monkeypatch.setattr(module, "transaction", adapter.doom.transaction)
    sa.event.listen(sa.Engine, "after_cursor_execute", adapter.doom.executed)
    yield adapter
    sa.event.remove(sa.Engine, "after_cursor_execute", adapter.doom.executed)
    adapter.close()


def _dies(url: str, erp: DoomedErp, profile_path: str, step: int) -> bool:
    """Runs a new process that dies at this step. False if it came to its end before."""
    connection = connect(url, "ordertap_shop")
    worker = make_worker(connection, erp, profile_path, owner=f"w{step}")
    erp.doom.left = step
    found = True
    try:
        while found:
            with _closed_when_killed(connection):
                found = worker.step()
    except Killed:
        return True
    finally:
        erp.doom.left = 0
        connection.close()
    return False


@contextmanager
def _closed_when_killed(connection: Connection) -> Iterator[None]:
    try:
        yield
    except Killed:
        connection.close()
        raise


CHANGES: dict[str, tuple[str, tuple[DocumentRef, ...]]] = {
    "create order": ("UPDATE orders SET gross = gross", (ORDER, CUSTOMER)),
    "amend order": ("UPDATE orders SET gross = 9.90, quantity = 3", (ORDER,)),
    "create return and refund": ("INSERT INTO returns VALUES (5, 1, 1, 3.30)", (RETURN, REFUND)),
    "amend return": ("UPDATE returns SET quantity = 2, refunded = 6.60", (RETURN, REFUND)),
    "create price": ("INSERT INTO prices VALUES ('A', 5)", (PRICE,)),
    "amend price": ("UPDATE prices SET amount = 4", (PRICE,)),
    "remove price": ("DELETE FROM prices", (PRICE,)),
    "create it again": ("INSERT INTO prices VALUES ('A', 3)", (PRICE,)),
}
EXPECTED = "agree: 1 orders, 1 returns, 1 prices, difference 0.00"


def test_a_worker_killed_at_every_step_makes_everything_once(
    middle: Connection, database: str, doomed: DoomedErp, erp_url: str, profile_path: str
) -> None:
    deaths = 0
    for statement, refs in CHANGES.values():
        change(middle, statement)
        mark(middle, *refs)
        step = 1
        while _dies(database, doomed, profile_path, step):
            pass_deadlines(middle)
            deaths, step = deaths + 1, step + 1
        assert held(middle) == []
    assert deaths > 100
    report = reconcile(middle, None, "shop", load_profile(profile_path), doomed, collective=False)
    assert report.summary() == EXPECTED
    counts = "SELECT " + ", ".join(
        f"(SELECT count(*) FROM {table})" for table in ("customers", "orders", "order_lines", "return_lines", "refunds")
    )
    assert run(erp_url, counts) == [(1, 1, 1, 1, 1)]
    assert run(erp_url, "SELECT status, amount::int FROM prices ORDER BY id") == [("cancelled", 4), ("confirmed", 3)]
    history = "SELECT type, event, count(*)::int FROM ordertap_shop.history GROUP BY 1, 2 ORDER BY 1, 2"
    with transaction(middle) as cursor:
        cursor.execute(history)
        assert cursor.fetchall() == [
            ("customer", "create", 1), ("price", "amend", 1), ("price", "create", 2), ("price", "remove", 1),
            ("refund", "amend", 1), ("refund", "create", 1), ("return_order", "amend", 1),
            ("return_order", "create", 1), ("sales_order", "amend", 1), ("sales_order", "create", 1),
        ]  # fmt: skip


def _connections(erp_url: str, middle: Connection, allowed: bool) -> None:
    """Closes the ERP's database to connections, as in a restart. The server stays up for the middle layer."""
    name = erp_url.rpartition("/")[2]
    with transaction(middle) as cursor:
        cursor.execute(f"UPDATE pg_database SET datallowconn = {allowed} WHERE datname = %s", (name,))
        if not allowed:
            # Waits until they have ended: a signal alone may come late.
            cursor.execute("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s", (name,))


def test_an_outage_holds_nothing_and_ends_without_a_restart(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = in_erp(middle, erp, profile_path)
    _connections(erp_url, middle, allowed=False)
    change(middle, "UPDATE orders SET gross = 9.90")
    mark(middle)
    for _ in range(3):
        with pytest.raises(RetryError):
            drain(worker)
        with pytest.raises(RetryError):
            worker.check()
    assert held(middle) == []
    _connections(erp_url, middle, allowed=True)
    worker.check()
    drain(worker)
    assert run(erp_url, "SELECT gross::text FROM orders") == [("9.90",)]
    with transaction(middle) as cursor:
        assert documents.counts(cursor) == {("customer", "done"): 1, ("sales_order", "done"): 1}
