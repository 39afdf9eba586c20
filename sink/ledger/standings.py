"""The state of documents, for reconcile. Read in pages, since there may be millions."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, Final

from sink.database import OF_THESE, Cursor, TextArray, these
from sink.documents.refs import DocumentRef
from sink.ledger.outcomes import Standing, State

_STANDING: Final = (
    "SELECT type, key, state, unit, external, needed, seen < marked OR (state = 'not ready' AND next_try IS NOT NULL),"
    " intent IS NOT NULL, marked, marked_at, revision,"
    " decisions, (applied #>> '{fields,paid,n}')::numeric, account, applied IS NOT NULL"
    " FROM document WHERE "
)


def of_units(cursor: Cursor, units: Collection[str], refs: Collection[DocumentRef]) -> dict[DocumentRef, Standing]:
    """All documents of the units, and those of `refs` that are in other units."""
    cursor.execute(_STANDING + "unit = ANY(%s)", (TextArray(units),))
    found = _standings(cursor)
    if elsewhere := [ref for ref in refs if ref not in found]:
        cursor.execute(_STANDING + OF_THESE, these(elsewhere))
        found |= _standings(cursor)
    return found


def by_external(cursor: Cursor, keys: Collection[str]) -> dict[str, tuple[DocumentRef, Standing]]:
    """Documents by their keys in the ERP. Those that the ledger does not know are left out."""
    cursor.execute(_STANDING + "external = ANY(%s)", (TextArray(keys),))
    return {str(one.external): (ref, one) for ref, one in _standings(cursor).items()}


def refs_by_external(cursor: Cursor, keys: Collection[str]) -> dict[str, DocumentRef]:
    """The same without the state."""
    cursor.execute("SELECT external, type, key FROM document WHERE external = ANY(%s)", (TextArray(keys),))
    return {external: DocumentRef(type_, key) for external, type_, key in cursor.fetchall()}


def moment(cursor: Cursor) -> datetime:
    """Now, by the clock that dates marks."""
    cursor.execute("SELECT clock_timestamp()")
    now: datetime = (cursor.fetchone() or (None,))[0]
    return now


def _standings(cursor: Cursor) -> dict[DocumentRef, Standing]:
    return {DocumentRef(*row[:2]): _standing(*row[2:]) for row in cursor.fetchall()}


def _standing(state: str, *rest: Any) -> Standing:
    return Standing(State(state), *rest)
