"""What stops and starts applying as a whole: pause, go-live, and the brake. Kept in the middle layer, so that it holds
for all processes and outlasts restarts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from sink.database import Cursor


class Word(NamedTuple):
    """A person's pause or go-live."""

    person: str
    since: datetime
    reason: str

    def __str__(self) -> str:
        said = f"by {self.person} since {self.since.astimezone():%Y-%m-%d %H:%M:%S %Z}"
        return f"{said}: {self.reason}" if self.reason else said


class Control(NamedTuple):
    """Read in one statement. `paused`: who paused; `live`: who let a shop in `mode: plan` send; `stopped`: the kinds of
    changes that the brake has stopped, with the reason."""

    paused: Word | None = None
    live: Word | None = None
    stopped: Mapping[str, str] = {}


def read(cursor: Cursor) -> Control:
    """Reads it. Cheap, since each worker asks before each lease."""
    cursor.execute(
        "SELECT name, person, since, reason FROM control"
        " UNION ALL SELECT kind, NULL, stopped_at, reason FROM brake WHERE stopped_at IS NOT NULL ORDER BY 1"
    )
    rows = cursor.fetchall()
    said = {name: Word(person, since, reason) for name, person, since, reason in rows if person is not None}
    stopped = {kind: reason for kind, person, _, reason in rows if person is None}
    return Control(said.get("pause"), said.get("live"), stopped)


def is_paused(cursor: Cursor) -> bool:
    """Whether a person has paused applying."""
    cursor.execute("SELECT EXISTS (SELECT FROM control WHERE name = 'pause')")
    return bool((cursor.fetchone() or (False,))[0])


def is_live(cursor: Cursor) -> bool:
    """Whether a person has let the shop send. Nobody can say so from now until the caller's transaction ends, so those
    who hear of it find what the transaction has written."""
    cursor.execute("LOCK TABLE control IN SHARE MODE; SELECT EXISTS (SELECT FROM control WHERE name = 'live')")
    return bool((cursor.fetchone() or (False,))[0])


def say(cursor: Cursor, name: str, person: str, reason: str = "") -> bool:
    """Writes a pause or go-live. False: there was one already, which stays."""
    cursor.execute(
        "INSERT INTO control (name, person, reason) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING", (name, person, reason)
    )
    return bool(cursor.rowcount)


def take_back(cursor: Cursor, name: str) -> bool:
    """Deletes a pause or go-live. False: there was none."""
    cursor.execute("DELETE FROM control WHERE name = %s", (name,))
    return bool(cursor.rowcount)
