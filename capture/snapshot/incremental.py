"""Snapshots on demand, while streaming goes on: signals in the log queue them, chunks between two watermarks do them.

A chunk's rows are written at the place of its high mark in the log, without rows that the stream saw change since the
low mark. The progress is part of the position, so a start continues from there.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Iterable, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import structlog

from capture.changes.own_records import OwnRecords
from capture.changes.versions import ParkedError
from capture.demand import Demand, Request, Signal
from capture.kafka.index import News
from capture.kafka.producer import Fields
from capture.metrics import SNAPSHOT_ROWS
from capture.snapshot.chunk_reader import ChunkRows, Read, Row, Watermark
from schemas.model.change import (
    STAMP_HEADER,
    TRANSACTION_HEADER,
    UNCHANGED_HEADER,
    Stamp,
    snapshot_header,
    stamp_header,
)
from schemas.model.commits import SnapshotState, SnapshotStep
from schemas.model.errors import DataError, OrdertapError, SettingsError, UnavailableError
from schemas.model.lsn import LSN
from schemas.process.backoff import backoff
from schemas.writing import records

log = structlog.get_logger("capture")

_REMEMBERED_XIDS: Final = 100_000
_REMEMBERED_ROWS: Final = 100_000
_RETAKE: Final = 0.2  # seconds: a commit that waits for a synchronous standby is visible soon
_SLOWEST_RETAKE: Final = 5.0
_SLOWEST_ATTEMPT: Final = 60.0
_STATES: Final[Mapping[str, SnapshotStep]] = {
    records.STARTED: "running",
    records.COMPLETED: "completed",
    records.ABORTED: "aborted",
}


class Window:
    """What the stream saw since a low watermark, as topics and keys. Chunks are compiled from today's catalogue and may
    have another schema, so keys are compared by the rows they mean."""

    def __init__(self) -> None:
        self._changed: set[tuple[str, bytes]] = set()
        self._unfilled: set[tuple[str, bytes]] = set()
        self.truncated: set[str] = set()  # tables
        self.altered: set[str] = set()
        self._overflown = False

    def saw(self, drafts: Sequence[Fields]) -> None:
        """Notes changes, as far as memory allows."""
        if len(self._changed) > _REMEMBERED_ROWS:
            self._overflown = True
            return
        for topic, _, key, _, headers in drafts:
            if key is not None:
                self._changed.add((topic, key))
                if any(header == UNCHANGED_HEADER for header, _ in headers):
                    self._unfilled.add((topic, key))
                else:
                    self._unfilled.discard((topic, key))

    def untouched(self, chunk: ChunkRows) -> list[Row]:
        """The rows of a chunk that the stream has not seen change since."""
        changed, row_of = _rows(self._changed, chunk), chunk.table.encoder.row_of
        return [row for row in chunk.rows if row[0] is None or row_of(row[0]) not in changed]

    def spoils(self, chunk: ChunkRows) -> str | None:
        """Why the changes that the stream saw cannot replace the chunk's rows; None if they can."""
        rows = {chunk.table.encoder.row_of(key) for key, _ in chunk.rows if key is not None}
        if self._overflown:
            return "too much changed meanwhile"
        if chunk.table.name in self.altered:
            return "its schema was sent again"
        if rows & _rows(self._unfilled, chunk):
            return "a change of a row leaves out values that only the chunk has"
        if chunk.table.encoder.shares_keys and rows & _rows(self._changed, chunk):
            return "which of the rows with one key changed is not known"
        return None


def _rows(seen: Iterable[tuple[str, bytes]], chunk: ChunkRows) -> set[bytes]:
    """The rows of the chunk's table that these topics and keys mean."""
    topic, row_of = chunk.table.topic, chunk.table.encoder.row_of
    return {row_of(key) for where, key in seen if where == topic}


class Incremental:
    """Does the demand of one stream. `demand`: the position's part about it."""

    def __init__(
        self, demand: Demand, read: Read, reader: str, own: OwnRecords, generation: int, unknown: frozenset[int]
    ) -> None:
        """`unknown`: the transactions (xids) that were open at the start. An earlier run may have read their
        commits."""
        self.demand = demand
        self.window: Window | None = None  # None: no chunk is open
        self._read = read
        self._reader = reader
        self._own = own
        self._generation = generation
        self._committed: deque[int] = deque(maxlen=_REMEMBERED_XIDS)
        self.committed = self._committed.append
        """Notes a source transaction (xid) whose commit was read."""
        self._before: frozenset[int] = frozenset()
        self._unknown = unknown
        self._number = 0
        self._chunk: Future[ChunkRows] | None = None
        self._retakes = 0
        self._failures = 0
        self._not_before = 0.0
        self._thread = ThreadPoolExecutor(1, "incremental")
        self._news = News()

    def take_news(self) -> News:
        """The news for the index since the last call: a chunk, snapshots that begin or end."""
        news, self._news = self._news, News()
        return news

    def step(self, now: float) -> list[Fields] | None:
        """Asks for the next chunk if there is one to read and none is on its way. Returns notices to write, or None.

        A table that cannot be read is left out, and the others go on. ParkedError if its records are refused: then the
        caller calls left_out(). A table that cannot be read just now is tried again.
        """
        if self._chunk is None and self.demand.requests and not self.demand.paused and now >= self._not_before:
            request = self.demand.requests[0]
            if not request.tables:
                return self._completed(request)
            self._number += 1
            name, condition = request.tables[0]
            self._chunk = self._thread.submit(self._read, self._number, name, condition, request.key, self._retakes)
        elif self._chunk is not None and self._chunk.done():
            error = self._chunk.exception()
            if error is not None:
                self._chunk = self.window = None  # its high mark never comes
                return self._failed(error, now)
        return None

    def _failed(self, error: BaseException, now: float) -> list[Fields] | None:
        """After a passing error, tries again, later each time, while the stream goes on; see step()."""
        if isinstance(error, SettingsError | DataError) and not isinstance(error, ParkedError):
            return self.left_out(error)
        if not isinstance(error, UnavailableError):
            raise error
        self._failures += 1
        pause = backoff(self._failures, 1.0, _SLOWEST_ATTEMPT)
        self._not_before = now + pause
        log.warning("chunk will be read again", reason=error.message, next=error.hint, seconds=pause)
        return None

    def left_out(self, error: OrdertapError) -> list[Fields]:
        """Goes on without the table that is being read. Returns the notices to write."""
        request, *rest = self.demand.requests
        (name, condition), *tables = request.tables
        log.error("table is left out of the snapshot", table=name, reason=error.message, next=error.hint)
        scope = tuple(one for one in request.scope if one != (name, condition))
        request = request._replace(scope=scope, tables=tuple(tables), key=None)
        if request.tables:
            self.demand = self.demand._replace(requests=(request, *rest))
            return []
        if scope or request.first is not None:
            return self._completed(request)
        self.demand = self.demand._replace(requests=tuple(rest))
        return [self._notice(records.ABORTED, request)]

    def signal(self, signal: Signal, lsn: LSN, unparked: Iterable[str] = ()) -> list[Fields] | None:
        """Takes a signal at its place in the log. Returns the notices to write, None if it was taken before.
        `unparked`: tables that it asks for, and that were parked until now."""
        demand = self.demand
        if signal.id == demand.signal:
            return None
        requests = demand.requests
        notices: list[Fields] = []
        if signal.type == "execute-snapshot":
            tables = tuple((name, signal.condition) for name in signal.tables)
            requests = (*requests, Request(signal.id, lsn, tables, tables, unparked=tuple(sorted(unparked))))
            notices = [self._notice(records.STARTED, requests[-1])]
        elif signal.type == "stop-snapshot":
            notices = [notice for request in requests for notice in self._aborted(request)]
            requests = ()
            self._chunk = self.window = None  # the marks that are on their way mean nothing any more
        paused = signal.type == "pause-snapshot" or (demand.paused and signal.type == "execute-snapshot")
        self.demand = Demand(requests, paused, signal.id)
        log.info("signal", type=signal.type, tables=list(signal.tables), snapshots=len(requests), paused=paused)
        return notices

    def unfilled(self, tables: Set[str], lsn: LSN) -> list[Fields]:
        """Notes tables where a commit brought rows under a new key, without values that the log leaves out.

        In the table that is being read, the new key may lie before the rest to be read and the old key in it: no chunk
        would have those values. So the table is read once more, as a snapshot of its own. Returns the notices to write.
        """
        requests = self.demand.requests
        if not requests or not requests[0].tables:
            return []
        (name, condition), *_ = requests[0].tables
        begun = requests[0].key is not None or self.window is not None
        scope = ((name, condition),)
        if not begun or name not in tables or any(one.scope == scope for one in requests[1:]):
            return []
        log.info("table will be read again: a row moved, without values that only a chunk has", table=name)
        request = Request(str(uuid.uuid4()), lsn, scope, scope)
        self.demand = self.demand._replace(requests=(*requests, request))
        return [self._notice(records.STARTED, request)]

    def truncated(self, table: str) -> None:
        """Notes a TRUNCATE: the rows of an open chunk are gone."""
        if self.window is not None:
            self.window.truncated.add(table)

    def altered(self, table: str) -> None:
        """Notes a new Relation message: keys after it may be encoded in another way than those of an open chunk."""
        if self.window is not None:
            self.window.altered.add(table)

    def mark(self, mark: Watermark, lsn: LSN) -> list[Fields] | None:
        """Takes a watermark at its place in the log. At the high one, returns the chunk's records and the notices that
        follow. None if there is nothing to write: the low mark, another reader's, or a chunk that has to be read
        again."""
        if mark.reader != self._reader or mark.chunk != self._number or self._chunk is None:
            return None
        if mark.low:
            self.window = Window()
            self._before = self._before.union(self._committed)
            self._committed.clear()
            return None
        if self.window is None:
            return None
        window, self.window = self.window, None
        future, self._chunk = self._chunk, None
        if (error := future.exception()) is not None:  # the mark is in the log, and its connection is gone
            return self._failed(error, time.monotonic())
        chunk = future.result()
        self._failures = 0
        if not self.demand.requests:  # stopped meanwhile
            return None
        if self._hides(chunk):
            if self._unknown and not self._retakes:
                said = (
                    "the snapshot waits for transactions that were open at the start: see pg_locks, pg_prepared_xacts"
                )
                log.warning(said, xids=sorted(self._unknown))
            self._again(chunk, "a transaction from before the start is open, or one in the log is not visible yet")
            return None
        if chunk.table.name in window.truncated:
            return self._take(chunk, [], lsn)
        if reason := window.spoils(chunk):
            self._again(chunk, reason)
            return None
        return self._take(chunk, window.untouched(chunk), lsn)

    def _again(self, chunk: ChunkRows, reason: str) -> None:
        """Has the chunk read once more, later and smaller each time. Logs it once."""
        if not self._retakes:
            log.info(f"chunk is read again: {reason}", table=chunk.table.name)
        self._retakes += 1
        self._not_before = time.monotonic() + min(_SLOWEST_RETAKE, _RETAKE * self._retakes)

    def _hides(self, chunk: ChunkRows) -> bool:
        """Whether the chunk may lack a commit that this run or an earlier one read before it."""
        hides = chunk.visibility.hides
        self._unknown = frozenset(filter(hides, self._unknown))
        self._before = frozenset(filter(hides, self._before))  # later chunks show what this one shows
        return bool(self._unknown or self._before)

    def _take(self, chunk: ChunkRows, rows: Sequence[Row], lsn: LSN) -> list[Fields]:
        """The records of the chunk's rows that are still current, and the notices that follow from it."""
        self._retakes = 0
        request = self.demand.requests[0]
        table = chunk.table
        stamp = stamp_header(Stamp(self._generation, lsn, 0))
        headers: list[tuple[str, str | bytes | None]] = [
            (STAMP_HEADER, stamp),
            (TRANSACTION_HEADER, snapshot_header(request.id)),
        ]
        written: list[Fields] = [(table.topic, table.partition, key, value, headers) for key, value in rows]
        table.events["r"] += len(written)
        SNAPSHOT_ROWS.labels(table.name).inc(len(written))
        if written:
            self._news = self._news._replace(lsn=lsn, counts={table.place: len(written)}, snapshot=request.id)
        counts = {**request.rows, table.name: request.rows.get(table.name, 0) + len(written)}
        request = request._replace(rows=counts, key=chunk.last_key)
        if chunk.last_key is None:
            request = request._replace(tables=request.tables[1:])
            scanned = {"table": table.name, "rows_scanned": counts[table.name]}
            written.append(self._notice(records.TABLE_SCAN_COMPLETED, request, **scanned))
            log.info("table read", table=table.name, rows=counts[table.name], snapshot=request.id)
        self.demand = self.demand._replace(requests=(request, *self.demand.requests[1:]))
        return written if request.tables else [*written, *self._completed(request)]

    def _completed(self, request: Request) -> list[Fields]:
        """Ends the first request."""
        notices = [self._notice(records.COMPLETED, request, rows=request.rows)]
        if request.first is not None:
            notices.append(self._first_completed(request.lsn, *request.first))
        log.info("snapshot completed", snapshot=request.id, rows=sum(request.rows.values()))
        self.demand = self.demand._replace(requests=self.demand.requests[1:])
        return notices

    def _aborted(self, request: Request) -> list[Fields]:
        """Gives up a request. If it was the rest of an initial snapshot, the part that was done stays: readers wait for
        its end."""
        aborted = self._notice(records.ABORTED, request)
        if request.first is None:
            return [aborted]
        hint = "capture signal snapshot brings them"
        log.warning("tables have no first snapshot", tables=[name for name, _ in request.scope], next=hint)
        return [aborted, self._first_completed(request.lsn, *request.first)]

    def _tell(self, state: SnapshotState) -> None:
        self._news = self._news._replace(states=(*self._news.states, state))

    def _notice(self, step: str, request: Request, **more: Any) -> Fields:
        """A notice. Readers judge what is gone as of the signal's place, because later changes were not read again. A
        table that was read by a condition is not named, since its other rows are not gone."""
        whole = [name for name, condition in request.scope if condition is None]
        stamp = Stamp(self._generation, request.lsn, 0)
        if step in _STATES:
            state = SnapshotState(request.id, _STATES[step], request.lsn, False, tuple(whole), more.get("rows", {}))
            self._tell(state)
        return self._own.snapshot(step, stamp, request.id, whole, time.time_ns() // 10**6, incremental=True, **more)

    def _first_completed(self, point: LSN, snapshot: str, rows: Mapping[str, int]) -> Fields:
        """The notice that the initial snapshot is complete, now that the remaining tables have come, too."""
        stamp = Stamp(self._generation, point, 0)
        self._tell(SnapshotState(snapshot, "completed", point, True, tuple(rows), rows))
        return self._own.snapshot(records.COMPLETED, stamp, snapshot, list(rows), time.time_ns() // 10**6, rows=rows)

    def close(self) -> None:
        """Gives up the chunk that is being read; the next start reads it again."""
        self._thread.shutdown(wait=False, cancel_futures=True)
