"""A person's word for what nobody else can say: that a gap stays, that a first snapshot is complete, that a
document is the one that it was, or is settled."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final

from schemas.errors import SettingsError
from sink.apply.desired import ANOTHER_IDENTITY
from sink.apply.moves import MOVED
from sink.database import Connection, transaction
from sink.documents.refs import DocumentRef
from sink.intake import evidence
from sink.intake.evidence import SKIPPED
from sink.ledger import documents, history, marks
from sink.staging import gaps, parked, snapshots


def accept_gaps(connection: Connection, table: str, topic: str, person: str, execute: bool) -> Sequence[str]:
    """The gaps of a table and the offsets that were skipped of its topic, each with its cause; `execute` ends them, and
    looks at all held documents again. SettingsError if there are none."""
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
    """Declares the first snapshot staged as a whole; SettingsError when one is complete already."""
    with transaction(connection) as cursor:
        snapshots.refuse_accepted(cursor)
        if execute:
            snapshots.accept(cursor, person)
            history.note(cursor, DocumentRef("snapshot", "first"), "snapshot accepted", person=person)


class Accepted(Enum):
    """What a document is taken for."""

    SAME = "the order that was sent under this key; the ERP gets what differs, as the rules allow"
    NEW = "a new one: the ERP gets a document for it"
    SETTLED = "settled as the ERP has it, until the shop changes it again"


def accept_document(connection: Connection, ref: DocumentRef, person: str, execute: bool) -> Accepted:
    """Takes a document that is held for a decision for what it is held about: the one that was sent under its key, or a
    new one where it may be one of another key; else for settled. `execute` does it. SettingsError if it is held for no
    decision."""
    with transaction(connection) as cursor:
        held = [one for one in documents.held(cursor) if (one.type, one.key, one.cause) == (*ref, "decision")]
        if not held:
            raise SettingsError(f"{ref} is not held for a decision", "`sink held` says what is held, and for what")
        reason = held[0].reason or ""
        taken = _taken(reason)
        if execute:
            if not _WRITES[taken](cursor, ref):
                raise SettingsError(f"a step of {ref} is under way", "look it up in the ERP, then `sink retry`")
            history.note(cursor, ref, "document accepted", reason, person)
    return taken


_WRITES: Final = {Accepted.SAME: marks.accept, Accepted.NEW: marks.as_new, Accepted.SETTLED: marks.settle}


def _taken(reason: str) -> Accepted:
    if reason == ANOTHER_IDENTITY:
        return Accepted.SAME
    return Accepted.NEW if reason.startswith(MOVED) else Accepted.SETTLED
