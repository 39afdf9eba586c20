"""Decides what the server may forget: the invariant that keeps psycopg2 from acknowledging by itself. Pure.

On a keepalive, psycopg2 reports the server's wal_end as flushed when the LSN that we passed last to `send_feedback` is
at or above the data_start of the last message. That is right only while nothing whole waits to become durable. So,
before every `read_message()`: nothing whole is pending, or what we confirmed last is below the last message's
data_start.

To confirm while something is pending is right, too, but the reader then waits for Kafka at each change that lies before
what was confirmed. Under steady load something always is, and the log has to go: it is done less often.

`stream` asks before each message and before each confirmation.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from schemas.model.lsn import LSN


@dataclass(slots=True)
class Acknowledger:
    """What psycopg2 was told: the LSN confirmed last, 0 at first."""

    interval: float = 1.0
    busy_interval: float = 5.0
    confirmed: LSN = field(default_factory=lambda: LSN(0))
    _told_at: float = 0.0

    def may_read(self, pending: bool, last_start: int) -> bool:
        """Whether the next `read_message()` cannot acknowledge what is not durable.

        `last_start` is the data_start of the message read last, 0 before the first; Relation, Type and Origin messages
        have 0.
        """
        return not pending or self.confirmed < last_start

    def due(self, now: float, pending: bool, durable: LSN) -> bool:
        """Whether to confirm `durable` now (seconds): at most once an interval, a longer one while something waits."""
        interval = self.busy_interval if pending else self.interval
        return durable > self.confirmed and now - self._told_at >= interval

    def told(self, now: float, durable: LSN) -> None:
        """Notes that `durable` was passed to send_feedback."""
        self.confirmed = durable
        self._told_at = now
