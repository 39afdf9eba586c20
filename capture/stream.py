"""Reads the log from a position on: assembles source transactions and hands them to the writer, whole."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

import structlog

from capture import pgoutput
from capture.acknowledge import Acknowledger
from capture.metrics import Metrics
from capture.own_records import OwnRecords
from capture.position import Partial, Position, parse_heartbeat
from capture.producer import Record
from capture.replication import Leadership, Replication, database_errors, slot_state
from capture.tables import Draft, Table, Tables
from capture.writer import Writer
from schemas.change import STAMP_HEADER, TRANSACTION_HEADER, Stamp, stamp_header, transaction_header
from schemas.codec import SourceOrigin, SourcePrefix
from schemas.errors import SettingsError
from schemas.lsn import LSN
from schemas.relation import Relation

log = structlog.get_logger("capture")
Result = TypeVar("Result")

HEARTBEAT_PREFIX: Final = "ordertap.heartbeat"
_ROUND: Final = 256  # messages between two looks at the clock
_GATHER: Final = 0.001  # seconds
_DRAFT_OVERHEAD: Final = 200  # bytes of memory beside key and value, roughly


class Options(NamedTuple):
    """What shapes a stream. Seconds, rows, bytes."""

    slot: str
    heartbeat: float
    buffer_rows: int
    buffer_bytes: int
    keepalive: float
    metadata: bool


@dataclass(slots=True)
class Beats:
    """Numbers the heartbeats of one process, over all of its streams: a gap in them is a slot that somebody moved."""

    run: str
    number: int = 0


class Transaction:
    """The source transaction that is being read."""

    __slots__ = ("bytes", "commit_lsn", "commit_us", "drafts", "ordinal", "prefix", "size", "skip", "streamed", "xid")

    def __init__(self, begin: pgoutput.Begin, prefix: SourcePrefix, skip: float, size: dict[str, int]) -> None:
        self.commit_lsn, self.commit_us, self.xid = begin
        self.prefix = prefix
        self.skip = skip  # changes up to this ordinal are in Kafka already
        self.size = size
        self.ordinal = 0
        self.drafts: list[Draft] = []
        self.bytes = 0
        self.streamed = bool(size)

    @property
    def id(self) -> str:
        """As Debezium writes it: xid:lsn."""
        return f"{self.xid}:{int(self.commit_lsn)}"


class Stream:
    """One run of streaming; any error ends it, and the next start reads the position anew."""

    def __init__(
        self,
        replication: Replication,
        leadership: Leadership,
        writer: Writer,
        tables: Tables,
        own: OwnRecords,
        origin: SourceOrigin,
        position: Position,
        options: Options,
        metrics: Metrics,
        beats: Beats,
    ) -> None:
        self._replication = replication
        self._leadership = leadership
        self._writer = writer
        self._tables = tables
        self._own = own
        self._origin = origin
        self._position = position  # after the last whole transaction that was read
        self._options = options
        self._metrics = metrics
        self._beats = beats
        self._next_beat = 0.0
        self._told_alive = 0.0
        self._acknowledger = Acknowledger()
        self._open: Transaction | None = None
        self._aside = ThreadPoolExecutor(1, "aside")
        self._handlers: dict[type, Callable[[Any, int], None]] = {
            pgoutput.Begin: self._begin,
            pgoutput.Commit: self._commit,
            pgoutput.Insert: self._insert,
            pgoutput.Update: self._update,
            pgoutput.Delete: self._delete,
            pgoutput.Truncate: self._truncate,
            Relation: self._relation,
            pgoutput.LogicalMessage: self._message,
            pgoutput.Origin: self._ignore,
            pgoutput.Type: self._ignore,
        }

    def run(self, stopping: Callable[[], bool]) -> Position:
        """Reads until `stopping()`; returns the durable position. Everything whole that was read is then in Kafka."""
        try:
            while not stopping():
                now = time.monotonic()
                self._look_around(now)
                if not self._read_round():
                    self._pause(now)
            self._writer.flush(self._alive)
            self._replication.confirm(self._writer.durable.end_lsn, force=True)
            return self._writer.durable
        finally:
            self._aside.shutdown(wait=False)

    def _pause(self, now: float) -> None:
        """Nothing to read just now. While a Kafka transaction lingers, rows gather: they cost less by the dozen."""
        lingering = self._writer.lingering(now)
        if lingering > _GATHER:
            time.sleep(_GATHER)
        else:
            pause = min(lingering or 0.5, max(0.0, self._next_beat - now), 0.5)
            self._replication.wait(pause, self._writer.done_fd)

    def _look_around(self, now: float) -> None:
        """What has its time: commits, heartbeats, feedback."""
        self._writer.step(now)
        self._metrics.turned()
        if now >= self._next_beat:
            self._next_beat = now + self._options.heartbeat
            self._beat()
        durable = self._writer.durable.end_lsn
        if self._acknowledger.due(now, self._writer.pending, durable):
            self._replication.confirm(durable)
            self._acknowledger.told(now, durable)
        if now - self._told_alive >= self._options.keepalive:
            self._told_alive = now
            self._alive()

    def _beat(self) -> None:
        self._beats.number += 1
        content = json.dumps({"run": self._beats.run, "number": self._beats.number, "slot": self._options.slot})
        self._leadership.heartbeat(HEARTBEAT_PREFIX, content)
        slot = slot_state(self._leadership.connection, self._options.slot)
        if slot is not None:
            self._metrics.slot(slot.held_bytes, slot.safe_bytes)

    def _read_round(self) -> bool:
        """Reads some messages; False when there are none, or when the writer has enough."""
        read, handlers = self._replication.read, self._handlers
        acknowledger, writer, decode = self._acknowledger, self._writer, pgoutput.decode
        for _ in range(_ROUND):
            if not acknowledger.may_read(writer.pending):
                writer.flush(self._alive)
            if writer.full:
                return False
            try:
                message = read()
            except Exception:
                with database_errors("reading the log"):
                    raise
            if message is None:
                return False
            acknowledger.last_start = message.data_start
            decoded = decode(message.payload)
            handlers[type(decoded)](decoded, message.data_start)
        return True

    def _alive(self) -> None:
        self._metrics.turned()
        self._replication.alive()

    def _patiently(self, call: Callable[[], Result]) -> Result:
        """Runs a call that may block (catalogue, registry, broker), and keeps the server's patience meanwhile."""
        future = self._aside.submit(call)
        while True:
            try:
                return future.result(self._options.keepalive)
            except FutureTimeout:
                self._alive()

    # One method for each kind of message: (message, LSN of the message or 0).

    def _begin(self, begin: pgoutput.Begin, _lsn: int) -> None:
        position = self._position
        skip: float = 0
        size: dict[str, int] = {}
        if begin.commit_lsn < position.end_lsn:
            skip = float("inf")
        elif position.partial is not None and position.partial.commit_lsn == begin.commit_lsn:
            skip, size = position.partial.ordinal, dict(position.partial.size)
        prefix = self._origin.transaction(begin.xid, begin.commit_us, position.last_commit_lsn, time.time_ns())
        self._open = Transaction(begin, prefix, skip, size)

    def _commit(self, commit: pgoutput.Commit, _lsn: int) -> None:
        transaction = self._transaction()
        self._open = None
        self._metrics.source_time(transaction.commit_us)
        if transaction.skip == float("inf"):
            return
        self._position = self._position._replace(
            end_lsn=commit.end_lsn, last_commit_lsn=commit.commit_lsn, partial=None, stopped_lsn=None
        )
        if transaction.size:
            self._writer.add(self._whole(transaction), self._position)
        else:
            self._writer.advance(self._position)

    def _insert(self, insert: pgoutput.Insert, lsn: int) -> None:
        transaction, table = self._counted(insert.relation_oid)
        if table is not None:
            self._take(transaction, table, "c", table.insert(transaction.prefix, lsn, transaction.ordinal, insert.new))

    def _update(self, update: pgoutput.Update, lsn: int) -> None:
        transaction, table = self._counted(update.relation_oid)
        if table is not None:
            drafts = table.update(transaction.prefix, lsn, transaction.ordinal, update.old_kind, update.old, update.new)
            self._take(transaction, table, "u", drafts)

    def _delete(self, delete: pgoutput.Delete, lsn: int) -> None:
        transaction, table = self._counted(delete.relation_oid)
        if table is not None:
            key_only = delete.old_kind == b"K"
            drafts = table.delete(transaction.prefix, lsn, transaction.ordinal, delete.old, key_only)
            self._take(transaction, table, "d", drafts)

    def _truncate(self, truncate: pgoutput.Truncate, lsn: int) -> None:
        for oid in truncate.relation_oids:
            transaction, table = self._counted(oid)
            if table is not None:
                drafts = table.truncate(transaction.prefix, lsn, transaction.ordinal)
                self._take(transaction, table, "t", drafts)

    def _relation(self, relation: Relation, _lsn: int) -> None:
        self._patiently(lambda: self._tables.relation(relation))

    def _message(self, message: pgoutput.LogicalMessage, _lsn: int) -> None:
        if message.transactional:
            if self._open is not None:
                self._open.ordinal += 1
        elif message.prefix == HEARTBEAT_PREFIX:
            self._heartbeat(message)

    def _ignore(self, _message: object, _lsn: int) -> None:
        """Origins and user-defined types: the catalogue says more of them."""

    def _heartbeat(self, message: pgoutput.LogicalMessage) -> None:
        """Our own heartbeat is back: all commits before it have been read, so the position may follow it."""
        beat = parse_heartbeat(message.content, self._options.slot)
        if beat is None or message.lsn < self._position.end_lsn:
            return
        last = self._position.heartbeat
        if last is not None and last.run == beat.run and beat.number > last.number + 1:
            raise SettingsError(
                f"slot {self._options.slot} was moved by somebody else: heartbeats {last.number + 1} to "
                f"{beat.number - 1} before {message.lsn} are missing, and changes beside them may be",
                "capture repair --execute makes a new slot and reads the tables again",
            )
        self._metrics.heartbeat_back(beat.run == self._beats.run)
        self._position = self._position._replace(end_lsn=message.lsn, heartbeat=beat, stopped_lsn=None)
        self._writer.add([self._own.heartbeat(time.time_ns() // 10**6)], self._position)

    def _transaction(self) -> Transaction:
        if self._open is None:
            raise pgoutput.ProtocolError("a change outside any transaction", "report this with the server's version")
        return self._open

    def _counted(self, relation_oid: int) -> tuple[Transaction, Table | None]:
        """Counts a change before any filter; the table is None when the change is not captured or in Kafka already."""
        transaction = self._transaction()
        transaction.ordinal += 1
        if transaction.ordinal <= transaction.skip:
            return transaction, None
        return transaction, self._tables.get(relation_oid)

    def _take(self, transaction: Transaction, table: Table, op: str, drafts: list[Draft]) -> None:
        transaction.size[table.name] = transaction.size.get(table.name, 0) + 1
        transaction.drafts += drafts
        self._metrics.event(table.name, op)
        for draft in drafts:
            transaction.bytes += len(draft[3] or b"") + _DRAFT_OVERHEAD
        if len(transaction.drafts) >= self._options.buffer_rows or transaction.bytes >= self._options.buffer_bytes:
            self._pass_through(transaction)

    def _pass_through(self, transaction: Transaction) -> None:
        """Writes what has come of a large transaction; readers know its size by its END."""
        if not transaction.streamed:
            log.info("large transaction streams through", lsn=str(transaction.commit_lsn), rows=len(transaction.drafts))
        transaction.streamed = True
        partial = Partial(transaction.commit_lsn, transaction.ordinal, dict(transaction.size))
        self._writer.add(self._records(transaction, None), self._position._replace(partial=partial, stopped_lsn=None))
        self._writer.flush(self._alive)
        transaction.drafts = []
        transaction.bytes = 0

    def _whole(self, transaction: Transaction) -> list[Record]:
        """All records of a transaction that ends, with END (and BEGIN) where the transaction topic has them."""
        records = self._records(transaction, None if transaction.streamed else transaction.size)
        now_ms = transaction.commit_us // 1000
        if self._options.metadata and not transaction.streamed:
            records.insert(0, self._own.transaction_begin(transaction.id, now_ms))
        if self._options.metadata or transaction.streamed:
            stamp = Stamp(self._position.generation, transaction.commit_lsn, transaction.ordinal)
            records.append(self._own.transaction_end(transaction.id, stamp, transaction.size, now_ms))
        return records

    def _records(self, transaction: Transaction, size: dict[str, int] | None) -> list[Record]:
        commit_lsn = transaction.commit_lsn
        whole = (TRANSACTION_HEADER, transaction_header(transaction.xid, commit_lsn, size))
        stamp = stamp_header(Stamp(self._position.generation, commit_lsn, 0)).removesuffix(b"0") + b"%d"
        return [
            Record(topic, partition, key, value, [(STAMP_HEADER, stamp % ordinal), whole, *headers])
            for topic, partition, key, value, ordinal, headers in transaction.drafts
        ]


def keepalive_seconds(wal_sender_timeout: str) -> float:
    """A third of the server's patience, from `SHOW wal_sender_timeout` (`1min`, `2s`, `500ms`, `0`: for ever)."""
    units = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
    digits = wal_sender_timeout.rstrip("abcdefghijklmnopqrstuvwxyz")
    seconds = float(digits) * units.get(wal_sender_timeout[len(digits) :], 0.001)
    return min(10.0, seconds / 3) if seconds else 10.0


def first_position(generation: int, identifier: str, timeline: int, slot: str, lsn: LSN, settings: str) -> Position:
    """Where a new slot begins."""
    return Position(generation, identifier, timeline, slot, lsn, lsn, settings)
