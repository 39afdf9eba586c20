"""The server may discard only log that Kafka has, on a real server whose keepalives make psycopg2 confirm more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import psycopg2
import pytest

from deploy.embedded import Kafka, Postgres
from tests.programs import standing_still
from tests.shop import Shop, open_shop, said

SETTINGS = {"wal_sender_timeout": "1s", "fsync": "off"}  # a keepalive after half of it in silence
KILLS = 20


@pytest.fixture(scope="module")
def own_server(parts_folder: Path) -> Iterator[Postgres]:
    """A server with short time-outs."""
    with Postgres(parts_folder / "acknowledging-postgres", settings=SETTINGS) as server:
        yield server


@pytest.fixture
def shop(
    own_server: Postgres, kafka: Kafka, new_database: Callable[[Postgres, str], str], prefix: str, tmp_path: Path
) -> Iterator[Shop]:
    with open_shop(own_server, kafka, new_database(own_server, "ack"), prefix, tmp_path) as made:
        yield made
        made.drop_slots()


def _confirmed(shop: Shop) -> int:
    return int(
        shop.value(
            f"SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots WHERE slot_name = '{shop.prefix}'"
        )
    )


def test_a_transaction_that_waits_for_kafka_is_not_acknowledged_by_rows_of_an_older_one(shop: Shop) -> None:
    """C opens and writes; T is confirmed; A commits while Kafka hangs; C commits, its rows lie before T's end.

    The reader stands still so long that the server asks for a word of it between two rows of C.
    """
    shop.sql(f"ALTER DATABASE {shop.dsn.rpartition('/')[2]} SET wal_sender_timeout = '6s'")
    shop.configure(stall_seconds=60)
    shop.capture.start()
    shop.drain()
    shop.undisturbed(lambda attempt: _older_commits_while_kafka_hangs(shop, 100_000 * attempt))
    shop.prove()


def _older_commits_while_kafka_hangs(shop: Shop, first: int) -> None:
    older = psycopg2.connect(shop.dsn)
    rows = f"generate_series({first} + 1000, {first} + 60000)"
    older.cursor().execute(f"INSERT INTO lines SELECT n, repeat('c', 500) FROM {rows} n")
    shop.order(first + 1, first + 1)
    shop.drain()
    confirmed_t = int(shop.position()["last_commit_lsn"])
    shop.until(lambda: _confirmed(shop) >= confirmed_t)
    with standing_still(shop.kafka.process), closing(older):
        shop.order(first + 2, first + 2)
        ends_a = shop.log_end()
        time.sleep(0.5)  # A is read
        with standing_still(shop.capture):
            older.commit()
            time.sleep(3.4)  # more than half of its patience, but less than all of it, since our last word
        seen = _watched(shop, 2.5)
        assert max(seen) < ends_a, f"the server may forget A and {max(seen) - ends_a} bytes more"


def _watched(shop: Shop, seconds: float, each: Callable[[int], object] = lambda _: None) -> list[int]:
    """Watches what the server may discard, for so long. `each` is called with a number at each look."""
    seen = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        each(len(seen))
        seen.append(_confirmed(shop))
        time.sleep(0.1)
    return seen


def test_what_was_read_is_not_acknowledged_before_it_is_durable(shop: Shop) -> None:
    """Kafka stands still for longer than the interval in which a busy stream confirms, and more is read."""
    shop.configure(stall_seconds=60)
    shop.capture.start()
    shop.drain()
    shop.undisturbed(lambda attempt: _orders_while_kafka_hangs(shop, 1000 * attempt))
    shop.prove()


def _orders_while_kafka_hangs(shop: Shop, first: int) -> None:
    def order(number: int) -> None:
        shop.order(first + 2 + number, first + 2 + number)

    with standing_still(shop.kafka.process):
        shop.order(first + 1, first + 1)
        ends_first = shop.log_end()
        seen = _watched(shop, 6.5, order)  # a broker that is away for longer loses its session and leadership
        assert max(seen) < ends_first, f"the server may forget the first and {max(seen) - ends_first} bytes more"


def test_no_read_finds_psycopg2_ready_to_acknowledge_what_waits(shop: Shop) -> None:
    """Includes rows of an older transaction, and Relation messages of changed tables, whose data_start is 0."""
    shop.configure(linger_ms=50)
    watched = shop.copy("watched", "tests.faults.broken", ("-X", "fault=watched:0"))
    watched.start()
    shop.drain(watched)
    for number in range(1, 9):
        with closing(psycopg2.connect(shop.dsn)) as older:
            first = 1000 * number
            older.cursor().execute(f"INSERT INTO lines SELECT n, 'old' FROM generate_series({first}, {first + 500}) n")
            for step in range(5):
                shop.order(10 * number + step, 10 * number + step)
                # The server sends the table's Relation message again.
                shop.sql(f"ALTER TABLE orders ALTER note SET STATISTICS {step}")
            time.sleep(0.3)  # a part is confirmed
            older.commit()
    shop.drain(watched)
    assert watched.stop() == 0, watched.tail()
    shop.prove()


_STEADY = """
    DO $$ DECLARE began timestamptz := clock_timestamp(); BEGIN
        WHILE clock_timestamp() < began + interval '20 s' LOOP
            UPDATE orders SET total = total + 1 WHERE id = -1;
            COMMIT;
        END LOOP;
    END $$"""


def _execute_until_canceled(cursor: psycopg2.extensions.cursor, statement: str) -> None:
    with suppress(psycopg2.errors.QueryCanceled):
        cursor.execute(statement)


def test_the_log_goes_under_steady_load(shop: Shop) -> None:
    """Something is always on its way to Kafka. What is there is acknowledged all the same."""
    shop.capture.start()
    shop.drain()
    seen = set()
    with closing(psycopg2.connect(shop.dsn)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("SET synchronous_commit = off")
        writer = threading.Thread(target=_execute_until_canceled, args=[cursor, _STEADY])
        writer.start()
        while writer.is_alive():
            seen.add(_confirmed(shop))
            if len(seen) >= 3:
                shop.sql(f"SELECT pg_cancel_backend({connection.get_backend_pid()})")
            time.sleep(0.5)
    assert len(seen) >= 3, "the slot kept all of the log"
    shop.drain()
    shop.prove()


def test_idle_beside_a_busy_neighbour_holds_no_log_and_kills_there_make_no_stop(
    shop: Shop, new_database: Callable[[Postgres, str], str]
) -> None:
    neighbour = psycopg2.connect(new_database(shop.server, "neighbour"))
    neighbour.autocommit = True
    busy = neighbour.cursor()
    busy.execute("CREATE TABLE busy (t text)")
    shop.witness.drop()  # it holds the log, too
    shop.capture.start()
    shop.drain()
    held = []
    for _ in range(3):
        busy.execute("INSERT INTO busy SELECT repeat('x', 500) FROM generate_series(1, 20000)")
        written = int(shop.value("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))
        shop.until(lambda end=written: _confirmed(shop) >= end)  # type: ignore[misc]
        held.append(int(shop.value("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")) - _confirmed(shop))
    assert max(held) < 1_000_000, held
    for number in range(KILLS):
        shop.capture.kill()
        busy.execute("INSERT INTO busy SELECT repeat('x', 500) FROM generate_series(1, 500)")
        shop.capture.start()
        shop.until(lambda times=number: said(shop.capture).count("] streaming ") >= times + 2)  # type: ignore[misc]
    neighbour.close()
    shop.witness.create()
    shop.order(1, 20)
    shop.drain()
    assert "moved" not in said(shop.capture)
    shop.prove_streamed(range(1, 21))
