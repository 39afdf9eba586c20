"""Reads sales. An order with its lines, deliveries and invoices is one call, and so one moment."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final

from sink.erp.kinds import BY_HAND, ErpRef, Kind
from sink.erp.tryton import came_of
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
_OWN: Final = ("number", "state", "_timestamp")
"""Fields of shipments and invoices."""
_LINES: Final = (
    "type", "product", "product.code", "product.type", "quantity", "actual_quantity", "unit", "unit_price", "taxes",
    "note", "description", "_timestamp", "moves.state", "moves.quantity", "moves.shipment",
    *(f"moves.shipment.{name}" for name in _OWN), "invoice_lines.quantity",
    *(f"invoice_lines.invoice.{name}" for name in _OWN),
)  # fmt: skip
NAMES: Final = (*_HEAD, *(f"lines.{name}" for name in _LINES))
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
    """Sales by our keys; those that have none of ours, by `hand:` and their id."""
    ours = [ref.external for ref in refs if not ref.external.startswith(BY_HAND)]
    hand = ids_of(ref.external.removeprefix(BY_HAND) for ref in refs if ref.external.startswith(BY_HAND))
    found = _whole(rpc.among(MODEL, "web_id", ours, NAMES, ("web_shop", "=", web_shop)))
    return found + [row for row in by_ids(rpc, hand) if not is_ours(row, web_shop)]


def ids_of(texts: Iterable[str]) -> list[int]:
    """The texts that can be ids of Tryton's."""
    return [int(text) for text in texts if text.isascii() and text.isdigit() and len(text) < _ID_DIGITS]


def by_ids(rpc: Rpc, ids: Collection[int]) -> list[dict[str, Any]]:
    """Sales by Tryton's ids."""
    return _whole(rpc.among(MODEL, "id", ids, NAMES))


def _whole(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, with the amounts of their lines."""
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
    """Web shop and web ID of sales, which make our key."""
    return rpc.among(MODEL, "id", ids, ("web_shop", "web_id"))


def coming_back(rpc: Rpc, orders: Collection[int]) -> list[dict[str, Any]]:
    """Sales made from these orders: returns and refunds, ours and those made by hand."""
    origins = [f"{MODEL},{one}" for one in orders]
    return rpc.among(MODEL, "origin", origins, _BACK, ("state", "!=", "cancelled"))


def credit_notes(rpc: Rpc, invoice_lines: Collection[int]) -> list[dict[str, Any]]:
    """Credit notes made from invoices, with all their lines. They refer to the invoices' lines and to no order."""
    origins = [f"{INVOICE_LINE},{one}" for one in invoice_lines]
    lines = rpc.among(INVOICE_LINE, "origin", origins, ["invoice"], ("invoice.state", "!=", "cancelled"))
    return rpc.among("account.invoice", "id", {line["invoice"] for line in lines}, _CREDIT)


def shared(rpc: Rpc, rows: Collection[Row]) -> dict[int, str]:
    """Of each sale, by its id: one of its shipments and invoices that also has lines of other sales, in words. Sales
    without one are left out."""
    names = {name for row in rows for name in came_of.open_(row)}
    ships = [name for name in names if not name.startswith(came_of.INVOICE)]
    bills = [int(name.rpartition(",")[2]) for name in names - {*ships}]
    moves = rpc.among("stock.move", "shipment", ships, ["shipment", "origin"], ("state", "!=", "cancelled"))
    owners = {(str(move["shipment"]), str(move["origin"])) for move in moves}
    lines = rpc.among(INVOICE_LINE, "invoice", bills, ["invoice", "origin"])
    owners |= {(f"{came_of.INVOICE},{line['invoice']}", str(line["origin"])) for line in lines}
    found = {}
    for row in rows:
        ours, mine = {f"{LINE},{line['id']}" for line in row["lines."]}, came_of.open_(row)
        for name, origin in owners:
            if name in mine and origin.startswith(f"{LINE},") and origin not in ours:
                what = "invoice" if name.startswith(came_of.INVOICE) else "shipment"
                found[row["id"]] = f"{what} {came_of.called(mine[name])}"
    return found


def ref_of(row: Row, web_shop: int) -> ErpRef:
    """What the sink calls a sale. A key of ours names its kind. A sale typed in by hand is a return if it only takes
    goods back, a refund if it only gives money back, and else an order."""
    if is_ours(row, web_shop):
        return ErpRef(_kind_in(row["web_id"]), row["web_id"])
    lines = [line for line in row["lines."] if line["type"] == "line" and line["quantity"]]
    if not lines or any(line["quantity"] > 0 for line in lines):
        return ErpRef("order", f"{BY_HAND}{row['id']}")
    goods = any((line["product."] or {}).get("type") == "goods" for line in lines)
    return ErpRef("return" if goods else "refund", f"{BY_HAND}{row['id']}")


def _kind_in(key: str) -> Kind:
    """The kind in the second part of our key, which may have a series behind it: `shop/return.stores/7/1`."""
    named = key.partition("/")[2].partition("/")[0].partition(".")[0]
    return next((kind for kind in SALES if kind == named), SALES[0])


def is_ours(row: Row, web_shop: int) -> bool:
    """Whether a sale has a key of ours. A copy keeps comment and notes, but has no key."""
    return bool(row["web_id"]) and row["web_shop"] == web_shop


def stamps(rows: Iterable[Row]) -> dict[str, str]:
    """The stamps of heads and lines: if only a line is written, its head keeps its stamp."""
    found: dict[str, str] = {}
    for row in rows:
        found |= stamps_of(MODEL, [row]) | stamps_of(LINE, row["lines."])
    return found


def same_stamps(one: Row, other: Row | None) -> bool:
    """Whether a sale is unchanged between two reads."""
    return other is not None and stamps([one]) == stamps([other])


def moved(rpc: Rpc, rows: Mapping[int, Row]) -> Sequence[int]:
    """The numbers of the sales that have changed since they were read."""
    names = ("_timestamp", "lines._timestamp")
    now = {row["id"]: row for row in rpc.among(MODEL, "id", [row["id"] for row in rows.values()], names)}
    return [number for number, row in rows.items() if not same_stamps(row, now.get(row["id"]))]
