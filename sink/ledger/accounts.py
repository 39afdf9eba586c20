"""Which ERP account a buyer has: one of his own (virtual, 1:1, numbered in the middle layer) or a collective one."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from sink.database import Cursor

AccountPolicy = Literal["account_per_buyer", "collective"]


def begin_at(cursor: Cursor, first: int) -> None:
    """New accounts are numbered from here on, unless the count is past it: it never goes back."""
    cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(current_schema || '.account_number', 0))")
    cursor.execute(
        "SELECT setval('account_number', %s, false) FROM account_number WHERE last_value < %s OR NOT is_called",
        (first, first),
    )


def account_numbers(cursor: Cursor, shop: str, prefix: str, customers: Collection[str]) -> dict[str, str]:
    """The numbers of virtual accounts by the customers' keys, given at first use. In the caller's transaction.

    A number belongs to the key alone and stays, whatever becomes of e-mail, kind or prefix. Each shop counts by itself,
    and the ERP may have accounts of several: the prefix tells them apart, as in `shop-100001`, or the range does.
    """
    if not customers:
        return {}
    keys = {f"{shop}/{customer}": customer for customer in customers}
    cursor.execute("SELECT customer, number FROM account WHERE customer = ANY(%s)", (list(keys),))
    found = dict(cursor.fetchall())
    # Sorted: two workers may meet the same buyers at once. The first one's number stays.
    cursor.execute(
        "INSERT INTO account (customer, number)"
        " SELECT key, %s || nextval('account_number') FROM unnest(%s::text[]) AS key"
        " ON CONFLICT (customer) DO UPDATE SET customer = excluded.customer RETURNING customer, number",
        (prefix, sorted(keys.keys() - found.keys())),
    )
    found |= dict(cursor.fetchall())
    return {keys[key]: number for key, number in found.items()}


def next_number(cursor: Cursor, shop: str, prefix: str, customer: str) -> str:
    """Another number for a customer whose own is of an account in the ERP that is not his."""
    cursor.execute(
        "UPDATE account SET number = %s || nextval('account_number') WHERE customer = %s RETURNING number",
        (prefix, f"{shop}/{customer}"),
    )
    (number,) = cursor.fetchone() or ("",)
    return str(number)


def move(cursor: Cursor, shop: str, old: str, new: str) -> None:
    """A customer's number stays his when the shop changes his key."""
    cursor.execute("DELETE FROM account WHERE customer = %s", (f"{shop}/{new}",))
    cursor.execute("UPDATE account SET customer = %s WHERE customer = %s", (f"{shop}/{new}", f"{shop}/{old}"))
