"""Checks that an order's figures add up, before the ERP sees them. Pure, exact, in the order's own currency."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from decimal import Decimal
from typing import Protocol

from sink.documents.models import Refund, SalesOrder
from sink.erp.kinds import Sums, count
from sink.erp.money import money


class _Amounts(Protocol):
    @property
    def net(self) -> Decimal: ...
    @property
    def tax(self) -> Decimal: ...
    @property
    def gross(self) -> Decimal: ...


class _Row(_Amounts, Protocol):
    @property
    def tax_rate(self) -> Decimal: ...


def per_rate(order: SalesOrder) -> dict[Decimal, Sums]:
    """Lines and charges less discounts, by tax rate in percent (1 and 1.00 are one rate)."""
    sums: dict[Decimal, Sums] = {}
    _add(sums, order.lines, 1)
    _add(sums, order.charges, 1)
    _add(sums, order.discounts, -1)
    return dict(sorted(sums.items()))


def total(rows: Collection[_Amounts]) -> Sums:
    """The sum over all rates."""
    zero = Decimal(0)
    return Sums(
        sum([row.net for row in rows], zero),
        sum([row.tax for row in rows], zero),
        sum([row.gross for row in rows], zero),
    )


def problem(order: SalesOrder) -> str | None:
    """Why the order does not add up, in words for the people who can correct it; None if it does."""
    if not order.lines:
        return "the order has no lines"
    of = order.currency
    for kind, rows in (("line", order.lines), ("charge", order.charges), ("discount", order.discounts)):
        for row in rows:
            if row.net + row.tax != row.gross:
                return f"{kind} {row.key}: {_unequal(row, of)}"
    if order.net + order.tax != order.gross:
        return f"the order's {_unequal(order, of, 'its gross')}"
    plus, minus = total([*order.lines, *order.charges]), total(order.discounts)
    found = Sums(plus.net - minus.net, plus.tax - minus.tax, plus.gross - minus.gross)
    for name, added, said in zip(Sums._fields, found, (order.net, order.tax, order.gross), strict=True):
        if added != said:
            rates = per_rate(order).items()
            parts = ", ".join(f"{count(rate)} %: {money(getattr(sums, name), of)}" for rate, sums in rates)
            sums = f"lines and charges less discounts are {money(added, of)} ({parts})"
            return f"{name}: {sums}, the order says {money(said, of)}"
    return None


def refund_problem(refund: Refund) -> str | None:
    """Why a refund does not add up; None if it does."""
    if not refund.components:
        return "the refund does not say what it is for"
    of = refund.currency
    for row in refund.components:
        if row.net + row.tax != row.gross:
            return f"component {row.key}: {_unequal(row, of)}"
    added = sum((row.gross for row in refund.components), Decimal(0))
    if added == refund.gross:
        return None
    return f"its components are {money(added, of)}, the refund says {money(refund.gross, of)}"


def _unequal(row: _Amounts, currency: str, of: str = "gross") -> str:
    net, tax, gross = (money(amount, currency) for amount in (row.net, row.tax, row.gross))
    return f"net {net} + tax {tax} is not {of} {gross}"


def _add(sums: dict[Decimal, Sums], rows: Iterable[_Row], sign: int) -> None:
    for row in rows:
        rate = row.tax_rate
        before = sums.get(rate, Sums())
        sums[rate] = Sums(before.net + sign * row.net, before.tax + sign * row.tax, before.gross + sign * row.gross)
