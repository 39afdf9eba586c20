"""`sink go-live`, `sink pause`, `sink resume`: what a person's word does to applying as a whole."""

from __future__ import annotations

from collections.abc import Iterator

from sink.commands import plan
from sink.database import Connection
from sink.operations import control
from sink.operations.go_live import GoesLive


def pause(connection: Connection, person: str, reason: str) -> Iterator[str]:
    """That nothing more is sent."""
    control.pause(connection, person, reason)
    yield "paused: no copy of the sink begins another call to the ERP; one that is under way ends, and staging goes on"
    yield "next: `sink resume --person NAME` when it shall go on"


def resume(connection: Connection, person: str) -> Iterator[str]:
    """That it goes on."""
    yield f"applying goes on; it was paused {control.resume(connection, person)}"


def go_live(found: GoesLive, execute: bool) -> Iterator[str]:
    """What is sent by it."""
    yield from plan.sums(found.planned)
    for cause, count in sorted(found.held.items()):
        yield f"{count} held or waiting ({cause}): they go when that is settled, see `sink held`"
    if found.due:
        yield f"{found.due} are not planned yet"
    yield "they go to the ERP now, and all that follows" if execute else "nothing was changed; --execute sends it"
