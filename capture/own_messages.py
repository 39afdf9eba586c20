"""Capture's own messages in the shop's log (heartbeats, signals, marks of chunks), and what follows from them."""

from __future__ import annotations

import time
from typing import Final, NamedTuple

import structlog
from pydantic import SecretStr

from capture.changes.heartbeats import HEARTBEAT_PREFIX, Heartbeats
from capture.changes.makers import Makers
from capture.changes.tables import Draft, Patiently
from capture.changes.versions import ParkedError
from capture.demand import SIGNAL_PREFIX, parse_signal
from capture.kafka.index import News
from capture.metrics import Metrics
from capture.position import Heartbeat, Position
from capture.postgres import pgoutput
from capture.snapshot.chunk_reader import WATERMARK_PREFIX, parse_watermark
from capture.snapshot.incremental import Incremental

log = structlog.get_logger("capture")

INTERNAL: Final = frozenset({HEARTBEAT_PREFIX, SIGNAL_PREFIX, WATERMARK_PREFIX})
"""The prefixes of our own messages, which become no records of op m."""


class Answer(NamedTuple):
    """The answer to a message: the position after it, and what is to be written with it (None: nothing)."""

    position: Position
    records: list[Draft] | None = None
    news: News | None = None


class OwnMessages:
    """The own messages of one stream. The stream hands them over in order, and asks for the next chunk in between."""

    def __init__(
        self,
        slot: str,
        key: SecretStr,
        makers: Makers,
        heartbeats: Heartbeats,
        incremental: Incremental,
        metrics: Metrics,
    ) -> None:
        """`key` is what signals for this `slot` are signed with."""
        self.heartbeats = heartbeats
        self.incremental = incremental
        self._slot = slot
        self._key = key
        self._tables = makers.tables
        self._own = makers.own
        self._metrics = metrics

    def reread(self, interval: float, key: SecretStr) -> None:
        """Changes the interval of heartbeats (seconds) and the key."""
        self.heartbeats.every(interval)
        self._key = key

    def read(self, message: pgoutput.LogicalMessage, position: Position, patiently: Patiently) -> Answer | None:
        """Takes a message with one of the INTERNAL prefixes; None if it means nothing. `patiently` runs calls that may
        block. SettingsError if this is another log than the position's."""
        beat = self.heartbeats.read(message) if message.prefix == HEARTBEAT_PREFIX else None
        if message.lsn < position.end_lsn:
            return None
        self.heartbeats.prove()
        if message.prefix == SIGNAL_PREFIX:
            return self._signal(message, position, patiently)
        if message.prefix == WATERMARK_PREFIX:
            return self._watermark(message, position)
        return None if beat is None else self._heartbeat(beat, position)

    def _heartbeat(self, beat: Heartbeat, position: Position) -> Answer:
        """All commits before it have been read, so the position may follow it."""
        self.heartbeats.follow(beat, position.heartbeat)
        position = position._replace(end_lsn=beat.lsn, heartbeat=beat, stopped_lsn=None)
        return Answer(position, [self._own.heartbeat(time.time_ns() // 10**6)])

    def _signal(self, message: pgoutput.LogicalMessage, position: Position, patiently: Patiently) -> Answer | None:
        signal = parse_signal(message.content, self._slot)
        if signal is None:
            return None
        if not signal.is_signed(self._key.get_secret_value().encode()):
            hint = "send it again with the running capture's settings"
            log.warning("signal ignored: signed with another database_password", id=signal.id, next=hint)
            return None
        demand, unparked = self.incremental.demand, frozenset[str]()
        if signal.type == "execute-snapshot" and signal.condition is None and signal.id != demand.signal:
            unparked = patiently(lambda: self._tables.unpark(signal.tables, patiently))
        notices = self.incremental.signal(signal, message.lsn, unparked)
        self._park_again(demand.unread)
        return self._answer(position._replace(end_lsn=message.lsn, stopped_lsn=None), notices)

    def _watermark(self, message: pgoutput.LogicalMessage, position: Position) -> Answer | None:
        mark = parse_watermark(message.content)
        if mark is None:
            return None
        rows = self.incremental.mark(mark, message.lsn)
        return self._answer(position._replace(end_lsn=message.lsn, stopped_lsn=None), rows)

    def step(self, now: float, position: Position) -> Answer | None:
        """Continues a snapshot on demand between two messages; None if there is nothing to write."""
        unread = self.incremental.demand.unread
        try:
            notices = self.incremental.step(now)
        except ParkedError as error:
            self._tables.park(error)
            notices = self.incremental.left_out(error)
        self._park_again(unread)
        return None if notices is None else self._answer(position, notices)

    def _park_again(self, unread: frozenset[str]) -> None:
        """Parks the `unread` tables again that nobody will read any more: changes are missing from the time when they
        were parked."""
        for name in unread - self.incremental.demand.unread - self._tables.parked:
            said = "the snapshot that was to bring it back has not read all of it"
            self._tables.park(ParkedError(name, said, "fix the cause"))

    def _answer(self, position: Position, records: list[Draft] | None) -> Answer:
        """The answer with these records, and with how far the snapshot on demand has got."""
        if records is None:
            return Answer(position)
        parked = tuple(sorted(self._tables.parked))
        self._metrics.parks(parked)
        position = position._replace(demand=self.incremental.demand, parked=parked)
        return Answer(position, records, self.incremental.take_news())
