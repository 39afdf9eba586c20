"""Grouping into Kafka transactions, with a producer that commits when the test says so."""

import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, cast

import pytest

from capture.kafka.errors import FencedError
from capture.kafka.position import Position, parse_position
from capture.kafka.producer import Record, TransactionalProducer
from capture.kafka.writer import Limits, Writer
from schemas.errors import UnavailableError
from schemas.lsn import LSN

STALL = 60.0  # seconds: more than the machine may stand still while a commit waits for the test
START = Position(1, "42", 1, "tap", LSN(100), LSN(90), "hash")


def at(lsn: int) -> Position:
    return START._replace(end_lsn=LSN(lsn))


def row(value: bytes) -> Record:
    return Record("shop.public.orders", -1, b"k", value, [])


class FakeProducer:
    """Remembers what each Kafka transaction had."""

    def __init__(self) -> None:
        self.transactions: list[list[Record]] = []
        self.committed = 0
        self.abandoned = False
        self.gate = threading.Event()
        self.failure: Exception | None = None

    def begin_transaction(self) -> None:
        self.transactions.append([])

    def produce(self, records: Iterable[Record]) -> None:
        self.transactions[-1] += records

    def commit(self, timeout: float) -> None:
        assert self.gate.wait(timeout)
        if self.failure:
            raise self.failure
        self.committed += 1

    def abandon(self) -> None:
        self.abandoned = True


@pytest.fixture
def producer() -> FakeProducer:
    return FakeProducer()


@pytest.fixture
def writer(producer: FakeProducer) -> Iterator[Writer]:
    made = Writer(cast("TransactionalProducer", producer), "shop.position", b"shop", START, Limits(0.5, 3, 1000, STALL))
    yield made
    producer.gate.set()
    made.close()


def positions(records: list[Record]) -> list[int]:
    return [parse_position(cast("bytes", r.value)).end_lsn for r in records if r.topic == "shop.position"]


def land(writer: Writer, producer: FakeProducer) -> None:
    producer.gate.set()
    writer.flush(lambda: None)


def test_source_transactions_share_a_kafka_transaction_with_one_position(
    writer: Writer, producer: FakeProducer
) -> None:
    writer.add([row(b"a")], 1, at(200))
    writer.add([row(b"b")], 1, at(300))
    assert writer.pending
    land(writer, producer)
    assert len(producer.transactions) == 1
    assert positions(producer.transactions[0]) == [300]
    assert producer.transactions[0][-1].topic == "shop.position"
    assert not writer.pending
    assert writer.durable.end_lsn == 300


@pytest.mark.parametrize("values", [[b"a"] * 3, [b"x" * 1000]], ids=["count", "bytes"])
def test_a_full_batch_does_not_linger(writer: Writer, producer: FakeProducer, values: list[bytes]) -> None:
    producer.gate.set()
    now = time.monotonic()  # of before, so that nothing lingered yet however long this takes
    writer.add([row(b"")], 1, at(150))
    writer.step(now)
    assert not positions(producer.transactions[0])
    writer.add([row(value) for value in values], sum(map(len, values)), at(200))
    writer.step(now)
    assert positions(producer.transactions[0]) == [200]


def test_lingers_and_then_commits(writer: Writer, producer: FakeProducer) -> None:
    producer.gate.set()
    writer.add([row(b"a")], 1, at(200))
    now = writer._opened_at
    assert writer.lingering(now) == pytest.approx(0.5)
    writer.step(now + 0.6)
    assert positions(producer.transactions[0]) == [200]


def test_what_comes_while_a_commit_is_in_flight_goes_into_the_next_one(writer: Writer, producer: FakeProducer) -> None:
    writer.add([row(b"a")], 1, at(200))
    writer.step(time.monotonic(), force=True)
    writer.add([row(b"b")], 1, at(300))
    writer.advance(at(350))
    assert writer.durable.end_lsn == 100, "nothing is durable before Kafka says so"
    assert not writer.full
    writer.add([row(b"c")] * 2, 1, at(400))
    assert writer.full
    land(writer, producer)
    assert [positions(records) for records in producer.transactions] == [[200], [400]]


def test_a_position_without_records_is_durable_only_when_nothing_before_it_waits(
    writer: Writer, producer: FakeProducer
) -> None:
    writer.advance(at(150))
    assert writer.durable.end_lsn == 150
    assert not producer.transactions
    writer.add([row(b"a")], 1, at(200))
    writer.advance(at(250))
    assert writer.durable.end_lsn == 150
    land(writer, producer)
    assert positions(producer.transactions[0]) == [250]


def test_lets_go_when_kafka_takes_nothing(writer: Writer) -> None:
    writer.add([row(b"a")], 1, at(200))
    writer.step(time.monotonic(), force=True)
    with pytest.raises(UnavailableError, match="nothing durable"):
        writer.step(time.monotonic() + STALL + 0.1)


def test_a_failed_commit_is_raised_and_nothing_becomes_durable(writer: Writer, producer: FakeProducer) -> None:
    producer.failure = FencedError("fenced", "again")
    producer.gate.set()
    writer.add([row(b"a")], 1, at(200))
    with pytest.raises(FencedError):
        writer.flush(lambda: None)
    assert writer.durable.end_lsn == 100


def test_closing_abandons_what_is_open(producer: FakeProducer) -> None:
    writer = Writer(cast("TransactionalProducer", producer), "t", b"k", START, Limits(5, 3, 1000, 5.0))
    writer.add([row(b"a")], 1, at(200))
    writer.close()
    assert producer.abandoned


def test_feedback_goes_on_while_a_commit_lasts(writer: Writer, producer: FakeProducer) -> None:
    calls: list[Any] = []

    def meanwhile() -> None:
        calls.append(None)
        if len(calls) == 3:
            producer.gate.set()

    writer.add([row(b"a")], 1, at(200))
    writer.flush(meanwhile, every=0.01)
    assert len(calls) >= 3
    assert producer.committed == 1


def test_what_only_the_position_says_is_written_though_it_brings_no_record(
    writer: Writer, producer: FakeProducer
) -> None:
    writer.add([row(b"a")], 1, at(200))
    writer.step(time.monotonic(), force=True)  # in flight
    writer.add([], 0, at(300)._replace(parked=("public.orders",)))
    land(writer, producer)
    assert producer.committed == 2
    assert positions(producer.transactions[1]) == [300]


def test_what_has_nothing_to_write_takes_no_memory_while_kafka_is_away(writer: Writer, producer: FakeProducer) -> None:
    writer.add([row(b"a")], 1, at(200))
    writer.step(time.monotonic(), force=True)
    for lsn in range(300, 1300):
        writer.advance(at(lsn))
    assert len(writer._waiting) == 1
    land(writer, producer)
    assert writer.durable.end_lsn == 1299
