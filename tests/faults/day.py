"""A day of the sample shop on real servers, with processes that are killed: the crash test and `./tests/soak`."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import psycopg2
from confluent_kafka import Consumer, TopicPartition

from deploy.embedded import Kafka, Postgres
from deploy.shop.simulator import Simulator, prepare, skus
from tests.faults.proxy import Proxy
from tests.programs import ROOT, Program, run, write_settings
from tests.proof.erp import check_erp
from tests.proof.rules import Finding
from tests.proof.verdict import Verdict, judge
from tests.proof.wal import Witness

PUBLICATION = "ordertap"
SETTLE_SECONDS = 300.0
DRAIN_SECONDS = 60.0
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a day."""

    verdict: Verdict
    kills: int
    erp: tuple[Finding, ...]
    difference: Decimal
    held: str = ""
    prefixes: int = 0  # log positions at which the copy was compared with the shop
    torn: int = 0
    copy: tuple[str, ...] = ()
    stops: int = 0  # a sink stopped between intent and call, until another one had decided
    cut: int = 0  # calls to the ERP whose reply was lost

    def count(self, kind: str) -> int:
        """Findings of a kind, in Kafka and in the ERP."""
        return self.verdict.count(kind) + sum(finding.kind == kind for finding in self.erp)

    @property
    def sound(self) -> bool:
        """Whether every promise was kept."""
        agrees = not self.erp and self.difference == 0 and not self.held
        return agrees and not self.verdict.findings and not self.copy and self.verdict.changes > 0

    def __str__(self) -> str:
        counts = f"{self.count('lost')} lost, {self.count('double')} double, {self.count('out of order')} out of order"
        copy = f"{self.prefixes} prefixes checked, {self.torn} torn"
        changes = f"{self.verdict.changes} changes, {self.kills} kills"
        network = f"{self.stops} stops, {self.cut} cut calls"
        return f"soak: {changes}, {counts}, difference {self.difference:.2f}, {copy}, {network}"


class Day:
    """Databases, settings and processes of one shop.

    `prefix`: of its topics and databases. Each sink reaches the ERP through a proxy of its own; both lists have the
    same order.
    """

    fewest_kills = 6
    copies = 1  # of the sink

    def __init__(self, folder: Path, server: Postgres, kafka: Kafka, prefix: str, seed: int) -> None:
        self.seed = seed
        self.prefix = prefix
        self.kills = 0
        self._server = server
        self._kafka = kafka
        self.shop, self.middle, self.erp = (
            server.create_database(f"{prefix}_{name}") for name in ("shop", "middle", "erp")
        )
        self._registry = (folder / "registry").as_uri()
        self._make_shop_and_erp()
        self.config = write_settings(folder / "settings.yaml", capture=self._capture(), sink=self._sink())
        self.capture = Program("capture", self.config, folder / "capture.log")
        self.proxies = [Proxy(server.port) for _ in range(self.copies)]
        self.sinks = [self._copy(folder, number, proxy) for number, proxy in enumerate(self.proxies, 1)]
        self.sink = self.sinks[0]
        self._programs = (self.capture, *self.sinks)
        self._chance = random.Random(seed)
        self._day_over = threading.Event()
        self._troubles: list[Exception] = []
        self._logged = dict.fromkeys(self.sinks, 0)  # size of a sink's log at its last kill

    def _make_shop_and_erp(self) -> None:
        prepare(self.shop, lambda _: None)
        self._execute(self.shop, f"CREATE PUBLICATION {PUBLICATION} FOR ALL TABLES")
        self.witness = Witness(self.shop, PUBLICATION, f"proof_{self.prefix}")
        self.witness.create()
        self._execute(self.erp, (ROOT / "deploy/erp/schema.sql").read_text())
        self._execute(self.erp, f"INSERT INTO company VALUES ('{self.prefix}', 'The factory')")
        for sku in skus(self.shop):
            self._execute(self.erp, f"INSERT INTO items VALUES ('{sku}', '{sku}')")

    def _capture(self) -> dict[str, object]:
        return {
            "name": self.prefix,
            "topic_prefix": self.prefix,
            "database_hostname": "127.0.0.1",
            "database_port": self._server.port,
            "database_user": "postgres",
            "database_dbname": self.shop.rpartition("/")[2],
            "slot_name": self.prefix,
            "publication_name": PUBLICATION,
            "heartbeat_interval_ms": 500,
            "bootstrap_servers": self._kafka.bootstrap_servers,
            "schema_registry_url": self._registry,
            "topic_creation_default_partitions": 3,
            "health_port": 0,
        }

    def _copy(self, folder: Path, number: int, proxy: Proxy) -> Program:
        """A sink. Only its address of the ERP differs from the other's."""
        settings = self._sink()
        assert isinstance(settings["erp"], dict)
        through = settings | {"erp": settings["erp"] | {"url": proxy.url(self.erp)}}
        config = write_settings(folder / f"sink-{number}.yaml", sink=through)
        return Program("sink", config, folder / f"sink-{number}.log")

    def _sink(self) -> dict[str, object]:
        """Leases and time limits are short, so that waiting after a fault ends within the day."""
        mapping = str(ROOT / "deploy/erp/mapping.yaml")
        return {
            "shop": self.prefix,
            "profile": "sample",
            "topic_prefix": self.prefix,
            "bootstrap_servers": self._kafka.bootstrap_servers,
            "schema_registry_url": self._registry,
            "database_url": self.middle,
            "shop_url": self.shop,
            "erp": {"kind": "sql", "url": self.erp, "mapping": mapping, "timeout_seconds": 3},
            "mode": "apply",
            "prices_owner": "shop",
            "settle_seconds": 2,
            "recheck_seconds": 2,
            "lease_seconds": 5,
            "brake_orders": 100_000,  # weeks of a shop pass within minutes
            "brake_prices": 100_000,
            "health_port": 0,
        }

    def run(self, seconds: float, say: Callable[[str], None] = lambda _: None) -> Result:
        """Runs buyers for so many seconds, with kills, and a reset of offsets in the middle. Then the proof."""
        buyers = [threading.Thread(target=self._buy, args=(number,), daemon=True) for number in range(2)]
        try:
            for buyer in buyers:
                buyer.start()
            self._disturb_through(seconds, say)
            self._day_over.set()
            for buyer in buyers:
                buyer.join()
            if self._troubles:
                raise self._troubles[0]
            return self._settle(say)
        finally:
            self._day_over.set()
            for program in self._programs:
                program.stop(10)
            for proxy in self.proxies:
                proxy.close()

    def _buy(self, number: int) -> None:
        """Runs one simulator with a seed of its own until the day is over."""
        try:
            simulator = Simulator(self.shop, self.seed * 100 + number)
            while not self._day_over.is_set():
                simulator.step()
                time.sleep(0.05)
            simulator.close_day()
        except psycopg2.Error as error:
            self._troubles.append(error)

    def _disturb_through(self, seconds: float, say: Callable[[str], None]) -> None:
        """The first kills come during the initial snapshot. Each program is restarted at once."""
        for program in self._programs:
            program.start()
        end = time.monotonic() + seconds
        half = time.monotonic() + seconds / 2
        while time.monotonic() < end or not self._had_enough():
            time.sleep(self._chance.uniform(0.7, 1.5) if self.kills < 3 else self._chance.uniform(1.5, 6.0))
            for program in self._programs:
                if program.ended() is not None:
                    raise RuntimeError(f"{program.name} ended by itself:\n{program.tail()}")
            done = self._disturb()
            say(f"{max(0, end - time.monotonic()):4.0f} s to go, {self.kills} kills, {self._orders()} orders{done}")
            if half is not None and time.monotonic() > half:
                half = float("inf")
                self.reset_to_earliest()
                say("offsets reset to the earliest")

    def _had_enough(self) -> bool:
        """Whether enough has happened for the day to prove something, even on a slow machine."""
        return self.kills >= self.fewest_kills

    def _disturb(self) -> str:
        """Does one fault, and returns words for the progress line."""
        self.kill_one()
        return ""

    def kill_one(self) -> None:
        """kill -9 of capture or a sink, with a restart at once."""
        victim = self._chance.choice([self.capture, *filter(self._works, self.sinks if self.kills >= 2 else [])])
        victim.kill()
        if victim in self._logged:
            self._logged[victim] = victim.log.stat().st_size
        self.kills += 1
        victim.start()

    def _works(self, sink: Program) -> bool:
        """Whether it has written to the ERP since its last kill. Kafka reassigns a killed member's partitions only
        after the session time-out, so a sink that is killed again before that was idle, which proves nothing."""
        with sink.log.open("rb") as log:
            log.seek(self._logged[sink])
            return b"done in the ERP" in log.read()

    def reset_to_earliest(self) -> None:
        """Resets offsets as operators do: stop, reset, start."""
        for sink in self.sinks:
            sink.stop()
        for _ in range(_ATTEMPTS):  # Kafka may take longer to forget a killed member than one call waits
            done = run("sink", "offsets", "reset", "--to", "earliest", "--execute", config=self.config)
            if not done.returncode:
                break
        else:
            raise RuntimeError(f"sink offsets reset failed:\n{done.stdout}{done.stderr}")
        for sink in self.sinks:
            sink.start()

    def _settle(self, say: Callable[[str], None]) -> Result:
        """Waits until capture has everything, then until the ERP agrees or time is up. Then the proof."""
        target = self._scalar(self.shop, "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint")
        deadline = time.monotonic() + SETTLE_SECONDS
        while position(self._kafka.bootstrap_servers, self.prefix) < target and time.monotonic() < deadline:
            time.sleep(0.5)
        say("capture has all; waiting for the ERP")
        found, difference = self._until_settled(deadline)
        verdict = judge(self.witness, self._kafka.bootstrap_servers, self._registry, self.prefix, self._tables())
        self.witness.drop()
        held = run("sink", "held", config=self.config).stdout if found or self._held() else ""
        cut = sum(proxy.cut for proxy in self.proxies)
        return Result(verdict, self.kills, tuple(found), difference, held, cut=cut)

    def _until_settled(self, deadline: float) -> tuple[list[Finding], Decimal]:
        """Differences between shop and ERP, and their money. Documents that faults made held are first tried again, as
        a clerk would do; then nothing may differ or be held."""
        ledger, retried = f"ordertap_{self.prefix}", False
        while True:
            found, difference = check_erp(self.shop, self.erp, self.middle, ledger)
            open_ = self._open()
            if (not found and not open_) or time.monotonic() > deadline:
                return found, difference
            if not retried and open_ == self._held():  # nothing else is on its way
                assert run("sink", "retry", "--all", config=self.config).returncode == 0
                retried = True
            time.sleep(1)

    def _held(self) -> int:
        """The number of held documents."""
        return self._documents("state IN ('held', 'waits')")

    def _open(self) -> int:
        """The number of documents with work left."""
        return self._documents("seen < marked OR intent IS NOT NULL OR state IN ('held', 'waits', 'retry', 'settling')")

    def _documents(self, which: str) -> int:
        return self._scalar(self.middle, f"SELECT count(*) FROM ordertap_{self.prefix}.document WHERE {which}")

    def erp_documents(self) -> dict[str, list[object]]:
        """All rows of the ERP as text, to compare before and after."""
        tables = ("customers", "orders", "order_lines", "returns", "return_lines", "refunds", "prices")
        statement = "SELECT coalesce(json_agg(t::text ORDER BY t::text), '[]') FROM {} t"
        return {table: self._value(self.erp, statement.format(table)) for table in tables}  # type: ignore[misc]

    def _tables(self) -> list[str]:
        published = f"FROM pg_publication_tables WHERE pubname = '{PUBLICATION}'"
        found = self._value(self.shop, f"SELECT json_agg(schemaname || '.' || tablename) {published}")
        assert isinstance(found, list)
        return [str(table) for table in found]

    def _orders(self) -> int:
        return self._scalar(self.shop, "SELECT count(*) FROM orders")

    def _scalar(self, dsn: str, statement: str) -> int:
        value = self._value(dsn, statement)
        assert isinstance(value, int)
        return value

    @staticmethod
    def _value(dsn: str, statement: str) -> object:
        connection = psycopg2.connect(dsn)
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                row = cursor.fetchone()
                return row[0] if row else None
        finally:
            connection.close()

    @staticmethod
    def _execute(dsn: str, statement: str) -> None:
        connection = psycopg2.connect(dsn)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()


def await_drained(program: Program, database: str, bootstrap_servers: str, prefix: str) -> None:
    """Waits until the position in Kafka has passed the present end of the log."""
    connection = psycopg2.connect(database)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        row = cursor.fetchone()
    connection.close()
    assert row is not None
    deadline = time.monotonic() + DRAIN_SECONDS
    while position(bootstrap_servers, prefix) < row[0]:
        assert program.ended() is None, program.tail()
        assert time.monotonic() < deadline, f"not drained in {DRAIN_SECONDS:.0f} s:\n{program.tail()}"
        time.sleep(0.3)


def position(bootstrap_servers: str, prefix: str) -> int:
    """The end LSN of the newest committed position, 0 before the first or while the snapshot runs."""
    settings: dict[str, str | int | float | bool | None] = {
        "bootstrap.servers": bootstrap_servers,
        "group.id": f"{prefix}-watch",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "allow.auto.create.topics": False,
    }
    consumer = Consumer(settings)
    consumer.assign([TopicPartition(f"ordertap.{prefix}.position", 0, 0)])
    newest: dict[str, object] = {}
    while message := consumer.poll(2.0):
        if message.error():
            break
        if message.key() == prefix.encode():
            newest = json.loads(message.value() or b"{}")
    consumer.close()
    snapshot = newest.get("snapshot")
    running = isinstance(snapshot, dict) and snapshot["state"] in ("making", "running")
    return 0 if running or not newest else int(str(newest["end_lsn"]))
