"""What a shop purges takes no money out of the ERP's documents, and `absent` decides for each kind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sink.apply.rules import Rules
from sink.apply.worker import Worker
from sink.database import Connection, transaction
from sink.documents.profile import load_profile
from sink.erp.kinds import Milestone
from sink.erp.sql.adapter import SqlErp
from sink.planning.policy import Absence, Policy
from sink.reconcile.sides import reconcile
from tests.fix_erp import PROFILE, UNITS, change, drain, held, mark, run

Start = Callable[..., Worker]
PAID = "SELECT paid::text, payment_means FROM orders"


@pytest.fixture
def start(middle: Connection, erp: SqlErp, profile_path: str) -> Start:
    """Starts a worker with a policy, for a shop with a payments table. The order is paid by two, and everything is in
    the ERP."""
    change(
        middle,
        "CREATE TABLE payments (id int, order_id int, means text, amount numeric);"
        " INSERT INTO payments VALUES (1, 1, 'card', 5.00), (2, 1, 'gift card', 6.90);"
        " INSERT INTO prices VALUES ('A', 5); INSERT INTO returns VALUES (5, 1, 1, 5.95)",
    )
    profile = PROFILE["profile.yaml"].replace("tables: [", "tables: [public.payments, ")
    Path(profile_path, "profile.yaml").write_text(
        profile.replace("touched_by: {orders: id}}", "touched_by: {orders: id, payments: order_id}}")
    )
    Path(profile_path, "sales_order.payments.sql").write_text(
        "SELECT order_id::text AS parent, id::text AS key, means, amount FROM payments"
        " WHERE order_id::text = ANY (%(keys)s) ORDER BY id"
    )

    def started(goal: Milestone = Milestone.CONFIRMED, **absent: Any) -> Worker:
        rules = Rules("shop", Policy("shop", Absence(**absent), goal), apply=True, settle_seconds=0)
        worker = Worker(middle, load_profile(profile_path), erp, rules, "w1")
        mark(middle, *UNITS)
        drain(worker)
        assert held(middle) == []
        return worker

    return started


def _gone(middle: Connection, worker: Worker, statement: str) -> None:
    change(middle, statement)
    mark(middle, *UNITS)
    drain(worker)


def test_f8_payments_that_the_shop_purges_stay_counted_as_paid(
    start: Start, middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = start()
    _gone(middle, worker, "DELETE FROM payments")
    assert run(erp_url, PAID) == [("11.90", "card, gift card")]
    assert held(middle) == []

    def agrees() -> bool:
        return reconcile(middle, None, "shop", load_profile(profile_path), erp, collective=False).agrees

    assert agrees()
    run(erp_url, "UPDATE orders SET paid = 20")
    assert not agrees(), "nobody told the ERP that"
    run(erp_url, "UPDATE orders SET paid = 11.90")
    _gone(middle, worker, "UPDATE orders SET status = 'cancelled'")
    assert run(erp_url, "SELECT paid::text, status FROM orders") == [("11.90", "cancelled")]


def test_f8_a_purge_is_held_or_taken_where_the_policy_says_so(start: Start, middle: Connection, erp_url: str) -> None:
    _gone(middle, start(payments="hold"), "DELETE FROM payments WHERE id = 2")
    assert held(middle) == [
        "paid: payments that the ERP was told of are gone in the shop: it has 5.00, and the ERP was told 11.90"
    ]
    assert run(erp_url, PAID) == [("11.90", "card, gift card")]
    start(payments="amend")
    assert run(erp_url, PAID) == [("5.00", "card")]


@pytest.mark.parametrize("purge", ["DELETE FROM orders", "TRUNCATE orders"])
def test_f8_orders_that_are_gone_are_held_one_by_one(
    start: Start, middle: Connection, erp_url: str, purge: str
) -> None:
    worker = start()
    _gone(middle, worker, f"{purge}; DELETE FROM returns; DELETE FROM payments")
    assert sorted(held(middle)) == [
        f"the {kind} was deleted in the shop; the ERP still has it" for kind in ("order", "refund", "return")
    ]
    assert run(erp_url, "SELECT status, paid::text FROM orders") == [("confirmed", "11.90")]


def test_f8_a_draft_is_cancelled_where_the_policy_says_so(start: Start, middle: Connection, erp_url: str) -> None:
    worker = start(Milestone.DRAFT, orders="cancel_if_draft", returns="keep", refunds="cancel_if_draft")
    _gone(middle, worker, "DELETE FROM orders; DELETE FROM returns")
    assert run(erp_url, "SELECT status FROM orders") == [("cancelled",)]
    assert run(erp_url, "SELECT status FROM refunds") == [("cancelled",)]
    assert run(erp_url, "SELECT status FROM returns") == [("confirmed",)]
    assert held(middle) == []
    mark(middle, *UNITS)
    drain(worker)
    with transaction(middle) as cursor:
        cursor.execute("SELECT DISTINCT state FROM ordertap_shop.document WHERE type <> 'price'")
        assert cursor.fetchall() == [("gone",)]


def test_f8_what_is_not_a_draft_any_more_is_held(start: Start, middle: Connection, erp_url: str) -> None:
    worker = start(orders="cancel_if_draft", returns="keep", refunds="keep")
    _gone(middle, worker, "DELETE FROM orders; DELETE FROM returns")
    assert held(middle) == ["the order was deleted in the shop; the ERP still has it"]
    assert run(erp_url, "SELECT status FROM orders") == [("confirmed",)]


@pytest.mark.parametrize(("prices", "left", "why"), [("remove", 0, []), ("keep", 1, []), ("hold", 1, ["price"])])
def test_f8_prices_that_are_gone(
    start: Start, middle: Connection, erp_url: str, prices: str, left: int, why: list[str]
) -> None:
    worker = start(prices=prices)
    _gone(middle, worker, "TRUNCATE prices")
    assert run(erp_url, "SELECT count(*) FROM prices WHERE status <> 'cancelled'") == [(left,)]
    assert held(middle) == [f"the {kind} was deleted in the shop; the ERP still has it" for kind in why]


def test_f8_buyers_that_are_gone_stay(start: Start, middle: Connection, erp_url: str) -> None:
    worker = start(orders="keep", returns="keep", refunds="keep", prices="keep")
    _gone(middle, worker, "DELETE FROM orders; DELETE FROM returns; DELETE FROM prices; DELETE FROM payments")
    assert held(middle) == []
    assert run(erp_url, "SELECT count(*) FROM customers") == [(1,)]
