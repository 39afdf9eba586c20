"""Account numbers that the middle layer gives to customers, and claims of new customers who may share an account."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

from sink.database import OF_THESE, Cursor, TextArray, these
from sink.documents.refs import DocumentRef
from sink.ledger.outcomes import State

AccountPolicy = Literal["account_per_buyer", "match", "collective"]

_NOT_COMING = [State.DONE, State.GONE, State.IGNORED, State.NOT_READY, State.EARLY]
"""States of a customer who is neither in the ERP nor on the way there."""


def begin_at(cursor: Cursor, first: int) -> None:
    """Numbers new accounts from `first` on. The count never goes back."""
    cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(current_schema || '.account_number', 0))")
    cursor.execute(
        "SELECT setval('account_number', %s, false) FROM account_number WHERE last_value < %s OR NOT is_called",
        (first, first),
    )


def account_numbers(cursor: Cursor, shop: str, prefix: str, customers: Collection[str]) -> dict[str, str]:
    """Account numbers by customer key, such as `shop-100001`, given at first use in the caller's transaction.

    A number belongs to the key for good, even if e-mail, kind or prefix change. Each shop counts by itself, so in an
    ERP of several shops a prefix or a range of its own has to tell their accounts apart.
    """
    if not customers:
        return {}
    keys = {f"{shop}/{customer}": customer for customer in customers}
    cursor.execute("SELECT customer, number FROM account WHERE customer = ANY(%s)", (TextArray(keys),))
    found = dict(cursor.fetchall())
    # Sorted, because two workers may insert the same buyers at once. The first one's number stays.
    cursor.execute(
        "INSERT INTO account (customer, number)"
        " SELECT key, %s || nextval('account_number') FROM unnest(%s) AS key"
        " ON CONFLICT (customer) DO UPDATE SET customer = excluded.customer RETURNING customer, number",
        (prefix, TextArray(sorted(keys.keys() - found.keys()))),
    )
    found |= dict(cursor.fetchall())
    return {keys[key]: number for key, number in found.items()}


def next_number(cursor: Cursor, shop: str, prefix: str, customer: str) -> str:
    """Gives a customer a new number, because another account in the ERP has the old one."""
    cursor.execute(
        "UPDATE account SET number = %s || nextval('account_number') WHERE customer = %s RETURNING number",
        (prefix, f"{shop}/{customer}"),
    )
    (number,) = cursor.fetchone() or ("",)
    return str(number)


def move(cursor: Cursor, shop: str, old: str, new: str) -> None:
    """Keeps a customer's number when the shop changes the customer's key."""
    cursor.execute("DELETE FROM account WHERE customer = %s", (f"{shop}/{new}",))
    cursor.execute("UPDATE account SET customer = %s WHERE customer = %s", (f"{shop}/{new}", f"{shop}/{old}"))


def claim(cursor: Cursor, wanted: Mapping[DocumentRef, Collection[str]]) -> dict[DocumentRef, DocumentRef]:
    """Claims identities (hashes of number, e-mail or tax id) for new customers. Returns those who have to wait, each
    with the customer who has claimed the same identity and is not in the ERP yet. Whoever waits claims nothing.

    Runs in the caller's transaction, under one lock per shop: two workers may meet two such customers at once.
    """
    if not wanted:
        return {}
    cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(current_schema || '.account_claim', 0))")
    cursor.execute(
        f"DELETE FROM account_claim AS c WHERE {OF_THESE} OR NOT EXISTS (SELECT FROM document AS d"  # noqa: S608  ours
        "  WHERE d.type = c.type AND d.key = c.key AND applied IS NULL AND account IS NULL AND state <> ALL(%s))",
        (*these(wanted), _NOT_COMING),
    )
    cursor.execute("SELECT identity, type, key FROM account_claim")  # few rows: only customers on their way
    taken = {identity: DocumentRef(type_, key) for identity, type_, key in cursor.fetchall()}
    waits: dict[DocumentRef, DocumentRef] = {}
    for ref, identities in wanted.items():
        other = next((taken[one] for one in identities if one in taken), None)
        if other is not None:
            waits[ref] = other
            continue
        taken |= dict.fromkeys(identities, ref)
        rows = [(one, *ref) for one in identities]
        cursor.executemany("INSERT INTO account_claim (identity, type, key) VALUES (%s, %s, %s)", rows)
    return waits
