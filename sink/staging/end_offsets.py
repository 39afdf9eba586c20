"""Whether more of a commit or a snapshot can still come: compares what was read with the partitions' ends."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Final

from schemas.model.change import Stamp
from sink.intake.consumer import ShopConsumer
from sink.staging.assembly import Assembly, Place
from sink.staging.position import NOWHERE

_STUCK: Final = 0.3  # seconds before the broker is asked for ends of partitions
_GONE: Final = 10.0  # seconds after which a topic that the broker does not show counts as deleted


class EndOffsets:
    """Log end offsets of all partitions that the broker shows, open transactions included. Records after them were
    written later.

    If a partition is not read yet, because its topic is new or has grown, more can still come.
    """

    def __init__(self, consumer: ShopConsumer, assembly: Assembly) -> None:
        self._consumer = consumer
        self._assembly = assembly
        self._named: tuple[int, int, int] = NOWHERE
        self._ends: dict[Place, int] = {}
        self._wanted: object = None
        self._since = 0.0
        self._not_shown: dict[str, float] = {}
        self._of_snapshot: tuple[str, dict[Place, int]] | None = None

    def passed(self, stamp: Stamp, topics: Collection[str]) -> bool:
        """Whether no record with this stamp can come in these topics. One answer of the broker serves all commits that
        the index had named at the time."""
        if stamp > self._named:
            if not self._due(stamp):
                return False
            self._named = max(stamp, self._assembly.named)
            self._ends = self._consumer.uncommitted_ends(self._assembly.topics)
        feeds = self._assembly.feeds
        wanted = [(place, end) for place, end in self._ends.items() if place[0] in topics]
        return all(place in feeds and feeds[place].has_passed(stamp, end) for place, end in wanted)

    def came(self, stamp: Stamp, topics: Collection[str]) -> bool:
        """The same for topics that have such records by the index. If the broker does not show one, it is asked again:
        it may not know the topic yet."""
        if not self.passed(stamp, topics):
            return False
        now = time.monotonic()
        for topic in set(topics) - {place[0] for place in self._ends}:
            if now - self._not_shown.setdefault(topic, now) < _GONE:
                self._named = NOWHERE
                return False
        return True

    def read(self, snapshot: str, topics: Collection[str]) -> bool:
        """Whether these topics are read up to the ends that they had after the snapshot was announced."""
        if self._of_snapshot is None or self._of_snapshot[0] != snapshot:
            self._of_snapshot = (snapshot, self._consumer.uncommitted_ends(topics))
        feeds = self._assembly.feeds
        return all(place in feeds and feeds[place].position >= end for place, end in self._of_snapshot[1].items())

    def _due(self, question: object) -> bool:
        """Whether the question has been open for a moment. Most are answered by the next poll."""
        now = time.monotonic()
        if self._wanted != question:
            self._wanted, self._since = question, now + _STUCK
        return now >= self._since
