"""Reads one chunk of a table between two watermarks in the log, so that the stream can put it in its place.

The watermarks are logical messages. A row that the stream sees change between them is newer there than in the chunk.
Source: Andreakis and Papapanagiotou, "DBLog: A Watermark Based Change-Data-Capture Framework".
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

import psycopg2
import psycopg2.errors
from psycopg2 import sql

from capture.changes.any_bytes import not_utf8, other_bytes
from capture.changes.tables import Table, Tables
from capture.changes.transaction import RecordLimit
from capture.demand import UNREADABLE
from capture.postgres import catalogue
from capture.postgres.catalogue import Published
from capture.postgres.replication import Connection, Cursor, Server, database_errors, first_line, the_row
from capture.snapshot import locks
from capture.snapshot.chunks import column_list, copy_out
from capture.snapshot.copytext import parse_copy_line
from schemas.model.change import Cell
from schemas.model.errors import SettingsError
from schemas.model.lsn import LSN
from schemas.writing.codec import SourceOrigin

WATERMARK_PREFIX: Final = "ordertap.watermark"
CHUNK_BYTES: Final = 8_000_000
"""The size of a chunk, in bytes of PostgreSQL's text. Chunks of wide rows have fewer rows."""
_XIDS: Final = 1 << 32
NOT_SQL: Final = (
    psycopg2.ProgrammingError,
    psycopg2.DataError,
    psycopg2.NotSupportedError,
    psycopg2.errors.RaiseException,
    ValueError,  # for a text that cannot be sent
)
"""Errors that a condition may raise each time it is tried."""


class Watermark(NamedTuple):
    """A watermark: the reader that wrote it, the number of its chunk, and whether it is the low one."""

    reader: str
    chunk: int
    low: bool

    def dump(self) -> str:
        """The content of the logical message."""
        return json.dumps(self._asdict())


def parse_watermark(content: bytes) -> Watermark | None:
    """The watermark; None for anything else under the prefix."""
    try:
        return Watermark(**json.loads(content))
    except UNREADABLE:
        return None


Row = tuple[bytes | None, bytes]
"""Key and value of a record."""


class Visibility(NamedTuple):
    """Which transactions a chunk shows, by the low 32 bits of xids, which the log has."""

    xmax: int
    running: frozenset[int]

    def hides(self, xid: int) -> bool:
        """Whether the chunk's snapshot does not show the transaction. Xids wrap around: the half after ours counts as
        later."""
        return xid in self.running or (xid - self.xmax) % _XIDS < _XIDS // 2


class ChunkRows(NamedTuple):
    """The rows of a chunk, encoded as (key, value). `last_key`: None if no more rows follow."""

    table: Table
    rows: list[Row]
    last_key: tuple[str, ...] | None
    visibility: Visibility


class ChunkReader:
    """Reads chunks on an ordinary connection, in a thread beside the stream."""

    def __init__(
        self,
        server: Server,
        publication: str,
        tables: Tables,
        origin: SourceOrigin,
        chunk_rows: int,
        record_limit: RecordLimit,
    ) -> None:
        self._server = server
        self._publication = publication
        self._tables = tables
        self._origin = origin
        self.name = uuid.uuid4().hex[:12]
        self._rows = chunk_rows
        self._fitting = chunk_rows  # as many as had room lately
        self._record_limit = record_limit
        self._connection: Connection | None = None

    def ask(self, server: Server) -> None:
        """Uses another server from the next connection on."""
        self._server = server

    def read(
        self, number: int, name: str, condition: str | None, after: tuple[str, ...] | None, halvings: int
    ) -> ChunkRows:
        """The chunk of `name` (schema.table) after the key `after`, between its two marks, halved `halvings` times.

        SettingsError if the table is not captured, is parked or has no key, or if the condition is not SQL. ParkedError
        (or DataError, as set) if a row makes too large a record.
        """
        if name in self._tables.parked:  # changes since it was parked may lie outside of a condition
            raise SettingsError(f"table {name} is parked", f"capture signal snapshot {name}, without a condition")
        connection = self._connected()
        try:
            with database_errors(f"reading a chunk of {name}"), connection.cursor() as cursor:
                return self._between_marks(cursor, number, name, condition, after, max(1, self._fitting >> halvings))
        except BaseException:  # else the table stays locked, and the shop waits behind that lock
            connection.close()
            self._connection = None
            raise

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._server.connect()
            with database_errors("opening a session for chunks"), self._connection.cursor() as cursor:
                cursor.execute("SET synchronous_commit = local")  # no standby's answer is needed for a mark
        return self._connection

    def _between_marks(
        self, cursor: Cursor, number: int, name: str, condition: str | None, after: tuple[str, ...] | None, limit: int
    ) -> ChunkRows:
        low = self._mark(cursor, Watermark(self.name, number, low=True))
        held = locks.statement(self._published(cursor.connection, name))
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        cursor.execute(held)  # before the snapshot: a rewrite that ends between them would leave it empty
        cursor.execute("SELECT pg_current_snapshot()::text")
        visibility = parse_snapshot(the_row(cursor)[0])
        published = self._published(cursor.connection, name)
        table = self._tables.compile(published.relation)
        lines = _Lines()
        try:
            cursor.copy_expert(
                copy_out(cursor.connection, self._query(published, table, condition, after, limit)), lines
            )
        except NOT_SQL as error:
            what = f"the condition for {name} is not SQL that PostgreSQL accepts" if condition else f"reading {name}"
            raise SettingsError(f"{what}: {first_line(error)}", "fix it, then send the signal again") from None
        cursor.execute("COMMIT")
        self._fitting = len(lines.kept) if lines.full else min(self._rows, 2 * self._fitting)
        more = lines.full or len(lines.kept) >= limit
        chunk = self._encoded(table, published, lines.kept, low, visibility, more)
        self._mark(cursor, Watermark(self.name, number, low=False))
        return chunk

    def _mark(self, cursor: Cursor, mark: Watermark) -> LSN:
        """Writes a watermark and returns its LSN. The high one is flushed at once by a commit. In an idle database the
        WAL writer would leave it for wal_writer_delay (200 ms), and the stream would wait."""
        flush = "" if mark.low else ", txid_current()"
        cursor.execute(f"SELECT pg_logical_emit_message(false, %s, %s)::text{flush}", [WATERMARK_PREFIX, mark.dump()])
        return LSN.parse(the_row(cursor)[0])

    def _published(self, connection: Connection, name: str) -> Published:
        for published in catalogue.published_tables(connection, self._publication, name):
            if self._tables.captures(name):
                return published
        raise SettingsError(
            f"table {name} is not in publication {self._publication}, or the settings leave it out",
            "ALTER PUBLICATION … ADD TABLE, or correct table_include_list or table_exclude_list; then signal again",
        )

    def _query(
        self, published: Published, table: Table, condition: str | None, after: tuple[str, ...] | None, limit: int
    ) -> sql.Composable:
        key = table.encoder.own_key
        if not key:
            raise SettingsError(
                f"table {table.name} has no key: it cannot be read while it changes",
                "give it a primary key and signal again, or capture repair --execute reads all tables again",
            )
        names = sql.SQL(", ").join(map(sql.Identifier, key))
        conditions: list[sql.Composable] = [
            sql.SQL("(" + part + ")") for part in (published.row_filter, condition) if part
        ]
        if after is not None:
            values = sql.SQL(", ").join(map(sql.Literal, after))
            conditions.append(sql.SQL("({}) > ({})").format(names, values))
        where = sql.SQL(" WHERE ") + sql.SQL(" AND ").join(conditions) if conditions else sql.SQL("")
        columns = column_list(published, table.encoder.skipped)
        select = sql.SQL("SELECT {} FROM {}{} ORDER BY {} LIMIT {}")
        return select.format(columns, _source(published), where, names, sql.Literal(limit))

    def _encoded(
        self, table: Table, published: Published, lines: list[bytes], low: LSN, visibility: Visibility, more: bool
    ) -> ChunkRows:
        prefix = self._origin.snapshot(time.time_ns() // 1000, time.time_ns(), "incremental")
        cells: tuple[Cell, ...] = ()
        rows = []
        for line in lines:
            cells = parse_copy_line(line[:-1])
            if self._tables.any_bytes and (column := other_bytes(table.encoder, cells)):
                raise not_utf8(table.name, column)
            rows.append(table.read(prefix, low, cells))
        largest = max((len(key or b"") + len(value) for key, value in rows), default=0)
        self._record_limit.check_bytes(table.name, largest, "a row of the snapshot")
        last = None
        if more:
            last = tuple(_text(cells[index]) for index in _indexes(published, table.encoder.own_key))
        return ChunkRows(table, rows, last, visibility)

    def close(self) -> None:
        """Cancels what the connection waits for, then closes it: psycopg2 does not close a connection that another
        thread uses."""
        connection = self._connection
        if connection is not None:
            with suppress(psycopg2.Error):
                connection.cancel()
            connection.close()


def _source(table: Published) -> sql.Composable:
    """The table for FROM: without tables that inherit from it, but with its partitions."""
    only = sql.SQL("" if table.partitioned else "ONLY ")
    return only + sql.Identifier(table.relation.schema, table.relation.name)


class _Lines:
    """Takes COPY's lines. Keeps as many as there is room for, but at least one."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self.full = False
        self._size = 0

    def write(self, line: bytes) -> None:
        self._size += len(line)
        self.full = self.full or (bool(self.kept) and self._size > CHUNK_BYTES)
        if not self.full:
            self.kept.append(line)


def parse_snapshot(snapshot: str) -> Visibility:
    """A `pg_snapshot` as text, `10:20:10,14,15`. Source: PostgreSQL manual, "Snapshot Components"."""
    _, xmax, running = snapshot.split(":")
    return Visibility(int(xmax) % _XIDS, frozenset(int(xid) % _XIDS for xid in running.split(",") if xid))


def _indexes(published: Published, key: Sequence[str]) -> list[int]:
    names = [column.name for column in published.relation.columns]
    return [names.index(name) for name in key]


def _text(cell: Cell) -> str:
    assert isinstance(cell, bytes)  # noqa: S101  a key has no NULL
    return cell.decode()


Read = Callable[[int, str, "str | None", "tuple[str, ...] | None", int], ChunkRows]
