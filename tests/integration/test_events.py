"""Every event in the log as a record, compared with log and tables by the proof, on a real PostgreSQL and Kafka."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import psycopg2
import pytest
import yaml
from confluent_kafka import Message, TopicPartition
from confluent_kafka.admin import AdminClient

from capture.kafka.cluster import Cluster
from tests.fix_capture import TABLES, Shop
from tests.fix_postgres import AVAILABLE
from tests.programs import run, write_settings
from tests.proof.records import Record, Schemas, changes, read_partitions
from tests.shop import said

IDENTITIES = """
    CREATE TABLE by_index (id int PRIMARY KEY, code text NOT NULL UNIQUE, note text);
    ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_code_key;
    CREATE TABLE inserted (id int PRIMARY KEY, what text);
    CREATE TABLE keyless (n int, what text);
    CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE, what text); ALTER TABLE deferred REPLICA IDENTITY FULL;
    CREATE TABLE deferred_only (id int PRIMARY KEY DEFERRABLE, what text);
    CREATE TABLE keyless_full (n int, what text); ALTER TABLE keyless_full REPLICA IDENTITY FULL;
    CREATE TABLE parent (id int PRIMARY KEY, what text);
    CREATE TABLE child (PRIMARY KEY (id), more int) INHERITS (parent);
    CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY);
    INSERT INTO inserted VALUES (1, 'read'); INSERT INTO keyless VALUES (1, 'a'), (1, 'a'), (2, NULL);
    INSERT INTO deferred VALUES (1, 'one'), (2, 'two'); INSERT INTO deferred_only SELECT * FROM deferred;
    INSERT INTO keyless_full SELECT * FROM keyless; INSERT INTO parent VALUES (1, 'own');
    INSERT INTO child VALUES (2, 'heir', 5); INSERT INTO by_index VALUES (1, 'one', 'x'), (2, 'two', 'y');
    ALTER PUBLICATION tap ADD TABLE by_index, inserted, keyless, keyless_full, parent, deferred, deferred_only;
"""
NAMES = ("by_index", "inserted", "keyless", "keyless_full", "parent", "child", "deferred", "deferred_only")
ALL = (*TABLES, *(f"public.{name}" for name in NAMES))


def of(shop: Shop, table: str) -> list[Record]:
    """The streamed records of a table, in the order of the changes."""
    rows = [each for each in changes(shop.records(), shop.prefix).get(f"public.{table}", []) if each.op != "r"]
    return sorted(rows, key=lambda each: (each.stamp or (0, 0, 0), each.partition, each.offset))


def parts(records: list[Record]) -> Counter[str]:
    """How many of each kind: `u`, `d old`."""
    return Counter(f"{each.op} {each.key_change or ''}".strip() for each in records)


@pytest.mark.parametrize("server", AVAILABLE, indirect=True, ids=lambda version: f"pg{version}")
def test_every_replica_identity_heirs_and_tables_without_key(shop: Shop) -> None:
    shop.sql(IDENTITIES, "UPDATE orders SET note = repeat('out of line ', 1000) WHERE id = 1")
    shop.capture.start()
    shop.drain()
    shop.sql(
        "UPDATE orders SET id = 1001 WHERE id = 1",  # DEFAULT; the note lies under the old key alone
        "INSERT INTO log VALUES (1, 'one'), (2, 'two')",  # FULL
        "UPDATE log SET id = 11 WHERE id = 1",
        "UPDATE log SET what = NULL WHERE id = 2",
        "DELETE FROM log WHERE id = 2",
        "UPDATE by_index SET code = 'uno' WHERE id = 1",  # USING INDEX
        "UPDATE by_index SET id = 22 WHERE id = 2",  # not the identity: no key change
        "DELETE FROM by_index WHERE id = 22",
        "INSERT INTO inserted VALUES (2, 'more')",
    )
    shop.sql("ALTER TABLE inserted REPLICA IDENTITY NOTHING", "INSERT INTO inserted VALUES (3, 'under NOTHING')")
    shop.sql("INSERT INTO keyless VALUES (1, 'a'), (3, 'new')")
    shop.sql(
        "UPDATE keyless_full SET what = 'b' WHERE ctid = (SELECT min(ctid) FROM keyless_full)",
        "DELETE FROM keyless_full WHERE n = 2",
        "UPDATE deferred SET id = 3 - id",  # for a moment both rows have one key
        "INSERT INTO deferred_only VALUES (3, 'three')",
        "INSERT INTO child VALUES (3, 'heir', 6)",
        "UPDATE parent SET what = 'both'",  # the child's rows too
        "INSERT INTO unlogged VALUES (1)",
        "CREATE TEMPORARY TABLE passing (id int PRIMARY KEY)",
        "INSERT INTO passing VALUES (1)",
    )
    shop.drain()
    assert shop.capture.stop() == 0, shop.capture.tail()
    shop.prove(ALL)
    changed = {"d old": 1, "tombstone old": 1, "c new": 1}
    assert parts(of(shop, "orders")) == changed
    assert {each.op: each.unchanged for each in of(shop, "orders")}["c"] == {"note"}
    assert [each.value["before"] for each in of(shop, "log") if each.value and each.op == "u"] == [
        {"id": 2, "what": "two"}
    ]
    assert parts(of(shop, "by_index")) == changed | {"u": 1, "d": 1, "tombstone": 1}
    assert {each.key for each in of(shop, "inserted")} == {'{"id": 2}', '{"id": 3}'}
    assert parts(of(shop, "keyless")) == {"c": 2}
    assert parts(of(shop, "keyless_full")) == {"u": 1, "d": 1}
    assert {each.partition for each in of(shop, "keyless_full")} == {0}
    assert [each.key for each in of(shop, "parent")] == ['{"id": 1}']
    assert sorted(str(each.key) for each in of(shop, "child")) == ['{"id": 2}', '{"id": 3}', '{"id": 3}']
    found = run("capture", "check", config=shop.config).stdout
    assert "REPLICA IDENTITY NOTHING" in found
    assert "public.keyless is published but has no key" in found
    assert "public.deferred_only is published but has no key" in found


def test_transactions_of_every_shape(shop: Shop) -> None:
    shop.sql(IDENTITIES)
    shop.capture.start()
    shop.drain()
    shop.sql("SELECT 1")
    with pytest.raises(psycopg2.errors.DivisionByZero):
        shop.sql("INSERT INTO orders VALUES (700, 'never', 1)", "SELECT 1/0")
    shop.sql(
        "INSERT INTO lines VALUES (1, 8, 'kept')",
        "SAVEPOINT a",
        "INSERT INTO lines VALUES (1, 9, 'given up')",
        "ROLLBACK TO SAVEPOINT a",
        "INSERT INTO lines VALUES (1, 10, 'kept'), (1, 11, 'multi'), (1, 12, 'insert')",
        "SAVEPOINT b",
        "UPDATE lines SET sku = 'sub' WHERE order_id = 1 AND number = 11",
        "RELEASE SAVEPOINT b",
    )
    connection = psycopg2.connect(shop.dsn)
    with connection, connection.cursor() as cursor, Path(shop.config.parent / "rows").open("w+") as rows:
        rows.writelines(f"{n}\t1\tcopied\n" for n in range(2000, 2500))
        rows.seek(0)
        cursor.copy_expert("COPY lines FROM STDIN", rows)
    connection.close()
    shop.sql(  # in mid-transaction
        "INSERT INTO log VALUES (1, 'old')",
        "ALTER TABLE log ADD COLUMN extra int DEFAULT 7",
        "INSERT INTO log VALUES (2, 'new', 8)",
        "UPDATE log SET what = 'after' WHERE id = 1",
    )
    shop.sql("UPDATE keyless_full SET n = n", "TRUNCATE keyless_full", "INSERT INTO keyless_full VALUES (5, 'after')")
    shop.sql("TRUNCATE lines, log RESTART IDENTITY CASCADE", "INSERT INTO lines VALUES (1, 1, 'again')")
    shop.sql(
        "INSERT INTO lines SELECT n, 2, 'many' FROM generate_series(1, 9) n", "UPDATE lines SET order_id = -order_id"
    )
    shop.sql("TRUNCATE lines", "INSERT INTO lines VALUES (9, 9, 'last')")
    shop.drain()
    assert shop.capture.stop() == 0, shop.capture.tail()
    shop.prove(ALL)
    assert {each.value["after"].get("extra") for each in of(shop, "log") if each.value and each.op == "c"} == {None, 8}
    copied = [each for each in of(shop, "lines") if each.value and each.op == "c"]
    assert sum(each.value["after"]["sku"] == "copied" for each in copied if each.value) == 500
    truncates = [each for each in of(shop, "lines") if each.op == "t"]
    assert sorted(each.partition for each in truncates) == [0, 0, 1, 1, 2, 2]
    assert len({each.stamp for each in truncates}) == 2


@pytest.mark.parametrize("server", AVAILABLE, indirect=True, ids=lambda version: f"pg{version}")
def test_an_update_that_a_row_filter_makes_an_insert_names_the_values_that_it_leaves_out(shop: Shop) -> None:
    shop.sql(
        "ALTER TABLE lines ADD doc text",
        "ALTER TABLE lines ALTER doc SET STORAGE EXTERNAL",
        "INSERT INTO lines VALUES (1000, 10, 'out of it', repeat('doc', 3000))",
        "ALTER PUBLICATION tap SET TABLE lines WHERE (number < 5)",
    )
    shop.capture.start()
    shop.drain()
    shop.sql("UPDATE lines SET number = 3 WHERE order_id = 1000", "UPDATE lines SET number = 30 WHERE order_id = 1000")
    shop.drain()
    assert shop.capture.stop() == 0, shop.capture.tail()
    told = [(each.op, each.unchanged, each.key_change) for each in of(shop, "lines")]
    assert told == [("c", {"doc"}, None), ("d", {"sku", "doc"}, None), ("tombstone", set(), None)]


@pytest.mark.parametrize("root", [False, True], ids=["leaf", "root"])
def test_partitioned_tables(shop: Shop, root: bool) -> None:
    shop.sql(
        "CREATE TABLE sales (id int, year int, what text, PRIMARY KEY (id, year)) PARTITION BY LIST (year)",
        "CREATE TABLE sales_25 PARTITION OF sales FOR VALUES IN (2025)",
        "CREATE TABLE sales_26 PARTITION OF sales FOR VALUES IN (2026)",
        "INSERT INTO sales SELECT n, 2025, 'read' FROM generate_series(1, 20) n",
        "ALTER PUBLICATION tap ADD TABLE sales",
        f"ALTER PUBLICATION tap SET (publish_via_partition_root = {root})",
    )
    shop.capture.start()
    shop.drain()
    shop.sql(
        "INSERT INTO sales VALUES (100, 2026, 'new')",
        "UPDATE sales SET what = 'changed' WHERE id = 1",
        "UPDATE sales SET year = 2026 WHERE id = 2",  # to another partition
        "DELETE FROM sales WHERE id = 3",
    )
    shop.sql("CREATE TABLE sales_27 PARTITION OF sales FOR VALUES IN (2027)", "INSERT INTO sales VALUES (5, 2027, 'x')")
    shop.sql("TRUNCATE sales_26", "INSERT INTO sales VALUES (6, 2026, 'y')")
    if root:
        shop.sql("TRUNCATE sales", "INSERT INTO sales VALUES (7, 2026, 'z')")
    shop.drain()
    assert shop.capture.stop() == 0, shop.capture.tail()
    leaves = ("public.sales_25", "public.sales_26", "public.sales_27")
    records = shop.records()
    if root:
        shop.prove((*TABLES, "public.sales"), former=leaves)  # a truncated leaf is not told under the root
        topics = Cluster(shop.bootstrap_servers, {}).partitions()
        assert not topics.keys() & {f"{shop.prefix}.{leaf}" for leaf in leaves}
        assert "table is new" not in said(shop.capture)
    else:
        shop.prove((*TABLES, *leaves))
        assert "public.sales" not in changes(records, shop.prefix)
    moved = [each for each in records if each.stamp and each.key and '"id": 2,' in each.key and "sales" in each.topic]
    assert sorted(each.op for each in moved if each.op != "r") == ["c", "d", "tombstone"]


def test_two_phase_commits_origins_and_tables_renamed_or_made_again(shop: Shop) -> None:
    shop.capture.start()
    shop.drain()
    connection = psycopg2.connect(shop.dsn)
    for name, end in (("given up", "tpc_rollback"), ("kept", "tpc_commit")):
        connection.tpc_begin(name)
        connection.cursor().execute("INSERT INTO lines SELECT n, 50, %s FROM generate_series(1, 3) n", [name])
        connection.tpc_prepare()
        shop.sql("INSERT INTO log SELECT coalesce(max(id), 0) + 1, 'between' FROM log")
        getattr(connection, end)()
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_replication_origin_create(%s)", [shop.prefix])
        cursor.execute("SELECT pg_replication_origin_session_setup(%s)", [shop.prefix])
        cursor.execute("BEGIN")
        cursor.execute("SELECT pg_replication_origin_xact_setup('0/ABCD', now())")
        cursor.execute("INSERT INTO orders VALUES (5000, 'from elsewhere', 1)")
        cursor.execute("COMMIT")
        cursor.execute("SELECT pg_replication_origin_session_reset()")
        cursor.execute("INSERT INTO orders VALUES (5001, 'from here', 1)")
    connection.close()
    shop.sql("ALTER TABLE log RENAME TO journal", "INSERT INTO journal VALUES (10, 'renamed')")
    shop.sql(
        "DROP TABLE lines",
        "CREATE TABLE lines (number int PRIMARY KEY, sku text)",
        "ALTER PUBLICATION tap ADD TABLE lines",
        "INSERT INTO lines VALUES (1, 'made again')",
    )
    shop.drain()
    assert shop.capture.stop() == 0, shop.capture.tail()
    shop.prove(["public.orders"], former=["public.log", "public.journal", "public.lines"])
    assert [each.value["after"]["sku"] for each in of(shop, "lines") if each.value] == ["kept"] * 3 + ["made again"]
    assert len({each.stamp[:2] for each in of(shop, "lines") if each.stamp}) == 2
    assert [each.key for each in of(shop, "journal")] == ['{"id": 10}']
    origins = [
        (each.value["source"]["origin"], each.value["source"]["origin_lsn"])
        for each in of(shop, "orders")
        if each.value
    ]
    assert origins == [(shop.prefix, 0xABCD), (None, None)]
    shop.sql(f"SELECT pg_replication_origin_drop('{shop.prefix}')")


def test_logical_messages_are_records_and_the_outbox_has_topics_of_its_own(shop: Shop) -> None:
    event = '{"id": "e1", "type": "Paid", "aggregatetype": "order", "aggregateid": 7, "payload": {"sum": "1.10"}}'
    outbox = {"prefix": "outbox", "topic": f"out-{shop.prefix}-{{aggregatetype}}"}
    content = yaml.safe_load(shop.config.read_text())
    content["capture"] |= {"message_prefix_include_list": ["app.*"], "outbox_routing": [outbox]}
    content["capture"]["provide_transaction_metadata"] = True
    write_settings(shop.config, **content)
    shop.capture.start()
    shop.drain()
    emit = "SELECT pg_logical_emit_message({}, '{}', '{}')".format
    shop.sql(
        "INSERT INTO log VALUES (1, 'before')",
        emit(True, "app.one", "inside"),
        emit(False, "app.two", "alone"),
        emit(True, "foreign", "theirs"),
        emit(True, "ordertap.signal", "not ours"),
        emit(True, "outbox", event),
        "INSERT INTO log VALUES (2, 'after')",
    )
    shop.sql(emit(False, "app.two", "alone again"), emit(False, "foreign", "theirs"))
    shop.drain()
    shop.capture.kill()
    shop.capture.start()
    shop.sql(emit(True, "app.one", "after a kill"))
    shop.drain()
    assert shop.capture.stop() == 0, shop.capture.tail()
    raw = read_raw(shop, [f"out-{shop.prefix}-order"])
    assert [(one.key(), one.value()) for one in raw] == [(b"7", b'{"sum":"1.10"}')]
    headers = dict(raw[0].headers() or [])
    assert (headers["id"], headers["type"], headers["ordertap.stamp"].endswith(b":5")) == (b"e1", b"Paid", True)
    assert headers["ordertap.transaction"].split(b":")[1] == headers["ordertap.stamp"].split(b":")[1]
    tables = {tuple(table) for one in shop.index() for table in one.content["tables"]}
    assert tables == {(table, f"{shop.prefix}.{table}") for table in shop.tables}, "a message is in no table"
    told = list(read_raw(shop, [f"{shop.prefix}.message"]))
    schemas = Schemas(shop.registry)
    values = [schemas.decode(one.value() or b"")[0] for one in sorted(told, key=lambda one: one.timestamp()[1])]
    assert Counter((value["message"]["prefix"], value["message"]["content"]) for value in values) == {
        ("app.one", b"inside"): 1, ("app.two", b"alone"): 1, ("app.two", b"alone again"): 1,
        ("app.one", b"after a kill"): 1,
    }  # fmt: skip
    assert {value["source"]["txId"] is None for value in values if value["message"]["prefix"] == "app.two"} == {True}
    log = [each.stamp.ordinal for each in of(shop, "log") if each.stamp]
    assert log == [1, 6]  # every transactional message counts, whether anybody wants it or not


def test_an_outbox_message_cannot_write_the_position_or_a_table(shop: Shop) -> None:
    """Otherwise anybody who may write a logical message in the shop could decide where capture continues."""
    position, index = f"ordertap.{shop.prefix}.position", f"ordertap.{shop.prefix}.commits"
    shop.configure(outbox_routing=[{"prefix": "outbox", "topic": position}])
    checked = run("capture", "check", config=shop.config)
    assert f"BAD  outbox_routing: topic {position} of prefix outbox" in checked.stdout, checked.stdout
    for topic in (position, index, f"{shop.prefix}.public.log"):
        shop.configure(outbox_routing=[{"prefix": "outbox", "topic": topic}])
        shop.capture.start()
        assert shop.capture.wait(60) == 78, shop.capture.tail()
        assert f"outbox_routing: topic {topic} of prefix outbox" in shop.capture.tail()
    shop.configure(outbox_routing=[{"prefix": "outbox", "topic": "{aggregatetype}"}])
    shop.capture.start()
    shop.drain()
    topics = [position, index, f"{shop.prefix}.public.log", f"__debezium-heartbeat.{shop.prefix}"]
    for topic in topics:
        event = json.dumps({"aggregatetype": topic, "aggregateid": shop.prefix, "payload": {}})
        shop.sql(f"SELECT pg_logical_emit_message(true, 'outbox', '{event}')")
    shop.sql("INSERT INTO log VALUES (1, 'after')")
    shop.drain()
    assert shop.capture.stop() == 0, shop.capture.tail()
    assert len(list(read_raw(shop, [f"{shop.prefix}.message"]))) == len(topics)
    assert said(shop.capture).count("message is not what its outbox route expects") == len(topics)
    shop.prove_content()


def test_with_transaction_metadata_each_change_knows_its_place_between_begin_and_end(shop: Shop) -> None:
    shop.configure(provide_transaction_metadata=True, message_prefix_include_list=["app"])
    shop.capture.start()
    shop.drain()
    shop.sql(
        "INSERT INTO log VALUES (-1, 'a'), (-2, 'b')",
        "INSERT INTO lines VALUES (-1, 1, 'x')",
        "UPDATE log SET id = -3 WHERE id = -2",
        "SELECT pg_logical_emit_message(true, 'app', 'm')",
        "TRUNCATE lines",
    )
    shop.sql("INSERT INTO log SELECT n, 'many' FROM generate_series(1, 2500) n")
    shop.drain()
    records = list(shop.records())
    told = [each.value for each in records if each.topic == f"{shop.prefix}.transaction" and each.value]
    ended = [("BEGIN", None), ("END", 7), ("BEGIN", None), ("END", 2500)]
    assert [(value["status"], value["event_count"]) for value in told] == ended
    small, large = told[0]["id"], told[2]["id"]
    places = [
        (each.topic.removeprefix(f"{shop.prefix}."), *each.value["transaction"].values())
        for each in records
        if each.value and each.value.get("transaction")
    ]
    assert Counter(place for place in places if place[1] == small) == {
        ("public.log", small, 1, 1): 1,
        ("public.log", small, 2, 2): 1,
        ("public.lines", small, 3, 1): 1,
        ("public.log", small, 4, 3): 1,  # a change of the key is two, a delete and a create, as in Debezium
        ("public.log", small, 5, 4): 1,
        ("message", small, 6, 1): 1,
        ("public.lines", small, 7, 2): 3,  # a truncate is one change, in each partition
    }
    assert sorted(place for place in places if place[1] == large) == [
        ("public.log", large, number, number) for number in range(1, 2501)
    ]


def read_raw(shop: Shop, topics: list[str]) -> list[Message]:
    """All committed records of topics of one partition or more, as they are."""
    listed = AdminClient({"bootstrap.servers": shop.bootstrap_servers}).list_topics(timeout=10).topics
    places = [TopicPartition(name, number, 0) for name in topics for number in listed[name].partitions]
    return read_partitions(shop.bootstrap_servers, f"{shop.prefix}-raw", places)
