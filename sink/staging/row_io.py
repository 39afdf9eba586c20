"""The SQL of a batch for one table: lines are copied into a temporary table, then written by one guarded statement.

The guard: only newer records write a row, by (generation, commit LSN, ordinal). A row that a change of key deleted also
takes the new half of the same change, because both keys may be equal (5 and 5.00).

A value that a record did not send (unchanged TOAST, a column that its schema lacks) stays as it is staged. It is
*unseen* if none is staged since the row was inserted. A record that comes after a newer one fills no values: of several
such records the first would win silently. After a change of key, the row takes such a value from the row that it was;
if the halves of many changes come in an order in which that row is overwritten first, the value is unseen.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import psycopg2
from psycopg2 import sql

from schemas.model.change import Stamp
from schemas.model.errors import DataError
from sink.database import Cursor
from sink.staging.batch import KeyChange
from sink.staging.schema import REFUSALS, STAMP, Catalogue, StagedTable, first, names, staged

NULL: Final = "\x02"
"""NULL in COPY text."""
_LARGEST_KEPT: Final = 256 * 1024  # bytes
_PIECE: Final = 256 * 1024  # bytes of COPY at once; after each the thread may have to wait for the reading one
_STAMP_COLUMNS: Final = '"#generation" bigint, "#lsn" numeric(20), "#ordinal" bigint'
_NEWER: Final = sql.SQL(
    '(t."#generation", t."#lsn", t."#ordinal") < (excluded."#generation", excluded."#lsn", excluded."#ordinal")'
)
_OTHER_HALF: Final = sql.SQL(
    't."#deleted" AND (t."#generation", t."#lsn", t."#ordinal")'
    ' = (excluded."#generation", excluded."#lsn", excluded."#ordinal")'
)


@dataclass(frozen=True, slots=True)
class TempTable:
    """A temporary table of this session, for one set of columns."""

    table: str
    identifier: sql.Identifier
    types: Mapping[str, str]


def new_table(cursor: Cursor, table: StagedTable, columns: Mapping[str, str], use: str = "") -> TempTable:
    """An empty temporary table with these columns and the stamp. Made once per session, set of columns and use.

    `use` keeps apart rows that are there at the same time but go into different statements: those of a snapshot,
    deletes. The table is emptied here: ON COMMIT DELETE ROWS would cost each commit more than 1 ms per table, used or
    not.
    """
    types = staged(columns)
    described = "\n".join([table.name, use, *(f"{name} {kind}" for name, kind in types.items())])
    name = sql.Identifier("pg_temp", "batch_" + hashlib.sha256(described.encode()).hexdigest()[:24])
    listed = [sql.SQL("{} {}").format(sql.Identifier(column), sql.SQL(kind)) for column, kind in types.items()]
    cursor.execute(
        sql.SQL("CREATE TEMPORARY TABLE IF NOT EXISTS {} ({}, {})").format(
            name, sql.SQL(", ").join(listed), sql.SQL(_STAMP_COLUMNS)
        )
    )
    cursor.execute("SELECT pg_relation_size(to_regclass(%s))", (name.as_string(cursor),))
    size = first(cursor)
    if size > 0:  # DELETE for a small one: TRUNCATE makes a new file each time, which bloats the catalogue
        emptied = sql.SQL("TRUNCATE {}") if size > _LARGEST_KEPT else sql.SQL("DELETE FROM {}")
        cursor.execute(emptied.format(name))
    return TempTable(table.name, name, types)


class TempTables:
    """The temporary tables that this session is known to have. After a rollback that is uncertain."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], TempTable] = {}
        self._bytes: dict[str, int] = {}  # written to each table since its last TRUNCATE

    def forget(self) -> None:
        """Checks each table again before its next use."""
        self._known.clear()

    def take(self, cursor: Cursor, wanted: Sequence[tuple[StagedTable, Mapping[str, str], str]]) -> list[TempTable]:
        """Empty tables for (table, columns, use), as `new_table` makes them. Different columns need different uses."""
        known = [self._known[table.name, use] for table, _, use in wanted if (table.name, use) in self._known]
        if known:
            cursor.execute(sql.SQL("; ").join(map(self._emptied, known)))
        for table, columns, use in wanted:
            if (table.name, use) not in self._known:
                self._known[table.name, use] = new_table(cursor, table, columns, use)
        return [self._known[table.name, use] for table, _, use in wanted]

    def _emptied(self, temp: TempTable) -> sql.Composable:
        name = str(temp.identifier.strings)
        large = self._bytes.get(name, 0) > _LARGEST_KEPT
        if large:
            self._bytes[name] = 0
        return (sql.SQL("TRUNCATE {}") if large else sql.SQL("DELETE FROM {}")).format(temp.identifier)

    def copy_in(self, cursor: Cursor, temp: TempTable, lines: bytes) -> None:
        """`copy_in`, and counts the bytes."""
        name = str(temp.identifier.strings)
        self._bytes[name] = self._bytes.get(name, 0) + len(lines)
        copy_in(cursor, temp, lines)


def copy_in(cursor: Cursor, temp: TempTable, lines: bytes) -> None:
    """Copies lines in: the columns in order, then generation, LSN and ordinal."""
    statement = sql.SQL("COPY {} ({}, {}) FROM STDIN WITH (NULL {})").format(
        temp.identifier, names(temp.types), STAMP, sql.Literal(NULL)
    )
    with _refusals(temp.table):
        cursor.copy_expert(statement, io.BytesIO(lines), _PIECE)


def brings_new(cursor: Cursor, table: StagedTable, temp: TempTable) -> bool:
    """Whether the temporary table has rows that are not staged, or are staged as deleted."""
    cursor.execute(
        sql.SQL(
            'SELECT EXISTS (SELECT FROM {} AS n WHERE NOT EXISTS (SELECT FROM {} AS t WHERE {} AND NOT t."#deleted"))'
        ).format(
            temp.identifier,
            table.identifier,
            sql.SQL(" AND ").join(sql.SQL("t.{0} = n.{0}").format(sql.Identifier(name)) for name in table.key),
        )
    )
    return bool((cursor.fetchone() or (False,))[0])


def upsert(
    cursor: Cursor,
    table: StagedTable,
    temp: TempTable,
    columns_sent: Iterable[str],
    snapshot: str | None,
    distinct: bool,
) -> int:
    """Writes the rows of a temporary table under the guard, and returns how many were written.

    Columns that are not in `columns_sent`, or do not fit the staged ones, keep their values. `snapshot`: the id of the
    snapshot that brought the rows, noted even if the staged row is newer. `distinct`: a key may occur several times
    (equal keys that differ as bytes); the newest wins.
    """
    sent = [name for name in dict.fromkeys(columns_sent) if table.takes(name, temp.types[name])]
    unsent = [name for name in table.present if name not in sent]
    unseen = sql.SQL("{}::text[]").format(sql.Literal(unsent or None))
    _run(
        cursor,
        table,
        sql.SQL(
            'INSERT INTO {table} AS t ({sent}, {stamp}, "#deleted", "#snapshot", "#unseen", "#version")'
            " SELECT {distinct} {sent}, {stamp}, {dead}, {snapshot}, {unseen}, {version} FROM {temp} {order}"
            " ON CONFLICT ({key}) DO UPDATE SET {values} WHERE {newer} OR {other_half}"
        ).format(
            table=table.identifier,
            sent=names(sent),
            stamp=STAMP,
            distinct=_distinct(table) if distinct else sql.SQL(""),
            order=_newest_first(table) if distinct else sql.SQL(""),
            dead=_before_truncate(table),
            snapshot=sql.Literal(snapshot),
            unseen=unseen,
            version=sql.Literal(table.version),
            temp=temp.identifier,
            key=names(table.key),
            values=_assignments(table, sent, unsent, snapshot),
            newer=_NEWER,
            other_half=_OTHER_HALF,
        ),
    )
    written = cursor.rowcount
    if snapshot is not None:
        _note_snapshot(cursor, table, temp, snapshot)
    return written


def delete(cursor: Cursor, table: StagedTable, temp: TempTable) -> int:
    """Marks rows as deleted whose keys are in a temporary table, under the guard, and returns how many.

    A row that is not staged is inserted as deleted, so that an older record that comes later changes nothing.
    """
    others = [name for name in table.present if name not in table.key]
    _run(
        cursor,
        table,
        sql.SQL(
            'INSERT INTO {table} AS t ({key}, {stamp}, "#deleted", "#unseen", "#version")'
            " SELECT {distinct} {key}, {stamp}, true, {unseen}::text[], {version} FROM {temp} {order}"
            ' ON CONFLICT ({key}) DO UPDATE SET "#deleted" = true, {marks} WHERE {newer}'
        ).format(
            table=table.identifier,
            key=names(table.key),
            stamp=STAMP,
            distinct=_distinct(table),
            order=_newest_first(table),
            unseen=sql.Literal(others or None),
            version=sql.Literal(table.version),
            temp=temp.identifier,
            marks=_excluded(("#generation", "#lsn", "#ordinal")),
            newer=_NEWER,
        ),
    )
    return cursor.rowcount


def take_over(cursor: Cursor, table: StagedTable, changes: Sequence[KeyChange]) -> bool:
    """After changes of keys, copies values that were not sent from the rows under the old keys. Returns whether it did.

    Call it after each half: it copies once both are written, since only then the old row has all earlier changes. A row
    that has changed since is left alone.
    """
    columns = [name for name in table.present if name not in table.key]
    if not columns or not changes:
        return False
    one = sql.SQL('{0} = CASE WHEN {1} = ANY (t."#unseen") AND {1} <> ALL (o."#missing") THEN o.{0} ELSE t.{0} END')
    values = [one.format(sql.Identifier(name), sql.Literal(name)) for name in columns]
    cursor.execute(
        sql.SQL(
            "UPDATE {table} AS t SET {values},"
            ' "#unseen" = (SELECT array_agg(u) FROM unnest(t."#unseen") AS u WHERE u = ANY (o."#missing"))'
            """ FROM (SELECT o.*, {to}, coalesce({missing}, '{{}}') AS "#missing" FROM {table} AS o, {changes}"""
            ' WHERE {old} AND o."#deleted"'
            ' AND (o."#generation", o."#lsn", o."#ordinal") = (c."#generation", c."#lsn", c."#ordinal")) AS o'
            ' WHERE {new} AND t."#unseen" IS NOT NULL'
            ' AND (t."#generation", t."#lsn", t."#ordinal") = (o."#generation", o."#lsn", o."#ordinal")'
        ).format(
            table=table.identifier,
            values=sql.SQL(", ").join(values),
            to=names(_numbered("#to", table)),
            missing=_unseen_of("o", table, columns),
            changes=_changes(table, changes),
            old=_is_key("o", table, "c", "#from"),
            new=_is_key("t", table, "o", "#to"),
        )
    )
    return cursor.rowcount > 0


def vanish(cursor: Cursor, table: StagedTable, stamp: Stamp, snapshot: str) -> int:
    """Marks rows as deleted that are older than a snapshot and not in it. Returns how many."""
    not_brought = sql.SQL(' AND "#snapshot" IS DISTINCT FROM {}').format(sql.Literal(snapshot))
    return _mark_deleted(cursor, table, stamp, not_brought)


def truncate(cursor: Cursor, catalogue: Catalogue, name: str, stamp: Stamp) -> int:
    """Marks all older rows of a table as deleted, and has older rows that come later deleted, too. Returns how many."""
    table = catalogue.guard(cursor, name, stamp)
    return 0 if table is None else _mark_deleted(cursor, table, stamp, sql.SQL(""))


def _run(cursor: Cursor, table: StagedTable, statement: sql.Composable) -> None:
    with _refusals(table.name):
        cursor.execute(statement)


@contextmanager
def _refusals(table: str) -> Iterator[None]:
    """Turns PostgreSQL's refusal of a row into a DataError, by SQLSTATE: psycopg2 has some of these as
    OperationalError.

    The transaction has failed; the caller rolls back to its savepoint. PostgreSQL's message is left out, as it may show
    a value.
    """
    try:
        yield
    except psycopg2.Error as error:
        if (error.pgcode or "")[:2] not in REFUSALS:
            raise
        column = re.search(r"column (\w+)", error.diag.context or "")
        where = f"{table}.{column[1]}" if column else table
        raise DataError(
            f"{where}: PostgreSQL rejects a row: {type(error).__name__} ({error.pgcode})",
            "change the row in the shop: when it comes again with all its values, this record no longer counts",
        ) from None


def _mark_deleted(cursor: Cursor, table: StagedTable, stamp: Stamp, condition: sql.Composable) -> int:
    cursor.execute(
        sql.SQL('UPDATE {0} SET "#deleted" = true, ({1}) = ROW ({2}) WHERE NOT "#deleted" AND ({1}) < ({2})').format(
            table.identifier, STAMP, _literal(stamp)
        )
        + condition
    )
    return cursor.rowcount


def _assignments(
    table: StagedTable, sent: Sequence[str], unsent: Sequence[str], snapshot: str | None
) -> sql.Composable:
    """What a newer record does to a row. A deleted row starts empty: no value from before the delete may show."""
    own = ["#generation", "#lsn", "#ordinal", "#deleted", "#version", *(["#snapshot"] if snapshot else [])]
    steps = [_excluded([name for name in sent if name not in table.key] + own)]
    steps += [
        sql.SQL('{0} = CASE WHEN t."#deleted" THEN NULL ELSE t.{0} END').format(sql.Identifier(name)) for name in unsent
    ]
    kept = _unseen_of("t", table, unsent)
    new = sql.SQL('"#unseen" = CASE WHEN t."#deleted" THEN excluded."#unseen" ELSE {} END').format(kept)
    steps.append(new if unsent else sql.SQL('"#unseen" = NULL'))
    return sql.SQL(", ").join(steps)


def _unseen_of(row: str, table: StagedTable, columns: Sequence[str]) -> sql.Composable:
    """Which of these columns are unseen in a row: those in its "#unseen", and those added after its "#version"."""
    young = [
        sql.SQL(' || CASE WHEN {}."#version" < {} THEN ARRAY[{}] END').format(
            sql.Identifier(row), sql.Literal(table.columns[name].since), sql.Literal(name)
        )
        for name in columns
        if table.columns[name].since > 1
    ]
    return sql.SQL("(SELECT array_agg(DISTINCT u) FROM unnest({}.{}{}) AS u WHERE u = ANY ({}::text[]))").format(
        sql.Identifier(row), sql.Identifier("#unseen"), sql.Composed(young), sql.Literal(list(columns))
    )


def _note_snapshot(cursor: Cursor, table: StagedTable, temp: TempTable, snapshot: str) -> None:
    cursor.execute(
        sql.SQL(
            'UPDATE {} AS t SET "#snapshot" = {} FROM {} AS n WHERE {} AND t."#snapshot" IS DISTINCT FROM {}'
        ).format(
            table.identifier,
            sql.Literal(snapshot),
            temp.identifier,
            sql.SQL(" AND ").join(sql.SQL("t.{0} = n.{0}").format(sql.Identifier(name)) for name in table.key),
            sql.Literal(snapshot),
        )
    )


def _before_truncate(table: StagedTable) -> sql.Composable:
    if table.truncated is None:
        return sql.SQL("false")
    return sql.SQL("({}) < ({})").format(STAMP, _literal(table.truncated))


def _literal(stamp: Stamp) -> sql.Composable:
    return sql.SQL(", ").join(sql.Literal(int(part)) for part in stamp)


def _distinct(table: StagedTable) -> sql.Composable:
    return sql.SQL("DISTINCT ON ({})").format(names(table.key))


def _newest_first(table: StagedTable) -> sql.Composable:
    return sql.SQL('ORDER BY {}, "#generation" DESC, "#lsn" DESC, "#ordinal" DESC').format(names(table.key))


def _excluded(columns: Iterable[str]) -> sql.Composable:
    return sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in columns)


def _changes(table: StagedTable, changes: Sequence[KeyChange]) -> sql.Composable:
    """Changes of keys as a relation `c`."""
    lists: list[tuple[str, str, list[object]]] = [
        (name, kind, [one.stamp[place] for one in changes])
        for place, (name, kind) in enumerate((("#generation", "bigint"), ("#lsn", "numeric"), ("#ordinal", "bigint")))
    ]
    for number, name in enumerate(table.key):
        lists.append((f"#from{number}", "text", [one.old[name] for one in changes]))
        lists.append((f"#to{number}", "text", [one.new[name] for one in changes]))
    arrays = [sql.SQL("{}::{}[]").format(sql.Literal(items), sql.SQL(kind)) for _, kind, items in lists]
    return sql.SQL("unnest({}) AS c ({})").format(sql.SQL(", ").join(arrays), names(name for name, _, _ in lists))


def _numbered(name: str, table: StagedTable) -> list[str]:
    return [f"{name}{number}" for number in range(len(table.key))]


def _is_key(row: str, table: StagedTable, other: str, name: str) -> sql.Composable:
    """Whether a row has the key that is text in numbered columns of another one."""
    same = [
        sql.SQL("{}.{} = {}.{}::{}").format(
            sql.Identifier(row), sql.Identifier(column), sql.Identifier(other), sql.Identifier(numbered),
            sql.SQL(table.columns[column].type),
        )
        for column, numbered in zip(table.key, _numbered(name, table), strict=True)
    ]  # fmt: skip
    return sql.SQL(" AND ").join(same)
