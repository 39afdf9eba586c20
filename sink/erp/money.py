"""Amounts as people write them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

_DECIMALS: Final[Mapping[int, str]] = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
"""By how many decimals a currency has, where ISO 4217 does not say two."""
_OF: Final = {currency: digits for digits, currencies in _DECIMALS.items() for currency in currencies.split()}


def money(amount: Decimal | None, currency: object = None) -> str:
    """1,234.50 of most currencies, 1,235 of yen, and 0.0425 where it is so; "" for no amount.

    `currency`: its code, where it is known. Nothing is rounded: what has more decimals than its currency shows them.
    """
    if amount is None:
        return ""
    exponent = amount.normalize().as_tuple().exponent
    least = _OF.get(str(currency), 2)
    return f"{amount:,.{max(least, -exponent) if isinstance(exponent, int) else least}f}"
