"""Rows that come late: a document that was built without a row is marked when the row arrives.

Rows of tables in `touched_by` mark documents anyway. This is for a rule's `references`: tables that its SQL reads but
whose changes mark nothing, such as product variants.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from sink.database import Cursor, names_of
from sink.documents.build import ready_keys
from sink.documents.profile import DocumentRule, Profile
from sink.documents.refs import DocumentRef

_NEWEST: Final = 10_000


def woken(cursor: Cursor, shop: str, profile: Profile, arrived: Collection[str]) -> set[DocumentRef]:
    """The documents to mark because new rows came to these tables.

    A look that found no row has ended in `gone`; one that found too little, in `not ready` or `held`. All held
    documents are marked. The others may be many, such as unpaid carts, so the profile's SQL says which of them it can
    build now: of each type the newest ten thousand, since late rows come soon.

    A document that a LEFT JOIN builds without the row counts as complete. If that matters, the table belongs in
    `touched_by`.

    Call it again with the same tables in a later transaction: a look that began while this one commits has read the old
    rows. A new session does not know what the last one still had to ask, so it asks once for all tables. `shop`: the
    schema of the staged tables.
    """
    rules = [rule for rule in profile.documents.values() if not rule.references.isdisjoint(arrived)]
    if not rules:
        return set()
    found = _under_way(cursor, [rule.name for rule in rules])
    for rule in rules:
        found |= _lacking(cursor, shop, rule)
    return found


def _under_way(cursor: Cursor, names: list[str]) -> set[DocumentRef]:
    """Documents that a worker is looking at: it may have read before the rows came."""
    cursor.execute(
        "SELECT d.type, d.key FROM unit u JOIN document d USING (unit)"
        " WHERE u.due_at > statement_timestamp() AND u.owner IS NOT NULL AND d.type = ANY(%s)",
        (names,),
    )
    return {DocumentRef(*row) for row in cursor.fetchall()}


def _lacking(cursor: Cursor, shop: str, rule: DocumentRule) -> set[DocumentRef]:
    cursor.execute(
        "SELECT key, state FROM document WHERE type = %s AND state IN ('gone', 'held', 'not ready')"
        " ORDER BY marked_at DESC LIMIT %s",
        (rule.name, _NEWEST),
    )
    states: dict[str, str] = dict(cursor.fetchall())
    held = {key for key, state in states.items() if state == "held"}
    with names_of(cursor, shop):
        ready = ready_keys(cursor, rule, sorted(states.keys() - held))
    return {DocumentRef(rule.name, key) for key in held | ready}
