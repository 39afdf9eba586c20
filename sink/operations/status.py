"""`sink status`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sink.database import Connection, transaction
from sink.intake import evidence
from sink.intake.evidence import Gap
from sink.ledger import control, documents, listed, made_by
from sink.ledger.control import Control
from sink.staging import gaps, parked, position
from sink.staging.gaps import TableGap
from sink.staging.parked import ParkedRecord
from sink.staging.position import Copy


@dataclass(frozen=True)
class SinkStatus:
    """The sink at one moment. `counts`: (type, state) → number of documents. `not_planned`: why nothing is planned, ""
    if it is. `stuck`: documents that have failed so often that a person should look."""

    copy: Copy
    not_planned: str
    counts: Mapping[tuple[str, str], int]
    table_gaps: Sequence[TableGap]
    gaps: Sequence[Gap]
    parked: Sequence[ParkedRecord]
    control: Control
    stuck: int = 0
    of_another_profile: int = 0


def status(connection: Connection, require_snapshot: bool, version: str = "") -> SinkStatus:
    """Reads it from the middle layer. `version`: the profile's; "" leaves `of_another_profile` at 0."""
    with transaction(connection) as cursor:
        return SinkStatus(
            position.show_copy(cursor),
            position.why_not_planned(cursor, require_snapshot),
            documents.counts(cursor),
            gaps.table_gaps(cursor),
            evidence.open_gaps(cursor),
            parked.parked(cursor),
            control.read(cursor),
            listed.stuck(cursor),
            made_by.others(cursor, version) if version else 0,
        )
