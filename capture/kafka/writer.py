"""Groups source transactions into Kafka transactions, each with the position that it reaches. One commit is in flight.

While Kafka commits in a thread, the next source transactions wait here; what comes while none is in flight is produced
at once, so that sending goes on while the reader encodes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple

from capture.kafka.position import Position
from capture.kafka.producer import Fields, Record, TransactionalProducer
from capture.metrics import BATCH_RECORDS, COMMIT_SECONDS, COMMITS
from schemas.errors import UnavailableError

_LINGERS_BEHIND = 20
_MANY = 100  # changes: fewer of them come too slowly to be a backlog, whatever the clocks say


class Limits(NamedTuple):
    """When a Kafka transaction is closed (whichever is first), and when we stop waiting for Kafka. Seconds, bytes."""

    linger: float
    changes: int
    size_bytes: int
    stall: float


class Writer:
    """`pending` says whether anything that was added is not durable yet; `durable` is the position that is."""

    def __init__(
        self, producer: TransactionalProducer, topic: str, key: bytes, position: Position, limits: Limits
    ) -> None:
        self._producer = producer
        self._topic = topic
        self._key = key
        self.limits = limits
        self.durable = position
        self.pending = False
        self.behind = False  # the changes that are read now were made a while ago
        self.full = False  # the reader should pause: as much waits as fits into the next Kafka transaction
        self._reaches: Position | None = None  # what the open Kafka transaction reaches
        self._opened_at = 0.0
        self._changes = 0
        self._bytes = 0
        self._waiting: list[tuple[Sequence[Fields] | None, int, Position]] = []
        self._waiting_changes = self._waiting_bytes = 0
        self._flight: Future[None] | None = None
        self._flight_position = position
        self._pending_since = self._took_off = self._waiting_since = 0.0
        self._thread = ThreadPoolExecutor(1, "kafka-commit")
        self.done_fd, self._done = os.pipe()

    def add(self, records: Sequence[Fields], size: int, position: Position) -> None:
        """Takes the records of one source transaction (or part of a large one), their bytes, the position after it."""
        if not self.pending:
            self._pending_since = time.monotonic()
        self.pending = True
        if self._flight is not None:
            if not self._waiting_changes:
                self._waiting_since = time.monotonic()
            self._waiting.append((records, size, position))
            self._waiting_changes += len(records)
            self._waiting_bytes += size
            limits = self.limits
            self.full = self._waiting_changes >= limits.changes or self._waiting_bytes >= limits.size_bytes
        else:
            self._produce(records, size, position)

    def advance(self, position: Position) -> None:
        """Nothing to write, but the source is further: the server may forget up to there as soon as nothing waits.

        Kafka has it with the next commit; what is only in this position and not in the source is for `add`.
        """
        if self._flight is not None:
            if self._waiting and self._waiting[-1][0] is None:  # many may come while Kafka is away
                self._waiting.pop()
            self._waiting.append((None, 0, position))
        elif self._reaches is not None:
            self._reaches = position
        else:
            self.durable = position

    def lingering(self, now: float) -> float:
        """How long the open Kafka transaction still waits for more; 0 when none does."""
        if self._flight is not None or self._reaches is None:
            return 0.0
        return max(0.0, self._opened_at + self._linger() - now)

    def step(self, now: float, force: bool = False) -> None:
        """Takes note of a finished commit, and starts one that is due. UnavailableError when Kafka stalls."""
        if self._flight is not None and self._flight.done():
            self._landed()
        if self._flight is None and self._reaches is not None and (force or self._due(now)):
            self._take_off()
        if self.pending and now - self._pending_since > self.limits.stall:
            seconds = round(now - self._pending_since)
            raise UnavailableError(
                f"Kafka took nothing durable for {seconds} s: letting go of the shop's log so that it can be shut down",
                "check the broker; capture starts again from its position",
            )

    def flush(self, meanwhile: Callable[[], None], every: float = 0.5) -> None:
        """Makes all that was added durable before it returns; calls `meanwhile` about `every` so many seconds."""
        while self.pending:
            self.step(time.monotonic(), force=True)
            if self._flight is None:
                continue
            if not wait([self._flight], every).done:  # its error comes with the next step
                meanwhile()

    def await_landing(self, seconds: float) -> None:
        """Sleeps until the commit in flight has ended, at most so long."""
        if self._flight is not None:
            wait([self._flight], seconds)

    def close(self) -> None:
        """Gives up what is not durable: it is read from the source again."""
        if self._flight is None and self._reaches is not None:
            self._producer.abandon()
        # In the commits' thread: the end of one still writes to the pipe, and a closed number may be another file.
        self._thread.submit(self._close_pipe)
        self._thread.shutdown(wait=False)

    def _due(self, now: float) -> bool:
        full = self._changes >= self.limits.changes or self._bytes >= self.limits.size_bytes
        return full or now - self._opened_at >= self._linger()

    def _linger(self) -> float:
        """Behind, nobody waits for just these changes, and larger Kafka transactions cost less."""
        return self.limits.linger * (_LINGERS_BEHIND if self.behind and self._changes >= _MANY else 1)

    def _produce(self, records: Sequence[Fields], size: int, position: Position) -> None:
        if self._reaches is None:
            self._producer.begin_transaction()
            self._opened_at = time.monotonic()
        self._reaches = position
        self._producer.produce(records)
        self._bytes += size
        self._changes += len(records)

    def _take_off(self) -> None:
        assert self._reaches is not None  # noqa: S101  the callers' condition
        self._producer.produce([Record(self._topic, 0, self._key, self._reaches.dump(), [])])
        self._flight_position, self._reaches = self._reaches, None
        self._pending_since = time.monotonic()  # Kafka is not to blame when it was we who stood still
        self._took_off = time.monotonic()
        BATCH_RECORDS.observe(self._changes)
        self._changes = self._bytes = 0
        self._flight = self._thread.submit(self._producer.commit, self.limits.stall)
        self._flight.add_done_callback(self._wake)

    def _wake(self, _future: Future[None]) -> None:
        os.write(self._done, b".")

    def _close_pipe(self) -> None:
        os.close(self.done_fd)
        os.close(self._done)

    def _landed(self) -> None:
        flight, self._flight = self._flight, None
        os.read(self.done_fd, 1)
        assert flight is not None  # noqa: S101
        flight.result()
        self.durable = self._flight_position
        COMMITS.inc()
        COMMIT_SECONDS.observe(time.monotonic() - self._took_off)
        waiting, self._waiting = self._waiting, []
        self.full = False
        self._waiting_changes = self._waiting_bytes = 0
        self._pending_since = time.monotonic()
        for records, size, position in waiting:
            if records is None:
                self.advance(position)
            else:
                self._produce(records, size, position)
        self.pending = self._reaches is not None
        if self.pending:
            self._opened_at = self._waiting_since  # it has lingered while the other was in flight


class PositionWriter(NamedTuple):
    """Writes records with the position where no stream does: a snapshot, a start, a stop, repair and adopt."""

    producer: TransactionalProducer
    topic: str
    key: bytes
    timeout: float = 30.0  # seconds for a commit

    def write(self, batch: Sequence[Record], position: Position) -> None:
        """One Kafka transaction."""
        self.producer.begin_transaction()
        self.producer.produce(batch)
        self.producer.produce([Record(self.topic, 0, self.key, position.dump(), [])])
        self.producer.commit(self.timeout)
