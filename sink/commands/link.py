"""`sink link` and `sink unlink`: both sides, their lines, and what differs."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from schemas.model.errors import ExitCode, SettingsError
from sink import wiring
from sink.commands.options import DECIDE, Config, DocumentKey, DocumentType, Execute, Json, Person, settings_of, verbs
from sink.commands.output import DRY, answer, decided
from sink.documents.refs import DocumentRef
from sink.erp.commands import ChangedField, value
from sink.erp.kinds import is_personal
from sink.erp.money import money
from sink.operations import link
from sink.operations.link import Linked, LinkedRow, LinkSides, Unlinked

app = verbs()


@app.command("link", rich_help_panel=DECIDE)
def _link(
    person: Person,
    type_: Annotated[str, typer.Argument(metavar="[TYPE", help="As `sink list` shows it.")] = "",
    key: Annotated[str, typer.Argument(metavar="KEY")] = "",
    reference: Annotated[str, typer.Argument(metavar="REFERENCE]", help="The ERP's number, or `hand:7`.")] = "",
    file: Annotated[Path | None, typer.Option("--csv", help="Lines `type,key,reference`.")] = None,
    accept_difference: Annotated[
        bool,
        typer.Option("--accept-difference", help="Link it even though the amounts differ; the shop's amount is sent."),
    ] = False,
    execute: Execute = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Links a document to one that was typed into the ERP by hand.

    That one gets our key and is not made a second time. What differs is sent afterwards, as the rules allow. Example:
    `sink link sales_order 17 A-1001 --person Ada`
    """
    if bool(file) is bool(type_ and key and reference):
        raise SettingsError("say what to link", "`sink link TYPE KEY REFERENCE`, or `sink link --csv FILE`")
    sides = _sides(config)
    with closing(sides.erp):
        if file is None:
            found = link.link(sides, DocumentRef(type_, key), reference, accept_difference, person, execute)
            answer(as_json, lambda: decided(execute, found), lambda: lines(found, execute))
            return
        every = link.link_all(sides, _rows(file), accept_difference, person, execute)
    answer(as_json, lambda: {"executed": execute, "lines": every}, lambda: of_file(every, execute))
    raise typer.Exit(0 if all(one.linked for one in every) else ExitCode.FAILED)


@app.command("unlink", rich_help_panel=DECIDE)
def _unlink(
    type_: DocumentType,
    key: DocumentKey,
    person: Person,
    execute: Execute = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Undoes a link, as long as nothing else was sent.

    The sink then makes a new document in the ERP.

    Example: `sink unlink sales_order 17 --person Ada`
    """
    sides = _sides(config)
    with closing(sides.erp):
        found = link.unlink(sides, DocumentRef(type_, key), person, execute)
    answer(as_json, lambda: decided(execute, found), lambda: undone(found, execute))


def _sides(config: Path | None) -> LinkSides:
    settings = settings_of(config)
    return LinkSides(wiring.middle(settings), wiring.profile(settings), settings.shop, wiring.erp(settings))


def _rows(file: Path) -> list[list[str]]:
    try:
        return list(csv.reader(file.read_text("utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(
            f"{file} cannot be read: {error}", "a file of lines `type,key,reference`, in UTF-8"
        ) from None


def lines(found: Linked, execute: bool) -> Iterator[str]:
    """Both sides, line by line, and what differs."""
    yield f"{found.ref} {'is' if execute else 'would be'} linked to {_which(found)}"
    for ours, theirs in found.lines.items():
        yield f"    {ours} is the ERP's {theirs}"
    for one in found.differences:
        yield f"    {_differs(one, found.currency)}"
    if not execute:
        yield DRY


def of_file(found: Sequence[LinkedRow], execute: bool) -> Iterator[str]:
    """Each line of the file, and how many are linked."""
    for one in found:
        if one.linked:
            yield f"line {one.number}: {one.ref} is {_which(one.linked)}; {len(one.linked.differences)} differences"
        else:
            yield f"line {one.number}: {one.ref} is left out: {one.refused}; next: {one.next_step}"
    well = sum(one.linked is not None for one in found)
    yield f"{well} of {len(found)} {'are' if execute else 'would be'} linked"
    if not execute:
        yield DRY


def undone(found: Unlinked, execute: bool) -> Iterator[str]:
    """Says that the link is taken back."""
    yield f"{found.ref} {'is' if execute else 'would be'} no longer linked to {found.hand}; the ERP gets a new document"
    if not execute:
        yield DRY


def _which(found: Linked) -> str:
    ours, theirs = (money(amount, found.currency) for amount in (found.ours, found.theirs))
    amounts = f": {ours} in the shop, {theirs or 'nothing'} in the ERP" if ours else ""
    return f"{found.hand} of the ERP ({found.reference}, {found.milestone}){amounts}"


def _differs(one: ChangedField, currency: str | None) -> str:
    if not one.part and is_personal(one.name):
        return f"{one.name} differs"
    ours, theirs = (value(side, one.name, currency) for side in (one.one, one.other))
    return f"{one.where}: the shop has {ours}, the ERP has {theirs}"
