"""`sink pause`, `sink resume`: what a person's word does to applying as a whole."""

from __future__ import annotations

from collections.abc import Iterator

from sink.database import Connection
from sink.operations import control


def pause(connection: Connection, person: str, reason: str) -> Iterator[str]:
    """That nothing more is sent."""
    control.pause(connection, person, reason)
    yield "paused: no copy of the sink begins another call to the ERP; one that is under way ends, and staging goes on"
    yield "next: `sink resume` when it shall go on"


def resume(connection: Connection, person: str) -> Iterator[str]:
    """That it goes on."""
    yield f"applying goes on; it was paused {control.resume(connection, person)}"
