"""The Prometheus metrics of a running sink."""

from __future__ import annotations

import time

from prometheus_client import Counter, Gauge

LEADING = Gauge("ordertap_sink_leading", "1 while this process stages; the sum over all processes of a shop is 1")
STAGED = Counter("ordertap_sink_staged_rows", "Rows of the shop that were staged")
REPLAYED = Counter("ordertap_sink_replayed_records", "Records that were read again and changed nothing")
UNNAMED = Counter("ordertap_sink_unnamed_rows", "Rows dropped because the index passed their commit without naming it")
COPY_LSN = Gauge("ordertap_sink_copy_lsn", "Where the copy stands in the shop's log, bytes")
COPY_BEHIND = Gauge(
    "ordertap_sink_copy_behind_seconds",
    "Time since the copy had everything that was in Kafka; 0 in a process that stands by",
)
APPLYING = Gauge(
    "ordertap_sink_applying", "1 while documents go to the ERP, 0 while the ERP cannot be used or applying is paused"
)
PAUSED = Gauge("ordertap_sink_paused", "1 while a person has paused applying")
HELD = Gauge("ordertap_sink_held_documents", "Documents that are held, wait or are tried again, by cause", ["cause"])
GAP_TABLES = Gauge("ordertap_sink_gap_tables", "Tables with a gap: documents that use them are held")
BRAKED = Gauge("ordertap_sink_braked", "1 while changes of a kind wait for a person, who releases them", ["kind"])


class CopyAge:
    """How long ago the copy had all that was in Kafka. Asked when Prometheus asks, so it grows while staging waits, for
    whatever reason. Capture's heartbeats come through the index of commits, so it stays small in a quiet shop."""

    def __init__(self) -> None:
        self._complete: float | None = None  # the time, seconds since 1970
        self._copied = False
        COPY_BEHIND.set_function(self.seconds)

    def seconds(self) -> float:
        """The age in seconds; 0 in a process that stands by, and while a first snapshot has no heartbeats."""
        complete = self._complete
        return 0.0 if complete is None or self._copied else max(0.0, time.time() - complete)

    def begins(self, committed_at: float | None) -> None:
        """This process stages from now on. `committed_at`: time of the copy's last commit, seconds since 1970; None:
        there is none. A process that led before goes on counting: its start may fail again and again."""
        if self._complete is None:
            self._complete = time.time() if committed_at is None else committed_at

    def complete(self, at: float) -> None:
        """The copy has all that was in Kafka at a time (seconds since 1970)."""
        self._complete = at

    def copied(self, runs: bool) -> None:
        """Whether capture takes a first snapshot. Its end counts as a new beginning."""
        if self._copied and not runs:
            self._complete = time.time()
        self._copied = runs

    def stands_by(self) -> None:
        """Another process stages."""
        self._complete, self._copied = None, False


COPY_AGE = CopyAge()
