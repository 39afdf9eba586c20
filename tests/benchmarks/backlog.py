"""A backlog in a shop's log: many small transactions with rows of about 200 bytes, the same for every reader."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import psycopg2

from deploy.embedded import Postgres

DATABASE = "bench"
PUBLICATION = "bench"
TABLE = "public.order_lines"
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "max_wal_size": "8GB",
    "max_replication_slots": "40",
    "max_wal_senders": "40",
}

_SCHEMA = """
CREATE TABLE order_lines (
    id bigserial PRIMARY KEY,
    order_id bigint NOT NULL,
    sku text NOT NULL,
    name text NOT NULL,
    quantity integer NOT NULL,
    unit_price numeric(12,2) NOT NULL,
    tax_rate numeric(5,2) NOT NULL,
    gross numeric(12,2) NOT NULL,
    note text,
    changed_at timestamptz NOT NULL
);
CREATE PUBLICATION bench FOR TABLE order_lines;
CREATE PROCEDURE load(transactions int, rows int) LANGUAGE plpgsql AS $$
DECLARE line bigint;
BEGIN
    FOR t IN 1..transactions LOOP
        FOR r IN 1..rows LOOP
            IF r % 4 = 0 THEN  -- every fourth change is an update, as staff would make it
                UPDATE order_lines SET quantity = 2, gross = 39.98 WHERE id = line;
            ELSE
                INSERT INTO order_lines (order_id, sku, name, quantity, unit_price, tax_rate, gross, note, changed_at)
                VALUES (t, 'SKU-' || (t % 5000), 'A product with a name of usual length, ' || r, 1, 19.99, 19, 19.99,
                        repeat('note ', 16), clock_timestamp()) RETURNING id INTO line;
            END IF;
        END LOOP;
        COMMIT;
    END LOOP;
END $$;
CREATE PROCEDURE overlap(transactions int, rows int) LANGUAGE plpgsql AS $$
BEGIN
    FOR t IN 1..transactions LOOP
        FOR part IN 1..4 LOOP  -- 20 to 100 ms a transaction
            INSERT INTO order_lines (order_id, sku, name, quantity, unit_price, tax_rate, gross, note, changed_at)
            SELECT t, 'SKU-' || (t % 5000), 'A product with a name of usual length, ' || r, 1, 19.99, 19, 19.99,
                   repeat('note ', 16), clock_timestamp() FROM generate_series(1, rows / 4) r;
            PERFORM pg_sleep(0.005 + random() * 0.02);
        END LOOP;
        COMMIT;
    END LOOP;
END $$;
"""


class Workload(NamedTuple):
    """`clients` write at the same time, so that their transactions interleave in the log."""

    name: str
    rows: int
    transactions: int
    clients: int = 1


WORKLOADS = (
    Workload("small transactions", 240_000, 60_000),
    Workload("larger transactions", 1_000_000, 10_000),
    Workload("overlapping transactions", 240_000, 6_000, 16),
    Workload("one large transaction", 1_000_000, 1),
)
USUAL = 3
"""How many of them run if none is named."""


class Backlog(NamedTuple):
    """The backlog in the log. A reader that saw a commit at or after `end_lsn` has all of it."""

    rows: int
    transactions: int
    end_lsn: int
    wal_bytes: int


def prepare(server: Postgres) -> str:
    """Makes the database with table and publication, and returns its address. Make slots now, before `load`."""
    dsn = server.create_database(DATABASE)
    server.psql(_SCHEMA, DATABASE)
    return dsn


def load(dsn: str, workload: Workload) -> Backlog:
    """Writes the backlog, and after it one row; `end_lsn` is taken before that row's commit."""
    connection = psycopg2.connect(dsn)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            before = _wal_position(cursor)
            rows = workload.rows // workload.transactions
            transactions = workload.transactions // workload.clients
            procedure = "load" if workload.clients == 1 else "overlap"
            with ThreadPoolExecutor(workload.clients) as clients:
                list(clients.map(lambda _: _call(dsn, procedure, transactions, rows), range(workload.clients)))
            cursor.execute("BEGIN")
            cursor.execute("INSERT INTO order_lines SELECT -txid_current(), 0, '', '', 0, 0, 0, 0, '', now()")
            end = _wal_position(cursor)
            cursor.execute("COMMIT")
    finally:
        connection.close()
    written = transactions * workload.clients
    return Backlog(written * rows + 1, written + 1, end, end - before)


def _call(dsn: str, procedure: str, transactions: int, rows: int) -> None:
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"CALL {procedure}(%s, %s)", (transactions, rows))
    connection.close()


def _wal_position(cursor: psycopg2.extensions.cursor) -> int:
    cursor.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
    row = cursor.fetchone()
    assert row is not None
    return int(row[0])
