"""capture as a real process between real PostgreSQL and real Kafka, held to the log by the proof."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from capture.producer import Cluster
from deploy.embedded import Kafka, Postgres
from tests.fix_postgres import AVAILABLE
from tests.programs import Program, run, write_settings
from tests.proof.records import Record, changes, read_topics
from tests.proof.verdict import judge
from tests.proof.wal import Witness

TABLES = ("public.orders", "public.lines", "public.log")
SCHEMA = """
    CREATE TABLE orders (id bigint PRIMARY KEY, note text, total numeric(12,2) NOT NULL, at timestamptz DEFAULT now());
    ALTER TABLE orders ALTER COLUMN note SET STORAGE EXTERNAL;
    CREATE TABLE lines (order_id bigint, number int, sku text, PRIMARY KEY (order_id, number));
    CREATE TABLE log (id int PRIMARY KEY, what text); ALTER TABLE log REPLICA IDENTITY FULL;
    CREATE PUBLICATION tap FOR TABLE orders, lines, log;
    INSERT INTO orders SELECT n, E'a\\tb\\\\N' || n, n / 3.0 FROM generate_series(1, 300) n;
    INSERT INTO lines SELECT n, 1, NULL FROM generate_series(1, 300) n;
"""
PATIENCE = 40.0


@dataclass
class Shop:
    """A database with tables, a witness of its log, and a capture to start."""

    dsn: str
    prefix: str
    config: Path
    capture: Program
    witness: Witness
    bootstrap_servers: str
    registry: str

    def sql(self, *statements: str) -> None:
        """One transaction."""
        connection = psycopg2.connect(self.dsn)
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        connection.close()

    def value(self, query: str) -> Any:
        """The first column of the first row."""
        connection = psycopg2.connect(self.dsn)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(query)
            row = cursor.fetchone()
        connection.close()
        return row[0] if row else None

    def position(self) -> dict[str, Any]:
        """The newest committed position, empty before the first."""
        value = Cluster(self.bootstrap_servers, {}).last_value(f"{self.prefix}.position", self.prefix.encode())
        return json.loads(value) if value else {}

    def drain(self) -> None:
        """Waits until Kafka has all that the log has now."""
        end = self.value("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        self.until(lambda: self._reached(int(end)))

    def _reached(self, end: int) -> bool:
        self.sql("SELECT txid_current()")  # a commit flushes the log up to here
        position = self.position()
        snapshot = position.get("snapshot") or {}
        return bool(position) and snapshot.get("state") != "running" and position["end_lsn"] >= end

    def until(self, met: Callable[[], bool]) -> None:
        """Waits for a condition while capture runs."""
        deadline = time.monotonic() + PATIENCE
        while not met():
            assert self.capture.ended() is None, self.capture.tail()
            assert time.monotonic() < deadline, self.capture.tail()
            time.sleep(0.2)

    def records(self) -> list[Record]:
        """All committed records."""
        return read_topics(self.bootstrap_servers, self.registry, self.prefix)

    def prove(self) -> None:
        """Everything exactly once and in order, and Kafka's content is the shop's."""
        verdict = judge(self.witness, self.bootstrap_servers, self.registry, self.prefix, TABLES)
        assert not verdict.findings, str(verdict)


@pytest.fixture
def shop(
    server: Postgres, new_database: Callable[[Postgres, str], str], kafka: Kafka, prefix: str, tmp_path: Path
) -> Iterator[Shop]:
    database = new_database(server, "shop")
    registry = (tmp_path / "registry").as_uri()
    settings = {
        "name": prefix,
        "topic_prefix": prefix,
        "database_hostname": "127.0.0.1",
        "database_port": server.port,
        "database_user": "postgres",
        "database_dbname": database.rpartition("/")[2],
        "slot_name": prefix,
        "publication_name": "tap",
        "heartbeat_interval_ms": 300,
        "bootstrap_servers": kafka.bootstrap_servers,
        "schema_registry_url": registry,
        "topic_creation_default_partitions": 3,
        "transaction_buffer_rows": 1000,
        "max_batch_size": 400,
        "health_port": 0,
    }
    config = write_settings(tmp_path / "settings.yaml", capture=settings)
    witness = Witness(database, "tap", f"witness_{prefix}")
    capture = Program("capture", config, tmp_path / "capture.log")
    made = Shop(database, prefix, config, capture, witness, kafka.bootstrap_servers, registry)
    made.sql(SCHEMA)
    witness.create()
    yield made
    capture.stop()
    made.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()")


def one_table(shop: Shop, table: str) -> list[Record]:
    return changes(shop.records(), shop.prefix)[table]


@pytest.mark.parametrize("server", AVAILABLE, indirect=True, ids=lambda version: f"pg{version}")
def test_snapshot_then_every_kind_of_change_and_a_clean_stop(shop: Shop) -> None:
    shop.sql(f"UPDATE orders SET note = repeat('{'x' * 100}', 50) WHERE id = 1")
    shop.capture.start()
    shop.drain()
    shop.sql(
        "INSERT INTO orders VALUES (1000, 'new', 1.10)",
        "UPDATE orders SET total = 2 WHERE id = 1",  # its note stays in TOAST
        "UPDATE lines SET number = 2 WHERE order_id = 5",
        "SELECT pg_logical_emit_message(true, 'somebody', 'counts')",
        "DELETE FROM orders WHERE id = 2",
        "INSERT INTO log VALUES (1, 'whole rows'), (2, NULL)",
        "UPDATE log SET what = 'none' WHERE what IS NULL",
    )
    shop.sql("TRUNCATE lines", "INSERT INTO lines VALUES (1, 1, 'again')")
    shop.drain()
    began = time.monotonic()
    assert shop.capture.stop() == 0
    assert time.monotonic() - began < 5
    shop.prove()
    orders = one_table(shop, "public.orders")
    assert sum(record.op == "r" for record in orders) == 300
    assert [record.unchanged for record in orders if record.op == "u"] == [{"note"}]
    lines = one_table(shop, "public.lines")
    assert sorted(str(r.key_change) for r in lines if r.key_change) != []
    assert sorted(r.partition for r in lines if r.op == "t") == [0, 1, 2]


def test_goes_on_where_it_was_killed(shop: Shop) -> None:
    shop.capture.start()
    shop.drain()
    for number in range(2, 6):
        shop.sql(f"INSERT INTO lines SELECT n, {number}, 'sku' FROM generate_series(1, 200) n")
        shop.sql(f"UPDATE orders SET total = {number}")
        shop.capture.kill()
        shop.capture.start()
    shop.drain()
    shop.prove()


def test_a_large_transaction_streams_through_and_ends_on_the_transaction_topic(shop: Shop) -> None:
    shop.capture.start()
    shop.drain()
    shop.sql(
        "INSERT INTO lines SELECT n, 7, 'large' FROM generate_series(1, 5500) n", "DELETE FROM orders WHERE id = 9"
    )
    shop.drain()
    shop.prove()
    large = [record for record in one_table(shop, "public.lines") if record.op == "c"]
    assert {json.dumps(record.transaction.get("size")) for record in large} == {"null"}
    ends = [r for r in shop.records() if r.topic == f"{shop.prefix}.transaction" and r.value]
    assert [end.value["event_count"] for end in ends if end.value] == [5501]


def test_a_standby_takes_over(shop: Shop, tmp_path: Path) -> None:
    shop.capture.start()
    shop.drain()
    standby = Program("capture", shop.config, tmp_path / "standby.log")
    standby.start()
    try:
        shop.until(lambda: "standing by" in standby.tail())
        shop.sql("INSERT INTO orders VALUES (2000, 'before', 1)")
        shop.capture.kill()
        shop.sql("INSERT INTO orders VALUES (2001, 'after', 1)")
        shop.drain()
    finally:
        assert standby.stop() == 0, standby.tail()
    shop.prove()


def test_stops_when_the_slot_is_gone_and_repair_reads_anew(shop: Shop) -> None:
    shop.capture.start()
    shop.drain()
    assert shop.capture.stop() == 0
    shop.value(f"SELECT pg_drop_replication_slot('{shop.prefix}')")
    shop.sql("DELETE FROM orders WHERE id = 3")
    shop.capture.start()
    assert shop.capture.wait(PATIENCE) != 0
    assert "is gone" in shop.capture.tail()
    assert "capture repair --execute" in shop.capture.tail()
    assert "Traceback" not in shop.capture.tail(200)
    done = run("capture", "repair", "--execute", config=shop.config)
    assert done.returncode == 0, done.stderr
    shop.capture.start()
    shop.drain()
    assert shop.position()["generation"] == 2


def test_stops_when_somebody_moved_the_slot(shop: Shop) -> None:
    shop.capture.start()
    shop.drain()
    assert shop.capture.stop() == 0
    shop.sql("INSERT INTO orders VALUES (3000, 'will be skipped', 1)")
    shop.value(f"SELECT pg_replication_slot_advance('{shop.prefix}', pg_current_wal_lsn())")
    shop.capture.start()
    assert shop.capture.wait(PATIENCE) != 0
    assert "was moved from" in shop.capture.tail()


def test_idle_beside_a_busy_neighbour_lets_the_log_go_and_starts_again(
    shop: Shop, postgres: Postgres, new_database: Callable[[Postgres, str], str]
) -> None:
    neighbour = psycopg2.connect(new_database(postgres, "neighbour"))
    shop.capture.start()
    shop.drain()
    with neighbour, neighbour.cursor() as cursor:
        cursor.execute("CREATE TABLE busy AS SELECT repeat('x', 500) FROM generate_series(1, 20000)")
    neighbour.close()
    shop.drain()
    end = shop.position()["end_lsn"]
    confirmed = (
        f"SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots WHERE slot_name = '{shop.prefix}'"
    )
    shop.until(lambda: shop.value(confirmed) >= end)
    for _ in range(3):
        shop.capture.kill()
        shop.capture.start()
        shop.drain()
    shop.prove()


def test_check_says_what_is_missing_and_init_makes_it(shop: Shop) -> None:
    assert run("capture", "check", config=shop.config).returncode == 0
    shop.sql("DROP PUBLICATION tap")
    missing = run("capture", "check", config=shop.config)
    assert missing.returncode == 1
    assert 'CREATE PUBLICATION "tap" FOR ALL TABLES' in missing.stdout
    refused = run("capture", "run", config=shop.config)
    assert refused.returncode != 0
    assert "capture init" in refused.stderr
    assert "Traceback" not in refused.stderr
    made = run("capture", "init", config=shop.config)
    assert made.returncode == 0, made.stderr
    assert run("capture", "check", config=shop.config).returncode == 0
    status = run("capture", "status", config=shop.config)
    assert status.returncode == 0, status.stderr
    assert "none yet: capture has not run" in status.stdout
