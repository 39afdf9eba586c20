"""What another worker may do, and when, after a call to the ERP with an unknown result."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from psycopg2 import sql

from schemas.model.change import Stamp
from schemas.model.lsn import LSN
from sink.database import Connection, Cursor, connect, transaction
from sink.documents.refs import DocumentRef
from sink.erp.contract import (
    Checked,
    ConflictError,
    HoldError,
    HowFar,
    NotDone,
    Observed,
    RetryError,
    Step,
    StepProgress,
    StepResult,
    StopError,
)
from sink.erp.kinds import ErpRef
from sink.erp.sql.adapter import SqlErp
from sink.erp.sql.mapping import load_mapping
from sink.ledger import documents, leases, marks
from sink.ledger.leases import Lease
from sink.staging.assembly import LAST
from sink.staging.position import Position, save_position
from tests.fix_erp import (
    CUSTOMER,
    ORDER,
    PRICE,
    RETURN,
    ROOT,
    change,
    drain,
    held,
    make_worker,
    mark,
    mark_in,
    pass_deadlines,
    run,
    stand_at,
)


class Lossy(SqlErp):
    """An ERP that does what it is told, or not, and then fails."""

    failure: RetryError | HoldError | StopError | None = RetryError("the reply was lost")
    done = True
    away = False
    calls = 0

    def apply(self, steps: Sequence[Step], not_after: datetime) -> Sequence[StepResult]:
        self.calls += 1
        results = super().apply(steps, not_after) if self.done else []
        return results if self.failure is None else [NotDone(self.failure) for _ in steps]

    def clock(self) -> datetime:
        if self.away:
            raise RetryError("away")
        return super().clock()


@pytest.fixture
def lossy(erp_url: str) -> Iterator[Lossy]:
    adapter = Lossy(erp_url, load_mapping(ROOT / "deploy/erp/mapping.yaml"))
    yield adapter
    adapter.close()


@pytest.fixture
def other(database: str, middle: Connection) -> Iterator[Connection]:
    connection = connect(database, "ordertap_shop")
    yield connection
    connection.close()


def _lease(connection: Connection, owner: str, seconds: float = 60) -> Lease | None:
    with transaction(connection) as cursor:
        return next(iter(leases.lease(cursor, owner, seconds)), None)


def _value(connection: Connection, statement: str) -> object:
    with transaction(connection) as cursor:
        cursor.execute(statement)
        row = cursor.fetchone()
        return row[0] if row else None


def _need_the_buyer(connection: Connection) -> None:
    mark(connection, CUSTOMER)
    with transaction(connection) as cursor:
        marks.need(cursor, [CUSTOMER])


def test_nobody_takes_a_unit_over_before_the_lost_call_has_ended(
    middle: Connection, other: Connection, lossy: Lossy, profile_path: str, erp_url: str
) -> None:
    _need_the_buyer(middle)
    drain(make_worker(middle, lossy, profile_path))
    assert _value(middle, "SELECT count(*) FROM ordertap_shop.document WHERE intent IS NOT NULL") == 1
    with transaction(middle) as cursor:
        marks.retry(cursor, None)
    mark(middle, CUSTOMER)
    assert _lease(other, "w2") is None, "neither a retry nor a new mark shortens it"
    assert lossy.calls == 1
    pass_deadlines(middle)
    lossy.failure = None
    mark(middle, ORDER)
    drain(make_worker(other, lossy, profile_path, "w2"))
    assert run(erp_url, "SELECT (SELECT count(*) FROM customers), (SELECT count(*) FROM orders)") == [(1, 1)]
    assert _value(middle, "SELECT count(*) FROM ordertap_shop.unit WHERE deadline IS NOT NULL") == 0


def test_a_call_has_a_time_of_its_own_and_has_settled_when_the_lease_ends(
    middle: Connection, other: Connection, erp_url: str, profile_path: str
) -> None:
    """Whoever takes over then may look. A later call gets what is left of the lease, or renews it, which does not
    prolong calls sent before."""
    seen: list[tuple[timedelta, timedelta]] = []

    class Settles(SqlErp):
        def check(self) -> Checked:
            checked = super().check()
            return replace(checked, abilities=replace(checked.abilities, settles_within=30.0))

        def apply(self, steps: Sequence[Step], not_after: datetime) -> Sequence[StepResult]:
            deadline = _value(other, "SELECT min(deadline) FROM ordertap_shop.unit WHERE owner IS NOT NULL")
            assert isinstance(deadline, datetime)
            seen.append((deadline - not_after, not_after - self.clock()))
            return super().apply(steps, not_after)

    adapter = Settles(erp_url, load_mapping(ROOT / "deploy/erp/mapping.yaml"))
    change(middle, "INSERT INTO returns VALUES (5, 1, 1, 5.95)")
    mark(middle, ORDER, CUSTOMER, RETURN)
    drain(make_worker(middle, adapter, profile_path))
    adapter.close()
    assert len(seen) == 2, "an order with its buyer, and its return"
    assert min(settles for settles, _ in seen) >= timedelta(seconds=30)
    assert max(left for _, left in seen) <= timedelta(seconds=60)


@pytest.mark.parametrize("failure", [HoldError("no", "fix"), ConflictError("moved")])
def test_a_known_outcome_ends_the_lease_at_once(
    middle: Connection, lossy: Lossy, profile_path: str, failure: HoldError | ConflictError
) -> None:
    lossy.failure, lossy.done = failure, False
    _need_the_buyer(middle)
    drain(make_worker(middle, lossy, profile_path))
    assert _value(middle, "SELECT count(*) FROM ordertap_shop.unit WHERE deadline IS NOT NULL") == 0
    assert _value(middle, "SELECT count(*) FROM ordertap_shop.document WHERE intent IS NOT NULL") == 0


def test_what_an_outage_gives_back_keeps_its_place(middle: Connection) -> None:
    """Nobody has looked at it, so it does not fall behind what was marked after it."""
    mark(middle, ORDER)
    lease = _lease(middle, "w1")
    assert lease is not None
    marked_at = _value(middle, "SELECT marked_at FROM ordertap_shop.document")
    due = "SELECT due_at FROM ordertap_shop.unit WHERE unit = 'sales_order:1'"
    with transaction(middle) as cursor:
        leases.release(cursor, [lease], in_turn=True)
    assert _value(middle, due) == marked_at
    again = _lease(middle, "w1")
    assert again is not None
    with transaction(middle) as cursor:
        leases.release(cursor, [again])
    assert _value(middle, due) > marked_at


def test_release_keeps_a_unit_due_while_a_call_is_in_doubt(middle: Connection) -> None:
    mark(middle, ORDER)
    lease = _lease(middle, "w1")
    assert lease is not None
    with transaction(middle) as cursor:
        documents.save(cursor, ORDER, intent={"verb": "create"}, seen=1, next_try=None)
        leases.release(cursor, [lease])
    assert _value(middle, "SELECT due_at <= clock_timestamp() FROM ordertap_shop.unit") is True
    assert _value(middle, "SELECT deadline > clock_timestamp() + interval '50 s' FROM ordertap_shop.unit") is True
    assert _value(middle, "SELECT owner FROM ordertap_shop.unit") is None
    assert _lease(middle, "w1") is None
    pass_deadlines(middle)
    assert _lease(middle, "w2") == Lease("sales_order:1", "w2", lease.epoch + 1)


def test_release_of_settled_documents_ends_the_lease(middle: Connection) -> None:
    mark(middle, ORDER)
    lease = _lease(middle, "w1")
    assert lease is not None
    with transaction(middle) as cursor:
        documents.save(cursor, ORDER, seen=1)
        leases.release(cursor, [lease])
    assert _value(middle, "SELECT deadline IS NULL AND due_at IS NULL FROM ordertap_shop.unit") is True


def test_to_look_for_what_is_due_reads_nothing_else(middle: Connection) -> None:
    """Each worker looks many times a second, and of a million units nearly all are done, or due much later."""
    with transaction(middle) as cursor:
        cursor.execute(
            "INSERT INTO unit (unit, due_at) SELECT 'sales_order:' || n,"
            " CASE n % 2 WHEN 0 THEN clock_timestamp() + interval '1 hour' END FROM generate_series(1, 4000) AS n"
        )
        cursor.execute("ANALYZE unit")
        before = _units_read(cursor)
        assert not leases.any_due(cursor)
        assert leases.lease(cursor, "w1", 60.0, 50, later=["price"], filling=["customer"]) == []
        assert _units_read(cursor) == before


def _units_read(cursor: Cursor) -> int:
    cursor.execute("SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'unit'")
    return int((cursor.fetchone() or (0,))[0])


def test_a_worker_that_lost_its_lease_writes_nothing(middle: Connection, other: Connection) -> None:
    mark(middle, ORDER)
    lease = _lease(middle, "w1", 0)
    assert lease is not None
    assert _lease(other, "w2") is not None
    with pytest.raises(leases.LeaseLostError), transaction(middle) as cursor:
        leases.prove(cursor, [lease])
    with transaction(middle) as cursor:
        leases.release(cursor, [lease])
    assert _value(middle, "SELECT owner FROM ordertap_shop.unit") == "w2"


def test_one_documents_failure_is_its_own(middle: Connection, lossy: Lossy, profile_path: str) -> None:
    """The ERP answers other questions, so it is no outage, and the document rests longer each time."""
    lossy.done = False
    _need_the_buyer(middle)
    worker = make_worker(middle, lossy, profile_path)
    for _ in range(3):
        drain(worker)
        pass_deadlines(middle)
    assert lossy.calls == 3
    assert _value(middle, "SELECT attempts FROM ordertap_shop.document WHERE type = 'customer'") == 3


def test_an_outage_comes_through_and_counts_nothing(
    middle: Connection, lossy: Lossy, profile_path: str, erp_url: str
) -> None:
    worker = make_worker(middle, lossy, profile_path)
    worker.check()
    mark(middle, CUSTOMER, ORDER)
    lossy.away = True
    with pytest.raises(RetryError):
        drain(worker)
    assert _value(middle, "SELECT max(attempts) FROM ordertap_shop.document") == 0
    lossy.away, lossy.failure = False, None
    pass_deadlines(middle)
    drain(worker)
    assert run(erp_url, "SELECT count(*) FROM orders") == [(1,)]


def test_a_stop_lets_the_next_unit_have_its_turn(middle: Connection, lossy: Lossy, profile_path: str) -> None:
    lossy.failure, lossy.done = StopError("a state that the mapping does not know", "name it"), False
    _need_the_buyer(middle)
    worker = make_worker(middle, lossy, profile_path)
    with pytest.raises(StopError):
        worker.step()
    assert _value(middle, "SELECT reason FROM ordertap_shop.document") == "a state that the mapping does not know"
    assert worker.step() is False, "it has a time to look again"


def test_an_erp_that_cannot_say_holds_the_unit(middle: Connection, lossy: Lossy, profile_path: str) -> None:
    class Unsure(Lossy):
        def progress(self, steps: Sequence[Step]) -> Sequence[StepProgress]:
            return [StepProgress(HowFar.UNCLEAR)] * len(steps)

    mark(middle, CUSTOMER, ORDER)
    drain(make_worker(middle, lossy, profile_path))
    pass_deadlines(middle)
    lossy.__class__ = Unsure
    calls = lossy.calls
    drain(make_worker(middle, lossy, profile_path))
    assert any("cannot say whether the step was done (create)" in reason for reason in held(middle))
    assert lossy.calls == calls


def test_a_step_that_the_erp_cannot_tell_of_names_why_and_is_asked_about_again_by_itself(
    middle: Connection, lossy: Lossy, erp_url: str, profile_path: str
) -> None:
    worker = make_worker(middle, lossy, profile_path)
    lossy.failure = None
    mark(middle)
    drain(worker)
    lossy.failure = RetryError("the reply was lost")
    change(middle, "UPDATE orders SET gross = 9.90")
    mark(middle, ORDER)
    drain(worker)
    run(erp_url, "UPDATE orders SET placed_at = '12026-01-01'")
    lossy.failure = None
    for _ in range(2):
        pass_deadlines(middle)
        drain(worker)
        (reason,) = held(middle)
        assert reason.startswith("the ERP cannot say whether the step was done (amend): the ERP's rows of it ")
        step = _value(middle, "SELECT next_step FROM ordertap_shop.document WHERE state = 'held'")
        assert step == "make its document in the ERP readable; the sink asks again by itself"
    run(erp_url, "UPDATE orders SET placed_at = '2026-01-01T10:00Z'")
    pass_deadlines(middle)
    drain(worker)
    assert held(middle) == []
    assert run(erp_url, "SELECT gross::text FROM orders") == [("9.90",)]


def _while_open(other: Connection, begun: Callable[[Cursor], object], meanwhile: Callable[[], object]) -> None:
    """Runs `meanwhile`, which may have to wait, while what `begun` did is not committed yet."""
    with ThreadPoolExecutor(1) as pool:
        with transaction(other) as cursor:
            begun(cursor)
            waiting = pool.submit(meanwhile)
            time.sleep(0.2)
        waiting.result(60)


def test_a_mark_that_commits_during_a_release_is_not_lost(middle: Connection, other: Connection) -> None:
    mark(middle, PRICE)
    lease = _lease(middle, "w1")
    assert lease is not None
    with transaction(middle) as cursor:
        documents.save(cursor, PRICE, seen=1)

    def release() -> None:
        with transaction(middle) as cursor:
            leases.release(cursor, [lease])

    _while_open(other, lambda cursor: mark_in(cursor, PRICE), release)
    assert _lease(middle, "w1") is not None


def test_a_mark_during_a_write_of_the_worker_is_no_deadlock(middle: Connection, other: Connection) -> None:
    """Both lock the unit first, then the document."""
    mark(middle, PRICE)
    lease = _lease(middle, "w1")
    assert lease is not None

    def keep(cursor: Cursor) -> None:
        leases.prove(cursor, [lease])
        time.sleep(0.2)
        documents.save(cursor, PRICE, state="done")

    def both() -> None:
        mark(other, PRICE)

    _while_open(middle, keep, both)
    assert _value(middle, "SELECT marked - seen FROM ordertap_shop.document") == 2


@pytest.mark.parametrize(
    "ask", [lambda cursor: marks.need(cursor, [CUSTOMER]), lambda cursor: marks.retry(cursor, CUSTOMER)]
)
def test_who_asks_again_during_a_look_is_heard(middle: Connection, ask: Callable[[Cursor], object]) -> None:
    """The look began before the mark, so its outcome does not clear the mark."""
    mark(middle, CUSTOMER)
    with transaction(middle) as cursor:
        before = documents.entry(cursor, CUSTOMER)
        assert before is not None
        ask(cursor)
        documents.save(cursor, CUSTOMER, seen=before.marked)
    assert _value(middle, "SELECT seen < marked FROM ordertap_shop.document") is True


class GoesAway(SqlErp):
    """An ERP that does one step of an order, and then answers nothing."""

    away = False
    stops = False

    @property
    def error(self) -> StopError | RetryError:
        return StopError("refused", "fix it") if self.stops else RetryError("away")

    def apply(self, steps: Sequence[Step], not_after: datetime) -> Sequence[StepResult]:
        done = super().apply(steps, not_after)
        self.away = steps[0].ref.kind == "order"
        return done

    def observe(self, refs: Collection[ErpRef]) -> Mapping[ErpRef, Observed]:
        if self.away:
            raise self.error
        return super().observe(refs)

    def clock(self) -> datetime:
        if self.away:
            raise self.error
        return super().clock()


@pytest.fixture
def going(erp_url: str) -> Iterator[GoesAway]:
    adapter = GoesAway(erp_url, load_mapping(ROOT / "deploy/erp/mapping.yaml"))
    yield adapter
    adapter.close()


def _changed_and_cancelled(middle: Connection, erp: SqlErp, profile_path: str) -> None:
    """An order that the ERP has, and a commit in the shop that needs an amendment and a cancellation."""
    mark(middle)
    drain(make_worker(middle, erp, profile_path))
    change(middle, "UPDATE orders SET gross = 9.90, status = 'cancelled'")
    mark(middle, ORDER)


STATE = "SELECT gross::text, status FROM orders"


@pytest.mark.parametrize("stops", [False, True])
def test_a_cancellation_after_an_amendment_outlives_an_outage(
    middle: Connection, erp: SqlErp, going: GoesAway, profile_path: str, erp_url: str, stops: bool
) -> None:
    _changed_and_cancelled(middle, erp, profile_path)
    going.stops = stops
    with pytest.raises((RetryError, StopError)):
        drain(make_worker(middle, going, profile_path))
    assert run(erp_url, STATE) == [("9.90", "confirmed")]
    with transaction(middle) as cursor:
        assert documents.counts(cursor)["sales_order", "due"] == 1
    drain(make_worker(middle, erp, profile_path, "w2"))
    assert run(erp_url, STATE) == [("9.90", "cancelled")]


def test_a_cancellation_after_a_settled_amendment_outlives_an_outage(
    middle: Connection, erp: SqlErp, lossy: Lossy, profile_path: str, erp_url: str
) -> None:
    """The amendment's reply was lost. Another worker learns that it was done, and then the ERP is away."""

    class Silent(SqlErp):
        def unknown_items(self, skus: Collection[str]) -> set[str]:
            raise StopError("refused", "fix it")

    _changed_and_cancelled(middle, erp, profile_path)
    drain(make_worker(middle, lossy, profile_path))
    pass_deadlines(middle)
    silent = Silent(erp_url, load_mapping(ROOT / "deploy/erp/mapping.yaml"))
    with pytest.raises(StopError):
        drain(make_worker(middle, silent, profile_path, "w2"))
    silent.close()
    assert _value(middle, "SELECT count(*) FROM ordertap_shop.document WHERE intent IS NOT NULL") == 0
    drain(make_worker(middle, erp, profile_path, "w3"))
    assert run(erp_url, STATE) == [("9.90", "cancelled")]


def test_a_buyer_that_joins_an_order_by_itself_is_given_back(
    middle: Connection, erp: SqlErp, lossy: Lossy, profile_path: str, erp_url: str
) -> None:
    """What was sent for another order cannot be asked about, so each order goes by itself. Only then does this one's
    buyer join it."""

    class CannotSay(SqlErp):
        def progress(self, steps: Sequence[Step]) -> Sequence[StepProgress]:
            raise RetryError("it does not say")

    mark(middle, CUSTOMER)
    drain(make_worker(middle, erp, profile_path))
    change(middle, "INSERT INTO orders SELECT 2, 'S-2', '8', placed_at, status, sku, quantity, gross FROM orders")
    _need(middle, "customer", "8")
    drain(make_worker(middle, lossy, profile_path))
    pass_deadlines(middle)
    mark(middle, ORDER)
    silent = CannotSay(erp_url, load_mapping(ROOT / "deploy/erp/mapping.yaml"))
    assert make_worker(middle, silent, profile_path).step()
    silent.close()
    assert run(erp_url, "SELECT count(*)::int FROM orders") == [(1,)]
    assert _value(middle, "SELECT count(*) FROM ordertap_shop.unit WHERE owner IS NOT NULL") == 0
    assert _value(middle, "SELECT deadline FROM ordertap_shop.unit WHERE unit = 'customer:7'") is None


def _need(middle: Connection, type_: str, key: str) -> None:
    """A document outside the small shop that all tests begin with."""
    with transaction(middle) as cursor:
        marks.mark(
            cursor,
            sql.SQL("SELECT {t} AS type, {k} AS key, {t} || ':' || {k} AS unit").format(
                t=sql.Literal(type_), k=sql.Literal(key)
            ),
        )
        marks.need(cursor, [DocumentRef(type_, key)])


def test_while_nothing_may_be_planned_nothing_is_leased(middle: Connection, erp: SqlErp, profile_path: str) -> None:
    mark(middle)
    with transaction(middle) as cursor:
        save_position(cursor, Position(Stamp(1, LSN(1_000), LAST), "catching up"), None)
    assert make_worker(middle, erp, profile_path).step() is False
    assert _value(middle, "SELECT sum(epoch)::int FROM ordertap_shop.unit") == 0
    with transaction(middle) as cursor:
        stand_at(cursor, 1_000)
    assert make_worker(middle, erp, profile_path).step()


def test_orders_that_are_marked_together_are_leased_in_the_order_of_their_numbers(middle: Connection) -> None:
    mark(middle, *(DocumentRef("sales_order", str(number)) for number in range(95, 106)))
    found = [_lease(middle, "w1") for _ in range(11)]
    assert [one and one.unit for one in found] == [f"sales_order:{number}" for number in range(95, 106)]


def test_an_order_that_waited_for_its_buyer_keeps_its_place_among_those_that_waited_for_the_erp(
    middle: Connection,
) -> None:
    """As after an outage: an order marked long ago waits, and its buyer has just come."""
    mark(middle, CUSTOMER, ORDER)
    later = DocumentRef("sales_order", "2")
    mark(middle, later)
    with transaction(middle) as cursor:
        documents.save(cursor, ORDER, waits_for=str(CUSTOMER), seen=1)
        cursor.execute("UPDATE ordertap_shop.unit SET due_at = NULL WHERE unit <> 'sales_order:2'")
        marks.wake(cursor, [CUSTOMER], ["sales_order:1"])
    # Who has the unit now gives it back by this.
    assert _value(middle, "SELECT next_try = marked_at FROM ordertap_shop.document WHERE key = '1'") is True
    assert [one and one.unit for one in (_lease(middle, "w1"), _lease(middle, "w1"))] == [
        "sales_order:1", "sales_order:2",
    ]  # fmt: skip
