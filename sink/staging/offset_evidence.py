"""Which offsets of each partition are staged, by what was read and what was parked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sink.database import Cursor
from sink.intake import evidence
from sink.intake.consumer import Assigned
from sink.intake.evidence import Gap, Partition, Range, Seen
from sink.staging.assembly import Place, Row


class Saved(NamedTuple):
    """What a save changed. `advanced`: any offset; topics with newly `skipped` offsets; topics whose last skipped
    offset was `read`; topics still `skipping` some."""

    advanced: bool
    skipped: frozenset[str]
    read: frozenset[str]
    skipping: frozenset[str]


def seen_at(one: Assigned, until: int) -> Seen:
    """What is staged of a partition once everything read before `until` is."""
    return evidence.after(one.seen or Seen(one.low), one.partition, Range(one.start, max(one.start, until)))


def skipped_ranges(seen: Seen) -> list[Range]:
    """Skipped offsets that were not read since."""
    return [gap.range for gap in seen.gaps if gap.cause == evidence.SKIPPED]


class OffsetEvidence:
    """The evidence for the partitions of one assignment. It is written with the rows."""

    def __init__(self, assigned: Mapping[Place, Assigned]) -> None:
        self._assigned = dict(assigned)
        self._saved = {one.partition: one.seen for one in assigned.values() if one.seen is not None}
        self._parked: dict[Place, list[int]] = {}
        self._filled: dict[Partition, list[Range]] = {}
        self._gaps = {place: one.seen.gaps for place, one in assigned.items() if one.seen and one.seen.gaps}

    def save(self, cursor: Cursor, reached: Mapping[Place, int], parked: Iterable[tuple[str, int, int]]) -> Saved:
        """Writes that everything before the offsets in `reached` is staged, except records parked since the last call.
        Reading one of those again is no replay."""
        for topic, number, offset in parked:
            self._parked.setdefault((topic, number), []).append(offset)
        seen = {self._assigned[place].partition: self._seen(place, until) for place, until in reached.items()}
        advanced = {partition: one for partition, one in seen.items() if one != self._saved.get(partition)}
        new = evidence.save(cursor, self._saved, advanced)
        skipped = frozenset(gap.partition.topic for gap in new if gap.cause == evidence.SKIPPED)
        before, now = _skipping(self._saved), _skipping(self._saved | seen)
        self._saved |= advanced
        return Saved(bool(advanced), skipped, before - now, now)

    def _seen(self, place: Place, until: int) -> Seen:
        one = self._assigned[place]
        seen = evidence.filled(seen_at(one, until), self._filled.get(one.partition, ()))
        return evidence.with_parked(seen, one.partition, self._parked.get(place, ()))

    def fill(self, skipped: Iterable[Gap], parked: Iterable[tuple[str, int, int]]) -> None:
        """From the next save on, these skipped offsets and parked records count as staged, because their tables were
        read again."""
        for gap in skipped:
            self._filled.setdefault(gap.partition, []).append(gap.range)
        for topic, number, offset in parked:
            if (place := (topic, number)) in self._assigned:
                self._filled.setdefault(self._assigned[place].partition, []).append(Range(offset, offset + 1))
                self._parked[place] = [one for one in self._parked.get(place, ()) if one != offset]

    def were_parked(self, rows: Iterable[Row]) -> list[Row]:
        """The rows that were parked when they were read earlier."""
        return [row for row in rows if self._was_parked(row)] if self._gaps else []

    def _was_parked(self, row: Row) -> bool:
        gaps = self._gaps.get(row[:2], ())
        return any(gap.cause == evidence.PARKED and gap.range.start <= row[2] < gap.range.until for gap in gaps)


def _skipping(seen: Mapping[Partition, Seen]) -> frozenset[str]:
    return frozenset(partition.topic for partition, one in seen.items() if skipped_ranges(one))
