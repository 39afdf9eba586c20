"""What stops and starts applying as a whole: a person's word, and the brake. Kept here, so that it holds for all copies
of the sink, and through restarts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from sink.database import Cursor


class Word(NamedTuple):
    """What a person has said."""

    person: str
    since: datetime
    reason: str

    def __str__(self) -> str:
        said = f"by {self.person} since {self.since.astimezone():%Y-%m-%d %H:%M:%S %Z}"
        return f"{said}: {self.reason}" if self.reason else said


class Control(NamedTuple):
    """As of one moment. `paused`: nothing is sent, by whose word; `live`: who let a shop in mode `plan` send;
    `stopped`: kinds of changes that the brake has stopped, each with the reason."""

    paused: Word | None = None
    live: Word | None = None
    stopped: Mapping[str, str] = {}


def read(cursor: Cursor) -> Control:
    """In one statement: each worker asks wherever it leases."""
    cursor.execute(
        "SELECT name, person, since, reason FROM control"
        " UNION ALL SELECT kind, NULL, stopped_at, reason FROM brake WHERE stopped_at IS NOT NULL ORDER BY 1"
    )
    rows = cursor.fetchall()
    said = {name: Word(person, since, reason) for name, person, since, reason in rows if person is not None}
    stopped = {kind: reason for kind, person, _, reason in rows if person is None}
    return Control(said.get("pause"), said.get("live"), stopped)


def is_paused(cursor: Cursor) -> bool:
    """Whether nothing may be sent now."""
    cursor.execute("SELECT EXISTS (SELECT FROM control WHERE name = 'pause')")
    return bool((cursor.fetchone() or (False,))[0])


def say(cursor: Cursor, name: str, person: str, reason: str = "") -> bool:
    """Writes a person's word down; False: it was said before, and that one stays."""
    cursor.execute(
        "INSERT INTO control (name, person, reason) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING", (name, person, reason)
    )
    return bool(cursor.rowcount)


def take_back(cursor: Cursor, name: str) -> bool:
    """Whether there was one to take back."""
    cursor.execute("DELETE FROM control WHERE name = %s", (name,))
    return bool(cursor.rowcount)
