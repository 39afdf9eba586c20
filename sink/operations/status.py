"""How many documents are where, and what a person should look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sink.database import Connection, transaction
from sink.intake import evidence
from sink.intake.evidence import Gap
from sink.ledger import documents
from sink.staging import inbox, parked, snapshots
from sink.staging.parked import ParkedRecord


@dataclass(frozen=True)
class SinkStatus:
    """As of one moment. `counts`: (type, state) → documents; `waiting`: shop commits in part, with since when."""

    complete: bool
    counts: Mapping[tuple[str, str], int]
    gaps: Sequence[Gap]
    parked: Sequence[ParkedRecord]
    waiting: Sequence[tuple[str, str]]


def status(connection: Connection) -> SinkStatus:
    """Reads it from the middle layer."""
    with transaction(connection) as cursor:
        return SinkStatus(
            snapshots.ready(cursor),
            documents.counts(cursor),
            evidence.open_gaps(cursor),
            parked.parked(cursor),
            [(one.transaction_id, one.since) for one in inbox.waiting(cursor)],
        )
