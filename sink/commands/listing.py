"""`sink list`: documents, one a line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sink.columns import in_columns
from sink.commands.held import at
from sink.erp.money import money
from sink.ledger.listed import Listed


def lines(found: Sequence[Listed], limit: int) -> Iterator[str]:
    """State, name, number, money, since when, and the ERP's number."""
    if not found:
        yield "there is no such document"
        return
    names = ("state", "document", "number", "gross", "currency", "since", "in the ERP")
    yield from in_columns(names, map(_row, found))
    if len(found) == limit:
        yield f"the first {limit}; --limit shows more"


def _row(one: Listed) -> Sequence[object]:
    gross = None if one.gross is None else money(one.gross, one.currency)
    since = at(one.since) if one.since else None
    return one.state, one.ref, one.number, gross, one.currency, since, one.reference
