"""What a sale has become, and what its comment says: the same for orders, returns and refunds. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

from sink.erp.fields import FIELDS
from sink.erp.kinds import ErpRecord, ErpRef, Fields, Kind, Milestone, Value
from sink.erp.tryton import came_of, notes

Row = Mapping[str, Any]

STATES: Final = ("draft", "quotation", "confirmed", "processing", "done")
"""The states of a sale in their order, without `cancelled`."""
_BEFORE: Final = {"draft": Milestone.DRAFT, "quotation": Milestone.CONFIRMED, "confirmed": Milestone.CONFIRMED}
_BY_INVOICE: Final = {
    "paid": Milestone.PAID, "partially paid": Milestone.INVOICED, "awaiting payment": Milestone.INVOICED,
}  # fmt: skip
_BY_GOODS: Final = {"sent": Milestone.DELIVERED, "partially shipped": Milestone.PART_DELIVERED}

_SLIP: Final = "ordertap:"
_ACCOUNT: Final = "account"
_IN_COMMENT: Final[Mapping[Kind, tuple[str, ...]]] = {
    "order": ("placed_at", "tax_included", "paid", "payment_means", "payment_reference"),
    "return": ("returned_at",),
    "refund": ("refunded_at", "means"),
}
"""The head's fields that Tryton has no field for."""


def milestone(kind: Kind, row: Row) -> Milestone | None:
    """How far the sale has got; None for a state that the sink does not know. A refund is a draft until its credit note
    is there, whatever the state of its sale, and then in processing until that is posted. A sale cancelled in
    processing becomes `done` in Tryton, and counts as cancelled."""
    state = row["state"]
    if is_cancelled(row):
        return Milestone.CANCELLED
    if state not in STATES:
        return None
    if state in _BEFORE:
        return Milestone.DRAFT if kind == "refund" else _BEFORE[state]
    invoiced = _BY_INVOICE.get(row["invoice_state"]) or (Milestone.INVOICED if came_of.posted(row) else None)
    if kind == "refund":
        return invoiced or Milestone.PROCESSING
    left = Milestone.PART_DELIVERED if came_of.gone(row) else Milestone.PROCESSING
    return invoiced or _BY_GOODS.get(row["shipment_state"], left)


def is_cancelled(row: Row) -> bool:
    """Whether it was cancelled, before it was processed or since."""
    return row["state"] == "cancelled" or is_undone(row)


def is_undone(row: Row) -> bool:
    """Whether everything that came of it in processing was cancelled, and Tryton was told not to make it again."""
    if row["state"] not in ("processing", "done") or (row["invoice_state"], row["shipment_state"]) != ("none", "none"):
        return False
    moves = came_of.moves(row)
    return bool(moves or row["invoices_ignored"]) and all(move["state"] == "cancelled" for move in moves)


def stamp(record: ErpRecord, row: Row) -> str:
    """A stamp of the record, the states, the open slips, and what shipments and invoices do not allow. Tryton's own
    stamps are not in it: each call carries those as they were just read."""
    slips = sum(one["state"] == "draft" for one in row["amendments."])
    states = (row["state"], row["invoice_state"], row["shipment_state"], str(slips), str(_amended_by(row)))
    return ":".join((content(record), *states, beside_slips(record), ",".join(sorted(came_of.may_not(row)))))


class SaleStamp(NamedTuple):
    """The parts of a stamp. slips: how many are not validated yet. amended_by: the key of our step whose slip was
    validated last; 0 if a clerk's was, or none. beside: a digest of what no slip changes; "" in a stamp of an earlier
    release. may_not: the changes that shipments and invoices do not allow."""

    content: str
    state: str
    invoice: str
    shipment: str
    slips: int
    amended_by: int = 0
    beside: str = ""
    may_not: str = ""


def standing(stamp: str) -> SaleStamp:
    """Takes a stamp apart. A stamp of an earlier release lacks the last parts."""
    content_, state, invoice, shipment, slips, *rest = stamp.split(":")
    return SaleStamp(content_, state, invoice, shipment, int(slips), int(rest[0]) if rest else 0, *rest[1:])


def slip_of(key: int) -> str:
    """The description of the amendment that our step makes."""
    return f"{_SLIP}{key}"


def own_open_slips(row: Row) -> list[int]:
    """Ids of the slips that our steps made and that nobody has validated: what is left of steps that were broken
    off."""
    return [one["id"] for one in row["amendments."] if one["state"] == "draft" and _key_in(one)]


def _amended_by(row: Row) -> int:
    done = [one for one in row["amendments."] if one["state"] == "validated"]
    last = max(done, key=lambda one: (Decimal(one["_timestamp"]), one["id"]), default=None)
    return _key_in(last) if last else 0


def _key_in(slip: Row) -> int:
    """The key of the step of ours that made the slip; 0 if a clerk made it."""
    before, ours, key = str(slip["description"]).partition(_SLIP)
    return int(key) if ours and not before and key.isascii() and key.isdigit() else 0


def content(record: ErpRecord) -> str:
    """A digest of what the shop owns of a document."""
    rows = [(part, key, _plain(fields)) for part, some in record.parts.items() for key, fields in some.items()]
    told = repr((_plain(record.fields), sorted(rows)))
    return hashlib.blake2b(told.encode(), digest_size=12).hexdigest()


def beside_slips(record: ErpRecord) -> str:
    """A digest of what no slip changes: the shop's number, and the fields in the comment."""
    names = ("number", *_IN_COMMENT[record.kind])
    return content(ErpRecord(record.kind, {name: record.fields[name] for name in names if name in record.fields}))


def comment(kind: Kind, text: str | None, fields: Fields, key: int) -> str:
    """The comment with our line in it. key: the step's. It names an order's account, since a merged party has several
    keys."""
    names = (*_IN_COMMENT[kind], _ACCOUNT)
    return notes.written(text, {"key": key, **{name: fields[name] for name in names if name in fields}})


def account_named(text: str | None) -> ErpRef | None:
    """The account in the comment; None if somebody emptied it, or an earlier release wrote it."""
    key = notes.read(text).get(_ACCOUNT)
    return ErpRef("customer", key) if isinstance(key, str) else None


def commented(kind: Kind, text: str | None) -> tuple[int, Fields]:
    """The key of the last step, and the fields in the comment. If somebody emptied it: 0, and no fields."""
    data = notes.read(text)
    types = {name: FIELDS[kind][name] for name in _IN_COMMENT[kind]}
    key = data.get("key")
    return key if isinstance(key, int) else 0, notes.typed(data, types)


def _plain(fields: Fields) -> list[tuple[str, str]]:
    return sorted((name, _text(value)) for name, value in fields.items())


def _text(value: Value) -> str:
    return f"{value.normalize():f}" if isinstance(value, Decimal) else str(value or "")
