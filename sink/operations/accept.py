"""A person's word for what cannot be had any more: a gap that nothing fills, the end of a first snapshot."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.errors import SettingsError
from sink.database import Connection, transaction
from sink.documents.refs import DocumentRef
from sink.intake import evidence
from sink.intake.evidence import SKIPPED
from sink.ledger import history, marks
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
                history.note(cursor, DocumentRef("table", table), "gap accepted", f"{detail}; {person}")
            marks.retry(cursor, None)
    return said


def accept_snapshot(connection: Connection, person: str, execute: bool) -> None:
    """Declares the first snapshot staged as a whole; SettingsError when one is complete already."""
    with transaction(connection) as cursor:
        snapshots.refuse_accepted(cursor)
        if execute:
            snapshots.accept(cursor, person)
            history.note(cursor, DocumentRef("snapshot", "first"), "snapshot accepted", person)
