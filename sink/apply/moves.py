"""Recognizes a document whose key the shop has changed, so that the ERP gets no second one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from typing import Final

from sink.apply.desired import Desired, Known, OnlyCancelled
from sink.apply.rules import Rules
from sink.apply.sending import Sending
from sink.database import Connection, transaction
from sink.documents.models import Document, Missing
from sink.documents.records import fingerprint, same_identity
from sink.documents.refs import DocumentRef
from sink.ledger import accounts, documents, leases, marks, moves
from sink.ledger.documents import Entry
from sink.ledger.leases import Lease
from sink.ledger.outcomes import Outcome, State
from sink.planning.policy import Check, Hold

_MOVED: Final = "the shop changed its key, and it may have been one of these"
_SOON: Final = 1.0  # seconds
_Places = Mapping[DocumentRef, "_Place"]


class _Place(Enum):
    """What the shop has under a document's old key."""

    EMPTY = "nothing, or another document"
    TAKEN = "the document itself"
    UNCLEAR = "nobody can say"


class Moves:
    """Follows changed keys for one worker."""

    def __init__(self, connection: Connection, desired: Desired, sending: Sending, rules: Rules, owner: str) -> None:
        self._connection = connection
        self._desired = desired
        self._sending = sending
        self._rules = rules
        self._owner = owner

    def follow(
        self, leased: list[Lease], entries: Sequence[Entry], built: Mapping[DocumentRef, Known]
    ) -> dict[DocumentRef, Outcome]:
        """Joins new documents with what they were under another key. Returns the outcomes of those that must not be
        created now.

        `leased` gets the leases of the old documents.
        """
        known = {one.ref: built[one.ref] for one in entries if one.ref in built and _is_new(one)}
        sure = {ref: one.order if isinstance(one, OnlyCancelled) else one for ref, one in known.items()}
        new = {ref: fingerprint(one) for ref, one in sure.items() if isinstance(one, Document)}
        if not new:
            return {}
        with transaction(self._connection) as cursor:
            found, logged = moves.former(cursor, new, self._owner)
            olds = documents.entries_of(cursor, {old for some in found.values() for old in some})
        waits = self._waits(leased, entries, found, olds, logged) if found else {}
        if over := logged - waits.keys():
            with transaction(self._connection) as cursor:
                moves.forget(cursor, over)
        return waits

    def _waits(
        self,
        leased: list[Lease],
        entries: Sequence[Entry],
        found: Mapping[DocumentRef, Sequence[DocumentRef]],
        olds: Mapping[DocumentRef, Entry],
        logged: Collection[DocumentRef],
    ) -> dict[DocumentRef, Outcome]:
        """Outcomes of documents that may have had another key; those that go on at once are left out."""
        there = self._desired.build(olds.keys())
        places = {ref: _place(one, there[ref]) for ref, one in olds.items()}
        left = {ref: [old for old in some if places[old] is not _Place.TAKEN] for ref, some in found.items()}
        places |= {
            old: _Place.UNCLEAR
            for ref, some in left.items()
            for old in some
            if ref not in logged and _is_new(olds[old])
        }  # known by its number alone
        waits = self._come_to(leased, entries, {ref: some for ref, some in left.items() if some}, places)
        alone = {ref for ref, some in left.items() if ref not in waits and any(_is_ignored(olds[old]) for old in some)}
        return {**waits, **dict.fromkeys(alone, Outcome.ignored())}

    def hand_over(self, leased: Sequence[Lease], entries: Sequence[Entry]) -> list[Entry]:
        """Moves documents that the shop has given to another order into that order's unit, unless a step of theirs is
        in doubt. Returns the others."""
        leaving = [one for one in entries if one.next_unit and not one.intent]
        if leaving:
            with transaction(self._connection) as cursor:
                moves.hand_over(cursor, leased, leaving)
        return [one for one in entries if one.intent or not one.next_unit]

    def _come_to(
        self,
        leased: list[Lease],
        entries: Sequence[Entry],
        former: Mapping[DocumentRef, Sequence[DocumentRef]],
        places: _Places,
    ) -> dict[DocumentRef, Outcome]:
        doubted = {one.ref for one in entries if one.check == Check.MOVED}
        claimed = Counter(old for some in former.values() for old in some)
        waits: dict[DocumentRef, Outcome] = {}
        for ref, (old, *others) in former.items():
            if others or claimed[old] > 1 or places[old] is _Place.UNCLEAR:
                waits[ref] = self._doubt([old, *others])
            elif self._have(leased, old):
                self._move(leased, entries, old, ref)
            else:
                waits[ref] = _soon(old, ref in doubted)
        return waits

    def _doubt(self, olds: Sequence[DocumentRef]) -> Outcome:
        others = ", ".join(map(str, olds))
        step = (
            "if it is a new document, `sink accept document` for it: the ERP gets a new one; "
            "if it used to be one of these, accept the others like that, then `sink retry`"
        )
        return self._rules.held(Hold(f"{_MOVED}: {others}", step, check=Check.MOVED))

    def _have(self, leased: list[Lease], old: DocumentRef) -> bool:
        """Leases the old document and resolves its step. True: it is ours and no step is in doubt. In a unit that was
        ours before, the step was already asked about, or we sent it ourselves and it may still arrive."""
        with transaction(self._connection) as cursor:
            unit = documents.entries_of(cursor, [old])[old].unit
            had = _has(leased, unit)
            if not had:
                leased += leases.take(cursor, self._owner, self._sending.lease_seconds, [unit])
            one = documents.entries_of(cursor, [old])[old]
        if not _has(leased, unit):
            return False
        self._sending.resolve(leased, [(one, self._desired.in_erp(one))] if one.intent and not had else [])
        return one.intent is None

    def _move(self, leased: Sequence[Lease], entries: Sequence[Entry], old: DocumentRef, new: DocumentRef) -> None:
        with transaction(self._connection) as cursor:
            was = documents.entries_of(cursor, [old])[old]
            if _is_new(was) and not _is_ignored(was):
                return  # the ERP has nothing of it
            marks.take_turns(cursor, [new])
            waiting = marks.waiting_for(cursor, [new])
            leases.prove(cursor, leased, waiting)
            moves.move(cursor, old, new)
            if self._desired.kind(new) == "customer":
                accounts.move(cursor, self._rules.shop, old.key, new.key)
            marks.wake(cursor, [new], waiting)
            now = documents.entries_of(cursor, [old, new])
        for one in entries:
            if one.ref in now:
                one.go_on_as(now[one.ref])


def _soon(old: DocumentRef, doubted: bool) -> Outcome:
    """A document that was held for its key stays held until it goes on, so that a person's answer is still found."""
    reason, step = f"it was {old}, which is processed first", "no action needed"
    if doubted:
        return Outcome.held(reason, step, "decision", _SOON, Check.MOVED)
    return Outcome.settling(reason, step, _SOON)


def _has(leased: Sequence[Lease], unit: str) -> bool:
    return any(one.unit == unit for one in leased)


def _is_new(one: Entry) -> bool:
    return not one.arrived and one.external is None and one.intent is None and one.revision == 0


def _is_ignored(one: Entry) -> bool:
    return one.state is State.IGNORED


def _place(old: Entry, known: Known) -> _Place:
    if isinstance(known, Missing):
        return _Place.EMPTY
    if not isinstance(known, Document):
        return _Place.UNCLEAR
    seen = fingerprint(known)
    sent = old.fingerprint or (old.intent.fingerprint if old.intent else None)
    other = seen is not None and sent is not None and not same_identity(seen, sent)
    return _Place.EMPTY if other else _Place.TAKEN
