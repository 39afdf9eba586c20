"""`sink accept gap`, `snapshot`, `document` and `account`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

import typer

from schemas.model.errors import SettingsError
from sink import wiring
from sink.commands.options import DECIDE, Config, DocumentKey, DocumentType, Execute, Json, Person, settings_of, verbs
from sink.commands.output import DRY, answer, decided, said, say
from sink.database import Connection
from sink.documents.refs import DocumentRef
from sink.erp.kinds import Fields, shown
from sink.operations import accept
from sink.operations.accept import AcceptedDocument, undo_accept
from sink.operations.accept_account import AcceptedAccount, accept_account, undo_account
from sink.planning.policy import Disputed

app = verbs()
accept_app = verbs("Decisions that only a person can make. A dry run first.")
app.add_typer(accept_app, name="accept", rich_help_panel=DECIDE)


@accept_app.command("gap")
def _accept_gap(
    table: Annotated[str, typer.Argument(help="As `sink status` names it: public.orders")],
    person: Person,
    execute: Execute = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Accepts a table with a gap as complete.

    If you can, fill the gap instead: `capture signal snapshot TABLE`.

    Example: `sink accept gap public.orders --person Ada`
    """
    settings = settings_of(config)
    given = (wiring.middle(settings), table, wiring.topic(settings, table), person, execute)
    answer(
        as_json,
        lambda: {"executed": execute, "gaps": accept.accept_gaps(*given)},
        lambda: gap(*given),
    )


@accept_app.command("snapshot")
def _accept_snapshot(person: Person, execute: Execute = False, as_json: Json = False, config: Config = None) -> None:
    """Starts planning without the end of a first snapshot.

    For topics that no longer reach back to it.

    Example: `sink accept snapshot --person Ada`
    """
    connection = wiring.middle(settings_of(config))
    if not as_json:
        say(snapshot(connection, person, execute))
        return
    accept.accept_snapshot(connection, person, execute)
    say(said({"executed": execute}, (), as_json))


@accept_app.command("document")
def _accept_document(
    type_: DocumentType,
    key: DocumentKey,
    person: Person,
    undo: Annotated[bool, typer.Option("--undo", help="Undo: compare it again.")] = False,
    execute: Execute = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Accepts the differences of a held document.

    The ERP's values stay until either side changes them. A document that is held for its number, date or buyer is
    accepted as the one that was sent under its key.

    Example: `sink accept document sales_order 17 --person Ada`
    """
    ref, does = DocumentRef(type_, key), undo_accept if undo else accept.accept_document
    found = does(wiring.middle(settings_of(config)), ref, person, execute)
    answer(as_json, lambda: decided(execute, found), lambda: document(ref, found, execute))


@accept_app.command("account")
def _accept_account(
    type_: DocumentType,
    key: DocumentKey,
    person: Person,
    number: Annotated[str, typer.Argument(metavar="[NUMBER]", help="The number of an account in the ERP: 10023")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Undo: the customer gets a separate account.")] = False,
    execute: Execute = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Books a customer's orders to an existing account of the ERP.

    Several customers may share one. The account itself is not changed.

    Example: `sink accept account customer 7 10023 --person Ada`
    """
    settings, ref = settings_of(config), DocumentRef(type_, key)
    if undo is bool(number):
        raise SettingsError("say which account", "`sink accept account TYPE KEY NUMBER`, or --undo without a number")
    if undo:
        given_back = undo_account(wiring.middle(settings), ref, person, execute)
        answer(as_json, lambda: decided(execute, given_back), lambda: account_undone(ref, given_back, execute))
        return
    asked = (ref, number, person, execute)
    found = accept_account(wiring.middle(settings), wiring.profile(settings), lambda: wiring.erp(settings), *asked)
    answer(as_json, lambda: decided(execute, found), lambda: account(ref, found, execute))


def gap(connection: Connection, table: str, topic: str, person: str, execute: bool) -> Iterator[str]:
    """What is missing. `topic`: the table's."""
    yield from accept.accept_gaps(connection, table, topic, person, execute)
    accepted = "is accepted" if execute else "would be accepted"
    yield f"{table} {accepted} as complete, and documents that were held for it are sent"
    yield "held documents are looked at again" if execute else DRY


def snapshot(connection: Connection, person: str, execute: bool) -> Iterator[str]:
    """Says that planning begins."""
    accept.accept_snapshot(connection, person, execute)
    accepted = "is accepted" if execute else "would be accepted"
    yield f"the copy {accepted} as complete without the end of a first snapshot, and planning begins"
    if not execute:
        yield DRY


def document(ref: DocumentRef, found: AcceptedDocument, execute: bool) -> Iterator[str]:
    """What accepting means for the document, and the fields."""
    yield f"{ref} {'is' if execute else 'would be'} {found.taken_for.value}"
    yield from both_sides(found.fields, found.currency)
    if not execute:
        yield DRY


def both_sides(fields: Iterable[Disputed], currency: str | None) -> Iterator[str]:
    """Each field with the values of shop and ERP."""
    for one in fields:
        where = f"{one.part}:{one.key} " if one.part else ""
        ours, theirs = (_side(side, currency) for side in (one.ours, one.theirs))
        yield f"    {where}{one.name or 'all of it'}: the shop has {ours}, the ERP has {theirs}"


def account(ref: DocumentRef, found: AcceptedAccount, execute: bool) -> Iterator[str]:
    """The account, and the other customers who have or share it."""
    yield f"orders of {ref} {'are' if execute else 'would be'} booked to the ERP's account {found.number} from now on"
    yield from (f"    as those of {one}" for one in found.customers)
    yield "the account itself is not changed; orders that the ERP already has follow at their next change"
    if not execute:
        yield DRY


def account_undone(ref: DocumentRef, found: AcceptedAccount, execute: bool) -> Iterator[str]:
    """Says that the customer gets a separate account, and who keeps the shared one."""
    yield f"{ref} no longer {'shares' if execute else 'would share'} the ERP's account {found.account}"
    yield from (f"    {one} keeps it" for one in found.customers)
    yield "the customer gets an account like any new one; orders that the ERP already has follow at their next change"
    if not execute:
        yield DRY


def _side(fields: Fields | None, currency: str | None) -> str:
    if fields is None:
        return "none"
    return ", ".join(shown(value, name, currency) for name, value in fields.items())
