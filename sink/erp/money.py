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
"""Currencies by their number of decimals, where ISO 4217 does not say two."""
_OF: Final = {currency: digits for digits, currencies in _DECIMALS.items() for currency in currencies.split()}


def money(amount: Decimal | None, currency: object = None) -> str:
    """An amount for people: 1,234.50 in most currencies, 1,235 in yen; "" for None. `currency`: its code, if known.
    Nothing is rounded: decimals beyond the currency's are shown."""
    if amount is None:
        return ""
    exponent = amount.normalize().as_tuple().exponent
    least = _OF.get(str(currency), 2)
    return f"{amount:,.{max(least, -exponent) if isinstance(exponent, int) else least}f}"
