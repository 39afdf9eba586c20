"""`sink accept`: what a person takes upon himself, said before it is done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sink.database import Connection
from sink.documents.refs import DocumentRef
from sink.erp.kinds import Fields, shown
from sink.operations import accept
from sink.operations.accept import AcceptedDocument
from sink.operations.accept_account import AcceptedAccount
from sink.planning.policy import Disputed

DRY = "nothing was changed; --execute does it"


def gap(connection: Connection, table: str, topic: str, person: str, execute: bool) -> Iterator[str]:
    """What is missing and is taken for complete; `topic` is the table's."""
    yield from accept.accept_gaps(connection, table, topic, person, execute)
    accepted = "is accepted" if execute else "would be accepted"
    yield f"{table} {accepted} as complete as it is, and documents that were held for it go to the ERP"
    yield "held documents are looked at again" if execute else DRY


def snapshot(connection: Connection, person: str, execute: bool) -> Iterator[str]:
    """That planning begins."""
    accept.accept_snapshot(connection, person, execute)
    accepted = "is accepted" if execute else "would be accepted"
    yield f"the copy {accepted} as complete without the end of a first snapshot, and planning begins"
    if not execute:
        yield DRY


def document(ref: DocumentRef, found: AcceptedDocument, execute: bool) -> Iterator[str]:
    """What it is taken for."""
    yield f"{ref} {'is' if execute else 'would be'} {found.taken_for.value}"
    yield from both_sides(found.fields, found.currency)
    if not execute:
        yield DRY


def both_sides(fields: Iterable[Disputed], currency: str | None) -> Iterator[str]:
    """Fields with what shop and ERP have."""
    for one in fields:
        where = f"{one.part}:{one.key} " if one.part else ""
        ours, theirs = (_side(side, currency) for side in (one.ours, one.theirs))
        yield f"    {where}{one.name or 'all of it'}: the shop has {ours}, the ERP has {theirs}"


def account(ref: DocumentRef, found: AcceptedAccount, execute: bool) -> Iterator[str]:
    """Where his orders are booked to, and who else's are."""
    yield f"orders of {ref} {'are' if execute else 'would be'} booked to the ERP's account {found.number} from now on"
    yield from (f"    as those of {one}" for one in found.customers)
    yield "nothing of the account is changed; orders that the ERP has follow at their next change"
    if not execute:
        yield DRY


def account_undone(ref: DocumentRef, found: AcceptedAccount, execute: bool) -> Iterator[str]:
    """That he is given one of his own, and who keeps the shared one."""
    yield f"{ref} {'shares' if execute else 'would share'} the ERP's account {found.account} no more"
    yield from (f"    {one} keeps it" for one in found.customers)
    yield "he is given an account as any new customer; orders that the ERP has follow at their next change"
    if not execute:
        yield DRY


def _side(fields: Fields | None, currency: str | None) -> str:
    if fields is None:
        return "none"
    return ", ".join(shown(value, name, currency) for name, value in fields.items())
