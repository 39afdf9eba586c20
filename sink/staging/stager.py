"""Keeps the copy: reads the index of commits and the tables' topics, and makes commits visible in their order.

Many commits become visible in one transaction of the middle layer, with the offsets up to which nothing is read again.
Kafka's offsets are committed after it, so a crash in between makes a replay, which is dropped by its offsets.

Two threads share the work: this one reads and decides what is next (`sequencer`), the other has the database
(`committer`) and does one transaction at a time, so the next commits are read while those before them are written.
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
"""Looks up what is staged of partitions."""


class Stager:
    """The stager of one shop, once it leads."""

    def __init__(self, writer: CopyWriter, tables: Mapping[str, str], index: str) -> None:
        """`tables` are the profile's, each with its usual topic; `index` is the topic of the index of commits."""
        self._writer = writer
        self._tables = frozenset(tables)
        self._index = index
        self._topics = {topic: table for table, topic in tables.items()}  # and what the index has named since the start

    def run(
        self,
        connection: Connection,
        consumer: Callable[[LookUp], ShopConsumer],
        stop: Callable[[], bool],
        turned: Callable[[str], None],
    ) -> None:
        """Stages until it is stopped. `turned` is told of each turn, with what keeps the copy from following the shop;
        "" for nothing. Errors of database and Kafka come through.

        The connection is the one that leads. Another thread uses it until this returns.
        """
        committer = Committer(connection, self._writer, self._tables, (self._index, 0))
        with SerialExecutor[CommitResult | None]() as database:
            database.run(committer.prepare)
            while not stop():
                try:
                    with consumer(lambda partitions: database.run(committer.staged, partitions)) as opened:
                        self._read(committer, database, opened, stop, turned)
                except NotAMemberError as error:  # by one that led before and woke up: it stands by once it sees that
                    log.warning("joining the group anew", reason=error.message)
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
                log.info("reading begins where the copy stands", reason=error.message)
            except SchemaBlockedError as error:  # the reader who is in the way must end first
                turned(error.message)
                log.warning("staging waits", reason=error.message, next=error.hint)
                database.run(committer.wait, error.message)

    def _copy(
        self,
        committer: Committer,
        database: SerialExecutor[CommitResult | None],
        consumer: ShopConsumer,
        stop: Callable[[], bool],
        turned: Callable[[str], None],
    ) -> None:
        """From one assignment of all partitions to the next. What was read before it counts no more: what is staged is
        asked for only after what was in flight has ended."""
        database.discard()
        database.run(committer.roll_back)
        while not consumer.restart():
            turned(_NOT_ASSIGNED)
            if stop():
                return
            database.run(committer.wait, _NOT_ASSIGNED)
            consumer.poll(_IDLE)
        sequencer = Sequencer(committer, database, consumer, self._index, self._tables, self._topics)
        while True:
            turned(sequencer.blocked)
            if stop():
                break
            sequencer.turn()
        sequencer.leave()
