"""What keeps documents from being built because not all that they are made of is known: unreadable records, gaps,
values that never came. A cause ends by itself when what was missing arrives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from psycopg2.extras import Json, execute_values

from sink.consumer import Record
from sink.database import Cursor
from sink.ledger import DocumentRef


def block(cursor: Cursor, refs: Iterable[DocumentRef], cause: str, reason: str) -> None:
    """Blocks documents for a cause."""
    values = [(*ref, cause, reason) for ref in sorted(refs)]
    if values:
        execute_values(
            cursor,
            "INSERT INTO ordertap.blocked (type, key, cause, reason) VALUES %s"
            " ON CONFLICT (type, key, cause) DO UPDATE SET reason = excluded.reason",
            values,
        )


def unblock(cursor: Cursor, causes: Sequence[str]) -> set[DocumentRef]:
    """Ends causes; the documents that they blocked, which want another look now."""
    if not causes:
        return set()
    cursor.execute("DELETE FROM ordertap.blocked WHERE cause = ANY(%s) RETURNING type, key", (list(causes),))
    return {DocumentRef(*row) for row in cursor.fetchall()}


def reasons(cursor: Cursor, refs: Iterable[DocumentRef]) -> dict[DocumentRef, str]:
    """Why these documents must not be built; one that may be is left out."""
    wanted = tuple(tuple(ref) for ref in refs)
    if not wanted:
        return {}
    cursor.execute(
        "SELECT type, key, string_agg(reason, '; ' ORDER BY since) FROM ordertap.blocked"
        " WHERE (type, key) IN %s GROUP BY type, key",
        (wanted,),
    )
    return {DocumentRef(*row[:2]): row[2] for row in cursor.fetchall()}


def park(cursor: Cursor, record: Record, transaction_id: str | None, reason: str) -> None:
    """Keeps a record that cannot be read, with its bytes."""
    headers = [[name, (value or b"").hex()] for name, value in record.headers]
    cursor.execute(
        'INSERT INTO ordertap.parked (topic, partition, "offset", transaction_id, reason, key, value, headers)'
        ' VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (topic, partition, "offset")'
        " DO UPDATE SET reason = excluded.reason",
        (*record[:3], transaction_id, reason, record.key, record.value, Json(headers)),
    )


def parked(cursor: Cursor) -> list[tuple[str, int, int, str]]:
    """(topic, partition, offset, reason) of each record that could not be read."""
    cursor.execute('SELECT topic, partition, "offset", reason FROM ordertap.parked ORDER BY 1, 2, 3')
    return [(row[0], row[1], row[2], row[3]) for row in cursor.fetchall()]


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
