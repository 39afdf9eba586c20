"""The proof of shop against ERP: if they agree there are no findings, and each single damage in the ERP is found."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from deploy.embedded import Postgres
from deploy.shop.simulator import Simulator, prepare, skus
from tests.programs import ROOT
from tests.proof.erp import check_erp

READY = "(status <> 'pending' AND EXISTS (SELECT FROM payments p WHERE p.order_id = o.id))"
ORDERS = f"SELECT number, net, tax, gross, status::text = 'cancelled' FROM orders o WHERE {READY}"
RETURNS = """
SELECT o.number || '-R' || r.id, o.number, sum(l.quantity), sum(l.refund_amount) + r.shipping_refund,
       r.received_at IS NOT NULL, r.refunded_at IS NOT NULL
  FROM returns r JOIN orders o ON o.id = r.order_id JOIN return_lines l ON l.return_id = r.id GROUP BY o.id, r.id
"""
PRICES = """
SELECT sku, price, NULL FROM products UNION ALL
SELECT p.sku, t.price, t.valid_from AT TIME ZONE 'UTC' FROM product_prices t JOIN products p ON p.id = t.product_id
"""
LEDGER = """
CREATE SCHEMA ordertap_shop;
CREATE TABLE ordertap_shop.document (type text, key text, number text);
CREATE TABLE ordertap_shop.history (type text, key text, event text);
"""
LAST = "(SELECT max(id) FROM orders WHERE status = '{}')"
COLUMNS = "shop_number, account_number, placed_at, currency, tax_included, net, tax, gross, paid, status"
FORGET = "DELETE FROM order_lines WHERE order_id = {0}; DELETE FROM orders WHERE id = {0}"

DAMAGES = {
    "an order is lost": FORGET.format("(SELECT max(id) FROM orders o WHERE status <> 'cancelled'"
                                      " AND NOT EXISTS (SELECT FROM returns r WHERE r.order_id = o.id))"),
    "an order is there twice": f"INSERT INTO orders ({COLUMNS}) SELECT {COLUMNS} FROM orders"
                               " WHERE status = 'confirmed' LIMIT 1",
    "a cent more": f"UPDATE orders SET net = net + 0.01, gross = gross + 0.01 WHERE id = {LAST.format('confirmed')};"
                   f"UPDATE order_lines SET net = net + 0.01, gross = gross + 0.01 WHERE order_id ="
                   f" {LAST.format('confirmed')}",
    "a line is lost": "DELETE FROM order_lines WHERE id = (SELECT max(l.id) FROM order_lines l"
                      " WHERE NOT EXISTS (SELECT FROM return_lines r WHERE r.order_line_id = l.id))",
    "a cancellation is lost": f"UPDATE orders SET status = 'confirmed' WHERE id = {LAST.format('cancelled')}",
    "a cancellation too many": f"UPDATE orders SET status = 'cancelled' WHERE id = {LAST.format('confirmed')}",
    "a cancelled order is lost": FORGET.format(LAST.format("cancelled")),
    "a cancelled order has other figures": "UPDATE orders SET net = net + 1, gross = gross + 1 WHERE id ="
                                           f" {LAST.format('cancelled')}",
    "a return is lost": "DELETE FROM return_lines; DELETE FROM returns",
    "more came back": "UPDATE return_lines SET quantity = quantity + 1",
    "a refund is lost": "DELETE FROM refunds",
    "a refund is a cent less": "UPDATE refunds SET gross = gross - 0.01",
    "a refund is there twice": "INSERT INTO refunds (order_id, shop_number, currency, refunded_at, net, tax, gross,"
                               " status) SELECT order_id, shop_number, currency, refunded_at, net, tax, gross, status"
                               " FROM refunds",
    "a price is old": "UPDATE prices SET amount = amount + 0.01 WHERE valid_from IS NULL AND sku = 'P-0001'",
    "a temporary price is lost": "DELETE FROM prices WHERE valid_from IS NOT NULL",
}  # fmt: skip


class Books:
    """Shop, ERP and ledger when all is well."""

    def __init__(self, server: Postgres, new_database: Callable[[Postgres, str], str]) -> None:
        self.shop, self.erp, self.middle = (new_database(server, name) for name in ("shop", "erp", "middle"))
        prepare(self.shop, lambda _: None)
        with closing(Simulator(self.shop, 2)) as simulator:
            simulator.run(60)
        execute(self.erp, (ROOT / "deploy/erp/schema.sql").read_text())
        execute(self.middle, LEDGER)
        self._copy()

    def _copy(self) -> None:
        with closing(psycopg2.connect(self.erp)) as erp, erp, erp.cursor() as cursor:
            cursor.executemany("INSERT INTO items VALUES (%s, 'item')", [(sku,) for sku in skus(self.shop)])
            cursor.execute("INSERT INTO customers (account_number, name) VALUES ('1', 'Ann')")
            for row in execute(self.shop, ORDERS):
                _order(cursor, *row)
                execute(
                    self.middle, "INSERT INTO ordertap_shop.document VALUES ('sales_order', %s, %s)", row[0], row[0]
                )
                execute(self.middle, "INSERT INTO ordertap_shop.history VALUES ('sales_order', %s, 'create')", row[0])
            for returned in execute(self.shop, RETURNS):
                _return(cursor, *returned)
            cursor.executemany(
                "INSERT INTO prices (sku, amount, valid_from, price_list, currency, tax_included, minimum_quantity,"
                " status) VALUES (%s, %s, %s, 'retail', 'EUR', true, 1, 'confirmed')",
                execute(self.shop, PRICES),
            )

    def check(self) -> list[str]:
        """The findings."""
        return [
            f"{finding.kind}: {finding.text}"
            for finding in check_erp(self.shop, self.erp, self.middle, "ordertap_shop")[0]
        ]


def _order(cursor: Any, number: str, net: Any, tax: Any, gross: Any, cancelled: bool) -> None:
    cursor.execute(
        "INSERT INTO orders (shop_number, account_number, placed_at, currency, tax_included, net, tax, gross, paid,"
        " status) VALUES (%s, '1', now(), 'EUR', true, %s, %s, %s, %s, %s) RETURNING id",
        (number, net, tax, gross, gross, "cancelled" if cancelled else "confirmed"),
    )
    cursor.execute(
        "INSERT INTO order_lines (order_id, kind, quantity, unit_price, discount, tax_rate, net, tax, gross)"
        " VALUES (%s, 'item', 1, %s, 0, 19, %s, %s, %s)",
        (cursor.fetchone()[0], gross, net, tax, gross),
    )


def _return(cursor: Any, number: str, order: str, quantity: Any, money: Any, received: bool, refunded: bool) -> None:
    if received:
        cursor.execute(
            "WITH r AS (INSERT INTO returns (order_id, shop_number, returned_at, status) SELECT id, %s, now(),"
            " 'confirmed' FROM orders WHERE shop_number = %s RETURNING id, order_id)"
            " INSERT INTO return_lines (return_id, order_line_id, quantity)"
            " SELECT r.id, l.id, %s FROM r JOIN order_lines l ON l.order_id = r.order_id",
            (number, order, quantity),
        )
    if refunded:
        cursor.execute(
            "INSERT INTO refunds (order_id, shop_number, currency, refunded_at, net, tax, gross, status)"
            " SELECT id, %s, 'EUR', now(), %s, 0, %s, 'confirmed' FROM orders WHERE shop_number = %s",
            (number, money, money, order),
        )


def execute(dsn: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Runs one statement in a database."""
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def sound(postgres: Postgres) -> Books:
    """Made once for all tests."""
    numbers = iter(range(3))
    return Books(postgres, lambda server, name: server.create_database(f"books_{name}_{next(numbers)}"))


@pytest.fixture
def books(sound: Books, postgres: Postgres) -> Books:
    """A copy of ERP and ledger for one test."""
    mine = object.__new__(Books)
    mine.shop = sound.shop
    mine.erp, mine.middle = (_copy_of(postgres, dsn) for dsn in (sound.erp, sound.middle))
    return mine


def _copy_of(server: Postgres, dsn: str) -> str:
    name = dsn.rpartition("/")[2]
    server.psql(f"DROP DATABASE IF EXISTS {name}_copy")
    server.psql(f"CREATE DATABASE {name}_copy TEMPLATE {name}")
    return server.dsn(f"{name}_copy")


def test_the_day_has_what_can_be_damaged(sound: Books) -> None:
    for statement in ("orders WHERE status = 'cancelled'", "returns", "refunds", "prices WHERE valid_from IS NOT NULL"):
        assert execute(sound.erp, f"SELECT count(*) > 0 FROM {statement}") == [(True,)], statement
    unpaid = "SELECT count(*) > 0 FROM orders o WHERE status = 'cancelled' AND NOT " + READY
    assert execute(sound.shop, unpaid) == [(True,)]


def test_agreement_has_no_findings(sound: Books) -> None:
    assert sound.check() == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damage_is_found(books: Books, damage: str) -> None:
    execute(books.erp, DAMAGES[damage])
    assert books.check() != []


def test_an_order_cancelled_before_the_erp_was_told_needs_no_document(books: Books) -> None:
    execute(books.middle, "DELETE FROM ordertap_shop.history")
    execute(books.erp, DAMAGES["a cancelled order is lost"])
    assert books.check() == []


def test_an_order_cancelled_unpaid_must_not_be_in_the_erp(books: Books) -> None:
    unpaid = f"SELECT number, net, tax, gross, true FROM orders o WHERE status = 'cancelled' AND NOT {READY} LIMIT 1"
    (row,) = execute(books.shop, unpaid)
    with closing(psycopg2.connect(books.erp)) as erp, erp, erp.cursor() as cursor:
        _order(cursor, *row)
    assert [finding.partition(":")[0] for finding in books.check()] == ["double"]
