"""One ERP order per buyer and day, by the profile `sample_daily`: what a day is, and its way into the reference ERP."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from sink.apply.worker import Worker
from sink.documents import totals
from sink.documents.models import Invalid, NotReady, Refund, ReturnOrder, SalesOrder
from sink.documents.profile import load_profile
from sink.documents.refs import DocumentRef
from sink.erp.sql.adapter import SqlErp
from sink.reconcile.report import Report
from sink.reconcile.sides import reconcile
from tests.daily_shop import DAY, PROFILE, DailyShop, of_day, open_daily_shop
from tests.fix_erp import drain, held, make_worker, pass_deadlines, rows, run

D = Decimal
TODAY = of_day()
BUYER = DocumentRef("customer", "7")
BACK, MONEY = DocumentRef("return_order", "5"), DocumentRef("refund", "5")
LINES = "SELECT name, quantity::int FROM order_lines WHERE kind = 'item' ORDER BY name"


@pytest.fixture
def shop(database: str) -> Iterator[DailyShop]:
    with open_daily_shop(database) as made:
        yield made


def lines(shop: DailyShop) -> dict[str, list[str]]:
    """Lines of all orders, by key of the order. Each order adds up."""
    found = {key: one for key, one in shop.built().items() if isinstance(one, SalesOrder)}
    assert {totals.problem(one) for one in found.values()} == {None}
    return {key: [line.key for line in one.lines] for key, one in found.items()}


def test_a_day_is_the_calendars_in_the_shops_time_zone(shop: DailyShop) -> None:
    """Also the one of 23 and the one of 25 hours."""
    moments = (
        "2026-03-28T22:59:59Z", "2026-03-28T23:00:00Z", "2026-03-29T21:59:59Z", "2026-03-29T22:00:00Z",
        "2026-10-24T22:00:00Z", "2026-10-25T22:59:59Z", "2026-10-25T23:00:00Z",
    )  # fmt: skip
    for number, at in enumerate(moments, 1):
        shop.order(number, at)
    shop.order(8, moments[0], buyer=8)
    assert lines(shop) == {
        "7:2026-03-28": ["10"], "7:2026-03-29": ["20", "30"], "7:2026-03-30": ["40"],
        "7:2026-10-25": ["50", "60"], "7:2026-10-26": ["70"], "8:2026-03-28": ["80"],
    }  # fmt: skip
    for day, ends in (("2026-03-29", "2026-03-29T22:00:00Z"), ("2026-10-25", "2026-10-25T23:00:00Z")):
        closing = datetime.fromisoformat(ends)
        assert shop.built(closing - timedelta(seconds=1))[f"7:{day}"] == NotReady(closing)
        assert isinstance(shop.built(closing)[f"7:{day}"], SalesOrder)


def test_what_an_order_of_a_day_has(shop: DailyShop) -> None:
    shop.order(1)
    shop.order(2, f"{DAY}T11:00Z", pieces=1)
    found = shop.built()[TODAY.key]
    assert isinstance(found, SalesOrder)
    assert (found.number, found.customer, found.gross) == (f"D7-{DAY}", "7", D("20.23"))
    assert found.placed_at == datetime(2026, 1, 15, 11, tzinfo=UTC), "noon in Berlin"
    assert [one.name for one in found.lines] == ["S1: Bolt", "S2: Bolt"]
    assert [one.key for one in found.charges] == ["1:shipping", "2:shipping"]
    assert sum(one.amount for one in found.payments) == found.gross
    assert {one.kind for one in found.addresses} == {"billing", "shipping"}
    shop.sql("UPDATE orders SET placed_at = placed_at + interval '1 day' WHERE id = 1")
    assert lines(shop) == {TODAY.key: ["20"], "7:2026-01-16": ["10"]}


def test_orders_that_are_cancelled_or_not_paid(shop: DailyShop) -> None:
    shop.order(1)
    shop.order(2)
    shop.order(3, status="pending")
    assert lines(shop) == {TODAY.key: ["10", "20"]}
    shop.sql("UPDATE orders SET status = 'cancelled' WHERE id = 1")
    assert lines(shop) == {TODAY.key: ["20"]}
    shop.sql("UPDATE orders SET status = 'cancelled'")
    found = shop.built()[TODAY.key]
    assert isinstance(found, SalesOrder)
    assert found.status == "cancelled"
    shop.sql("UPDATE orders SET status = 'pending'")
    assert shop.built() == {TODAY.key: NotReady()}


def test_what_comes_back_is_of_the_order_of_that_day(shop: DailyShop) -> None:
    shop.order(1)
    shop.comes_back(5, line=10)
    returned, refund = shop.built(name="return_order")["5"], shop.built(name="refund")["5"]
    assert isinstance(returned, ReturnOrder)
    assert isinstance(refund, Refund)
    assert (returned.order, returned.number, returned.lines[0].order_line) == (TODAY.key, "S1-R5", "10")
    assert (refund.order, refund.gross) == (TODAY.key, D("5.95"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("UPDATE order_addresses SET street = 'Side Street 2' WHERE order_id = 2 AND kind = 'shipping'",
         "addresses: several of them are shipping addresses, and the ERP's order has one"),
        ("UPDATE orders SET currency = 'CHF' WHERE id = 2", f"sales_order.sql: 2 rows with the key {TODAY.key}"),
    ],
)  # fmt: skip
def test_orders_that_cannot_be_one(shop: DailyShop, change: str, reason: str) -> None:
    shop.order(1)
    shop.order(2)
    shop.sql(change)
    assert shop.built() == {TODAY.key: Invalid(reason)}


def agrees(shop: DailyShop, erp: SqlErp) -> Report:
    return reconcile(shop.middle, None, "shop", load_profile(PROFILE), erp, collective=False, compare_prices=False)


def look(shop: DailyShop, worker: Worker, *refs: DocumentRef) -> list[str]:
    """Marks documents of the day, has the worker look at them, and returns the reasons of held ones."""
    shop.mark(*refs or (TODAY,), unit=TODAY)
    drain(worker)
    return held(shop.middle)


def test_the_way_of_a_day_into_the_erp(shop: DailyShop, erp: SqlErp, erp_url: str) -> None:
    worker = make_worker(shop.middle, erp, PROFILE)
    state = "SELECT state, reason, next_try > now() FROM ordertap_shop.document WHERE type = 'sales_order'"
    shop.order(1)
    shop.order(2, pieces=1)
    shop.mark(BUYER)
    assert look(shop, worker) == []
    ((found, reason, later),) = rows(shop.middle, state)
    assert (found, reason[:33], later) == ("not ready", "the shop may add to it until 2026", True)
    assert run(erp_url, LINES) == []
    assert [one.result for one in agrees(shop, erp).findings] == ["in flight"], "by the clock, the day has ended"

    shop.copied(f"{DAY}T23:00Z")
    pass_deadlines(shop.middle)  # the time of its next look has come
    drain(worker)
    assert run(erp_url, LINES) == [("S1: Bolt", 2), ("S2: Bolt", 1)]

    shop.order(3, f"{DAY}T22:59Z")  # a latecomer
    assert look(shop, worker) == []
    shop.comes_back(5, line=30)
    assert look(shop, worker, BACK, MONEY) == []
    of = "SELECT l.name, r.quantity::int FROM return_lines r JOIN order_lines l ON l.id = r.order_line_id"
    assert run(erp_url, of) == [("S3: Bolt", 1)]
    shop.comes_back(6, line=30, pieces=2)
    (reason,) = look(shop, worker, DocumentRef("return_order", "6"))
    assert "line:30: 2 returned now, but 2 were sold and 1 already returned" in reason
    shop.sql("UPDATE returns SET status = 'requested' WHERE id = 6")
    assert look(shop, worker, DocumentRef("return_order", "6")) == []

    shop.sql("UPDATE orders SET status = 'cancelled' WHERE id = 1")
    assert look(shop, worker) == []
    assert run(erp_url, LINES) == [("S2: Bolt", 1), ("S3: Bolt", 2)]
    assert run(erp_url, "SELECT shop_number, gross, paid FROM orders") == [(f"D7-{DAY}", D("20.23"), D("33.32"))]
    assert agrees(shop, erp).agrees


def test_a_day_of_which_nothing_is_left_is_cancelled(shop: DailyShop, erp: SqlErp, erp_url: str) -> None:
    worker = make_worker(shop.middle, erp, PROFILE)
    shop.copied(f"{DAY}T23:00Z")
    shop.order(1)
    shop.order(2)
    shop.mark(BUYER)
    assert look(shop, worker) == []
    shop.sql("UPDATE orders SET status = 'cancelled' WHERE id = 1")
    assert look(shop, worker) == []
    shop.sql("UPDATE orders SET status = 'cancelled' WHERE id = 2")
    assert look(shop, worker) == []
    assert run(erp_url, "SELECT status FROM orders") == [("cancelled",)]
    assert agrees(shop, erp).agrees
