"""Exact amounts: the tax in a gross amount, and splitting to the cent. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal

CENT = Decimal("0.01")


def to_cents(amount: Decimal) -> Decimal:
    """Rounded to the cent, half up as shops do."""
    return amount.quantize(CENT, ROUND_HALF_UP)


def tax_in(gross: Decimal, rate: Decimal) -> Decimal:
    """The tax that an amount with tax contains, to the cent; `rate` in percent."""
    return to_cents(gross * rate / (100 + rate))


def allocate(amount: Decimal, weights: Sequence[Decimal]) -> list[Decimal]:
    """Splits an amount (not negative) by weights, exact to the cent, by largest remainder.

    ValueError if there is an amount but all weights are zero.
    """
    total = sum(weights, Decimal(0))
    if not total:
        if amount:
            raise ValueError("an amount cannot be split by weights that are all zero")
        return [Decimal(0) for _ in weights]
    exact = [amount * weight / total for weight in weights]
    shares = [share.quantize(CENT, ROUND_DOWN) for share in exact]
    missing = int((amount - sum(shares, Decimal(0))) / CENT)
    for index in sorted(range(len(shares)), key=lambda i: exact[i] - shares[i], reverse=True)[:missing]:
        shares[index] += CENT
    return shares
