"""`sink show`: an order or another document, on both sides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from sink import wiring
from sink.commands.held import at, named
from sink.commands.options import LOOK, Config, Json, settings_of, verbs
from sink.commands.output import answer
from sink.commands.plan import told
from sink.erp.commands import ChangedField, value
from sink.erp.kinds import ErpRef
from sink.ledger.history import HistoryLine
from sink.ledger.listed import Listed
from sink.operations.show import Acceptance, InErp, ShownDocument, Unit, show
from sink.planning import ways_out

app = verbs()


@app.command("show", rich_help_panel=LOOK)
def _show(
    asked: Annotated[list[str], typer.Argument(metavar="ORDER | TYPE KEY", help="A number or key, or type and key.")],
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Everything about an order: both sides, and each step.

    Or about any other document. Shows names and addresses.

    Examples: `sink show SO-1001`, `sink show sales_order 17`
    """
    settings = settings_of(config)
    connection, profile = wiring.middle(settings), wiring.profile(settings)
    unit = show(connection, profile, settings.shop, lambda: wiring.erp(settings), asked)
    answer(as_json, lambda: unit, lambda: lines(unit))


def lines(unit: Unit) -> Iterator[str]:
    """For each document: state and reason, both sides, what differs, and its history."""
    for one in unit.documents:
        yield from _document(one, unit.erp_says)
    yield f"the shop is as of {unit.copy.stamp.commit_lsn} (generation {unit.copy.stamp.generation})"
    if unit.erp_says:
        yield f"the ERP could not be asked: {unit.erp_says}"


def _document(one: ShownDocument, erp_says: str) -> Iterator[str]:
    yield f"{named(one.ledger)}: {one.ledger.state}" + (f" since {at(one.ledger.since)}" if one.ledger.since else "")
    yield from _why(one.ledger)
    yield f"  in the shop: {one.not_built}" if one.shop is None else "  in the shop:"
    yield from _fields(one.shop or {}, one.ledger.currency)
    if one.erp is not None:
        yield from _in_erp(one.erp, one.ledger.currency)
    elif not erp_says:
        yield "  in the ERP: not there"
    if one.differences:
        yield "  differs:"
        for place, found in enumerate(one.differences):
            yield _difference(found, one.ledger.currency) + _mark(one.accepted.get(place))
    elif one.shares:
        yield "  the account is shared: it is neither compared nor changed"
    elif one.erp is not None and one.shop is not None:
        yield "  both sides are the same"
    yield "  what was done:" if one.history else "  nothing was done yet"
    for line in one.history:
        yield from _step(line)


def _why(one: Listed) -> Iterator[str]:
    if one.reason and one.state not in ("done", "gone"):
        yield f"  why: {one.reason}"
        if one.next_step:
            yield f"  next: {ways_out.addressed(one.next_step, str(one.ref))}"
    if one.state == "held":
        for command in ways_out.commands(one.check, str(one.ref), one.in_erp):
            yield f"    or {command}"
    if one.attempts:
        yield f"  tried {one.attempts} times" + (f", the next try at {at(one.next_try)}" if one.next_try else "")


def _fields(content: Mapping[str, Any], currency: str | None) -> Iterator[str]:
    """The head's fields, then the rows. Empty fields are left out."""
    rows = {name: one for name, one in content.items() if isinstance(one, tuple) and not isinstance(one, ErpRef)}
    for name, one in content.items():
        if name not in rows and one not in (None, ""):
            yield f"    {name}: {value(one, name, currency)}"
    for name, many in rows.items():
        for row in many:
            yield f"    {name}: {_in_a_line(row, currency)}"


def _in_erp(one: InErp, currency: str | None) -> Iterator[str]:
    state = f", which it calls {one.state}" if one.state not in ("", one.milestone) else ""
    yield f"  in the ERP: {one.reference} ({one.milestone or one.problem}{state})"
    yield from _fields(one.record, currency)
    for part, rows in one.parts.items():
        for key, fields in rows.items():
            yield f"    {part} {key}: {_in_a_line(fields, currency)}"


def _in_a_line(row: Mapping[str, Any], currency: str | None) -> str:
    return ", ".join(f"{name} {value(one, name, currency)}" for name, one in row.items() if one not in (None, ""))


def _difference(one: ChangedField, currency: str | None) -> str:
    ours, theirs = (value(side, one.name, currency) for side in (one.one, one.other))
    return f"    {one.where}: the shop has {ours}, the ERP has {theirs}"


def _mark(word: Acceptance | None) -> str:
    return "" if word is None else f"  (accepted by {word.person} on {word.at.astimezone():%Y-%m-%d})"


def _step(line: HistoryLine) -> Iterator[str]:
    place = f"  shop as of {line.place.lsn} (generation {line.place.generation})" if line.place else ""
    person = f" by {line.person}" if line.person else ""
    did = told(line.command) if line.command else line.event
    if line.command and line.event != line.command.verb:
        did = f"{line.event}: {did}"
    answer = ", ".join(filter(None, (line.detail, line.reached)))
    yield f"    {at(line.at)}  {did}{person}{f'  answer: {answer}' if answer and line.command else ''}{place}"
    if answer and not line.command:
        yield f"        {answer}"
    yield from (f"        {change}" for change in (line.command.changes if line.command else ()))
