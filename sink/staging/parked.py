"""Parked records: those that cannot be staged, kept with their bytes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from psycopg2.extras import Json, execute_values

from schemas.model.change import STAMP_HEADER, TRANSACTION_HEADER, UNCHANGED_HEADER, Stamp
from sink.database import Cursor
from sink.staging.assembly import Row, stamp_of

_STAMP: Final = re.compile(rb"\d+:\d+:\d+")
_STAMP_COLUMN: Final = f"CASE WHEN headers -> 0 ->> 0 = '{STAMP_HEADER}' THEN headers -> 0 ->> 1 END"


class ParkedRecord(NamedTuple):
    """A record that could not be staged."""

    topic: str
    partition: int
    offset: int
    reason: str


class Ended(NamedTuple):
    """What ends when records are no longer parked: their places, the causes that blocked documents, and tables whose
    documents were all held."""

    places: Sequence[tuple[str, int, int]]
    causes: Sequence[str]
    tables: Sequence[str]


def cause(commit: bytes) -> str:
    """The cause that blocks the documents of a commit while records of it are parked."""
    return f"parked:{commit.decode()}"


def commit_of(row: Row) -> bytes:
    """A record's commit, as `GENERATION:LSN`."""
    return _commit(row[5])


def park(cursor: Cursor, rows: Iterable[tuple[Row, str]], holds: Mapping[str, str] | None = None) -> None:
    """Parks records, each with its reason. `holds`: topic → table whose documents all wait, because the records may be
    part of any."""
    values = []
    for (topic, partition, offset, key, value, stamp, mark, more), reason in rows:
        ours = ((STAMP_HEADER, stamp), (TRANSACTION_HEADER, mark)) if stamp else ()
        headers = [[name, content.hex()] for name, content in (*ours, *more)]
        values.append((topic, partition, offset, reason, key, value, Json(headers), (holds or {}).get(topic)))
    execute_values(
        cursor,
        'INSERT INTO parked (topic, partition, "offset", reason, key, value, headers, holds_table) VALUES %s'
        ' ON CONFLICT (topic, partition, "offset")'
        " DO UPDATE SET reason = excluded.reason, holds_table = excluded.holds_table",
        values,
        page_size=1_000,
    )


def parked(cursor: Cursor) -> list[ParkedRecord]:
    """All parked records."""
    cursor.execute('SELECT topic, partition, "offset", reason FROM parked ORDER BY 1, 2, 3')
    return [ParkedRecord(*row) for row in cursor.fetchall()]


def topics(cursor: Cursor) -> set[str]:
    """The topics that have parked records."""
    cursor.execute("SELECT DISTINCT topic FROM parked")
    return {row[0] for row in cursor.fetchall()}


def unpark(cursor: Cursor, rows: Sequence[Row]) -> Ended:
    """Deletes parked records that are staged now."""
    return _take_out(cursor, [row[:3] for row in rows])


def replace(cursor: Cursor, rows: Iterable[Row]) -> Ended:
    """Deletes parked records that these rows supersede: later ones with the same key that have the whole row or a
    delete."""
    later = {(row[0], row[3]): stamp_of(row[5]) for row in rows if row[3] is not None and _is_whole(row)}
    if not later:
        return Ended((), (), ())
    cursor.execute(
        f'SELECT topic, partition, "offset", key, {_STAMP_COLUMN} FROM parked'  # noqa: S608  our own text
        " WHERE topic = ANY(%s) AND key = ANY(%s)",
        ([*{topic for topic, _ in later}], [*{key for _, key in later}]),
    )
    found = [(row[:3], later.get((row[0], bytes(row[3]))), _stamp(row[4])) for row in cursor.fetchall()]
    return _take_out(cursor, [place for place, at, stamp in found if at and stamp and stamp_of(stamp) < at])


def take_out(cursor: Cursor, topics: Collection[str], read_at: Stamp) -> Ended:
    """Deletes parked records of these topics that are older than `read_at`, where their tables were read again as a
    whole."""
    at = tuple(map(int, read_at))
    return _take_out(
        cursor, [place for place, stamp in _stamps(cursor).items() if place[0] in topics and stamp_of(stamp) < at]
    )


def let_go(cursor: Cursor, table: str) -> None:
    """Ends the holds of a table's parked records, which stay parked."""
    cursor.execute("UPDATE parked SET holds_table = NULL WHERE holds_table = %s", (table,))


def _is_whole(row: Row) -> bool:
    return not any(name == UNCHANGED_HEADER for name, _ in row[7])


def _take_out(cursor: Cursor, places: Collection[tuple[str, int, int]]) -> Ended:
    if not places:
        return Ended((), (), ())
    cursor.execute(
        'DELETE FROM parked WHERE (topic, partition, "offset") IN %s'  # noqa: S608  our own text
        f' RETURNING topic, partition, "offset", {_STAMP_COLUMN}, holds_table',
        (tuple(places),),
    )
    gone = cursor.fetchall()
    if not gone:
        return Ended((), (), ())
    commits = {_commit(stamp) for row in gone if (stamp := _stamp(row[3]))}
    commits -= {_commit(stamp) for stamp in _stamps(cursor).values()}
    cursor.execute("SELECT DISTINCT holds_table FROM parked WHERE holds_table IS NOT NULL")
    tables = {row[4] for row in gone if row[4]} - {row[0] for row in cursor.fetchall()}
    return Ended(sorted(row[:3] for row in gone), [cause(commit) for commit in sorted(commits)], sorted(tables))


def _stamps(cursor: Cursor) -> dict[tuple[str, int, int], bytes]:
    """Place → stamp, for parked records that have one."""
    cursor.execute(f'SELECT topic, partition, "offset", {_STAMP_COLUMN} FROM parked')  # noqa: S608  our own text
    return {row[:3]: stamp for row in cursor.fetchall() if (stamp := _stamp(row[3]))}


def _stamp(kept: str | None) -> bytes | None:
    """The stamp of a parked record. Records that capture did not write may have none."""
    stamp = bytes.fromhex(kept or "")
    return stamp if _STAMP.fullmatch(stamp) else None


def _commit(stamp: bytes) -> bytes:
    return stamp.rpartition(b":")[0]
