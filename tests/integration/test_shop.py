"""The sample shop on a real PostgreSQL: its day is exact and has everything that the sink must handle, and the profile
reads it."""

from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from itertools import count

import psycopg2
import pytest

from deploy.embedded import Postgres
from deploy.shop.simulator import Simulator, prepare, skus
from sink.documents import totals
from sink.documents.build import build
from sink.documents.models import Built, Customer, Missing, NotReady, Price, Refund, ReturnOrder, SalesOrder
from sink.documents.profile import Profile, load_profile
from sink.staging import touches
from tests.keys import all_keys

ORDERS = 150
SEEDS = (1, 2, 3)
Shop = psycopg2.extensions.connection
_number = count(1)

WRONG_TOTALS = """
SELECT o.number FROM orders o CROSS JOIN LATERAL (
    SELECT sum(gross) AS gross, sum(tax) AS tax FROM (
        SELECT gross, tax FROM order_lines l WHERE l.order_id = o.id
        UNION ALL SELECT -gross, -tax FROM order_discounts d WHERE d.order_id = o.id) part) p
 WHERE (p.gross + o.shipping_gross, p.tax + o.shipping_tax) IS DISTINCT FROM (o.gross, o.tax)
    OR o.net <> o.gross - o.tax
"""
WRONG_TAX = """
SELECT 'line ' || id FROM order_lines WHERE tax <> round(gross * tax_rate / (100 + tax_rate), 2)
UNION ALL SELECT 'discount ' || id FROM order_discounts WHERE tax <> round(gross * tax_rate / (100 + tax_rate), 2)
UNION ALL SELECT 'shipping ' || id FROM orders
 WHERE shipping_tax <> round(shipping_gross * shipping_tax_rate / (100 + shipping_tax_rate), 2)
"""
NOT_PAID_IN_FULL = """
SELECT o.number FROM orders o LEFT JOIN payments p ON p.order_id = o.id
 GROUP BY o.id HAVING o.status NOT IN ('pending', 'cancelled') AND coalesce(sum(p.amount), 0) <> o.gross
"""
MORE_BACK_THAN_SOLD = """
SELECT l.id FROM order_lines l JOIN return_lines b ON b.order_line_id = l.id
 GROUP BY l.id HAVING sum(b.quantity) > l.quantity
"""
MORE_BACK_THAN_PAID = """
SELECT o.number FROM orders o JOIN (
    SELECT order_id, sum(shipping_refund) AS shipping, sum(amount) AS goods FROM returns r JOIN LATERAL (
        SELECT sum(refund_amount) AS amount FROM return_lines b WHERE b.return_id = r.id) b ON true
    GROUP BY order_id) r ON r.order_id = o.id
 WHERE r.shipping > o.shipping_gross OR r.goods > o.gross - o.shipping_gross
"""
KINDS = {  # what the day must have had, else the tests below would prove less than they say
    "every status but pending": "SELECT count(DISTINCT status) = 6 FROM orders WHERE status <> 'pending'",
    "all kinds of buyers": "SELECT count(DISTINCT c.kind) = 3 FROM orders o JOIN customers c ON c.id = o.customer_id",
    "a buyer who came again": "SELECT count(*) > count(DISTINCT customer_id) FROM orders",
    "a tax id": "SELECT bool_or(tax_id IS NOT NULL) FROM customers",
    "five lines": "SELECT max(n) >= 5 FROM (SELECT count(*) AS n FROM order_lines GROUP BY order_id) x",
    "line discounts": "SELECT bool_or(discount > 0) FROM order_lines",
    "a discount over two rates": "SELECT max(n) = 2 FROM (SELECT count(*) AS n FROM order_discounts"
    " GROUP BY order_id) x",
    "shipping and none": "SELECT count(DISTINCT shipping_gross > 0) = 2 FROM orders",
    "money back for an edit": "SELECT bool_or(amount < 0) FROM payments",
    "more money for an edit": "SELECT max(n) > 1 FROM (SELECT count(*) AS n FROM payments WHERE amount > 0"
    " GROUP BY order_id) x",
    "cancelled unpaid": "SELECT bool_or(NOT EXISTS (SELECT FROM payments p WHERE p.order_id = o.id)) FROM orders o"
    " WHERE status = 'cancelled'",
    "cancelled when paid": "SELECT bool_or(EXISTS (SELECT FROM payments p WHERE p.order_id = o.id)) FROM orders o"
    " WHERE status = 'cancelled'",
    "every state of a return": "SELECT count(DISTINCT status) = 3 FROM returns",
    "a second return": "SELECT max(n) > 1 FROM (SELECT count(*) AS n FROM returns GROUP BY order_id) x",
    "part of a line back": "SELECT bool_or(b.quantity < l.quantity) FROM return_lines b"
    " JOIN order_lines l ON l.id = b.order_line_id",
    "shipping refunded": "SELECT bool_or(shipping_refund > 0) FROM returns",
    "a temporary price": "SELECT count(*) > 0 FROM product_prices",
    "a house moved": "SELECT bool_or(a.street <> x.street) FROM orders o JOIN addresses a USING (customer_id)"
    " JOIN order_addresses x ON x.order_id = o.id AND x.kind = a.kind",
    "a checkout that was rolled back": "SELECT max(id) > count(*) FROM orders",
}
WORDS = ("lost a line", "got one piece more", "got another line", "% off", "EUR now again", "at the same moment")


@pytest.fixture(scope="module")
def new_shop(postgres: Postgres) -> Callable[[], str]:
    """Makes a shop that has not sold anything yet."""

    def make() -> str:
        url = postgres.create_database(f"sample_{next(_number)}")
        prepare(url, lambda _: None)
        return url

    return make


@pytest.fixture(scope="module", params=SEEDS, ids=lambda seed: f"seed{seed}")
def day(request: pytest.FixtureRequest, new_shop: Callable[[], str]) -> Iterator[tuple[Shop, list[str]]]:
    """A shop after a day, and what its simulator said."""
    url, said = new_shop(), []
    with closing(Simulator(url, request.param)) as simulator:
        simulator.run(ORDERS, say=said.append)
    with closing(psycopg2.connect(url)) as connection:
        connection.set_session(readonly=True)
        yield connection, said


@pytest.fixture
def shop(day: tuple[Shop, list[str]]) -> Shop:
    return day[0]


@pytest.fixture(scope="module")
def profile() -> Profile:
    return load_profile("sample")


def rows(shop: Shop, query: str) -> list[tuple]:
    with shop.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def documents(shop: Shop, profile: Profile, name: str) -> dict[str, Built]:
    with shop.cursor() as cursor:
        return build(cursor, profile.documents[name], all_keys(cursor, profile, name))


@pytest.mark.parametrize(
    "broken", [WRONG_TOTALS, WRONG_TAX, NOT_PAID_IN_FULL, MORE_BACK_THAN_SOLD, MORE_BACK_THAN_PAID],
    ids=["totals", "tax", "payments", "quantities", "refunds"],
)  # fmt: skip
def test_the_day_is_exact(shop: Shop, broken: str) -> None:
    assert rows(shop, "SELECT count(*) FROM orders")[0][0] >= ORDERS
    assert rows(shop, broken) == []


def test_the_days_have_every_kind_of_event(new_shop: Callable[[], str]) -> None:
    """In one shop where several simulators worked: what one day may lack by chance, four have."""
    url, said = new_shop(), []
    for seed in (*SEEDS, SEEDS[0]):  # a seed that was used before makes no clash
        with closing(Simulator(url, seed)) as simulator:
            simulator.run(ORDERS, say=said.append)
    with closing(psycopg2.connect(url)) as shop:
        assert [kind for kind, query in KINDS.items() if rows(shop, query) != [(True,)]] == []
        assert rows(shop, "SELECT count(*) FROM orders WHERE status = 'pending'") == [(0,)]
        assert rows(shop, WRONG_TOTALS) == rows(shop, MORE_BACK_THAN_PAID) == []
    assert [word for word in WORDS if not any(word in text for text in said)] == []


def test_the_same_seed_is_the_same_day(new_shop: Callable[[], str]) -> None:
    def outcome(seed: int) -> tuple[list[str], list[tuple]]:
        url, said = new_shop(), []
        with closing(Simulator(url, seed)) as simulator:
            simulator.run(20, say=said.append)
        with closing(psycopg2.connect(url)) as shop:
            return said, rows(shop, "SELECT number, status, net, tax, gross FROM orders ORDER BY id")

    assert outcome(4) == outcome(4) != outcome(5)


def test_two_work_in_one_shop_at_the_same_time(new_shop: Callable[[], str]) -> None:
    url = new_shop()
    with closing(Simulator(url, 1)) as one, closing(Simulator(url, 1)) as other:
        while one.orders + other.orders < 40:
            one.step()
            other.step()
        one.close_day()
        other.close_day()
    with closing(psycopg2.connect(url)) as shop:
        assert rows(shop, "SELECT count(*) FROM orders") == [(one.orders + other.orders,)]
        assert rows(shop, WRONG_TOTALS) == []


def test_an_order_and_its_lines_are_one_transaction(new_shop: Callable[[], str]) -> None:
    """Checks orders that nobody has touched since. `xmin` is the transaction that wrote a row."""
    url = new_shop()
    with closing(Simulator(url, 6)) as simulator, closing(psycopg2.connect(url)) as shop:
        while simulator.orders < 15:
            simulator.step()
        untouched = "FROM orders o WHERE status = 'pending'"
        assert rows(shop, f"SELECT count(*) > 0 {untouched}") == [(True,)]
        for part in ("order_lines", "order_addresses"):
            whole = f"(SELECT bool_and(p.xmin = o.xmin) FROM {part} p WHERE p.order_id = o.id)"
            assert rows(shop, f"SELECT number {untouched} AND {whole} IS NOT TRUE") == []


def test_skus_are_what_is_sold(new_shop: Callable[[], str]) -> None:
    url = new_shop()
    with closing(psycopg2.connect(url)) as shop:
        assert [(sku,) for sku in skus(url)] == rows(shop, "SELECT sku FROM products ORDER BY sku")


def test_orders_are_the_shops_to_the_cent(shop: Shop, profile: Profile) -> None:
    orders = documents(shop, profile, "sales_order")
    shown = rows(
        shop,
        "SELECT id::text, number, customer_id::text, status, net, tax, gross,"
        " (SELECT sum(amount) FROM payments WHERE order_id = o.id),"
        " (SELECT count(*) FROM order_lines WHERE order_id = o.id) FROM orders o",
    )
    assert set(orders) == {row[0] for row in shown}
    for key, number, customer, status, net, tax, gross, paid, lines in shown:
        order = orders[key]
        if paid is None:
            assert status == "cancelled"
            assert order == NotReady()
            continue
        assert isinstance(order, SalesOrder)
        assert totals.problem(order) is None
        assert (order.number, order.customer, order.net, order.tax, order.gross) == (number, customer, net, tax, gross)
        assert order.status == ("cancelled" if status == "cancelled" else "open")
        assert sum(payment.amount for payment in order.payments) == paid
        assert (len(order.lines), {address.kind for address in order.addresses}) == (lines, {"billing", "shipping"})
        assert all(line.unit_price * line.quantity - line.discount == line.gross for line in order.lines)


def test_a_pending_order_is_not_ready(new_shop: Callable[[], str], profile: Profile) -> None:
    url = new_shop()
    with closing(Simulator(url, 1)) as simulator, closing(psycopg2.connect(url)) as shop:
        while simulator.orders < 10:
            simulator.step()
        pending = [key for (key,) in rows(shop, "SELECT id::text FROM orders WHERE status = 'pending'")]
        assert pending
        orders = documents(shop, profile, "sales_order")
        assert [orders[key] for key in pending] == [NotReady()] * len(pending)


def test_goods_come_back_before_the_money(shop: Shop, profile: Profile) -> None:
    returns, refunds = documents(shop, profile, "return_order"), documents(shop, profile, "refund")
    shown = rows(
        shop,
        "SELECT r.id::text, r.order_id::text, r.status, sum(b.quantity), r.shipping_refund + sum(b.refund_amount)"
        " FROM returns r JOIN return_lines b ON b.return_id = r.id GROUP BY r.id",
    )
    assert set(returns) == set(refunds) == {row[0] for row in shown}
    for key, order, status, pieces, money in shown:
        returned, refund = returns[key], refunds[key]
        if status == "requested":
            assert returned == NotReady()
        else:
            assert isinstance(returned, ReturnOrder)
            assert (returned.order, sum(line.quantity for line in returned.lines)) == (order, pieces)
        if status == "refunded":
            assert isinstance(refund, Refund)
            assert (refund.order, refund.return_order, refund.gross) == (order, key, money)
            assert totals.refund_problem(refund) is None
        else:
            assert refund == NotReady()


def test_f10_money_for_shipping_alone_is_a_refund_and_no_goods_come_back(
    new_shop: Callable[[], str], profile: Profile
) -> None:
    url = new_shop()
    with closing(Simulator(url, 1)) as simulator, closing(psycopg2.connect(url)) as shop:
        while simulator.orders < 3:
            simulator.step()
        ((key,),) = rows(
            shop,
            "INSERT INTO returns (order_id, status, shipping_refund, received_at, refunded_at)"
            " SELECT id, 'refunded', 4.90, now(), now() FROM orders WHERE shipping_tax_rate = 19 ORDER BY id LIMIT 1"
            " RETURNING id::text",
        )
        assert documents(shop, profile, "return_order")[key] == Missing()
        refund = documents(shop, profile, "refund")[key]
        assert isinstance(refund, Refund)
        (part,) = refund.components
        assert (refund.gross, part.kind, part.tax) == (Decimal("4.90"), "charge", Decimal("0.78"))
        assert totals.refund_problem(refund) is None


def test_f10_money_given_back_is_of_its_refund_where_a_payment_has_its_number(
    new_shop: Callable[[], str], profile: Profile
) -> None:
    """Money back for an edit of the order has no refund, and belongs to the order."""
    url = new_shop()
    with closing(Simulator(url, 1)) as simulator, closing(psycopg2.connect(url)) as shop:
        while simulator.orders < 3:
            simulator.step()
        ((order, key),) = rows(
            shop,
            "WITH o AS (UPDATE orders SET status = 'paid' WHERE id = (SELECT min(id) FROM orders"
            " WHERE shipping_tax_rate = 19) RETURNING id)"
            " INSERT INTO returns (order_id, status, shipping_refund, received_at, refunded_at)"
            " SELECT id, 'refunded', 4.90, now(), now() FROM o RETURNING order_id::text, id::text",
        )
        refund = documents(shop, profile, "refund")[key]
        assert isinstance(refund, Refund)
        rows(
            shop,
            "INSERT INTO payments (order_id, means, amount, reference)"
            f" VALUES ({order}, 'card', -4.90, '{refund.number}'), ({order}, 'card', -1, NULL) RETURNING id",
        )
        found = documents(shop, profile, "sales_order")[order]
        assert isinstance(found, SalesOrder)
        assert [(one.amount, one.refund) for one in found.payments if one.amount < 0] == [
            (Decimal("-4.90"), key),
            (Decimal(-1), None),
        ]


def test_customers_and_prices_are_the_shops(shop: Shop, profile: Profile) -> None:
    customers = documents(shop, profile, "customer")
    shown = {row[0]: row[1:] for row in rows(shop, "SELECT id::text, kind, email, tax_id FROM customers")}
    assert {k: (c.kind, c.email, c.tax_id) for k, c in customers.items() if isinstance(c, Customer)} == shown
    assert all(isinstance(c, Customer) and len(c.addresses) == 2 for c in customers.values())
    for name, query in {
        "price": "SELECT id::text, sku, price, NULL, NULL, 1 FROM products",
        "temporary_price": "SELECT t.id::text, p.sku, t.price, valid_from, valid_until, minimum_quantity"
        " FROM product_prices t JOIN products p ON p.id = product_id",
    }.items():
        found = {
            (key, p.sku, p.amount, p.valid_from, p.valid_until, p.minimum_quantity)
            for key, p in documents(shop, profile, name).items()
            if isinstance(p, Price) and p.tax_included
        }
        assert found == {(*row[:5], Decimal(row[5])) for row in rows(shop, query)}


def test_the_sql_runs_before_any_row_has_come(database: str, profile: Profile) -> None:
    """The columns that the profile declares are all that its SQL reads."""
    with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        for table, columns in profile.columns.items():
            shown = ", ".join(f"NULL::{kind} AS {column}" for column, kind in columns.items())
            cursor.execute(f"CREATE VIEW {table} AS SELECT {shown} WHERE false")
        for rule in profile.documents.values():
            assert all_keys(cursor, profile, rule.name) == []
            assert build(cursor, rule, ["1"]) == {"1": Missing()}
        assert touches.find(cursor, profile, touches.no_rows(profile)) == set()


def test_the_declared_columns_are_the_shops(shop: Shop, profile: Profile) -> None:
    there = {
        (f"public.{table}", column)
        for table, column in rows(
            shop, "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
        )
    }
    declared = {(table, column) for table, columns in profile.columns.items() for column in columns}
    assert declared
    assert declared <= there
    assert {table for table, _ in there} == set(profile.tables)
