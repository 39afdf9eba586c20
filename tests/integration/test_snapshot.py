"""The initial snapshot from real PostgreSQL to real Kafka: every kind of table, parallel, disturbed, in each mode."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from capture.postgres.catalogue import published_tables
from capture.selection import patterns
from capture.snapshot.chunks import measure, plan_table
from capture.snapshot.initial import cost
from capture.snapshot.modes import SnapshotOptions
from deploy.embedded import Kafka, Postgres
from tests.fix_postgres import AVAILABLE
from tests.proof.records import changes
from tests.proof.rules import check_snapshots, snapshots
from tests.shop import Shop, open_shop, said

PATIENCE = 180.0
ROWS = 5_000  # several chunks: each row has a page of its own
MANY = 40_000  # which takes a while; several chunks, too: each row is about 700 bytes of its table's pages
SCHEMA = """
    CREATE TABLE wide (id bigint PRIMARY KEY, what text, total numeric(12,2) NOT NULL, filler text NOT NULL)
        WITH (fillfactor = {fill});
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
        repeat('x', 600) FROM generate_series(1, {rows}) n;
    INSERT INTO keyless SELECT 'same', n % 10 FROM generate_series(1, 500) n;
    INSERT INTO parent SELECT n, 'of the parent' FROM generate_series(1, 50) n;
    INSERT INTO child SELECT n, 'of the child', 'more' FROM generate_series(51, 90) n;
    INSERT INTO parted SELECT n, n % 60, 'area' FROM generate_series(1, 300) n;
    CREATE PUBLICATION tap FOR TABLE wide, keyless, ONLY parent, ONLY child, parted, empty
        WITH (publish_via_partition_root = true);
"""
TABLES = ("public.wide", "public.keyless", "public.parent", "public.child", "public.parted", "public.empty")


@pytest.fixture
def tables() -> str:
    """What makes the shop's tables."""
    return SCHEMA.format(rows=ROWS, fill=10)


under_way = pytest.mark.parametrize("tables", [SCHEMA.format(rows=MANY, fill=100)], ids=["many rows"])
"""For tests that stop or meet a copy in its middle."""


@pytest.fixture
def shop(
    server: Postgres,
    new_database: Callable[[Postgres, str], str],
    kafka: Kafka,
    prefix: str,
    tmp_path: Path,
    tables: str,
) -> Iterator[Shop]:
    more = {"snapshot_max_threads": 2, "topic_creation_default_partitions": 3}
    database = new_database(server, "snapshot")
    with open_shop(server, kafka, database, prefix, tmp_path, more, tables, TABLES) as made:
        yield made
        made.drop_slots()


def snapshot(shop: Shop) -> dict[str, Any]:
    """What the position says of the snapshot."""
    return shop.position().get("snapshot") or {}


def until_streamed(shop: Shop, times: int = 1) -> None:
    """Waits until capture has begun to stream so often, and Kafka has all that the log has now."""
    shop.until_said("[info     ] streaming ", times=times)
    shop.drain()
    shop.until(lambda: snapshot(shop)["state"] == "completed")


def workers(shop: Shop) -> list[int]:
    """The worker processes of the capture that runs."""
    pid = shop.capture.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


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
                f"INSERT INTO wide VALUES ({MANY + n}, 'new', 1, '')",
                f"DELETE FROM wide WHERE id = {n * 7}",
                f"UPDATE parted SET area = area + 31 WHERE id = {n % 300}",  # to another partition
                f"INSERT INTO child VALUES ({1000 + n}, 'new')",
            )


@pytest.mark.parametrize("server", AVAILABLE, indirect=True, ids=lambda version: f"pg{version}")
def test_rows_are_guessed_of_tables_that_were_never_analysed(
    server: Postgres, new_database: Callable[[Postgres, str], str]
) -> None:
    database = new_database(server, "guessed")
    with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(
            """
            CREATE TABLE empty (id int PRIMARY KEY, note text);
            CREATE TABLE new (id bigint PRIMARY KEY, at timestamptz, n int, gone int);
            CREATE TABLE grown (id bigint PRIMARY KEY, note text);
            CREATE TABLE parts (id bigint PRIMARY KEY) PARTITION BY RANGE (id);
            CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10000);
            CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10000) TO (20000);
            ALTER TABLE new SET (autovacuum_enabled = off); ALTER TABLE grown SET (autovacuum_enabled = off);
            ALTER TABLE parts_1 SET (autovacuum_enabled = off);
            CREATE PUBLICATION tap FOR TABLE empty, new, grown, parts WITH (publish_via_partition_root = true);
            INSERT INTO new SELECT n, now(), n FROM generate_series(1, 20000) n; ALTER TABLE new DROP COLUMN gone;
            INSERT INTO grown SELECT n, repeat('x', 200) FROM generate_series(1, 2000) n;
            INSERT INTO parts SELECT generate_series(1, 9999)
            """
        )
        cursor.execute("ANALYZE grown; INSERT INTO grown SELECT n, repeat('x', 200) FROM generate_series(2001, 6000) n")
        published = published_tables(connection, "tap")
        leaves = measure(connection, published)
        plans = {one.relation.name: plan_table(connection, 0, one, leaves[one.relation.oid]) for one in published}
    rows = {name: plan.rows for name, plan in plans.items()}
    assert rows["empty"] == 0
    wanted = {"new": 20_000, "grown": 6_000, "parts": 9_999}
    assert {name: rows[name] for name in wanted} == pytest.approx(wanted, rel=0.2)


@under_way
def test_a_parallel_snapshot_beside_writes_is_the_shops_content(shop: Shop) -> None:
    with Writes(shop) as writes:
        shop.capture.start()
        shop.until(lambda: snapshot(shop).get("state") == "completed")
    until_streamed(shop)
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
    assert workers(shop) == []
    until_streamed(shop)
    shop.prove()


@contextmanager
def _in_the_middle(shop: Shop) -> Iterator[list[int]]:
    """Starts capture; rows are on their way when this begins, those of one table when it ends; the workers."""
    gate = "pg_advisory_xact_lock_shared(1)"
    shop.configure(
        snapshot_select_statement_overrides={"public.child": f"SELECT child.* FROM ONLY child, {gate}"},
        snapshot_lock_timeout_ms=100_000,
    )
    with closing(psycopg2.connect(shop.dsn)) as keeper, keeper.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(1)")
        shop.capture.start()
        shop.until(lambda: "snapshot begins" in shop.capture.tail(100))
        found = workers(shop)
        assert len(found) == 2
        time.sleep(0.3)
        shop.until(lambda: snapshot(shop)["state"] == "running")
        yield found


def _until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 30
    while not all(_gone(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@under_way
def test_workers_end_with_their_parent_and_the_next_start_copies_all(shop: Shop) -> None:
    with _in_the_middle(shop) as workers:
        shop.capture.kill()
        _until_gone(workers)
    shop.sql("DELETE FROM wide WHERE id % 5 = 0")
    shop.capture.start()
    until_streamed(shop)
    shop.prove()
    assert len(snapshots(shop.records(), shop.prefix)) == 1


@under_way
def test_workers_that_stand_still_are_fenced_by_the_next_start(shop: Shop) -> None:
    """They wake up when another has gone on with the rest, without workers: nothing of theirs is open or comes late."""
    shop.sql("ALTER TABLE keyless ADD number int GENERATED ALWAYS AS IDENTITY PRIMARY KEY")
    shop.capture.start()
    shop.until(lambda: "snapshot begins" in said(shop.capture))
    asleep = workers(shop)
    for pid in asleep:
        os.kill(pid, signal.SIGSTOP)
    try:
        shop.until(lambda: snapshot(shop)["state"] == "running")  # it was said before it was written
        shop.capture.kill()
        shop.capture.start()
        until_streamed(shop)
        assert not shop.open_transaction("public.wide", range(3))
        assert "the snapshot continues while streaming" in said(shop.capture)
    finally:
        for pid in asleep:
            os.kill(pid, signal.SIGCONT)
    _until_gone(asleep)
    shop.prove()


@under_way
def test_a_killed_worker_fails_the_snapshot_which_begins_again(shop: Shop) -> None:
    with _in_the_middle(shop) as workers:
        os.kill(workers[0], signal.SIGKILL)
    until_streamed(shop)
    log = shop.capture.log.read_text()
    assert "was killed by signal 9" in log
    assert "Traceback" not in log
    shop.prove()
    assert len(snapshots(shop.records(), shop.prefix)) == 1


@under_way
def test_sigterm_in_the_middle_leaves_nothing_open(shop: Shop) -> None:
    with _in_the_middle(shop) as workers:
        began = time.monotonic()
        assert shop.capture.stop() == 0
        assert time.monotonic() - began < 15
        assert all(_gone(pid) for pid in workers)
        assert "stopped before the snapshot was complete" in shop.capture.tail()
        assert not any(shop.open_transaction(table, range(3)) for table in TABLES)
    shop.capture.start()
    until_streamed(shop)
    shop.prove()


@under_way
def test_a_rewrite_waits_for_the_snapshot(shop: Shop) -> None:
    rewrites = ("ALTER TABLE wide ALTER COLUMN filler TYPE varchar(700)", "ALTER TABLE parted ALTER what TYPE varchar")
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'"
    with _in_the_middle(shop):
        thread = threading.Thread(target=shop.sql, args=rewrites)
        thread.start()
        shop.until(lambda: shop.value(waiting) > 0)
    thread.join()
    assert snapshot(shop)["state"] == "completed"
    [only] = snapshots(shop.records(), shop.prefix)
    assert only.rows["public.wide"] == MANY
    assert check_snapshots(shop.records(), shop.prefix) == []


def test_a_truncate_waits_for_the_snapshot_which_does_not_wait_for_it(shop: Shop) -> None:
    """Both workers are busy when it begins to wait, with a table that neither of them has read yet."""
    slow = {f"public.{name}": f"SELECT {name}.* FROM ONLY {name}, pg_sleep(2)" for name in ("child", "empty")}
    shop.configure(snapshot_select_statement_overrides=slow)
    shop.capture.start()
    shop.until(lambda: "snapshot begins" in shop.capture.tail(100))
    shop.sql("TRUNCATE ONLY parent, wide")  # comes back when the snapshot lets go
    until_streamed(shop)
    shop.prove()


def test_the_shop_does_not_stand_still_while_the_slot_is_made(shop: Shop) -> None:
    """The slot waits for a transaction, which waits behind a TRUNCATE: that must not wait for capture."""
    with closing(psycopg2.connect(shop.dsn)) as old, old, old.cursor() as cursor:
        cursor.execute("INSERT INTO keyless VALUES ('old', 1)")
        shop.capture.start()
        shop.until_said("making the slot")
        shop.until(lambda: shop.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'transactionid'") == 1)
        shop.sql("SET lock_timeout = '5s'", "TRUNCATE wide")
        cursor.execute("INSERT INTO wide VALUES (1, 'anew', 1, '')")
    until_streamed(shop)
    shop.prove()


def test_a_table_that_is_published_while_the_slot_is_made_is_read_too(shop: Shop) -> None:
    """Its rows are older than the slot: neither the stream nor the tables known before would have them."""
    with closing(psycopg2.connect(shop.dsn)) as old, old, old.cursor() as cursor:
        cursor.execute("INSERT INTO keyless VALUES ('old', 1)")
        shop.capture.start()
        shop.until_said("making the slot")
        shop.sql(
            "CREATE TABLE late (id int PRIMARY KEY)",
            "INSERT INTO late VALUES (1), (2)",
            "ALTER PUBLICATION tap ADD TABLE late",
        )
    shop.until_said("a table was published just now")
    until_streamed(shop)
    shop.prove([*TABLES, "public.late"])


def test_a_truncate_between_slot_and_locks_begins_the_snapshot_again(shop: Shop) -> None:
    """The exported snapshot has the rows, but their file is gone."""
    halting = shop.copy("halting", "tests.faults.broken", ("-X", "fault=halt-SLOT:1"))
    halting.start()
    shop.until(lambda: Path(f"/proc/{halting.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", halting)
    shop.sql("TRUNCATE parted_2")
    os.kill(halting.pid, signal.SIGCONT)
    shop.until(lambda: "a table was rewritten or truncated just now" in halting.log.read_text(), halting)
    shop.until(lambda: snapshot(shop).get("state") == "completed", halting)
    shop.drain(halting)
    shop.prove()
    [only] = snapshots(shop.records(), shop.prefix)
    assert only.rows["public.parted"] == 150


@under_way
def test_a_lost_lock_fails_the_snapshot(shop: Shop) -> None:
    with _in_the_middle(shop):
        shop.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND application_name = 'ordertap capture' AND backend_type = 'client backend' "
            "AND state = 'idle in transaction' AND query NOT LIKE 'SET TRANSACTION%' "
            "AND query NOT LIKE 'LOCK TABLE%' AND query NOT LIKE 'COPY%'"
        )
    until_streamed(shop)
    assert "the lock on the tables was lost" in shop.capture.log.read_text()
    shop.prove()


def test_filters_lists_chosen_tables_and_selects(shop: Shop) -> None:
    shop.sql(
        "DROP PUBLICATION tap",
        "CREATE PUBLICATION tap FOR TABLE wide (id, total) WHERE (id <= 4000), parent, keyless",
    )
    shop.configure(
        snapshot_include_collection_list=["public.wide", "public.keyless"],
        snapshot_select_statement_overrides={"public.keyless": "SELECT * FROM keyless WHERE n = 3;"},
    )
    shop.capture.start()
    shop.until(lambda: snapshot(shop).get("state") == "completed")
    [only] = snapshots(shop.records(), shop.prefix)
    assert only.rows == {"public.wide": 4_000, "public.keyless": 50}
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
    assert shop.capture.wait(PATIENCE) == 78, shop.capture.tail()
    assert words in shop.capture.log.read_text()
    assert "Traceback" not in shop.capture.log.read_text()
    assert shop.value(f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{shop.prefix}'") == 0


@pytest.mark.parametrize(
    ("unlike", "words"),
    [
        ("REVOKE SELECT ON child FROM {}", "permission denied for table child"),
        ("ALTER TABLE child ENABLE ROW LEVEL SECURITY", "row-level security policy"),
    ],
    ids=["no right", "policies"],
)
def test_a_table_that_may_not_be_read_is_told_before_a_slot_is_made(shop: Shop, unlike: str, words: str) -> None:
    """A slot that nobody reads would hold the shop's log."""
    role = f"reader_{shop.prefix}"
    shop.sql(f"CREATE ROLE {role} LOGIN REPLICATION", f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    shop.sql(unlike.format(role))
    shop.configure(database_user=role)
    shop.capture.start()
    assert shop.capture.wait(PATIENCE) == 78, shop.capture.tail()
    assert words in shop.capture.log.read_text()
    assert shop.value(f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{shop.prefix}'") == 0


def test_initial_only_ends_and_initial_goes_on_from_there(shop: Shop) -> None:
    for _ in range(2):  # the second start finds nothing to do
        shop.configure(snapshot_mode="initial_only")
        shop.capture.start()
        assert shop.capture.wait(PATIENCE) == 0
    shop.sql("UPDATE parent SET what = 'later'")
    shop.configure(snapshot_mode="initial")
    shop.capture.start()
    until_streamed(shop)
    shop.prove()
    assert len(snapshots(shop.records(), shop.prefix)) == 1


def test_when_needed_repairs_by_itself(shop: Shop) -> None:
    shop.configure(snapshot_mode="when_needed")
    shop.capture.start()
    until_streamed(shop)
    assert shop.capture.stop() == 0
    shop.capture.start()  # nothing is lost: no second snapshot
    until_streamed(shop, times=2)
    assert shop.capture.stop() == 0
    assert len(snapshots(shop.records(), shop.prefix)) == 1
    shop.free_slot()
    shop.sql(f"SELECT pg_drop_replication_slot('{shop.prefix}')", "DELETE FROM wide WHERE id < 100")
    shop.capture.start()
    until_streamed(shop, times=3)
    assert "is gone" in shop.capture.log.read_text()
    made = snapshots(shop.records(), shop.prefix)
    assert [one.generation for one in made] == [1, 2]
    assert made[1].rows["public.wide"] == ROWS - 99


def test_always_copies_at_each_start_in_a_new_generation(shop: Shop) -> None:
    shop.configure(snapshot_mode="always", snapshot_include_collection_list=["public.parent"])
    for generation in (1, 2):
        shop.capture.start()
        until_streamed(shop, times=generation)
        assert shop.capture.stop() == 0
        assert shop.position()["generation"] == generation
        shop.sql("DELETE FROM parent WHERE id = 1")
    made = snapshots(shop.records(), shop.prefix)
    assert [(one.generation, one.rows["public.parent"]) for one in made] == [(1, 50), (2, 49)]


def test_what_a_repair_reads_is_told_of_the_tables_that_it_reads_and_hides_no_loss(database: str) -> None:
    """Also where somebody has locked one of them: then how much it is cannot be told."""
    every = SnapshotOptions("initial", 1, 100, (), {})
    with closing(psycopg2.connect(database)) as owner, owner.cursor() as cursor:
        cursor.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)")
        cursor.execute(
            "INSERT INTO a SELECT generate_series(1, 9); ANALYZE a, b; CREATE PUBLICATION tap FOR TABLE a, b"
        )
        owner.commit()
        with closing(psycopg2.connect(database, options="-c lock_timeout=100")) as asking:
            asking.autocommit = True
            published = published_tables(asking, "tap")
            assert cost(asking, published, every).startswith("about 9 rows of 2 tables, 0.0 MB in the shop, are read")
            some = every._replace(included=patterns(["public.a"]))
            assert cost(asking, published, some).startswith("about 9 rows of 1 tables")
            cursor.execute("LOCK TABLE a")
            assert cost(asking, published, every).startswith("tables are read again, but how many rows is not known (")
            none = every._replace(mode="no_data")
            assert cost(asking, published, none) == "no table is read again (snapshot_mode no_data)"
