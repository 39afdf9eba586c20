"""Records that cannot be read, kept with their bytes until they can."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from psycopg2.extras import Json

from sink.database import Cursor
from sink.intake.consumer import KafkaRecord


class ParkedRecord(NamedTuple):
    """A record that could not be read."""

    topic: str
    partition: int
    offset: int
    reason: str


def park(cursor: Cursor, record: KafkaRecord, transaction_id: str | None, reason: str) -> None:
    """Keeps a record that cannot be read, with its bytes."""
    headers = [[name, (value or b"").hex()] for name, value in record.headers]
    cursor.execute(
        'INSERT INTO ordertap.parked (topic, partition, "offset", transaction_id, reason, key, value, headers)'
        ' VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (topic, partition, "offset")'
        " DO UPDATE SET reason = excluded.reason",
        (*record[:3], transaction_id, reason, record.key, record.value, Json(headers)),
    )


def parked(cursor: Cursor) -> list[ParkedRecord]:
    """Each record that could not be read."""
    cursor.execute('SELECT topic, partition, "offset", reason FROM ordertap.parked ORDER BY 1, 2, 3')
    return [ParkedRecord(*row) for row in cursor.fetchall()]


def unpark(cursor: Cursor, places: Iterable[tuple[str, int, int]]) -> dict[tuple[str, int, int], str | None]:
    """Takes parked records out that can be read now; their transactions."""
    wanted = tuple(places)
    if not wanted:
        return {}
    cursor.execute(
        'DELETE FROM ordertap.parked WHERE (topic, partition, "offset") IN %s'
        ' RETURNING topic, partition, "offset", transaction_id',
        (wanted,),
    )
    return {
        (topic, partition, offset): transaction_id for topic, partition, offset, transaction_id in cursor.fetchall()
    }
