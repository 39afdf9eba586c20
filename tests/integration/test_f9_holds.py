"""A hold on one field does not hold a cancellation (fault F9): the cancellation reaches the ERP, and the hold ends."""

from collections.abc import Sequence

import pytest

from sink.apply.rules import Rules
from sink.apply.worker import Worker
from sink.database import Connection, transaction
from sink.documents.profile import load_profile
from sink.erp.sql.adapter import SqlErp
from sink.operations.accept import accept_document
from sink.planning.policy import Policy
from sink.reconcile.sides import reconcile
from tests.fix_erp import (
    CUSTOMER,
    ORDER,
    REFUND,
    RETURN,
    change,
    drain,
    held,
    in_erp,
    look,
    make_worker,
    mark,
    pass_deadlines,
    rows,
    run,
)


class Shop:
    """One order that is in the ERP."""

    def __init__(self, middle: Connection, erp: SqlErp, erp_url: str, profile_path: str) -> None:
        self.middle, self.erp, self.url, self.profile = middle, erp, erp_url, profile_path
        self.worker = in_erp(middle, erp, profile_path)
        assert run(erp_url, "SELECT status FROM orders") == [("confirmed",)]

    def changed(self, statement: str) -> list[str]:
        """What is held after a change in the shop."""
        change(self.middle, f"UPDATE orders SET {statement}")
        look(self.worker, self.middle, ORDER)
        return held(self.middle)

    def cancelled(self) -> bool:
        """Whether the ERP has cancelled it, nothing is held, and both sides agree, even after another look."""
        look(self.worker, self.middle, ORDER)
        assert held(self.middle) == []
        report = reconcile(self.middle, None, "shop", load_profile(self.profile), self.erp, collective=False)
        assert [one for one in report.findings if one.type == "sales_order"] == []
        return run(self.url, "SELECT status FROM orders") == [("cancelled",)]


@pytest.fixture
def shop(middle: Connection, erp: SqlErp, erp_url: str, profile_path: str) -> Shop:
    return Shop(middle, erp, erp_url, profile_path)


@pytest.mark.parametrize("correction", ["customer = '8'", "number = 'S-9'", "placed_at = '2026-01-02T10:00Z'"])
def test_f9_after_a_buyer_was_merged_or_number_or_date_corrected(shop: Shop, correction: str) -> None:
    assert "the shop seems to have reused it" in shop.changed(correction)[0]
    assert shop.changed("status = 'cancelled'") == []
    assert shop.cancelled()


def test_f9_another_order_under_the_key_cancels_nothing(shop: Shop, erp_url: str) -> None:
    """A restored shop uses the number again, and cancels that order."""
    other = "customer = '8', placed_at = '2026-02-02T10:00Z', status = 'cancelled'"
    assert "the shop seems to have reused it" in shop.changed(other)[0]
    assert run(erp_url, "SELECT status FROM orders") == [("confirmed",)]


def test_f9_after_a_clerk_changed_a_field_which_stays(shop: Shop, erp_url: str) -> None:
    run(erp_url, "UPDATE orders SET payment_means = 'cash'; DELETE FROM order_lines")
    assert "changed in the ERP" in shop.changed("gross = 9.90")[0]
    assert shop.changed("status = 'cancelled'") == []
    assert run(erp_url, "SELECT payment_means, gross::text FROM orders") == [("cash", "11.90")]
    assert shop.cancelled()


def test_f9_after_a_return_that_is_more_than_was_sold(shop: Shop, middle: Connection, erp_url: str) -> None:
    change(middle, "INSERT INTO returns VALUES (5, 1, 3, 20)")
    mark(middle, RETURN, REFUND)
    drain(shop.worker)
    assert len(held(middle)) == 2
    assert len(shop.changed("status = 'cancelled'")) == 2, "that of the return and the refund"
    assert run(erp_url, "SELECT status FROM orders") == [("cancelled",)]


def test_f9_while_the_new_buyer_or_the_item_is_not_in_the_erp(shop: Shop, middle: Connection) -> None:
    assert shop.changed("sku = 'NEW'") == ["the ERP has no item NEW"]
    change(middle, "UPDATE orders SET customer = '8'")  # no row of this buyer has come
    assert shop.changed("status = 'cancelled'") == []
    assert shop.cancelled()
    mark(middle, CUSTOMER)
    drain(shop.worker)
    assert held(middle) == []


def test_f9_an_item_that_the_erp_has_since_its_goods_left_is_no_change(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    run(erp_url, "INSERT INTO items VALUES ('MISC', 'an item that is not listed yet')")
    change(middle, "UPDATE orders SET sku = 'NEW'")
    rules = Rules("shop", Policy("shop", placeholder="MISC"), apply=True, settle_seconds=0)
    worker = Worker(middle, load_profile(profile_path), erp, rules, "w1")
    look(worker, middle)
    booked = "SELECT sku FROM order_lines"
    assert run(erp_url, booked) == [("MISC",)]
    run(erp_url, "UPDATE orders SET status = 'delivered'; INSERT INTO items VALUES ('NEW', 'new')")
    look(worker, middle, ORDER)
    assert held(middle) == []
    assert run(erp_url, booked) == [("MISC",)]
    assert reconcile(middle, None, "shop", load_profile(profile_path), erp, collective=False).agrees


def test_f9_a_price_that_the_erp_changes_no_more_keeps_no_payment(shop: Shop, middle: Connection, erp_url: str) -> None:
    run(erp_url, "UPDATE orders SET status = 'invoiced'")
    (reason,) = shop.changed("gross = 9.90")
    assert reason.startswith("change prices, but the ERP has invoiced it")
    assert run(erp_url, "SELECT gross::text, paid::text FROM orders") == [("11.90", "9.90")]
    run(erp_url, "UPDATE orders SET status = 'confirmed'")
    mark(middle, ORDER)
    drain(shop.worker)
    assert held(middle) == []
    assert run(erp_url, "SELECT gross::text, paid::text FROM orders") == [("9.90", "9.90")]


def test_f9_what_a_clerk_changed_stays_held_while_the_rest_goes(shop: Shop, middle: Connection, erp_url: str) -> None:
    """The clerk's line and the order's sum are not sent. They stay held, however often the sink looks."""
    run(erp_url, "UPDATE order_lines SET quantity = 5")
    for sum_ in ("9.90", "8.90"):
        assert shop.changed(f"gross = {sum_}") == ["changed in the ERP: line:l1 quantity: we wrote 2, the ERP has 5"]
        assert run(erp_url, "SELECT gross::text, paid::text FROM orders") == [("11.90", sum_)]
        assert run(erp_url, "SELECT quantity::int, gross::text FROM order_lines") == [(5, "11.90")]
    events = rows(middle, "SELECT event FROM ordertap_shop.history WHERE type = 'sales_order' ORDER BY id")
    assert [event for (event,) in events] == ["create", "amend", "held", "amend"], "it was held all the time"
    run(erp_url, "UPDATE order_lines SET quantity = 2")
    mark(middle, ORDER)
    drain(shop.worker)
    assert held(middle) == []
    assert run(erp_url, "SELECT gross::text, paid::text FROM orders") == [("8.90", "8.90")]


@pytest.mark.parametrize(
    "changes",
    [
        ["gross = 9.90", "status = 'cancelled'"],
        ["gross = 9.90", "gross = 12.90, status = 'cancelled'"],
        ["gross = 9.90, status = 'cancelled'"],
    ],
    ids=["refused before", "changed to what the ERP would take", "in one commit"],
)
def test_f9_what_the_erp_refuses_beside_a_cancellation_is_left_away(
    shop: Shop, erp_url: str, changes: Sequence[str]
) -> None:
    """The cancelled order keeps its former figures, and no money is left of it."""
    run(erp_url, "ALTER TABLE orders ADD CHECK (gross > 10)")
    *before, cancels = changes
    for one in before:
        assert "refused" in shop.changed(one)[0]
    assert shop.changed(cancels) == []
    assert run(erp_url, "SELECT gross::text FROM orders") == [("11.90",)]
    assert shop.cancelled()


def test_f9_a_cancellation_that_the_erp_cannot_take_is_held(shop: Shop, erp_url: str) -> None:
    run(erp_url, "UPDATE orders SET payment_means = 'cash', status = 'delivered'")
    assert "changed in the ERP" in shop.changed("status = 'cancelled'")[0]
    assert run(erp_url, "SELECT status FROM orders") == [("delivered",)]


@pytest.mark.parametrize("lacks", ["sku = 'NEW'", "customer = '8'"])
def test_f9_an_order_that_the_erp_never_heard_of_is_held_for_nothing(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str, lacks: str
) -> None:
    """It is held neither for an item nor for a buyer that the ERP lacks."""
    worker = make_worker(middle, erp, profile_path)
    change(middle, f"UPDATE orders SET {lacks}")
    look(worker, middle, ORDER)
    assert len(held(middle)) == 1
    change(middle, "UPDATE orders SET status = 'cancelled'")
    look(worker, middle, ORDER)
    assert held(middle) == []
    assert run(erp_url, "SELECT count(*) FROM orders") == [(0,)]


def test_f9_the_payments_that_the_erp_was_told_of_stay_in_the_ledger(shop: Shop, middle: Connection) -> None:
    """They tell a payment that the shop purges later from one that it changes."""
    shop.changed("sku = 'NEW'")
    assert shop.changed("status = 'cancelled'") == []
    with transaction(middle) as cursor:
        cursor.execute("SELECT applied -> 'payments' ? 'p' FROM ordertap_shop.document WHERE type = 'sales_order'")
        assert cursor.fetchall() == [(True,)]


def test_what_comes_back_of_another_order_under_the_key_is_not_booked_to_the_one_that_the_erp_has(
    shop: Shop, middle: Connection, erp_url: str
) -> None:
    change(middle, "INSERT INTO returns VALUES (5, 1, 1, 5.95)")
    mark(middle, RETURN, REFUND)
    assert len(shop.changed("number = 'S-9', customer = '8', placed_at = '2026-02-02T10:00Z'")) == 3
    booked = "SELECT (SELECT count(*) FROM returns), (SELECT count(*) FROM refunds)"
    assert run(erp_url, booked) == [(0, 0)]
    accept_document(middle, ORDER, "Ada", execute=True)
    mark(middle, CUSTOMER._replace(key="8"))
    drain(shop.worker)
    pass_deadlines(middle)
    drain(shop.worker)
    assert held(middle) == []
    assert run(erp_url, booked) == [(1, 1)]
