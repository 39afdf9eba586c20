"""What a verb needs to know of a document before a person's decision is written."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, NamedTuple

from sink.database import Cursor
from sink.documents.refs import DocumentRef
from sink.ledger.marks import BUSY

_ASKED: Final = (
    "SELECT state, cause, check_name, reason, coalesce(disputed ->> 'version', ''),"  # noqa: S608  our own words
    " coalesce(disputed -> 'fields', '[]'), decisions, applied, reference, intent IS NOT NULL, "
    + BUSY
    + " FROM document WHERE type = %s AND key = %s"
)
_WITH_DEPENDANTS: Final = (
    "SELECT type, key, CASE WHEN applied IS NOT NULL THEN coalesce(reference, '') END, state, "  # noqa: S608
    + BUSY
    + " FROM document"
    " WHERE (type, key) = (%(type)s, %(key)s) OR unit = (SELECT unit FROM document"
    "  WHERE (type, key) = (%(type)s, %(key)s) AND unit = %(type)s || ':' || %(key)s)"
    " ORDER BY (type, key) <> (%(type)s, %(key)s), type, key"
)


class Asked(NamedTuple):
    """A document that a person decides about. `check`: the one it did not pass; None if it is not held, or was held by
    an earlier release. `version`, `fields`: what was held."""

    state: str
    cause: str | None
    check: str | None
    reason: str | None
    version: str
    fields: list[dict[str, Any]]
    decisions: dict[str, Any] | None
    applied: dict[str, Any] | None
    reference: str | None
    under_way: bool
    busy: bool  # `under_way`, or a worker has it


def asked(cursor: Cursor, ref: DocumentRef) -> Asked | None:
    """The document; None if the ledger does not have it."""
    cursor.execute(_ASKED, tuple(ref))
    row = cursor.fetchone()
    return Asked(*row) if row else None


def held_for(cursor: Cursor, check: str) -> list[DocumentRef]:
    """All documents that a check holds."""
    cursor.execute(
        "SELECT type, key FROM document WHERE state = 'held' AND check_name = %s ORDER BY type, key", (check,)
    )
    return [DocumentRef(*row) for row in cursor.fetchall()]


def linked_to(cursor: Cursor, types: Collection[str], hand: str) -> list[DocumentRef]:
    """The documents of these types that are linked to a document of the ERP (`hand:7`)."""
    cursor.execute(
        "SELECT type, key FROM document WHERE type = ANY(%s) AND decisions ->> 'linked' = %s ORDER BY type, key",
        (list(types), hand),
    )
    return [DocumentRef(*row) for row in cursor.fetchall()]


class Left(NamedTuple):
    """A document with its number in the ERP. `reference` None: the ERP does not have it."""

    ref: DocumentRef
    reference: str | None
    state: str
    busy: bool


def with_dependants(cursor: Cursor, ref: DocumentRef) -> list[Left]:
    """A document; if it is an order, also its returns and refunds."""
    cursor.execute(_WITH_DEPENDANTS, ref._asdict())
    return [Left(DocumentRef(*row[:2]), *row[2:]) for row in cursor.fetchall()]
