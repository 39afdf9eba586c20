"""What the settings decide of planning, and what a plan comes to where a person must decide. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from sink.erp.contract import Cause
from sink.erp.kinds import Kind, Milestone


class Hold(NamedTuple):
    """The document waits for a person (or for the ERP's master data)."""

    reason: str
    next_step: str
    cause: Cause = "decision"


_Document = Literal["hold", "keep", "cancel_if_draft"]


class Absence(BaseModel):
    """What becomes in the ERP of what the shop had and has no more: a shop purges what it is done with. Customers stay
    always. `payments` and `lines` (charges and discounts, too) are those of an order that is still there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    orders: _Document = "hold"
    returns: _Document = "hold"
    refunds: _Document = "hold"
    prices: Literal["remove", "hold", "keep"] = "remove"
    payments: Literal["keep", "hold", "amend"] = "keep"
    lines: Literal["amend", "hold"] = "amend"

    def of(self, kind: Kind) -> Literal["hold", "keep", "cancel_if_draft", "remove"]:
        """What becomes of a document."""
        by_kind: dict[Kind, Literal["hold", "keep", "cancel_if_draft", "remove"]] = {
            "customer": "keep",
            "order": self.orders,
            "return": self.returns,
            "refund": self.refunds,
            "price": self.prices,
        }
        return by_kind[kind]


@dataclass(frozen=True)
class Policy:
    """What the settings decide. `goal`: how far an order is taken."""

    prices_owner: Literal["shop", "erp"]
    absent: Absence = field(default_factory=Absence)
    goal: Milestone = Milestone.CONFIRMED

    def goal_of(self, kind: Kind) -> Milestone:
        """How far a document of a kind is taken. A credit note stays a draft: a person posts it."""
        if kind == "refund":
            return Milestone.DRAFT
        return self.goal if kind == "order" else Milestone.CONFIRMED
