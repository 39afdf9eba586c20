"""The table `document`: reads entries, writes intents and outcomes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from psycopg2.extras import Json

from schemas.model.lsn import LSN
from sink.database import OF_THESE, Cursor, TextArray, as_json, rows_as, these
from sink.documents.records import from_json
from sink.documents.refs import DocumentRef
from sink.documents.version import version_of
from sink.erp.kinds import ErpRecord, Kind
from sink.ledger import history, leases, marks
from sink.ledger.history import Event, Place
from sink.ledger.leases import Lease
from sink.ledger.outcomes import Intent, Outcome, State


@dataclass
class Entry:
    """A row of `document`, as of the mark `marked`. The fields from `built` on are filled in by the look at it.

    These follow what is written later: with an outcome `state`, `check`, `account`, `reached`, `still_held`, and for a
    step that was done `applied`, `intent`, for a removal also `external` and `incarnation`; with an intent `intent`,
    `external`, `revision`. All others stay as they were read.
    """

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
    dirty: bool  # marked since the last look
    check: str | None = None  # the check that a held or settling document did not pass
    decisions: dict[str, Any] | None = None  # see `planning.decisions`
    account: str | None = None  # the ERP's key of the account that a customer shares
    next_unit: str | None = None  # where it goes once its step is no longer in doubt
    still_held: bool = False  # a part of the change was sent, and the rest is still held
    rests: bool = False  # its next try lies ahead, and no mark has come since
    settled_for: float = 0.0  # seconds since it began to settle for this check
    built: object = None  # the document as the shop has it now
    identity: str | None = None  # the fingerprint of `built`
    shown: str | None = None  # its number in the shop, for people
    money: tuple[Decimal, str] | None = None  # its gross there, and the currency
    place: Place | None = None  # where the copy stood when it was looked at
    made_by: str | None = None  # the version of the profile that built it
    _decoded: tuple[dict[str, Any], ErpRecord] | None = field(default=None, repr=False, compare=False)

    @property
    def written(self) -> ErpRecord | None:
        """The record written last: `applied`, decoded once."""
        if self.applied is None:
            return None
        if self._decoded is None or self._decoded[0] is not self.applied:
            self._decoded = self.applied, from_json(self.applied)
        return self._decoded[1]

    @property
    def version(self) -> str:
        """The shop's present version; "" if it could not be built."""
        return version_of(self.built)

    @property
    def arrived(self) -> bool:
        """Whether other documents can refer to it in the ERP: it was applied, or the customer shares an account."""
        return self.applied is not None or self.account is not None

    @property
    def linked(self) -> str:
        """The ERP's document that a person has linked it to (`hand:7`), "" for none."""
        return str((self.decisions or {}).get("linked", ""))

    def go_on_as(self, now: Entry) -> None:
        """Takes over from a newer row what the ERP has of it, and whether it is held. The mark that is looked at
        stays."""
        self.needed, self.incarnation, self.revision, self.fingerprint, self.account = (
            now.needed, now.incarnation, now.revision, now.fingerprint, now.account,
        )  # fmt: skip
        self.applied, self.reference, self.external, self.reached, self.decisions = (
            now.applied, now.reference, now.external, now.reached, now.decisions,
        )  # fmt: skip
        self.state, self.check, self.still_held = now.state, now.check, now.still_held

    def external_key(self, stem: str) -> str:
        """Its key in the ERP: the one already given, or a new one from a stem such as `shop/order/17`."""
        return self.external or f"{stem}/{self.incarnation}"


_ENTRY: Final = (
    "SELECT type, key, unit, marked, marked_at, state, needed, fingerprint, incarnation, revision, intent, applied,"
    " reference, attempts, external, reached, extract(epoch FROM clock_timestamp() - marked_at)::float,"
    " seen < marked, check_name, decisions, account,"
    " next_unit, state = 'done' AND held_since IS NOT NULL,"
    " seen >= marked AND coalesce(next_try > clock_timestamp(), false),"
    " CASE WHEN state = 'settling' AND held_since IS NOT NULL"
    " THEN extract(epoch FROM clock_timestamp() - held_since)::float ELSE 0.0 END FROM document"
)


def entries(cursor: Cursor, units: Collection[str]) -> list[Entry]:
    """All documents of the units."""
    cursor.execute(_ENTRY + " WHERE unit = ANY(%s) ORDER BY type, key", (TextArray(units),))
    return [_entry(row) for row in cursor.fetchall()]


def entries_of(cursor: Cursor, refs: Iterable[DocumentRef]) -> dict[DocumentRef, Entry]:
    """Single documents. Those that the ledger does not have are left out."""
    wanted = list(refs)
    if not wanted:
        return {}
    cursor.execute(f"{_ENTRY} WHERE {OF_THESE}", these(wanted))
    return {one.ref: one for one in map(_entry, cursor.fetchall())}


def entry(cursor: Cursor, ref: DocumentRef) -> Entry | None:
    """One document."""
    return entries_of(cursor, [ref]).get(ref)


def _entry(row: tuple[Any, ...]) -> Entry:
    found = Entry(DocumentRef(row[0], row[1]), *row[2:])
    found.state = State(found.state)
    found.intent = Intent(**row[10]) if row[10] else None
    return found


def sharing(cursor: Cursor, account: str) -> list[DocumentRef]:
    """Customers whose orders are booked to an account: its owner, and those who share it."""
    cursor.execute(
        "SELECT type, key FROM document WHERE external = %s AND applied IS NOT NULL"
        " UNION SELECT type, key FROM document WHERE account = %s ORDER BY 1, 2",
        (account, account),
    )
    return [DocumentRef(type_, key) for type_, key in cursor.fetchall()]


def types(cursor: Cursor) -> set[str]:
    """All document types, also those that the profile no longer has."""
    cursor.execute("SELECT type FROM document_total")
    return {row[0] for row in cursor.fetchall()}


def in_erp_under(cursor: Cursor, names: Collection[str], kind: Kind, keys: Collection[str]) -> dict[str, DocumentRef]:
    """Documents of this kind that are in the ERP, by key. names: their types; keys: theirs."""
    if not names or not keys:
        return {}
    cursor.execute(
        "SELECT type, key FROM document WHERE type = ANY(%s) AND key = ANY(%s) AND applied ->> 'kind' = %s",
        (TextArray(names), TextArray(keys), kind),
    )
    return {key: DocumentRef(type_, key) for type_, key in cursor.fetchall()}


Given = Sequence[tuple[Entry, Outcome]]


_INTENT: Final = {
    "type": "text", "key": "text", "intent": "jsonb", "revision": "bigint", "external": "text", "needed": "bool",
    "unit": "text",
}  # fmt: skip
_INTENTS: Final = f"""
UPDATE document AS d SET intent = v.intent, revision = coalesce(v.revision, d.revision), external = v.external,
    needed = v.needed OR d.needed
FROM {rows_as("v", _INTENT)} WHERE d.type = v.type AND d.key = v.key
 AND (v.intent IS NULL OR d.intent IS NOT NULL
      OR d.unit = v.unit AND (d.applied IS NOT NULL OR v.intent ->> 'fingerprint' IS NULL
                              OR d.marked = (v.intent ->> 'marked')::bigint))
RETURNING d.type, d.key
"""  # noqa: S608  our own names


def intend(cursor: Cursor, given: Iterable[tuple[Entry, Intent | None, str]]) -> set[DocumentRef]:
    """Writes the intents, each with the document's key in the ERP; None deletes the intent. Returns the documents whose
    intent was written.

    No intent is written if the shop has given the document to another unit since it was looked at. Nor for the create
    of an order that was marked since, because the order may now have another key: either the look at that one finds our
    intent, or we find its mark.

    Runs in the caller's transaction, which has to prove the lease.
    """
    rows = [
        {
            "type": one.ref.type,
            "key": one.ref.key,
            "intent": intent and intent.to_json(),
            "revision": intent and intent.revision,
            "external": key,
            "needed": one.needed,
            "unit": one.unit,
        }
        for one, intent, key in given
    ]
    if not rows:
        return set()
    cursor.execute(_INTENTS, (as_json(rows),))
    return {DocumentRef(*row) for row in cursor.fetchall()}


def write(cursor: Cursor, leased: Sequence[Lease], given: Given) -> None:
    """Writes outcomes; nothing else does. LeaseLostError if a lease is lost, so that nothing can be committed.

    A document that was marked since its entry was read stays due. One that went to another unit during a mere look is
    left as it is. Units are locked first, also those of documents that this wakes.
    """
    if not given:
        return
    arrived = [one.ref for one, outcome in given if _has_arrived(outcome)]
    waited_for = _waited_for(given)
    marks.take_turns(cursor, {*arrived, *waited_for})
    waiting = marks.waiting_for(cursor, arrived)
    leases.prove(cursor, leased, waiting)
    come = _come(cursor, waited_for) | {*arrived}
    rows = [_row(one, outcome, outcome.waits_for in come) for one, outcome in given]
    cursor.execute(_OUTCOMES, (as_json(rows),))
    written = {DocumentRef(*row) for row in cursor.fetchall()}
    given = [(one, outcome) for one, outcome in given if one.ref in written]
    history.note_all(cursor, _events(given))
    marks.wake(cursor, arrived, waiting)
    for one, outcome in given:
        one.still_held = _is_partly(outcome) and (one.still_held or one.state is State.HELD)
        one.state, one.check, one.account = outcome.state, outcome.check, outcome.account or one.account
        one.reached = outcome.reached or one.reached
        if outcome.sent:
            one.applied, one.intent = outcome.sent.written, None
        if outcome.sent and outcome.sent.verb == "remove":
            one.applied, one.external, one.incarnation = None, None, one.incarnation + 1


_COLUMNS: Final[Mapping[str, str]] = {
    "type": "text", "key": "text", "state": "text", "reason": "text", "next_step": "text", "cause": "text",
    "waits_for": "text", "attempts": "int", "seen": "bigint", "again": "float", "sent": "bool", "removed": "bool",
    "number": "text", "reference": "text", "fingerprint": "text", "reached": "text", "by_hand": "jsonb",
    "gross": "numeric", "currency": "text", "planned": "jsonb", "needed": "bool", "made_by": "text",
    "check_name": "text", "disputed": "jsonb", "account": "text", "unit": "text",
    "partly": "bool", "external": "text", "more": "bool", "still": "bool",
}  # fmt: skip
"""What is written of an outcome, with SQL types."""
_OUTCOMES: Final = f"""
UPDATE document AS d SET state = v.state, reason = v.reason, next_step = v.next_step, cause = v.cause,
    waits_for = v.waits_for, attempts = v.attempts, seen = v.seen,
    -- "At once" means in its turn, not behind everything marked since.
    next_try = CASE WHEN v.again = 0 THEN d.marked_at ELSE clock_timestamp() + make_interval(secs => v.again) END,
    planned = v.planned, gross = coalesce(v.gross, d.gross), currency = coalesce(v.currency, d.currency),
    -- A document settles since it first failed this check, whatever marks have come meanwhile.
    held_since = CASE WHEN v.state IN ('held', 'waits') OR v.still THEN coalesce(d.held_since, clock_timestamp())
        WHEN v.state = 'settling' THEN clock_timestamp()
        WHEN v.partly THEN d.held_since END,
    number = coalesce(v.number, d.number), needed = v.needed OR d.needed,
    applied = CASE WHEN v.removed THEN NULL
        WHEN v.sent THEN coalesce(nullif(d.intent -> 'noted', 'null'), d.intent -> 'record')
        ELSE coalesce(v.by_hand, d.applied) END,
    applied_at = CASE WHEN v.sent THEN clock_timestamp() ELSE d.applied_at END,
    reference = coalesce(v.reference, d.reference),
    fingerprint = coalesce(d.fingerprint, v.fingerprint),
    -- The key stays taken in the ERP: if the same price comes back, it is a new one.
    incarnation = d.incarnation + v.removed::int,
    revision = CASE WHEN v.removed THEN 0 ELSE d.revision END,
    external = CASE WHEN v.removed THEN NULL ELSE coalesce(d.external, v.external) END,
    reached = CASE WHEN v.removed THEN NULL ELSE coalesce(v.reached, d.reached) END,
    intent = CASE WHEN v.sent THEN NULL ELSE d.intent END,
    made_by = CASE WHEN v.removed THEN NULL ELSE coalesce(v.made_by, d.made_by) END,
    -- A person's word to the brake is used up: a later change counts again.
    passed_at = CASE WHEN v.state IN ('done', 'gone') AND v.seen >= d.marked THEN NULL ELSE d.passed_at END,
    check_name = v.check_name, disputed = v.disputed, account = coalesce(v.account, d.account),
    -- A person's release of fields that were changed in the ERP is used up, and that of a deletion.
    decisions = CASE WHEN v.state IN ('done', 'gone') AND NOT (v.more OR v.partly)
        THEN (d.decisions - 'overruled' - 'overruled_of') #- '{{released,deleted}}' ELSE d.decisions END
FROM {rows_as("v", _COLUMNS)}
-- A document that went to another unit during a mere look is looked at there.
WHERE d.type = v.type AND d.key = v.key AND (v.sent OR d.intent IS NOT NULL OR d.unit = v.unit)
RETURNING d.type, d.key
"""  # noqa: S608  our own names


def _row(one: Entry, outcome: Outcome, has_come: bool) -> dict[str, Any]:
    """What is written of an outcome, by the names of `_COLUMNS`."""
    sent = outcome.sent
    gross, currency = one.money or (None, None)
    return {
        "type": one.ref.type,
        "key": one.ref.key,
        "state": outcome.state,
        "reason": outcome.reason or None,
        "next_step": outcome.next_step or None,
        "cause": outcome.cause,
        "waits_for": str(outcome.waits_for) if outcome.waits_for else None,
        "attempts": outcome.attempts,
        "seen": (sent.marked if sent else one.marked) - outcome.more,
        "again": 0.0 if outcome.state is State.WAITS and has_come else outcome.again,
        "sent": sent is not None,
        "removed": sent is not None and sent.verb == "remove",
        "number": sent.record["fields"].get("number") if sent else one.shown,
        "reference": outcome.reference or None,
        "fingerprint": sent.fingerprint if sent else _agreed(one, outcome),
        "reached": outcome.reached or None,
        "by_hand": outcome.by_hand or None,
        "gross": None if gross is None else str(gross),
        "currency": currency,
        "planned": [command.to_json() for command in outcome.commands] or None,
        "needed": one.needed,
        "made_by": one.made_by if sent or (one.applied and outcome.state is State.DONE) else None,
        "check_name": outcome.check,
        "disputed": {"version": one.version, "fields": outcome.disputed} if outcome.check else None,
        "account": outcome.account or None,
        "external": outcome.external or None,
        "more": outcome.more,
        "still": outcome.still,
        "unit": one.unit,
        "partly": _is_partly(outcome),
    }


def _has_arrived(outcome: Outcome) -> bool:
    """Whether others that waited for it may look again. Nothing waits for a price, and prices come by hundreds."""
    if outcome.sent:
        return str(outcome.sent.record["kind"]) != "price"
    return bool(outcome.account or outcome.by_hand)


def _is_partly(outcome: Outcome) -> bool:
    """Whether a part of the change was sent, and the rest is still held."""
    return outcome.sent is not None and outcome.sent.noted is not None


def _agreed(one: Entry, outcome: Outcome) -> str | None:
    """The document's identity if shop and ERP agree, else None."""
    return one.identity if one.applied and outcome.state is State.DONE else None


def _waited_for(given: Given) -> set[DocumentRef]:
    """The documents that others wait for from now on."""
    return {outcome.waits_for for _, outcome in given if outcome.waits_for and outcome.state is State.WAITS}


def _come(cursor: Cursor, waited_for: Collection[DocumentRef]) -> set[DocumentRef | None]:
    """Those of the documents waited for that have arrived since the look."""
    return {ref for ref, other in entries_of(cursor, waited_for).items() if other.arrived}


TELLS_AT: Final = 10
"""After so many attempts a person is told: what has failed this often will not go away by itself."""


def _events(given: Given) -> list[Event]:
    """The lines of history for these outcomes."""
    found: list[Event] = []
    for one, outcome in given:
        if outcome.sent:
            sent, place = outcome.sent, _place(one, outcome.sent)
            found.append(Event(one.ref, sent.verb, outcome.reference, outcome.command, outcome.reached, place))
        if outcome.account and outcome.account != one.account:
            found.append(Event(one.ref, "account", outcome.told, place=one.place))
        if outcome.by_hand:
            found.append(Event(one.ref, "done by hand", outcome.told, place=one.place))
        held = outcome.state is State.HELD and not (one.state is State.HELD or one.still_held)
        tried = outcome.state is State.RETRY and outcome.attempts != one.attempts and outcome.attempts in (1, TELLS_AT)
        if held or tried:
            tried_step, command = (None, None) if outcome.sent else (one.intent, outcome.command)
            found.append(Event(one.ref, outcome.state, outcome.reason or "", command, place=_place(one, tried_step)))
    return found


def _place(one: Entry, intent: Intent | None) -> Place | None:
    return Place(intent.generation, LSN(intent.lsn)) if intent and intent.lsn else one.place


def save(cursor: Cursor, ref: DocumentRef, **columns: Any) -> None:
    """Writes columns of one document."""
    names = ", ".join(f"{name} = %s" for name in columns)
    values = [Json(value) if isinstance(value, dict) else value for value in columns.values()]
    cursor.execute(f"UPDATE document SET {names} WHERE type = %s AND key = %s", (*values, *ref))  # noqa: S608


def use_up(cursor: Cursor, one: Entry, left: dict[str, Any]) -> None:
    """Leaves only these of a person's decisions, unless the person has decided something since the entry was read."""
    cursor.execute(
        "UPDATE document SET decisions = %s WHERE type = %s AND key = %s AND decisions = %s",
        (Json(left), *one.ref, Json(one.decisions)),
    )
    one.decisions = left


def counts(cursor: Cursor) -> dict[tuple[str, str], int]:
    """(type, state) → number of documents. One that was marked again counts as due. Only open documents are counted,
    which are few; the others are done."""
    cursor.execute(
        "SELECT type, CASE WHEN seen < marked AND state <> 'held' THEN 'due' ELSE state END, count(*)"
        " FROM document WHERE state <> 'done' OR seen < marked GROUP BY 1, 2"
        " UNION ALL SELECT type, 'done', documents FROM document_total ORDER BY 1, 2"
    )
    found = {(type_, state): count for type_, state, count in cursor.fetchall()}
    for (type_, state), count in found.items():
        if state != State.DONE:
            found[type_, State.DONE] -= count
    return {key: count for key, count in found.items() if count}
