"""The shop as of each of its commits, which a copy has to equal.

Reads pgoutput with its own code, through its own slot, which starts with the rows of that moment. Only goes forward.
Source: PostgreSQL manual, "Logical Replication Message Formats".
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import psycopg2
from psycopg2.extras import LogicalReplicationConnection

from tests.proof.text import Row, plain, rows_of

Key = tuple[str | None, ...]
_UNCHANGED: Final = object()
_PRINT_ALIKE: Final = (frozenset({20, 21, 23, 1700}), frozenset({25, 1042, 1043}))
"""Types whose values are printed alike, so that a widened column keeps its texts."""

_COLUMNS = (
    "SELECT attname, atttypid::bigint FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
    " AND NOT attisdropped ORDER BY attnum"
)
_KEY = (
    "SELECT attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)"
    " WHERE i.indisprimary AND i.indrelid = to_regclass(%s)"
)
_TABLES = "SELECT schemaname || '.' || tablename FROM pg_publication_tables WHERE pubname = %s"


@dataclass
class Table:
    """The rows of a table with a primary key. `columns`: name → type OID."""

    key: tuple[str, ...]
    columns: dict[str, int]
    rows: dict[Key, Row] = field(default_factory=dict)

    def key_of(self, row: Row) -> Key:
        """The key of a row. Equal keys are equal however they are printed."""
        return tuple(plain(row.get(name), self.columns.get(name, 0)) for name in self.key)

    def take_shape(self, columns: dict[str, int]) -> None:
        """Follows a schema change, which rewrites rows without logging them: an older row's value is known only if its
        text stays the same."""
        for name, kind in self.columns.items():
            if kind != columns.get(name) and not any({kind, columns.get(name)} <= alike for alike in _PRINT_ALIKE):
                for row in self.rows.values():
                    row.pop(name, None)
        self.columns = columns


class Commit(NamedTuple):
    """A commit of the shop: where its record begins and ends in the log, and its messages."""

    lsn: int
    end: int
    messages: list[bytes]


class History:
    """All published tables with a primary key, as of `at`: what is committed before it."""

    def __init__(self, dsn: str, publication: str, slot: str) -> None:
        self.tables: dict[str, Table] = {}
        self.at = 0
        self._dsn = dsn
        self._publication = publication
        self._slot = slot
        self._pending: deque[Commit] = deque()
        self._read = 0  # the end of the last commit that was read
        self._shapes: dict[int, tuple[str, dict[str, int]]] = {}

    def create(self) -> None:
        """Makes the slot, and reads the tables as of its start."""
        with (
            closing(psycopg2.connect(self._dsn, connection_factory=LogicalReplicationConnection)) as replication,
            replication.cursor() as slot,
        ):
            slot.execute(f'CREATE_REPLICATION_SLOT "{self._slot}" LOGICAL pgoutput EXPORT_SNAPSHOT')
            _, point, snapshot, _ = slot.fetchone() or ("",) * 4
            with self._session() as cursor:
                cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
                cursor.execute("SET TRANSACTION SNAPSHOT %s", (snapshot,))
                self._copy(cursor)
        high, low = point.split("/")
        self.at = self._read = int(high, 16) << 32 | int(low, 16)

    def drop(self) -> None:
        """Drops the slot, which frees the log."""
        with self._session() as cursor:
            cursor.execute("SELECT pg_drop_replication_slot(%s)", (self._slot,))

    def advance(self, lsn: int, included: bool) -> None:
        """Goes to just before what is committed at `lsn`, or just after it if `included`."""
        self.read()
        while self._pending and (self._pending[0].lsn < lsn or (included and self._pending[0].lsn == lsn)):
            for message in self._pending.popleft().messages:
                self._apply(message)
        self.at = lsn

    def read(self) -> None:
        """Reads what the log has now and keeps it, so that the slot can let go of it."""
        with self._session() as cursor:
            cursor.execute(
                "SELECT data FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL, 'proto_version', '1',"
                " 'publication_names', %s)",
                (self._slot, self._publication),
            )
            new = [commit for commit in _commits(bytes(row[0]) for row in cursor) if commit.end > self._read]
            self._pending += new
            if new:
                self._read = new[-1].end
                place = f"{self._read >> 32:X}/{self._read & 0xFFFFFFFF:X}"
                cursor.execute("SELECT pg_replication_slot_advance(%s, %s)", (self._slot, place))

    @contextmanager
    def _session(self) -> Iterator[Any]:
        options = "-c timezone=UTC -c datestyle=ISO -c extra_float_digits=1"
        with closing(psycopg2.connect(self._dsn, options=options)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                yield cursor

    def _copy(self, cursor: Any) -> None:
        cursor.execute(_TABLES, (self._publication,))
        for (name,) in cursor.fetchall():
            table = self._table(cursor, name)
            if table is not None:
                table.rows = {table.key_of(row): row for row in rows_of(cursor, f"SELECT * FROM {quoted(name)}")}

    def _table(self, cursor: Any, name: str) -> Table | None:
        """The table; None without a primary key, because nobody could tell its rows apart."""
        cursor.execute(_KEY, (quoted(name),))
        key = tuple(row[0] for row in cursor.fetchall())
        if not key:
            return None
        cursor.execute(_COLUMNS, (quoted(name),))
        self.tables[name] = Table(key, dict(cursor.fetchall()))
        return self.tables[name]

    def _apply(self, message: bytes) -> None:
        body = Message(message)
        if body.kind == b"R":
            self._relation(body)
        elif body.kind in b"IUD":
            self._row(body)
        elif body.kind == b"T":
            for oid in body.truncated():
                if table := self.tables.get(self._shapes[oid][0]):
                    table.rows.clear()

    def _relation(self, body: Message) -> None:
        oid, name, columns = body.relation()
        self._shapes[oid] = name, columns
        table = self.tables.get(name)
        if table is None:
            with self._session() as cursor:
                table = self._table(cursor, name)
        if table is not None and table.columns != columns:
            table.take_shape(columns)

    def _row(self, body: Message) -> None:
        name, columns = self._shapes[body.oid()]
        table = self.tables.get(name)
        if table is None:
            return
        tuples = {tag: dict(zip(columns, values, strict=True)) for tag, values in body.tuples()}
        new = tuples.get(b"N")
        old = tuples.get(b"K") or tuples.get(b"O") or (new if body.kind == b"U" else None)
        before = table.rows.pop(table.key_of(old), {}) if old else {}
        if new is not None:
            kept = {column: before[column] for column in new if column in before}
            row = kept | {column: value for column, value in new.items() if value is not _UNCHANGED}
            table.rows[table.key_of(row)] = row


def quoted(name: str) -> str:
    """A table's full name, quoted for a statement."""
    return ".".join(f'"{part}"' for part in name.split("."))


def _commits(messages: Iterator[bytes]) -> Iterator[Commit]:
    changes: list[bytes] = []
    for message in messages:
        if message[:1] == b"B":
            changes = []
        elif message[:1] == b"C":
            lsn, end = struct.unpack_from(">QQ", message, 2)
            yield Commit(lsn, end, changes)
        else:
            changes.append(message)


class Message:
    """Reads one pgoutput message from its second byte on. Each part is read once, in order."""

    def __init__(self, message: bytes) -> None:
        self.kind = message[:1]
        self._message = message
        self._at = 1

    def oid(self) -> int:
        """The OID of its table."""
        return self._number(">I")

    def relation(self) -> tuple[int, str, dict[str, int]]:
        """A Relation message: the table's OID, its full name, and its columns with their type OIDs."""
        oid, schema, name = self.oid(), self._name(), self._name()
        self._number(">B")  # replica identity
        return oid, f"{schema}.{name}", dict(self._column() for _ in range(self._number(">H")))

    def truncated(self) -> list[int]:
        """A Truncate message: the tables' OIDs."""
        count = self._number(">I")
        self._number(">B")  # options
        return [self.oid() for _ in range(count)]

    def tuples(self) -> Iterator[tuple[bytes, list[Any]]]:
        """The rows of an Insert, Update or Delete message, each with its tag: N new, K old key, O old row."""
        while self._at < len(self._message):
            tag = self._take(1)
            yield tag, [self._value() for _ in range(self._number(">H"))]

    def _column(self) -> tuple[str, int]:
        self._number(">B")  # part of the key
        name, kind = self._name(), self.oid()
        self._number(">I")  # type modifier
        return name, kind

    def _value(self) -> Any:
        tag = self._take(1)
        if tag == b"t":
            return self._take(self._number(">I")).decode()
        return _UNCHANGED if tag == b"u" else None

    def _number(self, form: str) -> int:
        found: int = struct.unpack_from(form, self._message, self._at)[0]
        self._at += struct.calcsize(form)
        return found

    def _name(self) -> str:
        end = self._message.index(b"\0", self._at)
        found = self._message[self._at : end].decode()
        self._at = end + 1
        return found

    def _take(self, length: int) -> bytes:
        found = self._message[self._at : self._at + length]
        self._at += length
        return found
