"""What happened to a document, line by line, for people."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg2.extras import execute_values

from sink.database import Cursor
from sink.documents.refs import DocumentRef


def note(cursor: Cursor, ref: DocumentRef, event: str, detail: str = "", person: str = "") -> None:
    """A line of history; `person`: who did it, "" for the sink."""
    cursor.execute(
        "INSERT INTO history (type, key, event, detail, person) VALUES (%s, %s, %s, %s, %s)",
        (*ref, event, detail, person),
    )


def note_all(cursor: Cursor, events: Sequence[tuple[DocumentRef, str, str]], person: str = "") -> None:
    """Lines of history: of which document, what, and its detail."""
    if events:
        rows = [(*ref, event, detail, person) for ref, event, detail in events]
        execute_values(cursor, "INSERT INTO history (type, key, event, detail, person) VALUES %s", rows)
