"""What the settings decide of planning, and what a plan comes to where a person must decide. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from sink.erp.contract import Cause
from sink.erp.kinds import Fields, Kind, Milestone


class Check(StrEnum):
    """What a held document did not pass, by name: what ends the hold follows from it (`ways_out`)."""

    IDENTITY = "identity"  # the shop's key stands for another order than before
    MOVED = "moved"  # the shop may have changed its key
    CHANGED = "changed in the ERP"
    POSTED = "posted"  # the planner's table refuses the change, or the adapter does
    ITS_ORDER = "its order"  # the table refuses a return or refund of it
    BRAKE = "brake"  # too much was changed at once
    TOTALS = "totals"
    CAP = "cap"
    DELETED = "deleted"
    ABSENT = "absent"  # rows of an order that is there still
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
    """A field that shop and ERP have otherwise: `ours` is what the shop wants, `wrote` what the ERP was given last.

    Of the head where `part` and `key` are empty, else of that child. Each side has that one field; None: it has no such
    child. Without a `name` it is all of a child. `by`, `at`: who has accepted it, and when (ISO 8601), "" for nobody.
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
    """The document waits for a person (or for the ERP's master data). `disputed`: what a person may accept as it is."""

    reason: str
    next_step: str
    cause: Cause = "decision"
    check: Check = Check.FAILED
    disputed: tuple[Disputed, ...] = ()


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
    """What the settings decide. `goal`: how far an order is taken. `placeholder`: the item that is booked for those
    that the ERP does not have; "": none is."""

    prices_owner: Literal["shop", "erp"]
    absent: Absence = field(default_factory=Absence)
    goal: Milestone = Milestone.CONFIRMED
    placeholder: str = ""

    def goal_of(self, kind: Kind) -> Milestone:
        """How far a document of a kind is taken. A credit note stays a draft: a person posts it."""
        if kind == "refund":
            return Milestone.DRAFT
        return self.goal if kind == "order" else Milestone.CONFIRMED
