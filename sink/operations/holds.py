"""What waits, why, and what it comes to; and another look at it."""

from __future__ import annotations

from schemas.errors import SettingsError
from sink.database import Connection, transaction
from sink.documents.refs import DocumentRef
from sink.ledger import listed, marks
from sink.ledger.listed import CAUSES, HeldGroup


def held(connection: Connection, cause: str = "", limit: int = 20) -> list[HeldGroup]:
    """What is held, waits for that, or is tried again, by cause and reason; of each the oldest, at most `limit`.

    `cause`: one of `CAUSES` alone; SettingsError for another.
    """
    if cause not in ("", *CAUSES):
        raise SettingsError(f"{cause} is no cause", f"say one of {', '.join(CAUSES)}")
    with transaction(connection) as cursor:
        return listed.held(cursor, cause, limit)


def retry(connection: Connection, ref: DocumentRef | None) -> int:
    """Has one document looked at again, or all that wait; how many. SettingsError when there is no such one."""
    with transaction(connection) as cursor:
        count = marks.retry(cursor, ref)
    if not count and ref is not None:
        raise SettingsError(f"there is no {ref}", "`sink held` shows type and key")
    return count
