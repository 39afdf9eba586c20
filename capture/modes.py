"""When a start takes a snapshot, in Debezium's words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from capture.position import Position
from schemas.errors import SettingsError

Mode = Literal["initial", "initial_only", "no_data", "when_needed", "always"]
Step = Literal["snapshot", "stream", "end"]


class SnapshotOptions(NamedTuple):
    """What the settings say of the initial snapshot.

    `included` are the tables (schema.table) that it reads, empty: all that are captured. `overrides` are SELECTs that
    it reads in place of whole tables. `threads` are processes.
    """

    mode: Mode
    threads: int
    lock_timeout_ms: int
    included: frozenset[str]
    overrides: Mapping[str, str]


def next_step(mode: Mode, position: Position | None, problem: SettingsError | None, taken: bool) -> Step:
    """What this start does: take a snapshot (no_data: only make the slot), stream from its position, or end.

    `problem` says why the position cannot be streamed from; it is raised unless the mode mends it with a new snapshot.
    `taken`: this process has taken a snapshot already. A snapshot that was not finished is begun again as a whole, at a
    new slot: rows of its `tables_done` are at a point that no other reader can see any more, and the log since then
    is kept only by its slot.
    """
    if position is None or unfinished(position):
        return "snapshot"
    if mode == "initial_only":
        return "end"
    if mode == "always" and not taken:
        return "snapshot"
    if problem is None:
        return "stream"
    if mode in ("when_needed", "always"):
        return "snapshot"
    raise problem


def unfinished(position: Position) -> bool:
    """Whether a snapshot was begun and not completed."""
    return position.snapshot is not None and position.snapshot.state == "running"
