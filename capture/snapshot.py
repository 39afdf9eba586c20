"""The initial snapshot: a copy of the tables that fits the stream exactly. After a crash it starts anew.

The tables are locked against rewrites before the slot is made: a rewrite would empty the exported snapshot silently.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import psycopg2.errors
import structlog
from psycopg2 import sql

from capture.catalogue import Published
from capture.metrics import SNAPSHOT_ROWS
from capture.own_records import OwnRecords
from capture.position import Position, SnapshotState
from capture.producer import Headers, Record, TransactionalProducer
from capture.replication import Replication, Server, database_errors, drop_slot
from capture.tables import Table, Tables
from schemas import records
from schemas.change import STAMP_HEADER, TRANSACTION_HEADER, Stamp, snapshot_header, stamp_header
from schemas.codec import SourceOrigin, SourcePrefix
from schemas.errors import OrdertapError, UnavailableError

log = structlog.get_logger("capture")

_CHUNK_ROWS = 20_000
_CHUNK_BYTES = 8_000_000
_SAY_EVERY = 5.0
_ESCAPES = {
    ord("b"): b"\b", ord("f"): b"\f", ord("n"): b"\n", ord("r"): b"\r", ord("t"): b"\t", ord("v"): b"\v",
}  # fmt: skip


class StoppedError(Exception):
    """The process was asked to stop in the middle; the next start begins a new snapshot."""


class Committed(NamedTuple):
    """How the snapshot writes: a producer, and where its position goes."""

    producer: TransactionalProducer
    topic: str
    key: bytes
    timeout: float

    def write(self, batch: Sequence[Record], position: Position) -> None:
        """One Kafka transaction."""
        self.producer.begin_transaction()
        self.producer.produce(batch)
        self.producer.produce([Record(self.topic, 0, self.key, position.dump(), [])])
        self.producer.commit(self.timeout)


class Source(NamedTuple):
    """Where the snapshot reads."""

    server: Server
    replication: Replication
    slot: str
    lock_timeout_ms: int


def take_snapshot(
    source: Source,
    published: Sequence[Published],
    tables: Tables,
    own: OwnRecords,
    origin: SourceOrigin,
    position: Position,
    committed: Committed,
    stopping: Callable[[], bool],
) -> Position:
    """Makes the slot and writes the tables as they are at its consistent point; returns the position to stream from.

    `position` is committed as "running" before the slot is made, so that the next start knows a half-made slot as ours.
    Raises StoppedError when `stopping()`.
    """
    names = [table.relation.table for table in published]
    lock = lock_tables(source.server, published, source.lock_timeout_ms)
    reader = source.server.connect()
    try:
        state = SnapshotState(str(uuid.uuid4()), "running")
        committed.write((), position._replace(snapshot=state))
        drop_slot(reader, source.slot)
        log.info("making the slot; the server waits for transactions that are open now", slot=source.slot)
        point, exported = source.replication.create_slot(source.slot, stopping)
        position = position._replace(end_lsn=point, last_commit_lsn=point, snapshot=state, heartbeat=None)
        log.info("snapshot begins", snapshot=state.id, tables=len(names), consistent_point=str(point))
        stamp = Stamp(position.generation, point, 0)
        committed.write([own.snapshot(records.STARTED, stamp, state.id, names, _now_ms())], position)
        _begin_at(reader, exported)
        copy = _Copy(position, committed, stamp, state.id, stopping)
        rows: dict[str, int] = {}
        for table in published:
            compiled = tables.relation(table.relation)
            if compiled is not None:
                rows[compiled.name] = copy.table(reader, table, compiled, origin)
                scanned = {"table": compiled.name, "rows_scanned": rows[compiled.name]}
                notice = own.snapshot(records.TABLE_SCAN_COMPLETED, stamp, state.id, names, _now_ms(), **scanned)
                copy.flush(notice)
        position = position._replace(snapshot=SnapshotState(state.id, "completed"))
        done = own.snapshot(records.COMPLETED, stamp, state.id, names, _now_ms(), rows=rows)
        committed.write([done], position)
        log.info("snapshot completed", snapshot=state.id, rows=sum(rows.values()))
        return position
    finally:
        reader.close()
        lock.close()


def lock_tables(server: Server, published: Sequence[Published], timeout_ms: int) -> Any:
    """A connection that holds ACCESS SHARE on the tables in an open transaction; close it to let go."""
    connection = server.connect()
    connection.autocommit = False
    try:
        with database_errors("locking the tables for the snapshot"), connection.cursor() as cursor:
            cursor.execute("SELECT set_config('lock_timeout', %s, true)", [str(timeout_ms)])
            for table in published:
                cursor.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(_source(table)))
    except OrdertapError as error:
        connection.close()
        if isinstance(error.__cause__ or error.__context__, psycopg2.errors.LockNotAvailable):
            raise UnavailableError(
                f"the snapshot waited {timeout_ms} ms for a table that a schema change has locked: {error.message}",
                "let the ALTER, VACUUM FULL or CLUSTER end, or raise snapshot_lock_timeout_ms",
            ) from None
        raise
    return connection


def _begin_at(reader: Any, exported: str) -> None:
    with database_errors("reading the exported snapshot"), reader.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        cursor.execute("SET TRANSACTION SNAPSHOT %s", [exported])


def _source(table: Published) -> sql.Composable:
    """What to read: a table without those that inherit from it, a partitioned one with its partitions."""
    only = sql.SQL("" if table.partitioned else "ONLY ")
    return only + sql.Identifier(table.relation.schema, table.relation.name)


def _now_ms() -> int:
    return time.time_ns() // 10**6


class _Copy:
    """Writes rows as they come from COPY, a Kafka transaction for each chunk."""

    def __init__(
        self, position: Position, committed: Committed, stamp: Stamp, snapshot: str, stopping: Callable[[], bool]
    ) -> None:
        self._position = position
        self._committed = committed
        self._headers: Headers = [(STAMP_HEADER, stamp_header(stamp)), (TRANSACTION_HEADER, snapshot_header(snapshot))]
        self._lsn = int(stamp.commit_lsn)
        self._stopping = stopping
        self._batch: list[Record] = []
        self._bytes = 0
        self._rest = b""
        self._rows = 0
        self._said = time.monotonic()
        self._table: Table
        self._prefix: SourcePrefix

    def table(self, reader: Any, published: Published, table: Table, origin: SourceOrigin) -> int:
        """Reads one table; returns its number of rows."""
        self._table = table
        self._rows = 0
        self._prefix = origin.snapshot(time.time_ns() // 1000, time.time_ns())
        columns = sql.SQL(", ").join(sql.Identifier(column.name) for column in published.relation.columns)
        where = sql.SQL(" WHERE " + published.row_filter if published.row_filter else "")
        query = sql.SQL("COPY (SELECT {} FROM {}{}) TO STDOUT").format(columns, _source(published), where)
        with database_errors(f"copying {table.name}"), reader.cursor() as cursor:
            cursor.copy_expert(query, self)
        log.info("table copied", table=table.name, rows=self._rows)
        return self._rows

    def write(self, data: bytes) -> None:
        """Called by COPY with its text format, whole lines or parts of them."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            key, value = self._table.read(self._prefix, self._lsn, parse_copy_line(line))
            self._batch.append(Record(self._table.topic, self._table.partition, key, value, self._headers))
            self._bytes += len(value)
            self._rows += 1
            SNAPSHOT_ROWS.labels(self._table.name).inc()
        if len(self._batch) >= _CHUNK_ROWS or self._bytes >= _CHUNK_BYTES:
            self.flush()

    def flush(self, *more: Record) -> None:
        """Commits what has come."""
        if self._stopping():
            raise StoppedError
        self._committed.write([*self._batch, *more], self._position)
        self._batch = []
        self._bytes = 0
        if time.monotonic() - self._said > _SAY_EVERY:
            self._said = time.monotonic()
            log.info("snapshot goes on", table=self._table.name, rows=self._rows)


def parse_copy_line(line: bytes) -> tuple[bytes | None, ...]:
    """The cells of one line of COPY's text format. Source: PostgreSQL manual, COPY, "Text Format"."""
    cells = line.split(b"\t")
    if b"\\" not in line:
        return tuple(cells)
    return tuple(None if cell == b"\\N" else _unescape(cell) for cell in cells)


def _unescape(cell: bytes) -> bytes:
    if b"\\" not in cell:
        return cell
    first, *rest = cell.split(b"\\")
    parts = [first]
    pieces = iter(rest)
    for piece in pieces:
        if piece:
            parts += [_ESCAPES.get(piece[0], piece[:1]), piece[1:]]
        else:  # an escaped backslash: what follows stands for itself
            parts += [b"\\", next(pieces, b"")]
    return b"".join(parts)
