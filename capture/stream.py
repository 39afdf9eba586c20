"""Reads the log from a position on, makes records, and hands them to the writer piece by piece, each with the position
that it reaches. The last piece of a source transaction brings its commit."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from pydantic import SecretStr

from capture.changes.any_bytes import check_message
from capture.changes.makers import Makers
from capture.changes.messages import COLLECTION, Counted
from capture.changes.tables import Draft, Table
from capture.changes.transaction import Transaction
from capture.changes.versions import ParkedError
from capture.kafka.index import News
from capture.kafka.writer import Limits, Writer
from capture.metrics import Metrics
from capture.own_messages import INTERNAL, Answer, OwnMessages
from capture.position import Position
from capture.postgres import pgoutput
from capture.postgres.acknowledge import Acknowledger
from capture.postgres.replication import IN_THE_LOG, Replication, database_errors
from schemas.model.change import Stamp
from schemas.model.lsn import LSN
from schemas.model.relation import Relation
from schemas.writing.codec import SourcePrefix
from schemas.writing.compiled import rowpath

Result = TypeVar("Result")

_ROUND: Final = 256  # messages between two looks at the clock
_BEHIND: Final = 0.5  # seconds
_GATHER: Final = 0.001  # seconds
_LAST_READ: Final = 0.5  # seconds
_DRAFT_OVERHEAD: Final = 400  # bytes of memory beside the row, roughly
_PIECE_RECORDS: Final = 128
_PIECE_BYTES: Final = 128 * 1024


class Options(NamedTuple):
    """Options of a stream, and the key of signals for it. Seconds."""

    slot: str
    heartbeat: float
    keepalive: float
    metadata: bool
    signal_key: SecretStr


class Stream:
    """One run of streaming. Any error ends it, and the next start reads the position anew."""

    def __init__(
        self,
        replication: Replication,
        writer: Writer,
        makers: Makers,
        own_messages: OwnMessages,
        options: Options,
        metrics: Metrics,
    ) -> None:
        """Continues from the position that the writer calls durable."""
        self._replication = replication
        self._writer = writer
        self._tables, self._messages, self._own, self._origin, self._record_limit = makers
        self._own_messages = own_messages
        self._heartbeats = own_messages.heartbeats
        self._incremental = own_messages.incremental
        self._options = options
        self._metrics = metrics
        self._position = writer.durable  # read up to here: the last whole transaction, or a part of an open one
        self._suspect = self._record_limit.suspect
        self._commit_us = 0  # time of the last commit in this round
        self._told_alive = 0.0
        self._acknowledger = Acknowledger()
        self._open: Transaction | None = None
        self._aside = ThreadPoolExecutor(1, "aside")
        self._counted = 0.0
        self._now_ns = time.time_ns()
        self._last_start = 0  # the data_start of the message read last
        skipped = self._tables.skipped
        compiled = None if options.metadata or skipped or self._tables.any_bytes else rowpath()
        self._usual = compiled and compiled.UsualRows(
            replication.read, self._begin, self._commit, writer, self._tables.get,
            self._suspect, _PIECE_RECORDS, _PIECE_BYTES, _DRAFT_OVERHEAD,
        )  # fmt: skip
        # Where `_usual` is there, it takes most inserts, and most updates that come without an old row: these handlers
        # get only the rows that it leaves.
        self._handlers: dict[int, Callable[[bytes, int], object]] = {
            ord("B"): self._begin,
            ord("C"): self._commit,
            ord("I"): self._skip if "c" in skipped else partial(self._row, "c", Table.insert),
            ord("U"): partial(self._row, "u", Table.update_in_part if skipped else Table.update),
            ord("D"): self._skip if "d" in skipped else partial(self._row, "d", Table.delete),
        }
        self._rare: dict[type, Callable[[Any, int], None]] = {
            pgoutput.Truncate: self._truncate,
            Relation: self._relation,
            pgoutput.LogicalMessage: self._message,
            pgoutput.Origin: self._origin_of,
            pgoutput.Type: self._ignore,
        }

    def run(self, stopping: Callable[[], bool]) -> Position:
        """Reads until `stopping()`. Returns the durable position; everything whole that was read is then in Kafka."""
        try:
            while not stopping():
                now = time.monotonic()
                self._look_around(now)
                if not self._read_round():
                    self._pause(now)
            self._come_to_a_commit()
            self._writer.flush(self._alive)
            self._replication.confirm(self._writer.durable.end_lsn, force=True)
            return self._writer.durable
        finally:
            self._aside.shutdown(wait=False)
            self._incremental.close()

    def _come_to_a_commit(self) -> None:
        """Reads on for a moment if a transaction is written in part, because a start with other settings would refuse
        that."""
        began = now = time.monotonic()
        while self._position.partial is not None and now - began < _LAST_READ:
            self._writer.step(now)
            if not self._read_round():
                self._pause(now)
            now = time.monotonic()

    def reread(self, options: Options, limits: Limits) -> None:
        """Changes sizes and times."""
        self._options = options._replace(keepalive=self._options.keepalive)
        self._own_messages.reread(options.heartbeat, options.signal_key)
        self._writer.limit(limits)

    def _pause(self, now: float) -> None:
        """Waits if there is nothing to read. If nobody waits for rows, it lets some gather: batches are cheaper."""
        lingering = self._writer.lingering(now)
        pause = min(lingering or 0.5, self._heartbeats.wait(now), 0.5)
        if self._writer.full:  # the server has sent more, which would end the other wait at once
            self._writer.await_landing(pause)
        elif lingering > _GATHER or self._writer.behind:
            time.sleep(_GATHER)
        else:
            self._replication.wait(pause, self._writer.done_fd)

    def _look_around(self, now: float) -> None:
        """Does what is due: commits, heartbeats, feedback, chunks, metrics."""
        committed = self._commit_us if self._open is None else self._open.commit_us
        if self._commit_us:
            self._metrics.source_time(self._commit_us)
        self._writer.lags(bool(committed) and time.time() - committed / 1e6 > _BEHIND)
        self._commit_us = 0
        self._writer.step(now)
        self._metrics.turned()
        reached = self._writer.durable
        self._metrics.durable(reached, self._heartbeats.number(reached.heartbeat))
        if not self._heartbeats.wait(now):
            self._heartbeats.send(now, self._reached())
        durable = reached.end_lsn
        if self._heartbeats.proved and self._acknowledger.due(now, self._writer.pending, durable):
            self._replication.confirm(durable)
            self._acknowledger.told(now, durable)
        self._follow(self._own_messages.step(now, self._position))
        if now - self._counted >= 1.0:
            self._counted = now
            for table, op, count in (*self._tables.take_events(), *self._messages.take_events()):
                self._metrics.event(table, op, count)
            self._metrics.awaits(self._incremental.demand.tables_left)
        if now - self._told_alive >= self._options.keepalive:
            self._told_alive = now
            self._alive()

    def _reached(self) -> LSN:
        """The LSN up to which everything is in Kafka. If nothing is on its way, that is all that the server sent."""
        durable = self._writer.durable.end_lsn
        return durable if self._writer.pending or self._open is not None else max(durable, self._replication.sent)

    def _read_round(self) -> bool:
        """Reads one round of messages. False if there are none, or if the writer has enough."""
        read, handlers, other = self._replication.read, self._handlers, self._other
        acknowledger, writer, usual = self._acknowledger, self._writer, self._usual
        self._now_ns = time.time_ns()
        left = _ROUND
        while left > 0:
            left -= 1
            if writer.full:
                return False
            whole = self._position.end_lsn > writer.durable.end_lsn
            if whole and not acknowledger.may_read(writer.pending, self._last_start):
                writer.flush(self._alive)  # a whole transaction is pending; a part does not count
            try:
                if usual is None:
                    message = read()
                else:
                    message = usual.read(self._open, acknowledger.confirmed, left)
                    self._last_start = usual.last_start
                    left -= usual.taken
            except Exception:
                with database_errors("reading the log", IN_THE_LOG):
                    raise
            if message is None:
                return False
            start = self._last_start = message.data_start
            payload = message.payload
            handlers.get(payload[0], other)(payload, start)
        return True

    def _other(self, payload: bytes, lsn: int) -> None:
        message = pgoutput.decode(payload)
        self._rare[type(message)](message, lsn)

    def _alive(self) -> None:
        self._metrics.turned()
        self._replication.alive()

    def _patiently(self, call: Callable[[], Result]) -> Result:
        """Runs a call that may block (catalogue, registry, broker), and keeps the server patient meanwhile."""
        future = self._aside.submit(call)
        while True:
            try:
                return future.result(self._options.keepalive)
            except FutureTimeout:
                self._writer.step(time.monotonic())  # records that were read before must not seem to stall
                self._alive()

    # One method for each kind of message. The frequent ones take its bytes.

    def _begin(self, payload: bytes, _lsn: int) -> Transaction:
        begin = pgoutput.decode_begin(payload)
        position = self._position
        written = position.partial
        if written is not None and written.commit_lsn != begin.commit_lsn:
            written = None
        if self._now_ns < begin.commit_us * 1000:  # committed since we looked: no record is older than its commit
            self._now_ns = time.time_ns()
        prefix = self._origin.transaction(begin.xid, begin.commit_us, position.end_lsn, self._now_ns)
        passed = begin.commit_lsn < position.end_lsn
        if not passed:
            self._heartbeats.prove()
        self._open = transaction = Transaction(begin, prefix, position.generation, written, passed)
        return transaction

    def _commit(self, payload: bytes, _lsn: int) -> None:
        commit = pgoutput.decode_commit(payload)
        transaction = self._transaction()
        self._open = None
        self._commit_us = transaction.commit_us
        self._incremental.committed(transaction.xid)
        if transaction.passed:
            return
        self._position = self._position.at(commit.end_lsn, commit.commit_lsn)
        if transaction.drafts or transaction.handed:
            self._end(transaction)
        else:
            self._writer.advance(self._position)

    def _row(
        self, op: str, change: Callable[[Table, bytes, SourcePrefix, int, bytes], list[Draft]], payload: bytes, lsn: int
    ) -> None:
        """Takes an Insert, Update or Delete. It is counted before any filter, and skipped if Kafka has it already."""
        transaction = self._open or self._transaction()
        ordinal = transaction.next()
        table = self._tables.get(payload[1:5]) or self._late(payload[1:5])
        if table is not None and ordinal > transaction.skip:
            stamp = b"%b%d" % (transaction.stamp, ordinal)
            size = len(payload)
            try:
                if self._tables.any_bytes:
                    check_message(table.name, table.encoder, payload)
                drafts = change(table, payload, self._prefix(transaction, table.name), lsn, stamp)
                if not drafts:
                    return
                if size > self._suspect:
                    self._record_limit.check(table.name, drafts, stamp)
            except ParkedError as error:
                self._tables.park(error)
                self._note_parked()
                return
            counts, place = transaction.counts, table.place
            counts[place] = counts.get(place, 0) + (1 if len(drafts) == 1 else _halves(drafts))
            self._take(transaction, table, op, drafts, size)

    def _late(self, oid: bytes) -> Table | None:
        """The table of a first change that no snapshot has read; None if its changes are not written."""
        if oid not in self._tables.waiting:
            return None
        table = self._patiently(lambda: self._tables.begin(oid, self._patiently))
        if table is not None:
            self._writer.index.begins(table.name)
        self._note_parked()
        return table

    def _skip(self, _payload: bytes, _lsn: int) -> None:
        """Counts a change of skipped_operations, so that the others have the same ordinals as without that setting."""
        self._transaction().next()

    def _truncate(self, truncate: pgoutput.Truncate, lsn: int) -> None:
        transaction = self._transaction()
        for oid in truncate.relation_oids:
            ordinal = transaction.next()
            table = self._tables.get(oid.to_bytes(4, "big")) or self._late(oid.to_bytes(4, "big"))
            if table is not None:
                self._incremental.truncated(table.name)
            if table is not None and ordinal > transaction.skip and "t" not in self._tables.skipped:
                stamp = b"%b%d" % (transaction.stamp, ordinal)
                prefix = self._prefix(transaction, table.name)
                transaction.counts[table.place] = transaction.counts.get(table.place, 0) + 1
                self._take(transaction, table, "t", table.truncate(prefix, lsn, stamp), 0)

    def _relation(self, relation: Relation, _lsn: int) -> None:
        self._incremental.altered(relation.table)
        self._patiently(lambda: self._tables.relation(relation, self._patiently))
        self._note_parked()

    def _note_parked(self) -> None:
        """Puts the parked tables into the position, so that the next start does not write them either."""
        parked = tuple(sorted(self._tables.parked))
        if parked != self._position.parked:
            self._position = self._position._replace(parked=parked)
            self._writer.add([], 0, self._position)  # before the server may forget what is not written
        self._metrics.parks(parked)

    def _message(self, message: pgoutput.LogicalMessage, _lsn: int) -> None:
        if message.transactional:
            transaction = self._transaction()
            ordinal = transaction.next()
            if ordinal > transaction.skip and self._messages.wants(message.prefix):
                stamp = b"%b%d" % (transaction.stamp, ordinal)
                counted, draft = self._record(message, self._prefix(transaction, COLLECTION), stamp)
                self._take(transaction, counted, "m", [draft], len(message.content))
        elif message.prefix in INTERNAL:
            self._follow(self._own_messages.read(message, self._position, self._patiently))
        elif message.lsn > self._position.end_lsn and self._messages.wants(message.prefix):
            # Its LSN may also be that of the next commit, whose changes count from 1.
            stamp = b"%d:%d:0" % (self._position.generation, message.lsn)
            source = self._origin.alone(message.lsn, self._now_ns)
            counted, draft = self._record(message, source, stamp)
            counted.events["m"] += 1
            self._position = self._position._replace(end_lsn=message.lsn, stopped_lsn=None)
            self._writer.add([draft], len(message.content), self._position)

    def _record(self, message: pgoutput.LogicalMessage, source: SourcePrefix, stamp: bytes) -> tuple[Counted, Draft]:
        return self._patiently(lambda: self._messages.record(message, source, self._now_ns, stamp))

    def _origin_of(self, origin: pgoutput.Origin, _lsn: int) -> None:
        """Notes the origin, which follows Begin if a subscription or another replication tool wrote the transaction."""
        self._transaction().came_from(origin)

    def _ignore(self, _message: object, _lsn: int) -> None:
        """Ignores a user-defined type: the catalogue says more about it."""

    def _follow(self, answer: Answer | None) -> None:
        """Writes what follows from one of our own messages, or from a snapshot on demand."""
        if answer is not None:
            self._position = answer.position
            if answer.records is not None:
                size = sum(len(value or b"") for _, _, _, value, _ in answer.records)
                self._writer.add(answer.records, size, self._position, answer.news)

    def _transaction(self) -> Transaction:
        if self._open is None:
            raise pgoutput.ProtocolError("a change outside any transaction", "report this with the server's version")
        return self._open

    def _prefix(self, transaction: Transaction, name: str) -> SourcePrefix:
        """What a change or message has in common with others of its transaction; with metadata, also its place
        there."""
        return transaction.place_of_next(name) if self._options.metadata else transaction.prefix

    def _take(self, transaction: Transaction, table: Table | Counted, op: str, drafts: list[Draft], size: int) -> None:
        if self._options.metadata:  # as Debezium counts: both halves of a key change
            transaction.size[table.name] = transaction.size.get(table.name, 0) + (1 if op == "t" else _halves(drafts))
        table.events[op] += 1
        transaction.take(drafts, size + _DRAFT_OVERHEAD)
        if len(transaction.drafts) >= _PIECE_RECORDS or transaction.bytes >= _PIECE_BYTES:
            self._hand_on(transaction)

    def _hand_on(self, transaction: Transaction) -> None:
        """Writes the part of a transaction that has come so far."""
        records, news = self._records(transaction)
        self._position = self._position._replace(partial=transaction.written(), stopped_lsn=None)  # until its commit
        self._writer.add(records, transaction.bytes, self._position, news)
        transaction.handed_on()

    def _end(self, transaction: Transaction) -> None:
        """Writes the rest of a transaction, and lists its commit."""
        records, news = self._records(transaction)
        if self._options.metadata:
            stamp = Stamp(self._position.generation, transaction.commit_lsn, transaction.ordinal)
            ms = transaction.commit_us // 1000
            records.append(self._own.transaction_end(transaction.id, stamp, transaction.size, ms))
        commit = News(transaction.commit_lsn, transaction.commit_us, transaction.counts)
        if news is not None:
            commit = commit._replace(states=news.states)
        self._writer.add(records, transaction.bytes, self._position, commit)

    def _records(self, transaction: Transaction) -> tuple[list[Draft], News | None]:
        """The records of the drafts, with BEGIN and notices, and the news that go with them."""
        records = transaction.drafts
        if self._incremental.window is not None:
            self._incremental.window.saw(records)
        if self._options.metadata and not transaction.handed:
            begin = self._own.transaction_begin(transaction.id, transaction.commit_us // 1000)
            records = [begin, *records]
        if not self._tables.unfilled:
            return records, None
        notices = self._incremental.unfilled(self._tables.unfilled, transaction.commit_lsn)
        self._tables.unfilled.clear()
        self._position = self._position._replace(demand=self._incremental.demand)
        return [*records, *notices], self._incremental.take_news()


def _halves(drafts: list[Draft]) -> int:
    """How often the index of commits counts a change: a delete with its tombstone once, a key change twice."""
    return sum(value is not None for _, _, _, value, _ in drafts)
