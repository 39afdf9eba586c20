"""`sink list`: documents, one per line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from sink import wiring
from sink.columns import in_columns
from sink.commands.held import at
from sink.commands.options import LOOK, Config, Json, settings_of, verbs
from sink.commands.output import answer
from sink.erp.money import money
from sink.ledger.listed import Listed
from sink.ledger.outcomes import State
from sink.operations import listing

app = verbs()


@app.command("list", rich_help_panel=LOOK)
def _list(
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Only those of this type: sales_order")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, the oldest first.")] = 50,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Documents by state, with number and money.

    Example: `sink list --state held --type sales_order`
    """
    settings = settings_of(config)
    names = wiring.profile(settings).documents
    found = listing.listing(wiring.middle(settings), state, type_, limit, names)
    answer(as_json, lambda: found, lambda: lines(found, limit))


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
