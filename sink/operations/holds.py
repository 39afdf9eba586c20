"""`sink held` and `sink retry`."""

from __future__ import annotations

from typing import Final

from schemas.model.errors import SettingsError
from sink.database import Connection, transaction
from sink.documents.refs import DocumentRef
from sink.ledger import listed, marks
from sink.ledger.listed import CAUSES, HeldGroup
from sink.planning.policy import Check

WORDS: Final = (*CAUSES, *Check)
"""Words for many documents at once: a cause, or a check that held documents did not pass."""


def held(connection: Connection, word: str = "", limit: int = 20) -> list[HeldGroup]:
    """What is held, waits or is tried again, by cause and reason, with the `limit` oldest documents of each.

    `word`: only this cause or check; SettingsError for any other word.
    """
    with transaction(connection) as cursor:
        return listed.held(cursor, word and known(word), limit)


def known(word: str) -> str:
    """Returns `word` if it is one of WORDS; SettingsError if not."""
    if word not in WORDS:
        hint = f"a cause: {', '.join(CAUSES)}; or a check: {', '.join(Check)}"
        raise SettingsError(f"there is no cause or check {word}", hint)
    return word


def retry(connection: Connection, ref: DocumentRef | None) -> int:
    """Marks one document, or all that wait, and returns how many. SettingsError if there is no such document."""
    with transaction(connection) as cursor:
        count = marks.retry(cursor, ref)
    if not count and ref is not None:
        raise SettingsError(
            f"there is no {ref}, or it is ignored", "`sink held` shows type and key; `sink ignore --undo` ends ignoring"
        )
    return count


def retry_by(connection: Connection, word: str) -> int:
    """Marks all documents that wait for a cause or are held for a check, and returns how many."""
    with transaction(connection) as cursor:
        return marks.retry_by(cursor, known(word))


def retry_everything(connection: Connection, execute: bool) -> int:
    """Marks all documents, even those that are done, if `execute`. Returns how many there are."""
    with transaction(connection) as cursor:
        return marks.retry_everything(cursor, execute)
