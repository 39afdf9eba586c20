"""Keeps the copy: reads the index of commits and the tables' topics, and makes commits visible in their order.

Many commits become visible in one transaction of the middle layer, with the offsets up to which nothing is read again.
Kafka's offsets are committed after it, so a crash in between makes a replay, which is dropped by its offsets.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, TypeAlias

import structlog

from schemas.change import Stamp
from sink.database import Connection, Cursor, transaction
from sink.intake import evidence
from sink.intake.consumer import NotAMemberError, ReadAgainError, ShopConsumer, Staged
from sink.intake.evidence import Partition, Seen
from sink.metrics import COPY_BEHIND, COPY_LSN, REPLAYED, STAGED, UNNAMED
from sink.staging import snapshots
from sink.staging.assembly import Assembly, Break, Entry, Place, Row, Short, Turn
from sink.staging.gaps import Cause, TableGap, close_gap, open_gap
from sink.staging.position import NOWHERE, load_position, save_position, save_waiting
from sink.staging.reading import Reading
from sink.staging.schema import SchemaBlockedError
from sink.staging.writer import CopyWriter

log = structlog.get_logger()

_BATCH: Final = 5_000  # rows a transaction: 1,000 cost 30 % more, 20,000 gain 10 %
_AHEAD: Final = 2_000  # records of one partition that may wait
_INDEX_AHEAD: Final = 50_000  # steps of the index that may wait
_IDLE: Final = 0.5  # seconds that a poll waits
_ALIVE: Final = 1.0  # seconds between two signs of life to the middle layer
_STUCK: Final = 0.3  # seconds until the ends of partitions are asked for
_OFFSETS_EVERY: Final = 0.5  # seconds between two commits of Kafka's offsets

Steps: TypeAlias = Sequence[Entry | Turn]
Known: TypeAlias = Callable[[Sequence[Partition]], Staged]
"""Says what is staged of partitions."""


class Stager:
    """The stager of one shop, once it leads."""

    def __init__(self, writer: CopyWriter, tables: Mapping[str, str], index: str) -> None:
        """`tables` are the profile's, each with its usual topic; `index` is the topic of the index of commits."""
        self.writer = writer
        self.tables = tables
        self.index = index
        self.topics = {topic: table for table, topic in tables.items()}
        """All that are read, each with its table: the usual ones, and what the index has named since the start."""

    def run(
        self,
        connection: Connection,
        consumer: Callable[[Known], ShopConsumer],
        stop: Callable[[], bool],
        turned: Callable[[], None],
    ) -> None:
        """Stages until it is stopped; `turned` is told of each turn. Errors of database and Kafka come through."""
        with transaction(connection) as cursor:
            self.writer.prepare(cursor)
        while not stop():
            try:
                with consumer(lambda partitions: self._known(connection, partitions)) as opened:
                    self._read(connection, opened, stop, turned)
            except NotAMemberError as error:  # by one that led before and woke up: it stands by once it sees that
                log.warning("joining the group anew", reason=error.message)
                time.sleep(_ALIVE)

    def _read(
        self, connection: Connection, consumer: ShopConsumer, stop: Callable[[], bool], turned: Callable[[], None]
    ) -> None:
        while not stop():
            try:
                self._copy(connection, consumer, stop, turned)
            except ReadAgainError as error:
                log.info("reading begins where the copy stands", reason=error.message)
            except SchemaBlockedError as error:  # the reader who is in the way must end first
                log.warning("staging waits", reason=error.message, next=error.hint)
                with transaction(connection) as cursor:
                    save_waiting(cursor, error.message)

    def _known(self, connection: Connection, partitions: Sequence[Partition]) -> Staged:
        with transaction(connection) as cursor:
            seen = evidence.load(cursor, partitions)
            position = load_position(cursor)
            made_again = evidence.other_ids(cursor, [partition for partition in partitions if partition not in seen])
        return Staged(seen, made_again, {Partition(self.index, position.topic_id, 0): position.next_offset})

    def _copy(
        self, connection: Connection, consumer: ShopConsumer, stop: Callable[[], bool], turned: Callable[[], None]
    ) -> None:
        """From one assignment of all partitions to the next."""
        while not consumer.restart():
            turned()
            if stop():
                return
            with transaction(connection) as cursor:
                save_waiting(cursor, "Kafka has not assigned all partitions of the shop's topics to this sink yet")
            consumer.poll(_IDLE)
        self.writer.forget()

        def going() -> bool:
            turned()
            return not stop()

        copying = _Copying(self, connection, consumer, going)
        while going():
            copying.turn()
        copying.leave()


class _Copying:
    """What is read of one assignment, and how it becomes visible."""

    def __init__(
        self, stager: Stager, connection: Connection, consumer: ShopConsumer, going: Callable[[], bool]
    ) -> None:
        """`going` is told of each turn, and says whether there is to be another."""
        self._connection = connection
        self._consumer = consumer
        self._going = going
        self._writer = writer = stager.writer
        self._tables = tables = stager.tables
        self._index: Place = (stager.index, 0)
        with transaction(connection) as cursor:
            self._position = load_position(cursor)
            joined = writer.follow(cursor, self._position.stamp)
            self._announced = snapshots.announced(cursor)
        assigned = consumer.assigned
        index_id = assigned[self._index].partition.topic_id if self._index in assigned else ""
        if index_id != self._position.topic_id:  # made again: taken from where it begins now
            self._position = self._position._replace(topic_id=index_id, next_offset=0)
        end = self._position.end if self._position.end != NOWHERE else None
        self._is_first = self._position.stamp == NOWHERE
        self._anew = self._position.state == "catching up" and end is not None
        self._assembly = Assembly(tables, self._position.stamp, self._position.serial, end)
        self._assembly.topics = stager.topics
        self._reading = Reading(self._assembly, assigned, self._index, joined)
        self._saved = self._reading.before()
        self._ends = _Ends(consumer, self._assembly)
        self._resume: dict[Place, int] = {}
        self._passed_by: set[str] = set()
        self._alive_at = self._committed_at = 0.0
        self._progressed = True

    # One turn

    def turn(self) -> None:
        """Reads what there is and makes visible what is whole."""
        self._reading.take(self._consumer.poll(0.0 if self._progressed else _IDLE), self._consumer.report)
        self._consumer.follow(self._assembly.topics)
        self._count()
        if self._position.state == "catching up":
            self._pass_by()
        self._progressed = self._advance()
        if self._announced:
            self._complete_snapshots()
        self._pause()
        now = time.monotonic()
        if now - self._alive_at >= _ALIVE:
            self._alive_at = now
            with transaction(self._connection) as cursor:
                save_waiting(cursor, self._waits_for())
                if self._reading.seen(()) != self._saved:  # replays and ends of partitions, with no commit after them
                    self._keep(cursor, [])
        if now - self._committed_at >= _OFFSETS_EVERY:  # after a sign of life: who stood still leads no more
            self._committed_at = now
            self._commit_offsets()

    def _pass_by(self) -> None:
        """Records of a connector that was here before the index, as Debezium's, are not staged: their tables have a gap
        until they are read again."""
        topics = {row[0] for row in self._reading.take_foreign()}
        for topic in sorted(topics - self._passed_by):
            self._passed_by.add(topic)
            detail = f"topic {topic} begins with records that capture did not write, which are not staged"
            with transaction(self._connection) as cursor:
                table = self._assembly.topics[topic]
                self._gap(cursor, TableGap(table, "begun without a copy", self._position.stamp, detail))

    def leave(self) -> None:
        """Commits Kafka's offsets as they are staged."""
        self._commit_offsets(wait=True)

    def _advance(self) -> bool:
        """Makes visible what can be; whether anything was."""
        if self._anew:  # until all is named that was named when reading began
            self._assembly.begin_anew()
            self._anew = not self._reading.has_index()
        step = self._assembly.next
        if isinstance(step, Break):
            return self._catch_up(step)
        if isinstance(step, Entry) and step.expected > _BATCH and self._assembly.short(step):
            return self._large(step)
        steps = self._assembly.ready(_BATCH)
        if steps:
            self._reading.left()
        if steps or self._reading.loose or self._reading.foreign:
            self._apply(steps)
            return True
        if isinstance(step, Entry):
            return self._lacks(step)
        return False

    def _catch_up(self, step: Break) -> bool:
        """Where the chain of the index begins anew: rows up to there go in as they come, and count in one step."""
        self._assembly.catch_up()
        self._reading.left()
        if self._position.state != "catching up":
            log.info("the copy catches up", lsn=str(step.since.commit_lsn))
        self._position = self._position._replace(state="catching up")
        rows = bool(self._reading.loose)
        if self._anew or not self._ends.passed(step.since, self._assembly.topics):
            if rows:
                self._apply([])
            return rows
        self._assembly.caught_up()
        stamp = max(self._position.stamp, step.since)
        self._position = self._position._replace(stamp=stamp, state="steady", end=step.since)
        self._apply([])
        log.info("the copy has caught up", lsn=str(step.since.commit_lsn))
        return True

    def _lacks(self, entry: Entry) -> bool:
        """The next commit is not whole. Once nothing of it can come any more it becomes visible as it is, and its
        tables have a gap."""
        short = self._assembly.short(entry)
        if not self._ends.passed(entry.stamp, {one.topic for one in short}):
            return False
        if self._is_compacted(entry, short):
            self._anew = True
            return True
        with transaction(self._connection) as cursor:
            self._lost(cursor, entry, short)
        self._assembly.give_up(entry)
        return True

    def _large(self, entry: Entry) -> bool:
        """A commit that is not kept in memory: its rows go in as they are read, in one transaction to its end."""
        log.info("a large commit is staged", lsn=str(entry.stamp.commit_lsn), rows=entry.expected)
        compacted = False
        with transaction(self._connection) as cursor:
            while short := self._assembly.short(entry):
                if not self._going():
                    raise ReadAgainError("the sink stops in a large commit", "it is read again")
                if rows := self._assembly.drain(entry):
                    self._write(cursor, rows)
                    continue
                if self._ends.passed(entry.stamp, {one.topic for one in short}):
                    if compacted := self._is_compacted(entry, short):
                        self._position = self._position._replace(state="catching up")
                    else:
                        self._lost(cursor, entry, short)
                    break
                self._pause()
                self._reading.take(self._consumer.poll(_ALIVE), self._consumer.report)
                cursor.execute("SELECT 1")  # a sign of life
            self._write(cursor, self._assembly.drain(entry))
            self._assembly.drained(entry)
            self._reading.left()
            self._write(cursor, self._reading.take_loose())
            self._position = self._position._replace(stamp=entry.stamp)
            self._keep(cursor, [entry])
        self._anew = compacted
        self._told([entry])
        return True

    def _is_compacted(self, entry: Entry, short: Iterable[Short]) -> bool:
        """Whether later rows stand for those that a commit lacks. A delete that is missing was never read when it is
        older than a topic keeps it, unless nothing was staged before."""
        if entry.stamp[:2] >= self._reading.began[:2]:
            return False
        age = time.time() - entry.ts_us / 1e6 if entry.ts_us and not self._is_first else 0.0  # a chunk deletes nothing
        keep = [self._consumer.keeps_deletes(one.topic) for one in short]
        return all(seconds is not None and age < seconds for seconds in keep)

    def _lost(self, cursor: Cursor, entry: Entry, short: Iterable[Short]) -> None:
        """Changes that were skipped with their offsets come when those are read; others never do."""
        for one in short:
            cause: Cause = "skipped" if self._reading.skips(one.topic, entry.stamp) else "lost"
            detail = f"{one.missing} changes of the commit at {entry.stamp.commit_lsn} are not in topic {one.topic}"
            self._gap(cursor, TableGap(one.table, cause, entry.stamp, detail))

    def _pause(self) -> None:
        """Partitions that run ahead of the next commit wait, and so does the index."""
        places = self._assembly.crowded(_AHEAD)
        if self._assembly.queued > _INDEX_AHEAD:
            places.add(self._index)
        self._consumer.pause(places)

    # What becomes visible

    def _apply(self, steps: Steps) -> None:
        """Stages loose rows and makes steps visible, in one transaction."""
        rows = [*self._reading.take_loose(), *(row for step in steps if isinstance(step, Entry) for row in step.rows)]
        for step in steps:
            if isinstance(step, Turn):
                self._position = self._position._replace(
                    next_offset=step.next_offset, serial=step.serial, end=step.stamp
                )
            self._position = self._position._replace(stamp=max(self._position.stamp, step.stamp))
        with transaction(self._connection) as cursor:
            self._write(cursor, rows)
            self._keep(cursor, steps)
        self._told(steps)

    def _write(self, cursor: Cursor, rows: Sequence[Row]) -> None:
        if not rows:
            return
        bad = self._writer.write(cursor, rows, self._assembly.topics)
        self._writer.unpark(cursor, [row for row in self._reading.were_parked(rows) if row[:3] not in bad])
        STAGED.inc(len(rows))

    def _keep(self, cursor: Cursor, steps: Steps) -> None:
        """With the rows go what the index says of tables and snapshots, the evidence, and where the copy stands."""
        for step in steps:
            if isinstance(step, Turn):
                self._turn_of(cursor, step)
        self._writer.mark(cursor)
        self._writer.park_foreign(cursor, self._reading.take_foreign())
        seen = self._reading.seen(self._writer.take_parked())
        moved = {partition: one for partition, one in seen.items() if one != self._saved.get(partition)}
        new = evidence.save(cursor, self._saved, moved)
        for topic in {gap.partition.topic for gap in new if gap.cause == evidence.SKIPPED}:
            if table := self._assembly.topics.get(topic):
                detail = f"offsets of {topic} were skipped; `sink status` names them"
                self._gap(cursor, TableGap(table, "skipped", self._position.stamp, detail))
        self._close_skipped(cursor, seen)
        self._saved = seen
        self._resume = {place: feed.first_invisible for place, feed in self._assembly.feeds.items()}
        if self._position.topic_id:
            self._resume[self._index] = self._position.next_offset
        commit_us = max((step.ts_us for step in steps if isinstance(step, Entry)), default=0)
        save_position(cursor, self._position, commit_us or None)

    def _close_skipped(self, cursor: Cursor, seen: Mapping[Partition, Seen]) -> None:
        """Skipped offsets that were read after all end the gap of their table."""
        had = {partition.topic for partition, one in self._saved.items() if _skips(one)}
        have = {partition.topic for partition, one in seen.items() if _skips(one)}
        for table in {self._assembly.topics[topic] for topic in had - have if topic in self._assembly.topics}:
            if close_gap(cursor, table, "skipped"):
                self._writer.touch_readers(cursor, [table])
                self._writer.mark(cursor)

    def _turn_of(self, cursor: Cursor, turn: Turn) -> None:
        for table in turn.parked:
            detail = "capture does not write its changes; `capture status` says why"
            self._gap(cursor, TableGap(table, "parked by capture", turn.stamp, detail))
        for table in turn.begun:
            detail = "its changes are here, and no copy of the rows before them"
            self._gap(cursor, TableGap(table, "begun without a copy", turn.stamp, detail))
        for state in turn.snapshots:
            snapshots.note(cursor, turn.stamp.generation, state)
        if turn.snapshots:
            self._announced = snapshots.announced(cursor)

    def _gap(self, cursor: Cursor, gap: TableGap) -> None:
        if gap.table in self._tables and open_gap(cursor, gap):
            log.warning("a table has a gap", table=gap.table, reason=gap.detail, next="sink status")

    def _complete_snapshots(self) -> None:
        """A snapshot that was announced is complete once its partitions are read up to the ends asked for since."""
        one = self._announced[0]
        topics = {topic for topic, table in self._assembly.topics.items() if table in one.tables}
        if not self._ends.read(one.id, topics):
            return

        def compacted(table: str) -> bool:
            known = one.stamp[:2] < self._reading.began[:2]
            of_table = [topic for topic in topics if self._assembly.topics[topic] == table]
            return known and all(self._consumer.keeps_deletes(topic) is not None for topic in of_table)

        with transaction(self._connection) as cursor:
            snapshots.complete(cursor, self._writer, one, frozenset(self._tables), compacted)
            self._writer.mark(cursor)
            self._announced = snapshots.announced(cursor)
            save_position(cursor, self._position, None)

    def _count(self) -> None:
        REPLAYED.inc(self._reading.replayed)
        UNNAMED.inc(self._reading.unnamed)
        self._reading.replayed = self._reading.unnamed = 0

    def _told(self, steps: Steps) -> None:
        """Metrics of what became visible."""
        self._count()
        COPY_LSN.set(int(self._position.stamp.commit_lsn))
        commit_us = max((step.ts_us for step in steps if isinstance(step, Entry)), default=0)
        if commit_us:
            COPY_BEHIND.set(max(0.0, time.time() - commit_us / 1e6))

    def _waits_for(self) -> str:
        """What keeps the next commit from becoming visible, for people; "" for nothing."""
        step = self._assembly.next
        if step is None and self._position.stamp == NOWHERE:
            return f"the index of commits, topic {self._index[0]}, has no record yet: `capture run` writes it"
        if isinstance(step, Break):
            return f"reads all topics up to {step.since.commit_lsn}, where the index of commits begins"
        if not isinstance(step, Entry) or not (short := self._assembly.short(step)):
            return ""
        parts = ", ".join(f"{one.missing} changes of {one.table} ({one.topic})" for one in short)
        return f"the commit at {step.stamp.commit_lsn} still lacks {parts}"

    def _commit_offsets(self, wait: bool = False) -> None:
        if self._resume:
            self._consumer.commit(self._resume, wait)
            self._resume = {}


class _Ends:
    """The uncommitted ends of all partitions that the broker shows: what is behind them came later.

    A partition that is not read yet, of a topic that is new or has grown, keeps what it may bring.
    """

    def __init__(self, consumer: ShopConsumer, assembly: Assembly) -> None:
        self._consumer = consumer
        self._assembly = assembly
        self._named: tuple[int, int, int] = NOWHERE
        self._ends: dict[Place, int] = {}
        self._wanted: object = None
        self._since = 0.0
        self._of_snapshot: tuple[str, dict[Place, int]] | None = None

    def passed(self, stamp: Stamp, topics: Collection[str]) -> bool:
        """Whether no record with this stamp can come any more in these topics. One answer of the broker serves all
        that the index had named when it was asked for."""
        if stamp > self._named:
            if not self._due(stamp):
                return False
            self._named = max(stamp, self._assembly.named)
            self._ends = self._consumer.uncommitted_ends(self._assembly.topics)
        feeds = self._assembly.feeds
        wanted = [(place, end) for place, end in self._ends.items() if place[0] in topics]
        return all(place in feeds and feeds[place].has_passed(stamp, end) for place, end in wanted)

    def read(self, snapshot: str, topics: Collection[str]) -> bool:
        """Whether these topics are read up to the ends that they had after a snapshot was announced."""
        if self._of_snapshot is None or self._of_snapshot[0] != snapshot:
            self._of_snapshot = (snapshot, self._consumer.uncommitted_ends(topics))
        feeds = self._assembly.feeds
        return all(place in feeds and feeds[place].position >= end for place, end in self._of_snapshot[1].items())

    def _due(self, question: object) -> bool:
        """Whether a question has been open for a moment: most are answered by the next poll."""
        now = time.monotonic()
        if self._wanted != question:
            self._wanted, self._since = question, now + _STUCK
        return now >= self._since


def _skips(seen: Seen) -> bool:
    return any(gap.cause == evidence.SKIPPED for gap in seen.gaps)
