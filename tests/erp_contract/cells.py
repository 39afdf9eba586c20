"""The planner's table as data: the state of the ERP's document, the shop's change, and the expected result.

Each cell is tested purely (tests/unit/sink/planning/test_cells.py) and on every ERP (test_cells.py here). An ERP may
refuse a cell by name (`Can.narrows`), and then says what else can be done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, NamedTuple

from sink.erp.contract import Verb
from sink.erp.kinds import ErpRecord, ErpRef, Fields, Milestone, PartKind, Value
from sink.planning.policy import Absence, Policy
from tests.erp_contract.records import CHARGES, LINES, REF, REFUND, RETURN, SALE, changed, fewer_back, line, sale

D = Decimal
DRAFT, CONFIRMED, PROCESSING = Milestone.DRAFT, Milestone.CONFIRMED, Milestone.PROCESSING
PART_DELIVERED, DELIVERED = Milestone.PART_DELIVERED, Milestone.DELIVERED
INVOICED, PAID, CANCELLED = Milestone.INVOICED, Milestone.PAID, Milestone.CANCELLED
OPEN: Final = (DRAFT, CONFIRMED, PROCESSING)
ORDER = REF["order"]
_DRAFTS_GO: Final = Policy(
    "shop", Absence(orders="cancel_if_draft", returns="cancel_if_draft", refunds="cancel_if_draft")
)
SHIPPED, POSTED = "goods have left", "posted documents are not changed"


class Cell(NamedTuple):
    """One document and what is expected of it. at: its milestone. was: what we wrote, None for a new document. wants:
    what the shop wants, None if it no longer has the document. order: the milestone of its order. beside: other
    documents of the order. Either `verbs` bring it about, or it is held for `reason`."""

    name: str
    at: Milestone
    was: ErpRecord | None
    wants: ErpRecord | None
    verbs: tuple[Verb, ...] = ()
    reason: str = ""
    order: Milestone = CONFIRMED
    beside: tuple[tuple[ErpRef, ErpRecord], ...] = ()
    sold: ErpRecord = SALE
    policy: Policy = Policy("shop")

    @property
    def ref(self) -> ErpRef:
        """The document that the cell is about."""
        kind = (self.was or self.wants or SALE).kind
        return ErpRef(kind, f"shop/{kind}/1/1")


def component(kind: str, gross: str, of: str | None = None, rate: int = 19) -> dict[str, Value]:
    """A component of a refund."""
    whole = D(gross)
    net = (whole / (1 + D(rate) / 100)).quantize(D("0.01"))
    return {
        "kind": kind, "order_line": ORDER.child("line", of) if of else None, "tax_rate": D(rate), "net": net,
        "tax": whole - net, "gross": whole,
    }  # fmt: skip


def refund(**components: Fields) -> ErpRecord:
    """A refund of these components."""
    return replace(_summed(REFUND, components.values()), parts={"component": components})


def back(**quantities: str) -> ErpRecord:
    """A return of some of the order's lines; each is named `l` and the line's key."""
    rows: dict[str, Fields] = {
        f"r{key[1:]}": {"order_line": ORDER.child("line", key[1:]), "quantity": D(quantity), "reason": "too small"}
        for key, quantity in quantities.items()
    }
    return replace(RETURN, parts={"line": rows})


def with_part(record: ErpRecord, part: PartKind, **rows: Fields) -> ErpRecord:
    """The order with other charges or discounts, and its sums recalculated."""
    parts = {**record.parts, part: rows}
    return replace(_summed(record, (row for some in parts.values() for row in some.values())), parts=parts)


def _summed(record: ErpRecord, rows: Iterable[Fields]) -> ErpRecord:
    every = list(rows)
    sums = {name: sum((D(str(row[name])) for row in every), D(0)) for name in ("net", "tax", "gross")}
    return changed(record, **sums)


def discount(gross: str, sign: int = -1) -> dict[str, Value]:
    """A discount on the whole order."""
    row = line("1", gross, None, "discount")
    return {**row, **{name: sign * D(str(row[name])) for name in ("net", "tax", "gross", "unit_price")}}


def at_rate(rate: int, row: Fields) -> dict[str, Value]:
    """The same line at another rate."""
    gross = D(str(row["gross"]))
    net = (gross / (1 + D(rate) / 100)).quantize(D("0.01"))
    return {**row, "tax_rate": D(rate), "net": net, "tax": gross - net}


def bought(lines: Mapping[str, Fields] = LINES, charges: Mapping[str, Fields] = CHARGES, **fields: Value) -> ErpRecord:
    """The order with other lines and the same payment."""
    return sale(lines, charges, **{"paid": SALE.fields["paid"], **fields})


CHEAPER_LINE = bought({**LINES, "1": line("3", "9.00")})
FEWER = bought({**LINES, "1": line("2", "10.00")})
MORE_PIECES = bought({**LINES, "1": line("5", "10.00")})
LINE_GONE = bought({"1": LINES["1"]})
LINE_MORE = bought({**LINES, "3": line("2", "1.00", "B")})
LINE_REPLACED = bought({"1": LINES["1"], "3": line("2", "1.00", "B")})
OTHER_RATE = bought({**LINES, "2": at_rate(7, line("1", "0.35", "B"))})
RENUMBERED = changed(SALE, number="S-1b")
ELSEWHERE = changed(SALE, shipping_name="Bob", billing_name="Ann")
LATER = changed(SALE, placed_at=datetime(2026, 1, 2, 10, 0, tzinfo=UTC))
DEARER_CHARGE = bought(charges={"1": line("1", "5.90", None, "charge")})
NO_CHARGE = bought(charges={})
CHARGE_MORE = bought(charges={**CHARGES, "2": line("1", "2.00", None, "charge")})
CHARGE_MORE_PAID = changed(CHARGE_MORE, paid=CHARGE_MORE.fields["gross"])
DISCOUNTED = with_part(SALE, "discount", d1=discount("3.00"))
PAID_LESS = changed(SALE, paid=D("5.00"))
OTHER_MEANS = changed(SALE, payment_means="voucher", payment_reference="V-1")
VOID = changed(SALE, cancelled=True)
VOID_AND_CHEAPER = changed(CHEAPER_LINE, cancelled=True)

_WANTS: Final[Mapping[str, ErpRecord]] = {
    "a lower price": CHEAPER_LINE, "fewer pieces": FEWER, "more pieces": MORE_PIECES, "a line less": LINE_GONE,
    "a line more": LINE_MORE, "a line in place of another": LINE_REPLACED, "another tax rate": OTHER_RATE,
    "another number": RENUMBERED, "another address": ELSEWHERE, "another day": LATER,
    "a dearer charge": DEARER_CHARGE, "no charge": NO_CHARGE, "a charge more": CHARGE_MORE,
    "a charge more, and paid": CHARGE_MORE_PAID,
    "an order discount": DISCOUNTED, "less paid": PAID_LESS, "other means": OTHER_MEANS,
}  # fmt: skip
_OTHER_RETURN: Final = (ErpRef("return", "shop/return/2/1"), changed(back(l1="2"), number="R-2"))
_OTHER_REFUND: Final = (
    ErpRef("refund", "shop/refund/2/1"), changed(refund(c1=component("line", "30.00", "1")), number="F-2"),
)  # fmt: skip
_ORDERS: Final = [
    Cell(f"{name}, {at.value}", at, SALE, wants, ("amend",)) for name, wants in _WANTS.items() for at in OPEN
]
_CANCELS: Final = [
    *(Cell(f"cancelled, {at.value}", at, SALE, VOID, ("cancel",)) for at in OPEN),
    *(Cell(f"changed and cancelled, {at.value}", at, SALE, VOID_AND_CHEAPER, ("amend", "cancel")) for at in OPEN),
    Cell("cancelled, with a return and a refund", PROCESSING, SALE, VOID, ("cancel",),
         beside=(_OTHER_RETURN, _OTHER_REFUND)),
    Cell("cancelled, part delivered", PART_DELIVERED, SALE, VOID, reason=f"cancel, but {SHIPPED}"),
    Cell("cancelled, delivered", DELIVERED, SALE, VOID, reason=f"cancel, but {SHIPPED}"),
    Cell("cancelled, invoiced", INVOICED, SALE, VOID, reason="cancel, but the ERP has invoiced it"),
    Cell("opened again in the shop", CANCELLED, VOID, SALE, reason="reopen, but it is cancelled in the ERP"),
    Cell("cancelled by hand, too", CANCELLED, SALE, VOID),
    Cell("deleted in the shop, draft", DRAFT, SALE, None, reason="deleted in the shop"),
    Cell("deleted, where drafts go with it", DRAFT, SALE, None, ("cancel",),
         policy=_DRAFTS_GO),
]  # fmt: skip
_LATE: Final = [
    Cell("a lower price, delivered", DELIVERED, SALE, CHEAPER_LINE, ("amend",)),
    Cell("fewer pieces, delivered", DELIVERED, SALE, FEWER, reason=f"change quantities, but {SHIPPED}"),
    Cell("a line more, delivered", DELIVERED, SALE, LINE_MORE, reason=f"add lines, but {SHIPPED}"),
    Cell("another address, delivered", DELIVERED, SALE, ELSEWHERE, reason=f"change addresses, but {SHIPPED}"),
    Cell("other means, delivered", DELIVERED, SALE, OTHER_MEANS, ("amend",)),
    Cell("a lower price, invoiced", INVOICED, SALE, CHEAPER_LINE, reason=POSTED),
    Cell("other means, invoiced", INVOICED, SALE, OTHER_MEANS, ("amend",)),
    Cell("a lower price, part delivered", PART_DELIVERED, SALE, CHEAPER_LINE, ("amend",)),
    Cell("fewer pieces, part delivered", PART_DELIVERED, SALE, FEWER, reason=f"change quantities, but {SHIPPED}"),
    Cell("another number, delivered", DELIVERED, SALE, RENUMBERED, reason=f"change number, but {SHIPPED}"),
    Cell("fewer pieces, invoiced", INVOICED, SALE, FEWER, reason=POSTED),
    Cell("another address, invoiced", INVOICED, SALE, ELSEWHERE, reason=POSTED),
    Cell("another number, invoiced", INVOICED, SALE, RENUMBERED, reason=POSTED),
    Cell("other means, paid", PAID, SALE, OTHER_MEANS, ("amend",)),
    Cell("cancelled, paid", PAID, SALE, VOID, reason="cancel, but the ERP has invoiced it"),
]
REDUCED = bought({"1": {**line("3", "8.00"), "unit_price": D(10), "discount": D(6)}, "2": LINES["2"]})
_RETURNS: Final = [
    Cell("a part comes back", DRAFT, None, back(l1="1"), ("create",), order=DELIVERED),
    Cell("of several lines, and charges stay", DRAFT, None, back(l1="3", l2="1"), ("create",), order=PROCESSING),
    Cell("of an order that is a draft still", DRAFT, None, back(l1="1"), ("create",), order=DRAFT),
    Cell("a second return of what is left", DRAFT, None, back(l1="1"), ("create",), beside=(_OTHER_RETURN,)),
    Cell("a second return of too much", DRAFT, None, back(l1="2"), beside=(_OTHER_RETURN,),
         reason="line:1: 2 returned now, but 3 were sold and 2 already returned"),
    Cell("more than was sold", DRAFT, None, back(l1="4"),
         reason="line:1: 4 returned now, but 3 were sold and 0 already returned"),
    Cell("a return of a cancelled order", DRAFT, None, back(l1="1"), order=CANCELLED, reason="its order: return goods"),
    Cell("a return whose order was cancelled since", CONFIRMED, RETURN, RETURN, order=CANCELLED,
         reason="its order: it is cancelled in the ERP, so its goods never left"),
    Cell("a return of less", CONFIRMED, RETURN, fewer_back("1"), ("amend",)),
    Cell("a return that the shop has withdrawn", CONFIRMED, RETURN, None, reason="deleted in the shop"),
    Cell("a return that is withdrawn, where drafts go with it", DRAFT, RETURN, None, ("cancel",), policy=_DRAFTS_GO),
    Cell("of a line that was reduced", DRAFT, None, back(l1="1"), ("create",), sold=REDUCED),
    Cell("a return of a paid order", DRAFT, None, back(l1="1"), ("create",), order=PAID),
    Cell("a return of less, processing", PROCESSING, RETURN, fewer_back("1"), ("amend",)),
]  # fmt: skip
_REFUNDS: Final = [
    Cell("a reduced line at its paid price", DRAFT, None, refund(c1=component("line", "8.00", "1")), ("create",),
         sold=REDUCED),
    Cell("without goods", DRAFT, None, refund(c1=component("line", "2.50", "1")), ("create",)),
    Cell("of shipping", DRAFT, None, refund(c1=component("charge", "4.90")), ("create",)),
    Cell("goodwill", DRAFT, None, refund(c1=component("goodwill", "5.00", rate=0)), ("create",)),
    Cell("a fee is withheld", DRAFT, None,
         refund(c1=component("line", "10.00", "1"), c2=component("charge", "-2.00")), ("create",)),
    Cell("of two rates", DRAFT, None,
         refund(c1=component("line", "10.00", "1"), c2=component("line", "1.07", rate=7)), ("create",)),
    Cell("of a cancelled order", DRAFT, None, refund(c1=component("line", "10.00", "1")), ("create",), order=CANCELLED),
    Cell("of what is a draft still", DRAFT, None, refund(c1=component("line", "10.00", "1")), ("create",), order=DRAFT),
    Cell("more than was paid", DRAFT, None, refund(c1=component("line", "35.26", "1")),
         reason="refund of 35.26 is too high: 35.25 was paid, 0.00 already refunded"),
    Cell("more than is left of it", DRAFT, None, refund(c1=component("line", "5.26", "1")), beside=(_OTHER_REFUND,),
         reason="30.00 already refunded"),
    Cell("less is refunded", DRAFT, REFUND, refund(c1=component("line", "11.90", "1")), ("amend",)),
    Cell("a refund that the shop has withdrawn", DRAFT, REFUND, None, reason="deleted in the shop"),
    Cell("a refund that is withdrawn, where drafts go with it", DRAFT, REFUND, None, ("cancel",), policy=_DRAFTS_GO),
]  # fmt: skip
EXCHANGED: Final = (LINE_REPLACED, back(l2="1"))
"""In one change, a line comes back, and another takes its place in the order."""
EXCHANGES: Final[Mapping[Milestone, tuple[str, str]]] = {
    PROCESSING: ("", "line:2: 1 returned now, but 0 were sold"),
    DELIVERED: (f"change quantities, but {SHIPPED}", ""),
}
"""Why the order, and then its return, is held; "" if it is sent. As long as nothing has left, the order changes, and
nothing of it can come back. Afterwards the return is made, and a person delivers the other line."""
GROUPS: Final[Mapping[str, Sequence[Cell]]] = {
    "orders": _ORDERS, "cancellations": _CANCELS, "late changes": _LATE, "returns": _RETURNS, "refunds": _REFUNDS,
}  # fmt: skip
CELLS: Final = [cell for some in GROUPS.values() for cell in some]
