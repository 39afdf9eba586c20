"""What an ERP keeps: kinds of documents, their fields and parts, and how far a document has got. Pure data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final, Literal, NamedTuple

from sink.erp.money import money

Kind = Literal["customer", "order", "return", "refund", "price"]
KINDS: tuple[Kind, ...] = ("customer", "order", "return", "refund", "price")
PartKind = Literal["line", "charge", "discount", "component"]
PARTS: Mapping[Kind, tuple[PartKind, ...]] = {
    "customer": (),
    "order": ("line", "charge", "discount"),
    "return": ("line",),
    "refund": ("component",),
    "price": (),
}
"""The kinds of child that each kind of document has."""

BY_HAND = "hand:"


class ErpRef(NamedTuple):
    """A document in the ERP, or a child of one. `external` is the key that we gave it once (`shop/order/17/1`); the ERP
    keeps it, and it is unique. Documents that people typed in have `hand:` and the ERP's own key."""

    kind: Kind
    external: str

    def child(self, part: PartKind, key: str) -> ErpRef:
        """A child by its key in the record: `shop/order/17/1/line:3`."""
        return ErpRef(self.kind, f"{self.external}/{part}:{key}")

    def part_and_key(self, child: str) -> tuple[PartKind, str]:
        """The reverse: the part of this document that a child's external key names, and the child's key in the record.

        Keys that an earlier release gave to the lines of a return name no part.
        """
        rest = child.removeprefix(f"{self.external}/")
        found, _, key = rest.partition(":")
        for part in PARTS[self.kind]:
            if part == found and not child.startswith(BY_HAND):
                return part, key
        return PARTS[self.kind][0], rest


Value = str | bool | Decimal | datetime | ErpRef | None
Fields = Mapping[str, Value]


class Milestone(StrEnum):
    """How far a document in the ERP has got. The later, the harder it is to change."""

    DRAFT = "draft"
    CONFIRMED = "confirmed"
    PROCESSING = "processing"
    PART_DELIVERED = "part delivered"
    DELIVERED = "delivered"
    INVOICED = "invoiced"
    PAID = "paid"
    CLOSED = "closed"
    CANCELLED = "cancelled"

    def before(self, other: Milestone) -> bool:
        """Whether this comes before the other milestone; cancelled comes last."""
        return _IN_ORDER.index(self) < _IN_ORDER.index(other)


_IN_ORDER: Final = tuple(Milestone)


class Sums(NamedTuple):
    """The summed amounts of several rows."""

    net: Decimal = Decimal(0)
    tax: Decimal = Decimal(0)
    gross: Decimal = Decimal(0)


@dataclass(frozen=True)
class ErpRecord:
    """A document as an ERP keeps it: the fields of its head and of its children, as far as the shop owns them.

    Amounts are in the document's currency, rates in percent; times have a zone. `parts`: kind of child → key → fields.
    A field whose value is an ErpRef is a link: `account` (of an order, to a customer), `order` (of a return or refund)
    and `order_line` (of their children, to a child of the order). Links are compared and amended like other fields.

    `payments`: the payments that an order's `paid` adds up, by key. Only the ledger has them, to tell a payment that
    the shop deleted from one that it changed. None if an earlier release wrote the record.
    """

    kind: Kind
    fields: Fields
    parts: Mapping[PartKind, Mapping[str, Fields]] = field(default_factory=dict)
    payments: Mapping[str, Fields] | None = None


def same(one: Value, other: Value) -> bool:
    """Whether two values are equal: 1.0 equals 1.00, times are compared in any zone, an empty text equals None, blanks
    around a text are ignored, and so is the case of e-mail addresses."""
    if one == other:
        return True
    if isinstance(one, datetime) and isinstance(other, datetime):
        return _instant(one) == _instant(other)
    return _text(one) == _text(other)


def differing(one: Fields, other: Fields, names: Iterable[str] | None = None) -> list[str]:
    """The names of fields whose values differ. A missing field counts as empty."""
    if one == other:
        return []
    every = {*one, *other} if names is None else names
    unlike = [name for name in every if (a := one.get(name)) != (b := other.get(name)) and not same(a, b)]
    return sorted(unlike)


_COUNTED: Final = frozenset({"quantity", "tax_rate", "minimum_quantity"})
_PERSONAL: Final = frozenset({"name", "email", "company", "tax_id"})


def is_personal(name: str) -> bool:
    """Whether a head field says who or where somebody is. Reasons, histories and logs only name such a field."""
    return name in _PERSONAL or name.startswith(("billing_", "shipping_"))


def shown(value: Value, name: str = "", currency: Value = None) -> str:
    """A field's value for people: amounts with their cents, quantities and rates without trailing zeros."""
    match value:
        case None | "":
            return "nothing"
        case bool():
            return "yes" if value else "no"
        case ErpRef():
            return value.external
        case Decimal():
            return count(value) if name in _COUNTED else money(value, currency)
    return f"{value}"


def count(number: Decimal) -> str:
    """A quantity or rate for people: 2 for 2.000."""
    return f"{number.normalize():f}"


def not_kept(want: ErpRecord, found: ErpRecord) -> str:
    """Where the ERP stored something other than it was given: the field and both values; '' if it keeps everything.
    `found` has the fields and parts that this ERP gives back. Others are not compared."""
    currency = want.fields.get("currency")
    wrong = _unlike("", want.fields, found.fields, currency)
    for part, rows in found.parts.items():
        wanted = want.parts.get(part, {})
        for key in sorted({*wanted, *rows}):
            if key not in wanted or key not in rows:
                wrong.append(f"{part}:{key} is {'missing' if key not in rows else 'extra'}")
            else:
                wrong += _unlike(f"{part}:{key} ", wanted[key], rows[key], currency)
    return "; ".join(wrong[:5])


def _unlike(where: str, want: Fields, found: Fields, currency: Value) -> list[str]:
    return [
        f"{name}: the ERP stored another value"
        if not where and is_personal(name)
        else f"{where}{name}: the shop has {shown(want.get(name), name, currency)},"
        f" the ERP stored {shown(found[name], name, currency)}"
        for name in differing(want, found, found)
    ]


def _text(value: Value) -> Value:
    """An e-mail address in lower case, since an ERP may change the case of its domain."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    return text.lower() if "@" in text and " " not in text else text or None


def _instant(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value
