"""`sink list` and `sink plan`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from schemas.model.errors import SettingsError
from sink.database import Connection, transaction
from sink.ledger import documents, listed
from sink.ledger.listed import Listed, PlannedDocument, PlannedSum
from sink.ledger.outcomes import State


def listing(
    connection: Connection, state: State | None, type_: str | None, limit: int, names: Collection[str] = ()
) -> list[Listed]:
    """Documents in a state and of a type (None: any), oldest first, at most `limit`.

    `names`: the profile's types, which may have no document yet. SettingsError for a type that neither the profile nor
    the ledger has.
    """
    with transaction(connection) as cursor:
        if type_ is not None and type_ not in (known := {*names, *documents.types(cursor)}):
            raise SettingsError(f"no document is called {type_}", f"use one of: {', '.join(sorted(known))}")
        return listed.listed(cursor, state, type_, limit)


class Planned(NamedTuple):
    """Sums of everything planned, and the commands of some documents."""

    sums: Sequence[PlannedSum]
    documents: Sequence[PlannedDocument]


def planned(connection: Connection, limit: int) -> Planned:
    """What is planned, as of one moment, with at most `limit` documents."""
    with transaction(connection, "REPEATABLE READ READ ONLY") as cursor:
        return Planned(listed.planned_sums(cursor), listed.planned(cursor, limit))
