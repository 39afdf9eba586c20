"""`sink accept gap`, `snapshot` and `document`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from enum import Enum
from typing import NamedTuple

from schemas.model.errors import SettingsError
from sink.database import Connection, transaction
from sink.documents.records import from_json, to_json
from sink.documents.refs import DocumentRef
from sink.intake import evidence
from sink.intake.evidence import SKIPPED
from sink.ledger import decisions, documents, history, marks
from sink.ledger.decisions import Asked
from sink.planning.decisions import Decisions, as_written, disputed_from_json
from sink.planning.policy import Check, Disputed
from sink.planning.ways_out import Way, ways
from sink.staging import gaps, parked, snapshots


def accept_gaps(connection: Connection, table: str, topic: str, person: str, execute: bool) -> Sequence[str]:
    """The gaps of a table and the skipped offsets of its topic, each with its cause. `execute` closes them, and marks
    all documents that wait for anything (`marks.retry`). SettingsError if there are none."""
    with transaction(connection) as cursor:
        found = [gap for gap in gaps.table_gaps(cursor) if gap.table == table]
        skipped = [gap for gap in evidence.open_gaps(cursor) if gap.cause == SKIPPED and gap.partition.topic == topic]
        said = [f"{gap.cause}: {gap.detail}" for gap in found]
        said += [f"skipped: offsets {one.range.start} to {one.range.until - 1} of {one.partition}" for one in skipped]
        if not said:
            raise SettingsError(f"table {table} has no gap", "`sink status` names the tables that have one")
        if execute:
            for gap in found:
                gaps.close_gap(cursor, table, gap.cause)
            parked.let_go(cursor, table)
            evidence.close_skipped(cursor, [topic])
            for detail in said:
                history.note(cursor, DocumentRef("table", table), "gap accepted", detail, person)
            marks.retry(cursor, None)
    return said


def accept_snapshot(connection: Connection, person: str, execute: bool) -> None:
    """`execute` declares the first snapshot complete. SettingsError if one is complete already."""
    with transaction(connection) as cursor:
        snapshots.refuse_accepted(cursor)
        if execute:
            snapshots.accept(cursor, person)
            history.note(cursor, DocumentRef("snapshot", "first"), "snapshot accepted", person=person)


class Accepted(Enum):
    """What accepting means for the document."""

    SAME = "accepted as the order that was sent under this key; what differs is sent, as the rules allow"
    NEW = "accepted as a new order: the ERP gets a document of its own for it"
    FIELDS = "accepted in these fields, until either side changes them; everything else is sent as usual"
    KEPT = "accepted as the ERP has it, until the shop changes it"
    NOT = "compared again: nothing of it is accepted any longer"


class AcceptedDocument(NamedTuple):
    """What was accepted: the fields with both values, and their currency if they have one."""

    taken_for: Accepted
    fields: tuple[Disputed, ...] = ()
    currency: str | None = None


def accept_document(connection: Connection, ref: DocumentRef, person: str, execute: bool) -> AcceptedDocument:
    """Accepts a held document, by its check: as the one that was sent under its key, as a new one, in the fields that
    differ, or as the ERP has it. `execute` does it. SettingsError if the check does not allow it
    (`planning.ways_out`)."""
    with transaction(connection) as cursor:
        if execute:
            marks.look_at(cursor, [ref])  # no worker can take it from here on
        found = to_decide(decisions.asked(cursor, ref), ref, Way.ACCEPT)
        taken = _taken(found, ref, person)
        if not execute:
            return taken
        if taken.taken_for is Accepted.SAME:
            marks.accept(cursor, ref)
        elif taken.taken_for is Accepted.NEW:
            marks.as_new(cursor, ref)
        else:
            said = Decisions.from_json(found.decisions).accepting(taken.fields)
            kept = found.version if taken.taken_for is Accepted.KEPT else said.kept
            documents.save(cursor, ref, decisions=replace(said, kept=kept).to_json())
        history.note(cursor, ref, "document accepted", found.reason or "", person)
        return taken


def undo_accept(connection: Connection, ref: DocumentRef, person: str, execute: bool) -> AcceptedDocument:
    """Deletes what was accepted, so that it is compared again. `execute` does it. SettingsError if nothing is
    accepted."""
    with transaction(connection) as cursor:
        if execute:
            marks.look_at(cursor, [ref])
        found = decisions.asked(cursor, ref)
        said = Decisions.from_json(found.decisions if found else None)
        if found is None or not (said.fields or said.kept):
            raise SettingsError(f"{ref} has nothing accepted", "`sink accept document` accepts what is held")
        if found.busy:
            raise busy(ref)
        if execute:
            applied = found.applied and to_json(as_written(from_json(found.applied), said.fields))
            left = replace(said, fields=(), kept="")
            documents.save(cursor, ref, decisions=left.to_json(), applied=applied)
            history.note(cursor, ref, "accept undone", "", person)
        return AcceptedDocument(Accepted.NOT, said.fields, currency_of(found))


def to_decide(found: Asked | None, ref: DocumentRef, way: Way) -> Asked:
    """Checks that this verb can end the document's hold. SettingsError with the verbs that can."""
    if found is None or found.state != "held":
        raise SettingsError(f"{ref} is not held", "`sink held` says what is held, and for what")
    can = ways(found.check, found.applied is not None)
    if way not in can:
        if way in ways(found.check, in_erp=True):
            raise SettingsError(
                f"the ERP does not have {ref}, so nothing can stay there",
                f"`sink ignore {ref} --person NAME` leaves it alone",
            )
        others = ", ".join(f"`sink {one}`" for one in can)
        name = f"for check `{found.check}`" if found.check else "by an earlier release"
        raise SettingsError(
            f"{ref} is held {name}, which `sink {way}` cannot clear", f"fix it; commands that clear it: {others}"
        )
    if found.under_way:
        raise busy(ref)
    return found


def busy(ref: DocumentRef) -> SettingsError:
    """The error for a document that a worker has, or that has a step in doubt."""
    step = f"try again in a moment; `sink show {ref}` says whether the ERP cannot tell what became of it"
    return SettingsError(f"a step of {ref} is under way", step)


def _taken(found: Asked, ref: DocumentRef, person: str) -> AcceptedDocument:
    if found.check == Check.IDENTITY:
        return AcceptedDocument(Accepted.SAME)
    if found.check == Check.MOVED:
        return AcceptedDocument(Accepted.NEW)
    if found.fields:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        fields = tuple(one._replace(by=person, at=at) for one in disputed_from_json(found.fields))
        return AcceptedDocument(Accepted.FIELDS, fields, currency_of(found))
    if not found.version:
        raise SettingsError(f"{ref} could not be built", f"`sink retry {ref}`, then try again")
    return AcceptedDocument(Accepted.KEPT)


def currency_of(found: Asked) -> str | None:
    """The currency of the document as the ERP was given it."""
    value = from_json(found.applied).fields.get("currency") if found.applied else None
    return value if isinstance(value, str) else None
