"""Documents that must not be built, because a record of a commit that touches them is parked.

A cause is such a commit, `parked:GENERATION:LSN`. It ends when none of the commit's records is parked any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from psycopg2.extras import execute_values

from sink.database import OF_THESE, Cursor, these
from sink.documents.refs import DocumentRef


def block(cursor: Cursor, refs: Iterable[DocumentRef], cause: str, reason: str) -> None:
    """Blocks documents for a cause."""
    values = [(*ref, cause, reason) for ref in sorted(refs)]
    if values:
        execute_values(
            cursor,
            "INSERT INTO blocked (type, key, cause, reason) VALUES %s"
            " ON CONFLICT (type, key, cause) DO UPDATE SET reason = excluded.reason",
            values,
        )


def unblock(cursor: Cursor, causes: Sequence[str]) -> set[DocumentRef]:
    """Ends causes, and returns the documents that they blocked: these need another look."""
    if not causes:
        return set()
    cursor.execute("DELETE FROM blocked WHERE cause = ANY(%s) RETURNING type, key", (list(causes),))
    return {DocumentRef(*row) for row in cursor.fetchall()}


def reasons(cursor: Cursor, refs: Iterable[DocumentRef]) -> dict[DocumentRef, str]:
    """Why documents must not be built. Those that may be are left out."""
    wanted = list(refs)
    if not wanted:
        return {}
    cursor.execute(
        "SELECT type, key, string_agg(reason, '; ' ORDER BY since) FROM blocked"  # noqa: S608  our own text
        f" WHERE {OF_THESE} GROUP BY type, key",
        these(wanted),
    )
    return {DocumentRef(*row[:2]): row[2] for row in cursor.fetchall()}


def commits(cursor: Cursor, refs: Iterable[DocumentRef]) -> dict[DocumentRef, tuple[int, int]]:
    """The latest commit (generation, LSN) that blocks each document. Those that nothing blocks are left out."""
    wanted = list(refs)
    cursor.execute(
        "SELECT type, key, split_part(cause, ':', 2)::bigint AS generation, split_part(cause, ':', 3)::numeric AS lsn"  # noqa: S608  our own text
        f" FROM blocked WHERE {OF_THESE} ORDER BY 3, 4",
        these(wanted),
    )
    return {DocumentRef(type_, key): (generation, int(lsn)) for type_, key, generation, lsn in cursor.fetchall()}
