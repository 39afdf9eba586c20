"""The SQL of a batch for one table: lines come in by COPY, and go to the staged rows in one guarded statement.

The guard: a row is written only by what is newer, by (generation, commit LSN, ordinal). A row that a key change deleted
takes the new half of the same change: the old key and the new one may be equal (5 and 5.00).

What a record did not send (an unchanged TOAST value, a column that its schema does not have) stays as it is staged,
and is unseen where nothing of this life of the row is staged. A record that comes after a newer one of the same row
fills nothing: of several such records the first would win over a later one, in silence.
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
from sink.staging.schema import REFUSALS, STAMP, Catalogue, StagedTable, first, names, staged

NULL: Final = "\x02"
"""NULL in a line of COPY."""
_LARGEST_KEPT: Final = 256 * 1024  # bytes
_PIECE: Final = 256 * 1024  # bytes of COPY at once; after each the thread waits for the one that reads
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
    """A temporary table of this session for records of one column set."""

    table: str
    identifier: sql.Identifier
    types: Mapping[str, str]


def new_table(cursor: Cursor, table: StagedTable, columns: Mapping[str, str], use: str = "") -> TempTable:
    """An empty temporary table with these columns of a record and the stamp; made once per session and column set.

    `use` tells apart what is there at the same time but not in the same statement: rows of a snapshot, deletes. It is
    emptied here and not by ON COMMIT DELETE ROWS, which costs each commit 1 ms and more for each table that there is,
    used or not.
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
    if size > 0:  # a small one keeps its file: a new one for each batch would bloat the catalogue
        emptied = sql.SQL("TRUNCATE {}") if size > _LARGEST_KEPT else sql.SQL("DELETE FROM {}")
        cursor.execute(emptied.format(name))
    return TempTable(table.name, name, types)


class TempTables:
    """The temporary tables of one session that are known to be there; nothing of it is sure after a rollback."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], TempTable] = {}
        self._bytes: dict[str, int] = {}  # by table, since its file was last made anew

    def forget(self) -> None:
        """Looks at each of them again when it is needed."""
        self._known.clear()

    def take(self, cursor: Cursor, wanted: Sequence[tuple[StagedTable, Mapping[str, str], str]]) -> list[TempTable]:
        """Empty tables for (table, columns, use), as `new_table` makes them. `use` tells apart columns, too."""
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
        """`copy_in`, and remembers how much it was."""
        name = str(temp.identifier.strings)
        self._bytes[name] = self._bytes.get(name, 0) + len(lines)
        copy_in(cursor, temp, lines)


def copy_in(cursor: Cursor, temp: TempTable, lines: bytes) -> None:
    """Lines of COPY: the columns in their order, then generation, LSN and ordinal."""
    statement = sql.SQL("COPY {} ({}, {}) FROM STDIN WITH (NULL {})").format(
        temp.identifier, names(temp.types), STAMP, sql.Literal(NULL)
    )
    with _refusals(temp.table):
        cursor.copy_expert(statement, io.BytesIO(lines), _PIECE)


def brings_new(cursor: Cursor, table: StagedTable, temp: TempTable) -> bool:
    """Whether a temporary table has rows that are not staged, or are deleted there."""
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
    """Writes the rows of a temporary table by the guard; how many were written.

    Columns that are not in `columns_sent`, or do not fit the staged ones, keep their values. `snapshot` is what
    brought the rows, and is noted also where a row is newer. `distinct`: a key may be there more than once (equal
    keys that differ as bytes), the newest wins.
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
    """Marks the rows deleted whose keys are in a temporary table, by the guard; how many.

    A missing row is inserted as deleted, so that an older record of it that comes late changes nothing.
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


def take_over(
    cursor: Cursor,
    table: StagedTable,
    old_key: Mapping[str, str],
    new_key: Mapping[str, str],
    stamp: Stamp,
) -> bool:
    """Gives a row whose key changed the values that were not sent, from the row under its old key; whether it did.

    After the upsert of the new row, before or after the delete of the old one. Keys are PostgreSQL's text. Nothing is
    taken from a row that is not the one whose key changed.
    """
    columns = [name for name in table.present if name not in table.key]
    if not columns:
        return False
    one = sql.SQL('{0} = CASE WHEN {1} = ANY (t."#unseen") AND {1} <> ALL (o."#missing") THEN o.{0} ELSE t.{0} END')
    values = [one.format(sql.Identifier(name), sql.Literal(name)) for name in columns]
    missing = sql.SQL("coalesce({}, '{{}}')").format(_unseen_of("t", table, columns))
    cursor.execute(
        sql.SQL(
            "UPDATE {table} AS t SET {values},"
            ' "#unseen" = (SELECT array_agg(u) FROM unnest(t."#unseen") AS u WHERE u = ANY (o."#missing"))'
            ' FROM (SELECT t.*, {missing} AS "#missing" FROM {table} AS t WHERE {old}) AS o'
            ' WHERE {new} AND t."#unseen" IS NOT NULL AND (t."#generation", t."#lsn", t."#ordinal") = ({at})'
            ' AND CASE WHEN o."#deleted" THEN (o."#generation", o."#lsn", o."#ordinal") = ({at})'
            ' ELSE (o."#generation", o."#lsn", o."#ordinal") < ({at}) END'
        ).format(
            table=table.identifier,
            values=sql.SQL(", ").join(values),
            missing=missing,
            old=_is_key(table, old_key),
            new=_is_key(table, new_key),
            at=_literal(stamp),
        )
    )
    return cursor.rowcount > 0


def vanish(cursor: Cursor, table: StagedTable, stamp: Stamp, snapshot: str) -> int:
    """Marks the rows deleted that are older than a snapshot and that it did not bring; how many."""
    not_brought = sql.SQL(' AND "#snapshot" IS DISTINCT FROM {}').format(sql.Literal(snapshot))
    return _mark_deleted(cursor, table, stamp, not_brought)


def truncate(cursor: Cursor, catalogue: Catalogue, name: str, stamp: Stamp) -> int:
    """Marks all older rows of a table deleted, and those that come later; how many."""
    table = catalogue.guard(cursor, name, stamp)
    return 0 if table is None else _mark_deleted(cursor, table, stamp, sql.SQL(""))


def _run(cursor: Cursor, table: StagedTable, statement: sql.Composable) -> None:
    with _refusals(table.name):
        cursor.execute(statement)


@contextmanager
def _refusals(table: str) -> Iterator[None]:
    """A row that PostgreSQL does not take is DataError, by its SQLSTATE: some of those look like an outage.

    The transaction is at its end, or back at the caller's savepoint. No word of PostgreSQL's, which may show a value.
    """
    try:
        yield
    except psycopg2.Error as error:
        if (error.pgcode or "")[:2] not in REFUSALS:
            raise
        column = re.search(r"column (\w+)", error.diag.context or "")
        where = f"{table}.{column[1]}" if column else table
        raise DataError(
            f"{where}: PostgreSQL does not take a row: {type(error).__name__} ({error.pgcode})",
            "change the row in the shop: once it comes again with all its values, this record is done with",
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
    """What a newer record does to a row: a deleted one begins anew, nothing of its old life may show through."""
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
    """Which of these columns are unseen in a row: those that it names, and those that are younger than it."""
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


def _is_key(table: StagedTable, key: Mapping[str, str]) -> sql.Composable:
    same = [
        sql.SQL("t.{} = {}::{}").format(sql.Identifier(n), sql.Literal(key[n]), sql.SQL(table.columns[n].type))
        for n in table.key
    ]
    return sql.SQL(" AND ").join(same)
