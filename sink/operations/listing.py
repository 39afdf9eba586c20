"""Documents by state, and what would be sent, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sink.database import Connection, transaction
from sink.ledger import listed
from sink.ledger.listed import Listed, PlannedDocument, PlannedSum
from sink.ledger.outcomes import State


def listing(connection: Connection, state: State | None, type_: str | None, limit: int) -> list[Listed]:
    """Documents in a state and of a type (None: in any, of any), the oldest first, at most so many."""
    with transaction(connection) as cursor:
        return listed.listed(cursor, state, type_, limit)


class Planned(NamedTuple):
    """What would be sent: sums of all, and the commands of some documents."""

    sums: Sequence[PlannedSum]
    documents: Sequence[PlannedDocument]


def planned(connection: Connection, limit: int) -> Planned:
    """As of one moment; the documents are at most so many."""
    with transaction(connection, "REPEATABLE READ READ ONLY") as cursor:
        return Planned(listed.planned_sums(cursor), listed.planned(cursor, limit))
