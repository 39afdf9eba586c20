"""Records that cannot be staged, kept with their bytes until they can."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from psycopg2.extras import Json, execute_values

from schemas.change import STAMP_HEADER, TRANSACTION_HEADER
from sink.database import Cursor
from sink.staging.assembly import Row


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
    return row[5].rpartition(b":")[0]


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
    cursor.execute("SELECT DISTINCT headers -> 0 ->> 1 FROM parked")
    left = {bytes.fromhex(stamp).rpartition(b":")[0] for (stamp,) in cursor.fetchall()}
    return [cause(commit) for commit in {commit_of(row) for row in rows} - left]
