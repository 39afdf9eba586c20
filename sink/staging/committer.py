"""The writing half of the stager. One transaction of the middle layer writes rows, marks, the offsets that are staged,
and the copy's position.

Runs in the thread that has the database connection.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from schemas.model.change import Stamp
from sink.database import Connection, Cursor, transaction
from sink.intake import evidence
from sink.intake.consumer import Assigned, ReadAgainError, Staged
from sink.intake.evidence import Partition
from sink.metrics import COPY_AGE, COPY_LSN, STAGED
from sink.staging import snapshots
from sink.staging.assembly import IndexEnd, Place, Row
from sink.staging.batch import Batch
from sink.staging.gaps import TableGap, close_gap, open_gap
from sink.staging.offset_evidence import OffsetEvidence
from sink.staging.position import Position, load_position, save_position, save_waiting, show_copy
from sink.staging.snapshots import Announced, Completed
from sink.staging.writer import CopyWriter

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Parcel:
    """What becomes visible in one transaction. It is not changed after it was handed over.

    `batch`: the rows, decoded. `reached`: partition → the first offset that is not staged afterwards. `commit_us`: time
    of its last commit or heartbeat, µs since 1970; 0 if it has none. `waits_for`: what the copy waits for, for people;
    None: unchanged.
    """

    position: Position
    reached: Mapping[Place, int]
    topics: Mapping[str, str]
    batch: Batch
    rows: Sequence[Row] = ()
    foreign: Sequence[Row] = ()
    turns: Sequence[IndexEnd] = ()
    commit_us: int = 0
    gaps: Sequence[TableGap] = ()
    completes: Completed | None = None
    waits_for: str | None = None


class StartState(NamedTuple):
    """The state of the middle layer when reading begins. `joined`: table → the position from which it is followed."""

    position: Position
    joined: Mapping[str, Stamp]
    announced: Sequence[Announced]


class CommitResult(NamedTuple):
    """The result of a committed parcel: the offsets where a restart reads on, and announced snapshots whose last rows
    may still come."""

    resume: Mapping[Place, int]
    announced: Sequence[Announced]


class Committer:
    """The leading stager's database, in the session that has the lead."""

    def __init__(self, connection: Connection, writer: CopyWriter, tables: Collection[str], index: Place) -> None:
        self._connection = connection
        self._writer = writer
        self._tables = frozenset(tables)
        self._index = index
        self._large = ExitStack()  # the open transaction of a commit that is staged in parts
        self._cursor: Cursor | None = None  # its cursor

    # Where reading begins

    def prepare(self) -> None:
        """Prepares the session."""
        with transaction(self._connection) as cursor:
            self._writer.prepare(cursor)
            committed_at = show_copy(cursor).committed_at
        COPY_AGE.begins(committed_at.timestamp() if committed_at else None)

    def staged(self, partitions: Sequence[Partition]) -> Staged:
        """The staged offsets of these partitions."""
        assert self._cursor is None  # noqa: S101  as in `wait`
        with transaction(self._connection) as cursor:
            seen = evidence.load(cursor, partitions)
            position = load_position(cursor)
            made_again = evidence.other_ids(cursor, [partition for partition in partitions if partition not in seen])
        return Staged(seen, made_again, {Partition(self._index[0], position.topic_id, 0): position.next_offset})

    def begin(self, assigned: Mapping[Place, Assigned]) -> StartState:
        """Starts with a new assignment of partitions."""
        self._writer.forget()
        self._writer.take_parked()
        self._offsets = OffsetEvidence(assigned)
        with transaction(self._connection) as cursor:
            self._position = load_position(cursor)
            joined = self._writer.follow(cursor, self._position.stamp)
            self._announced = snapshots.announced(cursor)
            COPY_AGE.copied(snapshots.first_runs(cursor, self._position.stamp.generation))
        return StartState(self._position, joined, self._announced)

    def decode(self, rows: Sequence[Row], topics: Mapping[str, str]) -> Batch:
        """Decodes rows for writing. Needs no database, so the reading thread does it while the writing thread
        writes."""
        return self._writer.decode(rows, topics)

    def say_waiting(self, reason: str) -> None:
        """Writes what the copy waits for, for `sink status`."""
        assert self._cursor is None  # noqa: S101  a COMMIT here would make half of a large commit visible
        with transaction(self._connection) as cursor:
            save_waiting(cursor, reason)

    # What becomes visible

    def commit(self, parcel: Parcel) -> CommitResult:
        """Makes a parcel visible, with parts that were written before it."""
        with self._large as large:
            cursor = self._cursor or large.enter_context(transaction(self._connection))
            self._cursor = None
            self._write(cursor, parcel.rows, parcel.batch, parcel.topics)
            self._follow_index(cursor, parcel)
            self._save(cursor, parcel)
        COPY_LSN.set(int(parcel.position.stamp.commit_lsn))
        resume = dict(parcel.reached)
        if parcel.position.topic_id:
            resume[self._index] = parcel.position.next_offset
        return CommitResult(resume, self._announced)

    def write_part(self, rows: Sequence[Row], batch: Batch, topics: Mapping[str, str], waits_for: str) -> None:
        """Writes rows of a commit that is not whole yet. The transaction stays open until `commit`; `waits_for` is
        committed before it begins."""
        if self._cursor is None:
            self.say_waiting(waits_for)
        with self._large as large:
            cursor = self._cursor or large.enter_context(transaction(self._connection))
            self._cursor = None
            cursor.execute("SELECT 1")  # keeps the session from its idle time-out if there are no rows
            self._write(cursor, rows, batch, topics)
            self._large, self._cursor = large.pop_all(), cursor

    def roll_back(self) -> None:
        """Rolls back the parts of a commit that will not be completed."""
        self._cursor = None
        with suppress(ReadAgainError), self._large:
            raise ReadAgainError("the rest of a large commit has not arrived", "it is read again")

    def _write(self, cursor: Cursor, rows: Sequence[Row], batch: Batch, topics: Mapping[str, str]) -> None:
        if not rows:
            return
        bad = self._writer.write(cursor, rows, batch, topics)
        written = [row for row in rows if row[:3] not in bad] if bad else rows
        self._writer.unpark(cursor, self._offsets.were_parked(written))
        self._offsets.fill((), self._writer.replace_parked(cursor, written))
        STAGED.inc(len(rows))

    def _follow_index(self, cursor: Cursor, parcel: Parcel) -> None:
        """Writes what the index says of parked and begun tables and of snapshots, and completes snapshots."""
        for turn in parcel.turns:
            for table in turn.parked:
                detail = "capture does not write its changes; `capture status` says why"
                self._gap(cursor, TableGap(table, "parked by capture", turn.stamp, detail))
            for table in turn.begun:
                detail = "its changes are here, but no copy of its earlier rows"
                self._gap(cursor, TableGap(table, "begun without a copy", turn.stamp, detail))
            for state in turn.snapshots:
                snapshots.note(cursor, turn.stamp.generation, state)
        for gap in parcel.gaps:
            self._gap(cursor, gap)
        if parcel.completes is not None:
            made_up = snapshots.complete(cursor, self._writer, parcel.completes, self._tables, parcel.topics)
            self._offsets.fill(*made_up)
        if parcel.completes is not None or any(turn.snapshots for turn in parcel.turns):
            self._announced = snapshots.announced(cursor)
            COPY_AGE.copied(snapshots.first_runs(cursor, parcel.position.stamp.generation))

    def _save(self, cursor: Cursor, parcel: Parcel) -> None:
        """Writes marks, staged offsets, and the copy's position."""
        if parcel.foreign:
            self._writer.park_foreign(cursor, parcel.foreign)
        saved = self._offsets.save(cursor, parcel.reached, self._writer.take_parked())
        for topic in saved.skipped & parcel.topics.keys():
            detail = f"offsets of {topic} were skipped; `sink status` names them"
            self._gap(cursor, TableGap(parcel.topics[topic], "skipped", parcel.position.stamp, detail))
        of_table = parcel.topics.get
        for table in {of_table(topic) for topic in saved.read} - {of_table(topic) for topic in saved.skipping}:
            if table is not None and close_gap(cursor, table, "skipped"):
                self._writer.touch_readers(cursor, [table])
        self._writer.mark(cursor)
        if parcel.waits_for is not None:
            save_waiting(cursor, parcel.waits_for)
        if saved.advanced or parcel.completes is not None or parcel.position != self._position:
            save_position(cursor, parcel.position, parcel.commit_us or None)
            self._position = parcel.position

    def _gap(self, cursor: Cursor, gap: TableGap) -> None:
        if gap.table in self._tables and open_gap(cursor, gap):
            log.warning("a table has a gap", table=gap.table, reason=gap.detail, next="sink status")
