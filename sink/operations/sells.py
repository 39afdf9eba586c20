"""The master data that the shop's documents refer to and the ERP has not been given yet, from the copy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sink.database import Connection, Cursor, names_of, reading
from sink.documents.build import ready_keys, values
from sink.documents.profile import DocumentRule, Profile
from sink.erp.contract import Sells
from sink.ledger import listed

_PAGE: Final = 5_000
_RATE: Final = "tax_rate::numeric"
_DECIMALS: Final = "scale(trim_scale(quantity::numeric))"


def sells(connection: Connection, profile: Profile, shop: str) -> Sells:
    """SKUs, their decimals, price lists and tax rates of documents that are not in the ERP yet. Empty while there is no
    copy."""
    orders, prices = profile.of_model("SalesOrder"), profile.of_model("Price")
    with reading(connection) as cursor:
        lines = _values(cursor, shop, orders, "lines", "sku", _DECIMALS, _RATE)
        others = [row for part in ("charges", "discounts") for row in _values(cursor, shop, orders, part, _RATE)]
        listed_at = _values(cursor, shop, prices, "", "sku", "price_list", "tax_included")
    return Sells(
        skus={str(sku) for sku in (*(row[0] for row in lines), *(row[0] for row in listed_at)) if sku},
        price_lists={str(name): bool(included) for _, name, included in sorted(listed_at, key=str)},
        rates={row[-1] for row in (*lines, *others) if row[-1] is not None},
        decimals={str(sku): digits for sku, digits, _ in sorted(lines, key=lambda row: row[1] or 0) if sku and digits},
    )


def _values(cursor: Cursor, shop: str, rules: list[DocumentRule], part: str, *names: str) -> set[tuple[Any, ...]]:
    found: set[tuple[Any, ...]] = set()
    for rule in rules:
        for keys in _pages(listed.not_in_erp(cursor, rule.name)):
            with names_of(cursor, shop):
                ready = ready_keys(cursor, rule, keys)
                found |= values(cursor, rule, part, names, sorted(ready))
    return found


def _pages(keys: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(keys), _PAGE):
        yield keys[start : start + _PAGE]
