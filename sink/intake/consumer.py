"""Reads the topics of a shop: committed records only, explicit offsets, and a stated rule for each odd start.

librdkafka never chooses an offset by itself (`auto.offset.reset=error`): where a partition starts is decided here, from
the group's committed offset and the evidence of what is staged, and said in one message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self, cast

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.commits import index_topic
from schemas.envelope import topic_name
from schemas.errors import OrdertapError, SettingsError, UnavailableError
from sink.intake.evidence import Partition, Range, Seen

log = structlog.get_logger()

COMMIT_MARK: Final = "ordertap: staged"
"""Metadata of the offsets that the sink commits. Tools that reset offsets write other metadata or none, and that tells
an operator's skip (a gap) from a middle layer that was restored from an older backup (go back to its evidence)."""

SESSION_SECONDS: Final = 10
"""A sink that was killed leaves the group after so long."""
_SECONDS: Final = 10.0
_PASSING: Final = (
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError._STATE,
    KafkaError._ASSIGNMENT_LOST,
)
"""A commit refused because the partition went to another member: that one reads again, which is harmless."""
_REFUSED: Final = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,
)


class KafkaRecord(NamedTuple):
    """A Kafka record, not decoded."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


@dataclass(slots=True)
class Batch:
    """What one poll brought. `read` says which offsets were read in one go, those without records too.

    `first` is the lowest offset there was when a partition without evidence was first assigned.
    """

    records: list[KafkaRecord] = field(default_factory=list)
    read: dict[Partition, Range] = field(default_factory=dict)
    first: dict[Partition, int] = field(default_factory=dict)


class Committed(NamedTuple):
    """A group's committed offset, and whether the sink itself committed it."""

    offset: int
    ours: bool


class StartAt(NamedTuple):
    """Where to read a partition from, and what to tell the operator when that is not simply the next record."""

    offset: int
    notice: str = ""


def start_of(
    partition: Partition, committed: Committed | None, seen: Seen | None, low: int, high: int, recreated: bool = False
) -> StartAt:
    """Where a partition starts; `recreated`: there is evidence of a topic of this name with another id.

    SettingsError when Kafka has lost records that are staged: going on would take new records for replays.
    """
    where = f"{partition.topic} [{partition.number}]"
    if seen is not None and seen.next_offset > high:
        raise SettingsError(
            f"{where} ends at offset {high}, but records up to {seen.next_offset} are staged: Kafka has lost records",
            "find out why; to go on, `capture repair --execute` reads the shop's tables again",
        )
    start = _wanted(where, committed, seen, low, recreated)
    if start.offset < low:
        lost = seen is None or seen.next_offset < low
        notice = f"{where}: offset {start.offset} is gone, retention has overtaken; starting at {low}"
        return StartAt(low, notice + (", which leaves a gap" if lost else ", nothing is lost"))
    if start.offset > high:
        return StartAt(high, f"{where}: committed offset {start.offset} is past the end; starting at {high}")
    return start


def _wanted(where: str, committed: Committed | None, seen: Seen | None, low: int, recreated: bool) -> StartAt:
    if recreated and seen is None:
        return StartAt(low, f"{where}: the topic was made again (its id has changed); starting at its beginning, {low}")
    if committed is None:
        if seen is None:
            return StartAt(low, f"{where} is new: starting at its beginning, {low}")
        notice = f"{where}: the group has no committed offset any more (expired?); going on at {seen.next_offset}"
        return StartAt(seen.next_offset, notice)
    if not committed.ours or (seen is not None and committed.offset <= seen.next_offset):
        return _chosen(where, committed.offset, seen, low)
    if seen is None:
        return StartAt(low, f"{where}: the middle layer is empty; reading again from the beginning, {low}")
    notice = f"{where}: the middle layer is older than the committed offset {committed.offset} (restored?)"
    return StartAt(seen.next_offset, f"{notice}; going back to {seen.next_offset}")


def _chosen(where: str, offset: int, seen: Seen | None, low: int) -> StartAt:
    known = low if seen is None else seen.next_offset
    if offset > known:
        return StartAt(offset, f"{where}: the group's offset was set forward to {offset}: [{known}, {offset}) is a gap")
    if offset < known:
        return StartAt(offset, f"{where}: reading again from {offset}; up to {known} all is staged and changes nothing")
    return StartAt(offset)


class ShopConsumer:
    """The consumer of one sink process.

    `evidence` gives what is staged of partitions; for those without, Seen of the same topic under another id counts as
    recreated when `other_ids` names the topic. Raises UnavailableError when Kafka does not answer, SettingsError when
    it refuses.
    """

    def __init__(
        self,
        properties: Mapping[str, str],
        topics: Iterable[str],
        evidence: Callable[[Sequence[Partition]], Mapping[Partition, Seen]],
        other_ids: Callable[[Sequence[Partition]], set[str]],
    ) -> None:
        self._topics = sorted(set(topics))
        self._evidence = evidence
        self._other_ids = other_ids
        self._ids: dict[str, str] = {}
        self._position: dict[tuple[str, int], int] = {}
        self._first: dict[Partition, int] = {}
        self._failure: OrdertapError | None = None
        self._admin = AdminClient({**QUIET, **{k: properties[k] for k in _shared(properties)}})
        self._consumer = Consumer({**_DEFAULTS, **properties, **_FIXED})
        self._consumer.subscribe(self._topics, on_assign=self._assigned, on_revoke=self._revoked)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leaves the group."""
        self._consumer.close()

    @property
    def assignment(self) -> list[tuple[str, int]]:
        """The partitions that this process reads now."""
        return sorted(self._position)

    def poll(self, records: int = 5_000, seconds: float = 0.5) -> Batch:
        """Up to so many records, waiting at most so long."""
        messages = _kafka(self._consumer.consume, records, seconds)
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        batch = Batch()
        lost: list[TopicPartition] = []
        for message in messages:
            self._take(batch, message, lost)
        if lost:
            self._restart(lost)
        batch.first = {partition: self._first[partition] for partition in batch.read if partition in self._first}
        return batch

    def commit(self, batch: Batch) -> None:
        """Commits what a batch has read, after it was staged. A partition lost in between is no error."""
        offsets = [
            TopicPartition(partition.topic, partition.number, read.until, COMMIT_MARK)
            for partition, read in batch.read.items()
        ]
        if not offsets:
            return
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() not in _PASSING:
                raise _failure(error.args[0]) from None
            log.info("offsets not committed, the partitions went to another sink", partitions=len(offsets))

    def _take(self, batch: Batch, message: Message, lost: list[TopicPartition]) -> None:
        error = message.error()
        place = (str(message.topic()), int(message.partition() or 0))
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            if error.code() == KafkaError._AUTO_OFFSET_RESET:
                lost.append(TopicPartition(*place))
            else:
                self._report(error, place[0])
            return
        if place not in self._position:  # revoked while it was on its way
            return
        offset = int(message.offset() or 0)
        until = offset if error is not None else offset + 1
        partition = Partition(place[0], self._ids[place[0]], place[1])
        start = batch.read[partition].start if partition in batch.read else self._position[place]
        until = max(until, self._position[place])
        self._position[place] = until
        if until > start or partition in self._first:
            batch.read[partition] = Range(start, until)
        if error is None:
            batch.records.append(KafkaRecord(*place, offset, message.key(), message.value(), _headers(message)))

    def _report(self, error: KafkaError, topic: str) -> None:
        code = error.code()
        if code == KafkaError.UNKNOWN_TOPIC_OR_PART:
            log.info("a topic is not there yet", topic=topic)
        elif error.fatal() or code in _REFUSED:
            raise _failure(error)
        else:
            log.warning("Kafka", reason=error.str())

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Errors must not leave a callback of librdkafka: they are raised by the poll that called it."""
        try:
            consumer.assign(self._starts(partitions))
        except OrdertapError as error:
            self._failure = error
        except KafkaException as error:
            self._failure = _failure(error.args[0])

    def _revoked(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            self._position.pop((partition.topic, partition.partition), None)

    def _restart(self, partitions: list[TopicPartition]) -> None:
        """Starts these partitions as if newly assigned; the others go on. librdkafka cannot seek a failed one."""
        starts = _kafka(self._starts, partitions)
        new = {(start.topic, start.partition) for start in starts}
        others = [TopicPartition(*place, at) for place, at in self._position.items() if place not in new]
        _kafka(self._consumer.assign, starts + others)

    def _starts(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        if not partitions:
            return []
        self._ids |= _topic_ids(self._admin, {partition.topic for partition in partitions})
        named = [Partition(p.topic, self._ids[p.topic], p.partition) for p in partitions]
        evidence = self._evidence(named)
        recreated = self._other_ids([partition for partition in named if partition not in evidence])
        starts = []
        for partition, found in zip(named, self._consumer.committed(partitions, timeout=_SECONDS), strict=True):
            committed = Committed(found.offset, found.metadata == COMMIT_MARK) if found.offset >= 0 else None
            low, high = self._consumer.get_watermark_offsets(found, timeout=_SECONDS)
            seen = evidence.get(partition)
            start = start_of(partition, committed, seen, low, high, partition.topic in recreated)
            if start.notice:
                log.info("offset", message=start.notice)
            if seen is None:
                self._first[partition] = low
            self._position[partition.topic, partition.number] = start.offset
            starts.append(TopicPartition(partition.topic, partition.number, start.offset))
        return starts


def topic_names(prefix: str, tables: Iterable[str]) -> list[str]:
    """The topics of these tables, of the transactions and notifications of a prefix, and of its index of commits."""
    parts = [*tables, "transaction", "notification"]
    return [*(topic_name(prefix, part) for part in parts), index_topic(prefix)]


QUIET: Final = {"log_level": "2"}
"""librdkafka writes each refused connection to stderr, many a second; what goes wrong is raised or logged by us."""
_DEFAULTS: Final = {
    **QUIET,
    "topic.metadata.refresh.interval.ms": "10000",  # a new table's topic is seen soon
    "session.timeout.ms": str(SESSION_SECONDS * 1000),
    "queued.max.messages.kbytes": "32768",
}
_FIXED: Final = {
    "isolation.level": "read_committed",
    "enable.auto.commit": "false",
    "enable.auto.offset.store": "false",
    "enable.partition.eof": "true",  # its offset says that only control records were left
    "auto.offset.reset": "error",
    "allow.auto.create.topics": "false",
}


def _shared(properties: Mapping[str, str]) -> set[str]:
    """The properties that an AdminClient takes as well."""
    prefixes = ("bootstrap.", "security.", "sasl.", "ssl.", "client.", "enable.ssl", "socket.", "oauth")
    return {name for name in properties if name.startswith(prefixes)}


def _topic_ids(admin: AdminClient, topics: set[str]) -> dict[str, str]:
    described = admin.describe_topics(TopicCollection(sorted(topics)), request_timeout=_SECONDS)
    return {topic: str(future.result().topic_id) for topic, future in described.items()}


def _headers(message: Message) -> list[tuple[str, bytes]]:
    return [(name, value or b"") for name, value in cast("list[tuple[str, bytes | None]]", message.headers() or [])]


def _kafka(call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except KafkaException as error:
        raise _failure(error.args[0]) from None


def _failure(error: KafkaError) -> OrdertapError:
    if error.code() in _REFUSED:
        return SettingsError(
            f"Kafka refuses: {error.str()}", "check the credentials in `kafka` and the ACLs of group and topics"
        )
    return UnavailableError(f"Kafka: {error.str()}", "check bootstrap_servers and that the brokers run")
