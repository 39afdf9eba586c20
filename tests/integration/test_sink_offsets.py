"""The stager and the offsets tool on real Kafka: where a partition starts, resets by every tool, gaps and replays.

All orders are in partition 0 of their topic; each commit is a Kafka transaction, whose marker takes an offset too.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from deploy.embedded import Postgres, free_port
from schemas.model.errors import SettingsError, UnavailableError
from sink.database import connect, transaction
from sink.intake import evidence, offsets
from sink.intake.consumer import ReadAgainError, ShopConsumer
from sink.intake.evidence import Partition, Range, Seen
from sink.intake.offsets import Effect, GroupOffsets, Move, Offsets
from sink.layer import migrate
from sink.metrics import REPLAYED
from tests.integration.stager_feed import LINES, ORDERS, PARTITIONS, START, Feed, order, until


class Sink(Feed):
    """A shop with orders only, its stager, and the tools that show the group's offsets."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.group = f"g-{self.prefix}"
        self.admin = AdminClient({"bootstrap.servers": self.servers, "log_level": "2"})
        topics = [self.topic(ORDERS), self.topic(LINES)]
        self.tool = GroupOffsets({"bootstrap.servers": self.servers}, self.group, topics)
        self.opened: ShopConsumer | None = None
        self._orders = itertools.count(1)
        self._lsns = itertools.count(START + 100, 100)
        self._ends = 0
        self.begin()

    def buy(self, count: int) -> int:
        """Commits this many new orders. Returns the LSN."""
        lsn = next(self._lsns)
        self.commit(lsn, *(order(next(self._orders), lsn, n, partition=0) for n in range(1, count + 1)))
        self._ends += count + 1
        until(lambda: self.high() == self._ends, "the transaction's marker, which comes after the answer to its commit")
        return lsn

    def beat(self) -> None:
        """Writes a heartbeat: the index goes on without a commit."""
        self.write(index=self.indexed(end=self.end + 1))
        time.sleep(0.1)

    def run(self) -> None:
        """Stages everything, markers included, as the evidence shows."""
        with self.running():
            self.until_read()

    def until_read(self) -> None:
        until(self._is_read, "all is read")

    def _is_read(self) -> bool:
        self.beat()
        try:
            shown = self.shown()
        except UnavailableError:  # the broker has just begun to keep groups
            return False
        return shown.staged == shown.committed == shown.high

    def consumer(self, staged: Any) -> ShopConsumer:
        self.opened = super().consumer(staged)
        return self.opened

    # What the tools say of the orders' partition

    @property
    def partition(self) -> Partition:
        return next(one for one in self.tool.partitions() if one[::2] == (self.topic(ORDERS), 0))

    def high(self) -> int:
        """The end for `read_committed` consumers."""
        return self.tool._at([self.partition], OffsetSpec.latest())[self.partition]  # type: ignore[no-untyped-call]

    def evidence(self) -> Mapping[Partition, Seen]:
        with transaction(self.connection) as cursor:
            return evidence.load(cursor, self.tool.partitions())

    def seen(self) -> Seen | None:
        return self.evidence().get(self.partition)

    def next_offset(self) -> int:
        found = self.seen()
        return found.next_offset if found else -1

    def skipped(self) -> list[Range]:
        found = self.seen()
        return [gap.range for gap in found.gaps] if found else []

    def shown(self) -> Offsets:
        return next(one for one in self.tool.show(self.evidence()) if one.partition == self.partition)

    def plan(self, target: Any) -> Move:
        return next(one for one in self.tool.plan(target, self.evidence()) if one.partition == self.partition)

    def await_empty_group(self) -> None:
        """Waits until the group is empty. A closed consumer may stay a member for a while: the broker is told, but not
        waited for."""
        until(lambda: not self.tool.members(), "no member in the group")

    def commit_as_others_do(self, offset: int) -> None:
        """Does what kafka-consumer-groups --reset-offsets does once nobody reads: commits with other metadata than
        ours."""
        self.await_empty_group()
        request = ConsumerGroupTopicPartitions(self.group, [TopicPartition(self.topic(ORDERS), 0, offset)])
        for future in self.admin.alter_consumer_group_offsets([request]).values():
            future.result()

    def delete_before(self, offset: int) -> None:
        """Deletes records, as retention does."""
        for future in self.admin.delete_records([TopicPartition(self.topic(ORDERS), 0, offset)]).values():
            future.result(10)

    def ids(self) -> list[int]:
        return [int(row[0]) for row in self.orders("id")]

    def move_to(self, url: str) -> None:
        """Uses another middle layer from now on."""
        self.connection.close()
        self.url = url
        self.connection = connect(url, "ordertap_shop")
        migrate(self.connection, "shop")


@pytest.fixture
def sink(tmp_path: Path, bootstrap_servers: str, prefix: str, database: str) -> Sink:
    return Sink(tmp_path, bootstrap_servers, prefix, database)


def replayed() -> float:
    """How many records this process has read again."""
    return float(REPLAYED._value.get())


def changes_nothing(sink: Sink, act: Callable[[], None]) -> float:
    """Runs it, and checks that it marks no document and leaves no gap. Returns how many records were read again."""
    marked, before = sink.marked(), replayed()
    act()
    assert sink.marked() == marked
    assert (sink.skipped(), sink.gaps()) == ([], [])
    return replayed() - before


def test_a_new_topic_is_read_from_its_beginning_and_control_records_make_no_gap(sink: Sink) -> None:
    sink.buy(3)  # offsets 0-2, the marker is 3
    sink.run()
    assert (sink.ids(), sink.seen()) == ([1, 2, 3], Seen(4))
    sink.buy(2)
    planned = sink.plan("latest")
    assert (planned.effect, planned.target, planned.offsets) == (Effect.GAP, 7, 3)
    sink.run()
    assert (sink.ids(), sink.seen(), sink.gaps()) == ([1, 2, 3, 4, 5], Seen(7), [])
    assert sink.plan("latest").effect is Effect.NOTHING


def test_reset_to_the_earliest_is_a_replay(sink: Sink) -> None:
    sink.buy(3)
    sink.run()
    move = sink.plan("earliest")
    assert (move.effect, move.target, move.offsets) == (Effect.REPLAY, 0, 4)
    shown = sink.shown()
    assert (shown.committed, shown.lag, shown.staged) == (4, 0, 4)  # the plan has changed nothing
    sink.tool.reset([move], patience=20)
    assert changes_nothing(sink, sink.run) >= 3
    assert (sink.ids(), sink.seen()) == ([1, 2, 3], Seen(4))


def test_a_forward_reset_is_a_gap_and_going_back_fills_it(sink: Sink) -> None:
    sink.buy(3)
    sink.run()
    sink.buy(3)  # 4-6, marker 7
    sink.buy(1)  # 8, marker 9
    sink.commit_as_others_do(8)
    sink.run()
    assert (sink.ids(), sink.skipped()) == ([1, 2, 3, 7], [Range(4, 8)])
    assert sink.gaps() == [(ORDERS, "skipped")]
    marked, before = sink.marked(), replayed()
    sink.commit_as_others_do(2)
    sink.run()
    assert replayed() - before >= 2  # 2 and 8
    assert (sink.ids(), sink.seen(), sink.gaps()) == ([1, 2, 3, 4, 5, 6, 7], Seen(10), [])
    assert sink.marked() == marked | {"4": 1, "5": 1, "6": 1}


def test_reset_to_a_time_goes_to_the_first_record_after_it(sink: Sink) -> None:
    sink.buy(2)
    time.sleep(0.05)
    between = datetime.now(UTC)
    time.sleep(0.05)
    sink.buy(2)
    sink.run()
    move = sink.plan(between)
    assert (move.target, move.effect) == (3, Effect.REPLAY)
    with pytest.raises(SettingsError, match="time zone"):
        sink.plan(between.replace(tzinfo=None))


def test_a_reset_is_refused_while_a_sink_runs(sink: Sink) -> None:
    sink.buy(1)
    with sink.running():
        sink.until_read()
        with pytest.raises(SettingsError, match="live members"):
            sink.tool.reset([sink.plan("earliest")])
    sink.await_empty_group()


def test_a_middle_layer_restored_from_a_backup_goes_back_to_its_evidence(
    sink: Sink, postgres: Postgres, database: str
) -> None:
    name = database.rpartition("/")[2]
    sink.buy(1)  # 0, marker 1
    sink.run()
    sink.connection.close()
    postgres.psql(f"CREATE DATABASE {name}_backup TEMPLATE {name}")
    sink.move_to(database)
    sink.buy(2)
    sink.run()
    assert sink.shown().committed == 5
    for url, staged in ((f"{database}_backup", [1]), (postgres.create_database(f"{name}_empty"), None)):
        sink.move_to(url)
        assert staged is None or sink.ids() == staged
        assert staged_once(sink) == [1, 2, 3]
        assert sink.marked() == {"1": 1, "2": 1, "3": 1}
        assert (sink.seen(), sink.gaps()) == (Seen(5), [])


def staged_once(sink: Sink) -> list[int]:
    """What is staged once everything is read, with nothing read twice."""
    before = replayed()
    sink.run()
    assert replayed() == before
    return sink.ids()


def test_an_expired_group_goes_on_where_it_was(sink: Sink) -> None:
    sink.buy(3)
    sink.run()
    sink.buy(1)
    sink.await_empty_group()
    for future in sink.admin.delete_consumer_groups([sink.group]).values():
        future.result(10)
    assert staged_once(sink) == [1, 2, 3, 4]
    assert (sink.seen(), sink.gaps()) == (Seen(6), [])


def test_retention_that_overtook_leaves_a_gap(sink: Sink) -> None:
    sink.buy(3)
    sink.run()
    sink.buy(3)
    sink.delete_before(6)
    sink.run()
    assert (sink.ids(), sink.skipped()) == ([1, 2, 3, 6], [Range(4, 6)])
    assert sink.gaps() == [(ORDERS, "skipped")]


def test_retention_that_overtakes_while_reading_leaves_a_gap(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    sink.buy(3)
    slow: set[tuple[str, int]] = set()
    real = ShopConsumer.pause
    # The thread that polls pauses, too: another one would wait for it in the library.
    monkeypatch.setattr(ShopConsumer, "pause", lambda consumer, places: real(consumer, places | slow))
    with sink.running():
        sink.until_read()
        opened = sink.opened
        assert opened is not None
        slow.add((sink.topic(ORDERS), 0))
        until(lambda: slow <= opened.paused, "a slow reader")
        sink.buy(3)
        sink.delete_before(8)
        sink.buy(1)
        assert sink.next_offset() == 4
        slow.clear()
        sink.until_read()
    assert (sink.ids(), sink.skipped()) == ([1, 2, 3, 7], [Range(4, 8)])
    assert sink.gaps() == [(ORDERS, "skipped")]


def test_what_was_paused_is_read_when_reading_starts_over(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    slow: set[tuple[str, int]] = set()
    pause, restart = ShopConsumer.pause, ShopConsumer.restart

    def starts_over(consumer: ShopConsumer) -> bool:
        slow.clear()
        return restart(consumer)

    monkeypatch.setattr(ShopConsumer, "pause", lambda consumer, places: pause(consumer, places | slow))
    monkeypatch.setattr(ShopConsumer, "restart", starts_over)
    with sink.running():
        sink.buy(3)
        sink.until_read()
        opened = sink.opened
        assert opened is not None
        slow.add((sink.topic(ORDERS), 0))
        until(lambda: slow <= opened.paused, "a slow reader")
        sink.buy(3)
        opened._failure = ReadAgainError("as after partitions were taken away")
        until(lambda: not slow, "reading starts over")
        sink.until_read()
    assert sink.ids() == [1, 2, 3, 4, 5, 6]


def test_a_topic_that_is_made_again_starts_at_its_beginning(sink: Sink) -> None:
    sink.buy(3)
    sink.run()
    topic = sink.topic(ORDERS)
    for future in sink.admin.delete_topics([topic]).values():
        future.result(10)
    until(lambda: topic not in sink.admin.list_topics(timeout=10).topics, "the deleted topic is unlisted")
    for future in sink.admin.create_topics([NewTopic(topic, PARTITIONS, 1)]).values():
        future.result(10)
    sink.producer, sink._ends = sink.another_producer(), 0
    sink.buy(5)
    assert staged_once(sink) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert (sink.seen(), sink.gaps()) == (Seen(6), [])


def test_a_coordinator_that_still_loads_is_asked_again_for_some_seconds(
    sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No broker can be told to load for long, so this is simulated."""
    sink.buy(1)
    sink.run()
    answers: list[KafkaError] = []

    class Loading(Consumer):
        def committed(self, *arguments: Any, **named: Any) -> Any:
            if answers:
                raise KafkaException(answers.pop())
            return super().committed(*arguments, **named)

    monkeypatch.setattr(offsets, "Consumer", Loading)
    answers += [KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS)] * 2
    assert sink.shown().committed == 2
    assert answers == []
    monkeypatch.setattr(offsets, "_SECONDS", 1.0)
    answers += [KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS)] * 100
    with pytest.raises(UnavailableError, match="load"):
        sink.shown()


def test_a_group_that_was_deleted_a_moment_ago_has_no_offsets(sink: Sink) -> None:
    sink.buy(1)
    sink.run()
    for _ in range(3):
        sink.commit_as_others_do(1)
        assert sink.shown().committed == 1
        for future in sink.admin.delete_consumer_groups([sink.group]).values():
            future.result(10)
        assert sink.shown().committed is None
        assert sink.tool.members() == []


def test_a_kafka_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offsets, "_SECONDS", 0.5)
    nobody = f"127.0.0.1:{free_port()}"
    with pytest.raises(UnavailableError, match=f"Kafka at {nobody}: "):
        GroupOffsets({"bootstrap.servers": nobody}, "group", ["topic"]).partitions()
