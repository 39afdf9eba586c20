"""The ledger: for each document what is desired, what the ERP was given, and what keeps the two apart."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from psycopg2.extras import Json

from sink.database import Cursor
from sink.documents.refs import DocumentRef
from sink.ledger.outcomes import Standing, State


@dataclass
class Entry:
    """A document as the ledger has it, read at the mark `marked`."""

    ref: DocumentRef
    unit: str
    marked: int
    marked_at: datetime
    state: str
    needed: bool
    fingerprint: str | None
    incarnation: int
    revision: int
    intent: dict[str, Any] | None
    applied: dict[str, Any] | None
    reference: str | None
    attempts: int
    age: float  # seconds since the last mark
    identity: str | None = None  # the fingerprint of what the shop has now
    shown: str | None = None  # its number in the shop, for people

    def external(self, shop: str) -> str:
        """The key that the ERP keeps."""
        return f"{shop}/{self.ref.type}/{self.ref.key}/{self.incarnation}"


_ENTRY = (
    "SELECT type, key, unit, marked, marked_at, state, needed, fingerprint, incarnation, revision, intent, applied,"
    " reference, attempts, extract(epoch FROM clock_timestamp() - marked_at)::float FROM ordertap.document"
)


def entries(cursor: Cursor, unit: str) -> list[Entry]:
    """The documents of a unit."""
    cursor.execute(_ENTRY + " WHERE unit = %s ORDER BY type, key", (unit,))
    return [_entry(row) for row in cursor.fetchall()]


def entry(cursor: Cursor, ref: DocumentRef) -> Entry | None:
    """One document."""
    cursor.execute(_ENTRY + " WHERE type = %s AND key = %s", tuple(ref))
    row = cursor.fetchone()
    return None if row is None else _entry(row)


def _entry(row: tuple[Any, ...]) -> Entry:
    return Entry(DocumentRef(row[0], row[1]), *row[2:])


def save(cursor: Cursor, ref: DocumentRef, **columns: Any) -> None:
    """Writes columns of one document."""
    names = ", ".join(f"{name} = %s" for name in columns)
    values = [Json(value) if isinstance(value, dict) else value for value in columns.values()]
    cursor.execute(f"UPDATE ordertap.document SET {names} WHERE type = %s AND key = %s", (*values, *ref))  # noqa: S608


def wait(cursor: Cursor, ref: DocumentRef, seconds: float | None) -> None:
    """When to look again by itself; None: not before the next mark or retry."""
    cursor.execute(
        "UPDATE ordertap.document SET next_try = clock_timestamp() + make_interval(secs => %s)"
        " WHERE type = %s AND key = %s",
        (seconds, *ref),
    )


class Held(NamedTuple):
    """A document that waits for someone."""

    type: str
    key: str
    number: str | None
    state: str
    cause: str | None
    reason: str | None
    next_step: str | None
    since: datetime | None


def held(cursor: Cursor) -> list[Held]:
    """Held documents, and those that wait for them, oldest first."""
    cursor.execute(
        "SELECT type, key, number, state, cause, reason, next_step, held_since FROM ordertap.document"
        " WHERE state IN ('held', 'waits') ORDER BY held_since NULLS LAST, type, key"
    )
    return [Held(*row) for row in cursor.fetchall()]


def counts(cursor: Cursor) -> dict[tuple[str, str], int]:
    """(type, state) → documents; one that is marked anew counts as due."""
    cursor.execute(
        "SELECT type, CASE WHEN seen < marked AND state <> 'held' THEN 'due' ELSE state END, count(*)"
        " FROM ordertap.document GROUP BY 1, 2 ORDER BY 1, 2"
    )
    return {(row[0], row[1]): row[2] for row in cursor.fetchall()}


def standings(cursor: Cursor) -> dict[DocumentRef, Standing]:
    """Where each document stands."""
    cursor.execute("SELECT type, key, state, incarnation, needed, seen < marked, marked FROM ordertap.document")
    return {DocumentRef(*row[:2]): Standing(State(row[2]), *row[3:]) for row in cursor.fetchall()}
