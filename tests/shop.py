"""A shop's database with a witness slot, capture (one or several processes), and the proof."""

from __future__ import annotations

import json
import os
import re
import signal
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
import yaml
from confluent_kafka import IsolationLevel, TopicPartition

from capture.demand import SIGNAL_PREFIX, Signal, SignalType
from capture.kafka.cluster import Cluster
from deploy.embedded import Kafka, Postgres
from schemas.model.errors import UnavailableError
from tests.programs import Program, run, write_settings
from tests.proof.content import check_content, replay, shop_tables
from tests.proof.records import Listing, Record, changes, read_index, read_topics
from tests.proof.rules import Finding, check_index, check_order, check_snapshots
from tests.proof.verdict import Verdict, judge
from tests.proof.wal import Witness

TABLES = ("public.orders", "public.lines")
SCHEMA = """
    CREATE TABLE orders (id bigint PRIMARY KEY, note text, total numeric(12,2) NOT NULL);
    CREATE TABLE lines (id bigint PRIMARY KEY, sku text);
    CREATE PUBLICATION tap FOR TABLE orders, lines;
    INSERT INTO orders SELECT -n, 'old', n FROM generate_series(1, 50) n;
"""
PATIENCE = 180.0


@dataclass
class Shop:
    """One database, its topics, and `capture` (`copy` makes more processes). LSNs are integers."""

    server: Postgres
    kafka: Kafka
    dsn: str
    prefix: str
    folder: Path
    config: Path
    capture: Program
    witness: Witness
    tables: tuple[str, ...] = TABLES
    programs: list[Program] = field(default_factory=list)

    @property
    def bootstrap_servers(self) -> str:
        """The broker's address."""
        return self.kafka.bootstrap_servers

    @property
    def registry(self) -> str:
        """The registry: a folder, unless `more` settings name another."""
        return str(yaml.safe_load(self.config.read_text())["capture"]["schema_registry_url"])

    def configure(self, **settings: Any) -> None:
        """Changes settings for the next start."""
        content = yaml.safe_load(self.config.read_text())
        write_settings(self.config, capture=content["capture"] | settings)

    def copy(self, name: str, module: str = "capture", python_options: tuple[str, ...] = ()) -> Program:
        """Another capture process with the same settings, not started."""
        made = Program(module, self.config, self.folder / f"{name}.log", python_options)
        self.programs.append(made)
        return made

    def sql(self, *statements: str) -> None:
        """Runs SQL in one transaction."""
        connection = psycopg2.connect(self.dsn)
        try:
            with connection, connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
        finally:
            connection.close()

    def value(self, query: str) -> Any:
        """The first column of the first row."""
        return self.value_of(self.dsn, query)

    @staticmethod
    def value_of(dsn: str, query: str) -> Any:
        """The same in another database of the server."""
        connection = psycopg2.connect(dsn)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(query)
                row = cursor.fetchone()
            return row[0] if row else None
        finally:
            connection.close()

    def order(self, first: int, last: int) -> None:
        """Places an order with a line for each number, each in a transaction of its own."""
        connection = psycopg2.connect(self.dsn)
        connection.autocommit = True
        with connection.cursor() as cursor:
            for number in range(first, last + 1):
                cursor.execute(
                    f"WITH new AS (INSERT INTO orders VALUES ({number}, 'new', 1)) "
                    f"INSERT INTO lines VALUES ({number}, 'a')"
                )
        connection.close()

    def drop_slots(self) -> None:
        """Drops our slots, once their readers are gone."""
        for program in self.programs:
            program.stop(10)
        slots = "FROM pg_replication_slots WHERE database = current_database()"
        self.sql(
            f"SELECT pg_terminate_backend(active_pid, 30000) {slots}",
            f"SELECT pg_drop_replication_slot(slot_name) {slots}",
        )

    def free_slot(self) -> None:
        """Waits until the server has ended the walsender of a capture that is gone. Until then the slot is active."""
        used = f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{self.prefix}' AND active"
        self.until(lambda: self.value(used) == 0)

    def end_backends(self, kind: str) -> int:
        """Terminates capture's connections of a kind, `walsender` or `client backend`. Returns how many."""
        return int(
            self.value(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = "
                f"'ordertap capture' AND backend_type = '{kind}' AND datname = current_database()"
            )
        )

    def position(self, settled: bool = True) -> dict[str, Any]:
        """The newest committed position, empty before the first. `settled`: waits for the end of an open
        transaction."""
        cluster = Cluster(self.kafka.bootstrap_servers, {})
        values = cluster.last_values(f"ordertap.{self.prefix}.position", settled)
        return json.loads(values.get(self.prefix.encode(), "{}"))

    def open_transaction(self, topic: str = "public.lines", partitions: Iterable[int] = (0, 1)) -> bool:
        """Whether a partition of the topic (named without prefix) has records of an open transaction."""
        cluster = Cluster(self.kafka.bootstrap_servers, {})
        prefix = f"ordertap.{self.prefix}" if topic == "position" else self.prefix
        places = [TopicPartition(f"{prefix}.{topic}", number) for number in partitions]
        return cluster.ends(places, IsolationLevel.READ_COMMITTED) != cluster.ends(places)

    def order_until_open(self, first: int) -> int:
        """Places orders, five at a time, until capture has an open transaction, and stops the process there. Returns
        the number of the next order. A long linger_ms keeps transactions open; on a busy machine one look may be too
        late."""
        for number in range(first, first + 100, 5):
            self.order(number, number + 4)
            deadline = time.monotonic() + 3
            while time.monotonic() < deadline:
                if self.open_transaction():
                    os.kill(self.capture.pid, signal.SIGSTOP)
                    time.sleep(0.5)  # its end marker may not have reached the partitions
                    if self.open_transaction():
                        return number + 5
                    os.kill(self.capture.pid, signal.SIGCONT)
        raise AssertionError(self.capture.tail(40))

    def drain(self, program: Program | None = None) -> None:
        """Waits until Kafka has everything in the present log."""
        end = self.log_end()

        def reached() -> bool:
            try:
                return self.reached(end)
            except UnavailableError:  # normal for a broker that has just started
                return False

        self.until(reached, program)

    def log_end(self) -> int:
        """The end of the shop's log."""
        return int(self.value("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))

    def reached(self, end: int) -> bool:
        """Whether Kafka has everything up to there, the first snapshot included."""
        self.sql("SELECT txid_current()")  # a commit flushes the log up to here
        position = self.position()
        snapshot = position.get("snapshot") or {}
        rest = any(request["first"] for request in (position.get("demand") or {}).get("requests", []))
        copied = snapshot.get("state") not in ("making", "running") and not rest
        return bool(position) and copied and position["end_lsn"] >= end

    def records(self) -> list[Record]:
        """All committed records."""
        return read_topics(self.bootstrap_servers, self.registry, self.prefix)

    def index(self) -> list[Listing]:
        """The index of commits."""
        return read_index(self.bootstrap_servers, self.prefix)

    def signal(self, *words: str) -> str:
        """Runs `capture signal …`, and returns its output."""
        done = run("capture", "signal", *words, config=self.config)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ask(self, kind: SignalType, *tables: str) -> None:
        """Sends the same signal directly: the command takes a second to start, and waits for locked tables."""
        written = Signal(self.prefix, uuid.uuid4().hex, kind, tables).signed(b"").dump()  # the shop has no password
        self.sql(f"SELECT pg_logical_emit_message(false, '{SIGNAL_PREFIX}', '{written}')")

    def until(self, met: Callable[[], bool], program: Program | None = None, seconds: float = PATIENCE) -> None:
        """Waits for a condition while the program (`capture`) runs."""
        program = program or self.capture
        began = looked = time.monotonic()
        while not met():
            assert program.ended() is None, program.tail()
            assert time.monotonic() < began + seconds, program.tail(40)
            time.sleep(min(max(0.1, 5 * (time.monotonic() - looked)), 1.0))  # each look costs Kafka, too
            looked = time.monotonic()

    def undisturbed(self, play: Callable[[int], None]) -> None:
        """Runs `play`, and again if capture was restarted meanwhile: if the machine stood still for longer than the
        server's time-outs, the run proves nothing. `play` gets the number of the attempt."""
        for attempt in range(3):
            again = said(self.capture).count("starting again")
            play(attempt)
            self.drain()
            if said(self.capture).count("starting again") == again:
                return
        raise AssertionError(f"it starts again each time\n{self.capture.tail(40)}")

    def until_said(self, text: str, program: Program | None = None, times: int = 1) -> None:
        """Waits until a text is in the program's log so many times."""
        program = program or self.capture
        self.until(lambda: said(program).count(text) >= times, program)

    def stops_with(self, cause: str) -> None:
        """Starts capture, which ends by itself and names the cause and the command that repairs it."""
        self.capture.start()
        assert self.capture.wait(PATIENCE) not in (0, -9)
        log = said(self.capture)
        assert cause in log, self.capture.tail()
        assert "capture repair --execute" in log
        assert "Traceback" not in log

    def repair(self, generation: int | None = None) -> None:
        """Repairs and starts again: this is the new generation, and Kafka's content is the shop's."""
        done = run("capture", "repair", "--execute", config=self.config)
        for _ in range(10):
            if "is running" in done.stderr:  # the server has not yet ended the session of the one that stopped
                time.sleep(1)
                done = run("capture", "repair", "--execute", config=self.config)
        assert done.returncode == 0, done.stderr
        self.capture.start()
        self.drain()
        assert generation in (None, self.position()["generation"])
        self.prove_content()

    def verdict(self, tables: Iterable[str] | None = None, former: Iterable[str] = ()) -> Verdict:
        """The proof's verdict on these tables (default: all) once everything is written. `former`: see `judge`."""
        return judge(self.witness, self.bootstrap_servers, self.registry, self.prefix, tables or self.tables, former)

    def findings(self) -> list[Finding]:
        """What the verdict found wrong."""
        return list(self.verdict().findings)

    def prove(self, tables: Iterable[str] | None = None, former: Iterable[str] = ()) -> None:
        """Asserts that everything is there once and in order, and that Kafka's content is the shop's."""
        verdict = self.verdict(tables, former)
        assert not verdict.findings, str(verdict)

    def prove_streamed(self, orders: range) -> None:
        """Without a witness: asserts that these orders are in the stream once each, and that Kafka's content is the
        shop's."""
        records = self.records()
        for table in self.tables:
            new = [each.value["after"]["id"] for each in changes(records, self.prefix)[table] if each.op == "c"]
            assert sorted(new) == [*orders], table
        self.prove_content()

    def prove_content(self) -> None:
        """After a repair, when the log is incomplete: asserts order, snapshots and content."""
        records = self.records()
        findings = [*check_order(records, self.prefix), *check_snapshots(records, self.prefix)]
        findings += check_index(records, self.index())
        findings += check_content(replay(records, self.prefix), shop_tables(self.dsn, self.tables))
        assert not findings, findings[:10]


def said(program: Program) -> str:
    """A program's log, without colours."""
    text = program.log.read_text(errors="replace") if program.log.exists() else ""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@contextmanager
def open_shop(
    server: Postgres,
    kafka: Kafka,
    dsn: str,
    prefix: str,
    folder: Path,
    more: dict[str, Any] | None = None,
    schema: str = SCHEMA,
    tables: tuple[str, ...] = TABLES,
) -> Iterator[Shop]:
    """A shop whose capture is not started. `more`: further settings; `schema`: SQL for the tables and publication
    `tap`."""
    settings = {
        "name": prefix,
        "topic_prefix": prefix,
        "database_hostname": "127.0.0.1",
        "database_port": server.port,
        "database_user": "postgres",
        "database_dbname": dsn.rpartition("/")[2],
        "slot_name": prefix,
        "publication_name": "tap",
        "heartbeat_interval_ms": 300,
        "bootstrap_servers": kafka.bootstrap_servers,
        "schema_registry_url": (folder / "registry").as_uri(),
        "topic_creation_default_partitions": 2,
        "health_port": 0,
    }
    config = write_settings(folder / "settings.yaml", capture=settings | (more or {}))
    witness = Witness(dsn, "tap", f"witness_{prefix}")
    capture = Program("capture", config, folder / "capture.log")
    shop = Shop(server, kafka, dsn, prefix, folder, config, capture, witness, tables, [capture])
    shop.sql(schema)
    witness.create()
    try:
        yield shop
    finally:
        for program in shop.programs:
            program.stop(10)
