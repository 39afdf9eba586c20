"""Whether all that can come of a commit or of a snapshot is read: the ends of partitions, asked of the broker."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Final

from schemas.model.change import Stamp
from sink.intake.consumer import ShopConsumer
from sink.staging.assembly import Assembly, Place
from sink.staging.position import NOWHERE

_STUCK: Final = 0.3  # seconds until the ends of partitions are asked for
_GONE: Final = 10.0  # seconds after which a topic that no broker shows is taken for deleted


class EndOffsets:
    """The uncommitted ends of all partitions that the broker shows: what is behind them came later.

    A partition that is not read yet, of a topic that is new or has grown, keeps what it may bring.
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
        """Whether no record with this stamp can come any more in these topics. One answer of the broker serves all
        that the index had named when it was asked for."""
        if stamp > self._named:
            if not self._due(stamp):
                return False
            self._named = max(stamp, self._assembly.named)
            self._ends = self._consumer.uncommitted_ends(self._assembly.topics)
        feeds = self._assembly.feeds
        wanted = [(place, end) for place, end in self._ends.items() if place[0] in topics]
        return all(place in feeds and feeds[place].has_passed(stamp, end) for place, end in wanted)

    def came(self, stamp: Stamp, topics: Collection[str]) -> bool:
        """The same for topics of which the index says that they have such records. One that the broker does not show is
        asked for again: it may not have heard of it yet."""
        if not self.passed(stamp, topics):
            return False
        now = time.monotonic()
        for topic in set(topics) - {place[0] for place in self._ends}:
            if now - self._not_shown.setdefault(topic, now) < _GONE:
                self._named = NOWHERE
                return False
        return True

    def read(self, snapshot: str, topics: Collection[str]) -> bool:
        """Whether these topics are read up to the ends that they had after a snapshot was announced."""
        if self._of_snapshot is None or self._of_snapshot[0] != snapshot:
            self._of_snapshot = (snapshot, self._consumer.uncommitted_ends(topics))
        feeds = self._assembly.feeds
        return all(place in feeds and feeds[place].position >= end for place, end in self._of_snapshot[1].items())

    def _due(self, question: object) -> bool:
        """Whether a question has been open for a moment: most are answered by the next poll."""
        now = time.monotonic()
        if self._wanted != question:
            self._wanted, self._since = question, now + _STUCK
        return now >= self._since
