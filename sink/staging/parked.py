"""Records that cannot be staged, kept with their bytes until they can."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

from psycopg2.extras import Json, execute_values

from schemas.change import STAMP_HEADER, TRANSACTION_HEADER, Stamp
from sink.database import Cursor
from sink.staging.assembly import Row, stamp_of

_STAMP: Final = re.compile(rb"\d+:\d+:\d+")


class ParkedRecord(NamedTuple):
    """A record that could not be staged."""

    topic: str
    partition: int
    offset: int
    reason: str


def cause(commit: bytes) -> str:
    """What the documents of a commit with parked records are blocked by, until the last of them is staged."""
    return f"parked:{commit.decode()}"


def commit_of(row: Row) -> bytes:
    """The commit of a record: generation and LSN."""
    return _commit(row[5])


def park(cursor: Cursor, rows: Iterable[tuple[Row, str]]) -> None:
    """Keeps records that cannot be staged, with their bytes."""
    values = []
    for (topic, partition, offset, key, value, stamp, mark, more), reason in rows:
        ours = ((STAMP_HEADER, stamp), (TRANSACTION_HEADER, mark)) if stamp else ()
        headers = [[name, content.hex()] for name, content in (*ours, *more)]
        values.append((topic, partition, offset, reason, key, value, Json(headers)))
    execute_values(
        cursor,
        'INSERT INTO parked (topic, partition, "offset", reason, key, value, headers) VALUES %s'
        ' ON CONFLICT (topic, partition, "offset") DO UPDATE SET reason = excluded.reason',
        values,
        page_size=1_000,
    )


def parked(cursor: Cursor) -> list[ParkedRecord]:
    """Each record that could not be staged."""
    cursor.execute('SELECT topic, partition, "offset", reason FROM parked ORDER BY 1, 2, 3')
    return [ParkedRecord(*row) for row in cursor.fetchall()]


def unpark(cursor: Cursor, rows: Sequence[Row]) -> list[str]:
    """Takes records out that are staged now; the causes that end with that."""
    if not rows:
        return []
    cursor.execute(
        'DELETE FROM parked WHERE (topic, partition, "offset") IN %s RETURNING topic',
        (tuple(row[:3] for row in rows),),
    )
    if not cursor.rowcount:
        return []
    return _ended(cursor, {row[5] for row in rows})


def take_out(cursor: Cursor, topics: Collection[str], read_at: Stamp) -> tuple[list[tuple[str, int, int]], list[str]]:
    """Takes out what is older than a place where the tables of these topics were read again as a whole: where it was,
    and the causes that end with that."""
    old = {
        place: stamp
        for place, stamp in _stamps(cursor).items()
        if place[0] in topics and stamp_of(stamp) < tuple(map(int, read_at))
    }
    if not old:
        return [], []
    cursor.execute('DELETE FROM parked WHERE (topic, partition, "offset") IN %s', (tuple(old),))
    return sorted(old), _ended(cursor, old.values())


def _ended(cursor: Cursor, stamps: Iterable[bytes]) -> list[str]:
    """The causes of the commits of these stamps of which no record is left."""
    left = {_commit(stamp) for stamp in _stamps(cursor).values()}
    return [cause(commit) for commit in {_commit(stamp) for stamp in stamps} - left]


def _stamps(cursor: Cursor) -> dict[tuple[str, int, int], bytes]:
    """The stamp of each record that has one, by its place. One that capture did not write need not have any header."""
    cursor.execute(
        'SELECT topic, partition, "offset", headers -> 0 ->> 1 FROM parked WHERE headers -> 0 ->> 0 = %s',
        (STAMP_HEADER,),
    )
    found = {row[:3]: bytes.fromhex(row[3]) for row in cursor.fetchall()}
    return {place: stamp for place, stamp in found.items() if _STAMP.fullmatch(stamp)}


def _commit(stamp: bytes) -> bytes:
    return stamp.rpartition(b":")[0]
