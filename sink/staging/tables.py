"""The staged tables: made and altered from the columns of the records, read and written in bulk.

Each has a view without the marked rows in the schema that is named like the shop, so that a profile's SQL reads the
same here and on the shop itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg2 import sql
from psycopg2.extras import execute_values

from schemas.change import Stamp
from schemas.errors import DataError
from schemas.lsn import LSN
from sink.database import Cursor
from sink.staging.rows import RowChange, StagedRow, widen

SCHEMA: Final = "staged"
_MARKS: Final = ("_generation", "_commit_lsn", "_ordinal", "_deleted", "_snapshot", "_unseen", "_filled")
_MARK_TYPES: Final = (
    "_generation bigint NOT NULL, _commit_lsn numeric(20) NOT NULL, _ordinal bigint NOT NULL,"
    " _deleted boolean NOT NULL, _snapshot text, _unseen text[], _filled jsonb"
)
_LONGEST_NAME: Final = 63  # bytes; PostgreSQL cuts longer ones off


@dataclass(frozen=True, slots=True)
class StagedTable:
    """A staged table as it is now: its columns with their types, its key, and the TRUNCATE that guards it."""

    name: str
    key: tuple[str, ...]
    columns: Mapping[str, str]
    truncated: Stamp | None = None

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(SCHEMA, stored_name(self.name))


def stored_name(table: str) -> str:
    """The staged table of a shop table: its own name, or a hash at the end of one that is too long."""
    if len(table.encode()) <= _LONGEST_NAME:
        return table
    return table.encode()[:50].decode(errors="ignore") + "#" + hashlib.sha256(table.encode()).hexdigest()[:12]


class StagedTables:
    """The staged tables of a shop. All of it runs in the staging transaction, under its lock."""

    def __init__(self, shop: str) -> None:
        self._shop = shop
        self._known: dict[str, StagedTable] = {}
        self._fitting: dict[tuple[str, int], Mapping[str, str]] = {}

    def forget(self) -> None:
        """What was learnt in a transaction that was rolled back is not so."""
        self._known.clear()
        self._fitting.clear()

    def get(self, cursor: Cursor, name: str) -> StagedTable | None:
        """The table, None while it has none staged."""
        if name not in self._known:
            found = _read(cursor, name)
            if found is None:
                return None
            self._known[name] = found
        return self._known[name]

    def declare(self, cursor: Cursor, declared: Mapping[str, Mapping[str, str]]) -> None:
        """Makes the shop's schema, and an empty view for each declared table of which no record has come yet."""
        cursor.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(self._shop)))
        for name, columns in declared.items():
            if not columns or self.get(cursor, name) is not None:
                continue
            nulls = sql.SQL(", ").join(
                sql.SQL("NULL::{} AS {}").format(sql.SQL(kind), sql.Identifier(column))
                for column, kind in columns.items()
            )
            view = self._view(name)
            cursor.execute(sql.SQL("DROP VIEW IF EXISTS {}").format(view))
            cursor.execute(sql.SQL("CREATE VIEW {} AS SELECT {} WHERE false").format(view, nulls))

    def fit(self, cursor: Cursor, change: RowChange) -> StagedTable:
        """The table with all columns of the change's record; made or altered where needed. DataError without a key."""
        known = (change.table, id(change.columns))
        if known in self._fitting:
            return self._known[change.table]
        if not change.key:
            raise DataError(f"{change.table}: its records have no key", "give the table a primary key")
        table = self.get(cursor, change.table)
        if table is None:
            table = self._make(cursor, change)
        elif set(table.key) != set(change.key):
            raise DataError(
                f"{change.table}: the key is now ({', '.join(change.key)}), staged by ({', '.join(table.key)})",
                "drop its staged table, then `capture repair --execute` reads the shop's tables again",
            )
        else:
            table = self._alter(cursor, table, change.columns)
        self._known[change.table] = table
        self._fitting[known] = change.columns  # keeps the object, so that its id stays its own
        return table

    def truncate(self, cursor: Cursor, name: str, stamp: Stamp) -> None:
        """Marks all older rows deleted, those that arrive later too."""
        table = self.get(cursor, name)
        if table is None or (table.truncated is not None and table.truncated >= stamp):
            return
        cursor.execute(
            "UPDATE ordertap.staged_table SET truncate_generation = %s, truncate_lsn = %s, truncate_ordinal = %s"
            " WHERE table_name = %s",
            (*map(int, stamp), name),
        )
        mark_deleted(cursor, table, stamp, sql.SQL("true"), ())
        self._known[name] = StagedTable(table.name, table.key, table.columns, stamp)

    def _make(self, cursor: Cursor, change: RowChange) -> StagedTable:
        table = StagedTable(change.table, tuple(change.key or ()), dict(change.columns))
        columns = [sql.SQL("{} {}").format(sql.Identifier(c), sql.SQL(kind)) for c, kind in table.columns.items()]
        cursor.execute(
            sql.SQL("CREATE TABLE {} ({}, {}, PRIMARY KEY ({}))").format(
                table.identifier, sql.SQL(", ").join(columns), sql.SQL(_MARK_TYPES), _names(table.key)
            )
        )
        cursor.execute(
            "INSERT INTO ordertap.staged_table (table_name, key_columns) VALUES (%s, %s)", (table.name, list(table.key))
        )
        self._show(cursor, table)
        return table

    def _alter(self, cursor: Cursor, table: StagedTable, columns: Mapping[str, str]) -> StagedTable:
        types = {name: widen(table.columns.get(name, kind), kind) for name, kind in columns.items()}
        changed = {name: kind for name, kind in types.items() if table.columns.get(name) != kind}
        if not changed:
            return table
        cursor.execute(sql.SQL("DROP VIEW IF EXISTS {}").format(self._view(table.name)))
        for name, kind in changed.items():
            step = "ALTER COLUMN {0} TYPE {1} USING {0}::text::{1}" if name in table.columns else "ADD COLUMN {0} {1}"
            step_sql = sql.SQL(step).format(sql.Identifier(name), sql.SQL(kind))
            cursor.execute(sql.SQL("ALTER TABLE {} {}").format(table.identifier, step_sql))
        altered = StagedTable(table.name, table.key, {**table.columns, **changed}, table.truncated)
        self._show(cursor, altered)
        return altered

    def _view(self, name: str) -> sql.Identifier:
        return sql.Identifier(self._shop, name.partition(".")[2])

    def _show(self, cursor: Cursor, table: StagedTable) -> None:
        view = self._view(table.name)
        cursor.execute(sql.SQL("DROP VIEW IF EXISTS {}").format(view))
        cursor.execute(
            sql.SQL("CREATE VIEW {} AS SELECT {} FROM {} WHERE NOT _deleted").format(
                view, _names(table.columns), table.identifier
            )
        )


def load(cursor: Cursor, table: StagedTable, keys: Sequence[Mapping[str, Any]]) -> list[StagedRow]:
    """The staged rows of these keys, in their order, without their values; a row that is not there is empty."""
    guard = table.truncated
    rows = [StagedRow(dict(key), stamp=guard, deleted=guard is not None) for key in keys]
    template = "(%s::integer, " + ", ".join(f"%s::{table.columns[name]}" for name in table.key) + ")"
    query = sql.SQL("SELECT k._n, {} FROM (VALUES %s) AS k (_n, {}) JOIN {} AS t USING ({})").format(
        sql.SQL(", ").join(sql.SQL("t.") + sql.Identifier(name) for name in _MARKS),
        _names(table.key),
        table.identifier,
        _names(table.key),
    )
    values = [(n, *(key[name] for name in table.key)) for n, key in enumerate(keys)]
    found = execute_values(cursor, query.as_string(cursor), values, template, page_size=10_000, fetch=True)
    for n, generation, lsn, ordinal, deleted, snapshot, unseen, filled in found:
        row = rows[n]
        row.exists, row.deleted, row.snapshot = True, deleted, snapshot
        row.stamp = Stamp(generation, LSN(int(lsn)), ordinal)
        row.unseen = set(unseen or ())
        row.filled = {name: Stamp(at[0], LSN(at[1]), at[2]) for name, at in (filled or {}).items()}
    return rows


def write(cursor: Cursor, table: StagedTable, rows: Iterable[StagedRow]) -> None:
    """Writes staged rows: those that write the same columns in one statement, the others keep theirs."""
    groups: dict[tuple[str, ...], list[StagedRow]] = {}
    for row in rows:
        columns = tuple(name for name in table.columns if name in row.values or name in table.key)
        groups.setdefault(columns, []).append(row)
    for columns, group in groups.items():
        changed = [name for name in columns if name not in table.key] + list(_MARKS)
        query = sql.SQL("INSERT INTO {} AS t ({}) VALUES %s ON CONFLICT ({}) DO UPDATE SET {}").format(
            table.identifier,
            _names((*columns, *_MARKS)),
            _names(table.key),
            sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in changed),
        )
        types = [table.columns[name] for name in columns]
        template = "(" + ", ".join(f"%s::{kind}" for kind in types) + ", %s, %s, %s, %s, %s, %s::text[], %s::jsonb)"
        values = [_row_values(row, columns, types) for row in group]
        execute_values(cursor, query.as_string(cursor), values, template, page_size=1_000)


def mark_deleted(
    cursor: Cursor, table: StagedTable, stamp: Stamp, condition: sql.Composable, values: Sequence[object]
) -> int:
    """Marks rows deleted that are older than the stamp and meet the condition; how many."""
    cursor.execute(
        sql.SQL(
            "UPDATE {} SET _deleted = true, _generation = %s, _commit_lsn = %s, _ordinal = %s"
            " WHERE NOT _deleted AND (_generation, _commit_lsn, _ordinal) < (%s, %s, %s) AND {}"
        ).format(table.identifier, condition),
        (*map(int, stamp), *map(int, stamp), *values),
    )
    return cursor.rowcount


def _row_values(row: StagedRow, columns: Sequence[str], types: Sequence[str]) -> tuple[Any, ...]:
    assert row.stamp is not None  # noqa: S101  only rows that a change was applied to are written
    values = [
        _sql_value(row.values.get(name, row.key.get(name)), kind) for name, kind in zip(columns, types, strict=True)
    ]
    filled = json.dumps({name: [int(part) for part in stamp] for name, stamp in row.filled.items()})
    return (
        *values,
        *map(int, row.stamp),
        row.deleted,
        row.snapshot,
        sorted(row.unseen) or None,
        filled if row.filled else None,
    )


def _sql_value(value: Any, kind: str) -> Any:
    """jsonb takes its own text; what Avro holds as a structure (arrays of arrays) is written as JSON."""
    if kind == "jsonb" and value is not None and not isinstance(value, str):
        return json.dumps(value, default=str)
    return value


def _names(names: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _read(cursor: Cursor, name: str) -> StagedTable | None:
    cursor.execute(
        "SELECT key_columns, truncate_generation, truncate_lsn, truncate_ordinal"
        " FROM ordertap.staged_table WHERE table_name = %s",
        (name,),
    )
    row = cursor.fetchone()
    if row is None:
        return None
    cursor.execute(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attname <> ALL(%s) ORDER BY attnum",
        (sql.Identifier(SCHEMA, stored_name(name)).as_string(cursor), list(_MARKS)),
    )
    columns = {column: _short(kind) for column, kind in cursor.fetchall()}
    truncated = None if row[1] is None else Stamp(row[1], LSN(int(row[2])), row[3])
    return StagedTable(name, tuple(row[0]), columns, truncated)


def _short(kind: str) -> str:
    """PostgreSQL's name of a type as the reader says it."""
    array = "[]" if kind.endswith("[]") else ""
    plain = kind.removesuffix("[]")
    for long, short in (("timestamp", "timestamptz"), ("time", "timetz")):
        if plain.startswith(long) and plain.endswith(" with time zone"):
            return short + array
    return plain.replace(" without time zone", "") + array
