"""The ledger's documents: for each what is desired, what the ERP was given, and what keeps the two apart."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from psycopg2.extras import Json

from sink.database import Cursor
from sink.documents.refs import DocumentRef
from sink.ledger import history, leases, marks
from sink.ledger.leases import Lease
from sink.ledger.outcomes import Intent, Outcome, Standing, State


@dataclass
class Entry:
    """A document as the ledger has it, read at the mark `marked`."""

    ref: DocumentRef
    unit: str
    marked: int
    marked_at: datetime
    state: State
    needed: bool
    fingerprint: str | None
    incarnation: int
    revision: int
    intent: Intent | None
    applied: dict[str, Any] | None
    reference: str | None
    attempts: int
    age: float  # seconds since the last mark
    identity: str | None = None  # the fingerprint of what the shop has now
    shown: str | None = None  # its number in the shop, for people

    def external(self, shop: str) -> str:
        """The key that the ERP keeps."""
        return f"{shop}/{self.ref.type}/{self.ref.key}/{self.incarnation}"


_ENTRY: Final = (
    "SELECT type, key, unit, marked, marked_at, state, needed, fingerprint, incarnation, revision, intent, applied,"
    " reference, attempts, extract(epoch FROM clock_timestamp() - marked_at)::float FROM document"
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
    found = Entry(DocumentRef(row[0], row[1]), *row[2:])
    found.state = State(found.state)
    found.intent = Intent(**row[10]) if row[10] else None
    return found


def write(cursor: Cursor, lease: Lease, one: Entry, outcome: Outcome) -> None:
    """Writes what a look came to; nothing else does. Without the lease nothing can be committed: LeaseLostError.

    What was marked since the entry was read stays due.
    """
    leases.prove(cursor, lease)
    sent = outcome.sent
    cursor.execute(
        _OUTCOME,
        {
            "type": one.ref.type,
            "key": one.ref.key,
            "state": outcome.state,
            "reason": outcome.reason or None,
            "next_step": outcome.next_step or None,
            "cause": outcome.cause,
            "waits_for": str(outcome.waits_for) if outcome.waits_for else None,
            "attempts": outcome.attempts,
            "seen": sent.marked if sent else one.marked,
            "again": 0.0 if outcome.state is State.WAITS and _has_come(cursor, outcome) else outcome.again,
        },
    )
    if sent:
        _write_sent(cursor, one, sent, outcome.reference)
    elif one.shown:
        save(cursor, one.ref, number=one.shown)
    if outcome.state is State.HELD and one.state is not State.HELD:
        history.note(cursor, one.ref, "held", outcome.reason or "")


_OUTCOME: Final = """
UPDATE document SET state = %(state)s, reason = %(reason)s, next_step = %(next_step)s, cause = %(cause)s,
    waits_for = %(waits_for)s, attempts = %(attempts)s, seen = %(seen)s,
    next_try = clock_timestamp() + make_interval(secs => %(again)s),
    held_since = CASE WHEN %(state)s IN ('held', 'waits') THEN coalesce(held_since, clock_timestamp()) END
WHERE type = %(type)s AND key = %(key)s
"""


def _has_come(cursor: Cursor, outcome: Outcome) -> bool:
    """Whether what it waits for was done between the look and this transaction."""
    other = entry(cursor, outcome.waits_for) if outcome.waits_for else None
    return other is not None and bool(other.applied)


def _write_sent(cursor: Cursor, one: Entry, sent: Intent, reference: str) -> None:
    """What the ERP was given, and those that waited for it."""
    columns: dict[str, Any] = {
        "intent": None, "reference": reference, "number": sent.record["fields"].get("number"),
        "applied": sent.record, "desired": sent.record, "fingerprint": one.fingerprint or sent.fingerprint,
    }  # fmt: skip
    if sent.verb == "remove":
        # The key stays taken in the ERP: the same price, if it comes back, is a new one.
        columns |= {"applied": None, "incarnation": one.incarnation + 1, "revision": 0}
    save(cursor, one.ref, **columns)
    cursor.execute("UPDATE document SET applied_at = clock_timestamp() WHERE type = %s AND key = %s", one.ref)
    history.note(cursor, one.ref, sent.verb, reference)
    marks.wake(cursor, str(one.ref))
    one.applied, one.intent = columns["applied"], None


def save(cursor: Cursor, ref: DocumentRef, **columns: Any) -> None:
    """Writes columns of one document."""
    names = ", ".join(f"{name} = %s" for name in columns)
    values = [Json(value) if isinstance(value, dict) else value for value in columns.values()]
    cursor.execute(f"UPDATE document SET {names} WHERE type = %s AND key = %s", (*values, *ref))  # noqa: S608


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
        "SELECT type, key, number, state, cause, reason, next_step, held_since FROM document"
        " WHERE state IN ('held', 'waits') ORDER BY held_since NULLS LAST, type, key"
    )
    return [Held(*row) for row in cursor.fetchall()]


def counts(cursor: Cursor) -> dict[tuple[str, str], int]:
    """(type, state) → documents; one that is marked anew counts as due."""
    cursor.execute(
        "SELECT type, CASE WHEN seen < marked AND state <> 'held' THEN 'due' ELSE state END, count(*)"
        " FROM document GROUP BY 1, 2 ORDER BY 1, 2"
    )
    return {(row[0], row[1]): row[2] for row in cursor.fetchall()}


def standings(cursor: Cursor) -> dict[DocumentRef, Standing]:
    """Where each document stands."""
    cursor.execute("SELECT type, key, state, incarnation, needed, seen < marked, marked FROM document")
    return {DocumentRef(*row[:2]): Standing(State(row[2]), *row[3:]) for row in cursor.fetchall()}
