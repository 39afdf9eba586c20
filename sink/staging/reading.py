"""Records as they come from Kafka: what is staged already is passed by, the rest is sorted into commits.

One per assignment of the partitions: nothing in it outlives one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from schemas import change
from schemas.change import Stamp
from schemas.commits import parse_index
from schemas.errors import DataError
from sink.intake.consumer import Assigned, is_end
from sink.staging.assembly import Assembly, Feed, Place, Row, snapshot_of, stamp_of
from sink.staging.kept_offsets import seen_at, skips
from sink.staging.position import NOWHERE

_STAMP: Final = change.STAMP_HEADER
_TRANSACTION: Final = change.TRANSACTION_HEADER


class Reading:
    """What is read of each partition, from where it was assigned on.

    `loose` are rows that belong to no commit that is still to come: they go in by their stamps alone. `foreign` are
    records whose headers are not capture's: they are of no commit, and are parked.
    """

    def __init__(
        self, assembly: Assembly, assigned: Mapping[Place, Assigned], index: Place, joined: Mapping[str, Stamp]
    ) -> None:
        """`joined` says since where in the log each table is followed: before it its rows are in no commit."""
        self.assembly = assembly
        self.loose: list[Row] = []
        self.foreign: list[Row] = []
        self.replayed = 0
        self.unnamed = 0
        self._assigned = assigned
        self._index = index
        self.index_position = assigned[index].start if index in assigned else 0
        self._joined = joined
        self._staged = {place: one.seen.next_offset if one.seen else 0 for place, one in assigned.items()}
        self._gaps = {place: one.seen.gaps for place, one in assigned.items() if one.seen and one.seen.gaps}
        assembly.feeds = {place: Feed(place, one.start) for place, one in assigned.items() if place != index}

    def take(self, messages: Iterable[Any], failed: Callable[[Any, str], None]) -> None:
        """Sorts records and ends of partitions; `failed` is told of any other error."""
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
            # The stamp comes first, the transaction last; most records have no other header.
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
        """The foreign records that have come since the last call."""
        foreign, self.foreign = self.foreign, []
        return foreign

    def left(self) -> None:
        """Rows that waited for a commit that will not be named any more."""
        for row in self.assembly.left():
            self._come_back(self.assembly.feeds[row[0], row[1]], row)

    def _come_back(self, feed: Feed, row: Row) -> None:
        """A row at or below where the copy stands. What is of no commit of the index goes in by its stamp; a commit
        that the index has passed is visible, and what was not named with it never belonged to it."""
        stamp = stamp_of(row[5])
        if (
            stamp > self.assembly.stamp  # the chain begins anew, behind it
            or snapshot_of(row[6]) is not None
            or row[2] < self._staged[feed.place]  # of a gap that is read again
            or stamp <= self._joined.get(self.assembly.topics[row[0]], NOWHERE)
        ):
            self.loose.append(row)
        elif row[3] is not None and row[4] is not None:
            self.unnamed += 1

    def take_loose(self) -> list[Row]:
        """The loose rows that have come since the last call."""
        loose, self.loose = self.loose, []
        return loose

    def skips(self, topic: str) -> bool:
        """Whether offsets of a topic were skipped, and are not read since."""
        reached = self.reached()
        return any(skips(seen_at(self._assigned[place], reached[place])) for place in reached if place[0] == topic)

    def reached(self) -> dict[Place, int]:
        """By partition the first offset that is not staged once all is that waits for nothing."""
        return {place: feed.first_invisible for place, feed in self.assembly.feeds.items()}

    def _in_gap(self, place: Place, offset: int) -> bool:
        return any(gap.range.start <= offset < gap.range.until for gap in self._gaps.get(place, ()))

    def _event(self, error: Any, place: Place, offset: int, failed: Callable[[Any, str], None]) -> None:
        if not is_end(error):
            failed(error, place[0])
        elif place in self.assembly.feeds:
            feed = self.assembly.feeds[place]
            feed.position = max(feed.position, offset)  # control records have offsets, too

    def _other(self, place: Place, message: Any) -> None:
        """A record of the index; of a partition that was taken away in between, nothing."""
        if place == self._index:
            self.assembly.index(parse_index(message.value() or b""), message.offset())
