"""`sink ignore`: what is ignored, and what stays in the ERP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from sink import wiring
from sink.commands.options import DECIDE, Config, DocumentKey, DocumentType, Execute, Json, Person, settings_of, verbs
from sink.commands.output import DRY, answer
from sink.documents.refs import DocumentRef
from sink.ledger.decisions import Left
from sink.operations.ignore import leave_alone

app = verbs()


@app.command("ignore", rich_help_panel=DECIDE)
def _ignore(
    type_: DocumentType,
    key: DocumentKey,
    person: Person,
    undo: Annotated[bool, typer.Option("--undo", help="Undo: no longer ignore it.")] = False,
    execute: Execute = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Leaves a document alone from now on.

    An order together with its returns and refunds. Says what stays in the ERP.

    Example: `sink ignore sales_order 17 --person Ada`
    """
    found = leave_alone(wiring.middle(settings_of(config)), DocumentRef(type_, key), undo, person, execute)
    answer(as_json, lambda: {"executed": execute, "documents": found}, lambda: lines(found, undo, execute))


def lines(found: Sequence[Left], undo: bool, execute: bool) -> Iterator[str]:
    """Each document, and whether the ERP has it."""
    done = ("is" if execute else "would be") + (" handled again" if undo else " ignored from now on")
    for one in found:
        stays = "the ERP does not have it" if one.reference is None else f"{one.reference or 'it'} stays in the ERP"
        yield f"{one.ref} {done}; {stays}"
    if not execute:
        yield DRY
