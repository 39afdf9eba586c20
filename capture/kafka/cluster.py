"""Kafka's topics and offsets: everything but producing."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

import structlog
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined]

from capture.kafka.errors import kafka_error
from capture.metrics import waiting
from schemas.model.errors import OrdertapError, SettingsError, UnavailableError

log = structlog.get_logger("capture")
_REFUSED: Final = (KafkaError._AUTHENTICATION, KafkaError._SSL)
_SETTLES: Final = 80.0
"""Seconds within which a broker aborts the transaction of a killed capture: our transaction.timeout.ms, the broker's
round of 10 s (transaction.abort.timed.out.transaction.cleanup.interval.ms), and some room."""
_READING: Final = 30.0  # seconds for the position topic
_NO_END: Final = 10.0  # seconds without the end of any further partition
FROM_THE_BEGINNING: Final = {"auto.offset.reset": "earliest"}
"""Used with offset 0. For OFFSET_BEGINNING librdkafka would ask the broker, and wait half a second if it knows no
leader yet."""
_NO_LEADER_YET: Final = (
    KafkaError._NOENT,  # "No leaders found"
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.REQUEST_TIMED_OUT,
)
"""Errors that pass by themselves: the topic was just made, or the broker just started or stood still."""


class Making(NamedTuple):
    """The settings of a new topic. Source: Kafka's documentation, "Topic Configs"."""

    partitions: int
    replication: int
    config: Mapping[str, str]


class Cluster:
    """One Kafka cluster, with the properties of the settings `kafka`."""

    def __init__(self, bootstrap_servers: str, options: Mapping[str, str]) -> None:
        self.servers = bootstrap_servers
        self._cause: KafkaError | None = None
        self.options: dict[str, Any] = {"bootstrap.servers": bootstrap_servers, "log_level": 2, **options}
        self.options["logger"] = logging.getLogger("rdkafka")  # else it writes to stderr in a form of its own
        try:
            self._admin = AdminClient(self.options | {"error_cb": self._note})
        except KafkaException as error:
            raise kafka_error("Kafka settings", error.args[0], bootstrap_servers) from None

    def _note(self, error: KafkaError) -> None:
        """Notes why no broker was reached. A refusal says most, "all brokers are down" least."""
        if self._cause is None or _telling(error) >= _telling(self._cause):
            self._cause = error

    def failure(self, doing: str, error: KafkaError) -> OrdertapError:
        """Our error for a failed call. It says why no broker was reached."""
        if error.code() in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN):
            self._admin.poll(0)  # lets the client report the cause
            if self._cause is not None:
                said, hint = _cause(self._cause)
                return UnavailableError(f"{doing}: {said} (Kafka at {self.servers})", hint)
        return kafka_error(doing, error, self.servers)

    @property
    def admin(self) -> AdminClient:
        """librdkafka's admin client, for single questions."""
        return self._admin

    def partitions(self, timeout: float = 10.0) -> dict[str, int]:
        """The number of partitions of each topic. UnavailableError if no broker answers."""
        try:
            with waiting("Kafka (listing topics)"):
                topics = self._admin.list_topics(timeout=timeout).topics
        except KafkaException as error:
            raise self.failure("listing topics", error.args[0]) from None
        self._admin.poll(0)
        self._cause = None  # an old cause, or that of one broker among others
        return {name: len(topic.partitions) for name, topic in topics.items()}

    def create_topics(
        self, topics: Mapping[str, Making], refused: dict[str, SettingsError] | None = None, dry_run: bool = False
    ) -> set[str]:
        """Makes topics in one call and returns the names of the new ones. The error names a topic that Kafka refuses;
        `refused` takes those errors instead, by topic. `dry_run` asks only whether Kafka would make them.

        Source: KIP-4, CreateTopics with validate_only.
        """
        asked = [NewTopic(name, *making[:2], config=dict(making.config)) for name, making in topics.items()]
        made: set[str] = set()
        with waiting(f"Kafka (making {len(topics)} topics, {asked[0].topic} first)"):
            told = self._admin.create_topics(asked, operation_timeout=60, request_timeout=90, validate_only=dry_run)
            for name, future in told.items():
                try:
                    future.result()
                except KafkaException as error:
                    if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                        continue
                    failure = self.failure(f"making topic {name}", error.args[0])
                    if refused is None or not isinstance(failure, SettingsError):
                        raise failure from None
                    refused[name] = failure
                else:
                    made.add(name)
        return made

    def last_values(self, topic: str, settled: bool = True, timeout: float = _SETTLES) -> dict[bytes, bytes]:
        """The last committed value of each key in a one-partition topic, read to its end; none without the topic.

        The last offset may be a commit marker, so the end is where `position()` reaches the high watermark; an open
        transaction of somebody else keeps the last stable offset below it, and is named after `timeout` seconds. With
        `settled=False` such a transaction is not waited for: the value is the one committed so far.
        """
        if topic not in self.partitions():
            return {}
        end = self._end(topic, IsolationLevel.READ_UNCOMMITTED if settled else IsolationLevel.READ_COMMITTED)
        self._settle(topic, end, timeout)
        deadline = time.monotonic() + _READING
        options = {
            **self.options,
            "group.id": f"{topic}-reader",
            **FROM_THE_BEGINNING,
            "enable.auto.commit": False,
            "error_cb": ignore_lost_connection,
        }
        consumer = Consumer(options | {"isolation.level": "read_committed", "enable.partition.eof": False})
        try:
            return self._read_to(consumer, topic, end, deadline)
        except KafkaException as error:
            raise kafka_error(f"reading topic {topic}", error.args[0], self.servers) from None
        finally:
            consumer.close()

    def _settle(self, topic: str, end: int, timeout: float) -> None:
        """Waits until no open transaction hides what is before `end`; UnavailableError after `timeout` seconds."""
        began = time.monotonic()
        told = False
        with waiting(f"Kafka (an open transaction hides the end of topic {topic})"):
            while self._end(topic, IsolationLevel.READ_COMMITTED) < end:
                passed = time.monotonic() - began
                if passed > timeout:
                    hint = f"find it with kafka-transactions.sh find-hanging --topic {topic}, and abort it"
                    raise UnavailableError(f"topic {topic}: an open transaction hides its end", hint)
                if passed > 1.0 and not told:
                    log.info("waiting for an open Kafka transaction, as a killed capture leaves it", topic=topic)
                    told = True
                time.sleep(0.1)

    def _read_to(self, consumer: Consumer, topic: str, end: int, deadline: float) -> dict[bytes, bytes]:
        partition = TopicPartition(topic, 0, 0)
        consumer.assign([partition])
        found: dict[bytes, bytes | None] = {}
        while end > 0 and consumer.position([partition])[0].offset < end:
            for message in consumer.consume(1_000, 0.05):
                if (error := message.error()) is not None:
                    if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                        continue  # librdkafka looks for the coordinator of a group that we have no use for
                    raise kafka_error(f"reading topic {topic}", error, self.servers)
                if (key := message.key()) is not None:
                    found[key] = message.value()
            if time.monotonic() > deadline:
                raise UnavailableError(f"topic {topic} could not be read to its end", "check the broker")
        return {key: value for key, value in found.items() if value is not None}

    def _end(self, topic: str, isolation: IsolationLevel) -> int:
        [end] = self.ends([TopicPartition(topic, 0)], isolation).values()
        return end

    def ends(
        self, partitions: Iterable[TopicPartition], isolation: IsolationLevel = IsolationLevel.READ_UNCOMMITTED
    ) -> dict[TopicPartition, int]:
        """The end offset of each partition. Commit markers count too. UnavailableError if none comes for a while: a
        broker may take long to make the logs of new topics."""
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        left = dict.fromkeys(partitions, latest)
        found: dict[TopicPartition, int] = {}
        deadline = time.monotonic() + _NO_END
        while left:
            asked = self._admin.list_offsets(left, isolation_level=isolation, request_timeout=10)
            for partition, future in asked.items():
                try:
                    found[partition] = int(future.result().offset)
                except KafkaException as error:
                    passes = error.args[0].retriable() or error.args[0].code() in _NO_LEADER_YET
                    if not passes or time.monotonic() > deadline:
                        doing = f"reading the end of {partition.topic}"
                        raise self.failure(doing, error.args[0]) from None
                else:
                    del left[partition]
                    deadline = time.monotonic() + _NO_END
            if left:  # librdkafka asks with the leader epoch that it has seen last, and sees another one in a listing
                with suppress(UnavailableError):
                    self.partitions(max(0.1, deadline - time.monotonic()))
                time.sleep(0.2)
        return found


def _telling(error: KafkaError) -> int:
    refused = error.code() in _REFUSED or "handshake" in error.str()
    return 2 if refused else int(error.code() != KafkaError._ALL_BROKERS_DOWN)


def _cause(error: KafkaError) -> tuple[str, str]:
    """What librdkafka said, with the next step."""
    said = error.str().split(" (after ")[0]
    protocol = "check security.protocol, sasl.* and ssl.* in the `kafka` settings"
    if error.code() in _REFUSED:
        return said, protocol
    if error.code() == KafkaError._ALL_BROKERS_DOWN:  # it says no more of a connection that ends at once
        said += ", or close the connection at once, as a TLS port does with a client that does not use TLS"
    elif "ssl://" not in said:
        return said, "check bootstrap_servers and that the broker runs"
    return said, f"check bootstrap_servers, and that the broker runs; {protocol}"


def ignore_lost_connection(_error: KafkaError) -> None:
    """librdkafka reports lost connections here and reconnects by itself."""
