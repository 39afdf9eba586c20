"""What the settings decide of planning, and what a plan comes to where a person must decide. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from sink.erp.contract import Cause
from sink.erp.kinds import Kind, Milestone


class Hold(NamedTuple):
    """The document waits for a person (or for the ERP's master data)."""

    reason: str
    next_step: str
    cause: Cause = "decision"


@dataclass(frozen=True)
class Policy:
    """What the settings decide. `goal`: how far an order is taken."""

    prices_owner: Literal["shop", "erp"]
    order_deleted: Literal["hold", "keep"] = "hold"
    goal: Milestone = Milestone.CONFIRMED

    def goal_of(self, kind: Kind) -> Milestone:
        """How far a document of a kind is taken. A credit note stays a draft: a person posts it."""
        if kind == "refund":
            return Milestone.DRAFT
        return self.goal if kind == "order" else Milestone.CONFIRMED
