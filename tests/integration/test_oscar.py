"""A real shop: django-oscar's own code creates it and sells in it; the profile `oscar` builds its documents."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extras import RealDictCursor

from sink.documents import totals
from sink.documents.build import build
from sink.documents.models import Customer, Missing, NotReady, Price, Refund, ReturnOrder, SalesOrder
from sink.documents.profile import Profile, load_profile
from sink.staging import touches
from tests.fix_oscar import run_oscar
from tests.keys import all_keys

ORDERS = 60
SEED = 7


@pytest.fixture(scope="module")
def shop(oscar_shop: Callable[[], str]) -> Iterator[psycopg2.extensions.connection]:
    """A connection to the shop after a day of business."""
    url = oscar_shop()
    run_oscar("--database-url", url, "--orders", str(ORDERS), "--seed", str(SEED))
    with closing(psycopg2.connect(url)) as connection:
        connection.set_session(readonly=True)
        yield connection


@pytest.fixture(scope="module")
def profile() -> Profile:
    return load_profile("oscar")


def documents(shop: psycopg2.extensions.connection, profile: Profile, name: str) -> dict[str, object]:
    with shop.cursor() as cursor:
        built = build(cursor, profile.documents[name], all_keys(cursor, profile, name))
    return {key: document for key, document in built.items() if not isinstance(document, Missing)}


def rows(shop: psycopg2.extensions.connection, query: str) -> list[dict]:
    with shop.cursor(cursor_factory=RealDictCursor) as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def test_the_profile_is_data() -> None:
    folder = Path(__file__).parents[2] / "sink" / "profiles" / "oscar"
    assert {path.suffix for path in folder.iterdir()} == {".yaml", ".sql"}


def test_password_hashes_do_not_leave_the_shop(shop: psycopg2.extensions.connection, profile: Profile) -> None:
    published = rows(shop, "SELECT schemaname || '.' || tablename AS name, attnames FROM pg_publication_tables")
    columns = {row["name"]: row["attnames"] for row in published}
    assert set(columns) == set(profile.tables)
    assert "email" in columns["public.auth_user"]
    assert "password" not in columns["public.auth_user"]


def test_the_same_seed_is_the_same_day(oscar_shop: Callable[[], str]) -> None:
    def day(seed: str) -> str:
        return run_oscar("--database-url", oscar_shop(), "--orders", "8", "--seed", seed)

    first = day("3")
    assert day("3") == first
    assert day("4") != first


def test_the_day_had_what_makes_oscar_hard(shop: psycopg2.extensions.connection) -> None:
    """Otherwise the tests below would prove less than they say."""
    (day,) = rows(
        shop,
        """SELECT (SELECT count(*) FROM order_order) AS orders,
                  (SELECT count(*) FROM order_order WHERE user_id IS NULL) AS guests,
                  (SELECT count(*) FROM order_order WHERE status = 'Cancelled') AS cancelled,
                  (SELECT count(*) FROM order_order WHERE shipping_address_id IS NULL) AS downloads,
                  (SELECT count(*) FROM order_orderdiscount WHERE voucher_code <> '') AS vouchers,
                  (SELECT count(*) FROM order_orderdiscount WHERE category = 'Shipping') AS free_shipping,
                  (SELECT count(*) FROM order_orderdiscount WHERE offer_name LIKE 'Three books%') AS third_book_free,
                  (SELECT count(*) FROM order_surcharge) AS surcharges,
                  (SELECT count(*) FROM order_shippingevent e JOIN order_shippingeventtype t ON t.id = event_type_id
                    WHERE t.name = 'Returned') AS returns,
                  (SELECT count(*) FROM order_paymentevent e JOIN order_paymenteventtype t ON t.id = event_type_id
                    WHERE t.name = 'Refunded') AS refunds""",
    )
    assert day["orders"] == ORDERS
    assert [name for name, count in day.items() if not count] == []


def test_orders_are_oscars_own_to_the_cent(shop: psycopg2.extensions.connection, profile: Profile) -> None:
    orders = documents(shop, profile, "sales_order")
    shown = rows(
        shop,
        """SELECT o.id::text, number, total_incl_tax, total_excl_tax, status, EXISTS (
                      SELECT FROM payment_source s WHERE s.order_id = o.id AND s.amount_debited > 0) AS paid
             FROM order_order o""",
    )
    assert len(orders) == len(shown) == ORDERS
    rounded = 0
    for row in shown:
        order = orders[row["id"]]
        if not row["paid"]:
            assert row["status"] == "Cancelled"
            assert order == NotReady()
            continue
        assert isinstance(order, SalesOrder)
        assert totals.problem(order) is None
        assert (order.number, order.net, order.gross) == (row["number"], row["total_excl_tax"], row["total_incl_tax"])
        assert (order.status == "cancelled") == (row["status"] == "Cancelled")
        assert order.discounts == ()
        for line in order.lines:
            assert line.unit_price * line.quantity - line.discount == line.gross
            assert line.tax_rate in (Decimal(7), Decimal(19))
        rounded += any(charge.kind == "rounding" for charge in order.charges)
    assert rounded, "no order in which oscar's total is not the sum of its lines"


def test_each_buyer_is_one_customer(shop: psycopg2.extensions.connection, profile: Profile) -> None:
    customers = documents(shop, profile, "customer")
    orders = documents(shop, profile, "sales_order")
    assert {order.customer for order in orders.values() if isinstance(order, SalesOrder)} <= set(customers)
    (counted,) = rows(
        shop,
        """SELECT count(DISTINCT guest_email) AS typed, count(DISTINCT lower(guest_email)) AS people
             FROM order_order WHERE user_id IS NULL""",
    )
    kinds = Counter(customer.kind for customer in customers.values() if isinstance(customer, Customer))
    assert kinds["guest"] == counted["people"] < counted["typed"]
    assert kinds["registered"] == rows(shop, "SELECT count(*) AS n FROM auth_user")[0]["n"]
    assert all(isinstance(c, Customer) and c.email and c.email == c.email.lower() for c in customers.values())


def test_returns_are_the_events_of_that_kind(shop: psycopg2.extensions.connection, profile: Profile) -> None:
    returns = documents(shop, profile, "return_order")
    shown = rows(
        shop,
        """SELECT e.id::text, e.order_id::text AS order, sum(q.quantity) AS pieces
             FROM order_shippingevent e JOIN order_shippingeventtype t ON t.id = e.event_type_id
             JOIN order_shippingeventquantity q ON q.event_id = e.id WHERE t.name = 'Returned' GROUP BY e.id""",
    )
    assert set(returns) == {row["id"] for row in shown}
    for row in shown:
        document = returns[row["id"]]
        assert isinstance(document, ReturnOrder)
        assert (document.order, sum(line.quantity for line in document.lines)) == (row["order"], row["pieces"])


def test_refunds_add_up_and_never_pass_what_was_paid(shop: psycopg2.extensions.connection, profile: Profile) -> None:
    refunds = documents(shop, profile, "refund")
    shown = rows(
        shop,
        """SELECT e.id::text, e.amount FROM order_paymentevent e
             JOIN order_paymenteventtype t ON t.id = e.event_type_id WHERE t.name = 'Refunded'""",
    )
    assert set(refunds) == {row["id"] for row in shown}
    back: Counter[str] = Counter()
    for row in shown:
        document = refunds[row["id"]]
        assert isinstance(document, Refund)
        assert document.gross == row["amount"]
        assert totals.refund_problem(document) is None
        assert document.means
        back[document.order] += document.gross  # type: ignore[assignment]
    for key, order in documents(shop, profile, "sales_order").items():
        if isinstance(order, SalesOrder):
            assert back[key] <= sum(payment.amount for payment in order.payments)


def test_prices_are_the_stock_records(shop: psycopg2.extensions.connection, profile: Profile) -> None:
    prices = documents(shop, profile, "price")
    shown = rows(shop, "SELECT id::text, partner_sku, price, price_currency FROM partner_stockrecord")
    expected = {row["id"]: (row["partner_sku"], row["price"], row["price_currency"], False) for row in shown}
    found = {k: (p.sku, p.amount, p.currency, p.tax_included) for k, p in prices.items() if isinstance(p, Price)}
    assert found == expected


def test_addresses_are_those_on_the_order(shop: psycopg2.extensions.connection, profile: Profile) -> None:
    shown = rows(
        shop,
        """SELECT o.id::text, s.line1 AS street, s.postcode, s.line4 AS city, s.country_id AS country,
                  o.billing_address_id IS NOT NULL AS billed
             FROM order_order o LEFT JOIN order_shippingaddress s ON s.id = o.shipping_address_id""",
    )
    orders = documents(shop, profile, "sales_order")
    for row in shown:
        order = orders[row["id"]]
        if not isinstance(order, SalesOrder):
            continue
        addresses = {address.kind: address for address in order.addresses}
        assert ("billing" in addresses) == row["billed"]
        assert ("shipping" in addresses) == (row["street"] is not None)
        if row["street"] is not None:
            shipping = addresses["shipping"]
            assert [getattr(shipping, name) for name in ("street", "postcode", "city", "country")] == [
                row[name] for name in ("street", "postcode", "city", "country")
            ]


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
