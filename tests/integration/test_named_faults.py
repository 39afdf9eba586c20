"""Faults that were found by experiments with the whole sink, each by its name. They must not happen again."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pytest
from psycopg2 import sql

from sink.database import Connection, connect, transaction
from sink.documents.profile import load_profile
from sink.documents.refs import DocumentRef
from sink.erp.contract import Step, StepResult
from sink.erp.sql.adapter import SqlErp
from sink.ledger import documents, marks
from sink.operations.holds import retry
from sink.reconcile.sides import reconcile
from tests.fix_erp import (
    CUSTOMER,
    ORDER,
    REFUND,
    RETURN,
    adapter_of,
    change,
    drain,
    held,
    in_erp,
    look,
    make_worker,
    mark,
    run,
    waiting,
)

SECOND = DocumentRef("sales_order", "2")
ANOTHER = "INSERT INTO orders SELECT 2, 'S-2', '7', placed_at, status, sku, quantity, gross FROM orders"
BACK = (
    "SELECT o.shop_number, l.quantity::int FROM return_lines l JOIN returns r ON r.id = l.return_id"
    " JOIN orders o ON o.id = r.order_id"
)
SOLD = (
    "SELECT o.shop_number FROM return_lines l JOIN order_lines s ON s.id = l.order_line_id"
    " JOIN orders o ON o.id = s.order_id"
)


def _mark(middle: Connection, *refs: DocumentRef, unit: str) -> None:
    """Documents of one shop order."""
    values = sql.SQL(", ").join(sql.SQL("({}, {}, {})").format(*map(sql.Literal, (*ref, unit))) for ref in refs)
    with transaction(middle) as cursor:
        marks.mark(cursor, sql.SQL("SELECT * FROM (VALUES {}) AS t (type, key, unit)").format(values))


def test_f6_a_return_moved_to_another_order_is_moved_in_the_erp(
    middle: Connection, erp: SqlErp, profile_path: str, erp_url: str
) -> None:
    worker = make_worker(middle, erp, profile_path)
    change(middle, f"{ANOTHER}; INSERT INTO returns VALUES (5, 1, 2, 5.95)")
    mark(middle, ORDER, SECOND, CUSTOMER)
    look(worker, middle, RETURN, REFUND)
    assert run(erp_url, BACK) == [("S-1", 2)]
    change(middle, "UPDATE returns SET order_id = 2")
    _mark(middle, RETURN, REFUND, unit="sales_order:2")
    drain(worker)
    assert held(middle) == []
    assert run(erp_url, BACK) == [("S-2", 2)]
    assert run(erp_url, SOLD) == [("S-2",)], "the line that was sold, too"


def test_f7_what_the_erps_column_rounds_is_held_before_it_is_confirmed_and_goes_once_it_fits(
    middle: Connection, erp: SqlErp, profile_path: str, erp_url: str
) -> None:
    worker = make_worker(middle, erp, profile_path)
    change(middle, "UPDATE orders SET quantity = 1.33333")
    look(worker, middle)
    (reason,) = held(middle)
    assert "quantity: the shop has 1.33333, the ERP stored 1.3333" in reason
    assert run(erp_url, "SELECT count(*)::int FROM orders") == [(0,)]
    run(erp_url, "ALTER TABLE order_lines ALTER COLUMN quantity TYPE numeric, ALTER COLUMN unit_price TYPE numeric")
    retry(middle, ORDER)
    drain(worker)
    assert held(middle) == []
    assert run(erp_url, "SELECT quantity::text FROM order_lines") == [("1.33333",)]


def test_f9_a_cancellation_after_a_correction_of_the_number_reaches_the_erp(
    middle: Connection, erp: SqlErp, profile_path: str, erp_url: str
) -> None:
    worker = in_erp(middle, erp, profile_path)
    change(middle, "UPDATE orders SET number = 'S-1a'")
    look(worker, middle, ORDER)
    assert len(held(middle)) == 1
    change(middle, "UPDATE orders SET status = 'cancelled'")
    look(worker, middle, ORDER)
    assert run(erp_url, "SELECT status FROM orders") == [("cancelled",)]


@pytest.mark.parametrize("first", [1, 2])
def test_f9_quantities_of_two_returns_that_are_swapped_arrive(
    middle: Connection, erp: SqlErp, profile_path: str, erp_url: str, first: int
) -> None:
    """Three were sold and three came back. Whichever is planned first, there would be four for a moment."""
    worker = make_worker(middle, erp, profile_path)
    other = DocumentRef("return_order", "15")
    change(middle, "UPDATE orders SET quantity = 3, gross = 12.00")
    change(middle, f"INSERT INTO returns VALUES (5, 1, {first}, 5.95), (15, 1, {3 - first}, 5.95)")
    mark(middle)
    _mark(middle, RETURN, other, unit="sales_order:1")
    drain(worker)
    change(middle, "UPDATE returns SET quantity = 3 - quantity")
    _mark(middle, RETURN, other, unit="sales_order:1")
    drain(worker)
    assert held(middle) == []
    assert sorted(run(erp_url, BACK)) == [("S-1", 1), ("S-1", 2)]


@pytest.mark.parametrize("first", ["payment", "refund"])
def test_f10_a_refund_that_is_booked_as_a_negative_payment_too_is_carried_over_once(
    middle: Connection, erp: SqlErp, profile_path: str, erp_url: str, first: str
) -> None:
    """The profile tells which refund it is, whichever comes first."""
    Path(profile_path, "sales_order.payments.sql").write_text(
        "SELECT order_id::text AS parent, id::text AS key, 'card' AS means, amount, (SELECT id + 1 FROM returns WHERE"
        " 'F-' || id = p.reference)::text AS refund FROM payments AS p WHERE order_id::text = ANY (%(keys)s)"
    )
    change(middle, "CREATE TABLE payments (id int, order_id int, amount numeric, reference text)")
    change(middle, "INSERT INTO payments VALUES (1, 1, 11.90, NULL)")
    worker = in_erp(middle, erp, profile_path)
    booked = {
        "payment": "INSERT INTO payments VALUES (2, 1, -11.90, 'F-5')",
        "refund": "INSERT INTO returns VALUES (5, 1, 2, 11.90)",
    }
    for what in sorted(booked, key=lambda what: what != first):
        change(middle, booked[what])
        mark(middle, ORDER)
        _mark(middle, RETURN, REFUND, unit="sales_order:1")
        drain(worker)
    assert held(middle) == []
    assert run(erp_url, "SELECT paid::text, (SELECT gross::text FROM refunds) FROM orders") == [("11.90", "11.90")]
    assert reconcile(middle, None, "shop", load_profile(profile_path), erp, collective=False).agrees


def test_v2_after_a_snapshot_an_order_is_leased_once_and_with_its_buyer(
    middle: Connection, erp: SqlErp, profile_path: str, erp_url: str
) -> None:
    """All orders have waited longer than any buyer."""
    many = "INSERT INTO orders SELECT n, 'S-' || n, 'c' || n, placed_at, status, sku, quantity, gross"
    change(middle, f"{many} FROM orders, generate_series(2, 120) AS n")
    for statement in (
        "SELECT 'sales_order' AS type, id::text AS key, 'sales_order:' || id AS unit FROM shop.orders",
        "SELECT 'customer' AS type, customer AS key, 'customer:' || customer AS unit FROM shop.orders",
    ):
        with transaction(middle) as cursor:
            marks.mark(cursor, sql.SQL(statement))
    drain(make_worker(middle, erp, profile_path))
    assert run(erp_url, "SELECT count(*)::int FROM orders") == [(120,)]
    with transaction(middle) as cursor:
        cursor.execute("SELECT split_part(unit, ':', 1), max(epoch)::int FROM unit GROUP BY 1 ORDER BY 1")
        assert cursor.fetchall() == [("customer", 1), ("sales_order", 1)]


class Slow(SqlErp):
    """An ERP each of whose calls takes most of a lease: the middle layer's clock runs on meanwhile."""

    other: Connection

    def apply(self, steps: Sequence[Step], not_after: datetime) -> Sequence[StepResult]:
        results = super().apply(steps, not_after)
        with transaction(self.other) as cursor:
            cursor.execute("UPDATE unit SET deadline = deadline - interval '50 s' WHERE deadline IS NOT NULL")
        return results


def test_v4_a_large_unit_on_a_slow_erp_is_done_to_its_end_in_one_lease(
    middle: Connection, database: str, erp_url: str, profile_path: str
) -> None:
    slow = adapter_of(Slow, erp_url)
    slow.other = connect(database, "ordertap_shop")
    change(
        middle,
        "UPDATE orders SET quantity = 99, gross = 9.90;"
        " INSERT INTO returns SELECT n, 1, 1, 0.10 FROM generate_series(5, 40) AS n",
    )
    every = sql.SQL(
        "SELECT 'return_order' AS type, id::text AS key, 'sales_order:1' AS unit FROM shop.returns"
        " UNION ALL SELECT 'refund', (id + 1)::text, 'sales_order:1' FROM shop.returns"
    )
    mark(middle)
    with transaction(middle) as cursor:
        marks.mark(cursor, every)
    drain(make_worker(middle, slow, profile_path))
    slow.other.close()
    slow.close()
    assert run(erp_url, "SELECT (SELECT count(*)::int FROM returns), count(*)::int FROM refunds") == [(36, 36)]
    with transaction(middle) as cursor:
        cursor.execute("SELECT epoch::int FROM unit WHERE unit = 'sales_order:1'")
        assert cursor.fetchone() == (1,)
        assert {state for _, state in documents.counts(cursor)} == {"done"}


REFUSALS = {
    "a trigger": "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not on a Sunday'; END $$;"
    " CREATE TRIGGER no BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION no()",
    "a missing default": "ALTER TABLE orders ADD warehouse int; ALTER TABLE orders ALTER warehouse SET NOT NULL",
    "a CHECK": "ALTER TABLE orders ADD CHECK (gross > 100)",
    "another type": "ALTER TABLE orders ALTER shop_number TYPE int USING NULL",
}


@pytest.mark.parametrize("what", REFUSALS)
def test_v5_what_the_erps_database_refuses_is_held_and_no_outage(
    middle: Connection, erp: SqlErp, profile_path: str, erp_url: str, what: str
) -> None:
    worker = make_worker(middle, erp, profile_path)
    worker.check()
    run(erp_url, REFUSALS[what])
    look(worker, middle)
    with transaction(middle) as cursor:
        (one,) = waiting(cursor)
    assert (one.type, one.state) == ("sales_order", "held")
    assert one.reason
    assert one.next_step
    assert worker.step() is False, "it is not tried again by itself"
