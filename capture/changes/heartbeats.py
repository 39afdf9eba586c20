"""Heartbeats: our own logical messages in the shop's log, which keep an idle shop's log moving.

A heartbeat that comes back shows that everything before it was read. A missing one shows that somebody moved the slot,
or that this is another log.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Final

from capture.metrics import Metrics
from capture.position import Heartbeat, parse_heartbeat
from capture.postgres import pgoutput
from capture.postgres.replication import Leadership, slot_state
from schemas.model.errors import SettingsError
from schemas.model.lsn import LSN

HEARTBEAT_PREFIX: Final = "ordertap.heartbeat"
_REPAIR: Final = "capture repair --execute makes a new slot and reads the tables again"


@dataclass(slots=True)
class Beats:
    """Numbers the heartbeats of one process, over all of its streams: a gap means that somebody moved the slot. `run`
    names the process, and changes with a promotion, which leaves a gap, too. `number` is the last one that is in the
    log for good. A heartbeat that was not written, or that a crash of the server may have lost, leaves no gap: the next
    one has its number again.
    """

    run: str
    number: int = 0
    written: LSN | None = None

    def another_run(self, run: str) -> None:
        """Goes on under another name, so that a gap in the numbers means nothing."""
        self.run = run

    def forget(self) -> None:
        """The last heartbeat may be lost, because the server may have crashed since."""
        self.written = None

    def wrote(self, lsn: LSN) -> None:
        """The next heartbeat is written, at `lsn`."""
        self.written = lsn

    def next(self, flushed: LSN) -> int:
        """The next heartbeat's number. `flushed`: how far the server has flushed its log."""
        if self.written is not None and self.written <= flushed:
            self.number += 1
        self.written = None
        return self.number + 1


class Heartbeats:
    """The heartbeats of one stream. The leader alone writes them, every `interval` seconds."""

    def __init__(
        self,
        leadership: Leadership,
        slot: str,
        beats: Beats,
        interval: float,
        awaited: Heartbeat | None,
        metrics: Metrics,
    ) -> None:
        """`awaited`: the position's heartbeat, if the server has to send it again to prove that this is the same
        log."""
        self._leadership = leadership
        self._slot = slot
        self._beats = beats
        self._interval = interval
        self._awaited = awaited
        self._metrics = metrics
        self._next = 0.0
        beats.forget()

    def every(self, interval: float) -> None:
        """Changes the interval (seconds)."""
        self._interval = interval
        self._next = min(self._next, time.monotonic() + interval)

    def wait(self, now: float) -> float:
        """Seconds until the next heartbeat is due; 0 if it is due now."""
        return max(0.0, self._next - now)

    def send(self, now: float, reached: LSN) -> None:
        """Checks the slot and writes the next heartbeat. `reached`: up to where everything is durable in Kafka."""
        self._next = now + self._interval
        slot = slot_state(self._leadership.connection, self._slot)
        if slot is not None:
            self._metrics.slot(slot._asdict(), slot.current_lsn - reached)
        number = self._beats.next(self._leadership.flushed())
        self._metrics.heartbeat_sent(number)
        beat = {"run": self._beats.run, "number": number, "slot": self._slot, "at_ms": time.time_ns() // 10**6}
        self._beats.wrote(self._leadership.heartbeat(HEARTBEAT_PREFIX, json.dumps(beat)))

    def number(self, heartbeat: Heartbeat | None) -> int | None:
        """The heartbeat's number if this process wrote it, else None."""
        return heartbeat.number if heartbeat is not None and heartbeat.run == self._beats.run else None

    def read(self, message: pgoutput.LogicalMessage) -> Heartbeat | None:
        """The heartbeat in a message, whether it comes for the first time or again; None if it is another slot's."""
        beat = parse_heartbeat(message.content, self._slot, message.lsn)
        if beat is not None and beat == self._awaited:
            self._awaited = None
        return beat

    def follow(self, beat: Heartbeat, last: Heartbeat | None) -> None:
        """Checks that `beat` follows `last`. SettingsError if there were others between them."""
        if last is not None and last.run == beat.run and beat.number > last.number + 1:
            raise SettingsError(
                f"slot {self._slot} was advanced by someone else: heartbeats {last.number + 1} to "
                f"{beat.number - 1} before {beat.lsn} are missing, and changes between them may be, too",
                _REPAIR,
            )
        self._metrics.heartbeat_back(self.number(beat))

    @property
    def proved(self) -> bool:
        """Whether the log is known to be the one that the position was read from."""
        return self._awaited is None

    def prove(self) -> None:
        """SettingsError if the log goes on past the position without its heartbeat."""
        if self._awaited is not None:
            raise SettingsError(
                f"the log has no heartbeat of capture's that ends at {self._awaited.lsn}: the shop was restored "
                "from an older backup, and its log has since passed our position; what changed before that is missing",
                _REPAIR,
            )
