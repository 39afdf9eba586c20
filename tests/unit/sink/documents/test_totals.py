"""An order whose figures do not add up is reported in words before the ERP gets it."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sink.documents.models import Refund, SalesOrder
from sink.documents.totals import per_rate, problem, refund_problem, total
from sink.erp.kinds import Sums

D = Decimal
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _row(net: str, tax: str, rate: str = "19", **more: Any) -> dict[str, Any]:
    return {"key": "1", "tax_rate": D(rate), "net": D(net), "tax": D(tax), "gross": D(net) + D(tax), **more}


def _line(net: str, tax: str, rate: str = "19", **more: Any) -> dict[str, Any]:
    return _row(net, tax, rate, sku="A", quantity=1, unit_price=D(net), **more)


def _order(net: str, tax: str, lines: list[dict[str, Any]], currency: str = "EUR", **more: Any) -> SalesOrder:
    return SalesOrder(
        key="1", number="S-1", customer="7", placed_at=NOW, currency=currency, status="open", tax_included=False,
        net=D(net), tax=D(tax), gross=D(net) + D(tax), lines=lines, **more,
    )  # fmt: skip


def test_lines_and_charges_less_discounts_are_the_order() -> None:
    order = _order(
        "95.00", "16.85", [_line("80.00", "15.20"), _line("20.00", "1.40", "7.00", key="2")],
        charges=[_row("5.00", "0.95", "19.0", kind="shipping")],
        discounts=[_row("10.00", "0.70", "7", name="ten off")],
    )  # fmt: skip
    assert problem(order) is None
    assert per_rate(order) == {
        D(7): Sums(D("10.00"), D("0.70"), D("10.70")),
        D(19): Sums(D("85.00"), D("16.15"), D("101.15")),
    }
    assert total(per_rate(order).values()) == (D("95.00"), D("16.85"), D("111.85"))


@pytest.mark.parametrize(
    ("currency", "net", "tax"), [("JPY", "100", "10"), ("KWD", "0.001", "0.000"), ("EUR", "0.00", "0.00")]
)
def test_any_currencys_minor_unit(currency: str, net: str, tax: str) -> None:
    assert problem(_order(net, tax, [_line(net, tax)], currency)) is None


def test_one_cent_is_a_problem_that_is_named_per_rate() -> None:
    found = problem(_order("10.01", "1.90", [_line("8.00", "1.52"), _line("2.00", "0.38", "19.00", key="2")]))
    assert found == "net: lines and charges less discounts are 10.00 (19 %: 10.00), the order says 10.01"


def test_a_shift_between_net_and_tax_is_found_though_gross_is_right() -> None:
    assert "net: " in str(problem(_order("10.00", "1.90", [_line("9.90", "2.00")])))


@pytest.mark.parametrize("part", ["lines", "charges", "discounts"])
def test_a_row_that_does_not_add_up_is_named(part: str) -> None:
    bad = {**_line("5.00", "0.95", key="9"), "gross": D("5.90")}
    bad = bad if part == "lines" else {k: bad[k] for k in ("key", "tax_rate", "net", "tax", "gross")}
    bad |= {"kind": "shipping"} if part == "charges" else {}
    parts = {"lines": [_line("10.00", "1.90")]}
    parts[part] = [*parts.get(part, []), bad]
    assert problem(_order("10.00", "1.90", **parts)) == f"{part[:-1]} 9: net 5.00 + tax 0.95 is not gross 5.90"


def test_a_head_that_does_not_add_up_and_an_empty_order() -> None:
    order = _order("10.00", "1.90", [_line("10.00", "1.90")])
    assert "the order's net 10.00" in str(problem(order.model_copy(update={"gross": D("11.89")})))
    assert problem(_order("0", "0", [])) == "the order has no lines"


@given(
    st.lists(st.tuples(st.decimals(-(10**6), 10**6, places=3), st.sampled_from(["7", "19", "19.0", "5.5"])), min_size=1)
)
def test_every_sum_of_its_parts_adds_up_and_no_other_does(rows: list[tuple[Decimal, str]]) -> None:
    lines = [_line(str(net), str(net / 4), rate, key=str(n)) for n, (net, rate) in enumerate(rows)]
    net = sum((row["net"] for row in lines), D(0))
    tax = sum((row["tax"] for row in lines), D(0))
    assert problem(_order(str(net), str(tax), lines)) is None
    assert problem(_order(str(net + D("0.001")), str(tax), lines)) is not None
    assert total(per_rate(_order(str(net), str(tax), lines)).values()) == (net, tax, net + tax)


def _refund(gross: str, components: list[dict[str, Any]]) -> Refund:
    return Refund(
        key="1", number="F-1", order="1", currency="EUR", refunded_at=NOW, gross=D(gross), components=components
    )


def test_a_refund_is_the_sum_of_its_components() -> None:
    rows = [_row("10.00", "1.90", kind="line", order_line="1"), _row("5.00", "0.00", "0", kind="goodwill", key="2")]
    assert refund_problem(_refund("16.90", rows)) is None
    assert refund_problem(_refund("17.00", rows)) == "its components are 16.90, the refund says 17.00"
    assert refund_problem(_refund("17.00", [])) == "the refund does not say what it is for"
    broken = {**rows[0], "gross": D("12.00")}
    assert refund_problem(_refund("12.00", [broken])) == "component 1: net 10.00 + tax 1.90 is not gross 12.00"
