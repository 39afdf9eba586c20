"""The consumer and the offsets tool on real Kafka: where a partition starts, resets by every tool, gaps and replays."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from schemas.errors import SettingsError
from sink.database import Connection, connect, migrate, transaction
from sink.intake import evidence
from sink.intake.consumer import Batch, ShopConsumer
from sink.intake.evidence import Gap, Partition, Range, Seen
from sink.intake.offsets import Effect, GroupOffsets


class Sink:
    """A consumer with its evidence in a real middle layer; what it reads is 'staged' by its evidence alone."""

    def __init__(self, servers: str, topic: str, url: str) -> None:
        self.topic = topic
        self.end = 0
        self.properties = {"bootstrap.servers": servers, "group.id": f"g-{topic}"}
        self.admin = AdminClient({"bootstrap.servers": servers})
        self.database: Connection = connect(url)
        migrate(self.database)
        self.offsets = GroupOffsets({"bootstrap.servers": servers}, f"g-{topic}", [topic])

    def make(self) -> None:
        for future in self.admin.create_topics([NewTopic(self.topic, 1, 1)]).values():
            future.result(10)
        self.end = 0

    def write(self, count: int) -> None:
        """So many records in one Kafka transaction, whose marker takes an offset of its own."""
        settings = {**self.properties, "transactional.id": f"t-{self.topic}"}
        del settings["group.id"]
        producer = Producer(settings)
        producer.init_transactions(20)
        producer.begin_transaction()
        for number in range(count):
            producer.produce(self.topic, value=b"%d" % number)
        producer.commit_transaction(20)
        self.end += count + 1
        _until(lambda: self.high() == self.end, "the transaction's marker, which comes after the answer to its commit")

    def high(self) -> int:
        """The end for readers of committed records."""
        (end,) = self.offsets._at(self.offsets.partitions(), OffsetSpec.latest()).values()
        return end

    def evidence(self, partitions: Sequence[Partition]) -> dict[Partition, Seen]:
        with transaction(self.database) as cursor:
            return evidence.load(cursor, partitions)

    def other_ids(self, partitions: Sequence[Partition]) -> set[str]:
        with transaction(self.database) as cursor:
            return evidence.other_ids(cursor, partitions)

    def consumer(self) -> ShopConsumer:
        return ShopConsumer(self.properties, [self.topic], self.evidence, self.other_ids)

    def stage(self, batch: Batch) -> list[Gap]:
        with transaction(self.database) as cursor:
            before = evidence.load(cursor, batch.read)
            before |= {p: Seen(first) for p, first in batch.first.items() if p not in before}
            now = {p: evidence.after(before.get(p), p, read) for p, read in batch.read.items()}
            return evidence.save(cursor, before, now)

    def run(self, until: int, commit: bool = True) -> tuple[list[int], list[Gap]]:
        """Reads until the evidence is there; the offsets of the records, and the gaps."""
        found: list[int] = []
        gaps: list[Gap] = []
        with self.consumer() as consumer:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                batch = consumer.poll(seconds=0.2)
                found += [record.offset for record in batch.records]
                gaps += self.stage(batch)
                if commit:
                    consumer.commit(batch)
                if any(read.until >= until for read in batch.read.values()):
                    return found, gaps
        raise AssertionError(f"offset {until} was not reached: {found}")

    def await_empty_group(self) -> None:
        """A consumer that was closed may be a member for a while: its broker is told, and not waited for."""
        _until(lambda: not self.offsets.members(), "no member in the group")

    def commit_as_others_do(self, offset: int) -> None:
        """What kafka-consumer-groups --reset-offsets does, once nobody reads: other metadata than ours."""
        self.await_empty_group()
        request = ConsumerGroupTopicPartitions(f"g-{self.topic}", [TopicPartition(self.topic, 0, offset)])
        for future in self.admin.alter_consumer_group_offsets([request]).values():
            future.result()

    def seen(self) -> Seen | None:
        found = self.evidence(self.offsets.partitions())
        return next(iter(found.values()), None)


def _until(come: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 30
    while not come():
        assert time.monotonic() < deadline, f"not in 30 s: {what}"
        time.sleep(0.1)


@pytest.fixture
def sink(bootstrap_servers: str, prefix: str, database: str) -> Iterator[Sink]:
    found = Sink(bootstrap_servers, f"{prefix}.public.orders", database)
    found.make()
    yield found
    found.database.close()


def test_a_new_topic_is_read_from_its_beginning_and_control_records_make_no_gap(sink: Sink) -> None:
    sink.write(3)  # offsets 0-2, the marker is 3
    assert sink.run(4) == ([0, 1, 2], [])
    sink.write(2)
    (planned,) = sink.offsets.plan("latest", sink.evidence(sink.offsets.partitions()))
    assert (planned.effect, planned.target, planned.offsets) == (Effect.GAP, 7, 3)
    assert sink.run(7) == ([4, 5], [])
    (planned,) = sink.offsets.plan("latest", sink.evidence(sink.offsets.partitions()))
    assert planned.effect is Effect.NOTHING


def test_reset_to_the_earliest_is_a_replay(sink: Sink) -> None:
    sink.write(3)
    sink.run(4)
    (move,) = sink.offsets.plan("earliest", sink.evidence(sink.offsets.partitions()))
    assert (move.effect, move.target, move.offsets) == (Effect.REPLAY, 0, 4)
    (shown,) = sink.offsets.show(sink.evidence(sink.offsets.partitions()))
    assert (shown.committed, shown.lag, shown.staged) == (4, 0, 4)  # the plan has changed nothing
    sink.offsets.reset([move], patience=20)
    assert sink.run(4) == ([0, 1, 2], [])
    assert sink.seen() == Seen(4)


def test_a_forward_reset_is_a_gap_and_going_back_fills_it(sink: Sink) -> None:
    sink.write(3)
    sink.run(4)
    sink.write(3)  # 4-6, marker 7
    sink.write(1)  # 8, marker 9
    sink.commit_as_others_do(8)
    found, gaps = sink.run(10)
    assert (found, [gap.range for gap in gaps]) == ([8], [Range(4, 8)])
    sink.commit_as_others_do(2)
    assert sink.run(10) == ([2, 4, 5, 6, 8], [])
    assert sink.seen() == Seen(10)


def test_reset_to_a_time_goes_to_the_first_record_after_it(sink: Sink) -> None:
    sink.write(2)
    time.sleep(0.05)
    between = datetime.now(UTC)
    time.sleep(0.05)
    sink.write(2)
    sink.run(6)
    (move,) = sink.offsets.plan(between, sink.evidence(sink.offsets.partitions()))
    assert (move.target, move.effect) == (3, Effect.REPLAY)
    with pytest.raises(SettingsError, match="time zone"):
        sink.offsets.plan(between.replace(tzinfo=None), {})


def test_a_reset_is_refused_while_a_sink_runs(sink: Sink) -> None:
    sink.write(1)
    with sink.consumer() as consumer:
        deadline = time.monotonic() + 30
        while not consumer.assignment and time.monotonic() < deadline:
            consumer.poll(seconds=0.2)
        with pytest.raises(SettingsError, match="live members"):
            sink.offsets.reset(sink.offsets.plan("earliest", {}))
    sink.await_empty_group()


def test_a_middle_layer_restored_from_a_backup_goes_back_to_its_evidence(sink: Sink) -> None:
    sink.write(3)
    sink.run(4)
    with transaction(sink.database) as cursor:
        cursor.execute("UPDATE ordertap.evidence SET next_offset = 1")
    assert sink.run(4) == ([1, 2], [])
    with transaction(sink.database) as cursor:
        cursor.execute("DELETE FROM ordertap.evidence")
    assert sink.run(4) == ([0, 1, 2], [])


def test_an_expired_group_goes_on_where_it_was(sink: Sink) -> None:
    sink.write(3)
    sink.run(4, commit=False)
    sink.write(1)
    assert sink.run(6) == ([4], [])


def test_retention_that_overtook_leaves_a_gap(sink: Sink) -> None:
    sink.write(3)
    sink.run(4)
    sink.write(3)
    for future in sink.admin.delete_records([TopicPartition(sink.topic, 0, 6)]).values():
        future.result(10)
    found, gaps = sink.run(8)
    assert (found, [gap.range for gap in gaps]) == ([6], [Range(4, 6)])


def test_retention_that_overtakes_while_reading_leaves_a_gap(sink: Sink) -> None:
    sink.write(3)
    sink.run(4)
    sink.commit_as_others_do(1)
    gaps: list[Gap] = []
    with sink.consumer() as consumer:
        consumer.poll(1, 10.0)
        sink.write(3)
        for future in sink.admin.delete_records([TopicPartition(sink.topic, 0, 8)]).values():
            future.result(10)
        sink.write(1)
        _seek(consumer, TopicPartition(sink.topic, 0, 5))  # what a slow reader would ask for next
        found: list[int] = []
        deadline = time.monotonic() + 30
        while 8 not in found and time.monotonic() < deadline:
            batch = consumer.poll(seconds=0.2)
            found += [record.offset for record in batch.records if record.offset >= 4]
            gaps += sink.stage(batch)
    assert found == [8]
    assert [gap.range for gap in gaps] == [Range(4, 8)]


def _seek(consumer: ShopConsumer, place: TopicPartition) -> None:
    """A fetch that came after the deletion has found the gap by itself: librdkafka refuses to seek that partition."""
    try:
        consumer._consumer.seek(place)
    except KafkaException as error:
        if error.args[0].code() != KafkaError._STATE:
            raise


def test_a_topic_that_is_made_again_starts_at_its_beginning(sink: Sink) -> None:
    sink.write(3)
    sink.run(4)
    for future in sink.admin.delete_topics([sink.topic]).values():
        future.result(10)
    _until(lambda: sink.topic not in sink.admin.list_topics(timeout=10).topics, "the deleted topic is unlisted")
    sink.make()
    sink.write(5)
    assert sink.run(6) == ([0, 1, 2, 3, 4], [])
