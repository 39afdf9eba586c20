"""Which changes the brake counts, so that too many of them wait for a person. Pure.

New documents never count: an import of 20,000 orders is no mass change. Changed orders, returns and refunds all count.
Prices count if the change is large, and the limit is a share of the list: 10,000 small changes a night are normal.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, get_args

from sink.erp.contract import Step
from sink.erp.kinds import ErpRecord, Value

Mass = Literal["orders", "prices"]
MASSES: tuple[Mass, ...] = get_args(Mass)
"""Kinds of changes, each with a counter."""


@dataclass(frozen=True)
class Brake:
    """The limits from the settings. `orders`: amendments and cancellations that pass within `seconds`. `percent`: a
    price counts if it changes by more. `share` (percent of the list) and `prices`: the larger of the two passes."""

    orders: int = 50
    percent: float = 20.0
    share: float = 10.0
    prices: int = 20
    seconds: float = 3600.0


def counted(step: Step, applied: ErpRecord | None, brake: Brake) -> Mass | None:
    """The counter that a step counts for, or None. `applied`: the record written last."""
    if step.ref.kind == "price":
        large = step.verb == "amend" and _is_large(step.want, applied, brake.percent)
        return "prices" if step.verb == "remove" or large else None
    changed = step.verb in ("amend", "cancel")
    return "orders" if changed and step.ref.kind in ("order", "return", "refund") else None


def _is_large(want: ErpRecord, applied: ErpRecord | None, percent: float) -> bool:
    """Whether the price changes by more than `percent`, or in currency, or in whether tax is included."""
    if applied is None or any(
        want.fields.get(name) != applied.fields.get(name) for name in ("currency", "tax_included")
    ):
        return True
    was, now = _amount(applied.fields.get("amount")), _amount(want.fields.get("amount"))
    return abs(now - was) * 100 > abs(was) * Decimal(str(percent))


def _amount(value: Value) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(0)
