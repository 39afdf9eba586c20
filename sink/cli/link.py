"""The verbs by which what people typed into the ERP is taken for the shop's."""

from __future__ import annotations

import csv
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from schemas.model.errors import ExitCode, SettingsError
from sink import wiring
from sink.cli.options import (
    DECIDE,
    Config,
    DocumentKey,
    DocumentType,
    Execute,
    Json,
    Person,
    answer,
    decided,
    group,
    settings_of,
)
from sink.commands import link as link_lines
from sink.documents.refs import DocumentRef
from sink.operations import link
from sink.operations.link import LinkSides

app = group()


@app.command("link", rich_help_panel=DECIDE)
def _link(
    person: Person,
    type_: Annotated[str, typer.Argument(metavar="[TYPE", help="As `sink list` shows it.")] = "",
    key: Annotated[str, typer.Argument(metavar="KEY")] = "",
    reference: Annotated[str, typer.Argument(metavar="REFERENCE]", help="The ERP's number, or `hand:7`.")] = "",
    file: Annotated[Path | None, typer.Option("--csv", help="Lines `type,key,reference`.")] = None,
    accept_difference: Annotated[
        bool, typer.Option("--accept-difference", help="Though the amounts differ; the shop's is sent.")
    ] = False,
    execute: Execute = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Takes a document for one that was typed into the ERP by hand.

    It gets our key there and is not made a second time; what differs is sent afterwards, as the rules allow.
    Example: `sink link sales_order 17 A-1001 --person Ada`
    """
    if bool(file) is bool(type_ and key and reference):
        raise SettingsError("say what is linked", "`sink link TYPE KEY REFERENCE`, or `sink link --csv FILE`")
    sides = _sides(config)
    with closing(sides.erp):
        if file is None:
            found = link.link(sides, DocumentRef(type_, key), reference, accept_difference, person, execute)
            answer(as_json, lambda: decided(execute, found), lambda: link_lines.lines(found, execute))
            return
        every = link.link_all(sides, _rows(file), accept_difference, person, execute)
    answer(as_json, lambda: {"executed": execute, "lines": every}, lambda: link_lines.of_file(every, execute))
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
    """Takes a link back, as long as nothing else was sent.

    The sink then makes a document of its own in the ERP. Example: `sink unlink sales_order 17 --person Ada`
    """
    sides = _sides(config)
    with closing(sides.erp):
        found = link.unlink(sides, DocumentRef(type_, key), person, execute)
    answer(as_json, lambda: decided(execute, found), lambda: link_lines.undone(found, execute))


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
