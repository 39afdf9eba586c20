"""Which version of the profile built what the ERP has."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg2.extras import execute_values

from sink.database import Cursor
from sink.documents.refs import DocumentRef
from sink.ledger import documents
from sink.ledger.documents import Entry


def others(cursor: Cursor, version: str) -> int:
    """How many documents are known to be built by another version. Two index ranges, mostly empty."""
    cursor.execute(
        "SELECT (SELECT count(*) FROM document WHERE made_by < %s)"
        " + (SELECT count(*) FROM document WHERE made_by > %s)",
        (version, version),
    )
    return int((cursor.fetchone() or (0,))[0])


_MADE = "applied IS NOT NULL AND made_by IS DISTINCT FROM %s AND state <> 'ignored'"


def not_of(cursor: Cursor, version: str) -> int:
    """How many documents that the ERP has are not known to be built by this version."""
    cursor.execute(f"SELECT count(*) FROM document WHERE {_MADE}", (version,))  # noqa: S608  ours
    return int((cursor.fetchone() or (0,))[0])


def page(cursor: Cursor, version: str, after: DocumentRef, limit: int) -> list[Entry]:
    """The next of those documents, by type and key, after this one."""
    cursor.execute(
        f"SELECT type, key FROM document WHERE {_MADE} AND (type, key) > (%s, %s)"  # noqa: S608  ours
        " ORDER BY type, key LIMIT %s",
        (version, *after, limit),
    )
    refs = [DocumentRef(*row) for row in cursor.fetchall()]
    found = documents.entries_of(cursor, refs)
    return [found[ref] for ref in refs]


def note(cursor: Cursor, ones: Sequence[Entry], version: str) -> None:
    """Notes documents as built by this version, unless they were marked meanwhile."""
    execute_values(
        cursor,
        "UPDATE document AS d SET made_by = v.version FROM (VALUES %s) AS v (type, key, marked, version)"
        " WHERE d.type = v.type AND d.key = v.key AND d.marked = v.marked",
        [(*one.ref, one.marked, version) for one in ones],
    )
