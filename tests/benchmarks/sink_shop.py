"""A shop for `./tests/bench sink`: three tables of about 200 bytes a row, four rows per commit, two thirds inserts."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2

TABLES = ("orders", "order_lines", "payments")
PUBLICATION = "bench"
ROWS = 4
"""Rows per commit."""
PLACED = 5_000
"""Orders that are there before. A change is made to an order this far back, so that it is in another batch than the one
that placed it."""

COLUMNS = """
CREATE TABLE orders (
    id bigint PRIMARY KEY, revision bigint NOT NULL, number text NOT NULL, customer text NOT NULL, status text NOT NULL,
    currency text NOT NULL, net numeric(12,2) NOT NULL, tax numeric(12,2) NOT NULL, gross numeric(12,2) NOT NULL,
    note text, placed_at timestamptz NOT NULL);
CREATE TABLE order_lines (
    id bigint PRIMARY KEY, revision bigint NOT NULL, order_id bigint NOT NULL, sku text NOT NULL, name text NOT NULL,
    quantity integer NOT NULL, unit_price numeric(12,2) NOT NULL, tax_rate numeric(5,2) NOT NULL,
    net numeric(12,2) NOT NULL, tax numeric(12,2) NOT NULL, gross numeric(12,2) NOT NULL, note text);
CREATE TABLE payments (
    id bigint PRIMARY KEY, revision bigint NOT NULL, order_id bigint NOT NULL, means text NOT NULL,
    amount numeric(12,2) NOT NULL, reference text, note text, paid_at timestamptz NOT NULL);
"""
_WRITING = """
CREATE PUBLICATION bench FOR TABLE orders, order_lines, payments;
CREATE SEQUENCE revision;
CREATE PROCEDURE place(first bigint, last bigint) LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO orders SELECT o, nextval('revision'), 'S' || 100000 + o, 'customer ' || o % 9000, 'open', 'EUR',
        100.84, 19.16, 120.00, repeat('note ', 16), clock_timestamp() FROM generate_series(first, last) o;
    INSERT INTO order_lines SELECT 2 * o + l, currval('revision'), o, 'SKU-' || o % 5000,
        'A product with a name of usual length, ' || l, 1 + l, 39.99, 19, 33.61, 6.38, 39.99, repeat('note ', 16)
        FROM generate_series(first, last) o, generate_series(0, 1) l;
    INSERT INTO payments SELECT o, currval('revision'), o, 'card', 120.00, 'tx-' || md5(o::text), repeat('note ', 20),
        clock_timestamp() FROM generate_series(first, last) o;
END $$;
CREATE PROCEDURE change(one bigint) LANGUAGE plpgsql AS $$
BEGIN
    UPDATE orders SET status = 'paid', revision = nextval('revision') WHERE id = one;
    UPDATE order_lines SET quantity = quantity + 1, revision = currval('revision') WHERE id IN (2 * one, 2 * one + 1);
    UPDATE payments SET means = 'invoice', revision = currval('revision') WHERE id = one;
END $$;
CREATE PROCEDURE load(commits int, back bigint) LANGUAGE plpgsql AS $$
DECLARE newest bigint;
BEGIN
    SELECT max(id) INTO newest FROM orders;
    FOR n IN 1..commits LOOP
        IF n % 3 = 0 THEN
            CALL change(newest - back);
        ELSE
            newest := newest + 1;
            CALL place(newest, newest);
        END IF;
        COMMIT;
    END LOOP;
END $$;
CREATE PROCEDURE pace(commits int, seconds float) LANGUAGE plpgsql AS $$
DECLARE
    newest bigint;
    began timestamptz := clock_timestamp();
BEGIN
    SELECT max(id) INTO newest FROM orders;
    FOR n IN 1..commits LOOP
        PERFORM pg_sleep(n * seconds / commits - extract(epoch FROM clock_timestamp() - began)::float);
        CALL place(newest + n, newest + n);
        COMMIT;
    END LOOP;
END $$;
"""
_PROFILE = {
    "profile.yaml": """
tables:
  public.orders: {id: bigint, number: text, customer: text, currency: text, net: numeric, tax: numeric, gross: numeric,
    placed_at: timestamptz}
  public.order_lines: {id: bigint, order_id: bigint, sku: text, name: text, quantity: integer, unit_price: numeric,
    tax_rate: numeric, net: numeric, tax: numeric, gross: numeric}
  public.payments: {id: bigint, order_id: bigint, means: text, amount: numeric, paid_at: timestamptz, reference: text}
documents:
  sales_order:
    model: SalesOrder
    key: orders.id
    order: orders.id
    touched_by: {orders: id, order_lines: order_id, payments: order_id}
""",
    "sales_order.sql": """
SELECT id::text AS key, number, customer, placed_at, currency, 'open' AS status, true AS tax_included, net, tax, gross
  FROM orders WHERE id = ANY (%(keys)s::bigint[])
""",
    "sales_order.lines.sql": """
SELECT order_id::text AS parent, id::text AS key, sku, name, quantity, unit_price, tax_rate, net, tax, gross
  FROM order_lines WHERE order_id = ANY (%(keys)s::bigint[]) ORDER BY id
""",
    "sales_order.payments.sql": """
SELECT order_id::text AS parent, id::text AS key, means, amount, paid_at, reference
  FROM payments WHERE order_id = ANY (%(keys)s::bigint[]) ORDER BY id
""",
}


class BenchShop:
    """The shop's database. Methods that write return where the log stood before their last commit: a reader past that
    has everything."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._call(COLUMNS + _WRITING)

    def place_first(self) -> int:
        """Places the first orders, two hundred per commit."""
        for first in range(1, PLACED + 1, 200):
            self._call("CALL place(%s, %s)", first, first + 199)
        return self._last()

    def load(self, rows: int) -> int:
        """Writes a backlog of small commits."""
        self._call("CALL load(%s, %s)", rows // ROWS - 1, PLACED)
        return self._last()

    def pace(self, rate: int, seconds: float) -> None:
        """Commits at an even pace. The server sends each commit as soon as it is flushed, which is at once."""
        self._call("CALL pace(%s, %s)", int(rate * seconds), seconds, before="SET synchronous_commit = on")

    def place_at_once(self, rows: int) -> int:
        """Makes one commit with this many rows."""
        return self._last(rows // ROWS)

    def newest(self) -> int:
        """The last order."""
        return int(self._call("SELECT max(id) FROM orders")[0][0])

    def revision(self) -> int:
        """The last commit's number."""
        return int(self._call("SELECT last_value FROM revision")[0][0])

    def log_end(self) -> int:
        """The present end of the log."""
        return int(self._call("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")[0][0])

    def _last(self, orders: int = 1) -> int:
        """Makes one more commit. Returns the log's end before it."""
        newest = self.newest()
        with closing(psycopg2.connect(self.dsn)) as connection, connection, connection.cursor() as cursor:
            cursor.execute("CALL place(%s, %s)", (newest + 1, newest + orders))
            cursor.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
            row = cursor.fetchone()
        assert row is not None
        return int(row[0])

    def _call(self, statement: str, *values: object, before: str = "") -> list[tuple[Any, ...]]:
        with closing(psycopg2.connect(self.dsn)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                if before:
                    cursor.execute(before)
                cursor.execute(statement, values or None)
                return cursor.fetchall() if cursor.description else []


def write_profile(folder: Path) -> Path:
    """The profile: one kind of document, and each row marks its order's."""
    folder.mkdir()
    for name, text in _PROFILE.items():
        (folder / name).write_text(text.lstrip())
    return folder
