"""capture as operators see it: status, metrics and health while its servers come and go, and signals."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from deploy.embedded import Kafka, Part, Postgres, free_port
from tests.integration.ops_shop import OpsShop
from tests.programs import Program, http_get, run

PATIENCE = 120.0


class Running:
    """A capture that streams, and its health port."""

    def __init__(self, shop: OpsShop) -> None:
        self.shop = shop
        self.port = free_port()
        self.age = 0.0
        shop.write({"health_port": self.port, "database_user": "postgres", "heartbeat_interval_ms": 300})
        shop.sql("CREATE PUBLICATION tap FOR TABLE orders, lines")
        self.capture = Program("capture", shop.config, shop.config.with_name("capture.log"))
        self.capture.start()

    def get(self, path: str) -> tuple[int, str]:
        """Status and text from its HTTP server; status 0 if it does not answer."""
        return http_get(self.port, path)

    def metric(self, name: str) -> float:
        """The sum over its labels; nan when there is none."""
        found = re.findall(rf"^ordertap_capture_{name}(?:{{[^}}]*}})? (\S+)$", self.get("/metrics")[1], re.MULTILINE)
        return sum(map(float, found)) if found else float("nan")

    def until(self, met: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Waits for a condition while capture runs."""
        deadline = time.monotonic() + seconds
        while not met():
            assert self.capture.ended() is None, self.capture.tail()
            assert time.monotonic() < deadline, (self.get("/health/ready"), self.capture.tail())
            time.sleep(0.1)

    def streams(self) -> bool:
        """Whether it is ready, by a heartbeat that came back since the last call."""
        status, said = self.get("/health/ready")
        before, self.age = self.age, self.metric("heartbeat_age_seconds") if '"streaming' in said else 0.0
        return status == 200 and self.age < before

    def status(self) -> dict[str, Any]:
        """What `capture status --json` says."""
        done = run("capture", "status", "--json", config=self.shop.config)
        assert done.returncode == 0, done.stderr
        content: dict[str, Any] = json.loads(done.stdout)
        return content


STATUS = {
    "running": {},
    "sessions": {"pid": {}, "address": {}, "role": {}},
    "position": {"lsn": {}, "generation": {}},
    "lag_bytes": {},
    "lag_seconds": {},
    "slot": {"name": {}, "active_pid": {}, "confirmed_lsn": {}}
    | {"wal_status": {}, "wal_held_bytes": {}, "wal_budget_bytes": {}, "invalidation_reason": {}}
    | {"inactive_since": {}, "conflicting": {}, "spilled_transactions": {}, "spills": {}, "spilled_bytes": {}},
    "rate": {"records_per_second": {}, "log_bytes_per_second": {}},
    "snapshot": {"id": {}, "state": {}, "tables": {}, "tables_done": {}},
    "on_demand": {"paused": {}, "snapshots": {"id": {}, "tables_left": {}, "rows": {}}},
    "parked": {},
    "tables": {"*": {"end_offset": {}}},
    "problems": {},
    "health": {"ready": {}, "reason": {}},
}
"""The keys of `capture status --json`: programs depend on them, and deploy/README.md lists them. `*` is any topic."""


def keys_of(told: Any) -> dict[str, Any]:
    """The keys at every level; of a list: those of its first object."""
    if isinstance(told, list):
        return keys_of(told[0]) if told else {}
    if not isinstance(told, dict):
        return {}
    return {("*" if "." in key else key): keys_of(value) for key, value in told.items()}


def end(part: Part) -> None:
    """Lets a stopped part go on."""
    if part.process is not None:
        os.killpg(part.process.pid, signal.SIGCONT)


@pytest.fixture
def running(ops_shop: OpsShop) -> Iterator[Running]:
    """On the session's servers."""
    made = Running(ops_shop)
    made.until(made.streams)
    yield made
    made.capture.stop()


@pytest.fixture
def apart(ops_shop: OpsShop, parts_folder: Path) -> Iterator[tuple[Running, Postgres, Kafka]]:
    """On servers of its own, which a test may stop."""
    folder = parts_folder / ops_shop.settings["name"]
    with Postgres(folder.with_suffix(".postgres"), 16, {"fsync": "off"}) as server, Kafka(folder) as broker:
        server.create_database("apart")
        settings = {"database_port": server.port, "database_dbname": "apart"}
        shop = OpsShop(server, "apart", ops_shop.config, ops_shop.settings | settings)
        shop.write({"bootstrap_servers": broker.bootstrap_servers})
        shop.sql("CREATE TABLE orders (id int PRIMARY KEY)", "CREATE TABLE lines (id int PRIMARY KEY)")
        made = Running(shop)
        made.until(made.streams)
        yield made, server, broker
        end(server)
        end(broker)
        made.capture.stop()


def test_status_and_metrics_tell_the_same_true_story(running: Running) -> None:
    shop = running.shop
    shop.sql("INSERT INTO lines SELECT n, 1, 'sku' FROM generate_series(1, 500) n", "DELETE FROM orders WHERE id = 1")
    running.until(lambda: running.metric("events_total") == 501)
    running.until(lambda: running.metric("lag_bytes") == 0)  # idle: nothing of ours lies behind
    running.until(lambda: 0 <= running.metric("lag_seconds") < 5)
    running.until(lambda: running.metric("commit_seconds_count") == running.metric("commits_total") > 0)
    assert running.metric("batch_records_sum") >= 501
    assert running.metric("wal_safe_bytes") == -1
    assert running.metric("wal_status") == 1
    shop.sql("ALTER TABLE lines ADD COLUMN price numeric(12,2)", "INSERT INTO lines VALUES (0, 0, 'x', 1)")
    running.until(lambda: running.metric("schema_changes_total") == 1)
    assert (running.metric("leading"), running.metric("parked_tables")) == (1, 0)
    told = running.status()
    assert told["running"] is True
    assert {session["role"] for session in told["sessions"]} == {"leader", "reader"}
    assert told["lag_bytes"] < 10_000
    assert told["lag_seconds"] < 10
    assert told["slot"]["wal_status"] == "reserved"
    assert sum(table["end_offset"] for table in told["tables"].values()) >= 553
    assert told["problems"] == []
    assert told["snapshot"]["state"] == "completed"
    assert told["snapshot"]["tables_done"] == told["snapshot"]["tables"] == 2
    assert running.capture.stop() == 0
    shop.sql("INSERT INTO lines SELECT n, 2, repeat('x', 100) FROM generate_series(1, 2000) n")
    time.sleep(1)
    stopped = running.status()
    assert stopped["running"] is False
    assert stopped["sessions"] == []
    assert stopped["lag_bytes"] > 200_000
    assert stopped["lag_seconds"] >= 1
    shown = run("capture", "status", "--seconds", "0", config=shop.config)
    assert "running    no" in shown.stdout
    assert "no limit is set" in shown.stdout


def test_what_a_snapshot_on_demand_has_left_is_a_metric_and_in_words(running: Running) -> None:
    for words in (("pause",), ("snapshot", "public.orders", "public.lines")):
        assert run("capture", "signal", *words, config=running.shop.config).returncode == 0
    running.until(lambda: running.metric("on_demand_remaining_tables") == 2)
    assert "a snapshot on demand has 2 tables left" in running.get("/health/ready")[1]
    told = running.status()
    assert told["on_demand"]["paused"] is True
    assert keys_of(told) == STATUS
    assert run("capture", "signal", "resume", config=running.shop.config).returncode == 0
    running.until(lambda: running.metric("on_demand_remaining_tables") == 0)


def test_a_frozen_broker_is_not_our_death(apart: tuple[Running, Postgres, Kafka]) -> None:
    running, _, broker = apart
    assert broker.process is not None
    os.killpg(broker.process.pid, signal.SIGSTOP)
    running.until(lambda: running.get("/health/ready")[0] == 503)
    assert "Kafka" in running.get("/health/ready")[1]
    assert running.get("/health/live")[0] == 200
    assert running.metric("lag_seconds") > 5
    end(broker)
    running.until(running.streams, 90)


def test_a_frozen_server_is_not_our_death(apart: tuple[Running, Postgres, Kafka]) -> None:
    running, server, _ = apart
    assert server.process is not None
    os.killpg(server.process.pid, signal.SIGSTOP)
    for child in Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split():
        os.kill(int(child), signal.SIGSTOP)
    running.until(lambda: running.get("/health/ready")[0] == 503)
    live = running.get("/health/live")
    assert live[0] == 200
    assert "PostgreSQL" in running.get("/health/ready")[1]
    for child in Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split():
        os.kill(int(child), signal.SIGCONT)
    end(server)
    running.until(running.streams, 90)


def test_sigterm_under_load_leaves_cleanly_in_about_a_second(running: Running) -> None:
    shop, done = running.shop, threading.Event()

    def load() -> None:
        connection = psycopg2.connect(shop.server.dsn(shop.database))
        connection.autocommit = True
        with connection.cursor() as cursor:
            number = 1000
            while not done.is_set():
                cursor.execute("INSERT INTO orders VALUES (%s, repeat('x', 200))", [number])
                number += 1
        connection.close()

    writers = [threading.Thread(target=load)]
    writers[0].start()
    try:
        running.until(lambda: running.metric("events_total") > 300)
        took = []
        for number in (signal.SIGTERM, signal.SIGINT):
            before = time.monotonic()
            os.kill(running.capture.pid, number)
            assert running.capture.wait(30) == 0, running.capture.tail()
            took.append(time.monotonic() - before)
            assert "stopped cleanly" in running.capture.tail()
            if number == signal.SIGTERM:
                running.capture.start()
                running.until(running.streams)
    finally:
        done.set()
        writers[0].join()
    assert max(took) < 20, took  # about a second on a quiet machine


def test_sighup_rereads_what_can_change_and_refuses_what_is_broken(running: Running) -> None:
    shop = running.shop

    def hang_up(said: str) -> str:
        os.kill(running.capture.pid, signal.SIGHUP)
        running.until(lambda: said in running.capture.tail())
        return re.sub(r"\x1b\[[0-9;]*m", "", running.capture.tail())

    (same,) = (line for line in hang_up("settings reloaded").splitlines() if "settings reloaded" in line)
    assert "settings reloaded: nothing changed" in same
    assert "warning" not in same
    shop.write({"linger_ms": 50, "log_json": True, "database_password": "s3cr3t", "slot_name": "another"})
    log = hang_up('"settings reloaded"')
    line = json.loads(log.splitlines()[-1])
    assert line["changed"] == ["linger_ms", "log_json"]
    assert line["at_the_next_connection"] == ["database_password"]
    assert line["after_a_restart"] == ["slot_name"]
    assert "s3cr3t" not in log
    good = shop.config.read_text()
    shop.config.write_text(good.replace("linger_ms: 50", "linger_ms: soon"))
    assert "linger_ms" in hang_up("the old ones stay")
    shop.config.write_text("capture: [")
    hang_up("is not YAML")
    shop.sql("INSERT INTO orders VALUES (5000, 'after')")
    running.until(lambda: running.metric("events_total") == 1)
    shop.config.write_text(good.replace("slot_name: another", f"slot_name: {shop.settings['topic_prefix']}"))
    shop.sql(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active_pid IS NOT NULL"
        f" AND slot_name = '{shop.settings['topic_prefix']}'"
    )
    running.until(lambda: running.capture.tail(50).count('"event": "streaming"') >= 1)
    assert running.capture.stop() == 0
