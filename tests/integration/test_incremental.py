"""Snapshots on demand while capture streams: signals, chunks between marks, and what may happen between them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg2
import pytest

from capture.demand import SIGNAL_PREFIX, Signal
from tests.fix_capture import PATIENCE, Shop
from tests.fix_postgres import AVAILABLE
from tests.programs import run
from tests.proof.records import changes
from tests.shop import said

ROWS = 1500


@pytest.fixture
def small_chunks(shop: Shop) -> Shop:
    """Chunks of 20 rows, so that a table has many."""
    shop.configure(incremental_snapshot_chunk_size=20)
    return shop


def steps(shop: Shop) -> list[str]:
    """The steps of the notices of snapshots on demand."""
    records = [r for r in shop.records() if r.topic == f"{shop.prefix}.notification" and r.value is not None]
    told = [(r.value["type"], r.value["additional_data"]) for r in records if r.value is not None]
    first = told[0][1]["snapshot_id"]
    return [step for step, data in told if data["snapshot_id"] != first]


def finished(shop: Shop) -> bool:
    """Whether nothing is left of what was requested."""
    demand = shop.position()["demand"]
    return demand is not None and not demand["requests"]


def until_finished(shop: Shop) -> None:
    """Waits until everything requested has been read."""
    shop.drain()
    shop.until(lambda: finished(shop))


def read_again(shop: Shop, table: str) -> list[str]:
    """The keys of the rows of snapshots on demand."""
    rows = changes(shop.records(), shop.prefix).get(table, [])
    return sorted(str(row.key) for row in rows if row.value and row.value["source"]["snapshot"] == "incremental")


@contextmanager
def busy(shop: Shop) -> Iterator[None]:
    """Inserts, updates, deletes and changes keys all the time."""
    over = threading.Event()

    def work() -> None:
        connection = psycopg2.connect(shop.dsn)
        connection.autocommit = True
        with connection.cursor() as cursor:
            number = 0
            while not over.wait(0.005):
                number += 1
                cursor.execute(
                    "UPDATE orders SET note = %s WHERE id < 2000 AND id %% 97 = %s", (f"busy {number}", number % 97)
                )
                cursor.execute("DELETE FROM orders WHERE id = %s", (number % ROWS,))
                cursor.execute("UPDATE orders SET id = id + 1000000 WHERE id = %s", (number * 7 % ROWS,))
                cursor.execute("INSERT INTO orders VALUES (%s, 'new', 1)", (2000000 + number,))
        connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_table_that_was_never_read_comes_whole_while_it_changes(small_chunks: Shop) -> None:
    shop = small_chunks
    shop.sql(
        "ALTER PUBLICATION tap DROP TABLE orders",
        f"INSERT INTO orders SELECT n, '', n FROM generate_series(301, {ROWS}) n",
    )
    shop.capture.start()
    shop.drain()
    shop.sql("ALTER PUBLICATION tap ADD TABLE orders")
    with busy(shop):
        shop.signal("snapshot", "public.orders")
        until_finished(shop)
    shop.drain()
    assert steps(shop) == ["STARTED", "TABLE_SCAN_COMPLETED", "COMPLETED"]
    shop.prove()


def test_a_chunk_that_fails_leaves_the_table_free(shop: Shop) -> None:
    """A table is left out because its condition fails on the data. Whoever alters it then must not wait."""
    shop.capture.start()
    shop.drain()
    shop.signal("snapshot", "public.orders", "--where", "1 / (id - 1) > 0")
    shop.until_said("table is left out of the snapshot")
    shop.sql("SET lock_timeout = '30s'", "ALTER TABLE orders ADD more text")
    shop.signal("snapshot", "public.lines")
    until_finished(shop)
    assert len(read_again(shop, "public.lines")) == 300
    assert "starting again" not in said(shop.capture)


def test_a_signal_of_somebody_else_reads_nothing_that_the_settings_leave_out(shop: Shop) -> None:
    """Any session may write a signal, but only one who knows capture's password is heard. A condition does not end
    capture either."""
    shop.configure(table_exclude_list=["public.lines"])
    shop.capture.start()
    shop.drain()
    for number, (table, condition) in enumerate(
        [("lines", None), ("orders", "generate_series(1, 3) > 1"), ("orders", "id = 1 OR note = '\ud800'")]
    ):
        signal = Signal(shop.prefix, str(number), "execute-snapshot", (f"public.{table}",), condition)
        for content in (signal.signed(b"a guess").dump(), signal.signed(b"").dump()):  # the shop has no password
            shop.sql(f"SELECT pg_logical_emit_message(false, '{SIGNAL_PREFIX}', $content${content}$content$)")
    shop.until_said("signal ignored", times=3)
    shop.until_said("table is left out of the snapshot", times=3)
    until_finished(shop)
    assert Counter(steps(shop)) == {"STARTED": 3, "ABORTED": 3}
    assert read_again(shop, "public.lines") == []
    assert "starting again" not in said(shop.capture)


def test_a_parked_table_comes_back_by_a_snapshot_of_all_of_it_alone(shop: Shop) -> None:
    """Rows that changed meanwhile may not meet a condition."""
    shop.configure(oversized_record="park")
    shop.capture.start()
    shop.drain()
    shop.sql("UPDATE orders SET note = repeat('x', 1200000) WHERE id = 1", "UPDATE orders SET total = -1 WHERE id = 2")
    shop.until(lambda: shop.position()["parked"] == ["public.orders"])
    shop.sql("UPDATE orders SET note = 'small' WHERE id = 1")
    shop.signal("snapshot", "public.orders", "--where", "id = 1")
    shop.until_said("is parked", times=2)
    until_finished(shop)
    assert shop.position()["parked"] == ["public.orders"]
    assert read_again(shop, "public.orders") == []
    shop.signal("snapshot", "public.orders")
    until_finished(shop)
    shop.drain()
    assert shop.position()["parked"] == []
    shop.prove_content()


@pytest.mark.parametrize("ending", ["stop", "left out"])
def test_a_parked_table_is_parked_again_when_its_snapshot_ends_before_all_of_it_is_read(
    shop: Shop, ending: str
) -> None:
    """What changed while it was parked is still missing. A table that was read whole before stays as it is."""
    shop.configure(oversized_record="park")
    shop.capture.start()
    shop.drain()
    shop.sql(
        "UPDATE orders SET note = repeat('x', 1200000) WHERE id = 1",
        "UPDATE lines SET sku = repeat('x', 1200000) WHERE order_id = 1",
    )
    shop.until(lambda: shop.position()["parked"] == ["public.lines", "public.orders"])
    shop.sql("UPDATE orders SET note = 'small' WHERE id = 1", "UPDATE lines SET sku = 'small' WHERE order_id = 1")
    shop.signal("snapshot", "public.lines")
    until_finished(shop)
    shop.signal("pause")
    shop.signal("snapshot", "public.orders")
    shop.until(lambda: bool(shop.position()["demand"]["requests"]))
    assert shop.position()["parked"] == []
    shop.capture.kill()
    shop.capture.start()
    if ending == "stop":
        shop.signal("stop")
    else:
        shop.sql("ALTER TABLE orders RENAME TO old_orders")
        shop.signal("resume")
    until_finished(shop)
    assert shop.position()["parked"] == ["public.orders"]
    assert said(shop.capture).count("is parked") == 3
    if ending == "left out":
        shop.sql("ALTER TABLE old_orders RENAME TO orders")
    shop.signal("snapshot", "public.orders")
    until_finished(shop)
    shop.drain()
    assert shop.position()["parked"] == []
    shop.prove_content()


@pytest.mark.parametrize("server", AVAILABLE, indirect=True, ids=lambda version: f"pg{version}")
def test_chunks_follow_the_order_that_each_type_of_key_has(shop: Shop) -> None:
    """The order is the server's, where NaN and infinity are the greatest, and enums have their own."""
    shop.sql(
        """CREATE TYPE mood AS ENUM ('z', 'a', 'm'); CREATE DOMAIN small AS int;
        CREATE TABLE numbers (a numeric, b float8, c small, d interval, e timestamptz, f date, g bool, h bit(3),
            PRIMARY KEY (a, b, c, d, e, f, g, h));
        INSERT INTO numbers SELECT CASE n % 5 WHEN 0 THEN 'NaN' WHEN 1 THEN -0.10 ELSE n % 3 END,
            CASE n % 4 WHEN 0 THEN 'NaN' WHEN 1 THEN '-Infinity' ELSE 0.1 * n END, n % 4,
            make_interval(months => n % 5 - 2, secs => n % 9 / 7.0),
            CASE n % 4 WHEN 0 THEN 'infinity' WHEN 1 THEN '0044-03-15 12:00 BC' ELSE now() END, '-infinity',
            n % 2 = 0, n::bit(3) FROM generate_series(1, 200) n ON CONFLICT DO NOTHING;
        CREATE TABLE texts (a mood, b char(5), c int[], d int4range, e bytea, f jsonb, g uuid, "h {}%s" text,
            PRIMARY KEY (a, b, c, d, e, f, g, "h {}%s"));
        INSERT INTO texts SELECT (ARRAY['z', 'a', 'm'])[1 + n % 3]::mood, chr(65 + n % 3), ARRAY[n % 2, NULL],
            int4range(n % 5, n % 5 + 3), decode(md5((n % 7)::text), 'hex'), '{"a": null}', gen_random_uuid(),
            chr(65 + n % 5) || chr(97 + n % 7) || ' ''{}%s' || chr(9) || chr(92) || n FROM generate_series(1, 200) n;
        CREATE TABLE turned (a int NOT NULL, b int NOT NULL, c text, UNIQUE (b, a));
        ALTER TABLE turned REPLICA IDENTITY USING INDEX turned_b_a_key;
        INSERT INTO turned SELECT n, n % 10 FROM generate_series(1, 200) n;
        ALTER PUBLICATION tap ADD TABLE numbers, texts, turned"""
    )
    shop.configure(incremental_snapshot_chunk_size=7)
    shop.capture.start()
    shop.drain()
    shop.signal("snapshot", "public.numbers", "public.texts", "public.turned")
    until_finished(shop)
    for table in ("numbers", "texts", "turned"):
        again = read_again(shop, f"public.{table}")
        assert len(set(again)) == len(again) == shop.value(f"SELECT count(*) FROM {table}")


ICU = """
    CREATE COLLATION folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    CREATE COLLATION numbered (provider = icu, locale = 'de-u-kn-true');
"""
WITHOUT_ICU = 'CREATE COLLATION folded FROM "C"; CREATE COLLATION numbered FROM "C";'  # as the wheels' servers are
COLLATED = """
    CREATE DOMAIN folded_text AS text COLLATE folded;
    CREATE TABLE names (a text COLLATE folded, b text COLLATE numbered, c folded_text, n int, body text,
        PRIMARY KEY (a, b, c, n));
    ALTER TABLE names ALTER body SET STORAGE EXTERNAL;
    INSERT INTO names SELECT (ARRAY['a', 'A', 'ä', 'Ä', 'b', 'B'])[1 + n % 6], 'x' || n % 12,
        (ARRAY['z', 'Z'])[1 + n % 2], n, repeat('out of line ', 300) FROM generate_series(1, 100) n;
    CREATE TABLE words (a text COLLATE folded PRIMARY KEY, n int);
    INSERT INTO words SELECT chr(97 + n % 26) || n / 26, n FROM generate_series(1, 100) n;
    CREATE TABLE made (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED{virtual});
    INSERT INTO made VALUES (1, 5), (2, NULL);
    ALTER PUBLICATION tap ADD TABLE names, words, made{options};
"""


@pytest.mark.parametrize("server", [AVAILABLE[0], 18], indirect=True, ids=lambda version: f"pg{version}")
def test_keys_of_any_collation_and_generated_columns_are_alike_in_each_way(shop: Shop) -> None:
    new = shop.server.version >= 18
    virtual = ", thrice int GENERATED ALWAYS AS (a * 3) VIRTUAL" if new else ""
    options = "; ALTER PUBLICATION tap SET (publish_generated_columns = stored)" if new else ""
    icu = shop.value("SELECT count(*) > 0 FROM pg_collation WHERE collname = 'de-x-icu'")
    assert icu or shop.server.version != 15
    shop.sql(ICU if icu else WITHOUT_ICU, COLLATED.format(virtual=virtual, options=options))
    shop.configure(incremental_snapshot_chunk_size=7)
    shop.capture.start()
    shop.drain()
    shop.signal("pause")
    shop.signal("snapshot", "public.names", "public.words", "public.made")
    shop.sql(
        "UPDATE names SET a = upper(a) WHERE n % 3 = 0",  # equal to the server
        "UPDATE names SET b = 'x00' WHERE n = 50",
        "UPDATE words SET a = upper(a) WHERE n % 2 = 0",
        "UPDATE made SET a = a",
    )
    shop.signal("resume")
    for number in range(10):
        shop.sql(f"UPDATE words SET a = translate(a, 'abcABC', 'ABCabc') WHERE n % 7 = {number % 7}")
    until_finished(shop)
    shop.drain()
    for table in ("names", "words"):
        again = read_again(shop, f"public.{table}")
        assert len(again) == len(set(again)), table
    shop.prove([*shop.tables, "public.names", "public.words"], former=["public.made"])
    stored = {"twice"} if new else set()
    rows: dict[str, list[object]] = {}
    for each in changes(shop.records(), shop.prefix)["public.made"]:
        assert each.value is not None
        assert each.value["after"].keys() == {"id", "a", *stored}
        kind = "chunk" if each.value["source"]["snapshot"] == "incremental" else each.op
        rows.setdefault(kind, []).append(sorted(each.value["after"].items()))
    assert {kind: len(found) for kind, found in rows.items()} == {"r": 2, "u": 2, "chunk": 2}
    assert sorted(rows["r"], key=str) == sorted(rows["u"], key=str) == sorted(rows["chunk"], key=str)


def test_stops_at_once_while_a_chunk_waits_for_its_table(shop: Shop) -> None:
    shop.capture.start()
    shop.drain()
    shop.signal("pause")
    shop.signal("snapshot", "public.orders")
    with closing(psycopg2.connect(shop.dsn)) as altering, altering.cursor() as cursor:
        cursor.execute("ALTER TABLE orders ADD more text")
        shop.ask("resume-snapshot")
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'public.orders'::regclass"
        shop.until(lambda: shop.value(waits) == 1)
        assert shop.capture.stop() == 0, "it waited for the table, and had to be killed"


def test_values_that_an_update_left_alone_come_with_the_chunk(small_chunks: Shop) -> None:
    """They are stored out of line and not in the log, so only the chunk has them."""
    shop = small_chunks
    shop.sql(
        "ALTER PUBLICATION tap DROP TABLE orders",
        "ALTER TABLE orders ALTER note SET STORAGE EXTERNAL",
        "UPDATE orders SET note = repeat('out of line ', 1000) WHERE id % 7 = 0",
    )
    shop.capture.start()
    shop.drain()
    shop.sql("ALTER PUBLICATION tap ADD TABLE orders")
    over = threading.Event()

    def touch() -> None:
        connection = psycopg2.connect(shop.dsn)
        connection.autocommit = True
        with connection.cursor() as cursor:
            while not over.is_set():
                cursor.execute("UPDATE orders SET total = total + 1 WHERE id = 154")
        connection.close()

    writer = threading.Thread(target=touch)
    writer.start()
    try:
        spoilt = "leaves out values that only the chunk has"
        for _ in range(20):  # an update between the two marks of its chunk is likely, not certain
            shop.ask("execute-snapshot", "public.orders")
            shop.drain()
            shop.until(lambda: spoilt in said(shop.capture) or finished(shop))
            if spoilt in said(shop.capture):
                break
        else:
            raise AssertionError(shop.capture.tail(40))
    finally:
        over.set()
        writer.join()
    until_finished(shop)
    shop.prove()


def test_a_row_that_moves_to_where_was_read_comes_with_the_values_that_the_log_leaves_out(shop: Shop) -> None:
    """If the row had stayed, its chunk would have had them."""
    shop.sql(
        "ALTER PUBLICATION tap DROP TABLE orders",
        "INSERT INTO orders SELECT n, '', n FROM generate_series(301, 3000) n",
        "UPDATE orders SET note = repeat('out of line ', 1000) WHERE id % 7 = 0",
    )
    shop.configure(incremental_snapshot_chunk_size=2)
    shop.capture.start()
    shop.drain()
    shop.sql("ALTER PUBLICATION tap ADD TABLE orders")
    shop.signal("snapshot", "public.orders")
    shop.until(lambda: rows_written(shop) > 10)
    shop.ask("pause-snapshot")
    shop.until(lambda: shop.position()["demand"]["paused"])
    assert 0 < rows_written(shop) < 2900, "the test's premise: it is not read yet"
    shop.sql("UPDATE orders SET id = -5 WHERE id = 2996", "UPDATE orders SET id = -6 WHERE id = 2989")
    shop.drain()
    shop.configure(incremental_snapshot_chunk_size=2000)
    shop.capture.kill()
    shop.capture.start()
    shop.signal("resume")
    until_finished(shop)
    shop.drain()
    assert Counter(steps(shop)) == {"STARTED": 2, "TABLE_SCAN_COMPLETED": 2, "COMPLETED": 2}
    shop.prove()


def rows_written(shop: Shop) -> int:
    """Rows that the running snapshot has written so far."""
    requests = (shop.position()["demand"] or {}).get("requests", [])
    return sum(requests[0]["rows"].values()) if requests else 0


def test_kill_9_between_chunks_goes_on_where_it_was(small_chunks: Shop) -> None:
    shop = small_chunks
    shop.sql("INSERT INTO orders SELECT n, '', n FROM generate_series(301, 10000) n")
    shop.capture.start()
    shop.drain()
    shop.ask("execute-snapshot", "public.orders", "public.lines")
    with busy(shop):
        for number in range(1, 4):
            shop.until(lambda number=number: rows_written(shop) > 200 * number)  # type: ignore[misc]
            shop.capture.kill()
            if number == 3:
                shop.configure(incremental_snapshot_chunk_size=500)
            shop.capture.start()
        until_finished(shop)
    shop.drain()
    keys = read_again(shop, "public.orders")
    assert len(keys) == len(set(keys)), "a row of one snapshot came twice"
    assert steps(shop)[-1] == "COMPLETED"
    shop.prove()


def test_pause_resume_and_stop(small_chunks: Shop) -> None:
    shop = small_chunks
    shop.capture.start()
    shop.drain()
    shop.signal("pause")
    shop.signal("snapshot", "public.lines")
    shop.drain()
    assert shop.position()["demand"]["paused"]
    assert steps(shop) == ["STARTED"]
    shop.signal("resume")
    until_finished(shop)
    shop.signal("pause")
    shop.signal("snapshot", "public.orders")
    shop.signal("stop")
    shop.until(lambda: finished(shop) and not shop.position()["demand"]["paused"])
    assert steps(shop)[-1] == "ABORTED"
    assert shop.position()["demand"]["requests"] == []
    assert not shop.position()["demand"]["paused"]
    shop.prove()


def ordered(shop: Shop) -> list[tuple[str, ...]]:
    """The tables of the snapshots on demand that are waiting."""
    return [tuple(name for name, _ in request["scope"]) for request in shop.position()["demand"]["requests"]]


def test_what_waits_is_paused_resumed_and_stopped_across_kills_and_stops(shop: Shop) -> None:
    rows = {"orders": 3000, "lines": 300}
    shop.sql("INSERT INTO orders SELECT n, '', n FROM generate_series(301, 3000) n")
    shop.configure(incremental_snapshot_chunk_size=2)
    shop.capture.start()
    shop.drain()
    shop.signal("pause")
    shop.signal("snapshot", "public.orders")
    shop.signal("snapshot", "public.lines")
    for end in (shop.capture.kill, shop.capture.stop):
        shop.drain()
        end()
        shop.capture.start()
        shop.drain()
        assert shop.position()["demand"]["paused"]
        assert ordered(shop) == [("public.orders",), ("public.lines",)]
    assert read_again(shop, "public.orders") == read_again(shop, "public.lines") == []
    shop.capture.kill()
    shop.signal("resume")  # read at the next start
    shop.capture.start()
    shop.until(lambda: rows_written(shop) > 10)
    shop.ask("pause-snapshot")
    shop.until(lambda: shop.position()["demand"]["paused"])
    assert ordered(shop)[0] == ("public.orders",), "the test's premise: a part of it is read"
    assert shop.capture.stop() == 0
    shop.configure(incremental_snapshot_chunk_size=1000)
    shop.signal("resume")
    shop.capture.start()
    until_finished(shop)
    assert steps(shop) == ["STARTED", "STARTED"] + ["TABLE_SCAN_COMPLETED", "COMPLETED"] * 2
    for table, count in rows.items():
        again = read_again(shop, f"public.{table}")
        assert len(again) == len(set(again)) == count
    shop.signal("pause")
    shop.signal("snapshot", "public.orders")
    shop.signal("snapshot", "public.lines")
    shop.drain()
    shop.capture.kill()
    shop.signal("stop")
    for end in (shop.capture.kill, shop.capture.stop):
        shop.capture.start()
        shop.drain()
        assert ordered(shop) == []
        assert not shop.position()["demand"]["paused"]
        end()
    assert steps(shop)[-4:] == ["STARTED", "STARTED", "ABORTED", "ABORTED"]
    assert len(read_again(shop, "public.orders")) == rows["orders"]
    shop.prove()


def test_a_condition_reads_a_part_and_names_no_table_as_whole(shop: Shop) -> None:
    shop.capture.start()
    shop.drain()
    shop.signal("snapshot", "public.orders", "--where", "id <= 7")
    until_finished(shop)
    assert read_again(shop, "public.orders") == [f'{{"id": {n}}}' for n in range(1, 8)]
    done = [r.value for r in shop.records() if r.topic.endswith(".notification") and r.value is not None][-1]
    assert done["additional_data"]["data_collections"] == ""
    shop.prove()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("public.nothing",), "is not captured"),
        (("public.orders", "--where", "no_such = 1"), "no_such"),
        (("public.orders", "--where", "generate_series(1, 3) > 1"), "set-returning"),
        (("public.orders", "--where", "true) OR (true"), "is not a condition"),
        (("public.orders", "--where", "true) -- "), "is not a condition"),
        (("public.log",), None),
    ],
)
def test_a_signal_that_cannot_be_carried_out_is_refused_at_once(
    shop: Shop, words: tuple[str, ...], said: str | None
) -> None:
    if said is None:
        shop.sql("ALTER TABLE log DROP CONSTRAINT log_pkey")
        said = "has no key"
    refused = run("capture", "signal", "snapshot", *words, config=shop.config)
    assert refused.returncode != 0
    assert said in refused.stderr
    assert shop.value("SELECT count(*) FROM pg_replication_slots WHERE slot_name = current_database()") == 0


@pytest.mark.parametrize("restarted", [False, True], ids=["same run", "next run"])
def test_a_commit_that_is_in_the_log_before_it_is_visible_is_not_overwritten(shop: Shop, restarted: bool) -> None:
    """It waits for a synchronous standby that does not come: the stream has it, but a chunk cannot see it."""
    shop.capture.start()
    shop.drain()
    admin = psycopg2.connect(shop.dsn)
    admin.autocommit = True
    waiting, beside = psycopg2.connect(shop.dsn), psycopg2.connect(shop.dsn)
    with admin.cursor() as cursor:
        cursor.execute("SET synchronous_commit = local")
        try:
            cursor.execute("ALTER SYSTEM SET synchronous_standby_names = 'ghost'")
            cursor.execute("SELECT pg_reload_conf()")
            shop.until(lambda: shop.value("SHOW synchronous_standby_names") == "ghost")
            asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            first = threading.Thread(target=_commit_and_wait, args=(beside, _BESIDE))
            first.start()
            while not shop.value(asleep):  # until the checkpointer has the new setting, too
                if not first.is_alive():
                    first = threading.Thread(target=_commit_and_wait, args=(beside, _BESIDE))
                    first.start()
                time.sleep(0.05)
            thread = threading.Thread(target=_commit_and_wait, args=(waiting, _SEEN_EARLY))
            thread.start()
            shop.until(
                lambda: any(
                    r.value and (r.value["after"] or {}).get("note") == "seen early"
                    for r in changes(shop.records(), shop.prefix)["public.orders"]
                )
            )
            cursor.execute("SELECT note FROM orders WHERE id = 5")
            assert cursor.fetchone() != ("seen early",), "the test's premise: it is not visible yet"
            if restarted:
                assert shop.capture.stop() == 0
                shop.capture.start()
            shop.signal("snapshot", "public.orders")
            shop.until(lambda: "chunk is read again" in shop.capture.tail())
        finally:
            cursor.execute("ALTER SYSTEM RESET synchronous_standby_names")
            cursor.execute("SELECT pg_reload_conf()")
        thread.join(20)
        first.join(20)
    until_finished(shop)
    admin.close()
    waiting.close()
    beside.close()
    shop.drain()
    shop.prove()


# The first of these may not have to wait, since the checkpointer hears of the setting later.
_BESIDE = "INSERT INTO log SELECT coalesce(max(id), 0) + 1, 'beside' FROM log"
_SEEN_EARLY = "UPDATE orders SET note = 'seen early' WHERE id = 5"


def _commit_and_wait(connection: psycopg2.extensions.connection, statement: str) -> None:
    with connection, connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = on")
        cursor.execute(statement)


def test_a_chunk_waits_for_a_rewrite_and_reads_what_it_leaves(shop: Shop) -> None:
    """A snapshot older than a rewrite sees an empty table, and the log does not mention rewrites. The rewrite holds up
    only this table, and so does a session that is ended meanwhile."""
    shop.sql("INSERT INTO log SELECT n, 'row' FROM generate_series(1, 100) n")
    shop.capture.start()
    shop.drain()
    with closing(psycopg2.connect(shop.dsn)) as rewriting:  # whatever happens: other tests' slots would wait for it
        rewriting.cursor().execute("ALTER TABLE log ALTER COLUMN what TYPE text USING what || '!'")
        shop.ask("execute-snapshot", "public.log")
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'log'::regclass"
        shop.until(lambda: shop.value(waiting) > 0)
        shop.sql("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted AND relation = 'log'::regclass")
        shop.until_said("chunk will be read again")
        shop.until(lambda: shop.value(waiting) > 0)
        shop.sql("UPDATE orders SET note = 'meanwhile' WHERE id = 1")
        shop.drain()
        rewriting.commit()
    until_finished(shop)
    assert "starting again" not in said(shop.capture)
    assert len(read_again(shop, "public.log")) == 100
    shop.drain()
    shop.prove()


def test_a_first_snapshot_that_was_killed_goes_on_with_the_tables_that_it_had_left(shop: Shop) -> None:
    """What was done stays done. Rows that moved meanwhile are there, and values that only the first reading had."""
    shop.sql(f"UPDATE orders SET note = repeat('{'long ' * 50}', 50) WHERE id % 50 = 0")
    shop.sql("INSERT INTO orders SELECT n, repeat('x', 100), n FROM generate_series(1001, 80000) n")
    shop.configure(snapshot_max_threads=2, incremental_snapshot_chunk_size=200)
    victim = shop.copy("victim", "tests.faults.broken", ("-X", "fault=after-COMMIT:4"))
    victim.start()
    assert victim.wait(PATIENCE) == -9, victim.tail()  # with the first table
    shop.sql("UPDATE orders SET total = total + 1 WHERE id % 10 = 0", "DELETE FROM orders WHERE id % 7 = 0")
    shop.sql("UPDATE lines SET sku = 'moved' WHERE order_id < 50")
    psql_vacuum(shop)
    shop.capture.start()
    with busy(shop):
        shop.until(lambda: rows_written(shop) > 5_000)
        shop.capture.kill()
        shop.configure(incremental_snapshot_chunk_size=2048)
        shop.capture.start()
    shop.drain()
    assert "continues while streaming" in shop.capture.log.read_text()
    shop.prove()


def psql_vacuum(shop: Shop) -> None:
    """VACUUM FULL gives all rows new places."""
    connection = psycopg2.connect(shop.dsn)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("VACUUM FULL orders")
    connection.close()
