"""The writing side of the stager: what becomes visible in one transaction of the middle layer.

It runs in the thread that has the database. With the rows go the marks, the evidence of what is staged of each
partition, and where the copy stands, so nothing here is true before it is committed.
"""

from __future__ import annotations

import time
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
from sink.metrics import COPY_BEHIND, COPY_LSN, STAGED
from sink.staging import snapshots
from sink.staging.assembly import IndexEnd, Place, Row
from sink.staging.batch import Batch
from sink.staging.gaps import TableGap, close_gap, open_gap
from sink.staging.offset_evidence import OffsetEvidence
from sink.staging.position import Position, load_position, save_position, save_waiting
from sink.staging.snapshots import Announced, Completed
from sink.staging.writer import CopyWriter

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Parcel:
    """What becomes visible in one transaction. Nothing in it changes after it was handed over.

    `batch`: the rows, decoded. `reached`: by partition the first offset that is not staged with it. `commit_us`: when
    the last commit in it was made, µs since 1970, 0: it brings none. `waits_for`: what the copy is said to wait for;
    None: as before.
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
    """What the middle layer says when reading begins. `joined`: since where in the log each table is followed."""

    position: Position
    joined: Mapping[str, Stamp]
    announced: Sequence[Announced]


class CommitResult(NamedTuple):
    """What is so once a parcel is committed: the offsets where a restart reads on, and the snapshots whose last rows
    may still be on their way."""

    resume: Mapping[Place, int]
    announced: Sequence[Announced]


class Committer:
    """The database of the stager that leads, in the session that leads."""

    def __init__(self, connection: Connection, writer: CopyWriter, tables: Collection[str], index: Place) -> None:
        self._connection = connection
        self._writer = writer
        self._tables = frozenset(tables)
        self._index = index
        self._large = ExitStack()  # the transaction of a commit that is staged in parts
        self._cursor: Cursor | None = None  # of that transaction

    # Where reading begins

    def prepare(self) -> None:
        """What a session needs."""
        with transaction(self._connection) as cursor:
            self._writer.prepare(cursor)

    def staged(self, partitions: Sequence[Partition]) -> Staged:
        """What is staged of these partitions."""
        assert self._cursor is None  # noqa: S101  as in `wait`
        with transaction(self._connection) as cursor:
            seen = evidence.load(cursor, partitions)
            position = load_position(cursor)
            made_again = evidence.other_ids(cursor, [partition for partition in partitions if partition not in seen])
        return Staged(seen, made_again, {Partition(self._index[0], position.topic_id, 0): position.next_offset})

    def begin(self, assigned: Mapping[Place, Assigned]) -> StartState:
        """Parcels come from these partitions from now on."""
        self._writer.forget()
        self._writer.take_parked()
        self._offsets = OffsetEvidence(assigned)
        with transaction(self._connection) as cursor:
            self._position = load_position(cursor)
            joined = self._writer.follow(cursor, self._position.stamp)
            self._announced = snapshots.announced(cursor)
        return StartState(self._position, joined, self._announced)

    def decode(self, rows: Sequence[Row], topics: Mapping[str, str]) -> Batch:
        """Rows as they are written. Needs no database: the reading side does it for the next rows meanwhile."""
        return self._writer.decode(rows, topics)

    def wait(self, reason: str) -> None:
        """Says what the copy waits for."""
        assert self._cursor is None  # noqa: S101  its COMMIT would make half of a large commit visible
        with transaction(self._connection) as cursor:
            save_waiting(cursor, reason)

    # What becomes visible

    def commit(self, parcel: Parcel) -> CommitResult:
        """Makes a parcel visible, with the parts that came before it."""
        with self._large as large:
            cursor = self._cursor or large.enter_context(transaction(self._connection))
            self._cursor = None
            self._write(cursor, parcel.rows, parcel.batch, parcel.topics)
            self._follow_index(cursor, parcel)
            self._save(cursor, parcel)
        COPY_LSN.set(int(parcel.position.stamp.commit_lsn))
        if parcel.commit_us:
            COPY_BEHIND.set(max(0.0, time.time() - parcel.commit_us / 1e6))
        resume = dict(parcel.reached)
        if parcel.position.topic_id:
            resume[self._index] = parcel.position.next_offset
        return CommitResult(resume, self._announced)

    def write_part(self, rows: Sequence[Row], batch: Batch, topics: Mapping[str, str], waits_for: str) -> None:
        """Writes rows of a commit that is not here as a whole: its transaction stays open until a parcel is kept, and
        what is said of it is seen before."""
        if self._cursor is None:
            self.wait(waits_for)
        with self._large as large:
            cursor = self._cursor or large.enter_context(transaction(self._connection))
            self._cursor = None
            cursor.execute("SELECT 1")  # a sign of life where there are no rows
            self._write(cursor, rows, batch, topics)
            self._large, self._cursor = large.pop_all(), cursor

    def roll_back(self) -> None:
        """Parts of a commit that nobody will end are as if they had not been."""
        self._cursor = None
        with suppress(ReadAgainError), self._large:
            raise ReadAgainError("the rest of a large commit does not come", "it is read again")

    def _write(self, cursor: Cursor, rows: Sequence[Row], batch: Batch, topics: Mapping[str, str]) -> None:
        if not rows:
            return
        bad = self._writer.write(cursor, rows, batch, topics)
        written = [row for row in rows if row[:3] not in bad] if bad else rows
        self._writer.unpark(cursor, self._offsets.were_parked(written))
        self._offsets.fill((), self._writer.replace_parked(cursor, written))
        STAGED.inc(len(rows))

    def _follow_index(self, cursor: Cursor, parcel: Parcel) -> None:
        """What the index says of tables and snapshots, and what is known by now of those that it said before."""
        for turn in parcel.turns:
            for table in turn.parked:
                detail = "capture does not write its changes; `capture status` says why"
                self._gap(cursor, TableGap(table, "parked by capture", turn.stamp, detail))
            for table in turn.begun:
                detail = "its changes are here, and no copy of the rows before them"
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

    def _save(self, cursor: Cursor, parcel: Parcel) -> None:
        """Marks, evidence, and where the copy stands."""
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
        if saved.moved or parcel.completes is not None or parcel.position != self._position:
            save_position(cursor, parcel.position, parcel.commit_us or None)
            self._position = parcel.position

    def _gap(self, cursor: Cursor, gap: TableGap) -> None:
        if gap.table in self._tables and open_gap(cursor, gap):
            log.warning("a table has a gap", table=gap.table, reason=gap.detail, next="sink status")
