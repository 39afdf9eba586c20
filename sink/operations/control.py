"""`sink pause` and `sink resume`."""

from __future__ import annotations

from typing import Final

from schemas.model.errors import SettingsError
from sink.database import Connection, transaction
from sink.documents.refs import DocumentRef
from sink.ledger import control, history
from sink.ledger.control import Word

APPLYING: Final = DocumentRef("applying", "all")
"""The name in the history for applying as a whole."""


def pause(connection: Connection, person: str, reason: str) -> None:
    """From now on no sink writes an intent. Calls whose intent is written are still made. Staging goes on.

    SettingsError if applying is paused already.
    """
    with transaction(connection) as cursor:
        if not control.say(cursor, "pause", person, reason):
            raise SettingsError(
                f"applying is paused already {control.read(cursor).paused}", "`sink resume --person NAME` resumes it"
            )
        history.note(cursor, APPLYING, "paused", reason, person)


def resume(connection: Connection, person: str) -> Word:
    """Ends the pause, and returns it. SettingsError if applying is not paused."""
    with transaction(connection) as cursor:
        word = control.read(cursor).paused
        if word is None or not control.take_back(cursor, "pause"):
            raise SettingsError(
                "applying is not paused", "`sink status` says what else may keep documents from the ERP"
            )
        history.note(cursor, APPLYING, "resumed", f"paused {word}", person)
    return word
