"""When a start takes a snapshot, in Debezium's words. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Literal, NamedTuple

from capture.checks import NotOursError
from capture.demand import Demand, Request
from capture.position import Position
from capture.selection import Pattern
from schemas.model.errors import SettingsError

Mode = Literal["initial", "initial_only", "no_data", "when_needed", "always"]
Step = Literal["snapshot", "stream", "end"]


class SnapshotOptions(NamedTuple):
    """The settings of the initial snapshot. `included`: matches tables (schema.table) to read; empty: all captured
    ones. `overrides`: SELECTs to read in place of whole tables. `threads`: processes."""

    mode: Mode
    threads: int
    lock_timeout_ms: int
    included: tuple[Pattern, ...]
    overrides: Mapping[str, str]


def next_step(mode: Mode, position: Position | None, problem: SettingsError | None, taken: bool) -> Step:
    """What this start does: take a snapshot (no_data: only make the slot), stream from its position, or end.

    `problem`: why the position cannot be streamed from. It is raised unless the mode fixes it with a new snapshot, and
    always if that would drop another reader's slot. `taken`: this process has taken a snapshot already.
    """
    if isinstance(problem, NotOursError):
        raise problem
    if position is None or unfinished(position):
        return "snapshot"
    if mode == "initial_only":  # the rest of a snapshot is only read while streaming
        return "snapshot" if any(request.first for request in position.demand.requests) else "end"
    if mode == "always" and not taken:
        return "snapshot"
    if problem is None:
        return "stream"
    if mode in ("when_needed", "always"):
        return "snapshot"
    raise problem


def unfinished(position: Position) -> bool:
    """Whether a snapshot was begun and not completed."""
    return position.snapshot is not None and position.snapshot.state != "completed"


def with_rest(position: Position, problem: SettingsError | None, keyed: Mapping[str, bool]) -> Position | None:
    """A position that streams from the consistent point of a snapshot that a crash ended, and reads what it had left.

    The exported snapshot is gone with its connection, and ctid says nothing without it: each table that was not done is
    read again, in chunks of its key, while streaming goes on. `keyed` are the tables that the snapshot reads, and
    whether each can be read so; None when one that is left cannot, or the slot is not there: then all begins again.
    """
    snapshot = position.snapshot
    if snapshot is None or snapshot.state != "running" or problem is not None:
        return None
    left = [name for name in keyed if name not in snapshot.tables_done]
    if not all(keyed[name] for name in left):
        return None
    scope = tuple((name, None) for name in left)
    rest = Request(str(uuid.uuid4()), position.end_lsn, scope, scope, first=(snapshot.id, snapshot.tables_done))
    return position._replace(
        snapshot=snapshot._replace(state="completed", tables_done={}, workers=0), demand=Demand((rest,))
    )
