"""Whether streaming from a position would lose or double changes. Errors say what happened, what may be missing and
how to fix it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from capture.position import SHAPES_RECORDS, InitialSnapshot, Position, first_position
from capture.postgres.replication import Slot, System
from schemas.model.errors import SettingsError
from schemas.model.lsn import LSN

REPAIR = "capture repair --execute makes a new slot and reads the tables again (without --execute: a dry run)"


WHY_LOST: Mapping[str | None, tuple[str, str]] = {
    None: ("max_slot_wal_keep_size, most likely", "raise max_slot_wal_keep_size"),  # before PostgreSQL 17
    "wal_removed": ("max_slot_wal_keep_size: the log grew past it", "raise max_slot_wal_keep_size"),
    "idle_timeout": (
        "idle_replication_slot_timeout: nobody read it for that long",
        "raise idle_replication_slot_timeout, or set it to 0",
    ),
    "wal_level_insufficient": ("wal_level was below logical", "set wal_level = logical"),
    "rows_removed": ("rows of the catalogue were removed by VACUUM", "set hot_standby_feedback = on"),
}
"""A server's reason for giving a slot up → the reason in words, and what keeps the next slot. Source: PostgreSQL
manual, "pg_replication_slots" (invalidation_reason)."""


def why_lost(slot: Slot) -> tuple[str, str]:
    """Why the server gave the slot up, and what keeps it from doing so again."""
    return WHY_LOST.get(slot.invalidation_reason, (f"{slot.invalidation_reason}", "see the server's log"))


class NotOursError(SettingsError):
    """The slot is not the position's. It may be another reader's, so no new snapshot may drop it."""


def problem(
    position: Position,
    system: System,
    slot: Slot | None,
    name: str,
    settings: str,
    history: Callable[[int], str],
) -> SettingsError | None:
    """Why the position cannot be streamed from; None if it can. `history` fetches a timeline's history file."""
    try:
        check_position(position, system, slot, name, settings)
        if system.timeline != position.timeline:
            check_timeline(position, system, history(system.timeline))
    except SettingsError as error:
        return error
    return None


def not_ours(slot: str, topic: str, name: str) -> NotOursError:
    """The error for a slot without a position."""
    return NotOursError(
        f"slot {slot} exists, but topic {topic} has no position of {name}: "
        "it belongs to another reader, or the topic was lost and changes may be missing",
        "set another slot_name; or, if the slot is ours: " + REPAIR,
    )


def another_connector(prefix: str, names: Sequence[str]) -> SettingsError:
    """The error for a prefix under which another connector writes."""
    named = ", ".join(names)
    return SettingsError(
        f"topic_prefix {prefix} is in use: there is a position of connector {named}",
        f"give each connector a topic_prefix of its own; or, if {named} is no longer used, `capture drop` with "
        f"`name: {names[0]}` releases it",
    )


def another_log(position: Position, system: System, history: Callable[[int], str]) -> bool:
    """Whether the server has another log than the position's, so that its LSNs need not be above those in Kafka."""
    try:
        check_log(position, system)
        if system.timeline != position.timeline:
            check_timeline(position, system, history(system.timeline))
    except SettingsError:
        return True
    return False


def check_position(position: Position, system: System, slot: Slot | None, name: str, settings: str) -> None:
    """SettingsError if streaming from the position would lose or double changes."""
    check_log(position, system)
    if position.slot != name:
        kind = SettingsError if slot is None else NotOursError
        raise kind(
            f"the position {position.end_lsn} is of slot {position.slot}, but slot_name is {name}: the two have not "
            "sent the same changes",
            f"set slot_name: {position.slot}; or {REPAIR}, and {position.slot} holds the log until it is dropped",
        )
    confirmed = check_slot(position, slot, name)
    known = position.stopped_lsn
    if known is not None and confirmed > max(known, position.end_lsn):
        raise SettingsError(
            f"slot {name} was moved from {known} to {confirmed} while capture was stopped: "
            "the changes between may be missing",
            REPAIR,
        )
    if position.partial is not None and position.settings != settings:
        raise SettingsError(
            f"a large transaction ({position.partial.commit_lsn}) is half written with other settings",
            f"start once with the previous values of these settings: {', '.join(sorted(SHAPES_RECORDS))}",
        )


def check_slot(position: Position, slot: Slot | None, name: str) -> LSN:
    """What the slot has confirmed. SettingsError if it is gone or the server gave it up."""
    if slot is None or slot.confirmed_flush_lsn is None:
        raise SettingsError(f"slot {name} is gone: changes since {position.end_lsn} may be missing", REPAIR)
    if slot.wal_status == "lost":
        why, keep = why_lost(slot)
        raise SettingsError(
            f"slot {name} was invalidated ({why}): changes since {position.end_lsn} are lost",
            f"{keep}; then {REPAIR}",
        )
    return slot.confirmed_flush_lsn


def check_log(position: Position, system: System) -> None:
    """SettingsError if this is another server, or its log ends before the position."""
    if position.system_identifier != system.identifier:
        raise SettingsError(
            f"this is another PostgreSQL cluster (system identifier {system.identifier}, not "
            f"{position.system_identifier}): its log does not have the changes since {position.end_lsn}",
            "if the shop was moved or restored: " + REPAIR,
        )
    if system.lsn < position.end_lsn:
        raise SettingsError(
            f"the log ends at {system.lsn}, before the position {position.end_lsn}: the shop was restored",
            REPAIR,
        )


def repaired(position: Position | None, system: System, slot: str, settings: str, first: int) -> Position:
    """The position that makes the next start take a snapshot in a new generation, after a loss or a restore.

    `first` is the generation where there is no old position: 1, or after a loss the seconds since 1970, which are above
    every earlier generation.
    """
    generation = first if position is None else position.generation + 1
    fresh = first_position(generation, system.identifier, system.timeline, slot, system.lsn, settings)
    workers = 0 if position is None or position.snapshot is None else position.snapshot.workers
    return fresh._replace(snapshot=InitialSnapshot("repair", "making", {}, workers))


def check_timeline(position: Position, system: System, history: str) -> None:
    """Raises SettingsError when the server's timeline left ours before the position: it lacks what came after that.

    `history` is the server's timeline history file. Source: PostgreSQL manual, "Timelines".
    """
    left = None
    for line in history.splitlines():
        fields = line.split("\t")
        if len(fields) >= 2 and fields[0].strip() == str(position.timeline):
            left = LSN.parse(fields[1].strip())
    if left is None or left < position.end_lsn:
        raise SettingsError(
            f"the server is on timeline {system.timeline}, which "
            + ("does not descend from" if left is None else f"branched off at {left} from")
            + f" timeline {position.timeline} of the position {position.end_lsn}: Kafka has changes that the shop lost",
            REPAIR,
        )
