"""`capture adopt --from-debezium` on a slot that another reader left, with offsets where Kafka Connect keeps them."""

from __future__ import annotations

import json

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.fix_capture import Shop
from tests.programs import run
from tests.proof.records import changes
from tests.proof.rules import snapshots


def test_a_debezium_connectors_slot_goes_on_without_a_snapshot(shop: Shop) -> None:
    shop.sql(f"SELECT pg_create_logical_replication_slot('{shop.prefix}', 'pgoutput')")
    shop.sql("INSERT INTO orders VALUES (1001, 'sent', 1)")
    confirmed = shop.value(f"SELECT end_lsn FROM pg_replication_slot_advance('{shop.prefix}', pg_current_wal_lsn())")
    shop.sql("INSERT INTO orders VALUES (1002, 'sent, not confirmed', 1)")
    sent = shop.log_end()
    shop.sql("INSERT INTO orders VALUES (1003, 'half of it sent', 1)", "UPDATE lines SET sku = 'x' WHERE order_id = 1")
    topic = f"offsets-{shop.prefix}"
    _keep_offset(shop, topic, {"lsn_commit": sent, "lsn_proc": sent + 8, "lsn": sent + 8})
    words = ("adopt", "--from-debezium", "--connector", "shop-connector", "--offsets-topic", topic)

    assert "there is no topic nowhere" in run("capture", *words[:-1], "nowhere", config=shop.config).stderr
    told = run("capture", *words, config=shop.config)
    assert told.returncode == 0, told.stderr
    assert f"(it is at {confirmed})" in told.stdout
    assert "sent a second time" in told.stdout
    assert "nothing done" in told.stdout
    assert shop.position() == {}

    done = run("capture", *words, "--execute", config=shop.config)
    assert done.returncode == 0, done.stderr
    assert shop.position()["end_lsn"] == sent
    assert "has a position" in run("capture", *words, config=shop.config).stderr
    shop.capture.start()
    shop.sql("DELETE FROM orders WHERE id = 1001")
    shop.drain()
    assert shop.capture.stop() == 0
    records = shop.records()
    seen = {table: [(each.op, each.key) for each in rows] for table, rows in changes(records, shop.prefix).items()}
    deleted = '{"id": 1001}'
    assert sorted(seen["public.orders"]) == [("c", '{"id": 1003}'), ("d", deleted), ("tombstone", deleted)]
    assert [op for op, _ in seen["public.lines"]] == ["u"]
    [first] = snapshots(records, shop.prefix)
    assert first.rows == {}


def test_a_table_that_can_have_no_topic_keeps_no_other_from_being_adopted(shop: Shop) -> None:
    names = ['public."a.b_c"', 'public."a_b.c"']
    shop.sql(*[f"CREATE TABLE {name} (id int PRIMARY KEY)" for name in names])
    shop.sql(f"ALTER PUBLICATION tap ADD TABLE {', '.join(names)}")
    shop.sql(f"SELECT pg_create_logical_replication_slot('{shop.prefix}', 'pgoutput')")
    offset = shop.folder / "offset.json"
    offset.write_text(json.dumps({"lsn_commit": shop.log_end(), "lsn_proc": shop.log_end()}))
    words = ("adopt", "--from-debezium", "--offsets", str(offset), "--execute")
    done = run("capture", *words, config=shop.config)
    assert done.returncode == 0, done.stderr
    assert "table public.a_b.c: topic" in done.stdout
    assert "it is not captured; give one of them another topic in topic_routing" in done.stdout
    shop.capture.start()
    shop.sql("INSERT INTO log VALUES (1, 'a')")
    shop.drain()
    assert shop.capture.stop() == 0
    assert shop.position()["parked"] == ["public.a_b.c"]


def _keep_offset(shop: Shop, topic: str, offset: dict[str, int]) -> None:
    """Stores an offset as Kafka Connect does: by connector and server, in a topic with several partitions."""
    admin = AdminClient({"bootstrap.servers": shop.bootstrap_servers})
    admin.create_topics([NewTopic(topic, 3, 1)])[topic].result()
    producer = Producer({"bootstrap.servers": shop.bootstrap_servers})
    older = {"lsn_commit": 1}
    for name, value in (("shop-connector", older), ("another", older), ("shop-connector", offset)):
        producer.produce(topic, json.dumps(value), json.dumps([name, {"server": shop.prefix}], separators=(",", ":")))
    producer.flush(10)
