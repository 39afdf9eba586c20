"""Sales of Tryton as they are now. An order with its lines, deliveries and invoices is one call, and so one moment."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final

from sink.erp.kinds import BY_HAND, ErpRef, Kind
from sink.erp.tryton.rpc import Rpc, stamps_of

Row = Mapping[str, Any]

MODEL: Final = "sale.sale"
LINE: Final = "sale.line"
INVOICE_LINE: Final = "account.invoice.line"
SALES: Final[tuple[Kind, ...]] = ("order", "return", "refund")

_ID_DIGITS: Final = 10
_ADDRESS: Final = ("party_name", "attn", "street", "postal_code", "city", "country", "country.code")
_HEAD: Final = (
    "web_shop", "web_id", "number", "reference", "comment", "state", "invoice_state", "shipment_state", "party",
    "party.identifiers.code", "currency", "currency.code", "currency.digits", "currency.rounding", "untaxed_amount",
    "tax_amount", "total_amount", "sale_date", "origin", "_timestamp", "invoice_address", "shipment_address",
    "invoices_ignored", "amendments.description", "amendments.state", "amendments._timestamp",
    *(f"{side}_address.{name}" for side in ("invoice", "shipment") for name in _ADDRESS),
)  # fmt: skip
_LINES: Final = (
    "type", "product", "product.code", "product.type", "quantity", "actual_quantity", "unit", "unit_price", "taxes",
    "note", "description", "_timestamp", "moves.state", "moves.quantity", "moves.shipment",
)  # fmt: skip
_OF_ORDERS: Final = ("invoice_lines.quantity", "invoice_lines.invoice.state")
NAMES: Final = (*_HEAD, *(f"lines.{name}" for name in (*_LINES, *_OF_ORDERS)))
"""Without a line's amount, and without the shipments and invoices of a sale: Tryton works them out record by record, in
half of the whole time, and all of it can be told from what is here."""

_BACK: Final = (
    "web_shop", "web_id", "state", "invoice_state", "shipment_state", "origin", "total_amount", "comment",
    "invoices_ignored", "lines.quantity", "lines.actual_quantity", "lines.product", "lines.note", "lines.type",
    "lines.moves.state", "lines.product.type",
)  # fmt: skip
_CREDIT: Final = (
    "total_amount", "lines.type", "lines.origin", "lines.quantity", "lines.amount", "lines.taxes.type",
    "lines.taxes.rate", "lines.taxes.amount",
)  # fmt: skip


def by_refs(rpc: Rpc, web_shop: int, refs: Collection[ErpRef]) -> list[dict[str, Any]]:
    """By our keys, and by Tryton's own for what has none."""
    ours = [ref.external for ref in refs if not ref.external.startswith(BY_HAND)]
    hand = ids_of(ref.external.removeprefix(BY_HAND) for ref in refs if ref.external.startswith(BY_HAND))
    found = _whole(rpc.among(MODEL, "web_id", ours, NAMES, ("web_shop", "=", web_shop)))
    return found + [row for row in by_ids(rpc, hand) if not is_ours(row, web_shop)]


def ids_of(texts: Iterable[str]) -> list[int]:
    """Those that can be ids of Tryton's."""
    return [int(text) for text in texts if text.isascii() and text.isdigit() and len(text) < _ID_DIGITS]


def by_ids(rpc: Rpc, ids: Collection[int]) -> list[dict[str, Any]]:
    """By Tryton's own."""
    return _whole(rpc.among(MODEL, "id", ids, NAMES))


def _whole(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With the amounts of the lines."""
    for row in rows:
        for line in row["lines."]:
            line["amount"] = amount(line, row["currency."]["rounding"])
    return rows


def amount(line: Row, least: Decimal) -> Decimal:
    """The net amount of a line of type `line`, by Tryton's arithmetic. least: what the currency is rounded to, such as
    0.01 or 0.05."""
    exact = Decimal(line["quantity"] or 0) * Decimal(line["unit_price"] or 0)
    return (exact / least).quantize(Decimal(1), ROUND_HALF_EVEN) * least if least else exact


def keys(rpc: Rpc, ids: Collection[int]) -> list[dict[str, Any]]:
    """Of sales, what tells whether they have a key of ours."""
    return rpc.among(MODEL, "id", ids, ("web_shop", "web_id"))


def coming_back(rpc: Rpc, orders: Collection[int]) -> list[dict[str, Any]]:
    """Sales that were made of these: returns and refunds, ours and those made by hand."""
    origins = [f"{MODEL},{one}" for one in orders]
    return rpc.among(MODEL, "origin", origins, _BACK, ("state", "!=", "cancelled"))


def credit_notes(rpc: Rpc, invoice_lines: Collection[int]) -> list[dict[str, Any]]:
    """Credit notes that were made of invoices, whole: they hang on the invoices' lines, and on no order."""
    origins = [f"{INVOICE_LINE},{one}" for one in invoice_lines]
    lines = rpc.among(INVOICE_LINE, "origin", origins, ["invoice"], ("invoice.state", "!=", "cancelled"))
    return rpc.among("account.invoice", "id", {line["invoice"] for line in lines}, _CREDIT)


def ref_of(row: Row, web_shop: int) -> ErpRef:
    """What a sale is known by: our key has its kind. One that was typed in by hand is a return where only goods come
    back, a refund where only money does."""
    if is_ours(row, web_shop):
        return ErpRef(_kind_in(row["web_id"]), row["web_id"])
    lines = [line for line in row["lines."] if line["type"] == "line" and line["quantity"]]
    if not lines or any(line["quantity"] > 0 for line in lines):
        return ErpRef("order", f"{BY_HAND}{row['id']}")
    goods = any((line["product."] or {}).get("type") == "goods" for line in lines)
    return ErpRef("return" if goods else "refund", f"{BY_HAND}{row['id']}")


def _kind_in(key: str) -> Kind:
    """The second part of our key, which may have a series behind it: `shop/return.stores/7/1`."""
    named = key.partition("/")[2].partition("/")[0].partition(".")[0]
    return next((kind for kind in SALES if kind == named), SALES[0])


def is_ours(row: Row, web_shop: int) -> bool:
    """Whether it has a key of ours. A copy keeps comment and notes, and has none."""
    return bool(row["web_id"]) and row["web_shop"] == web_shop


def stamps(rows: Iterable[Row]) -> dict[str, str]:
    """Of the heads and of all lines: a line that is written alone leaves its head's stamp as it was."""
    found: dict[str, str] = {}
    for row in rows:
        found |= stamps_of(MODEL, [row]) | stamps_of(LINE, row["lines."])
    return found


def same_stamps(one: Row, other: Row | None) -> bool:
    """Whether nobody has touched a sale between two reads."""
    return other is not None and stamps([one]) == stamps([other])


def moved(rpc: Rpc, rows: Mapping[int, Row]) -> Sequence[int]:
    """Those (by their number) that are no longer as they were read."""
    names = ("_timestamp", "lines._timestamp")
    now = {row["id"]: row for row in rpc.among(MODEL, "id", [row["id"] for row in rows.values()], names)}
    return [number for number, row in rows.items() if not same_stamps(row, now.get(row["id"]))]
