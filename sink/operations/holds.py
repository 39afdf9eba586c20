"""What waits, why, and what it comes to; and another look at it."""

from __future__ import annotations

from typing import Final

from schemas.model.errors import SettingsError
from sink.database import Connection, transaction
from sink.documents.refs import DocumentRef
from sink.ledger import listed, marks
from sink.ledger.listed import CAUSES, HeldGroup
from sink.planning.policy import Check

WORDS: Final = (*CAUSES, *Check)
"""By which people name many documents at once: a cause, or the check that held ones did not pass."""


def held(connection: Connection, word: str = "", limit: int = 20) -> list[HeldGroup]:
    """What is held, waits for that, or is tried again, by cause and reason; of each the oldest, at most `limit`.

    `word`: a cause or a check alone; SettingsError for another word.
    """
    with transaction(connection) as cursor:
        return listed.held(cursor, word and known(word), limit)


def known(word: str) -> str:
    """A word that names many documents at once: what they wait for, or the check that they did not pass."""
    if word not in WORDS:
        hint = f"a cause: {', '.join(CAUSES)}; or a check: {', '.join(Check)}"
        raise SettingsError(f"there is no cause or check {word}", hint)
    return word


def retry(connection: Connection, ref: DocumentRef | None) -> int:
    """Has one document looked at again, or all that wait; how many. SettingsError when there is no such one."""
    with transaction(connection) as cursor:
        count = marks.retry(cursor, ref)
    if not count and ref is not None:
        raise SettingsError(
            f"there is no {ref}, or it is ignored", "`sink held` shows type and key; `sink ignore --undo`"
        )
    return count


def retry_by(connection: Connection, word: str) -> int:
    """Has all documents that wait for a cause, or are held for a check, looked at again; how many."""
    with transaction(connection) as cursor:
        return marks.retry_by(cursor, known(word))


def retry_everything(connection: Connection, execute: bool) -> int:
    """Has all documents looked at again, those that are done too, if `execute`; how many there are."""
    with transaction(connection) as cursor:
        return marks.retry_everything(cursor, execute)
