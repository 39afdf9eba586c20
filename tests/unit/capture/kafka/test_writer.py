"""Grouping into Kafka transactions, with a producer that commits when the test says so."""

import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, cast

import pytest

from capture.kafka.errors import FencedError
from capture.kafka.index import RECORD_BYTES, Index, News
from capture.kafka.producer import Record, TransactionalProducer
from capture.kafka.writer import Limits, PositionWriter, Writer
from capture.position import Chain, Position, parse_position
from schemas.model.commits import IndexRecord, SnapshotState, parse_index
from schemas.model.errors import SettingsError, UnavailableError
from schemas.model.lsn import LSN

STALL = 60.0  # seconds: more than the machine may stand still while a commit waits for the test
START = Position(1, "42", 1, "tap", LSN(100), LSN(90), "hash", chain=Chain(6, LSN(100)))
TABLE = ("public.orders", "shop.public.orders")


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


def ending(producer: FakeProducer, **more: Any) -> PositionWriter:
    index = Index("ordertap.shop.commits", b"shop", START, "shop.{}".format)
    return PositionWriter(cast("TransactionalProducer", producer), "shop.position", b"shop", index, **more)


@pytest.fixture
def writer(producer: FakeProducer) -> Iterator[Writer]:
    made = Writer(ending(producer), START, Limits(0.5, 3, 1000, STALL))
    yield made
    producer.gate.set()
    made.close()


def positions(records: list[Record]) -> list[int]:
    return [
        parse_position(cast("bytes", value)).end_lsn for topic, _, _, value, _ in records if topic == "shop.position"
    ]


def listings(producer: FakeProducer) -> list[IndexRecord]:
    """The records of the index, of all transactions."""
    every = [record for records in producer.transactions for record in records]
    return [parse_index(cast("bytes", value)) for topic, _, _, value, _ in every if topic.endswith(".commits")]


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
    assert [topic for topic, *_ in producer.transactions[0]][-2:] == ["ordertap.shop.commits", "shop.position"]
    assert not writer.pending
    assert writer.durable.end_lsn == 300


@pytest.mark.parametrize("values", [[b"a"] * 3, [b"x" * 1000]], ids=["count", "bytes"])
def test_a_full_batch_does_not_linger(writer: Writer, producer: FakeProducer, values: list[bytes]) -> None:
    producer.gate.set()
    now = time.monotonic()  # an earlier time, so that nothing has lingered yet however long this takes
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
    with pytest.raises(UnavailableError, match="has committed nothing"):
        writer.step(time.monotonic() + STALL + 0.1)


def test_a_failed_commit_is_raised_and_nothing_becomes_durable(writer: Writer, producer: FakeProducer) -> None:
    producer.failure = FencedError("fenced", "again")
    producer.gate.set()
    writer.add([row(b"a")], 1, at(200))
    with pytest.raises(FencedError):
        writer.flush(lambda: None)
    assert writer.durable.end_lsn == 100


def test_closing_abandons_what_is_open(producer: FakeProducer) -> None:
    writer = Writer(ending(producer), START, Limits(5, 3, 1000, 5.0))
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


def test_what_waits_for_a_commit_is_listed_in_the_transaction_that_has_it(
    writer: Writer, producer: FakeProducer
) -> None:
    writer.add([row(b"a")], 1, at(200), News(150, 7, {TABLE: 1}))
    writer.step(time.monotonic(), force=True)
    writer.add([row(b"b")], 1, at(250))  # a part of a transaction that ends later
    writer.add([row(b"c")], 1, at(300), News(260, 8, {TABLE: 2}))
    land(writer, producer)
    first, second = listings(producer)
    assert [(one.lsn, one.ts_us, one.changes) for one in first.commits] == [(150, 7, ((0, 1),))]
    assert [(one.lsn, one.ts_us, one.changes) for one in second.commits] == [(260, 8, ((0, 2),))]
    assert (first.serial, first.previous, first.end, first.tables) == (7, 100, 200, (TABLE,))
    assert (second.serial, second.previous, second.end) == (8, 200, 300)
    assert writer.durable.chain == Chain(8, LSN(300))


def test_a_heartbeat_moves_the_index_and_so_does_what_had_nothing_to_write(
    writer: Writer, producer: FakeProducer
) -> None:
    writer.advance(at(150))
    writer.add([row(b"beat")], 0, at(200))
    writer.advance(at(250))
    land(writer, producer)
    assert [(one.previous, one.end, one.commits) for one in listings(producer)] == [(100, 250, ())]


def test_a_record_that_grows_large_goes_on_in_another_one_of_the_same_transaction(producer: FakeProducer) -> None:
    writer = Writer(ending(producer), START, Limits(60, 10**6, 10**9, STALL))
    producer.gate.set()
    size = len(b"[200,7,[0,1]]")
    count = RECORD_BYTES // size + 5
    for number in range(count):
        writer.add([], 0, at(201 + number), News(200 + number, 7, {TABLE: 1}))
    land(writer, producer)
    assert producer.committed == 1
    first, second = listings(producer)
    assert len(first.commits) + len(second.commits) == count
    assert first.end == first.commits[-1].lsn + 1 == second.previous
    assert (first.tables, second.tables) == ((TABLE,), (TABLE,)), "each stands alone"
    assert positions(producer.transactions[0]) == [200 + count]
    assert writer.durable.chain == Chain(8, LSN(200 + count))
    writer.close()


def test_a_table_that_was_parked_and_is_back_is_named_once_more(writer: Writer, producer: FakeProducer) -> None:
    producer.gate.set()
    parked = at(200)._replace(parked=("public.orders",))
    steps = [parked, parked._replace(end_lsn=LSN(210)), at(220), at(230)]
    for position in steps:
        writer.add([], 0, position)
        writer.flush(lambda: None)
    assert [one.parked for one in listings(producer)] == [*[("public.orders",)] * 3, ()]
    writer.add([], 0, parked._replace(end_lsn=LSN(240)))
    writer.add([], 0, at(250))
    writer.flush(lambda: None)
    assert listings(producer)[-1].parked == ("public.orders",)


def test_the_first_position_of_a_key_is_taken_back_where_another_connector_has_one(producer: FakeProducer) -> None:
    def refuse() -> None:
        raise SettingsError("in use", "choose another")

    producer.gate.set()
    with pytest.raises(SettingsError, match="in use"):
        ending(producer, alone=refuse).write([row(b"a")], START)
    written = [[(topic, value is None) for topic, _, _, value, _ in records] for records in producer.transactions]
    assert written == [[("shop.position", False)], [("shop.position", True)]]


def test_snapshots_are_told_by_a_start_and_by_what_begins_and_ends(producer: FakeProducer) -> None:
    producer.gate.set()
    committed = ending(producer, former=("shop.old", 0, b"shop", b"moved", []))
    done = SnapshotState("s", "completed", 100, True, ("public.orders",), {"public.orders": 3})
    for states in ((), (done,), ()):
        committed.write((), START, states)
    told = [[(one.id, one.state) for one in record.snapshots] for record in listings(producer)]
    assert told == [[("no_data", "completed")], [("s", "completed")], []]
    topics = [[topic for topic, *_ in records] for records in producer.transactions]
    assert [("shop.old" in one) for one in topics] == [True, False, False]
