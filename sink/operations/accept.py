"""A person's word for what cannot be had any more: a gap that nothing fills, the end of a first snapshot."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.errors import SettingsError
from sink.database import Connection, transaction
from sink.documents.refs import DocumentRef
from sink.ledger import history, marks
from sink.staging import gaps, snapshots
from sink.staging.gaps import TableGap


def accept_gaps(connection: Connection, table: str, person: str, execute: bool) -> Sequence[TableGap]:
    """The gaps of a table; `execute` ends them, and looks at all held documents again. SettingsError if it has none."""
    with transaction(connection) as cursor:
        found = [gap for gap in gaps.table_gaps(cursor) if gap.table == table]
        if not found:
            raise SettingsError(f"table {table} has no gap", "`sink status` names the tables that have one")
        if execute:
            for gap in found:
                gaps.close_gap(cursor, table, gap.cause)
                history.note(
                    cursor, DocumentRef("table", table), "gap accepted", f"{gap.cause}: {gap.detail}; {person}"
                )
            marks.retry(cursor, None)
    return found


def accept_snapshot(connection: Connection, person: str, execute: bool) -> None:
    """Declares the first snapshot staged as a whole; SettingsError when one is complete already."""
    with transaction(connection) as cursor:
        snapshots.refuse_accepted(cursor)
        if execute:
            snapshots.accept(cursor, person)
            history.note(cursor, DocumentRef("snapshot", "first"), "snapshot accepted", person)
