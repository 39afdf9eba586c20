"""Takes records from Kafka: skips what is already staged, and gives the rest to the assembly.

One object per assignment of partitions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import structlog

from schemas.model import change
from schemas.model.change import Stamp
from schemas.model.commits import parse_index
from schemas.model.errors import DataError
from sink.intake.consumer import Assigned, is_end
from sink.staging.assembly import Assembly, Feed, Place, Row, snapshot_of, stamp_of
from sink.staging.offset_evidence import seen_at, skipped_ranges
from sink.staging.position import NOWHERE

log = structlog.get_logger()
_STAMP: Final = change.STAMP_HEADER
_TRANSACTION: Final = change.TRANSACTION_HEADER


class Reading:
    """What was read since the assignment.

    `loose`: rows of no commit that is still to come; they are written by their stamps alone. `foreign`: records without
    capture's headers, which are parked.
    """

    def __init__(
        self, assembly: Assembly, assigned: Mapping[Place, Assigned], index: Place, joined: Mapping[str, Stamp]
    ) -> None:
        """`joined`: table → the position from which it is followed. Rows before it are in no commit."""
        self.assembly = assembly
        self.loose: list[Row] = []
        self.foreign: list[Row] = []
        self.replayed = 0
        self.unnamed = 0
        self.began = NOWHERE
        """The position up to which the index had named all commits when reading began, as far as it is read."""
        self.index_ended = 0.0
        """When Kafka last had no more of the index (seconds since 1970); 0 once it has more."""
        self._assigned = assigned
        self._index = index
        self.index_position = assigned[index].start if index in assigned else 0
        self._joined = joined
        self._staged = {place: one.seen.next_offset if one.seen else 0 for place, one in assigned.items()}
        self._gaps = {place: one.seen.gaps for place, one in assigned.items() if one.seen and one.seen.gaps}
        assembly.feeds = {place: Feed(place, one.start) for place, one in assigned.items() if place != index}

    def take(self, messages: Iterable[Any], failed: Callable[[Any, str], None]) -> None:
        """Takes records and partition ends. `failed` gets any other error."""
        feeds, staged, assembly = self.assembly.feeds, self._staged, self.assembly
        for message in messages:
            topic, partition = place = message.topic(), message.partition()
            if (error := message.error()) is not None:
                self._event(error, place, message.offset(), failed)
                continue
            feed = feeds.get(place)
            if feed is None:
                self._other(place, message)
                continue
            offset = message.offset()
            feed.position = offset + 1
            if offset < staged[place] and not self._in_gap(place, offset):
                self.replayed += 1
                continue
            headers: Any = message.headers() or ()
            last = feed.last
            # The stamp is the first header, the transaction the last; most records have no others.
            if len(headers) < 2 or headers[0][0] != _STAMP or headers[-1][0] != _TRANSACTION:
                self._foreign(message)
                continue
            more = tuple(headers[1:-1]) if len(headers) > 2 else ()
            row = (topic, partition, offset, message.key(), message.value(), headers[0][1], headers[-1][1], more)
            try:
                if assembly.row(feed, row) is not None:
                    self._come_back(feed, row)
            except (ValueError, DataError):
                feed.last = last
                self._foreign(message)

    def _foreign(self, message: Any) -> None:
        headers = tuple((name, content or b"") for name, content in message.headers() or ())
        place = (message.topic(), message.partition(), message.offset())
        self.foreign.append((*place, message.key(), message.value(), b"", b"", headers))

    def take_foreign(self) -> list[Row]:
        """The foreign records since the last call."""
        foreign, self.foreign = self.foreign, []
        return foreign

    def has_index(self) -> bool:
        """Whether the index is read to the end that it had when reading began."""
        return self._index not in self._assigned or self.index_position >= self._assigned[self._index].high

    def left(self) -> None:
        """Takes back rows that waited for a commit that the index did not name."""
        for row in self.assembly.left():
            self._come_back(self.assembly.feeds[row[0], row[1]], row)

    def _come_back(self, feed: Feed, row: Row) -> None:
        """A row at or before the copy's position. A row of no commit of the index is written by its stamp. A row of a
        commit that the index has passed without naming its table never belonged to it, and is dropped."""
        stamp = stamp_of(row[5])
        if (
            stamp > self.assembly.stamp  # the index begins again after it
            or snapshot_of(row[6]) is not None
            or row[2] < self._staged[feed.place]  # in a gap that is read again
            or stamp <= self._joined.get(self.assembly.topics[row[0]], NOWHERE)
        ):
            self.loose.append(row)
        elif row[3] is not None and row[4] is not None:
            self.unnamed += 1

    def take_loose(self) -> list[Row]:
        """The loose rows since the last call."""
        loose, self.loose = self.loose, []
        return loose

    def skips(self, topic: str, stamp: Stamp) -> bool:
        """Whether changes of a commit may be in skipped offsets of a topic. They are not if a record after these
        offsets is of an older commit."""
        for place, reached in self.reached().items():
            one, feed = self._assigned[place], self.assembly.feeds[place]
            if place[0] != topic or (feed.first and stamp_of(feed.first)[:2] < stamp[:2]):
                continue
            staged = one.seen.next_offset if one.seen else 0
            if any(staged <= skipped.until <= one.start for skipped in skipped_ranges(seen_at(one, reached))):
                return True
        return False

    def reached(self) -> dict[Place, int]:
        """Partition → the first offset that still waits for its commit."""
        return {place: feed.first_invisible for place, feed in self.assembly.feeds.items()}

    def _in_gap(self, place: Place, offset: int) -> bool:
        return any(gap.range.start <= offset < gap.range.until for gap in self._gaps.get(place, ()))

    def _event(self, error: Any, place: Place, offset: int, failed: Callable[[Any, str], None]) -> None:
        if not is_end(error):
            failed(error, place[0])
        elif place == self._index:
            self.index_position = max(self.index_position, offset)
            self.index_ended = time.time()
        elif place in self.assembly.feeds:
            feed = self.assembly.feeds[place]
            feed.position = max(feed.position, offset)  # control records have offsets, too

    def _other(self, place: Place, message: Any) -> None:
        """A record of the index. Records of a partition that was revoked are ignored.

        A record that cannot be read is skipped. If capture wrote it, the next record's serial number shows that it is
        missing; and the index is read again from the last one that was understood, so a later release can read it.
        """
        if place != self._index:
            return
        self.index_position = message.offset() + 1
        self.index_ended = 0.0
        try:
            self.assembly.index(parse_index(message.value() or b""), message.offset())
            if message.offset() < self._assigned[place].high:
                self.began = self.assembly.named
        except DataError as error:
            log.warning(
                "a record of the index of commits is skipped",
                topic=place[0], partition=place[1], offset=message.offset(), reason=error.message, next=error.hint,
            )  # fmt: skip
