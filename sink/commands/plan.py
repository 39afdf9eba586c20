"""`sink plan`: what would be sent, with amounts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from sink import wiring
from sink.columns import in_columns
from sink.commands.held import named
from sink.commands.options import LOOK, Config, Json, settings_of, verbs
from sink.commands.output import answer
from sink.erp.commands import Command
from sink.erp.money import money
from sink.ledger.listed import PlannedDocument, PlannedSum
from sink.operations import listing
from sink.operations.listing import Planned

app = verbs()


@app.command("plan", rich_help_panel=LOOK)
def _plan(
    limit: Annotated[int, typer.Option(min=0, help="How many documents. The sums count all.")] = 20,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """What would be sent, each command with amounts; sums by kind.

    In `mode: plan` that is all that the ERP lacks.

    Example: `sink plan --limit 0`
    """
    found = listing.planned(wiring.middle(settings_of(config)), limit)
    answer(as_json, lambda: found, lambda: lines(found))


def lines(found: Planned) -> Iterator[str]:
    """Each document with its commands, then sums by kind."""
    if not found.sums:
        yield "nothing is planned: `sink status` says how far the copy is; plans are kept in `mode: plan` only"
        return
    for one in found.documents:
        yield from _document(one)
    total = sum(one.commands for one in found.sums)
    shown = sum(len(one.commands) for one in found.documents)
    if total > shown:
        yield f"and {total - shown} more commands; --limit shows them"
    yield from sums(found.sums)
    yield "nothing is sent; next: `sink go-live --person NAME` if this is what you want"


def sums(found: Sequence[PlannedSum]) -> Iterator[str]:
    """Sums of commands by verb and kind."""
    names = ("command", "how many", "gross before", "gross after", "difference", "currency")
    yield from in_columns(names, map(_sum, found))


def _document(one: PlannedDocument) -> Iterator[str]:
    yield named(one.document)
    for command in one.commands:
        yield f"    {told(command)}"
        yield from (f"        {change}" for change in command.changes)


def told(command: Command) -> str:
    """`amend order (confirmed): 11.90 → 9.90 EUR`."""
    was, now = (
        None if amount is None else money(amount, command.currency) for amount in (command.before, command.after)
    )
    amounts = " → ".join(filter(None, (was, now))) if was != now else now
    money_said = f": {amounts} {command.currency or ''}".rstrip() if amounts else ""
    return f"{command.verb} {command.kind} ({command.goal}){money_said}"


def _sum(one: PlannedSum) -> Sequence[object]:
    amounts = (
        [None, None, None]
        if one.currency is None
        else [money(amount, one.currency) for amount in (one.before, one.after, one.after - one.before)]
    )
    return f"{one.verb} {one.kind}", one.commands, *amounts, one.currency
