"""A group's committed offsets: shown beside the evidence, and reset after the effect was calculated.

This does what `kafka-consumer-groups --reset-offsets` does, on the same offsets. But first it says what will happen:
how many records are read again (which changes nothing) or skipped (a gap).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from functools import partial
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from tenacity import Retrying, retry_if_exception, retry_if_result, stop_after_delay, wait_fixed

from schemas.model.errors import SettingsError, UnavailableError
from sink.intake.consumer import QUIET
from sink.intake.evidence import Partition, Seen

_SECONDS: Final = 10.0
_ON_ITS_WAY: Final = (
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
)
Target: TypeAlias = Literal["earliest", "latest"] | datetime


class Effect(Enum):
    """What a reset does to a partition."""

    NOTHING = "nothing"
    REPLAY = "read again"
    GAP = "gap"
    RESUME = "read on"


class Offsets(NamedTuple):
    """One partition: the group's committed offset, Kafka's range, and what is staged (None: nothing yet). `high`: the
    end for `read_committed` consumers. `lag` counts offsets, transaction markers included."""

    partition: Partition
    committed: int | None
    low: int
    high: int
    staged: int | None

    @property
    def lag(self) -> int:
        return max(0, self.high - (self.low if self.committed is None else self.committed))


class Move(NamedTuple):
    """What a reset does to one partition: how many `offsets` are read again, skipped, or still to be read."""

    partition: Partition
    committed: int | None
    target: int
    effect: Effect
    offsets: int


def move(offsets: Offsets, target: int) -> Move:
    """The effect of setting a partition's committed offset."""
    known = offsets.low if offsets.staged is None else offsets.staged
    effect, count = Effect.NOTHING, 0
    if target > known:
        effect, count = Effect.GAP, target - known
    elif offsets.staged is not None and target < known:
        effect, count = Effect.REPLAY, known - target
    elif offsets.committed != target:
        effect, count = Effect.RESUME, offsets.high - target
    return Move(offsets.partition, offsets.committed, target, effect, count)


class GroupOffsets:
    """The committed offsets of a group on some topics. UnavailableError if Kafka does not answer."""

    def __init__(self, properties: Mapping[str, str], group: str, topics: Iterable[str]) -> None:
        self._properties = properties
        self._admin = AdminClient({**QUIET, **properties})
        self._group = group
        self._topics = sorted(set(topics))

    def partitions(self) -> list[Partition]:
        """The partitions of the topics that exist."""
        described = self._call(self._admin.describe_topics, TopicCollection(self._topics), request_timeout=_SECONDS)
        found = []
        for topic, future in described.items():
            try:
                description = future.result()
            except KafkaException as error:
                if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    continue
                raise self._unavailable(error) from None
            found += [Partition(topic, str(description.topic_id), part.id) for part in description.partitions]
        return sorted(found)

    def beginnings(self) -> dict[Partition, int]:
        """The lowest offset that each partition still has."""
        return self._at(self.partitions(), OffsetSpec.earliest())  # type: ignore[no-untyped-call]

    def show(self, evidence: Mapping[Partition, Seen]) -> list[Offsets]:
        """Committed, available and staged offsets of each partition that exists."""
        partitions = self.partitions()
        committed = self._committed(partitions)
        low = self._at(partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
        high = self._at(partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]
        return [
            Offsets(p, committed.get(p), low[p], high[p], evidence[p].next_offset if p in evidence else None)
            for p in partitions
        ]

    def plan(self, target: Target, evidence: Mapping[Partition, Seen]) -> list[Move]:
        """What `reset` would do; nothing is changed. A time goes to the first record at or after it."""
        shown = self.show(evidence)
        targets = {offsets.partition: offsets.low if target == "earliest" else offsets.high for offsets in shown}
        if isinstance(target, datetime):
            if target.tzinfo is None:
                raise SettingsError("the time has no time zone", "write it like 2026-11-23T08:00:00+01:00")
            at = self._at(list(targets), OffsetSpec.for_timestamp(int(target.timestamp() * 1000)))
            targets |= {partition: offset for partition, offset in at.items() if offset >= 0}
        return [move(offsets, targets[offsets.partition]) for offsets in shown]

    def members(self) -> list[str]:
        """The live members of the group, as `client id at host`."""
        try:
            group = _patiently(self._described)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                return []
            raise self._unavailable(error) from None
        if group.state in (ConsumerGroupState.DEAD, ConsumerGroupState.EMPTY):
            return []
        return [f"{member.client_id} at {member.host}" for member in group.members]

    def _described(self) -> Any:
        asked = self._admin.describe_consumer_groups([self._group], request_timeout=_SECONDS)
        return asked[self._group].result()

    def reset(self, moves: Sequence[Move], patience: float = 0.0) -> None:
        """Sets the offsets of a plan. SettingsError, and nothing changed, if the group has live members. A killed sink
        stays a member until its session times out: `patience` (seconds) waits for that."""
        gone = Retrying(
            retry=retry_if_result(bool),
            stop=stop_after_delay(patience),
            wait=wait_fixed(0.5),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else [],
        )
        members: list[str] = gone(self.members)
        if members:
            raise SettingsError(
                f"group {self._group} has live members ({', '.join(members)}): they would overwrite the reset",
                "stop every sink of this group, wait some seconds, and repeat",
            )
        offsets = [TopicPartition(m.partition.topic, m.partition.number, m.target) for m in moves]
        if not offsets:
            return
        request = ConsumerGroupTopicPartitions(self._group, offsets)
        answer = self._admin.alter_consumer_group_offsets([request], request_timeout=_SECONDS)[self._group]
        refused = [part for part in self._call(answer.result).topic_partitions if part.error is not None]
        if refused:
            reasons = ", ".join(f"{part.topic} [{part.partition}]: {part.error.str()}" for part in refused)
            raise SettingsError(f"Kafka did not reset: {reasons}", "check the ACLs of the group, then repeat")

    def _committed(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """Asks like a member that never joins. The admin client's own call ends the process with a segmentation fault
        if the coordinator that it knows is gone: librdkafka then looks for the client's group."""
        if not partitions:
            return {}
        consumer = Consumer({**QUIET, **self._properties, "group.id": self._group, "enable.auto.commit": False})
        try:
            parts = [TopicPartition(p.topic, p.number) for p in partitions]
            found = self._call(consumer.committed, parts, timeout=_SECONDS)
        finally:
            consumer.close()
        offsets = {(part.topic, part.partition): part.offset for part in found}
        return {p: offsets[p.topic, p.number] for p in partitions if offsets.get((p.topic, p.number), -1) >= 0}

    def _at(self, partitions: Sequence[Partition], spec: OffsetSpec) -> dict[Partition, int]:
        """The offsets that a specification means; -1 if its time is after the last record."""
        if not partitions:
            return {}
        wanted = {TopicPartition(p.topic, p.number): spec for p in partitions}
        found = self._call(
            self._admin.list_offsets, wanted, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=_SECONDS
        )
        by_place = {(part.topic, part.partition): self._call(future.result).offset for part, future in found.items()}
        return {p: by_place[p.topic, p.number] for p in partitions}

    def _call(self, call: Any, *arguments: Any, **named: Any) -> Any:
        try:
            return _patiently(partial(call, *arguments, **named))
        except KafkaException as error:
            raise self._unavailable(error) from None

    def _unavailable(self, error: KafkaException) -> UnavailableError:
        said = f"Kafka at {self._properties['bootstrap.servers']}: {error.args[0].str()}"
        return UnavailableError(said, "check bootstrap_servers and that the brokers run")


def _patiently(call: Callable[[], Any]) -> Any:
    """Tries again for some seconds while the group's coordinator is loading, because its broker has just started or
    taken over."""
    again = Retrying(
        retry=retry_if_exception(_is_on_its_way), stop=stop_after_delay(_SECONDS), wait=wait_fixed(0.5), reraise=True
    )
    return again(call)


def _is_on_its_way(error: BaseException) -> bool:
    return isinstance(error, KafkaException) and error.args[0].code() in _ON_ITS_WAY
