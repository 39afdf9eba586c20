"""Makes indexes in the background on columns by which the profile's SQL finds rows. Without them everything works, but
slower.

The columns come from the text of the profile: expressions of `touched_by` that are a plain column, both columns by
which its SELECTs join a table to `changed` (`t.product_id = c.id`), and columns that its files compare with the keys
(`WHERE order_id = ANY (%(keys)s…)`). Text that is not understood gets no index. Indexes are made one by one with
CONCURRENTLY; a table without rows has its turn later.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Final, NamedTuple

import psycopg2
import structlog
from psycopg2 import sql

from schemas.model.errors import OrdertapError
from sink.database import Connection, Cursor
from sink.documents.profile import DocumentRule, Profile
from sink.documents.sqltext import Column, joined_columns, key_columns
from sink.documents.touched_by import Touch
from sink.staging.schema import stored_name

log = structlog.get_logger()

_LONGEST_NAME: Final = 63  # bytes; PostgreSQL cuts longer ones off
_FIRST_PAUSE, _LONGEST_PAUSE = 10.0, 3_600.0
# If a lock is not free we try again later: DDL of the stager would queue behind our waiting lock.
_SESSION: Final = (
    "SELECT set_config(name, CASE name WHEN 'lock_timeout' THEN '10s' WHEN 'application_name' THEN"
    " 'ordertap sink: indexes' ELSE '0' END, false) FROM pg_settings"
    " WHERE name IN ('lock_timeout', 'application_name', 'statement_timeout', 'transaction_timeout')"
)
_LOCK: Final = "SELECT pg_try_advisory_lock(hashtextextended(current_schema || '.indexes', 0))"


class WantedIndex(NamedTuple):
    """An index on a column of a staged table."""

    table: str
    column: str
    name: str

    @property
    def staged(self) -> sql.Identifier:
        return sql.Identifier(stored_name(self.table))


def wanted(profile: Profile) -> list[WantedIndex]:
    """The indexes for the profile's SQL."""
    tables = {table.rpartition(".")[2]: table for table in profile.tables}
    columns: dict[tuple[str, str], None] = {}
    for rule in profile.documents.values():
        for place, (table, column) in _columns(rule):
            if table in tables:
                columns[tables[table], column] = None
            else:
                log.debug("no index: the SQL does not say which table the column is of", place=place, column=column)
    plain = Counter(_name(*one) for one in columns)
    return [WantedIndex(*one, _short(one, clashes=plain[_name(*one)] > 1)) for one in columns]


def keep(connect: Callable[[], Connection], profile: Profile, stop: threading.Event) -> None:
    """Makes the indexes, and tries again until all are there or `stop` is set. Failures are only logged."""
    pause = _FIRST_PAUSE
    while not _round(connect, profile) and not stop.wait(pause):
        pause = min(2 * pause, _LONGEST_PAUSE)


def make(connection: Connection, profile: Profile) -> bool:
    """Makes the indexes that can be made now, on a connection in autocommit. Returns whether all are there."""
    with connection.cursor() as cursor:
        cursor.execute(_SESSION)
        cursor.execute(_LOCK)
        if cursor.fetchone() != (True,):
            return False  # another process makes them; an index under construction looks like a broken one
        made = [_made(cursor, index) for index in wanted(profile)]
        return all(made)


def _round(connect: Callable[[], Connection], profile: Profile) -> bool:
    try:
        with closing(connect()) as connection:
            return make(connection, profile)
    except (OrdertapError, psycopg2.Error) as error:
        log.warning(
            "indexes are not made now", reason=_first_line(error), next="no action needed: the sink tries again"
        )
        return False


def _columns(rule: DocumentRule) -> Iterator[tuple[str, Column]]:
    """Columns to index, each with its place in the profile."""
    for touch in rule.touched_by:
        place, table = f"documents.{rule.name}.touched_by.{touch.table}", touch.table.rpartition(".")[2]
        if touch.selects:
            yield from ((place, column) for column in _joined(touch))
        elif touch.column is not None:
            yield place, Column(table, touch.column)
    if rule.order is not None and rule.order.selects:
        place = f"documents.{rule.name}.order"
        yield from ((place, column) for column in _joined(rule.order))
    for file, text in {f"{rule.name}.sql": rule.head, **_files(rule)}.items():
        yield from ((file, column) for column in key_columns(text))


def _joined(touch: Touch) -> Iterator[Column]:
    for column in joined_columns(touch.sql):
        yield column._replace(table=touch.table.rpartition(".")[2]) if column.table == "changed" else column


def _files(rule: DocumentRule) -> dict[str, str]:
    return {f"{rule.name}.{field}.sql": text for field, text in rule.children.items()}


def _made(cursor: Cursor, index: WantedIndex) -> bool:
    """Makes the index unless one that serves is there. Returns whether there is one. A failure is logged."""
    try:
        state = _state(cursor, index)
        if state in ("there", "early"):
            return state == "there"
        if state == "broken":  # an interrupted CREATE INDEX CONCURRENTLY leaves an index that is written and never read
            cursor.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(index.name)))
        cursor.execute(
            sql.SQL("CREATE INDEX CONCURRENTLY IF NOT EXISTS {} ON {} ({})").format(
                sql.Identifier(index.name), index.staged, sql.Identifier(index.column)
            )
        )
    except psycopg2.Error as error:
        if cursor.connection.closed:
            raise
        log.warning(
            "index not made, the profile's SQL is slower without it",
            table=index.table, column=index.column, reason=_first_line(error),
            next=f"the sink tries again; or make an index on that column of table \"{index.table}\" yourself",
        )  # fmt: skip
        return False
    log.info("index made", table=index.table, column=index.column, index=index.name)
    return True


def _state(cursor: Cursor, index: WantedIndex) -> str:
    """`there`, `missing` or `broken`; `early` while the table has no such column."""
    cursor.execute(
        "SELECT attnum FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = %s AND NOT attisdropped",
        (index.staged.as_string(cursor), index.column),
    )
    column = cursor.fetchone()
    if column is None:
        return "early"
    cursor.execute(
        "SELECT coalesce(bool_or(i.indisvalid AND i.indkey[0] = %s AND i.indpred IS NULL), false),"
        " coalesce(bool_or(c.relname = %s AND NOT i.indisvalid), false)"
        " FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = to_regclass(%s)",
        (column[0], index.name, index.staged.as_string(cursor)),
    )
    serves, broken = cursor.fetchone() or (False, False)
    return "there" if serves else "broken" if broken else "missing"


def _name(table: str, column: str) -> str:
    return f"ordertap_{table.rpartition('.')[2]}_{column}"


def _short(one: tuple[str, str], clashes: bool) -> str:
    """The index's name. It ends in a hash if it would be too long or the same as another column's."""
    name = _name(*one)
    if len(name.encode()) <= _LONGEST_NAME and not clashes:
        return name
    return name.encode()[:50].decode(errors="ignore") + "_" + hashlib.sha256(".".join(one).encode()).hexdigest()[:12]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
