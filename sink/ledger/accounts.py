"""Which ERP account a buyer has: one of his own (virtual, 1:1, numbered in the middle layer) or a collective one."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from sink.database import Cursor

AccountPolicy = Literal["account_per_buyer", "collective"]


def account_numbers(cursor: Cursor, shop: str, customers: Collection[str]) -> dict[str, str]:
    """The numbers of virtual accounts by the customers' keys, given at first use. In the caller's transaction.

    A number belongs to the key alone and stays, whatever becomes of e-mail or kind. Each begins with the shop, for each
    shop counts by itself and the ERP may have accounts of several: `shop-100001`.
    """
    if not customers:
        return {}
    keys = {f"{shop}/{customer}": customer for customer in customers}
    cursor.execute("SELECT customer, number FROM account WHERE customer = ANY(%s)", (list(keys),))
    found = dict(cursor.fetchall())
    # Sorted: two workers may meet the same buyers at once. The first one's number stays.
    cursor.execute(
        "INSERT INTO account (customer, number)"
        " SELECT key, %s || '-' || nextval('account_number') FROM unnest(%s::text[]) AS key"
        " ON CONFLICT (customer) DO UPDATE SET customer = excluded.customer RETURNING customer, number",
        (shop, sorted(keys.keys() - found.keys())),
    )
    found |= dict(cursor.fetchall())
    return {keys[key]: number for key, number in found.items()}


def move(cursor: Cursor, shop: str, old: str, new: str) -> None:
    """A customer's number stays his when the shop changes his key."""
    cursor.execute("DELETE FROM account WHERE customer = %s", (f"{shop}/{new}",))
    cursor.execute("UPDATE account SET customer = %s WHERE customer = %s", (f"{shop}/{new}", f"{shop}/{old}"))
