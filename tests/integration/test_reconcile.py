"""Hand-made differences, one of each class, on real databases: none is missed, and none counts as agreement."""

from collections.abc import Callable
from decimal import Decimal

import pytest

from sink.database import Connection, connect, transaction
from sink.documents.profile import load_profile
from sink.erp.sql.adapter import SqlErp
from sink.reconcile.report import Report
from sink.reconcile.sides import reconcile
from tests.fix_erp import (
    BEHIND_ALL,
    CUSTOMER,
    ORDER,
    PRICE,
    REFUND,
    RETURN,
    TABLES,
    change,
    drain,
    make_worker,
    mark,
    run,
    stand_at,
)

Compare = Callable[[], Report]
AGREED = "agree: 1 orders, 1 returns, 1 prices, difference 0.00"


@pytest.fixture
def compare(middle: Connection, erp: SqlErp, profile_path: str) -> Compare:
    """Shop and ERP agree in one order of 2 pieces, a return of 1 with its refund, a buyer and a price."""
    change(middle, "INSERT INTO returns VALUES (5, 1, 1, 5.95); INSERT INTO prices VALUES ('A', 5.95)")
    mark(middle, ORDER, CUSTOMER, RETURN, REFUND, PRICE)
    drain(make_worker(middle, erp, profile_path))
    return lambda: reconcile(middle, None, "shop", load_profile(profile_path), erp, collective=False)


def _found(report: Report) -> list[tuple[str, str, Decimal]]:
    return sorted((one.type, one.result, one.difference) for one in report.findings)


def _state(middle: Connection, type_: str, **columns: object) -> None:
    sets = ", ".join(f"{name} = %s" for name in columns)
    with transaction(middle) as cursor:
        cursor.execute(f"UPDATE ordertap_shop.document SET {sets} WHERE type = %s", (*columns.values(), type_))


def test_agreement_is_said_in_one_line(compare: Compare) -> None:
    report = compare()
    *table, last = report.lines()
    assert last == AGREED
    assert [line.split() for line in table[1:]] == [
        ["customers", "1", "1"],
        ["orders", "1", "1", "11.90", "11.90", "0.00"],
        ["returns", "1", "1"],
        ["refunds", "1", "1", "5.95", "5.95", "0.00"],
        ["prices", "1", "1"],
    ]
    assert (report.agrees, report.explained) == (True, True)


def test_missing_in_the_erp(compare: Compare, erp_url: str) -> None:
    run(erp_url, "DELETE FROM refunds")
    run(erp_url, "DELETE FROM return_lines; DELETE FROM returns; DELETE FROM order_lines; DELETE FROM orders")
    report = compare()
    missing = "missing in the ERP"
    assert _found(report) == [
        ("refund", missing, Decimal("5.95")),
        ("return_order", missing, Decimal(0)),
        ("sales_order", missing, Decimal("11.90")),
    ]
    assert report.explained is False
    assert report.summary() == (
        "DISAGREE: 3 missing in the ERP; agreed 0 orders, 0 returns, 1 prices, difference 17.85"
    )


def test_in_the_erp_only(compare: Compare, middle: Connection) -> None:
    """The shop's row is gone, and its delete never came."""
    change(middle, "DELETE FROM returns")
    report = compare()
    assert _found(report) == [
        ("refund", "in the ERP only", Decimal("-5.95")),
        ("return_order", "in the ERP only", Decimal(0)),
        ("sales_order", "differs", Decimal("5.95")),
    ]
    assert report.explained is False


def test_money_that_differs(compare: Compare, erp_url: str) -> None:
    run(erp_url, "UPDATE orders SET gross = gross - 0.01, net = net - 0.01")
    run(erp_url, "UPDATE prices SET amount = 6")
    report = compare()
    assert _found(report) == [("price", "differs", Decimal("-0.05")), ("sales_order", "differs", Decimal("0.01"))]
    assert {one.detail for one in report.findings} == {"amount", "gross, net"}
    assert report.summary() == "DISAGREE: 2 differs; agreed 0 orders, 1 returns, 0 prices, difference 0.06"


def test_a_line_under_another_tax_rate_differs_though_the_sums_are_right(compare: Compare, erp_url: str) -> None:
    run(erp_url, "UPDATE order_lines SET tax_rate = 7")
    report = compare()
    assert _found(report) == [("sales_order", "differs", Decimal("23.80"))]
    assert "7 %: net 0.00 tax 0.00, the ERP net 10.00 tax 1.90" in report.findings[0].detail
    assert "19 %: net 10.00 tax 1.90, the ERP net 0.00 tax 0.00" in report.findings[0].detail


def test_goods_that_a_clerk_took_back_differ(compare: Compare, erp_url: str) -> None:
    run(erp_url, "INSERT INTO returns (order_id, shop_number, returned_at, status)"
                 " SELECT id, 'by hand', now(), 'confirmed' FROM orders")  # fmt: skip
    run(erp_url, "INSERT INTO return_lines (return_id, order_line_id, quantity)"
                 " SELECT r.id, l.id, 1 FROM returns r, order_lines l WHERE r.external_key IS NULL")  # fmt: skip
    report = compare()
    assert [one.detail for one in report.findings] == ["line:l1: 1 remain in the shop, 0 in the ERP"]
    assert "typed in by hand in the ERP, and not compared: 1 returns" in report.lines()
    assert report.lines()[-1] == "DISAGREE: 1 differs; agreed 0 orders, 1 returns, 1 prices, difference 0.00"


def test_money_that_a_clerk_gave_back_differs(compare: Compare, erp_url: str) -> None:
    run(erp_url, "INSERT INTO refunds (order_id, shop_number, currency, refunded_at, net, tax, gross, status)"
                 " SELECT id, 'by hand', 'EUR', now(), 1, 0, 1, 'draft' FROM orders")  # fmt: skip
    report = compare()
    assert _found(report) == [("sales_order", "differs", Decimal("1.00"))]
    assert report.findings[0].detail == "5.95 refunded in the shop, 6.95 in the ERP"


def test_documents_typed_in_by_hand_are_counted_and_no_difference(compare: Compare, erp_url: str) -> None:
    run(erp_url, "INSERT INTO customers (account_number, name) VALUES ('7', 'Phone'), ('8', 'Desk')")
    run(erp_url, "INSERT INTO prices (sku, price_list, currency, amount, tax_included, minimum_quantity, status)"
                 " VALUES ('A', 'dealers', 'EUR', 1, false, 1, 'confirmed')")  # fmt: skip
    report = compare()
    assert report.lines()[0] == "typed in by hand in the ERP, and not compared: 2 customers, 1 prices"
    assert report.lines()[-1] == AGREED
    assert report.to_json()["foreign"]["customer"] == 2


@pytest.mark.parametrize(
    ("state", "result"),
    [("held", "held"), ("waits", "held"), ("ignored", "ignored"), ("settling", "in flight"), ("retry", "in flight"),
     ("planned", "planned")],
)  # fmt: skip
def test_what_the_ledger_explains(compare: Compare, middle: Connection, erp_url: str, state: str, result: str) -> None:
    run(erp_url, "UPDATE prices SET amount = 6")
    _state(middle, "price", state=state)
    report = compare()
    assert [(one.result, one.difference) for one in report.findings] == [(result, Decimal("-0.05"))]
    assert (report.explained, report.agrees) == (True, False)
    assert report.summary() == f"DISAGREE: 1 {result}; agreed 1 orders, 1 returns, 0 prices, difference 0.05"


def test_in_flight_is_what_was_marked_and_not_looked_at(compare: Compare, middle: Connection) -> None:
    change(middle, "UPDATE prices SET amount = 7")
    assert compare().explained is False, "a change that nobody marked is lost"
    mark(middle, PRICE)
    report = compare()
    assert _found(report) == [("price", "in flight", Decimal("1.05"))]
    assert report.explained is True


@pytest.mark.parametrize(("state", "result"), [("done", "invalid"), ("held", "held"), ("settling", "in flight")])
def test_what_the_shop_cannot_say_is_never_skipped(
    compare: Compare, middle: Connection, state: str, result: str
) -> None:
    change(middle, "UPDATE orders SET placed_at = NULL")
    _state(middle, "sales_order", state=state)
    report = compare()
    order = next(one for one in report.findings if one.type == "sales_order")
    assert (order.result, order.difference) == (result, Decimal("-11.90"))
    assert "placed_at" in order.detail
    assert report.explained is (result != "invalid")
    assert report.agrees is False


def test_an_order_that_never_reached_the_sink_is_missing(
    compare: Compare, middle: Connection, erp: SqlErp, profile_path: str, database: str
) -> None:
    """The shop itself is read, which has more than was staged."""
    shop = connect(database, "public")
    with transaction(shop) as cursor:
        cursor.execute(
            TABLES.replace("CREATE TABLE ", "CREATE TABLE public.").replace("INTO orders", "INTO public.orders")
        )
        cursor.execute(
            "INSERT INTO public.orders SELECT 2, 'S-2', '7', placed_at, status, sku, 1, 3.57 FROM public.orders"
        )
        cursor.execute("INSERT INTO public.returns SELECT * FROM shop.returns")
        cursor.execute("INSERT INTO public.prices SELECT * FROM shop.prices")
    with transaction(middle) as cursor:
        stand_at(cursor, BEHIND_ALL)
    report = reconcile(middle, shop, "shop", load_profile(profile_path), erp, collective=False)
    shop.close()
    assert _found(report) == [("sales_order", "missing in the ERP", Decimal("3.57"))]
    assert report.findings[0].detail == "not in the ERP; the sink does not know of it"


def test_a_return_that_is_held_explains_its_order(
    compare: Compare, middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    """More comes back than is left in the ERP. The return is held, and explains the order's remainder, too."""
    change(middle, "UPDATE returns SET quantity = 2")
    run(erp_url, "UPDATE returns SET status = 'invoiced'")
    mark(middle, RETURN)
    drain(make_worker(middle, erp, profile_path))
    report = compare()
    assert [(one.type, one.result) for one in report.findings] == [("return_order", "held"), ("sales_order", "held")]
    assert report.explained is True


def test_a_cancelled_order_agrees_with_a_cancelled_or_an_absent_one(
    compare: Compare, middle: Connection, erp_url: str
) -> None:
    change(middle, "UPDATE orders SET status = 'cancelled'; DELETE FROM returns")
    run(erp_url, "UPDATE returns SET status = 'cancelled'; UPDATE refunds SET status = 'cancelled'")
    assert [one.detail for one in compare().findings] == ["cancelled on one side only"]
    run(erp_url, "UPDATE orders SET status = 'cancelled'")
    assert compare().summary() == "agree: 1 orders, 0 returns, 1 prices, difference 0.00"


def test_prices_that_the_erp_owns_are_not_compared(
    compare: Compare, middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    run(erp_url, "DELETE FROM prices")
    found = reconcile(middle, None, "shop", load_profile(profile_path), erp, collective=False, compare_prices=False)
    assert found.summary() == "agree: 1 orders, 1 returns, 0 prices, difference 0.00"


def test_an_order_that_was_purged_and_kept_is_no_riddle(compare: Compare, middle: Connection) -> None:
    change(middle, "DELETE FROM orders; DELETE FROM returns")
    for type_ in ("sales_order", "return_order", "refund", "customer"):
        _state(middle, type_, state="gone")
    report = compare()
    assert {(one.type, one.result) for one in report.findings} == {
        ("sales_order", "ignored"), ("return_order", "ignored"), ("refund", "ignored")
    }  # fmt: skip
    assert report.explained is True
    mark(middle, ORDER)
    assert ("sales_order", "in flight") in {(one.type, one.result) for one in compare().findings}
