"""What waits for a person, and another look at it."""

from __future__ import annotations

from schemas.errors import SettingsError
from sink.database import Connection, transaction
from sink.documents.refs import DocumentRef
from sink.ledger import documents, marks
from sink.ledger.documents import Held


def held(connection: Connection) -> list[Held]:
    """Held documents, and those that wait for them, oldest first."""
    with transaction(connection) as cursor:
        return documents.held(cursor)


def retry(connection: Connection, ref: DocumentRef | None) -> int:
    """Has one document looked at again, or all that wait; how many. SettingsError when there is no such one."""
    with transaction(connection) as cursor:
        count = marks.retry(cursor, ref)
    if not count and ref is not None:
        raise SettingsError(f"there is no {ref}", "`sink held` shows type and key")
    return count
