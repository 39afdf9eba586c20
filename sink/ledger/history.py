"""What happened to a document, line by line, for people."""

from __future__ import annotations

from sink.database import Cursor
from sink.documents.refs import DocumentRef


def note(cursor: Cursor, ref: DocumentRef, event: str, detail: str = "") -> None:
    """A line of history."""
    cursor.execute("INSERT INTO history (type, key, event, detail) VALUES (%s, %s, %s, %s)", (*ref, event, detail))
