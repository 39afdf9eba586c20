"""Every type through `capture run`: from the shop into Kafka, by snapshot and by stream, read like the sink does."""

from __future__ import annotations

import psycopg2
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from schemas.registry.registry import open_registry
from schemas.types.type_table import SESSION_SETTINGS
from schemas.writing.envelope import field_names
from tests.fix_capture import Shop
from tests.integration.test_types import ROWS, differing, fill
from tests.integration.type_values import TYPES, array_types
from tests.record_reader import Change, RecordReader


def changes(shop: Shop, table: str) -> list[Change]:
    """The committed changes of a table, up to the ends of its partitions."""
    consumer = Consumer(
        {"bootstrap.servers": shop.bootstrap_servers, "group.id": shop.prefix, "enable.partition.eof": True}
    )
    topic = f"{shop.prefix}.{table}"
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    reader, found, ended = RecordReader(open_registry(shop.registry)), [], 0
    while ended < len(partitions):
        message = consumer.poll(60)
        assert message is not None
        if error := message.error():
            if error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
            ended += 1
            continue
        place = (str(message.topic()), message.partition() or 0, message.offset() or 0)
        change = reader.read(*place, message.key(), message.value(), message.headers())  # type: ignore[arg-type]
        assert isinstance(change, Change)
        found.append(change)
    consumer.close()
    return found


STRINGS = {
    "decimal_handling_mode": "string",
    "time_precision_mode": "isostring",
    "binary_handling_mode": "base64",
    "interval_handling_mode": "string",
}
TEXT_TYPES = {"pair", "nested", "pair[]", "nested[]", "tags[]", "vector(3)", "vector(3)[]"}


@pytest.mark.parametrize(("server", "modes"), [(16, {}), (18, STRINGS)], indirect=["server"])
def test_capture_run_carries_every_value_of_every_type(shop: Shop, modes: dict[str, str]) -> None:
    types = TYPES | array_types()
    shop.configure(special_numbers="exact", **modes)
    options = " ".join(f"-c {name}={value}" for name, value in SESSION_SETTINGS.items())
    connection = psycopg2.connect(shop.dsn, options=options)
    connection.autocommit = True
    with connection.cursor() as cursor:
        here = fill(cursor, types)
        cursor.execute("SELECT pg_drop_replication_slot('types')")
        cursor.execute("ALTER PUBLICATION tap ADD TABLE t")
        shop.capture.start()
        shop.drain()
        cursor.execute("CREATE TEMP TABLE again AS SELECT * FROM t; UPDATE again SET id = id + 1000")
        cursor.execute("INSERT INTO t SELECT * FROM again")
        shop.drain()
        assert shop.capture.stop() == 0
        read = changes(shop, "public.t")
        assert sorted(change.op for change in read) == ["c"] * ROWS + ["r"] * ROWS
        fields = dict(zip(here, field_names("t", here), strict=True))
        rows = [(change.op, dict(change.after or {})) for change in read]
        found = {name: differing(cursor, name, field, read[0].columns[field], rows) for name, field in fields.items()}
    connection.close()
    assert {name: changed[:3] for name, changed in found.items() if changed} == {}
    assert read[0].columns["bytea"] == "bytea"
    assert read[0].columns[fields["timestamp(3)"]] == ("timestamp" if modes else "timestamp(3)")
    assert shop.capture.tail(200).count("type travels as text") == len(TEXT_TYPES & set(here))
