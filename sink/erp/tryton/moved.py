"""What came of an order in Tryton, whoever booked it: goods that left and came back, and money. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from sink.erp.contract import Moved
from sink.erp.kinds import BY_HAND, ErpRef
from sink.erp.tryton import notes, reads, sales
from sink.erp.tryton.lines import child_of

Row = Mapping[str, Any]
Lines = Mapping[str, Row]
"""The lines of an order, by their key in the record."""

_ZERO: Final = Decimal(0)
_INVOICED: Final = ("posted", "paid")


def moved(order: ErpRef, lines: Lines, back: Sequence[Row], web_shop: int) -> dict[str, Moved]:
    """What was delivered, invoiced and returned, by line; lines without any of it are left out. back: sales made from
    this order."""
    returned: dict[str, dict[str, Decimal]] = {}
    for sale in back:
        for key, quantity in _returned(order, lines, sale, web_shop):
            counts = returned.setdefault(key, {})
            by = reads.ref_of(sale, web_shop).external
            counts[by] = counts.get(by, _ZERO) + quantity
    found = {}
    for key, line in lines.items():
        delivered = _sum(move["quantity"] for move in line["moves."] if move["state"] == "done")
        invoiced = _sum(
            one["quantity"] for one in line["invoice_lines."] if (one["invoice."] or {}).get("state") in _INVOICED
        )
        if delivered or invoiced or key in returned:
            found[key] = Moved(returned.get(key, {}), delivered, invoiced)
    return found


def _returned(order: ErpRef, lines: Lines, sale: Row, web_shop: int) -> Iterable[tuple[str, Decimal]]:
    """The order's lines, and how much of each came back or is to come back. If its shipment was cancelled, the goods do
    not count: Tryton's actual quantity leaves them out."""
    if reads.ref_of(sale, web_shop).kind == "refund" or sales.is_cancelled(sale):
        return
    for line in sale["lines."]:
        actual = line["quantity"] if line["actual_quantity"] is None else line["actual_quantity"]
        key = _sold(order, lines, line)
        if line["type"] == "line" and key is not None and (line["quantity"] or 0) < 0 and actual:
            yield key, -Decimal(str(actual))


def _sold(order: ErpRef, lines: Lines, line: Row) -> str | None:
    """The order's line that a line of a return belongs to. Ours name it; a copy of the order still has its notes; a
    line typed in by hand is matched to the first one with its product."""
    noted = notes.read(line["note"])
    if "order_line" in noted:
        key: str | None = order.part_and_key(str(noted["order_line"]))[1]
    elif (child := child_of(noted)) and child[0] == "line" and child[1] in lines:
        key = child[1]
    else:
        key = next((one for one, sold in lines.items() if sold["product"] == line["product"]), None)
    return key if key in lines else None


def refunded(order: Row, back: Sequence[Row], credits_: Sequence[Row], web_shop: int) -> dict[str, Decimal]:
    """Money given back, by the refund's key. credits_: credit notes made from invoices, of this order or of others
    too."""
    found: dict[str, Decimal] = {}
    for sale in back:
        ref = reads.ref_of(sale, web_shop)
        given = -Decimal(sale["total_amount"] or 0)
        if given > 0 and not sales.is_cancelled(sale):
            found[ref.external] = given
    invoiced = {f"{reads.INVOICE_LINE},{one}" for one in invoice_lines(order)}
    for note in credits_:
        given = -_share(note, invoiced)
        if given > 0:
            found[f"{BY_HAND}invoice,{note['id']}"] = given
    return found


def _share(note: Row, invoiced: Collection[str]) -> Decimal:
    """The order's share of a credit note: all of it, or, if it also credits other orders, in proportion to its lines.
    Lines without an origin are shared out in the same proportion."""
    lines = [line for line in note["lines."] if line["type"] == "line" and line["origin"]]
    mine = [line for line in lines if line["origin"] in invoiced]
    whole, total = _sum(map(_gross, lines)), Decimal(note["total_amount"] or 0)
    if not mine or not whole:
        return total if mine else _ZERO
    return (total * _sum(map(_gross, mine)) / whole).quantize(total)


def _gross(line: Row) -> Decimal:
    """The gross amount of an invoice's line, by its taxes."""
    net, quantity = Decimal(line["amount"] or 0), Decimal(str(line["quantity"] or 0))
    return net + _sum(
        net * tax["rate"] if tax["type"] == "percentage" else quantity * (tax["amount"] or 0) for tax in line["taxes."]
    )


def invoice_lines(order: Row) -> list[int]:
    """Tryton's ids of the invoice lines of an order."""
    return [one["id"] for line in order["lines."] for one in line["invoice_lines."]]


def _sum(values: Iterable[Any]) -> Decimal:
    return sum((Decimal(str(value)) for value in values), _ZERO)
