"""The settings that planning goes by, and holds. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from sink.erp.contract import Cause
from sink.erp.kinds import Fields, Kind, Milestone


class Check(StrEnum):
    """The check that a held document did not pass. It decides what ends the hold (`ways_out`)."""

    IDENTITY = "identity"  # number, date or buyer differ from what was sent under the key
    MOVED = "moved"  # the shop may have changed its key
    CHANGED = "changed in the ERP"
    POSTED = "posted"  # the planner's table refuses the change, or the adapter does
    ITS_ORDER = "its order"  # the table refuses a return or refund of it
    BRAKE = "brake"  # too many changes at once
    TOTALS = "totals"
    CAP = "cap"
    DELETED = "deleted"
    ABSENT = "absent"  # payments or lines are gone from an order that is there
    TAKEN_BACK = "taken back"
    LOST = "no longer in the ERP"
    LINK = "link"  # the ERP's document that it was linked to cannot be taken for it
    STRANGER = "unknown to the ledger"
    UNREADABLE = "unreadable in the ERP"
    REFUSED = "refused by the ERP"
    UNCLEAR = "unclear"  # nobody knows whether a step was done
    UNKNOWN_ITEM = "unknown item"
    NO_ACCOUNT = "no account"
    SEVERAL_ACCOUNTS = "several accounts"
    NO_BUYER = "no buyer"
    NO_LINES = "no lines"
    INVALID = "invalid"  # the shop's rows make no document
    GAP = "gap"
    NAME = "name"  # of the document in the profile
    FAILED = "failed"  # an error that nobody expected


class Disputed(NamedTuple):
    """A field that differs: `ours` is the shop's value, `theirs` the ERP's, `wrote` what the ERP was given last.

    Empty `part` and `key`: a field of the head; otherwise of that child. Empty `name`: the whole child. A side is None
    if it has no such child. `by`, `at`: who accepted the difference, and when (ISO 8601); "" if nobody did.
    """

    part: str
    key: str
    name: str
    ours: Fields | None
    theirs: Fields | None
    wrote: Fields | None
    by: str = ""
    at: str = ""


class Hold(NamedTuple):
    """The document waits for a person, or for the ERP's master data. `disputed`: the differences that a person may
    accept."""

    reason: str
    next_step: str
    cause: Cause = "decision"
    check: Check = Check.FAILED
    disputed: tuple[Disputed, ...] = ()


_Document = Literal["hold", "keep", "cancel_if_draft"]


class Absence(BaseModel):
    """What happens in the ERP to what the shop has deleted. Customers always stay. `payments` and `lines` (with charges
    and discounts) are those of an order that is still there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    orders: _Document = "hold"
    returns: _Document = "hold"
    refunds: _Document = "hold"
    prices: Literal["remove", "hold", "keep"] = "remove"
    payments: Literal["keep", "hold", "amend"] = "keep"
    lines: Literal["amend", "hold"] = "amend"

    def of(self, kind: Kind) -> Literal["hold", "keep", "cancel_if_draft", "remove"]:
        """What happens to a deleted document of this kind."""
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
    """`goal`: the milestone that orders are taken to. `placeholder`: the item that stands for unknown ones; "" for
    none. `refund_goal`: the milestone at which a refund is a draft credit note in this ERP."""

    prices_owner: Literal["shop", "erp"]
    absent: Absence = field(default_factory=Absence)
    goal: Milestone = Milestone.CONFIRMED
    placeholder: str = ""
    refund_goal: Milestone = Milestone.DRAFT

    def goal_of(self, kind: Kind) -> Milestone:
        """The milestone that documents of this kind are taken to. A credit note stays a draft, which a person posts."""
        if kind == "refund":
            return self.refund_goal
        return self.goal if kind == "order" else Milestone.CONFIRMED

    def is_draft(self, kind: Kind, milestone: Milestone | None) -> bool:
        """Whether a document of this kind is a draft at this milestone. A draft credit note is one."""
        return milestone is Milestone.DRAFT or (kind == "refund" and milestone is self.refund_goal)
