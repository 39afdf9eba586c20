"""Which changes are counted, so that a mass of them waits for a person. Pure.

What is new is never counted: an import of 20,000 orders is no mass change. Orders, returns and refunds count by their
number, prices by the size of the change and the share of the list: a nightly list of 10,000 small changes is normal.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, get_args

from sink.erp.contract import Step
from sink.erp.kinds import ErpRecord, Value

Mass = Literal["orders", "prices"]
MASSES: tuple[Mass, ...] = get_args(Mass)
"""What is counted together."""


@dataclass(frozen=True)
class Brake:
    """As the settings say it. `orders`: how many amendments and cancellations pass within `seconds`. `percent`: from
    what size on the change of a price counts; `share` (percent of the list) and `prices`: the larger of both pass."""

    orders: int = 50
    percent: float = 20.0
    share: float = 10.0
    prices: int = 20
    seconds: float = 3600.0


def counted(step: Step, applied: ErpRecord | None, brake: Brake) -> Mass | None:
    """What a step counts as. `applied`: the document as it was written last."""
    if step.ref.kind == "price":
        large = step.verb == "amend" and _is_large(step.want, applied, brake.percent)
        return "prices" if step.verb == "remove" or large else None
    changed = step.verb in ("amend", "reopen", "cancel")
    return "orders" if changed and step.ref.kind in ("order", "return", "refund") else None


def _is_large(want: ErpRecord, applied: ErpRecord | None, percent: float) -> bool:
    """Whether the price differs by more than so many percent of what it was, or is one of another kind."""
    if applied is None or any(
        want.fields.get(name) != applied.fields.get(name) for name in ("currency", "tax_included")
    ):
        return True
    was, now = _amount(applied.fields.get("amount")), _amount(want.fields.get("amount"))
    return abs(now - was) * 100 > abs(was) * Decimal(str(percent))


def _amount(value: Value) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(0)
