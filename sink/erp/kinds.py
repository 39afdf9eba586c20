"""What an ERP keeps: kinds of documents, their fields and lines, and what a document has become there. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Literal

Value = str | bool | Decimal | datetime | None
Fields = Mapping[str, Value]
Kind = Literal["customer", "order", "return", "refund", "price"]
KINDS: tuple[Kind, ...] = ("customer", "order", "return", "refund", "price")


class Milestone(StrEnum):
    """What an ERP document has become. Later ones are further from being changed."""

    DRAFT = "draft"
    CONFIRMED = "confirmed"
    PART_DELIVERED = "part delivered"
    DELIVERED = "delivered"
    INVOICED = "invoiced"
    PAID = "paid"
    CLOSED = "closed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class ErpRecord:
    """A document as an ERP keeps it: fields of the head, and lines by their key. Only fields that the shop owns."""

    kind: Kind
    fields: Fields
    lines: Mapping[str, Fields] = field(default_factory=dict)
