"""`sink ignore`."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.model.errors import SettingsError
from sink.database import Connection, transaction
from sink.documents.refs import DocumentRef
from sink.ledger import decisions, history, marks
from sink.ledger.decisions import Left
from sink.ledger.outcomes import State
from sink.operations.accept import busy


def leave_alone(connection: Connection, ref: DocumentRef, undo: bool, person: str, execute: bool) -> Sequence[Left]:
    """Ignores a document; if it is an order, also its present and later returns and refunds. `undo` ends that;
    `execute` does it. Returns these documents, with what stays in the ERP. SettingsError if there is nothing to do, or
    a step is under way."""
    with transaction(connection) as cursor:
        found = [one for one in decisions.with_dependants(cursor, ref) if (one.state == State.IGNORED) is undo]
        if not found:
            reason = f"{ref} is not ignored" if undo else f"there is no {ref}, or it is ignored already"
            raise SettingsError(reason, "`sink list --state ignored` shows those that are")
        refs = [one.ref for one in found]
        if execute and marks.ignore(cursor, refs, undo) != len(refs):
            raise busy(next((one.ref for one in found if one.busy), ref))
        for one in refs if execute else ():
            history.note(cursor, one, "ignore undone" if undo else "ignored", "", person)
        return found
