"""`sink accept account`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple

from schemas.model.errors import SettingsError
from sink.database import Connection, Cursor, transaction
from sink.documents.profile import Profile
from sink.documents.refs import DocumentRef
from sink.erp.contract import Erp, Found
from sink.erp.kinds import Milestone
from sink.ledger import decisions, documents, history, marks
from sink.operations.accept import busy


class AcceptedAccount(NamedTuple):
    """The account's number, its key in the ERP, and the other customers who have or share it."""

    number: str
    account: str
    customers: tuple[DocumentRef, ...]


def accept_account(
    connection: Connection,
    profile: Profile,
    erp: Callable[[], Erp],
    ref: DocumentRef,
    number: str,
    person: str,
    execute: bool,
) -> AcceptedAccount:
    """Books the orders of a customer who has no account to one that the ERP has. `execute` does it.

    SettingsError if the ERP does not have exactly one account of that number, or the customer has an account.
    """
    if ref.type not in {rule.name for rule in profile.of_model("Customer")}:
        raise SettingsError(f"{ref} is not a customer", "`sink list` shows what documents are called")
    account = _account(erp, number).ref.external
    with transaction(connection) as cursor:
        if execute:
            marks.look_at(cursor, [ref])  # no worker can take it from here on
        _refuse(cursor, ref)
        if execute:
            documents.save(cursor, ref, account=account)
            history.note(cursor, ref, "account accepted", number, person)
        others = tuple(one for one in documents.sharing(cursor, account) if one != ref)
        return AcceptedAccount(number, account, others)


def undo_account(connection: Connection, ref: DocumentRef, person: str, execute: bool) -> AcceptedAccount:
    """Ends the sharing of an account, whether a person or a match began it: the customer gets one like any new
    customer. `execute` does it. `number` of the result is the account's key. SettingsError if none is shared."""
    with transaction(connection) as cursor:
        if execute:
            marks.look_at(cursor, [ref])
        one, asked = documents.entry(cursor, ref), decisions.asked(cursor, ref)
        if one is None or asked is None or one.account is None:
            raise SettingsError(f"{ref} shares no account", "`sink show` says which one it has")
        if asked.busy:
            raise busy(ref)
        others = tuple(other for other in documents.sharing(cursor, one.account) if other != ref)
        if execute:
            documents.save(cursor, ref, account=None)
            history.note(cursor, ref, "account accept undone", one.account, person)
        return AcceptedAccount(one.account, one.account, others)


def _account(erp: Callable[[], Erp], number: str) -> Found:
    with closing(erp()) as opened:
        found = opened.find("customer", {"number": number})
    found = [one for one in found if one.observed.milestone is not Milestone.CANCELLED]
    if len(found) != 1:
        reason = f"the ERP has {len(found) or 'no'} accounts {number} in use"
        raise SettingsError(reason, "give the number of one that it has")
    return found[0]


def _refuse(cursor: Cursor, ref: DocumentRef) -> None:
    one, asked = documents.entry(cursor, ref), decisions.asked(cursor, ref)
    if one is None or asked is None:
        raise SettingsError(f"there is no document {ref}", "`sink list` shows them")
    if one.state == "ignored":
        raise SettingsError(f"a person ignores {ref}", f"`sink ignore --undo {ref} --person NAME` first")
    if one.applied is not None:
        step = "merge them in the ERP, if they are one"
        raise SettingsError(f"{ref} has an account of its own in the ERP, {one.reference}", step)
    if asked.busy:
        raise busy(ref)
