"""The history of documents, for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, get_args

from schemas.model.lsn import LSN
from sink.database import Cursor, as_json, rows_as
from sink.documents.refs import DocumentRef
from sink.erp.commands import Command
from sink.erp.contract import Verb


def note(cursor: Cursor, ref: DocumentRef, event: str, detail: str = "", person: str = "") -> None:
    """Writes a line of history. `person`: who did it, "" for the sink."""
    cursor.execute(
        "INSERT INTO history (type, key, event, detail, person) VALUES (%s, %s, %s, %s, %s)",
        (*ref, event, detail, person),
    )


class Place(NamedTuple):
    """A position in the shop's log, where the copy stood."""

    generation: int
    lsn: LSN


class Event(NamedTuple):
    """A line to be written. `detail`: the document's number in the ERP, or why the step was not done; `reached`: the
    ERP's milestone afterwards; `place`: where the copy stood when the step was planned, None if not known."""

    ref: DocumentRef
    event: str
    detail: str = ""
    command: Command | None = None
    reached: str = ""
    place: Place | None = None
    person: str = ""


_LINE: Final = {
    "type": "text", "key": "text", "event": "text", "detail": "text", "command": "jsonb", "reached": "text",
    "person": "text", "generation": "bigint", "lsn": "numeric",
}  # fmt: skip
_LINES: Final = f"INSERT INTO history ({', '.join(_LINE)}) SELECT * FROM {rows_as('v', _LINE)}"  # noqa: S608


def note_all(cursor: Cursor, events: Sequence[Event]) -> None:
    """Writes lines of history, in one statement."""
    if events:
        cursor.execute(_LINES, (as_json([_line(one) for one in events]),))


def _line(one: Event) -> dict[str, Any]:
    generation, lsn = one.place or (None, None)
    return {
        "type": one.ref.type,
        "key": one.ref.key,
        "event": one.event,
        "detail": one.detail,
        "command": one.command and one.command.to_json(),
        "reached": one.reached,
        "person": one.person,
        "generation": generation,
        "lsn": lsn,
    }


def last_step(cursor: Cursor, ref: DocumentRef) -> str:
    """The verb of the last step that the ERP has done for a document; "" for none."""
    cursor.execute(
        "SELECT event FROM history WHERE (type, key) = (%s, %s) AND event = ANY(%s) ORDER BY id DESC LIMIT 1",
        (*ref, list(get_args(Verb))),
    )
    row = cursor.fetchone()
    return str(row[0]) if row else ""


class HistoryLine(NamedTuple):
    """A line of history. `person`: who did it, "" for the sink."""

    at: datetime
    event: str
    person: str
    place: Place | None
    command: Command | None
    reached: str
    detail: str


def lines(cursor: Cursor, ref: DocumentRef) -> list[HistoryLine]:
    """The history of a document, oldest first."""
    cursor.execute(
        "SELECT at, event, person, generation, lsn, command, reached, detail FROM history"
        " WHERE (type, key) = (%s, %s) ORDER BY id",
        tuple(ref),
    )
    return [
        HistoryLine(at, event, person, None if lsn is None else Place(generation, LSN(int(lsn))),
             Command.from_json(command) if command else None, reached, detail)
        for at, event, person, generation, lsn, command, reached, detail in cursor.fetchall()
    ]  # fmt: skip
