"""Groups source transactions into Kafka transactions, each with the position that it reaches and its part of the index
of commits. One commit is in flight.

While Kafka commits in a thread, the next source transactions wait here; what comes while none is in flight is produced
at once, so that sending goes on while the reader encodes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple

from capture.kafka.index import Index, News
from capture.kafka.producer import Fields, TransactionalProducer
from capture.metrics import BATCH_RECORDS, COMMIT_SECONDS, COMMITS
from capture.position import Position, accounted_key, dump_accounted
from schemas.model.commits import SnapshotState
from schemas.model.errors import SettingsError, UnavailableError

COMMIT_PATIENCE = 30.0
"""Seconds for a commit outside the stream."""
_LINGERS_BEHIND = 20
_MANY = 100  # changes: fewer of them come too slowly to be a backlog, whatever the clocks say


class Limits(NamedTuple):
    """When a Kafka transaction is closed (whichever comes first), and how long to wait for Kafka. Seconds, bytes."""

    linger: float
    changes: int
    size_bytes: int
    stall: float


class Writer:
    """Gathers the records of source transactions, and commits them to Kafka in larger transactions of its own.

    One is committed in the background while the next is gathered. `pending` says whether anything that was added is
    not durable yet; `durable` is the position that is.
    """

    def __init__(self, committed: PositionWriter, position: Position, limits: Limits) -> None:
        """`committed`: ends each Kafka transaction, and has the producer."""
        self._producer = committed.producer
        self._committed = committed
        self.index = committed.index
        self._limits = limits
        self.durable = position
        self.pending = False
        self.behind = False  # the changes that are read now were made a while ago
        self.full = False  # the reader should pause: as much waits as fits into the next Kafka transaction
        self._reaches: Position | None = None  # what the open Kafka transaction reaches
        self._opened_at = 0.0
        self._changes = 0
        self._bytes = 0
        self._waiting: list[tuple[Sequence[Fields] | None, int, Position, News | None]] = []
        self._waiting_changes = self._waiting_bytes = 0
        self._flight: Future[None] | None = None
        self._flight_position = position
        self._pending_since = self._took_off = self._waiting_since = 0.0
        self._thread = ThreadPoolExecutor(1, "kafka-commit")
        self.done_fd, self._done = os.pipe()

    def limit(self, limits: Limits) -> None:
        """Changes the limits."""
        self._limits = limits

    def lags(self, behind: bool) -> None:
        """Notes whether the changes that are being read were made a while ago."""
        self.behind = behind

    def add(self, records: Sequence[Fields], size: int, position: Position, news: News | None = None) -> None:
        """Takes records of a source transaction, their bytes, the position after them, and what they bring to the
        index: with the last of them, the commit."""
        if not self.pending:
            self._pending_since = time.monotonic()
        self.pending = True
        if self._flight is not None:
            if not self._waiting_changes:
                self._waiting_since = time.monotonic()
            self._waiting.append((records, size, position, news))
            self._waiting_changes += len(records)
            self._waiting_bytes += size
            limits = self._limits
            self.full = self._waiting_changes >= limits.changes or self._waiting_bytes >= limits.size_bytes
        else:
            self._produce(records, size, position, news)

    def advance(self, position: Position) -> None:
        """Nothing to write, but the source is further: the server may forget up to there as soon as nothing waits.

        Kafka has it with the next commit; what is only in this position and not in the source is for `add`.
        """
        if self._flight is not None:
            if self._waiting and self._waiting[-1][0] is None:  # many may come while Kafka is away
                self._waiting.pop()
            self._waiting.append((None, 0, position, None))
        elif self._reaches is not None:
            self._reaches = position
        else:
            self.durable = position

    def lingering(self, now: float) -> float:
        """How long the open Kafka transaction still waits for more; 0 if it does not wait."""
        if self._flight is not None or self._reaches is None:
            return 0.0
        return max(0.0, self._opened_at + self._linger() - now)

    def step(self, now: float, force: bool = False) -> None:
        """Takes the result of a finished commit, and starts one that is due. UnavailableError if Kafka stalls."""
        if self._flight is not None and self._flight.done():
            self._landed()
        if self._flight is None and self._reaches is not None and (force or self._due(now)):
            self._take_off()
        if self.pending and now - self._pending_since > self._limits.stall:
            seconds = round(now - self._pending_since)
            raise UnavailableError(
                f"Kafka has committed nothing for {seconds} s; disconnecting so that the shop's server can shut down",
                "check the broker; capture starts again from its position",
            )

    def flush(self, meanwhile: Callable[[], None], every: float = 0.5) -> None:
        """Returns when everything added is durable. Calls `meanwhile` about every `every` seconds."""
        while self.pending:
            self.step(time.monotonic(), force=True)
            if self._flight is None:
                continue
            if not wait([self._flight], every).done:  # its error comes with the next step
                meanwhile()

    def await_landing(self, seconds: float) -> None:
        """Sleeps until the commit in flight has ended, at most this long."""
        if self._flight is not None:
            wait([self._flight], seconds)

    def close(self) -> None:
        """Gives up what is not durable: it will be read from the source again."""
        if self._flight is None and self._reaches is not None:
            self._producer.abandon()
        # In the commits' thread: the end of one still writes to the pipe, and a closed number may be another file.
        self._thread.submit(self._close_pipe)
        self._thread.shutdown(wait=False)

    def _due(self, now: float) -> bool:
        full = self._changes >= self._limits.changes or self._bytes >= self._limits.size_bytes
        return full or now - self._opened_at >= self._linger()

    def _linger(self) -> float:
        """How long to linger. When capture is behind, nobody waits for these very changes, and larger Kafka
        transactions cost less."""
        return self._limits.linger * (_LINGERS_BEHIND if self.behind and self._changes >= _MANY else 1)

    def _produce(self, records: Sequence[Fields], size: int, position: Position, news: News | None) -> None:
        if self._reaches is None:
            self._producer.begin_transaction()
            self._opened_at = time.monotonic()
        self._reaches = position
        self._producer.produce(records)
        self._bytes += size
        self._changes += len(records)
        if position.parked:
            self.index.parked(position.parked)
        if news is not None:
            self.index.take(news)
            if self.index.full:
                self._producer.produce(self.index.record(position)[0])

    def _take_off(self) -> None:
        assert self._reaches is not None  # noqa: S101  the callers' condition
        self._flight_position, self._reaches = self._committed.end(self._reaches), None
        self._pending_since = time.monotonic()  # do not count our own stall against Kafka
        self._took_off = time.monotonic()
        BATCH_RECORDS.observe(self._changes)
        self._changes = self._bytes = 0
        self._flight = self._thread.submit(self._producer.commit, self._limits.stall)
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
        for records, size, position, news in waiting:
            if records is None:
                self.advance(position)
            else:
                self._produce(records, size, position, news)
        self.pending = self._reaches is not None
        if self.pending:
            self._opened_at = self._waiting_since  # it has lingered while the other was in flight


class PositionWriter:
    """Ends each Kafka transaction of a session with the index and the position; writes those where no stream does: of a
    snapshot, a start, a stop, repair and adopt."""

    def __init__(
        self,
        producer: TransactionalProducer,
        topic: str,
        key: bytes,
        index: Index,
        *,
        former: Fields | None = None,
        alone: Callable[[], object] | None = None,
    ) -> None:
        """`former` is written once beside the first position: it ends the use of another topic.

        `alone` is for a first position of this key. It raises SettingsError when there is another connector's:
        whoever writes and then looks is seen by the other one, or sees it.
        """
        self.producer = producer
        self.index = index
        self._topic = topic
        self._key = key
        self._former = former
        self._alone = alone

    def end(self, position: Position) -> Position:
        """Writes what every Kafka transaction ends with; the position as it is written."""
        records, position = self.index.record(position)
        if self._former is not None:
            records.append(self._former)
            self._former = None
        if (accounted := self.index.take_accounted()) is not None:
            records.append((self._topic, 0, accounted_key(self._key), dump_accounted(accounted), []))
        self.producer.produce([*records, (self._topic, 0, self._key, position.dump(), [])])
        return position

    def write(
        self,
        batch: Sequence[Fields],
        position: Position,
        states: tuple[SnapshotState, ...] = (),
        timeout: float = COMMIT_PATIENCE,
    ) -> None:
        """Writes one Kafka transaction, with snapshots whose state is new. `timeout`: seconds for its commit."""
        if self._alone is not None:
            self._claim(position)
        self.producer.begin_transaction()
        self.producer.produce(batch)
        self.index.take(News(states=states))
        self.end(position)
        self.producer.commit(timeout)

    def _claim(self, position: Position) -> None:
        """Writes the first position alone, and aborts if another connector's is there."""
        assert self._alone is not None  # noqa: S101  the caller's condition
        self._put(position.dump())
        try:
            self._alone()
        except SettingsError:
            self._put(None)
            raise
        self._alone = None

    def _put(self, value: bytes | None) -> None:
        self.producer.begin_transaction()
        self.producer.produce([(self._topic, 0, self._key, value, [])])
        self.producer.commit(COMMIT_PATIENCE)
