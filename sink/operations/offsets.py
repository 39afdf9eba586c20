"""`sink offsets`: where reading resumes, and what a reset would do."""

from __future__ import annotations

from collections.abc import Mapping

from sink.database import Connection, transaction
from sink.intake import evidence
from sink.intake.evidence import Partition, Seen
from sink.intake.offsets import GroupOffsets, Move, Offsets, Target


def show(connection: Connection, group: GroupOffsets) -> list[Offsets]:
    """Committed, available and staged offsets of each partition that exists."""
    return group.show(_staged(connection, group))


def plan(connection: Connection, group: GroupOffsets, target: Target) -> list[Move]:
    """What a reset would do to each partition; changes nothing."""
    return group.plan(target, _staged(connection, group))


def _staged(connection: Connection, group: GroupOffsets) -> Mapping[Partition, Seen]:
    partitions = group.partitions()
    with transaction(connection) as cursor:
        return evidence.load(cursor, partitions)
