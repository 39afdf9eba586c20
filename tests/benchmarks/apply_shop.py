"""A shop and an ERP for `./tests/bench apply`: the sample shop's tables, and equal orders.

Each order has a new buyer with two addresses, three lines and a payment. The first is written as the shop writes it,
and copied in SQL.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from decimal import Decimal
from typing import Any, NamedTuple

import psycopg2
from psycopg2.extras import execute_values

from deploy.shop.catalogue import Product, prepare, skus
from deploy.shop.order import Line, add_line, write_shipping, write_totals
from tests.programs import ROOT

PUBLICATION = "bench"
_ERP_SCHEMA = (ROOT / "deploy/erp/schema.sql").read_text("utf-8")
_FIRST = (
    "INSERT INTO customers (kind, name, email) VALUES ('registered', 'Buyer 0', 'buyer.0@example.com') RETURNING id",
    "INSERT INTO orders (customer_id, status, net, tax, gross) VALUES (1, 'paid', 0, 0, 0) RETURNING id",
)
_PLACE = """
CREATE PROCEDURE place(first bigint, last bigint) LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO customers (id, kind, name, email) OVERRIDING SYSTEM VALUE
        SELECT n, 'registered', 'Buyer ' || n, 'buyer.' || n || '@example.com' FROM generate_series(first, last) n;
    INSERT INTO addresses (customer_id, kind, name, street, postcode, city)
        SELECT n, k, 'Buyer ' || n, 'Lindenweg ' || n % 90, '50667', 'Köln'
        FROM generate_series(first, last) n, unnest(ARRAY['billing', 'shipping']) k;
    INSERT INTO orders (id, customer_id, status, shipping_gross, shipping_tax, net, tax, gross)
        OVERRIDING SYSTEM VALUE SELECT n, n, 'paid', shipping_gross, shipping_tax, net, tax, gross
        FROM orders, generate_series(first, last) n WHERE id = 1;
    INSERT INTO order_addresses SELECT n, a.kind, a.name, a.company, a.street, a.postcode, a.city, a.country
        FROM generate_series(first, last) n JOIN addresses a ON a.customer_id = n;
    INSERT INTO order_lines (order_id, product_id, sku, name, quantity, unit_price, tax_rate, gross, tax)
        SELECT n, product_id, sku, name, quantity, unit_price, tax_rate, gross, tax
        FROM order_lines, generate_series(first, last) n WHERE order_id = 1;
    INSERT INTO payments (order_id, means, amount, reference)
        SELECT id, 'card', gross, 'tx-' || id FROM orders WHERE id BETWEEN first AND last;
END $$
"""


class ApplyShop:
    """The shop's database. Methods that write return where the log stood before their last commit: a reader past that
    has everything."""

    def __init__(self, dsn: str) -> None:
        prepare(dsn, lambda _: None)
        self.dsn = dsn
        self.newest = 1
        with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE PUBLICATION {PUBLICATION} FOR ALL TABLES")
            for statement in _FIRST:
                cursor.execute(statement)
            cursor.execute("SELECT id, sku, name, price, tax_rate FROM products ORDER BY id LIMIT 3")
            for quantity, row in enumerate(cursor.fetchall(), 1):
                product = Product(*row)
                add_line(cursor, 1, Line(product, quantity, product.price, Decimal(0)))
            write_shipping(cursor, 1, Decimal("4.90"))
            write_totals(cursor, 1)
            cursor.execute(_PLACE)

    def add_products(self, products: int) -> list[str]:
        """Adds products, each with a list price. Returns their SKUs."""
        with closing(psycopg2.connect(self.dsn)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO products (sku, name, price, tax_rate) SELECT 'B-' || n, 'Bolt ' || n, 1 + n / 100.0, 19"
                " FROM generate_series(1, %s) n RETURNING sku",
                (products,),
            )
            return [sku for (sku,) in cursor.fetchall()]

    def raise_prices(self) -> int:
        """Raises all list prices in one commit. Returns a price that all are above."""
        with closing(psycopg2.connect(self.dsn)) as connection, connection, connection.cursor() as cursor:
            cursor.execute("SELECT max(price)::int FROM products")
            (dearest,) = cursor.fetchone() or (0,)
            cursor.execute("UPDATE products SET price = price + %s", (dearest,))
            return int(dearest)

    def place(self, orders: int, a_commit: int = 50) -> int:
        """Places orders, `a_commit` in each commit."""
        end = 0
        with closing(psycopg2.connect(self.dsn)) as connection:
            for first in range(self.newest + 1, self.newest + 1 + orders, a_commit):
                end = self._commit(connection, first, min(first + a_commit, self.newest + 1 + orders) - 1)
        self.newest += orders
        return end

    def pace(self, rate: float, seconds: float) -> dict[int, float]:
        """Places orders at an even pace, each in its own commit. Returns id → time of commit (seconds since 1970)."""
        committed: dict[int, float] = {}
        began = time.monotonic()
        # The commit of a usual shop. The server's setting is for throughput: with it a commit reaches the log, and so
        # capture, up to 0.6 s after the client is told.
        with closing(psycopg2.connect(self.dsn, options="-c synchronous_commit=on")) as connection:
            for number in range(int(rate * seconds)):
                time.sleep(max(0.0, began + number / rate - time.monotonic()))
                self.newest += 1
                self._commit(connection, self.newest, self.newest)
                committed[self.newest] = time.time()
        return committed

    def _commit(self, connection: Any, first: int, last: int) -> int:
        with connection, connection.cursor() as cursor:
            cursor.execute("CALL place(%s, %s)", (first, last))
            cursor.execute("SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint")
            return int(cursor.fetchone()[0])


class Documents(NamedTuple):
    """An ERP's orders and buyers: rows without the ERP's own numbers, lines by order."""

    customers: Sequence[tuple[Any, ...]]
    orders: Sequence[tuple[Any, ...]]
    lines: Sequence[Sequence[tuple[Any, ...]]]


class ApplyErp:
    """An ERP's database, made like the reference ERP."""

    def __init__(self, dsn: str, shop: str) -> None:
        self.dsn = dsn
        with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(_ERP_SCHEMA)
            cursor.execute("INSERT INTO company VALUES ('bench', 'The factory')")
            execute_values(cursor, "INSERT INTO items VALUES %s", [(sku, sku) for sku in skus(shop)])
            self._columns = {table: _own_columns(cursor, table) for table in ("customers", "orders", "order_lines")}

    def add_items(self, skus: Sequence[str]) -> None:
        """Adds items to the item master."""
        with closing(psycopg2.connect(self.dsn)) as connection, connection, connection.cursor() as cursor:
            execute_values(cursor, "INSERT INTO items VALUES %s", [(sku, sku) for sku in skus])

    def prices(self, above: int = 0) -> int:
        """How many prices are above this one."""
        with closing(psycopg2.connect(self.dsn)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM prices WHERE amount > %s", (above,))
            return int((cursor.fetchone() or (0,))[0])

    def confirmed(self) -> Callable[[], int]:
        """A function that counts confirmed orders."""
        connection = psycopg2.connect(self.dsn)
        connection.autocommit = True
        cursor = connection.cursor()

        def count() -> int:
            cursor.execute("SELECT count(*) FROM orders WHERE status = 'confirmed'")
            return int((cursor.fetchone() or (0,))[0])

        return count

    def documents(self, most: int) -> Documents:
        """The newest orders with their buyers and lines."""
        with closing(psycopg2.connect(self.dsn)) as connection, connection.cursor() as cursor:
            columns = {table: ", ".join(f"t.{name}" for name in names) for table, names in self._columns.items()}
            cursor.execute(f"SELECT id, {columns['orders']} FROM orders t ORDER BY id DESC LIMIT %s", (most,))
            orders = cursor.fetchall()
            ids = [row[0] for row in orders]
            cursor.execute(
                f"SELECT {columns['customers']} FROM customers t JOIN orders o USING (account_number)"
                " WHERE o.id = ANY(%s) ORDER BY o.id DESC",
                (ids,),
            )
            customers = cursor.fetchall()
            cursor.execute(
                f"SELECT order_id, {columns['order_lines']} FROM order_lines t WHERE order_id = ANY(%s)", (ids,)
            )
            lines: dict[int, list[tuple[Any, ...]]] = {}
            for order, *row in cursor.fetchall():
                lines.setdefault(order, []).append(tuple(row))
        return Documents(customers, [row[1:] for row in orders], [lines[number] for number in ids])

    def write_by_hand(self, documents: Documents, a_transaction: int) -> float:
        """Writes these documents with the plainest INSERTs, `a_transaction` orders per transaction. Returns orders per
        second. The tables are emptied first."""
        texts = {name: f"INSERT INTO {name} ({', '.join(columns)})" for name, columns in self._columns.items()}
        with closing(psycopg2.connect(self.dsn)) as connection, connection.cursor() as cursor:
            cursor.execute("TRUNCATE customers, orders, order_lines CASCADE")
            connection.commit()
            began = time.perf_counter()
            for first in range(0, len(documents.orders), a_transaction):
                part = slice(first, first + a_transaction)
                execute_values(cursor, f"{texts['customers']} VALUES %s", documents.customers[part])
                ids = execute_values(
                    cursor, f"{texts['orders']} VALUES %s RETURNING id", documents.orders[part], fetch=True
                )
                lines = [
                    (order, *line)
                    for (order,), of_order in zip(ids, documents.lines[part], strict=True)
                    for line in of_order
                ]
                text = texts["order_lines"].replace("(", "(order_id, ", 1)
                execute_values(cursor, f"{text} VALUES %s", lines)
                connection.commit()
            return len(documents.orders) / (time.perf_counter() - began)


def _own_columns(cursor: Any, table: str) -> list[str]:
    """The columns that the ERP does not number."""
    cursor.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_name = %s AND column_name NOT IN ('id',"
        " 'order_id') ORDER BY ordinal_position",
        (table,),
    )
    return [name for (name,) in cursor.fetchall()]
