"""Reads the topics of a shop: only committed records, explicit offsets, and a stated rule for each odd start.

librdkafka never chooses an offset by itself (`auto.offset.reset=error`). Where a partition starts is decided here, from
the group's committed offset and the evidence of what is staged, and logged in one message.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Self

import structlog
from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]
from confluent_kafka.admin._listoffsets import OffsetSpec

from schemas.model.commits import index_topic
from schemas.model.errors import OrdertapError, SettingsError, UnavailableError
from schemas.writing.envelope import topic_name
from sink.intake.evidence import Partition, Seen

log = structlog.get_logger()

COMMIT_MARK: Final = "ordertap: staged"
"""Metadata of the offsets that the sink commits. Tools that reset offsets write other metadata or none. So we can tell
an operator's skip (a gap) from a middle layer that was restored from an older backup (go back to its evidence)."""

SESSION_SECONDS: Final = 10
"""The group drops a killed sink after this time."""
_SECONDS: Final = 10.0
_JOINING: Final = 3.0  # seconds that joining the group may take
_BATCH: Final = 5_000
_PASSING: Final = (
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError._STATE,
    KafkaError._ASSIGNMENT_LOST,
    KafkaError._NO_OFFSET,
)
"""Kafka refused a commit because another member has the partition now. That member reads again, which is harmless."""
_REFUSED: Final = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,
)
_FENCED: Final = (KafkaError.FENCED_INSTANCE_ID, KafkaError._FENCED, KafkaError._FATAL)

Place = tuple[str, int]


class ReadAgainError(UnavailableError):
    """Records that were read but not staged must be read again: partitions were taken away, or their offsets are
    gone."""


class NotAMemberError(UnavailableError):
    """The group has expelled this consumer for good; create a new one."""


class Committed(NamedTuple):
    """A group's committed offset, and whether the sink itself committed it."""

    offset: int
    ours: bool


class Start(NamedTuple):
    """Where to read a partition from, and what to tell the operator when that is not simply the next record.

    `new`: nobody has read the partition before.
    """

    offset: int
    notice: str = ""
    new: bool = False


class Assigned(NamedTuple):
    """A partition as reading begins at `start`. `low` is its lowest offset, `high` its end at that moment.

    `seen` is what is staged of it, None: nothing yet.
    """

    partition: Partition
    start: int
    low: int
    high: int
    seen: Seen | None

    @property
    def place(self) -> Place:
        return self.partition.topic, self.partition.number


def start_of(
    partition: Partition, committed: Committed | None, seen: Seen | None, low: int, high: int, recreated: bool = False
) -> Start:
    """Where a partition starts. `recreated`: there is evidence for a topic of this name with another id. SettingsError
    if Kafka has lost records that are staged: going on would take new records for replays."""
    where = str(partition)
    if seen is not None and seen.next_offset > high:
        raise SettingsError(
            f"{where} ends at offset {high}, but records up to {seen.next_offset} are staged: Kafka has lost records",
            "find out why; to continue, `capture repair --execute` reads the shop's tables again",
        )
    start = _wanted(where, committed, seen, low, recreated)
    if start.offset < low:
        lost = seen is None or seen.next_offset < low
        notice = f"{where}: offset {start.offset} is gone (expired by retention); starting at {low}"
        return Start(low, notice + (", which leaves a gap" if lost else ", nothing is lost"))
    if start.offset > high:
        return Start(high, f"{where}: committed offset {start.offset} is past the end; starting at {high}")
    return start


def _wanted(where: str, committed: Committed | None, seen: Seen | None, low: int, recreated: bool) -> Start:
    if recreated and seen is None:
        return Start(low, f"{where}: the topic was recreated (its id has changed); starting at its beginning, {low}")
    if committed is None:
        if seen is None:
            return Start(low, new=True)
        notice = f"{where}: the group has no committed offset any longer (expired?); continuing at {seen.next_offset}"
        return Start(seen.next_offset, notice)
    if not committed.ours or (seen is not None and committed.offset <= seen.next_offset):
        return _chosen(where, committed.offset, seen, low)
    if seen is None:
        return Start(low, f"{where}: the middle layer is empty; reading again from the beginning, {low}")
    notice = f"{where}: the middle layer is older than the committed offset {committed.offset} (restored?)"
    return Start(seen.next_offset, f"{notice}; going back to {seen.next_offset}")


def _chosen(where: str, offset: int, seen: Seen | None, low: int) -> Start:
    known = low if seen is None else seen.next_offset
    if offset > known:
        return Start(offset, f"{where}: the group's offset was set forward to {offset}: [{known}, {offset}) is a gap")
    if offset < known:
        return Start(offset, f"{where}: reading again from {offset}; up to {known} all is staged and changes nothing")
    return Start(offset)


class Staged(NamedTuple):
    """What the middle layer knows of partitions: evidence, the topics that were made again, the index's next offset."""

    evidence: Mapping[Partition, Seen]
    recreated: Collection[str]
    of_index: Mapping[Partition, int]


class ShopConsumer:
    """One member of a shop's group. UnavailableError if Kafka does not answer, SettingsError if it refuses,
    ReadAgainError if what was read so far no longer counts."""

    def __init__(
        self,
        properties: Mapping[str, str],
        topics: Iterable[str],
        index: str,
        staged: Callable[[Sequence[Partition]], Staged],
    ) -> None:
        """`properties`: librdkafka's, with `group.id`. `staged`: asked each time that reading begins."""
        self._index = index
        self._staged = staged
        self._topics = sorted({*topics, index})
        self._ours: list[Place] = []
        self._assigned: dict[Place, Assigned] = {}
        self._failure: OrdertapError | None = None
        self.paused: set[Place] = set()
        self._joined_at = 0.0
        self._admin = AdminClient({**QUIET, **{k: properties[k] for k in _shared(properties)}})
        instance = {"group.instance.id": f"{properties['group.id']}-stager"}
        self._consumer = Consumer({**_DEFAULTS, **instance, **properties, **_FIXED, "on_commit": self._on_commit})
        self._consumer.subscribe(self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    @property
    def assigned(self) -> Mapping[Place, Assigned]:
        """The partitions that are read, as reading began."""
        return self._assigned

    def restart(self) -> bool:
        """Reads all partitions from where the copy stands now; False while not all of them are ours. What was polled
        during an assignment may belong to the one before, and is read again."""
        self._failure = None
        if not self._ours:
            return False
        shown = _kafka(_shown, self._admin, set(self._topics))
        if missing := _places(shown) - set(self._ours):
            self._join_again(missing)
            return False
        # A member that comes back is given topics of before, too; nobody has said since which table they are of.
        ours = [TopicPartition(*place) for place in self._ours if place[0] in self._topics]
        starts: list[Assigned] = _kafka(self._starts, ours, shown)
        _kafka(self._consumer.assign, [TopicPartition(*one.place, one.start) for one in starts])
        # librdkafka keeps a partition paused across an assignment.
        _kafka(self._consumer.resume, [TopicPartition(*one.place) for one in starts])
        self._assigned = {one.place: one for one in starts}
        self.paused = set()
        return True

    def _join_again(self, missing: Collection[Place]) -> None:
        """Leaves and joins as a new member. One that comes back under its name would get its former partitions,
        whatever it subscribes to now, because Kafka then asks for no new assignment."""
        now = time.monotonic()
        if now - self._joined_at < _JOINING:
            return
        self._joined_at = now
        log.info("joining the group again", partitions=len(missing))
        self._ours, self._assigned = [], {}
        _kafka(self._consumer.unsubscribe)
        _kafka(self._consumer.subscribe, self._topics, self._on_assign, self._on_revoke)

    def poll(self, seconds: float) -> list[Message]:
        """Records, and the ends of partitions (PARTITION_EOF). Waits at most this long for the first. ReadAgainError
        once partitions were taken away."""
        first = _kafka(self._consumer.poll, seconds)
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        if first is None:
            return []
        messages = [first, *_kafka(self._consumer.consume, _BATCH, 0)]
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return messages

    def follow(self, topics: Iterable[str]) -> None:
        """Reads these topics as well. If any of them is new, what was read but not staged is read again."""
        wanted = sorted({*self._topics, *topics})
        if wanted != self._topics:
            self._topics = wanted
            _kafka(self._consumer.subscribe, wanted, self._on_assign, self._on_revoke)

    def pause(self, places: set[Place]) -> None:
        """Pauses these partitions and goes on with the others."""
        stop, go = places - self.paused, self.paused - places
        if stop:
            _kafka(self._consumer.pause, [TopicPartition(*place) for place in stop])
        if go:
            self._resume([TopicPartition(*place) for place in go])
        self.paused = set(places)

    def _resume(self, partitions: list[TopicPartition]) -> None:
        """Resumes partitions. librdkafka does not wake the thread of a broker all of whose partitions were paused,
        which then fetches nothing for up to a second. A seek to where we are wakes it."""
        _kafka(self._consumer.resume, partitions)
        for partition in _kafka(self._consumer.position, partitions):
            if partition.offset < 0:  # nothing of it was read yet
                continue
            try:
                self._consumer.seek(partition)
            except KafkaException as error:
                if error.args[0].code() != KafkaError._STATE:  # taken away by now: the next poll says so
                    raise _failure(error.args[0]) from None

    def uncommitted_ends(self, topics: Iterable[str]) -> dict[Place, int]:
        """The ends of all partitions of these topics that the broker shows, open transactions included: whatever is
        committed later comes after them. Topics that do not exist have none. (A `read_committed` consumer's own
        watermarks are the last stable offsets.)"""
        shown = _kafka(_shown, self._admin, set(topics))
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        return self._at(_places(shown), latest)

    def keeps_deletes(self, topic: str) -> float | None:
        """How many seconds a compacted topic keeps its tombstones; None if it is not compacted, or if Kafka does not
        tell us."""
        try:
            (future,) = self._admin.describe_configs(
                [ConfigResource(ResourceType.TOPIC, topic)], request_timeout=_SECONDS
            ).values()
            found = _kafka(future.result)
        except SettingsError as error:
            log.warning("whether a topic is compacted is not known", topic=topic, reason=error.message)
            return None
        if "compact" not in found["cleanup.policy"].value:
            return None
        return int(found["delete.retention.ms"].value) / 1000

    def _at(self, places: Iterable[Place], spec: OffsetSpec) -> dict[Place, int]:
        """In one request for all. The consumer's own connection would wait behind a fetch."""
        wanted = {TopicPartition(*place): spec for place in places}
        if not wanted:
            return {}
        answers = _kafka(self._list_offsets, wanted)
        return {(part.topic, part.partition): _kafka(answer.result).offset for part, answer in answers.items()}

    def _list_offsets(self, wanted: Mapping[TopicPartition, OffsetSpec]) -> Any:
        level = IsolationLevel.READ_UNCOMMITTED
        return self._admin.list_offsets(dict(wanted), isolation_level=level, request_timeout=_SECONDS)

    def commit(self, offsets: Mapping[Place, int], wait: bool = False) -> None:
        """Commits offsets once everything before them is staged. A partition lost in between is no error."""
        parts = [TopicPartition(*place, offset, COMMIT_MARK) for place, offset in offsets.items()]
        if not parts:
            return
        try:
            if wait:
                self._consumer.commit(offsets=parts, asynchronous=False)
            else:
                self._consumer.commit(offsets=parts)
        except KafkaException as error:
            if error.args[0].code() not in _PASSING:
                raise _failure(error.args[0]) from None

    def report(self, error: KafkaError, topic: str) -> None:
        """Raises or logs an error that came in place of a record."""
        code = error.code()
        if code == KafkaError._AUTO_OFFSET_RESET:
            raise ReadAgainError(f"{topic}: the offset is out of Kafka's range", "the start offset is looked up again")
        if code == KafkaError.UNKNOWN_TOPIC_OR_PART:
            log.info("a topic is not there yet", topic=topic)
        elif error.fatal() or code in (*_FENCED, *_REFUSED):
            raise _failure(error)
        else:
            log.warning("Kafka", reason=error.str())

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Takes the partitions but reads nothing yet: `restart` says where each begins."""
        self._ours = [(part.topic, part.partition) for part in partitions]
        consumer.assign([])
        self._failure = ReadAgainError("partitions were assigned", "reading begins where the copy stands")

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        """What is staged stays staged; the next commit covers these offsets too."""
        refused = error or next((part.error for part in partitions if part.error), None)
        if refused is not None:
            log.warning("Kafka does not accept the offsets", reason=refused.str())

    def _on_revoke(self, _consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        self._ours, self._assigned = [], {}
        self._failure = ReadAgainError("partitions were taken away", "another sink may have taken over")

    def _starts(self, partitions: list[TopicPartition], shown: Mapping[str, tuple[str, int]]) -> list[Assigned]:
        if gone := {partition.topic for partition in partitions} - shown.keys():
            raise UnavailableError(f"Kafka no longer has these topics: {', '.join(sorted(gone))}", "it is tried again")
        named = [Partition(p.topic, shown[p.topic][0], p.partition) for p in partitions]
        known = self._staged(named)
        starts: list[Assigned] = []
        new: set[str] = set()
        places = [(partition.topic, partition.number) for partition in named]
        lows = self._at(places, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
        highs = self._at(places, OffsetSpec.latest())  # type: ignore[no-untyped-call]
        for partition, found in zip(named, self._consumer.committed(partitions, timeout=_SECONDS), strict=True):
            low, high = lows[found.topic, found.partition], highs[found.topic, found.partition]
            if partition.topic == self._index:
                start = Start(min(high, max(low, known.of_index.get(partition, low))))
            else:
                committed = Committed(found.offset, found.metadata == COMMIT_MARK) if found.offset >= 0 else None
                recreated = partition.topic in known.recreated
                start = start_of(partition, committed, known.evidence.get(partition), low, high, recreated)
            if start.notice:
                log.info("offset", message=start.notice)
            new |= {partition.topic} if start.new else set()
            starts.append(Assigned(partition, start.offset, low, high, known.evidence.get(partition)))
        if new:
            log.info("topics are new: they are read from their beginning", topics=sorted(new))
        return starts


def is_end(error: KafkaError) -> bool:
    """Whether what came in place of a record is just the end of its partition."""
    return bool(error.code() == KafkaError._PARTITION_EOF)


def topic_names(prefix: str, tables: Iterable[str]) -> list[str]:
    """The topics that the sink of a prefix reads: the index of commits, and the default topics of these tables. The
    index may name others for a table."""
    return [index_topic(prefix), *(topic_name(prefix, table) for table in tables)]


QUIET: Final = {"log_level": "2"}
"""Drops librdkafka's own messages: it writes each refused connection to stderr, many a second. We raise or log what
goes wrong."""
_DEFAULTS: Final = {
    **QUIET,
    "topic.metadata.refresh.interval.ms": "10000",  # a new table's topic is seen soon
    "session.timeout.ms": str(SESSION_SECONDS * 1000),
    # A small queue with a short back-off: with the default of a second a partition that was drained stands still. A
    # request that waits for records holds up those for partitions that are resumed meanwhile, so it waits briefly.
    "queued.min.messages": "5000",
    "queued.max.messages.kbytes": "16384",
    "fetch.message.max.bytes": "262144",
    "fetch.queue.backoff.ms": "2",
    "fetch.wait.max.ms": "20",
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
    """The properties that an AdminClient also accepts."""
    prefixes = ("bootstrap.", "security.", "sasl.", "ssl.", "client.", "enable.ssl", "socket.", "oauth")
    return {name for name in properties if name.startswith(prefixes)}


def _shown(admin: AdminClient, topics: set[str]) -> dict[str, tuple[str, int]]:
    """The id and the number of partitions of each topic that exists."""
    if not topics:
        return {}
    found = {}
    for topic, future in admin.describe_topics(TopicCollection(sorted(topics)), request_timeout=_SECONDS).items():
        try:
            description = future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
            continue
        found[topic] = (str(description.topic_id), len(description.partitions))
    return found


def _places(shown: Mapping[str, tuple[str, int]]) -> set[Place]:
    return {(topic, number) for topic, (_, count) in shown.items() for number in range(count)}


def _kafka(call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except KafkaException as error:
        raise _failure(error.args[0]) from None


def _failure(error: KafkaError) -> OrdertapError:
    if error.code() in _FENCED:
        hint = "the leader rejoins, the other stands by"
        return NotAMemberError(f"another sink has taken this one's place in the group ({error.str()})", hint)
    if error.code() in _REFUSED:
        return SettingsError(
            f"Kafka refuses: {error.str()}", "check the credentials in `kafka` and the ACLs of group and topics"
        )
    return UnavailableError(f"Kafka: {error.str()}", "check bootstrap_servers and that the brokers run")
