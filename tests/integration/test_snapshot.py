"""The initial snapshot from real PostgreSQL to real Kafka: every kind of table, parallel, disturbed, in each mode."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from capture.producer import Cluster
from deploy.embedded import Kafka, Postgres
from schemas.errors import UnavailableError
from tests.fix_postgres import AVAILABLE
from tests.programs import Program, write_settings
from tests.proof.records import Record, changes, read_topics
from tests.proof.rules import check_snapshots, snapshots
from tests.proof.verdict import judge
from tests.proof.wal import Witness

PATIENCE = 60.0
ROWS = 40_000  # several chunks: each row is about 700 bytes of its table's pages
SCHEMA = f"""
    CREATE TABLE wide (id bigint PRIMARY KEY, what text, total numeric(12,2) NOT NULL, filler text NOT NULL);
    CREATE TABLE keyless (what text, n int); ALTER TABLE keyless REPLICA IDENTITY FULL;
    CREATE TABLE parent (id int PRIMARY KEY, what text);
    CREATE TABLE child (more text, PRIMARY KEY (id)) INHERITS (parent);
    CREATE TABLE parted (id int, area int, what text, PRIMARY KEY (id, area)) PARTITION BY RANGE (area);
    CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (30);
    CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (30) TO (60);
    CREATE TABLE parted_3 PARTITION OF parted DEFAULT;
    CREATE TABLE empty (id int PRIMARY KEY);
    CREATE TABLE bare ();
    INSERT INTO wide SELECT n, CASE n % 3 WHEN 0 THEN NULL WHEN 1 THEN 'plain' ELSE E'a\\tb\\\\N\\n' || n END, n / 3.0,
        repeat('x', 600) FROM generate_series(1, {ROWS}) n;
    INSERT INTO keyless SELECT 'same', n % 10 FROM generate_series(1, 500) n;
    INSERT INTO parent SELECT n, 'of the parent' FROM generate_series(1, 50) n;
    INSERT INTO child SELECT n, 'of the child', 'more' FROM generate_series(51, 90) n;
    INSERT INTO parted SELECT n, n % 60, 'area' FROM generate_series(1, 300) n;
    CREATE PUBLICATION tap FOR TABLE wide, keyless, ONLY parent, ONLY child, parted, empty
        WITH (publish_via_partition_root = true);
"""
TABLES = ("public.wide", "public.parent", "public.child", "public.parted", "public.empty")


@dataclass
class Shop:
    """A database to copy and a capture to copy it."""

    dsn: str
    prefix: str
    settings: dict[str, Any]
    folder: Path
    capture: Program
    witness: Witness
    bootstrap_servers: str
    streams_seen: int = 0

    @property
    def registry(self) -> str:
        """The schema registry's address."""
        return str(self.settings["schema_registry_url"])

    def sql(self, *statements: str) -> Any:
        """One transaction; the first column of the last one's first row, if it gives rows."""
        connection = psycopg2.connect(self.dsn)
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            row = cursor.fetchone() if cursor.description else None
        connection.close()
        return row[0] if row else None

    def configure(self, **settings: Any) -> None:
        """Other settings for the next start."""
        write_settings(self.capture.config, capture={**self.settings, **settings})

    def position(self) -> dict[str, Any]:
        """The newest committed position, empty before the first."""
        try:
            value = Cluster(self.bootstrap_servers, {}).last_value(f"{self.prefix}.position", self.prefix.encode())
        except UnavailableError:  # the topic is being made
            return {}
        return json.loads(value) if value else {}

    def snapshot(self) -> dict[str, Any]:
        """What the position says of the snapshot."""
        return self.position().get("snapshot") or {}

    def until(self, met: Callable[[], Any]) -> None:
        """Waits for a condition while capture runs."""
        deadline = time.monotonic() + PATIENCE
        while not met():
            assert self.capture.ended() is None, self.capture.tail()
            assert time.monotonic() < deadline, self.capture.tail()
            time.sleep(0.05)

    def until_streamed(self) -> None:
        """Waits until capture, started anew, streams, and Kafka has all that the log has now."""
        self.until(lambda: self.streams > self.streams_seen)
        self.streams_seen = self.streams
        end = int(self.sql("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))
        self.until(lambda: self.sql("SELECT txid_current()") and self._reached(end))

    @property
    def streams(self) -> int:
        """How often capture has begun to stream."""
        return self.capture.log.read_text().count("[info     ] streaming ")

    def _reached(self, end: int) -> bool:
        position = self.position()
        return bool(position) and position["snapshot"]["state"] == "completed" and position["end_lsn"] >= end

    def records(self) -> list[Record]:
        """All committed records."""
        return read_topics(self.bootstrap_servers, self.registry, self.prefix)

    def workers(self) -> list[int]:
        """The worker processes of the capture that runs."""
        pid = self.capture.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def prove(self) -> None:
        """Kafka's content is the shop's, each change once; readers see as many rows as each snapshot says."""
        verdict = judge(self.witness, self.bootstrap_servers, self.registry, self.prefix, TABLES)
        # A table without key cannot be played back: its rows are counted by check_snapshots.
        expected = "a topic for public.keyless, which is not captured"
        findings = [one for one in verdict.findings if one.text != expected]
        assert not findings, str(verdict)


@pytest.fixture
def shop(
    server: Postgres, new_database: Callable[[Postgres, str], str], kafka: Kafka, prefix: str, tmp_path: Path
) -> Iterator[Shop]:
    database = new_database(server, "snapshot")
    settings = {
        "name": prefix,
        "topic_prefix": prefix,
        "database_hostname": "127.0.0.1",
        "database_port": server.port,
        "database_user": "postgres",
        "database_dbname": database.rpartition("/")[2],
        "slot_name": prefix,
        "publication_name": "tap",
        "snapshot_max_threads": 2,
        "heartbeat_interval_ms": 300,
        "bootstrap_servers": kafka.bootstrap_servers,
        "schema_registry_url": (tmp_path / "registry").as_uri(),
        "topic_creation_default_partitions": 3,
        "health_port": 0,
    }
    config = write_settings(tmp_path / "settings.yaml", capture=settings)
    capture = Program("capture", config, tmp_path / "capture.log")
    witness = Witness(database, "tap", f"witness_{prefix}")
    made = Shop(database, prefix, settings, tmp_path, capture, witness, kafka.bootstrap_servers)
    made.sql(SCHEMA)
    witness.create()
    yield made
    capture.stop()
    made.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()")


class Writes:
    """A person who changes the tables while they are copied."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.count = 0

    def __enter__(self) -> Writes:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            n = self.count = self.count + 1
            self._shop.sql(
                f"UPDATE wide SET total = {n} WHERE id % 1000 = {n % 1000}",
                f"INSERT INTO wide VALUES ({ROWS + n}, 'new', 1, '')",
                f"DELETE FROM wide WHERE id = {n * 7}",
                f"UPDATE parted SET area = area + 31 WHERE id = {n % 300}",  # to another partition
                f"INSERT INTO child VALUES ({1000 + n}, 'new')",
            )


@pytest.mark.parametrize("server", AVAILABLE, indirect=True, ids=lambda version: f"pg{version}")
def test_a_parallel_snapshot_beside_writes_is_the_shops_content(shop: Shop) -> None:
    with Writes(shop) as writes:
        shop.capture.start()
        shop.until(lambda: shop.snapshot().get("state") == "completed")
    shop.until_streamed()
    assert writes.count > 3
    assert shop.capture.stop() == 0
    shop.prove()
    [only] = snapshots(shop.records(), shop.prefix)
    assert only.rows["public.keyless"] == 500
    assert only.rows["public.empty"] == 0
    assert only.rows["public.parted"] == 300
    transactions = Counter(r.partition for r in changes(shop.records(), shop.prefix)["public.keyless"])
    assert set(transactions) == {0}  # rows without key keep to one partition


def test_one_process_copies_the_same(shop: Shop) -> None:
    shop.configure(snapshot_max_threads=1)
    shop.capture.start()
    shop.until(lambda: "snapshot begins" in shop.capture.tail(100))
    assert shop.workers() == []
    shop.until_streamed()
    shop.prove()


def _in_the_middle(shop: Shop) -> list[int]:
    """Starts capture and waits until rows are on their way, some of them slow; the workers."""
    slow = {"public.child": "SELECT child.* FROM ONLY child, pg_sleep(3)"}
    shop.configure(snapshot_select_statement_overrides=slow)
    shop.capture.start()
    shop.until(lambda: "snapshot begins" in shop.capture.tail(100))
    workers = shop.workers()
    assert len(workers) == 2
    time.sleep(0.3)
    assert shop.snapshot()["state"] == "running"
    return workers


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_workers_end_with_their_parent_and_the_next_start_copies_all(shop: Shop) -> None:
    workers = _in_the_middle(shop)
    shop.capture.kill()
    deadline = time.monotonic() + 5
    while not all(_gone(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    shop.sql("DELETE FROM wide WHERE id % 5 = 0")
    shop.capture.start()
    shop.until_streamed()
    shop.prove()
    assert len(snapshots(shop.records(), shop.prefix)) == 1


def test_a_killed_worker_fails_the_snapshot_which_begins_again(shop: Shop) -> None:
    os.kill(_in_the_middle(shop)[0], signal.SIGKILL)
    shop.until_streamed()
    log = shop.capture.log.read_text()
    assert "was killed by signal 9" in log
    assert "Traceback" not in log
    shop.prove()
    assert len(snapshots(shop.records(), shop.prefix)) == 1


def test_sigterm_in_the_middle_leaves_nothing_open(shop: Shop) -> None:
    workers = _in_the_middle(shop)
    began = time.monotonic()
    assert shop.capture.stop() == 0
    assert time.monotonic() - began < 5
    assert all(_gone(pid) for pid in workers)
    began = time.monotonic()
    shop.records()  # would wait for an open transaction
    assert time.monotonic() - began < 10
    shop.capture.start()
    shop.until_streamed()
    shop.prove()


def test_a_rewrite_waits_for_the_snapshot(shop: Shop) -> None:
    _in_the_middle(shop)
    shop.sql("ALTER TABLE wide ALTER COLUMN filler TYPE varchar(700)", "ALTER TABLE parted ALTER what TYPE varchar")
    assert shop.snapshot()["state"] == "completed"
    [only] = snapshots(shop.records(), shop.prefix)
    assert only.rows["public.wide"] == ROWS
    assert check_snapshots(shop.records(), shop.prefix) == []


def test_a_truncate_waits_for_the_snapshot_which_does_not_wait_for_it(shop: Shop) -> None:
    """Both workers are busy when it begins to wait, with a table that neither of them has read yet."""
    slow = {f"public.{name}": f"SELECT {name}.* FROM ONLY {name}, pg_sleep(2)" for name in ("child", "empty")}
    shop.configure(snapshot_select_statement_overrides=slow)
    shop.capture.start()
    shop.until(lambda: "snapshot begins" in shop.capture.tail(100))
    shop.sql("TRUNCATE ONLY parent, wide")  # comes back when the snapshot lets go
    shop.until_streamed()
    shop.prove()


def test_a_lost_lock_fails_the_snapshot(shop: Shop) -> None:
    _in_the_middle(shop)
    shop.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        "AND state = 'idle in transaction' AND query NOT LIKE 'SET TRANSACTION%'"
    )
    shop.until_streamed()
    assert "the lock on the tables was lost" in shop.capture.log.read_text()
    shop.prove()


def test_filters_lists_chosen_tables_and_selects(shop: Shop) -> None:
    shop.sql(
        "DROP PUBLICATION tap",
        "CREATE PUBLICATION tap FOR TABLE wide (id, total) WHERE (id <= 30000), parent, keyless",
    )
    shop.configure(
        snapshot_include_collection_list=["public.wide", "public.keyless"],
        snapshot_select_statement_overrides={"public.keyless": "SELECT * FROM keyless WHERE n = 3;"},
    )
    shop.capture.start()
    shop.until(lambda: shop.snapshot().get("state") == "completed")
    [only] = snapshots(shop.records(), shop.prefix)
    assert only.rows == {"public.wide": 30_000, "public.keyless": 50}
    rows = changes(shop.records(), shop.prefix)
    assert set(rows) == {"public.wide", "public.keyless"}
    assert all(record.value and set(record.value["after"]) == {"id", "total"} for record in rows["public.wide"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"snapshot_include_collection_list": ["public.no_such"]}, "public.no_such is in snapshot_include"),
        ({"snapshot_select_statement_overrides": {"public.wide": "SELECT id FROM wide"}}, "does not yield what, total"),
        ({"snapshot_select_statement_overrides": {"public.wide": "SELECT id FRM wide"}}, "syntax error"),
        ({"snapshot_select_statement_overrides": {"public.wide": "SELECT * FROM nowhere"}}, "does not exist"),
    ],
)
def test_a_bad_choice_is_refused_before_a_slot_is_made(shop: Shop, settings: dict[str, Any], words: str) -> None:
    shop.configure(**settings)
    shop.capture.start()
    assert shop.capture.wait(PATIENCE) == 78
    assert words in shop.capture.log.read_text()
    assert "Traceback" not in shop.capture.log.read_text()
    assert shop.sql(f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{shop.prefix}'") == 0


def test_initial_only_ends_and_initial_goes_on_from_there(shop: Shop) -> None:
    for _ in range(2):  # the second start finds nothing to do
        shop.configure(snapshot_mode="initial_only")
        shop.capture.start()
        assert shop.capture.wait(PATIENCE) == 0
    shop.sql("UPDATE parent SET what = 'later'")
    shop.configure(snapshot_mode="initial")
    shop.capture.start()
    shop.until_streamed()
    shop.prove()
    assert len(snapshots(shop.records(), shop.prefix)) == 1


def test_when_needed_repairs_by_itself(shop: Shop) -> None:
    shop.configure(snapshot_mode="when_needed")
    shop.capture.start()
    shop.until_streamed()
    assert shop.capture.stop() == 0
    shop.capture.start()  # nothing is lost: no second snapshot
    shop.until_streamed()
    assert shop.capture.stop() == 0
    assert len(snapshots(shop.records(), shop.prefix)) == 1
    shop.sql(f"SELECT pg_drop_replication_slot('{shop.prefix}')", "DELETE FROM wide WHERE id < 100")
    shop.capture.start()
    shop.until_streamed()
    assert "is gone" in shop.capture.log.read_text()
    made = snapshots(shop.records(), shop.prefix)
    assert [one.generation for one in made] == [1, 2]
    assert made[1].rows["public.wide"] == ROWS - 99


def test_always_copies_at_each_start_in_a_new_generation(shop: Shop) -> None:
    shop.configure(snapshot_mode="always", snapshot_include_collection_list=["public.parent"])
    for generation in (1, 2):
        shop.capture.start()
        shop.until_streamed()
        assert shop.capture.stop() == 0
        assert shop.position()["generation"] == generation
        shop.sql("DELETE FROM parent WHERE id = 1")
    made = snapshots(shop.records(), shop.prefix)
    assert [(one.generation, one.rows["public.parent"]) for one in made] == [(1, 50), (2, 49)]
