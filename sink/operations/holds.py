"""What waits, why, and what it comes to; and another look at it."""

from __future__ import annotations

from typing import get_args

from schemas.errors import SettingsError
from sink.database import Connection, transaction
from sink.documents.refs import DocumentRef
from sink.erp.contract import Cause
from sink.ledger import listed, marks
from sink.ledger.listed import CAUSES, HeldGroup
from sink.planning.policy import Check


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
