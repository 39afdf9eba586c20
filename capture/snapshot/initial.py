"""The initial snapshot: a copy of the tables that fits the stream exactly.

The tables are locked against rewrites once the slot exists, because a rewrite would silently empty the exported
snapshot. If a rewrite came between the two, it is noticed, and the snapshot begins again.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any, Final, NamedTuple

import structlog

from capture.changes.any_bytes import not_utf8
from capture.changes.notes import tell_of
from capture.changes.own_records import OwnRecords
from capture.changes.tables import Table, Tables
from capture.kafka.cluster import Cluster
from capture.kafka.index import NOT_COPIED
from capture.kafka.producer import Record
from capture.kafka.writer import COMMIT_PATIENCE, PositionWriter
from capture.position import InitialSnapshot, Position
from capture.postgres.catalogue import Published, extent, published_tables
from capture.postgres.replication import Connection, Replication, Server, database_errors, drop_slot
from capture.selection import any_matches, unmatched
from capture.snapshot.chunks import TablePlan, measure, plan_table, together
from capture.snapshot.copying import Blueprint, Copied
from capture.snapshot.locks import Locks, hold, locks_of, storage_at
from capture.snapshot.marks import marks
from capture.snapshot.modes import SnapshotOptions
from capture.snapshot.progress import Progress
from capture.snapshot.workers import OwnProcess, Setup, Workers, fence, worker_ids
from schemas.model import commits
from schemas.model.change import Stamp
from schemas.model.errors import OrdertapError, SettingsError, UnavailableError
from schemas.writing import records
from schemas.writing.codec import SourceOrigin
from schemas.writing.json_output import JsonEncoder

log = structlog.get_logger("capture")
_TOGETHER: Final = 0.5  # seconds


class StoppedError(Exception):
    """The process was asked to stop half-way. The next start continues, or begins a new snapshot."""


class Source(NamedTuple):
    """Where the snapshot reads, and where its processes write; their transactional ids begin with this one. `selected`:
    whether the settings include a table (schema.table) of the publication. `writes` is called before the first
    record."""

    server: Server
    replication: Replication
    slot: str
    publication: str
    cluster: Cluster
    transactional_id: str
    selected: Callable[[str], bool]
    writes: Callable[[], object]


class _Part(NamedTuple):
    """One table of the snapshot."""

    name: str
    blueprint: Blueprint
    plan: TablePlan


def take_snapshot(
    source: Source,
    options: SnapshotOptions,
    published: Sequence[Published],
    tables: Tables,
    own: OwnRecords,
    origin: SourceOrigin,
    position: Position,
    committed: PositionWriter,
    stopping: Callable[[], bool],
) -> Position:
    """Makes the slot and writes the tables as they are at its consistent point; returns the position to stream from.

    `position` is committed as "making" before the slot is made, so that the next start knows a half-made slot as ours.
    Raises StoppedError when `stopping()`.
    """

    def stop() -> None:
        if stopping():
            raise StoppedError

    published = chosen(published, options)
    if position.snapshot is not None:
        fence(source.cluster, source.transactional_id, position.snapshot.workers)
    with closing(source.server.connect()) as holder:
        compiled: list[tuple[Published, Table]] = []
        for one in published:
            stop()
            if (table := tables.relation(one.relation)) is not None:
                compiled.append((one, table))
        expected = _parts(holder, compiled, options)  # says what cannot be read before a slot is made
        ids = _worker_ids(source.transactional_id, options.threads, expected)
        position = position._replace(parked=tuple(sorted(tables.parked)))
        state = InitialSnapshot(str(uuid.uuid4()), "making", {}, len(ids))
        committed.write((), position._replace(snapshot=state), _given_up(position))
        drop_slot(holder, source.slot)
        log.info("making the slot; the server waits for transactions that are open now", slot=source.slot)
        point, exported = source.replication.create_slot(source.slot, stopping)
        position = position._replace(end_lsn=point, last_commit_lsn=point, snapshot=state, heartbeat=None)
        locks = locks_of(published, options.lock_timeout_ms)
        _hold_unchanged(holder, locks, source, options, published, exported)
        run = _Run(_parts(holder, compiled, options), tables, own, committed, position, holder)
        setups = _setups(source, locks, exported, ids, COMMIT_PATIENCE)
        try:
            with OwnProcess(setups[0]) if len(setups) == 1 else Workers(setups) as workers:
                workers.await_ready(stop)
                source.writes()
                run.begin()
                run.copy(workers, origin, stop)
        except BaseException:  # readers would wait for what the workers left open; the next start does it at the latest
            with suppress(OrdertapError):
                fence(source.cluster, source.transactional_id, len(ids), timeout=3.0)
            raise
        return run.complete()


def begin_without_data(
    replication: Replication,
    slot: str,
    own: OwnRecords,
    position: Position,
    committed: PositionWriter,
    stopping: Callable[[], bool],
) -> Position:
    """Makes the slot (there must be none) without copying tables; returns the position to stream from."""
    committed.write((), position._replace(snapshot=InitialSnapshot("no_data", "making")))
    log.info("making the slot without a snapshot", slot=slot)
    lsn = replication.create_slot(slot, stopping).consistent_point
    position = position._replace(end_lsn=lsn, last_commit_lsn=lsn, snapshot=None)
    announce_without_data(own, position, committed)
    return position


def announce_without_data(own: OwnRecords, position: Position, committed: PositionWriter) -> None:
    """Writes a first position, and tells readers, who wait for a first copy, that an empty one is complete."""
    stamp = Stamp(position.generation, position.end_lsn, 0)
    done = own.snapshot(records.COMPLETED, stamp, str(uuid.uuid4()), [], time.time_ns() // 10**6, rows={})
    committed.write([done], position, (commits.SnapshotState(NOT_COPIED, "completed", position.end_lsn, True, (), {}),))


def _given_up(position: Position) -> tuple[commits.SnapshotState, ...]:
    """The unfinished snapshot that this one replaces."""
    old = position.snapshot
    if old is None or old.state != "running":
        return ()
    return (commits.SnapshotState(old.id, "aborted", position.end_lsn, True, (), {}),)


def _parts(reader: Connection, compiled: Sequence[tuple[Published, Table]], options: SnapshotOptions) -> list[_Part]:
    parts: list[_Part] = []
    leaves = measure(reader, [one for one, _ in compiled])
    for one, table in compiled:
        encoder = table.encoder
        text_of = encoder.text_of if isinstance(encoder, JsonEncoder) else None
        blueprint = Blueprint(table.name, table.topic, encoder.codec.again, *encoder.schema_ids, text_of)
        select, skipped = options.overrides.get(table.name), encoder.skipped
        plan = plan_table(reader, len(parts), one, leaves[one.relation.oid], select, skipped)
        parts.append(_Part(table.name, blueprint, plan))
    return parts


def chosen(published: Sequence[Published], options: SnapshotOptions) -> list[Published]:
    """The tables to read. SettingsError if one that the settings name is not captured."""
    names = [table.relation.table for table in published]
    missing = sorted([*unmatched(options.included, names), *(options.overrides.keys() - set(names))])
    if missing:
        raise SettingsError(
            f"{', '.join(missing)} is in snapshot_include_collection_list or snapshot_select_statement_overrides, "
            "but is not captured",
            "take it out there, or add it to the publication and to table_include_list",
        )
    return [one for one in published if not options.included or any_matches(options.included, one.relation.table)]


def cost(connection: Connection, published: Sequence[Published], options: SnapshotOptions) -> str:
    """For people: what a new snapshot would read. It is part of the message about a loss, so an error here (a table
    that somebody has locked) must not replace that message."""
    if options.mode == "no_data":
        return "no table is read again (snapshot_mode no_data)"
    try:
        return f"{extent(connection, chosen(published, options))}, are read again"
    except OrdertapError as error:
        return f"tables are read again, but how many rows is not known ({error.message})"


def _hold_unchanged(
    holder: Connection,
    locks: Locks,
    source: Source,
    options: SnapshotOptions,
    published: Sequence[Published],
    exported: str,
) -> None:
    """Takes the locks. UnavailableError if a table was altered, rewritten or published meanwhile, or is not free."""
    oids = [table.relation.oid for table in published]
    before = storage_at(holder, oids, exported)
    hold(holder, locks)
    now = {table.relation.table: table for table in published_tables(holder, source.publication)}
    for table in published:
        if now.get(table.relation.table) != table:
            raise UnavailableError(f"{table.relation.table} was altered just now", "capture begins the snapshot again")
    meant = chosen([table for name, table in now.items() if source.selected(name)], options)
    if len(meant) > len(published):
        raise UnavailableError("a table was published just now", "capture begins the snapshot again")
    if storage_at(holder, oids) != before:
        raise UnavailableError("a table was rewritten or truncated just now", "capture begins the snapshot again")


def _worker_ids(transactional_id: str, threads: int, parts: Sequence[_Part]) -> list[str]:
    """The id of each process that copies, at most one per chunk."""
    return worker_ids(transactional_id, max(1, min(threads, sum(len(part.plan.chunks) for part in parts))))


def _setups(source: Source, locks: Locks, exported: str, ids: Sequence[str], timeout: float) -> list[Setup]:
    cluster = source.cluster
    return [Setup(source.server, locks, exported, cluster.servers, cluster.options, name, timeout) for name in ids]


class _Run:
    """One snapshot from its consistent point to its end: notices, progress, and the position after each table."""

    def __init__(
        self,
        parts: Sequence[_Part],
        tables: Tables,
        own: OwnRecords,
        committed: PositionWriter,
        position: Position,
        holder: Connection,
    ) -> None:
        """`tables`: told when a table is parked on the way."""
        assert position.snapshot is not None  # noqa: S101  the caller's condition
        self._parts = parts
        self._names = [part.name for part in parts]
        self._read = list(self._names)  # without those that were parked on the way
        self._tables = tables
        self._done: dict[str, int] = {}  # rows of tables that are not noted yet
        self._noted = 0.0
        self._own = own
        self._committed = committed
        self._position = position
        self._state = position.snapshot._replace(state="running")
        self._holder = holder
        self._progress = Progress({part.name: part.plan.rows for part in parts})
        self._stamp = Stamp(position.generation, position.end_lsn, 0)

    def begin(self) -> None:
        """Announces the snapshot."""
        point = str(self._position.end_lsn)
        log.info("snapshot begins", snapshot=self._state.id, tables=len(self._names), consistent_point=point)
        self._write(self._notice(records.STARTED), states=self._told("running", {}))

    def copy(self, workers: OwnProcess | Workers, origin: SourceOrigin, stopping: Callable[[], object]) -> None:
        """Notes each chunk as it becomes durable, and each table with its last chunk."""
        left = Counter({number: len(part.plan.chunks) for number, part in enumerate(self._parts)})
        chunks = [chunk for part in self._parts for chunk in part.plan.chunks]
        marked = marks([chunk.table for chunk in chunks], workers.in_order)
        chunks = [chunk._replace(marks=one) for chunk, one in zip(chunks, marked, strict=True)]
        groups = list(together(chunks, self._state.workers))
        copied = Copied(self._state.id, self._stamp, time.time_ns() // 1000, origin)

        def pause() -> None:
            stopping()
            self._note_done()

        with self._progress:
            for number in [number for number, count in left.items() if not count]:
                self._table_done(number)
            blueprints = [part.blueprint for part in self._parts]
            for chunk, outcome in workers.copy(blueprints, copied, groups, pause):
                left[chunk.table] -= 1
                name = self._names[chunk.table]
                tell_of(name, outcome.notes)
                if outcome.refused is not None:
                    self._park(name, outcome.refused)
                part = 1 - left[chunk.table] / len(self._parts[chunk.table].plan.chunks)
                self._progress.copied(name, outcome.rows, part)
                if not left[chunk.table] and name not in self._tables.parked:
                    self._table_done(chunk.table)
        self._note_done(at_once=True)

    def complete(self) -> Position:
        """Announces the end. Returns the position to stream from."""
        self._check_lock()
        rows = {name: self._progress.rows[name] for name in self._read}
        self._state = self._state._replace(state="completed", tables_done={}, workers=0)
        self._write(self._notice(records.COMPLETED, rows=rows), states=self._told("completed", rows))
        log.info("snapshot completed", snapshot=self._state.id, **self._progress.figures())
        return self._position

    def _park(self, name: str, column: str) -> None:
        """Parks a table; the others go on. Its rows so far are in Kafka, and the snapshot does not vouch for them."""
        if name not in self._tables.parked:
            self._read.remove(name)
            self._tables.park(not_utf8(name, column))
        self._position = self._position._replace(parked=tuple(sorted(self._tables.parked)))

    def _table_done(self, number: int) -> None:
        name = self._names[number]
        self._progress.table_done(name)
        self._done[name] = self._progress.rows[name]
        self._note_done()

    def _note_done(self, at_once: bool = False) -> None:
        """Notes finished tables, those of a moment together: one by one, thousands of small tables would be as many
        transactions."""
        now = time.monotonic()
        if not self._done or not (at_once or now - self._noted > _TOGETHER):
            return
        self._check_lock()
        self._noted = now
        self._state = self._state._replace(tables_done={**self._state.tables_done, **self._done})
        step = records.TABLE_SCAN_COMPLETED
        self._write(*(self._notice(step, table=name, rows_scanned=rows) for name, rows in self._done.items()))
        self._done.clear()

    def _check_lock(self) -> None:
        """Raises if the lock is lost: a table may then have been rewritten, and read as empty."""
        with database_errors("the lock on the tables was lost during the snapshot"), self._holder.cursor() as cursor:
            cursor.execute("SELECT 1")

    def _told(self, state: commits.SnapshotStep, rows: Mapping[str, int]) -> tuple[commits.SnapshotState, ...]:
        point, names = self._stamp.commit_lsn, tuple(self._read)
        return (commits.SnapshotState(self._state.id, state, point, True, names, rows),)

    def _notice(self, step: str, **more: Any) -> Record:
        return self._own.snapshot(step, self._stamp, self._state.id, self._read, time.time_ns() // 10**6, **more)

    def _write(self, *notices: Record, states: tuple[commits.SnapshotState, ...] = ()) -> None:
        self._position = self._position._replace(snapshot=self._state)
        self._committed.write(notices, self._position, states)
