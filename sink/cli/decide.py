"""Verbs by which a person decides what nobody else can."""

from __future__ import annotations

from typing import Annotated

import typer

from schemas.errors import SettingsError
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
    group,
    say,
    settings_of,
)
from sink.commands import accept, control, output, retry
from sink.commands import brake as brake_lines
from sink.documents.refs import DocumentRef
from sink.operations import accept as accepting
from sink.operations import brake, holds

app = group()
accept_app = group("Your word for what nobody else can say; a dry run first.")
app.add_typer(accept_app, name="accept", rich_help_panel=DECIDE)


@app.command("retry", rich_help_panel=DECIDE)
def _retry(
    type_: Annotated[str, typer.Argument(metavar="[TYPE", help="As `sink held` shows it.")] = "",
    key: Annotated[str, typer.Argument(metavar="KEY]")] = "",
    every: Annotated[bool, typer.Option("--all", help="All that is held or waits.")] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Looks at a held document again, or at all of them.

    What is sent then is only what the rules allow. Example: `sink retry sales_order 17`
    """
    ref, connection = retry.which(type_, key, every), wiring.middle(settings_of(config))
    answer(as_json, lambda: {"looked_at_again": holds.retry(connection, ref)}, lambda: [retry.line(connection, ref)])


@app.command("pause", rich_help_panel=DECIDE)
def _pause(
    person: Person,
    reason: Annotated[str, typer.Option(help="Why, for whoever asks `sink status`.")] = "",
    config: Config = None,
) -> None:
    """Nothing more goes to the ERP, from any copy of the sink, until `sink resume`.

    Staging goes on. Example: `sink pause --person Ada --reason "stocktaking"`
    """
    say(control.pause(wiring.middle(settings_of(config)), person, reason))


@app.command("resume", rich_help_panel=DECIDE)
def _resume(person: Person, config: Config = None) -> None:
    """Ends `sink pause`.

    Example: `sink resume --person Ada`
    """
    say(control.resume(wiring.middle(settings_of(config)), person))


@app.command("release", rich_help_panel=DECIDE)
def _release(
    person: Person,
    mass: Annotated[bool, typer.Option("--mass", help="All that the brake holds back.")] = False,
    kind: Annotated[str, typer.Option(help="orders or prices; both without this.")] = "",
    as_json: Json = False,
    execute: Execute = False,
    config: Config = None,
) -> None:
    """Lets what the brake holds back pass once, and counts anew.

    Example: `sink release --mass --kind prices --person Ada`
    """
    if not mass:
        raise SettingsError("say what is released", "`sink release --mass` is for what the brake holds back")
    found = brake.release_mass(wiring.middle(settings_of(config)), kind, person, execute)
    answer(as_json, lambda: found, lambda: brake_lines.released(found))


@accept_app.command("gap")
def _accept_gap(
    table: Annotated[str, typer.Argument(help="As `sink status` names it: public.orders")],
    person: Person,
    execute: Execute = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Takes a table with a gap for complete.

    Where that can be, `capture signal snapshot TABLE` fills it instead.
    Example: `sink accept gap public.orders --person Ada`
    """
    settings = settings_of(config)
    given = (wiring.middle(settings), table, wiring.topic(settings, table), person, execute)
    answer(
        as_json,
        lambda: {"executed": execute, "gaps": accepting.accept_gaps(*given)},
        lambda: accept.gap(*given),
    )


@accept_app.command("snapshot")
def _accept_snapshot(person: Person, execute: Execute = False, as_json: Json = False, config: Config = None) -> None:
    """Plans without the end of a first snapshot.

    For topics that do not reach back to it. Example: `sink accept snapshot --person Ada`
    """
    connection = wiring.middle(settings_of(config))
    if not as_json:
        say(accept.snapshot(connection, person, execute))
        return
    accepting.accept_snapshot(connection, person, execute)
    say(output.said({"executed": execute}, (), as_json))


@accept_app.command("document")
def _accept_document(
    type_: DocumentType,
    key: DocumentKey,
    person: Person,
    execute: Execute = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Takes a document that is held for a decision for settled.

    As the ERP has it, until the shop changes it again. One that is held for its number, date or buyer is taken for the
    one that was sent under its key.

    Example: `sink accept document sales_order 17 --person Ada`
    """
    connection = wiring.middle(settings_of(config))
    answer(
        as_json,
        lambda: {
            "executed": execute,
            "taken_for": accepting.accept_document(connection, DocumentRef(type_, key), person, execute).value,
        },
        lambda: accept.document(connection, type_, key, person, execute),
    )
