"""A broker that comes back does not write the end marker of a transaction of ours (KAFKA-20734): nothing is lost or
shown twice, and no reader waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka import Consumer, IsolationLevel, Producer, TopicPartition

from capture.kafka.cluster import Cluster, Making
from capture.kafka.hanging import end_hanging, find_hanging
from capture.kafka.producer import Fields, TransactionalProducer
from capture.position import Chain, Position, first_position
from deploy.embedded import Kafka, Postgres
from schemas.model.change import STAMP_HEADER
from schemas.model.commits import IndexRecord, dump_index, parse_index
from schemas.model.lsn import LSN
from tests.shop import Shop, open_shop, said

CLEANUP = {"transaction.abort.timed.out.transaction.cleanup.interval.ms": "300"}
TIMEOUT = {"transaction.timeout.ms": "2500"}
KEY = b"connector"


@pytest.fixture(scope="module")
def own_kafka(parts_folder: Path) -> Iterator[Kafka]:
    """A broker that these tests may kill. It checks for timed-out transactions more often than usual."""
    with Kafka(parts_folder / "hanging-kafka", CLEANUP) as broker:
        yield broker


def restart(kafka: Kafka, topics: list[str]) -> list[str]:
    """kill -9 and a start of the broker, which forgets transactions that time out while it starts. Returns those that
    hang."""
    kafka.kill()
    kafka.start()
    time.sleep(15)  # it may still end them in this time
    cluster = Cluster(kafka.bootstrap_servers, {})
    return [topic for topic in topics if _hangs(cluster, topic)]


def _hangs(cluster: Cluster, topic: str) -> bool:
    place = TopicPartition(topic, 0)
    return cluster.ends([place], IsolationLevel.READ_COMMITTED)[place] < cluster.ends([place])[place]


def shown(kafka: Kafka, topic: str) -> list[bytes | None]:
    """The values that a `read_committed` consumer gets, once it is at the end of the topic."""
    cluster = Cluster(kafka.bootstrap_servers, {})
    deadline = time.monotonic() + 30
    while _hangs(cluster, topic):  # a commit is known before its partitions are told
        assert time.monotonic() < deadline
        time.sleep(0.1)
    options = {"bootstrap.servers": kafka.bootstrap_servers, "group.id": topic, "enable.partition.eof": True}
    consumer = Consumer(options)
    consumer.assign([TopicPartition(topic, 0, 0)])
    values = []
    while (message := consumer.poll(10)) is not None and message.error() is None:
        values.append(message.value())
    consumer.close()
    return values


class Case(NamedTuple):
    """A transaction that hangs, behind a position at LSN 100: the LSN of its change, and of its position if it came to
    that; the serial number of its record of the index, likewise; what the slot has confirmed; whether it counts."""

    name: str
    change: int
    position: int | None
    serial: int | None
    confirmed: int
    counts: bool

    @property
    def topics(self) -> list[str]:
        """Where it has written."""
        written = {"data": True, "commits": self.serial is not None, "position": self.position is not None}
        return [f"{self.name}.{name}" for name, is_written in written.items() if is_written]

    def data(self, value: bytes, lsn: int) -> Fields:
        return (f"{self.name}.data", 0, b"k", value, [(STAMP_HEADER, b"1:%d:1" % lsn)])

    def lists(self, serial: int) -> Fields:
        """A record of the index. All have one LSN, as those inside a large commit do."""
        value = dump_index(IndexRecord(serial, 1, LSN(100), LSN(100)))
        return (f"{self.name}.commits", 0, KEY, value, [(STAMP_HEADER, b"1:100:0")])

    def reaches(self, lsn: int) -> Fields:
        return (f"{self.name}.position", 0, KEY, _position(lsn).dump(), [])


def _position(lsn: int) -> Position:
    return first_position(1, "7", 1, "slot", LSN(lsn), "hash")._replace(chain=Chain(lsn // 100, LSN(100)))


CASES = [
    Case("aborted before its position", 150, None, None, 100, False),
    Case("aborted with its position", 150, 200, 2, 100, False),
    Case("committed and acknowledged", 150, 200, 2, 200, True),
    Case("committed and its position shown", 50, None, 1, 100, True),
]


def test_what_the_broker_forgot_is_aborted_or_shown_as_it_had_ended(own_kafka: Kafka) -> None:
    """Which ones it forgets is chance. If it ends them properly, that proves nothing, and the test is repeated."""
    cluster = Cluster(own_kafka.bootstrap_servers, {})
    left = CASES
    for attempt in range(3):
        played = {case: case._replace(name=f"{case.name.replace(' ', '-')}-{attempt}") for case in left}
        dying = [_begun(cluster, case) for case in played.values()]
        hanging = set(restart(own_kafka, [topic for case in played.values() for topic in case.topics]))
        left = [case for case, again in played.items() if not hanging.issuperset(again.topics)]
        for case, again in played.items():
            if case not in left:
                _ended_as_it_should(own_kafka, cluster, again)
        del dying
        if not left:
            break
    assert len(left) < len(CASES), "this broker forgets nothing any more: these tests have no premise"


def _ended_as_it_should(kafka: Kafka, cluster: Cluster, case: Case) -> None:
    producer = TransactionalProducer(cluster, case.name)
    mine = f"{case.name}."
    hanging = find_hanging(cluster, partial(_begins, mine))
    topics = (f"{mine}position", f"{mine}commits")
    end_hanging(cluster, producer, hanging, *topics, KEY, _position(100), LSN(case.confirmed))
    reached = cluster.last_values(f"{mine}position")[KEY]
    assert reached == _position(200 if case.position and case.counts else 100).dump(), case
    producer.begin_transaction()
    producer.produce([case.data(b"next", 300), case.lists(9)])
    producer.commit(10)
    assert shown(kafka, f"{mine}data") == [b"first", *[b"hung"] * case.counts, b"next"], case
    serials = [parse_index(value or b"").serial for value in shown(kafka, f"{mine}commits")]
    assert serials == [0, *([case.serial] if case.counts else []), 9], case


def _begins(prefix: str, topic: str) -> bool:
    return topic.startswith(prefix)


def _begun(cluster: Cluster, case: Case) -> Producer:
    """A producer that dies in its second transaction."""
    for topic in (f"{case.name}.data", f"{case.name}.commits", f"{case.name}.position"):
        cluster.create_topics({topic: Making(1, 1, {})})
    producer = TransactionalProducer(Cluster(cluster.servers, TIMEOUT), case.name)
    producer.begin_transaction()
    producer.produce([case.data(b"first", 40), case.lists(0), case.reaches(100)])
    producer.commit(10)
    producer.begin_transaction()
    producer.produce([case.data(b"hung", case.change)])
    if case.serial is not None:
        producer.produce([case.lists(case.serial)])
    if case.position is not None:
        producer.produce([case.reaches(case.position)])
    producer._producer.flush(10)
    return producer._producer


def test_capture_writes_again_what_hangs_and_nobody_sees_it_twice(
    own_kafka: Kafka,
    postgres: Postgres,
    new_database: Callable[[Postgres, str], str],
    prefix: str,
    tmp_path: Path,
) -> None:
    settings = {"linger_ms": 1500, "kafka": TIMEOUT}
    dsn = new_database(postgres, "hanging")
    with open_shop(postgres, own_kafka, dsn, prefix, tmp_path, settings) as shop:
        _leave_stream(shop)
        hanging = restart(own_kafka, [f"{prefix}.public.orders"])
        shop.capture.start()
        shop.order(200_001, 200_005)
        shop.drain()
        shop.prove()
        assert "KAFKA-20734" in said(shop.capture) or not hanging
        shop.drop_slots()


def _leave_stream(shop: Shop) -> None:
    shop.capture.start()
    shop.drain()
    shop.order_until_open(100_001)
    shop.capture.kill()
