"""The reading half of the stager: reads one assignment of partitions, and decides what becomes visible next."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import structlog

from sink.intake.consumer import ShopConsumer
from sink.metrics import COPY_AGE, REPLAYED, UNNAMED
from sink.staging.assembly import Assembly, ChainBreak, IndexEnd, PendingCommit, Place, Row, Short
from sink.staging.committer import CommitResult, Committer, Parcel
from sink.staging.end_offsets import EndOffsets
from sink.staging.gaps import Cause, TableGap
from sink.staging.position import NOWHERE
from sink.staging.reading import Reading
from sink.staging.serial_executor import SerialExecutor
from sink.staging.snapshots import Completed

log = structlog.get_logger()

_BATCH: Final = 5_000  # rows per transaction: 1,000 cost 30 % more, 20,000 gain 10 %
_AHEAD: Final = 1_000  # records of one partition that may wait
_INDEX_AHEAD: Final = 50_000  # steps of the index that may wait
_BEHIND: Final = 1_000  # steps of the index that wait when the copy is behind
_IDLE: Final = 0.5  # seconds that a poll waits
_SOON: Final = 0.005  # the same while the database is at work, which may be done any moment
_ALIVE: Final = 1.0  # seconds between two queries that keep the session alive
_LEADS: Final = 5.0  # seconds after such a query during which we surely lead; the server's time-out is longer
_OFFSETS_EVERY: Final = 0.5  # seconds between two commits of Kafka's offsets


class Sequencer:
    """Reads one assignment. Hands parcels of commits to the database's thread, one at a time."""

    def __init__(
        self,
        committer: Committer,
        database: SerialExecutor[CommitResult | None],
        consumer: ShopConsumer,
        index: str,
        tables: Iterable[str],
        topics: dict[str, str],
    ) -> None:
        """`topics`: topic → table. It grows by what the index of commits names."""
        self._committer = committer
        self._database = database
        self._consumer = consumer
        self._index: Place = (index, 0)
        begun = database.run(committer.begin, consumer.assigned)
        self._position = begun.position
        self._announced = begun.announced
        assigned = consumer.assigned
        index_id = assigned[self._index].partition.topic_id if self._index in assigned else ""
        if index_id != self._position.topic_id:  # the topic was made again: read from its beginning
            self._position = self._position._replace(topic_id=index_id, next_offset=0)
        end = self._position.end if self._position.end != NOWHERE else None
        self._is_first = self._position.stamp == NOWHERE
        self._anew = self._position.state == "catching up" and end is not None
        self._assembly = Assembly(frozenset(tables), self._position.stamp, self._position.serial, end)
        self._assembly.topics = topics
        self._reading = Reading(self._assembly, assigned, self._index, begun.joined)
        self._ends = EndOffsets(consumer, self._assembly)
        self._gaps: list[TableGap] = []
        self._large: PendingCommit | None = None
        self._passed_by: set[str] = set()
        self._resume: Mapping[Place, int] = {}
        self._completing = ""
        self._handed_at: deque[float] = deque()
        self._said_at = self._led_at = self._committed_at = 0.0
        self._again = True

    @property
    def blocked(self) -> str:
        """Why the copy may not be acted on as it is; "" while it follows the shop."""
        return "the copy is catching up with the shop" if self._position.state == "catching up" else ""

    # One turn

    def turn(self) -> None:
        """Reads what is there, and hands over what is whole once the database is done with the last parcel.

        If the copy is behind, one parcel waits in line: it is decoded while the one before is written.
        """
        self._take_outcomes()
        self._reading.take(self._consumer.poll(self._patience()), self._consumer.report)
        self._consumer.follow(self._assembly.topics)
        self._count()
        if self._position.state == "catching up":
            self._pass_by()
        pending = self._database.pending
        self._again = (not pending or (pending == 1 and self._assembly.queued > _BEHIND)) and self._advance()
        self._pause()
        self._tell_age()
        now = time.monotonic()
        # Only soon after a query: a process that stood still may no longer lead.
        if now - self._committed_at >= _OFFSETS_EVERY and now - self._led_at < _LEADS:
            self._committed_at = now
            self._commit_offsets()

    def leave(self) -> None:
        """Waits for the parcels in flight, and commits Kafka's offsets."""
        while self._database.pending:
            self._take_outcome(wait_for_it=True)
        self._commit_offsets(wait=True)

    def _take_outcomes(self) -> None:
        while self._take_outcome():
            self._again = True

    def _take_outcome(self, wait_for_it: bool = False) -> bool:
        """Takes the result of one parcel. False: none is done. The database's errors are raised here; what was read is
        then void."""
        pending = self._database.pending
        kept = self._database.result(wait_for_it)
        if kept is not None:
            self._resume, self._announced = kept
        if self._database.pending == pending:
            return False
        self._led_at = self._handed_at.popleft()
        return True

    def _patience(self) -> float:
        """Seconds to wait in a poll: none if something may already be whole."""
        if self._again:
            return 0.0
        return _SOON if self._database.pending else _IDLE

    def _commit_offsets(self, wait: bool = False) -> None:
        if self._resume:
            self._consumer.commit(self._resume, wait)
            self._resume = {}

    def _pause(self) -> None:
        """Pauses partitions that are too far ahead of the next commit, until half of that has gone. The same for the
        index. Pauses all tables while loose rows come faster than they are written."""
        places = self._assembly.crowded(_AHEAD, whole=_BATCH)
        places |= self._consumer.paused & self._assembly.crowded(_AHEAD // 2, whole=_BATCH)
        if len(self._reading.loose) >= _BATCH:
            places |= self._assembly.feeds.keys()
        if self._assembly.queued > _INDEX_AHEAD:
            places.add(self._index)
        self._consumer.pause(places)

    def _count(self) -> None:
        REPLAYED.inc(self._reading.replayed)
        UNNAMED.inc(self._reading.unnamed)
        self._reading.replayed = self._reading.unnamed = 0

    def _tell_age(self) -> None:
        """Says when the copy last had all that the index names. Before the index has a record there is nothing to be
        behind of."""
        if self._assembly.next is not None or self._database.pending:
            return
        if self._position.stamp == NOWHERE:
            COPY_AGE.complete(time.time())
        elif self._reading.index_ended:
            COPY_AGE.complete(self._reading.index_ended)

    def _pass_by(self) -> None:
        """Records of another connector from before the index, such as Debezium's, are not staged. Their tables get a
        gap."""
        topics = {row[0] for row in self._reading.take_foreign()}
        for topic in sorted(topics - self._passed_by):
            self._passed_by.add(topic)
            detail = f"topic {topic} begins with records that capture did not write, which are not staged"
            table = self._assembly.topics[topic]
            self._gaps.append(TableGap(table, "begun without a copy", self._position.stamp, detail))

    # What may become visible

    def _advance(self) -> bool:
        """Hands over what can become visible. Returns whether calling it again may hand over more."""
        if self._anew:  # until the index is read to the end that it had when reading began
            self._assembly.begin_anew()
            self._anew = not self._reading.has_index()
        step = self._assembly.next
        if isinstance(step, ChainBreak):
            self._catch_up(step)
        elif isinstance(step, PendingCommit) and self._is_large(step):
            self._stage_large(step)
        else:
            steps = self._assembly.ready(_BATCH)
            if steps:
                self._reading.left()
            if not self._apply(steps) and isinstance(step, PendingCommit):
                return self._lacks(step)
        return False

    def _catch_up(self, step: ChainBreak) -> None:
        """The index begins again: rows up to there are written as they come, and become a state of the shop in one
        step."""
        self._assembly.catch_up()
        self._reading.left()
        if self._position.state != "catching up":
            log.info("the copy catches up", lsn=str(step.since.commit_lsn))
            if not self._anew and step.since.generation == self._position.end.generation:
                log.warning(
                    "records of the index of commits are missing, with what they said about parked and new tables",
                    index=self._index[0], until=str(step.since.commit_lsn), next="capture status",
                )  # fmt: skip
        self._position = self._position._replace(state="catching up")
        if self._anew or not self._ends.passed(step.since, self._assembly.topics):
            self._apply([])
            return
        self._assembly.caught_up()
        stamp = max(self._position.stamp, step.since)
        self._position = self._position._replace(stamp=stamp, state="steady", end=step.since)
        self._hand_over(self._parcel(self._reading.take_loose(), []))
        log.info("the copy has caught up", lsn=str(step.since.commit_lsn))

    def _lacks(self, entry: PendingCommit) -> bool:
        """The next commit is not whole. Once no more of it can come, it becomes visible as it is, and its tables get a
        gap."""
        short = self._assembly.short(entry)
        if not self._ends.came(entry.stamp, {one.topic for one in short}):
            return False
        if self._is_compacted(entry, short):
            self._anew = True
        else:
            self._lost(entry, short)
            self._assembly.give_up(entry)
        return True

    def _is_compacted(self, entry: PendingCommit, short: Iterable[Short]) -> bool:
        """Whether compaction explains the rows that a commit lacks: later rows of the same keys are there. Not so if
        the commit is older than the topic keeps deletes, since a missing row may then be a delete; unless nothing was
        staged before."""
        if entry.stamp[:2] >= self._reading.began[:2]:
            return False
        age = time.time() - entry.ts_us / 1e6 if entry.ts_us and not self._is_first else 0.0  # a chunk has no deletes
        keep = [self._consumer.keeps_deletes(one.topic) for one in short]
        return all(seconds is not None and age < seconds for seconds in keep)

    def _lost(self, entry: PendingCommit, short: Iterable[Short]) -> None:
        """Opens gaps. Changes in skipped offsets come when these are read; others never do."""
        for one in short:
            cause: Cause = "skipped" if self._reading.skips(one.topic, entry.stamp) else "lost"
            detail = f"{one.missing} changes of the commit at {entry.stamp.commit_lsn} are not in topic {one.topic}"
            self._gaps.append(TableGap(one.table, cause, entry.stamp, detail))

    def _is_large(self, entry: PendingCommit) -> bool:
        """Whether a commit is too large for memory. Its rows are written as they are read, in one transaction."""
        return entry is self._large or (entry.expected > _BATCH and bool(self._assembly.short(entry)))

    def _stage_large(self, entry: PendingCommit) -> None:
        if entry is not self._large:
            self._large = entry
            log.info("a large commit is staged", lsn=str(entry.stamp.commit_lsn), rows=entry.expected)
        rows = [*self._reading.take_loose(), *self._assembly.drain(entry)]
        short = self._assembly.short(entry)
        if short and not self._ends.came(entry.stamp, {one.topic for one in short}):
            said = f"the commit at {entry.stamp.commit_lsn} has {entry.expected} rows, which become visible together"
            if rows or self._is_due():
                self._hand_over_part(rows, said)
            return
        if short and self._is_compacted(entry, short):
            self._anew = True
            self._position = self._position._replace(state="catching up")
        else:
            self._lost(entry, short)
        self._assembly.drained(entry)
        self._large = None
        self._reading.left()
        self._position = self._position._replace(stamp=entry.stamp)
        self._hand_over(self._parcel([*self._reading.take_loose(), *rows], [entry]))

    # What is handed over

    def _apply(self, steps: Sequence[PendingCommit | IndexEnd]) -> bool:
        """Hands over loose rows and steps, if there are any, or every second an empty parcel that keeps the session
        alive. Returns whether there were any."""
        for step in steps:
            if isinstance(step, IndexEnd):
                self._position = self._position._replace(
                    next_offset=step.next_offset, serial=step.serial, end=step.stamp
                )
            self._position = self._position._replace(stamp=max(self._position.stamp, step.stamp))
        of_commits = (row for step in steps if isinstance(step, PendingCommit) for row in step.rows)
        rows = [*self._reading.take_loose(), *of_commits]
        parcel = self._parcel(rows, steps)
        if steps or rows or parcel.foreign or parcel.gaps or parcel.completes or parcel.waits_for is not None:
            self._hand_over(parcel)
        return bool(steps or rows or parcel.foreign)

    def _parcel(self, rows: Sequence[Row], steps: Sequence[PendingCommit | IndexEnd]) -> Parcel:
        gaps, self._gaps = self._gaps, []
        topics = dict(self._assembly.topics)
        return Parcel(
            position=self._position,
            reached=self._reading.reached(),
            topics=topics,
            rows=rows,
            batch=self._committer.decode(rows, topics),
            foreign=self._reading.take_foreign(),
            turns=[step for step in steps if isinstance(step, IndexEnd)],
            commit_us=max((step.ts_us for step in steps), default=0),
            gaps=gaps,
            completes=self._completed(),
            waits_for=self._waits_for() if self._is_due() else None,
        )

    def _completed(self) -> Completed | None:
        """An announced snapshot is complete once its partitions are read to ends that were asked for after it was
        announced."""
        for one in self._announced[:1]:
            if one.id == self._completing:  # handed over already
                break
            topics = {topic: table for topic, table in self._assembly.topics.items() if table in one.tables}
            if self._ends.read(one.id, topics):
                is_old = one.stamp[:2] < self._reading.began[:2]
                whole = {table for topic, table in topics.items() if self._consumer.keeps_deletes(topic) is None}
                self._completing = one.id
                return Completed(one, frozenset(one.tables) - whole if is_old else frozenset())
        return None

    def _is_due(self) -> bool:
        """Whether the session needs a query to stay alive."""
        now = time.monotonic()
        if now - self._said_at < _ALIVE:
            return False
        self._said_at = now
        return True

    def _hand_over(self, parcel: Parcel) -> None:
        self._handed_at.append(time.monotonic())
        self._database.submit(self._committer.commit, parcel)

    def _hand_over_part(self, rows: Sequence[Row], waits_for: str) -> None:
        self._handed_at.append(time.monotonic())
        topics = dict(self._assembly.topics)
        self._database.submit(self._committer.write_part, rows, self._committer.decode(rows, topics), topics, waits_for)

    def _waits_for(self) -> str:
        """What the next commit waits for, for people; "" for nothing."""
        step = self._assembly.next
        if step is None and self._position.stamp == NOWHERE:
            return f"the index of commits, topic {self._index[0]}, has no record yet: `capture run` writes it"
        if isinstance(step, ChainBreak):
            return f"reads all topics up to {step.since.commit_lsn}, where the index of commits begins"
        if not isinstance(step, PendingCommit) or not (short := self._assembly.short(step)):
            return ""
        parts = ", ".join(f"{one.missing} changes of {one.table} ({one.topic})" for one in short)
        return f"the commit at {step.stamp.commit_lsn} still lacks {parts}"
