"""The stager: reads the index of commits and the tables' topics, and makes commits visible in order.

One transaction of the middle layer makes many commits visible and writes the offsets that are staged. Kafka's offsets
are committed after it; if the process dies in between, records are read again and dropped by their offsets.

Two threads share the work: this one reads and decides what is next (`sequencer`), the other has the database
(`committer`) and does one transaction at a time. So the next commits are read while the last ones are written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import structlog

from sink.database import Connection
from sink.intake.consumer import NotAMemberError, ReadAgainError, ShopConsumer, Staged
from sink.intake.evidence import Partition
from sink.staging.committer import CommitResult, Committer
from sink.staging.schema import SchemaBlockedError
from sink.staging.sequencer import Sequencer
from sink.staging.serial_executor import SerialExecutor
from sink.staging.writer import CopyWriter

log = structlog.get_logger()

_IDLE: Final = 0.5  # seconds that a poll waits
_REJOINS: Final = 1.0  # seconds
_NOT_ASSIGNED: Final = "Kafka has not assigned all partitions of the shop's topics to this sink yet"

LookUp: TypeAlias = Callable[[Sequence[Partition]], Staged]
"""Looks up the staged offsets of partitions."""


class Stager:
    """The stager of one shop, for the process that leads."""

    def __init__(self, writer: CopyWriter, tables: Mapping[str, str], index: str) -> None:
        """`tables`: table → its default topic; `index`: the topic of the index of commits."""
        self._writer = writer
        self._tables = frozenset(tables)
        self._index = index
        self._topics = {topic: table for table, topic in tables.items()}  # and what the index names

    def run(
        self,
        connection: Connection,
        consumer: Callable[[LookUp], ShopConsumer],
        stop: Callable[[], bool],
        turned: Callable[[str], None],
    ) -> None:
        """Stages until `stop` says so. `turned` is called each turn with what keeps the copy from following the shop,
        "" for nothing. Raises errors of database and Kafka.

        `connection`: the session that leads. Another thread uses it until this returns.
        """
        committer = Committer(connection, self._writer, self._tables, (self._index, 0))
        with SerialExecutor[CommitResult | None]() as database:
            database.run(committer.prepare)
            while not stop():
                try:
                    with consumer(lambda partitions: database.run(committer.staged, partitions)) as opened:
                        self._read(committer, database, opened, stop, turned)
                # A former leader woke up and joined; it leaves once it sees that it does not lead.
                except NotAMemberError as error:
                    log.warning("joining the group again", reason=error.message)
                    time.sleep(_REJOINS)

    def _read(
        self,
        committer: Committer,
        database: SerialExecutor[CommitResult | None],
        consumer: ShopConsumer,
        stop: Callable[[], bool],
        turned: Callable[[str], None],
    ) -> None:
        while not stop():
            try:
                self._copy(committer, database, consumer, stop, turned)
            except ReadAgainError as error:
                log.info("reading begins at the copy's position", reason=error.message)
            except SchemaBlockedError as error:  # the session that holds the lock has to end first
                turned(error.message)
                log.warning("staging waits", reason=error.message, next=error.hint)
                database.run(committer.say_waiting, error.message)

    def _copy(
        self,
        committer: Committer,
        database: SerialExecutor[CommitResult | None],
        consumer: ShopConsumer,
        stop: Callable[[], bool],
        turned: Callable[[str], None],
    ) -> None:
        """Works from one assignment of partitions to the next. What was read before is void. The staged offsets are
        looked up only after the jobs in flight have ended."""
        database.discard()
        database.run(committer.roll_back)
        while not consumer.restart():
            turned(_NOT_ASSIGNED)
            if stop():
                return
            database.run(committer.say_waiting, _NOT_ASSIGNED)
            consumer.poll(_IDLE)
        sequencer = Sequencer(committer, database, consumer, self._index, self._tables, self._topics)
        while True:
            turned(sequencer.blocked)
            if stop():
                break
            sequencer.turn()
        sequencer.leave()
