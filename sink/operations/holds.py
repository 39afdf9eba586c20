"""What waits for a person, and another look at it."""

from __future__ import annotations

from typing import get_args

from schemas.errors import SettingsError
from sink.database import Connection, transaction
from sink.documents.refs import DocumentRef
from sink.erp.contract import Cause
from sink.ledger import documents, marks
from sink.ledger.documents import Held
from sink.planning.policy import Check


def held(connection: Connection) -> list[Held]:
    """Held documents, and those that wait for them, oldest first."""
    with transaction(connection) as cursor:
        return documents.held(cursor)


def retry(connection: Connection, ref: DocumentRef | None) -> int:
    """Has one document looked at again, or all that wait; how many. SettingsError when there is no such one."""
    with transaction(connection) as cursor:
        count = marks.retry(cursor, ref)
    if not count and ref is not None:
        raise SettingsError(
            f"there is no {ref}, or it is ignored", "`sink held` shows type and key; `sink ignore --undo`"
        )
    return count


def retry_by(connection: Connection, cause: str) -> int:
    """Has all documents that are held for a cause, or for a check, looked at again; how many."""
    known = {*get_args(Cause), *Check}
    if cause not in known:
        raise SettingsError(f"there is no cause {cause}", f"one of {', '.join(sorted(known))}")
    with transaction(connection) as cursor:
        return marks.retry_by(cursor, cause)


def retry_everything(connection: Connection, execute: bool) -> int:
    """Has all documents looked at again, those that are done too, if `execute`; how many there are."""
    with transaction(connection) as cursor:
        return marks.retry_everything(cursor, execute)
