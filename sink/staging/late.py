"""Rows that come late: a document that read a row which was not there is looked at again when it comes.

Rows of tables in `touched_by` do so by themselves. This is for a rule's references, tables that its SQL reads and whose
changes touch nothing, such as a variant that comes after the order line with it.
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
    """The documents to mark because rows that were not there before, or were deleted, came to these tables.

    A look that found no row ends in `gone`, one that found too little in `not ready` or `held`. What is held is woken.
    The others are many, from unpaid carts to events of another kind, so the profile's SQL is asked which of them it
    makes a document of now: of each kind the newest ten thousand, for what comes late comes soon.

    A document that a LEFT JOIN made without the row is whole to us. Where that matters, the table belongs in
    `touched_by`.

    Ask with the same tables again in a later transaction: a look that begins while this one commits reads what was
    before, and only then is known. `shop` is the schema of the staged tables.
    """
    rules = [rule for rule in profile.documents.values() if not rule.references.isdisjoint(arrived)]
    if not rules:
        return set()
    found = _under_way(cursor, [rule.name for rule in rules])
    for rule in rules:
        found |= _lacking(cursor, shop, rule)
    return found


def _under_way(cursor: Cursor, names: list[str]) -> set[DocumentRef]:
    """Documents that are looked at now: what the look has read may be older than the rows."""
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
