"""Decides what the server may forget, and keeps psycopg2 from acknowledging on its own. Pure.

On a keepalive, psycopg2 reports the server's wal_end as flushed if the LSN last passed to `send_feedback` is at or
above the data_start of the last message. That is right only while nothing whole waits to become durable. So before
every `read_message()`, either nothing whole is pending, or the LSN confirmed last is below the last message's
data_start.

Confirming while something is pending is safe, too, but the reader then waits for Kafka at each change before the
confirmed LSN. Under steady load something is always pending, and the log still has to go, so this is done less often.
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
        """Whether the next `read_message()` cannot acknowledge anything that is not durable. `last_start`: data_start
        of the last message, 0 before the first; Relation, Type and Origin messages have 0."""
        return not pending or self.confirmed < last_start

    def due(self, now: float, pending: bool, durable: LSN) -> bool:
        """Whether to confirm `durable` now (seconds): at most once per interval, and less often while something
        waits."""
        interval = self.busy_interval if pending else self.interval
        return durable > self.confirmed and now - self._told_at >= interval

    def told(self, now: float, durable: LSN) -> None:
        """Notes that `durable` was passed to send_feedback."""
        self.confirmed = durable
        self._told_at = now
