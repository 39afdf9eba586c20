"""The ledger's documents: for each what the ERP was given, and what keeps it from being given what the shop has."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from psycopg2.extras import Json, execute_values

from sink.database import Cursor
from sink.documents.refs import DocumentRef
from sink.erp.kinds import Kind
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
    external: str | None
    reached: str | None
    age: float  # seconds since the last mark
    dirty: bool  # marked since it was looked at
    identity: str | None = None  # the fingerprint of what the shop has now
    shown: str | None = None  # its number in the shop, for people

    @property
    def settled(self) -> bool:
        """Whether a person has settled it in another way, and the shop has not changed it since."""
        return self.state is State.IGNORED and not self.dirty

    def external_key(self, stem: str) -> str:
        """The key that the ERP keeps: as it was given once, or the one to be given, of a stem like `shop/order/17`."""
        return self.external or f"{stem}/{self.incarnation}"


_ENTRY: Final = (
    "SELECT type, key, unit, marked, marked_at, state, needed, fingerprint, incarnation, revision, intent, applied,"
    " reference, attempts, external, reached, extract(epoch FROM clock_timestamp() - marked_at)::float,"
    " seen < marked FROM document"
)


def entries(cursor: Cursor, units: Collection[str]) -> list[Entry]:
    """The documents of units."""
    cursor.execute(_ENTRY + " WHERE unit = ANY(%s) ORDER BY type, key", (list(units),))
    return [_entry(row) for row in cursor.fetchall()]


def entries_of(cursor: Cursor, refs: Iterable[DocumentRef]) -> dict[DocumentRef, Entry]:
    """Single documents; those that the ledger does not have are left out."""
    wanted = tuple(tuple(ref) for ref in refs)
    if not wanted:
        return {}
    cursor.execute(_ENTRY + " WHERE (type, key) IN %s", (wanted,))
    return {one.ref: one for one in map(_entry, cursor.fetchall())}


def entry(cursor: Cursor, ref: DocumentRef) -> Entry | None:
    """One document."""
    return entries_of(cursor, [ref]).get(ref)


def _entry(row: tuple[Any, ...]) -> Entry:
    found = Entry(DocumentRef(row[0], row[1]), *row[2:])
    found.state = State(found.state)
    found.intent = Intent(**row[10]) if row[10] else None
    return found


def types(cursor: Cursor) -> set[str]:
    """The names that documents have, or had, in the profile."""
    cursor.execute("SELECT DISTINCT type FROM document")
    return {row[0] for row in cursor.fetchall()}


def in_erp_under(cursor: Cursor, names: Collection[str], kind: Kind, keys: Collection[str]) -> dict[str, DocumentRef]:
    """Documents of a kind that are in the ERP and have one of these names and of these keys, by key."""
    if not names or not keys:
        return {}
    cursor.execute(
        "SELECT type, key FROM document WHERE type = ANY(%s) AND key = ANY(%s) AND applied ->> 'kind' = %s",
        (list(names), list(keys), kind),
    )
    return {key: DocumentRef(type_, key) for type_, key in cursor.fetchall()}


Given = Sequence[tuple[Entry, Outcome]]


def intend(cursor: Cursor, given: Iterable[tuple[Entry, Intent | None, str]]) -> None:
    """Writes down what is about to be sent, under which key in the ERP; None: nothing is under way any more.

    In the caller's transaction, which has to prove the lease.
    """
    rows = [
        (*one.ref, intent and Json(intent.to_json()), intent and intent.revision, key) for one, intent, key in given
    ]
    execute_values(
        cursor,
        "UPDATE document AS d SET intent = v.intent::jsonb, revision = coalesce(v.revision, d.revision),"
        " external = v.external FROM (VALUES %s) AS v (type, key, intent, revision, external)"
        " WHERE d.type = v.type AND d.key = v.key",
        rows,
        "(%s, %s, %s, %s::bigint, %s)",
    )


def write(cursor: Cursor, held: Sequence[Lease], given: Given) -> None:
    """Writes what looks came to; nothing else does. Without the leases nothing can be committed: LeaseLostError.

    What was marked since the entry was read stays due. Units are locked first, those of documents that are woken too.
    """
    if not given:
        return
    sent = [one.ref for one, outcome in given if outcome.sent]
    waiting = marks.waiting_for(cursor, sent)
    leases.prove(cursor, held, waiting)
    come = _come(cursor, given)
    rows = [_row(one, outcome, outcome.waits_for in come) for one, outcome in given]
    execute_values(cursor, _OUTCOMES, rows, _ROW, page_size=len(rows))
    history.note_all(cursor, _events(given))
    marks.wake(cursor, sent, waiting)
    for one, outcome in given:
        one.state = outcome.state
        if outcome.sent:
            one.applied, one.intent, one.reached = outcome.sent.record, None, outcome.reached
        if outcome.sent and outcome.sent.verb == "remove":
            one.applied, one.external, one.incarnation = None, None, one.incarnation + 1


_ROW: Final = "(%s, %s, %s, %s, %s, %s, %s, %s::int, %s::bigint, %s::float, %s::bool, %s::bool, %s, %s, %s, %s, %s)"
_OUTCOMES: Final = """
UPDATE document AS d SET state = v.state, reason = v.reason, next_step = v.next_step, cause = v.cause,
    waits_for = v.waits_for, attempts = v.attempts, seen = v.seen,
    -- At once is in its turn, not behind all that was marked since.
    next_try = CASE WHEN v.again = 0 THEN d.marked_at ELSE clock_timestamp() + make_interval(secs => v.again) END,
    held_since = CASE WHEN v.state IN ('held', 'waits') THEN coalesce(d.held_since, clock_timestamp()) END,
    number = coalesce(v.number, d.number),
    applied = CASE WHEN v.removed THEN NULL WHEN v.sent THEN d.intent -> 'record'
        ELSE coalesce(v.by_hand::jsonb, d.applied) END,
    applied_at = CASE WHEN v.sent THEN clock_timestamp() ELSE d.applied_at END,
    reference = coalesce(v.reference, d.reference),
    fingerprint = coalesce(d.fingerprint, v.fingerprint),
    -- The key stays taken in the ERP: the same price, if it comes back, is a new one.
    incarnation = d.incarnation + v.removed::int,
    revision = CASE WHEN v.removed THEN 0 ELSE d.revision END,
    external = CASE WHEN v.removed THEN NULL ELSE d.external END,
    reached = CASE WHEN v.removed THEN NULL ELSE coalesce(v.reached, d.reached) END,
    intent = CASE WHEN v.sent THEN NULL ELSE d.intent END
FROM (VALUES %s) AS v (type, key, state, reason, next_step, cause, waits_for, attempts, seen, again, sent, removed,
    number, reference, fingerprint, reached, by_hand)
WHERE d.type = v.type AND d.key = v.key
"""


def _row(one: Entry, outcome: Outcome, has_come: bool) -> tuple[Any, ...]:
    """What of an outcome is written, in the order of the columns."""
    sent = outcome.sent
    again = 0.0 if outcome.state is State.WAITS and has_come else outcome.again
    number = sent.record["fields"].get("number") if sent else one.shown
    seen = (sent.marked if sent else one.marked) - outcome.more
    agreed = one.identity if one.applied and outcome.state is State.DONE else None
    return (
        *one.ref, outcome.state, outcome.reason or None, outcome.next_step or None, outcome.cause,
        str(outcome.waits_for) if outcome.waits_for else None, outcome.attempts, seen, again,
        sent is not None, sent is not None and sent.verb == "remove", number, outcome.reference or None,
        sent.fingerprint if sent else agreed, outcome.reached or None,
        Json(outcome.by_hand) if outcome.by_hand else None,
    )  # fmt: skip


def _come(cursor: Cursor, given: Given) -> set[DocumentRef | None]:
    """Which of those that others wait for were done between the look and this transaction."""
    waited = {outcome.waits_for for _, outcome in given if outcome.waits_for and outcome.state is State.WAITS}
    return {ref for ref, other in entries_of(cursor, waited).items() if other.applied}


def _events(given: Given) -> list[tuple[DocumentRef, str, str]]:
    """What people read of it later."""
    found: list[tuple[DocumentRef, str, str]] = []
    for one, outcome in given:
        if outcome.sent:
            found.append((one.ref, outcome.sent.verb, outcome.reference))
        if outcome.by_hand:
            found.append((one.ref, "done by hand", ""))
        if outcome.state is State.HELD and one.state is not State.HELD:
            found.append((one.ref, "held", outcome.reason or ""))
    return found


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
    cursor.execute("SELECT type, key, state, external, needed, seen < marked, marked FROM document")
    return {DocumentRef(*row[:2]): Standing(State(row[2]), *row[3:]) for row in cursor.fetchall()}
