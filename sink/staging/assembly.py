"""Assembles records into shop commits. The index of commits says which commit is next and how many changes it has; it
is whole once these are here. Commits leave in the order of the index. Pure.

Records come from many partitions. Each partition is ordered by (generation, commit LSN, ordinal); between partitions
there is no order. Nothing here outlives the process or the assignment: what is not visible yet is read again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from schemas.model.change import Stamp, parse_transaction
from schemas.model.commits import IndexRecord, SnapshotState
from schemas.model.errors import DataError
from schemas.model.lsn import LSN

Row: TypeAlias = tuple[str, int, int, bytes | None, bytes | None, bytes, bytes, tuple[tuple[str, bytes], ...]]
"""A record of a table's topic: topic, partition, offset, key, value, `ordertap.stamp`, `ordertap.transaction`, and the
other headers. A plain tuple for speed: one is made for each record."""

Place: TypeAlias = tuple[str, int]
"""Topic and partition."""

LAST: Final = 1 << 62
"""An ordinal after all changes of a commit. The copy's position has it once the commit is visible."""


def snapshot_of(mark: bytes) -> str | None:
    """The id of a row's snapshot, from its `ordertap.transaction`; None for a row of a commit. DataError."""
    return None if mark[:1].isdigit() else parse_transaction(mark).snapshot


def stamp_of(stamp: bytes) -> tuple[int, int, int]:
    """(generation, commit LSN, ordinal) of a stamp whose form is already checked."""
    generation, lsn, ordinal = stamp.split(b":")
    return int(generation), int(lsn), int(ordinal)


class Feed:
    """The state of reading one partition of a table's topic."""

    __slots__ = ("first", "last", "place", "position", "waiting")

    def __init__(self, place: Place, position: int) -> None:
        self.place = place
        self.position = position
        """The offset that is read next."""
        self.first = self.last = b""
        """The stamps of the first and the last record that was read."""
        self.waiting: deque[int] = deque()
        """Offsets of the records that are not visible yet, in order."""

    @property
    def first_invisible(self) -> int:
        """The offset from which a restart has to read."""
        return self.waiting[0] if self.waiting else self.position

    def has_passed(self, stamp: Stamp, end: int | None) -> bool:
        """Whether no record with this stamp can still come: a later one was read, or everything up to `end`. `end` is
        the partition's log end offset, asked for after the stamp was known."""
        if self.last and stamp_of(self.last) > stamp:
            return True
        return end is not None and self.position >= end


class Short(NamedTuple):
    """What a commit lacks in one topic: the number of `missing` changes."""

    table: str
    topic: str
    missing: int


@dataclass(slots=True)
class PendingCommit:
    """A commit, or a chunk of a snapshot on demand, that is not visible yet. `rows` are in the order of their
    partitions.

    `changes`: (table, topic, count) for the profile's tables; `expected`: the sum of these counts.
    """

    key: bytes
    stamp: Stamp
    ts_us: int
    changes: tuple[tuple[str, str, int], ...]
    expected: int
    rows: list[Row] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class IndexEnd:
    """The end of a record of the index. Everything up to `stamp` is visible when its turn comes.

    `next_offset`: where the index is read on; `serial`: that record's number; `ts_us`: time of its last
    heartbeat.
    """

    stamp: Stamp
    serial: int
    next_offset: int
    parked: tuple[str, ...]
    begun: tuple[str, ...]
    snapshots: tuple[SnapshotState, ...]
    ts_us: int


class ChainBreak(NamedTuple):
    """The index does not continue where it ended, or begins here: commits up to `since` are in no entry."""

    since: Stamp


Step: TypeAlias = PendingCommit | IndexEnd | ChainBreak


class _Open:
    """The rows read so far of one commit or chunk that is not visible yet."""

    __slots__ = ("drained", "rows", "stamp", "truncates")

    def __init__(self, stamp: tuple[int, int, int]) -> None:
        self.stamp = stamp
        self.rows: list[Row] = []
        self.drained: Counter[str] | None = None  # made only if needed: a Counter is larger than most commits
        self.truncates: set[bytes] | None = None

    def come(self) -> Counter[str]:
        """Rows by topic, with those already handed out."""
        return (self.drained or Counter()) + Counter(row[0] for row in self.rows)


class Assembly:
    """What was read and is not visible yet. `stamp`: the copy's position."""

    def __init__(self, tables: Collection[str], stamp: Stamp, serial: int, end: Stamp | None) -> None:
        """`tables`: the profile's. `serial`, `end`: number and end of the index record taken last; `end` None: none
        was, so the index is taken from its beginning."""
        self._tables = frozenset(tables)
        self.stamp = stamp
        self.feeds: dict[Place, Feed] = {}
        self.topics: dict[str, str] = {}
        """Topic → table, as the index names them."""
        self._serial = serial
        self._end = end
        self._queue: deque[Step] = deque()
        self._open: dict[bytes, _Open] = {}
        self._floor: tuple[int, int, int] = stamp

    # What comes in

    def index(self, record: IndexRecord, offset: int) -> None:
        """Takes a record of the index. One that was taken before is skipped. DataError if it refers to a table that it
        does not name; nothing of it is taken then."""
        end = Stamp(record.generation, LSN(record.end), 0)
        if self._end is not None and record.serial <= self._serial and end <= self._end:
            return
        entries = self._entries(record)
        since = Stamp(record.generation, LSN(record.previous), 0)
        if self._end is None or record.serial != self._serial + 1 or since.commit_lsn != self._end.commit_lsn:
            self._queue.append(ChainBreak(since))
        self._serial, self._end = record.serial, end
        self.topics |= {topic: table for table, topic in record.tables if table in self._tables}
        self._queue.extend(entries)
        told = (record.parked, record.begun, tuple(record.snapshots), record.beat_us)
        self._queue.append(IndexEnd(end, record.serial, offset + 1, *told))

    def _entries(self, record: IndexRecord) -> list[PendingCommit]:
        """The commits of a record that are not visible yet and change tables of the profile."""
        entries = []
        shapes: dict[tuple[tuple[int, int], ...], tuple[tuple[tuple[str, str, int], ...], int]] = {}
        for commit in record.commits:
            if commit.changes not in shapes:  # most commits of a shop have one of a few shapes
                try:
                    changes = [(*record.tables[number], count) for number, count in commit.changes]
                    followed = tuple(change for change in changes if change[0] in self._tables)
                    shapes[commit.changes] = followed, sum(change[2] for change in followed)
                except (LookupError, TypeError):
                    reason = "a record of the index of commits refers to a table that it does not name"
                    raise DataError(reason, "find out what else writes to the topic") from None
            followed, expected = shapes[commit.changes]
            whole = commit.snapshot is None
            stamp = Stamp(record.generation, LSN(commit.lsn), LAST if whole else 0)
            if expected and stamp > self.stamp:
                key = b"%d:%d:" % stamp[:2] if whole else b"%d:%d:0" % stamp[:2]
                entries.append(PendingCommit(key, stamp, commit.ts_us, followed, expected))
        return entries

    def row(self, feed: Feed, row: Row) -> Row | None:
        """Takes a record of a table. Returns it if its commit is not one still to come: the caller decides."""
        stamp = row[5]
        if row[4] is None and stamp == feed.last:  # the tombstone after its delete
            return None
        feed.last = stamp
        feed.first = feed.first or stamp
        head, _, ordinal = stamp.rpartition(b":")
        key = stamp if ordinal == b"0" else head + b":"
        found = self._open.get(key)
        if found is None:
            parsed = stamp_of(stamp)
            if parsed <= self._floor:
                return row
            found = self._open[key] = _Open(parsed)
        if row[3] is None:  # a TRUNCATE is written to every partition
            found.truncates = found.truncates or set()
            if stamp in found.truncates:
                return None
            found.truncates.add(stamp)
        found.rows.append(row)
        feed.waiting.append(row[2])
        return None

    # What goes out

    @property
    def next(self) -> Step | None:
        """The step that becomes visible next; None while the index has no more."""
        return self._queue[0] if self._queue else None

    @property
    def named(self) -> Stamp:
        """The position up to which the index has named all commits."""
        return self._end or self.stamp

    @property
    def queued(self) -> int:
        """The number of steps that wait."""
        return len(self._queue)

    def ready(self, most: int) -> list[PendingCommit | IndexEnd]:
        """Takes the next whole steps, in order, up to about `most` rows. They count as visible from now on.

        A commit with more rows than that is left to `drain`, and everything after it waits.
        """
        steps: list[PendingCommit | IndexEnd] = []
        rows = 0
        while self._queue and rows < most:
            step = self._queue[0]
            if isinstance(step, ChainBreak):
                break
            if isinstance(step, PendingCommit):
                found = self._open.get(step.key)
                if found is None or len(found.rows) < step.expected or (step.expected > most and found.drained):
                    break
                self._take(step, found)
                rows += len(step.rows)
            self._queue.popleft()
            self.stamp = self._floor = max(self.stamp, step.stamp)
            steps.append(step)
        return steps

    def short(self, entry: PendingCommit) -> list[Short]:
        """What the next commit still lacks, by table and topic."""
        found = self._open.get(entry.key)
        come = found.come() if found else Counter()
        return [
            Short(table, topic, count - come[topic]) for table, topic, count in entry.changes if come[topic] < count
        ]

    def give_up(self, entry: PendingCommit) -> None:
        """Lets the next commit become visible without the rows that it lacks."""
        entry.expected = len(found.rows) if (found := self._open.get(entry.key)) else 0
        if found is None:
            self._open[entry.key] = _Open(entry.stamp)

    def begin_anew(self) -> None:
        """Makes one step of all commits named so far, as at the beginning of the index. Compaction has removed some of
        their rows, so the copy is no state of the shop until it has the later ones."""
        turns = [step for step in self._queue if isinstance(step, IndexEnd)]
        told = [turn for turn in turns[:-1] if turn.parked or turn.begun or turn.snapshots]
        self._queue = deque((ChainBreak(self.named), *told, *turns[-1:]))

    def drain(self, entry: PendingCommit) -> list[Row]:
        """Hands out the rows read so far of the next commit, which is too large to be kept in memory."""
        found = self._open.get(entry.key)
        if found is None:
            return []
        rows, found.rows = found.rows, []
        found.drained = found.drained or Counter()
        found.drained.update(row[0] for row in rows)
        self._leave(rows)
        return rows

    def drained(self, entry: PendingCommit) -> None:
        """`drain` has handed out all of the next commit: it counts as visible from now on."""
        self._open.pop(entry.key, None)
        self._queue.popleft()
        self.stamp = self._floor = entry.stamp

    def catch_up(self) -> Stamp | None:
        """The position where the index begins again, if that is next. Rows up to there are in no entry, and `row` and
        `left` return them from now on."""
        step = self.next
        if not isinstance(step, ChainBreak):
            return None
        self._floor = max(self._floor, step.since)
        return step.since

    def caught_up(self) -> None:
        """All rows up to the beginning of the index are here: the copy's position is there now."""
        step = self._queue.popleft()
        self.stamp = self._floor = max(self.stamp, step.since if isinstance(step, ChainBreak) else step.stamp)

    def left(self) -> list[Row]:
        """Returns rows that waited for an entry that will not come, because the copy is past them. The caller
        decides."""
        passed = [key for key, one in self._open.items() if one.stamp <= self._floor]
        rows = [row for key in passed for row in self._open.pop(key).rows]
        self._leave(rows)
        return rows

    def crowded(self, most: int, whole: int) -> set[Place]:
        """Partitions with more than `most` waiting records, not counting those of the next commit: reading on would not
        help. The rows of a next commit with more than `whole` rows do count, since these leave before it is whole."""
        over = {feed.place: len(feed.waiting) for feed in self.feeds.values() if len(feed.waiting) > most}
        step = self.next
        found = None
        if isinstance(step, PendingCommit) and step.expected <= whole and over:
            found = self._open.get(step.key)
        for row in found.rows if found else ():
            if row[:2] in over:
                over[row[:2]] -= 1
        return {place for place, count in over.items() if count > most}

    def _take(self, entry: PendingCommit, found: _Open) -> None:
        del self._open[entry.key]
        entry.rows = found.rows
        self._leave(found.rows)

    def _leave(self, rows: list[Row]) -> None:
        """Takes rows out of their partitions' queues. Usually they are the first there."""
        feeds = self.feeds
        for row in rows:
            waiting = feeds[row[0], row[1]].waiting
            if waiting[0] == row[2]:
                waiting.popleft()
            else:
                waiting.remove(row[2])
