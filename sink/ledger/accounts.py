"""Which ERP account a buyer has: one of his own (virtual, 1:1, numbered in the middle layer) or a collective one."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from sink.database import Cursor
from sink.documents.models import Customer

AccountPolicy = Literal["account_per_buyer", "collective"]


def account_key(shop: str, customer: Customer) -> str:
    """What one account stands for: a buyer of a shop; guests are known by their e-mail, normalised.

    A guest without an e-mail is known by the shop's key alone.
    """
    if customer.kind == "guest" and customer.email and customer.email.strip():
        return f"{shop}/guest/{normalised(customer.email)}"
    return f"{shop}/{customer.key}"


def normalised(email: str) -> str:
    """Two spellings of one mailbox are one buyer; nothing provider-specific (dots, plus) is guessed."""
    return email.strip().casefold()


def account_numbers(cursor: Cursor, keys: Collection[str]) -> dict[str, str]:
    """The numbers of virtual accounts, given at first use and then for ever the same. In the caller's transaction.

    Each begins with the shop, for each shop counts by itself and the ERP may have accounts of several: `shop-100001`.
    """
    if not keys:
        return {}
    cursor.execute("SELECT customer, number FROM account WHERE customer = ANY(%s)", (list(keys),))
    found = dict(cursor.fetchall())
    # Sorted: two workers may meet two guests' second orders at once. The first one's number stays.
    for key in sorted(set(keys) - found.keys()):
        cursor.execute(
            "INSERT INTO account (customer, number) VALUES (%s, %s || '-' || nextval('account_number'))"
            " ON CONFLICT (customer) DO UPDATE SET customer = excluded.customer RETURNING customer, number",
            (key, key.partition("/")[0]),
        )
        found |= dict(cursor.fetchall())
    return found
