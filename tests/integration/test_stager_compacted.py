"""Compacted topics: records that a later one replaces do not come, which is no loss, unless the sink was stopped for so
long that a delete may be gone, too.

One shop whose topics Kafka has really compacted, read by three sinks: one that was stopped for a moment, one that was
stopped for too long, and one that reads from the beginning.
"""

import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource

from deploy.embedded import Postgres
from schemas.model.commits import SnapshotState
from sink.staging import sequencer
from tests.integration.stager_feed import LINES, ORDERS, START, Feed, line, order, until
from tests.integration.test_sink_offsets import Sink

CENTURY = 100 * 365 * 86_400_000  # commits of these tests are of 1970
EACH_STATE = """
CREATE TABLE public.states AS SELECT state, '' AS status, 0::bigint AS lines FROM ordertap_shop.copy WHERE false;
CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO public.states SELECT new.state, (SELECT status FROM shop.orders WHERE id = 17), count(*)
    FROM shop.order_lines; RETURN new;
END $$;
CREATE TRIGGER note BEFORE UPDATE ON ordertap_shop.copy FOR EACH ROW EXECUTE FUNCTION public.note()
"""


def configure(feed: Feed, topics: Iterable[str], **settings: object) -> None:
    """Changes topics' configuration; `_` stands for `.`."""
    for topic in topics:
        entries = [
            ConfigEntry(name.replace("_", "."), str(value), incremental_operation=AlterConfigOpType.SET)
            for name, value in settings.items()
        ]
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
        for future in feed.admin.incremental_alter_configs([resource]).values():
            future.result(20)


def offsets(feed: Feed, topic: str, partition: int) -> list[int]:
    """Offsets of the committed records that a partition has now."""
    consumer = Consumer({
        "bootstrap.servers": feed.servers, "group.id": "none", "enable.partition.eof": True, "log_level": "2",
        "auto.offset.reset": "earliest",
    })  # fmt: skip
    consumer.assign([TopicPartition(topic, partition, 0)])
    found: list[int] = []
    while True:
        message = consumer.poll(10)
        assert message is not None
        if message.error() is not None:
            consumer.close()
            return found
        found.append(message.offset())


@pytest.fixture
def sink(tmp_path: Path, bootstrap_servers: str, prefix: str, database: str) -> Sink:
    made = Sink(tmp_path, bootstrap_servers, prefix, database)
    settings = {"cleanup_policy": "compact", "segment_ms": 50, "min_cleanable_dirty_ratio": 0.01}
    configure(made, [made.topic(ORDERS)], delete_retention_ms=CENTURY, **settings)
    return made


def test_rows_that_compaction_took_are_no_gap_unless_a_delete_may_have_gone(
    sink: Sink, postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = [order(n, START, 0, op="r", snapshot="first", partition=0) for n in (17, 18, 19)]
    state = SnapshotState("first", "completed", START, True, (ORDERS, LINES), {ORDERS: 3, LINES: 0})
    sink.write(*copied, index=sink.indexed(snapshots=(state,)))
    sink.commit(1_100, order(17, 1_100, op="u", partition=0), line(1, 1_100, 2, partition=0))
    with sink.running():
        sink.until_at(1_100)
        until(lambda: sink.rows("SELECT 1 FROM ordertap_shop.copy WHERE state = 'steady'"), "the first snapshot")
    sink.connection.close()
    name = database.rpartition("/")[2]
    postgres.psql(f"CREATE DATABASE {name}_stood TEMPLATE {name}")
    sink.move_to(database)

    before = len(offsets(sink, sink.topic(ORDERS), 0))
    sink.commit(1_200, order(17, 1_200, 1, "raised", "u", partition=0), line(2, 1_200, 2, partition=0))
    sink.commit(1_300, order(18, 1_300, 1, op="d", partition=0))
    sink.commit(1_400, order(17, 1_400, 1, "shipped", "u", partition=0), order(20, 1_400, 2, partition=0))
    time.sleep(0.1)  # a segment is closed by the first record that finds it too old, and cleaned then
    sink.commit(1_500, order(21, 1_500, 1, partition=0))
    cleaned = before + 6 - 4 - 1  # 17 twice before and 1,200; 18, its delete (the tombstone stays)
    until(lambda: len(offsets(sink, sink.topic(ORDERS), 0)) <= cleaned, "Kafka has cleaned the topic", 90)

    late = sink.another_producer()  # keeps what is read from being taken for all that there is
    sink.write(line(9, 1_600, 1, of=9, partition=1), commit=False, producer=late)
    state = "SELECT state FROM ordertap_shop.copy"
    with sink.running() as running:
        until(lambda: sink.rows(state) == [("catching up",)], "rows are missing")
        until(lambda: sink.rows("SELECT 1 FROM shop.order_lines WHERE id = 2"), "what is there goes in")
        running.until_turned()
    assert sink.rows(state) == [("catching up",)]  # a restart in the middle
    monkeypatch.setattr(sequencer, "_BATCH", 1)  # each commit in a transaction of its own
    sink.rows(EACH_STATE)
    with sink.running():
        late.abort_transaction(20)
        sink.until_at(1_500)
    states = sink.rows("SELECT state, status, lines FROM public.states")
    assert {tuple(row) for row in states if row[0] == "steady"} == {("steady", "shipped", 2)}
    assert sink.orders() == [(17, "shipped"), (19, "paid"), (20, "paid"), (21, "paid")]
    assert (sink.lines(), sink.gaps()) == ([(1, 17), (2, 17)], [])

    sink.move_to(postgres.create_database(f"{name}_empty"))
    configure(sink, [sink.topic(ORDERS)], delete_retention_ms=86_400_000)
    with sink.running():
        sink.until_at(1_500)
        until(lambda: sink.rows("SELECT 1 FROM ordertap_shop.copy WHERE state = 'steady'"), "the first snapshot")
    assert sink.orders() == [(17, "shipped"), (19, "paid"), (20, "paid"), (21, "paid")]
    assert sink.gaps() == []  # there was nothing to delete before

    sink.move_to(f"{database}_stood")
    with sink.running():
        sink.until_at(1_500)
    assert (ORDERS, "lost") in sink.gaps()
