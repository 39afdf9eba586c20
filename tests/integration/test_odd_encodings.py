"""Text that is not UTF-8: only its table waits, by name (C2); an outbox event is read in the database's encoding
(C3)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest

from deploy.embedded import Kafka, Postgres
from tests.integration.test_events import read_raw
from tests.programs import run
from tests.shop import Shop, open_shop, said

BAD = b"'K\xe4se'"  # LATIN1


@pytest.fixture
def open_in(postgres: Postgres, kafka: Kafka, prefix: str, tmp_path: Path) -> Iterator[Callable[[str], Shop]]:
    """A shop in a database with this encoding."""
    opened = []

    def make(encoding: str) -> Shop:
        name = f"{encoding.lower()}_{prefix}"
        postgres.psql(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
        context = open_shop(postgres, kafka, postgres.dsn(name), prefix, tmp_path, {"snapshot_max_threads": 2})
        opened.append(context)
        return context.__enter__()

    yield make
    for context in opened:
        context.__exit__(None, None, None)


def raw(shop: Shop, statement: bytes) -> None:
    """Runs a statement given in bytes."""
    connection = psycopg2.connect(shop.dsn)
    with connection, connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()


def parked(shop: Shop) -> list[str]:
    return list(json.loads(run("capture", "status", "--json", "--seconds", "0", config=shop.config).stdout)["parked"])


def test_c2_a_value_that_is_no_utf_8_parks_its_table_alone(open_in: Callable[[str], Shop]) -> None:
    """In the first snapshot, in the stream, and in a snapshot on demand. Each time the table comes back."""
    shop = open_in("SQL_ASCII")
    raw(shop, b"INSERT INTO lines VALUES (1, 'good'), (2, " + BAD + b"), (3, 'good')")
    assert "warn the database's encoding is SQL_ASCII" in run("capture", "check", config=shop.config).stdout
    shop.capture.start()
    shop.drain()
    assert parked(shop) == ["public.lines"]
    assert 'table public.lines: a value of column "sku" is not UTF-8' in said(shop.capture)
    shop.order(10, 20)
    shop.signal("snapshot", "public.lines")  # nothing was fixed
    shop.until_said("table is left out of the snapshot")
    shop.drain()
    assert parked(shop) == ["public.lines"]
    shop.sql("UPDATE lines SET sku = 'fixed' WHERE id = 2")
    shop.signal("snapshot", "public.lines")
    shop.until(lambda: not shop.position()["parked"])
    shop.drain()
    shop.prove_content()
    raw(shop, b"INSERT INTO orders VALUES (500, " + BAD + b", 1)")
    shop.order(21, 30)
    shop.until(lambda: shop.position()["parked"] == ["public.orders"])
    shop.sql("UPDATE orders SET note = 'fixed' WHERE id = 500")
    shop.signal("snapshot", "public.orders")
    shop.until(lambda: not shop.position()["parked"])
    shop.order(31, 40)
    shop.drain()
    assert shop.capture.stop() == 0
    assert "starting again" not in said(shop.capture)
    shop.prove_content()


def test_c2_names_that_are_no_utf_8_stop_nothing_else(open_in: Callable[[str], Shop]) -> None:
    """Nobody wants a message with such a prefix. A column with such a name parks its table until it is renamed."""
    shop = open_in("SQL_ASCII")
    shop.capture.start()
    shop.drain()
    raw(shop, b"SELECT pg_logical_emit_message(false, 'K\xe4se', 'x'), pg_logical_emit_message(true, 'K\xe4se', 'x')")
    raw(shop, b'ALTER TABLE lines ADD COLUMN "K\xe4se" int')
    shop.order(1, 9)
    shop.until(lambda: shop.position()["parked"] == ["public.lines"])
    raw(shop, b'ALTER TABLE lines RENAME COLUMN "K\xe4se" TO cheese')
    assert shop.capture.stop() == 0
    shop.capture.start()
    shop.signal("snapshot", "public.lines")
    shop.until(lambda: not shop.position()["parked"])
    shop.order(10, 20)
    shop.drain()
    assert shop.capture.stop() == 0
    assert "starting again" not in said(shop.capture)
    shop.prove_content()


def test_c2_a_comment_that_is_no_utf_8_is_told_with_where_to_look(open_in: Callable[[str], Shop]) -> None:
    """It is in the catalogue, so a new slot would not help."""
    shop = open_in("SQL_ASCII")
    raw(shop, b"COMMENT ON COLUMN orders.note IS " + BAD)
    shop.capture.start()
    assert shop.capture.wait(60) == 65
    assert "pg_description" in said(shop.capture)
    assert "repair" not in said(shop.capture)
    raw(shop, b"COMMENT ON COLUMN orders.note IS NULL")
    shop.capture.start()
    shop.drain()
    assert shop.capture.stop() == 0


def test_c3_an_outbox_event_is_read_in_the_databases_encoding(open_in: Callable[[str], Shop]) -> None:
    shop = open_in("LATIN1")
    shop.configure(outbox_routing=[{"prefix": "outbox", "topic": f"{shop.prefix}.out"}])
    shop.capture.start()
    shop.drain()
    connection = psycopg2.connect(shop.dsn, client_encoding="UTF8")
    with connection, connection.cursor() as cursor:
        event = json.dumps({"id": "e1", "type": "ü", "aggregateid": "Käse", "payload": "Grüße"}, ensure_ascii=False)
        cursor.execute("SELECT pg_logical_emit_message(true, 'outbox', %s)", [event])
    connection.close()
    shop.drain()
    assert shop.capture.stop() == 0
    assert "not what its outbox route expects" not in said(shop.capture)
    (sent,) = read_raw(shop, [f"{shop.prefix}.out"])
    assert (sent.key(), sent.value()) == ("Käse".encode(), "Grüße".encode())
