"""Capture's Prometheus metrics, and its health."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from prometheus_client import Counter, Gauge, Histogram

EVENTS = Counter("ordertap_capture_events_total", "Changes read from the log", ["table", "operation"])
LAG_SECONDS = Gauge("ordertap_capture_lag_seconds", "Age of the oldest commit or heartbeat that is not in Kafka yet")
LAG_BYTES = Gauge("ordertap_capture_lag_bytes", "Log behind what is in Kafka, at the last heartbeat")
HEARTBEAT_AGE = Gauge("ordertap_capture_heartbeat_age_seconds", "Since data last came through")
COMMITS = Counter("ordertap_capture_commits_total", "Kafka transactions that are durable")
COMMIT_SECONDS = Histogram(
    "ordertap_capture_commit_seconds",
    "How long Kafka took to make a transaction durable",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
)
BATCH_RECORDS = Histogram(
    "ordertap_capture_batch_records",
    "Records in a Kafka transaction",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000),
)
WAL_HELD = Gauge("ordertap_capture_wal_held_bytes", "Log that the server keeps for the slot")
WAL_SAFE = Gauge("ordertap_capture_wal_safe_bytes", "Log until the server invalidates the slot; -1: it never does")
WAL_STATUS = Gauge(
    "ordertap_capture_wal_status", "1 for the status that the server reports of the slot's log", ["status"]
)
FAILED_STARTS = Gauge("ordertap_capture_failed_starts", "Starts in a row that ended the same way")
_SLOT: Final = {
    "safe_bytes": WAL_SAFE,
    "spilled_transactions": Gauge("ordertap_capture_spilled_transactions", "Spilled to the server's disk; -1: unknown"),
    "spills": Gauge("ordertap_capture_spills", "How often one of them was spilled, once or again; -1: unknown"),
    "spilled_bytes": Gauge(
        "ordertap_capture_spilled_bytes", "Large transactions that the server decoded through its disk; -1: unknown"
    ),
}
"""Gauge by the field of replication.Slot that it shows; None is -1. While capture is stopped, `capture status` shows
the fields."""
SCHEMA_CHANGES = Counter("ordertap_capture_schema_changes_total", "Schema changes of a table", ["table"])
SNAPSHOT_ROWS = Counter("ordertap_capture_snapshot_rows_total", "Rows read by snapshots", ["table"])

SNAPSHOT_ROWS_LEFT = Gauge(
    "ordertap_capture_snapshot_remaining_rows", "Approximate; -1: unknown, as for a SELECT in place of a table"
)
SNAPSHOT_TABLES_LEFT = Gauge("ordertap_capture_snapshot_remaining_tables", "Tables that are not wholly in Kafka yet")
ON_DEMAND_LEFT = Gauge(
    "ordertap_capture_on_demand_remaining_tables", "Tables that snapshots on demand have yet to read"
)
PARKED = Gauge("ordertap_capture_parked_tables", "Tables whose changes are not written")
LEADING = Gauge("ordertap_capture_leading", "1 for the copy that reads the slot, 0 for one that stands by")

_WAL_STATUSES: Final = ("reserved", "extended", "unreserved", "lost")  # PostgreSQL's manual, "pg_replication_slots"
_LIVE_PATIENCE: Final = 60.0
FAILS_AGAIN: Final = "the same start has failed"
_TOO_OFTEN: Final = 3
_NUMBERS: Final = re.compile(r"\b[0-9A-Fa-f]*\d[0-9A-Fa-f/:.]*\b")  # LSNs, processes, ports and times

_waits: dict[int, tuple[str, float]] = {}


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Marks that this thread waits for something outside of this process, so that it does not pass for stuck."""
    thread = threading.get_ident()
    before = _waits.get(thread)
    _waits[thread] = (what, time.monotonic())
    try:
        yield
    finally:
        if before is None:
            _waits.pop(thread, None)
        else:
            _waits[thread] = before


class Metrics:
    """Counts in plain numbers, which Prometheus gets when it asks, so that the hot loop stays cheap.

    Make it in the thread whose loop is watched. `state`: in words.
    """

    def __init__(self, heartbeat_interval: float) -> None:
        self.heartbeat_interval = heartbeat_interval
        self._thread = threading.get_ident()
        self._moved = 0.0
        self._beat = self._turned = self._passed_on = time.monotonic()
        self._commit_us = 0
        self._commit_age = 0.0
        self._sent: deque[tuple[int, float]] = deque()  # heartbeats that are not durable yet: number, when written
        self._read = 0
        self._durable: object = None
        self._events: dict[tuple[str, str], int] = {}
        self._failure = ""  # the error of the last start
        self._failures = 0
        self.state = "starting"
        self.leading = False
        self.writing = False
        """Whether records are written: what a start has done until then needs no proper end."""
        self.parked: tuple[str, ...] = ()
        self.on_demand = 0  # tables that wait
        LEADING.set_function(lambda: self.leading)
        PARKED.set_function(lambda: len(self.parked) if self.leading else 0)
        ON_DEMAND_LEFT.set_function(lambda: self.on_demand if self.leading else 0)
        HEARTBEAT_AGE.set_function(self.heartbeat_age)
        LAG_SECONDS.set_function(self.lag_seconds)

    def stands(self, state: str) -> None:
        """What capture does now, in words."""
        waited = self.state == "standby" or (self.state == "snapshot" and state == "streaming")
        if waited and state != self.state:
            self._beat = time.monotonic()  # there was none to wait for until now
        self.state = state
        if state.startswith("starting"):
            self.writing = False

    def writes(self) -> None:
        """Records are written from here on."""
        self.writing = True

    def leads(self, leading: bool) -> None:
        """Whether this process reads the slot."""
        self.leading = leading

    def parks(self, tables: tuple[str, ...]) -> None:
        """The tables whose changes are not written."""
        self.parked = tables

    def awaits(self, tables: int) -> None:
        """How many tables snapshots on demand have yet to read."""
        self.on_demand = tables

    def beats_every(self, seconds: float) -> None:
        """Changes the interval of heartbeats."""
        self.heartbeat_interval = seconds

    def event(self, table: str, op: str, count: int) -> None:
        """Counts changes that were read."""
        key = (table, op)
        self._events[key] = self._events.get(key, 0) + count

    def source_time(self, commit_us: int) -> None:
        """Notes a source transaction that was read."""
        self._commit_us = commit_us

    def heartbeat_sent(self, number: int) -> None:
        """Notes a heartbeat that was written to the log."""
        self._sent.append((number, time.monotonic()))

    def heartbeat_back(self, number: int | None) -> None:
        """Notes a heartbeat that was read from the log. `number`: None if another process wrote it."""
        if number is not None:
            self._read = number
            self.state = "streaming"

    def restarted(self) -> None:
        """Notes a new stream: heartbeats of the one before may never come back."""
        self._sent.clear()
        self._commit_age = 0.0
        self._moved = time.monotonic()

    def turned(self) -> None:
        """Notes a turn of the main loop. About once a second the counts are passed on."""
        now = time.monotonic()
        if self._commit_us:
            self._commit_age = max(0.0, time.time() - self._commit_us / 1e6)
            self._commit_us = 0
        if now - self._passed_on > 1.0:
            self._passed_on = now
            for (table, op), count in self._events.items():
                EVENTS.labels(table, op).inc(count)
            self._events.clear()
        self._turned = now

    def durable(self, position: object, number: int | None) -> None:
        """The position that is in Kafka, and the number of this process's heartbeat that it has passed."""
        if position is self._durable:
            return
        self._durable = position
        now = self._moved = time.monotonic()
        while number is not None and self._sent and self._sent[0][0] <= number:
            self._sent.popleft()
            self._beat = now
            self._commit_age = 0.0  # all that was committed before the heartbeat is in Kafka
            self._failure, self._failures = "", 0
            FAILED_STARTS.set(0)

    def slot(self, seen: Mapping[str, Any], lag_bytes: int) -> None:
        """Notes what the server says of the slot (fields of replication.Slot), and how much log is not in Kafka yet."""
        for name, gauge in _SLOT.items():
            gauge.set(-1 if seen[name] is None else seen[name])
        WAL_HELD.set(seen["held_bytes"] or 0)
        LAG_BYTES.set(max(0, lag_bytes))
        for status in _WAL_STATUSES:
            WAL_STATUS.labels(status).set(status == seen["wal_status"])

    def start_failed(self, reason: str, hint: str) -> bool:
        """Notes that a start, or the stream after it, has failed, and that another start follows. Returns whether this
        happens again and again without any progress; `state` then says so, with the next step."""
        failure = _NUMBERS.sub("#", reason)
        self._failures = self._failures + 1 if failure == self._failure else 1
        self._failure = failure
        FAILED_STARTS.set(self._failures)
        again = self._failures >= _TOO_OFTEN
        more = f"; {FAILS_AGAIN} {self._failures} times; next: {hint}" if again else ""
        self.stands(f"starting again: {reason}{more}")
        return again

    def heartbeat_age(self) -> float:
        """Seconds since a heartbeat came back and was durable, or since capture began to wait for the first one. While
        there are none: 0 for a standby, and for a snapshot how long it has waited for somebody, as in `ready`."""
        if self.state == "standby":
            return 0.0
        if self.state == "snapshot":
            return self._waited()
        return time.monotonic() - self._beat

    def _waited(self) -> float:
        """Seconds that our loop has waited for somebody else."""
        wait = _waits.get(self._thread)
        return 0.0 if wait is None else time.monotonic() - wait[1]

    def lag_seconds(self) -> float:
        """How far Kafka is behind: the age of the last commit when it was read, or of a heartbeat under way."""
        sent = self._sent
        under_way = time.monotonic() - sent[0][1] if sent else 0.0
        return max(under_way, self._commit_age)

    def live(self) -> tuple[bool, str]:
        """Whether our own loop turns, or waits for somebody else: outages of Kafka and PostgreSQL do not count."""
        wait = _waits.get(self._thread)
        now = time.monotonic()
        if wait is not None and now - wait[1] > 1.0:
            return True, f"waiting for {wait[0]} for {now - wait[1]:.0f} s"
        age = now - self._turned
        return age < _LIVE_PATIENCE, f"last turn {age:.0f} s ago"

    def ready(self) -> tuple[bool, str]:
        """Whether data flows: something, at least a heartbeat, has reached Kafka lately. If not, which side it waits
        for."""
        if self.state == "standby":
            return True, self.state
        if self.state == "snapshot":
            stands = self._waited() > _LIVE_PATIENCE
            return not stands, self._also_waiting(self.state) if stands else self.state
        if not self._moved or self.state != "streaming":
            return False, self._also_waiting(self.state)
        age = time.monotonic() - self._moved
        if age < max(15.0, 4 * self.heartbeat_interval):
            if self.parked:  # last, because what stops all tables is worse
                return False, f"parked, not written: {', '.join(self.parked)}; capture signal snapshot brings them back"
            waits = f"; a snapshot on demand has {self.on_demand} tables left" if self.on_demand else ""
            return True, f"streaming, {self.lag_seconds():.1f} s behind{waits}"
        stuck = self._sent[0] if self._sent else None
        if stuck is not None and stuck[0] <= self._read:
            return False, f"Kafka has accepted nothing for {age:.0f} s"
        return False, self._also_waiting(f"no heartbeat has come through PostgreSQL's log for {age:.0f} s")

    def _also_waiting(self, reason: str) -> str:
        wait = _waits.get(self._thread)
        return reason if wait is None else f"{reason}; waiting for {wait[0]}"
