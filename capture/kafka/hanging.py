"""Our transactions that the broker has ended without telling their partitions; Kafka calls them hanging.

A broker that comes back may drop the markers of partitions that have no leader at that moment (KAFKA-20734, in 4.3.1).
Readers of committed records then stand there; and our next commit in such a partition would end the old transaction
with it, and show a second time what was aborted and is written again. So a start ends them first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import structlog
from confluent_kafka import Consumer, IsolationLevel, KafkaException, Message, TopicPartition

from capture.kafka.broker import to_the_end
from capture.kafka.cluster import Cluster, ignore_lost_connection
from capture.kafka.producer import Fields, TransactionalProducer
from capture.position import Position, parse_position
from schemas.model.change import STAMP_HEADER, parse_stamp
from schemas.model.commits import parse_index
from schemas.model.lsn import LSN

log = structlog.get_logger("capture")

_PATIENCE: Final = 10.0  # seconds
_KEY: Final = b"ordertap.aborted"  # a compacted topic takes no record without a key


def find_hanging(cluster: Cluster, ours: Callable[[str], bool]) -> list[TopicPartition]:
    """The partitions of topics that are `ours` with an open transaction, each with the offset where the first begins.

    What is found while somebody may still write there need not hang.
    """
    counts = {name: count for name, count in cluster.partitions().items() if ours(name)}
    every = [TopicPartition(name, number) for name, count in counts.items() for number in range(count)]
    ends = cluster.ends(every)
    stable = cluster.ends(every, IsolationLevel.READ_COMMITTED)
    return [TopicPartition(one.topic, one.partition, stable[one]) for one in every if stable[one] < ends[one]]


def end_hanging(
    cluster: Cluster,
    producer: TransactionalProducer,
    hanging: Sequence[TopicPartition],
    topic: str,
    commits: str,
    key: bytes,
    reached: Position | None,
    confirmed: LSN | None,
) -> None:
    """Ends what hangs. `topic` and `key` are the position's, `commits` is the index's topic, `reached` is what is
    committed of the position.

    What the position covers was committed: the next commit in that partition shows it. So was the position itself when
    the slot is `confirmed` up to it. All else was not, and is aborted. A transaction of somebody else stays as it is.
    """
    for place in hanging:
        value = _last(cluster, place, key) if place.topic == topic else None
        if value is not None and _is_confirmed(parse_position(value), confirmed):
            reached = parse_position(value)
            producer.begin_transaction()
            producer.produce([(topic, 0, key, value, [])])
            producer.commit(_PATIENCE)
    aborted = [place for place in hanging if not _is_covered(cluster, place, commits, reached)]
    log.warning(
        "the broker has left transactions open that it had ended (KAFKA-20734): aborting what was not committed",
        aborted=[f"{place.topic}/{place.partition}" for place in aborted],
        committed=[f"{place.topic}/{place.partition}" for place in hanging if place not in aborted],
        next="if readers of committed records are still stuck later, kafka-transactions.sh find-hanging says why",
    )
    abort_hanging(producer, aborted)


def abort_hanging(producer: TransactionalProducer, places: Sequence[TopicPartition]) -> None:
    """Aborts what this producer, or the one that it has fenced, has open there. It aborts nothing of others."""
    records: list[Fields] = [(place.topic, place.partition, _KEY, None, []) for place in places]
    if records:
        producer.abort(records, _PATIENCE)


def _is_confirmed(position: Position, confirmed: LSN | None) -> bool:
    """Whether the server was told that everything up to here is durable. It is never told about a part of a
    transaction."""
    return position.partial is None and confirmed is not None and confirmed >= position.end_lsn


def _is_covered(cluster: Cluster, place: TopicPartition, commits: str, reached: Position | None) -> bool:
    for message in _open(cluster, place):
        if place.topic == commits:
            return reached is not None and _is_listed(message.value(), reached)
        stamp = dict(message.headers() or []).get(STAMP_HEADER)
        if isinstance(stamp, bytes):
            return reached is not None and reached.covers(parse_stamp(stamp))
    return False


def _is_listed(value: bytes | None, reached: Position) -> bool:
    """Whether a record of the index is in the chain up to a position. Its LSN does not tell, since others may have the
    same."""
    return value is not None and reached.chain is not None and parse_index(value).serial <= reached.chain.serial


def _last(cluster: Cluster, place: TopicPartition, key: bytes) -> bytes | None:
    """The last value of a key among the open records."""
    values = [message.value() for message in _open(cluster, place) if message.key() == key]
    return values[-1] if values else None


def _open(cluster: Cluster, place: TopicPartition) -> Iterator[Message]:
    """The records of a partition from this offset to its end, committed or not."""
    options = {**cluster.options, "group.id": f"{place.topic}-reader", "error_cb": ignore_lost_connection}
    options |= {"enable.auto.commit": False, "enable.partition.eof": True, "isolation.level": "read_uncommitted"}
    consumer = Consumer(options)
    try:
        consumer.assign([place])
        yield from to_the_end(consumer, cluster, place.topic)
    except KafkaException as error:
        raise cluster.failure(f"reading topic {place.topic}", error.args[0]) from None
    finally:
        consumer.close()
