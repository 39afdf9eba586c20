"""Verbs by which a person decides what nobody else can."""

from __future__ import annotations

from typing import Annotated

import typer

from schemas.model.errors import SettingsError
from sink import wiring
from sink.cli.options import (
    DECIDE,
    AnyKey,
    AnyType,
    Cause,
    Config,
    DocumentKey,
    DocumentType,
    Execute,
    Json,
    Person,
    answer,
    decided,
    group,
    say,
    settings_of,
)
from sink.commands import accept, control, ignore, output, release, retry
from sink.commands import brake as brake_lines
from sink.documents.refs import DocumentRef
from sink.operations import accept as accepting
from sink.operations import brake, go_live
from sink.operations import control as controlling
from sink.operations.accept import undo_accept
from sink.operations.accept_account import accept_account, undo_account
from sink.operations.ignore import leave_alone
from sink.operations.release import let_all_pass, let_pass

app = group()
accept_app = group("What only a person can judge; a dry run first.")
app.add_typer(accept_app, name="accept", rich_help_panel=DECIDE)


@app.command("retry", rich_help_panel=DECIDE)
def _retry(
    type_: AnyType = "",
    key: AnyKey = "",
    every: Annotated[bool, typer.Option("--all", help="All that is held or waits.")] = False,
    cause: Cause = "",
    all_states: Annotated[
        bool, typer.Option("--all-states", help="Everything, done ones too; wants --execute.")
    ] = False,
    execute: Execute = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Looks at a held document again, or at all of them.

    What is sent then is only what the rules allow. Example: `sink retry sales_order 17`
    """
    given = (wiring.middle(settings_of(config)), type_, key, every, cause, execute if all_states else None)
    executed = execute or not all_states
    answer(
        as_json,
        lambda: {"executed": executed, "looked_at_again": retry.looked_at_again(*given)},
        lambda: [retry.line(*given)],
    )


@app.command("go-live", rich_help_panel=DECIDE)
def _go_live(person: Person, as_json: Json = False, execute: Execute = False, config: Config = None) -> None:
    """Lets a shop in `mode: plan` send what was planned.

    And all that follows; says first what that is. Example: `sink go-live --person Ada`
    """
    settings = settings_of(config)
    applies = settings.mode == "apply"
    found = go_live.go_live(wiring.middle(settings), applies, settings.require_snapshot, person, execute)
    answer(as_json, lambda: decided(execute, found), lambda: control.go_live(found, execute))


@app.command("pause", rich_help_panel=DECIDE)
def _pause(
    person: Person,
    reason: Annotated[str, typer.Option(help="Why, for whoever asks `sink status`.")] = "",
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Sends nothing more to the ERP until `sink resume`.

    All copies of the sink stop sending, and go on staging. Example: `sink pause --person Ada --reason "stocktaking"`
    """
    lines = list(control.pause(wiring.middle(settings_of(config)), person, reason))
    answer(as_json, lambda: {"paused": True}, lambda: lines)


@app.command("resume", rich_help_panel=DECIDE)
def _resume(person: Person, as_json: Json = False, config: Config = None) -> None:
    """Ends `sink pause`.

    Example: `sink resume --person Ada`
    """
    given = (wiring.middle(settings_of(config)), person)
    answer(as_json, lambda: {"was_paused": controlling.resume(*given)}, lambda: control.resume(*given))


@app.command("release", rich_help_panel=DECIDE)
def _release(
    person: Person,
    type_: AnyType = "",
    key: AnyKey = "",
    mass: Annotated[bool, typer.Option("--mass", help="All that the brake holds back.")] = False,
    kind: Annotated[str, typer.Option(help="Of --mass: orders or prices; both without this.")] = "",
    cause: Annotated[str, typer.Option(help="All that this check holds: 'changed in the ERP'.")] = "",
    as_json: Json = False,
    execute: Execute = False,
    config: Config = None,
) -> None:
    """Lets a held document pass its check, as it is now.

    Its next change is checked again. With --cause all that a check holds, which the brake counts. With --mass all that
    the brake holds back passes once, and it counts anew. Example: `sink release sales_order 17 --person Ada`
    """
    if [mass, bool(cause), bool(type_ and key)].count(True) != 1 or bool(type_) != bool(key):
        raise SettingsError("say what is released", "`sink release TYPE KEY`, or --mass, or --cause 'totals'")
    connection = wiring.middle(settings_of(config))
    if cause:
        every = let_all_pass(connection, cause, person, execute)
        answer(as_json, lambda: decided(execute, every), lambda: release.all_lines(every, execute))
        return
    if mass:
        masses = brake.release_mass(connection, kind, person, execute)
        answer(as_json, lambda: decided(execute, masses), lambda: brake_lines.released(masses))
        return
    ref = DocumentRef(type_, key)
    found = let_pass(connection, ref, person, execute)
    answer(as_json, lambda: decided(execute, found), lambda: release.lines(ref, found, execute))


@app.command("ignore", rich_help_panel=DECIDE)
def _ignore(
    type_: DocumentType,
    key: DocumentKey,
    person: Person,
    undo: Annotated[bool, typer.Option("--undo", help="Look after it again.")] = False,
    execute: Execute = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Leaves a document alone from now on.

    An order together with its returns and refunds. Says what stays in the ERP.
    Example: `sink ignore sales_order 17 --person Ada`
    """
    found = leave_alone(wiring.middle(settings_of(config)), DocumentRef(type_, key), undo, person, execute)
    answer(as_json, lambda: {"executed": execute, "documents": found}, lambda: ignore.lines(found, undo, execute))


@accept_app.command("gap")
def _accept_gap(
    table: Annotated[str, typer.Argument(help="As `sink status` names it: public.orders")],
    person: Person,
    execute: Execute = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Accepts a table with a gap as complete.

    Better, where it is possible: `capture signal snapshot TABLE` fills the gap.
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
    undo: Annotated[bool, typer.Option("--undo", help="Take that back: compare again.")] = False,
    execute: Execute = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Accepts what differs of a held document.

    It stays in the ERP as it is there, until either side changes it. One that is held for its number, date or buyer is
    accepted as the one that was sent under its key. Example: `sink accept document sales_order 17 --person Ada`
    """
    ref, does = DocumentRef(type_, key), undo_accept if undo else accepting.accept_document
    found = does(wiring.middle(settings_of(config)), ref, person, execute)
    answer(as_json, lambda: decided(execute, found), lambda: accept.document(ref, found, execute))


@accept_app.command("account")
def _accept_account(
    type_: DocumentType,
    key: DocumentKey,
    person: Person,
    number: Annotated[str, typer.Argument(metavar="[NUMBER]", help="Of an account that the ERP has: 10023")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="He is given one of his own.")] = False,
    execute: Execute = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Books a customer's orders to an account that the ERP has.

    Several customers may share one. Nothing of the account is changed, and he gets none of his own.
    Example: `sink accept account customer 7 10023 --person Ada`
    """
    settings, ref = settings_of(config), DocumentRef(type_, key)
    if undo is bool(number):
        raise SettingsError("say which account", "`sink accept account TYPE KEY NUMBER`, or --undo without a number")
    if undo:
        given_back = undo_account(wiring.middle(settings), ref, person, execute)
        answer(as_json, lambda: decided(execute, given_back), lambda: accept.account_undone(ref, given_back, execute))
        return
    said = (ref, number, person, execute)
    found = accept_account(wiring.middle(settings), wiring.profile(settings), lambda: wiring.erp(settings), *said)
    answer(as_json, lambda: decided(execute, found), lambda: accept.account(ref, found, execute))
