"""A shop's database with tables that capture reads, the capture to start, and the proof beside it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from capture.producer import Cluster
from deploy.embedded import Kafka, Postgres
from tests.programs import Program, run, write_settings
from tests.proof.records import Record, read_topics
from tests.proof.rules import Finding
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
        rest = any(request["first"] for request in (position.get("demand") or {}).get("requests", []))
        copied = snapshot.get("state") not in ("making", "running") and not rest
        return bool(position) and copied and position["end_lsn"] >= end

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

    def signal(self, *words: str) -> str:
        """`capture signal …`; its output."""
        done = run("capture", "signal", *words, config=self.config)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def findings(self) -> list[Finding]:
        """What the proof has to say of the topics."""
        return list(judge(self.witness, self.bootstrap_servers, self.registry, self.prefix, TABLES).findings)

    def prove(self, tables: Iterable[str] = TABLES, former: Iterable[str] = ()) -> None:
        """Everything exactly once and in order, and Kafka's content is the shop's; `former` as judge has it."""
        verdict = judge(self.witness, self.bootstrap_servers, self.registry, self.prefix, tables, former)
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
