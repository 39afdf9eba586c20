"""What the broker says about itself, topics and our rights. Used by the commands and at each start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclOperation,
    ConfigResource,
    ResourceType,
)

from capture.kafka.cluster import FROM_THE_BEGINNING, Cluster
from capture.kafka.producer import TransactionalProducer
from schemas.model.errors import UnavailableError

_TIMEOUT = 10.0


class Brokers(NamedTuple):
    """The cluster. `allowed`: the operations on it that our user may do (CREATE, …)."""

    number: int
    allowed: frozenset[str]


class Topic(NamedTuple):
    """A topic as the broker has it. `allowed`: as above (READ, WRITE, …). Replicas are those of the first partition."""

    partitions: int
    replicas: int
    config: dict[str, str]
    allowed: frozenset[str]


@contextmanager
def _answering(doing: str, cluster: Cluster) -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        raise cluster.failure(doing, error.args[0]) from None


def _names(operations: Sequence[AclOperation] | None) -> frozenset[str]:
    return frozenset(operation.name for operation in operations or ())


def brokers(cluster: Cluster) -> Brokers:
    """How many brokers answer, and what we may do."""
    with _answering("describing the cluster", cluster):
        found = cluster.admin.describe_cluster(include_authorized_operations=True, request_timeout=_TIMEOUT).result()
    return Brokers(len(found.nodes), _names(found.authorized_operations))


def topics(cluster: Cluster, names: Sequence[str]) -> dict[str, Topic]:
    """The topics that exist and that our user may see."""
    existing = sorted(set(names) & cluster.partitions().keys())
    if not existing:
        return {}
    with _answering("describing topics", cluster):
        described = cluster.admin.describe_topics(
            TopicCollection(existing), include_authorized_operations=True, request_timeout=_TIMEOUT
        )
        return {name: _topic(cluster, name, future.result()) for name, future in described.items()}


def _topic(cluster: Cluster, name: str, found: Any) -> Topic:
    resource = ConfigResource(ResourceType.TOPIC, name)
    asked = cluster.admin.describe_configs([resource], request_timeout=_TIMEOUT)
    try:
        config = {entry.name: entry.value for entry in asked[resource].result().values()}
    except KafkaException:  # DESCRIBE_CONFIGS is a right of its own, which capture does not need
        config = {}
    return Topic(len(found.partitions), len(found.partitions[0].replicas), config, _names(found.authorized_operations))


def try_transactions(cluster: Cluster, transactional_id: str) -> None:
    """Starts a transactional producer and drops it. SettingsError if our user lacks the right."""
    TransactionalProducer(cluster, transactional_id, timeout=_TIMEOUT)


def ends(cluster: Cluster, counts: dict[str, int]) -> dict[str, int]:
    """The end offset of each topic (name → partitions), summed over partitions. Commit markers count, too."""
    sums = dict.fromkeys(counts, 0)
    partitions = [TopicPartition(name, number) for name, count in counts.items() for number in range(count)]
    for partition, end in cluster.ends(partitions).items():
        sums[partition.topic] += end
    return sums


def read_all(cluster: Cluster, topic: str) -> Iterator[tuple[bytes | None, bytes | None]]:
    """Keys and values of a topic, each partition up to its present end; nothing if the topic does not exist."""
    count = cluster.partitions().get(topic, 0)
    for number in range(count):
        options = {**cluster.options, **FROM_THE_BEGINNING, "group.id": f"{topic}-reader"}
        options |= {"isolation.level": "read_committed"}
        consumer = Consumer(options | {"enable.auto.commit": False, "enable.partition.eof": True})
        try:
            consumer.assign([TopicPartition(topic, number, 0)])
            for message in to_the_end(consumer, cluster, topic):
                yield message.key(), message.value()
        finally:
            consumer.close()


def to_the_end(consumer: Any, cluster: Cluster, topic: str) -> Iterator[Message]:
    """The records of an assigned partition, from its place to the end. Needs enable.partition.eof."""
    while True:
        message = consumer.poll(_TIMEOUT)
        if message is None:
            raise UnavailableError(f"topic {topic} could not be read to its end", "check the broker")
        if message.error() is None:
            yield message
        elif message.error().code() == KafkaError._PARTITION_EOF:
            return
        else:
            raise cluster.failure(f"reading topic {topic}", message.error())


def delete_topics(cluster: Cluster, names: Sequence[str]) -> None:
    """Deletes topics with everything in them."""
    with _answering("deleting topics", cluster):
        for future in cluster.admin.delete_topics(list(names), operation_timeout=_TIMEOUT).values():
            future.result()
