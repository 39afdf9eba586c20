"""Gaps of tables: changes that never came, or were not read. Documents that read the table are held until it has been
read again."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Literal, NamedTuple, TypeAlias

from schemas.model.change import Stamp
from schemas.model.lsn import LSN
from sink.database import Cursor

Cause: TypeAlias = Literal[
    "skipped", "lost", "parked by capture", "begun without a copy", "joined", "short snapshot", "unreadable"
]

_OPEN: Final = """
    SELECT table_name, cause, generation, lsn, detail, found_at FROM table_gap
    UNION ALL SELECT holds_table, 'unreadable', 0, 0,
           count(*) || ' of its records cannot be staged, and which documents they are part of is not known',
           min(parked_at)
    FROM parked WHERE holds_table IS NOT NULL GROUP BY holds_table
    ORDER BY table_name, found_at, cause
"""

FILLED_BY = "capture signal snapshot {table}"


class TableGap(NamedTuple):
    """A gap of a table. `stamp`: a snapshot of the table from there on fills it; `detail`: what is missing, for people.

    `unreadable` has no position: it lasts while records of the table are parked that may be part of any document.
    """

    table: str
    cause: Cause
    stamp: Stamp
    detail: str


def open_gap(cursor: Cursor, gap: TableGap) -> bool:
    """Writes a gap, and returns whether it is new. If it is open already, its position advances: only a later snapshot
    fills it."""
    cursor.execute(
        "INSERT INTO table_gap AS g (table_name, cause, generation, lsn, detail) VALUES (%s, %s, %s, %s, %s)"
        " ON CONFLICT (table_name, cause) DO UPDATE SET generation = excluded.generation, lsn = excluded.lsn"
        " WHERE (g.generation, g.lsn) < (excluded.generation, excluded.lsn) RETURNING xmax = 0",
        (gap.table, gap.cause, *map(int, gap.stamp[:2]), gap.detail),
    )
    row = cursor.fetchone()
    return row is not None and bool(row[0])


def close_gaps(cursor: Cursor, tables: Collection[str], read_at: Stamp) -> list[str]:
    """Closes the gaps of tables that were read again as a whole at `read_at`. Returns the tables that had one."""
    cursor.execute(
        "DELETE FROM table_gap WHERE table_name = ANY(%s) AND (generation, lsn) <= (%s, %s) RETURNING table_name",
        (list(tables), *map(int, read_at[:2])),
    )
    return sorted({row[0] for row in cursor.fetchall()})


def close_gap(cursor: Cursor, table: str, cause: Cause) -> bool:
    """Closes one gap, and returns whether there was one."""
    cursor.execute("DELETE FROM table_gap WHERE table_name = %s AND cause = %s", (table, cause))
    return cursor.rowcount > 0


def has_gap(cursor: Cursor, table: str, cause: Cause) -> bool:
    """Whether the table has a gap of this cause."""
    cursor.execute("SELECT 1 FROM table_gap WHERE table_name = %s AND cause = %s", (table, cause))
    return cursor.fetchone() is not None


def table_gaps(cursor: Cursor) -> list[TableGap]:
    """All open gaps, by table."""
    cursor.execute(_OPEN)
    return [TableGap(row[0], row[1], Stamp(row[2], LSN(int(row[3])), 0), row[4]) for row in cursor.fetchall()]
