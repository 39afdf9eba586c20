"""What came of an order: who took back what, and what was paid back, by our keys or by Tryton's own."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from sink.erp.contract import Moved
from sink.erp.kinds import ErpRef
from sink.erp.tryton import moved, notes, reads
from tests.unit.sink.erp.tryton.pretend import SHOP

D = Decimal
ORDER = ErpRef("order", "shop/order/1/1")
MUG, POT = 1, 2


def sold(id_: int, product: int, **more: Any) -> dict[str, Any]:
    return {"id": id_, "product": product, "moves.": [], "invoice_lines.": [], **more}


LINES = {"l1": sold(11, MUG), "l2": sold(12, POT)}


def back_line(product: int, quantity: int, note: str = "", actual: int | None = None) -> dict[str, Any]:
    return {
        "type": "line", "product": product, "product.": {"type": "goods"}, "quantity": D(quantity), "moves.": [],
        "actual_quantity": None if actual is None else D(actual), "note": note,
    }  # fmt: skip


def sale(*lines: dict[str, Any], web_id: str | None = None, total: str = "0", **more: Any) -> dict[str, Any]:
    return {
        "id": 7, "web_shop": SHOP if web_id else None, "web_id": web_id, "state": "quotation", "invoice_state": "none",
        "shipment_state": "none", "total_amount": D(total), "invoices_ignored": [], "lines.": list(lines), **more,
    }  # fmt: skip


INVOICED = {"lines.": [sold(11, MUG, **{"invoice_lines.": [{"id": 5}]})]}
PERCENT = {"type": "percentage", "rate": D("0.19"), "amount": None}
CENT = {"type": "fixed", "rate": None, "amount": D("0.01")}


def credited(invoice_line: int | None, net: str, rate: str = "0.19") -> dict[str, Any]:
    return {
        "type": "line", "origin": invoice_line and f"account.invoice.line,{invoice_line}", "quantity": D(-1),
        "amount": D(net), "taxes.": [PERCENT | {"rate": D(rate)}],
    }  # fmt: skip


def note(total: str, *lines: dict[str, Any]) -> dict[str, Any]:
    return {"id": 31, "total_amount": D(total), "lines.": lines}


OURS = notes.written(None, {"child": "line:r1", "order_line": "shop/order/1/1/line:l2"})
COPIED = notes.written(None, {"child": "line:l2", "quantity": D(3)})
UNDONE = {"state": "processing", "invoices_ignored": [3]}


@pytest.mark.parametrize(
    ("back", "returned"),
    [
        (sale(back_line(POT, -2, OURS), web_id="shop/return/1/1"), {"l2": {"shop/return/1/1": D(2)}}),
        (sale(back_line(POT, -2, COPIED)), {"l2": {"hand:7": D(2)}}),
        (sale(back_line(MUG, -1), back_line(MUG, -2)), {"l1": {"hand:7": D(3)}}),
        (sale(back_line(9, -1)), {}),
        (sale(back_line(MUG, -2, actual=-1)), {"l1": {"hand:7": D(1)}}),
        (sale(back_line(MUG, -2, actual=0)), {}),
        (sale(back_line(MUG, -2), **UNDONE), {}),
        (sale(back_line(POT, -2, OURS), web_id="shop/refund/1/1"), {}),
        (sale(back_line(MUG, 1)), {}),
    ],
)
def test_goods_come_back_by_whomever(back: dict[str, Any], returned: dict[str, dict[str, Decimal]]) -> None:
    found = moved.moved(ORDER, LINES, [back], SHOP)
    assert {key: one.returned for key, one in found.items()} == returned


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("shop/order/1/1", "order"), ("shop/return/1/1", "return"), ("shop/return.stores/1/1", "return"),
        ("shop/refund.stores/a/b/1", "refund"), ("shop/order.return/refund/1", "order"),
    ],
)  # fmt: skip
def test_a_key_of_ours_tells_the_kind_of_a_sale_with_a_series_too(key: str, kind: str) -> None:
    assert reads.ref_of(sale(back_line(MUG, -1), web_id=key), SHOP) == (kind, key)


def test_what_left_and_what_was_invoiced_is_counted() -> None:
    moves = [{"state": "done", "quantity": D(2)}, {"state": "draft", "quantity": D(1)}]
    invoiced = [
        {"id": 5, "quantity": D(2), "invoice.": {"state": "posted"}},
        {"id": 6, "quantity": D(1), "invoice.": {"state": "draft"}},
        {"id": 7, "quantity": D(1), "invoice.": None},
    ]
    line = sold(11, MUG, **{"moves.": moves, "invoice_lines.": invoiced})
    assert moved.moved(ORDER, {"l1": line, "l2": LINES["l2"]}, [], SHOP) == {"l1": Moved({}, D(2), D(2))}
    assert moved.invoice_lines({"lines.": [line]}) == [5, 6, 7]


def test_money_goes_back_by_a_refund_a_return_by_hand_and_a_credit_of_the_invoice() -> None:
    ours = sale(back_line(POT, -1), web_id="shop/refund/1/1", total="-11.90")
    by_hand = sale(back_line(MUG, -1), total="-5.00")
    undone = sale(back_line(MUG, -1), total="-3.00", **UNDONE) | {"id": 8}
    credit = note("-7.00", credited(5, "-5.00"), credited(None, "-0.88"))
    found = moved.refunded(INVOICED, [ours, by_hand, undone], [credit], SHOP)
    assert found == {"shop/refund/1/1": D("11.90"), "hand:7": D("5.00"), "hand:invoice,31": D("7.00")}


def test_of_a_credit_note_of_several_orders_each_counts_its_own_share() -> None:
    """Lines count with their taxes: the same net amount is a smaller part of the total at 7 % than at 19 %."""
    other = {"lines.": [sold(21, MUG, **{"invoice_lines.": [{"id": 6}]})]}
    reduced = credited(6, "-10.00", "0.07") | {"taxes.": [PERCENT | {"rate": D("0.07")}, CENT]}
    both = note("-34.51", credited(5, "-20.00"), reduced, {**credited(6, "-99.00"), "type": "subtotal"})
    assert given(INVOICED, both) == {"hand:invoice,31": D("23.80")}
    assert given(other, both) == {"hand:invoice,31": D("10.71")}
    assert given({"lines.": [LINES["l2"]]}, both) == {}, "of another order"
    less = note("-30.00", credited(5, "-20.00"), credited(6, "-10.00"), credited(None, "5.70"))
    assert given(INVOICED, less) == {"hand:invoice,31": D("20.00")}, "a fee withheld is withheld from all"
    assert given(INVOICED, note("-3.00", credited(5, "0.00"), credited(6, "0.00"))) == {"hand:invoice,31": D("3.00")}


def given(order: dict[str, Any], *credits_: dict[str, Any]) -> dict[str, Decimal]:
    return moved.refunded(order, [], credits_, SHOP)
