"""What capture tells Prometheus, and what its health says."""

from __future__ import annotations

import time

from prometheus_client import Counter, Gauge

EVENTS = Counter("ordertap_capture_events_total", "Changes read from the log", ["table", "operation"])
LAG_SECONDS = Gauge("ordertap_capture_lag_seconds", "Age of the last source commit that was read, when it was read")
HEARTBEAT_AGE = Gauge("ordertap_capture_heartbeat_age_seconds", "Since a heartbeat came back through the log")
COMMITS = Counter("ordertap_capture_commits_total", "Kafka transactions that are durable")
WAL_HELD = Gauge("ordertap_capture_wal_held_bytes", "Log that the server keeps for the slot")
WAL_SAFE = Gauge("ordertap_capture_wal_safe_bytes", "Log until the server gives the slot up; -1: it never does")
SNAPSHOT_ROWS = Counter("ordertap_capture_snapshot_rows_total", "Rows read by snapshots", ["table"])

SNAPSHOT_ROWS_LEFT = Gauge("ordertap_capture_snapshot_remaining_rows", "About; -1: the planner has no figures yet")
SNAPSHOT_TABLES_LEFT = Gauge("ordertap_capture_snapshot_remaining_tables", "Tables that are not wholly in Kafka yet")


class Metrics:
    """Counts in plain numbers, given to Prometheus when it is asked; the hot loop stays cheap."""

    def __init__(self, heartbeat_interval: float) -> None:
        self._patience = max(15.0, 4 * heartbeat_interval)
        self._beat = 0.0
        self._turned = self._passed_on = time.monotonic()
        self._commit_us = 0
        self._events: dict[tuple[str, str], int] = {}
        self.state = "starting"
        HEARTBEAT_AGE.set_function(lambda: time.monotonic() - self._beat if self._beat else -1)

    def event(self, table: str, op: str, count: int) -> None:
        """So many changes were read."""
        key = (table, op)
        self._events[key] = self._events.get(key, 0) + count

    def source_time(self, commit_us: int) -> None:
        """A source transaction was read."""
        self._commit_us = commit_us

    def heartbeat_back(self, own: bool) -> None:
        """A heartbeat came back; `own`: one of this process."""
        if own:
            self._beat = time.monotonic()
            self.state = "streaming"

    def turned(self) -> None:
        """The main loop turned; about once a second what was counted is passed on."""
        now = time.monotonic()
        if now - self._passed_on > 1.0:
            self._passed_on = now
            self._pass_on()
        self._turned = now

    def _pass_on(self) -> None:
        if self._commit_us:
            LAG_SECONDS.set(max(0.0, time.time() - self._commit_us / 1e6))
            self._commit_us = 0
        for (table, op), count in self._events.items():
            EVENTS.labels(table, op).inc(count)
        self._events.clear()

    def slot(self, held_bytes: int | None, safe_bytes: int | None) -> None:
        """What the server says of the slot."""
        WAL_HELD.set(held_bytes or 0)
        WAL_SAFE.set(-1 if safe_bytes is None else safe_bytes)

    def live(self) -> tuple[bool, str]:
        """Our own loop turns, whatever Kafka and PostgreSQL do; every blocking call has a time limit below this."""
        age = time.monotonic() - self._turned
        return age < 300, f"last turn {age:.0f} s ago"

    def ready(self) -> tuple[bool, str]:
        """Data flows: a heartbeat came back lately, or a snapshot or standby says why not."""
        if not self._beat:
            return self.state in ("standby", "snapshot"), self.state
        age = time.monotonic() - self._beat
        return age < self._patience, f"{self.state}; last heartbeat {age:.0f} s ago"
