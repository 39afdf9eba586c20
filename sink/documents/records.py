"""Turns canonical documents into the records that an ERP keeps. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from sink.documents.models import (
    Address,
    Charge,
    Customer,
    Discount,
    Document,
    Line,
    Part,
    Payment,
    Price,
    Refund,
    RefundComponent,
    ReturnOrder,
    SalesOrder,
)
from sink.erp.kinds import ErpRecord, ErpRef, Fields, Kind, PartKind, Value

KIND_OF: dict[type[Part], Kind] = {
    Customer: "customer",
    SalesOrder: "order",
    ReturnOrder: "return",
    Refund: "refund",
    Price: "price",
}


PAID: Final = ("paid", "payment_means", "payment_reference")
"""The fields of an order that come from its payments."""


def record(document: Document, parents: Fields, items: dict[str, str] | None = None) -> ErpRecord:
    """The ERP's record of a document. `parents`: links to what it belongs to (`account`, `order`), and an account's
    `number`. Without its order, the children of a return or refund name no sold line. `items`: SKU → the item to book
    instead (placeholder)."""
    match document:
        case Customer():
            return ErpRecord("customer", {**_customer(document), **parents})
        case SalesOrder():
            payments = {one.key: _payment(one) for one in document.payments}
            fields: Fields = {**_order(document), **paid_by(payments), **parents}
            return ErpRecord("order", fields, _order_parts(document, items or {}), payments)
        case ReturnOrder():
            lines = {
                line.key: {**_sold(parents, line.order_line), "quantity": line.quantity, "reason": line.reason}
                for line in document.lines
            }
            fields = {"number": document.number, "returned_at": document.returned_at}
            return ErpRecord("return", {**fields, **parents}, {"line": lines})
        case Refund():
            components = {
                row.key: {**_sold(parents, row.order_line), **_amounts(row.kind, None, row, 1)}
                for row in document.components
            }
            return ErpRecord("refund", {**_refund(document), **parents}, {"component": components})
        case Price():
            names = ("sku", "price_list", "currency", "amount", "tax_included", "valid_from", "valid_until")
            price: dict[str, Value] = {name: getattr(document, name) for name in names}
            return ErpRecord("price", price | {"minimum_quantity": document.minimum_quantity})


def _sold(parents: Fields, line: str | None) -> Fields:
    """The link to the line that was sold."""
    order = parents.get("order")
    if not isinstance(order, ErpRef):
        return {}
    return {"order_line": None if line is None else order.child("line", line)}


def _payment(one: Payment) -> Fields:
    fields: Fields = {"means": one.means, "amount": one.amount, "reference": one.reference}
    return {**fields, "refund": one.refund} if one.is_of_refund else fields


def paid_by(payments: Mapping[str, Fields]) -> Fields:
    """The order's fields that payments make; a payment has means, amount and reference. Money given back that a refund
    carries over (`refund`) is left out, because the ERP would have it twice."""
    counted = [one for one in payments.values() if not one.get("refund")]
    amounts = [one["amount"] for one in counted]
    references = [str(one["reference"]) for one in counted if one["reference"]]
    return {
        "paid": sum((amount for amount in amounts if isinstance(amount, Decimal)), Decimal(0)),
        "payment_means": ", ".join(sorted({str(one["means"]) for one in counted})) or None,
        "payment_reference": ", ".join(references) or None,
    }


def fingerprint(document: Document) -> str | None:
    """What must stay the same under one key: number, time of placing, buyer. None for a document without such an
    identity. The buyer comes last, and is empty if the shop has erased the buyer: see `same_identity`.
    """
    if isinstance(document, SalesOrder):
        placed_at = document.placed_at.astimezone(UTC)  # the zone is the database session's, and may change
        return f"{document.number}|{placed_at.isoformat()}|{document.customer or ''}"
    return None


def same_identity(one: str, other: str) -> bool:
    """Whether two fingerprints belong to one document. A buyer whom the shop erased still counts as the same."""
    (what, _, buyer), (was, _, sold_to) = one.rpartition("|"), other.rpartition("|")
    return what == was and (buyer == sold_to or not buyer or not sold_to)


def worth(document: object) -> tuple[Decimal, str] | None:
    """Gross of a document, or the amount of a price, and its currency; None if it has no money."""
    match document:
        case SalesOrder() | Refund():
            return document.gross, document.currency
        case Price():
            return document.amount, document.currency
    return None


def may_be_same(one: str, other: str) -> bool:
    """Whether two fingerprints are alike enough to cancel the order: at most one of number, date and buyer may differ,
    because of a correction. A restored shop uses a number again at another time, for another buyer."""
    ours, theirs = one.rsplit("|", 2), other.rsplit("|", 2)
    return sum(a == b for a, b in zip(ours, theirs, strict=True)) >= 2


def _customer(customer: Customer) -> dict[str, Value]:
    fields: dict[str, Value] = {
        "name": customer.name,
        "email": customer.email,
        "company": customer.company,
        "tax_id": customer.tax_id,
        "kind": customer.kind,
    }
    return fields | _address("billing", customer.addresses)


def _order(order: SalesOrder) -> dict[str, Value]:
    fields: dict[str, Value] = {
        "number": order.number,
        "placed_at": order.placed_at,
        "currency": order.currency,
        "tax_included": order.tax_included,
        "net": order.net,
        "tax": order.tax,
        "gross": order.gross,
    }
    return fields | _address("billing", order.addresses) | _address("shipping", order.addresses)


def _order_parts(order: SalesOrder, items: dict[str, str]) -> dict[PartKind, dict[str, Fields]]:
    return {
        "line": {line.key: _item(line, items) for line in order.lines},
        "charge": {charge.key: _amounts("charge", charge.kind, charge, 1) for charge in order.charges},
        "discount": {
            row.key: _amounts("discount", row.name or row.code or "discount", row, -1) for row in order.discounts
        },
    }


def _item(line: Line, items: dict[str, str]) -> Fields:
    booked = items.get(line.sku)
    return {
        "kind": "item",
        "sku": booked or line.sku,
        "name": f"{line.sku} {line.name}".strip() if booked else line.name,
        "quantity": line.quantity,
        "unit_price": line.unit_price,
        "discount": line.discount,
        "tax_rate": line.tax_rate,
        "net": line.net,
        "tax": line.tax,
        "gross": line.gross,
    }


def _amounts(kind: str, name: str | None, row: Charge | Discount | RefundComponent, sign: int) -> Fields:
    """A line of quantity 1. A discount is negative, so that an ERP's lines simply add up."""
    return {
        "kind": kind,
        "sku": None,
        "name": name,
        "quantity": Decimal(1),
        "unit_price": sign * row.gross,
        "discount": Decimal(0),
        "tax_rate": row.tax_rate,
        "net": sign * row.net,
        "tax": sign * row.tax,
        "gross": sign * row.gross,
    }


def _refund(refund: Refund) -> dict[str, Value]:
    return {
        "number": refund.number,
        "currency": refund.currency,
        "refunded_at": refund.refunded_at,
        "means": refund.means,
        "gross": refund.gross,
        "net": sum((component.net for component in refund.components), Decimal(0)),
        "tax": sum((component.tax for component in refund.components), Decimal(0)),
    }


def _address(kind: str, addresses: tuple[Address, ...]) -> dict[str, Value]:
    found = next((address for address in addresses if address.kind == kind), None)
    names = ("name", "company", "street", "postcode", "city", "country")
    return {f"{kind}_{name}": None if found is None else getattr(found, name) for name in names}


def to_json(value: ErpRecord) -> dict[str, Any]:
    """For the ledger; `from_json` gives it back exactly."""
    parts = {part: {key: _encode(fields) for key, fields in rows.items()} for part, rows in value.parts.items()}
    found = {"kind": value.kind, "fields": _encode(value.fields), "parts": parts}
    if value.payments is not None:
        found["payments"] = {key: _encode(fields) for key, fields in value.payments.items()}
    return found


def from_json(value: dict[str, Any]) -> ErpRecord:
    """A record as `to_json` wrote it."""
    parts = {part: {key: _decode(fields) for key, fields in rows.items()} for part, rows in value["parts"].items()}
    given = value.get("payments")
    payments = None if given is None else {key: _decode(fields) for key, fields in given.items()}
    return ErpRecord(value["kind"], _decode(value["fields"]), parts, payments)


def fields_to_json(fields: Fields | None) -> dict[str, Any] | None:
    """Some fields for the ledger; `fields_from_json` gives them back exactly."""
    return None if fields is None else _encode(fields)


def fields_from_json(value: dict[str, Any] | None) -> Fields | None:
    """Fields as `fields_to_json` wrote them."""
    return None if value is None else _decode(value)


def _encode(fields: Fields) -> dict[str, Any]:
    encoded: dict[str, Any] = {}
    for name, value in fields.items():
        match value:
            case Decimal():
                encoded[name] = {"n": str(value)}
            case datetime():
                encoded[name] = {"t": value.isoformat()}
            case ErpRef():
                encoded[name] = {"r": list(value)}
            case _:
                encoded[name] = value
    return encoded


def _decode(fields: dict[str, Any]) -> Fields:
    return {name: _decoded(value) for name, value in fields.items()}


def _decoded(value: Any) -> Value:
    if not isinstance(value, dict):
        result: Value = value
        return result
    if "r" in value:
        return ErpRef(*value["r"])
    return Decimal(value["n"]) if "n" in value else datetime.fromisoformat(value["t"])
