"""Evidence: which offsets of each partition are staged. It tells a replay apart from a gap.

Kafka's committed offsets say where to resume, and operators move them; the evidence is written in the transaction that
stages, so it is always true. Pure functions over ranges [from, until), and their rows in the middle layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from psycopg2.extras import execute_values

from sink.database import Cursor

SKIPPED = "skipped"
PARKED = "parked"


class Partition(NamedTuple):
    """A partition of a topic as it exists now. A topic that was dropped and made again has a new id and new offsets."""

    topic: str
    topic_id: str
    number: int

    def __str__(self) -> str:
        """In the notation that operators write."""
        return f"{self.topic} [{self.number}]"


class Range(NamedTuple):
    """Offsets from `start` up to, but not including, `until`."""

    start: int
    until: int


class Gap(NamedTuple):
    """Offsets that are not staged although later ones are. cause: `skipped` by a reset, or `parked` as unreadable."""

    partition: Partition
    range: Range
    cause: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What is staged of one partition: everything before `next_offset` except the open gaps."""

    next_offset: int
    gaps: tuple[Gap, ...] = ()


def without(range_: Range, read: Range) -> list[Range]:
    """What is left of a range after another was read."""
    parts = (Range(range_.start, min(range_.until, read.start)), Range(max(range_.start, read.until), range_.until))
    return [part for part in parts if part.until > part.start]


def after(seen: Seen | None, partition: Partition, read: Range) -> Seen:
    """The evidence after a range was read in one go. It closes the gaps that it covers; a skip before it becomes a
    gap."""
    if seen is None:
        return Seen(read.until)
    gaps = [*filled(seen, [read]).gaps]
    if read.start > seen.next_offset:
        gaps.append(Gap(partition, Range(seen.next_offset, read.start), SKIPPED))
    return Seen(max(seen.next_offset, read.until), tuple(gaps))


def filled(seen: Seen, ranges: Iterable[Range]) -> Seen:
    """The evidence once nothing in these ranges counts as missing."""
    gaps = seen.gaps
    for range_ in ranges:
        gaps = tuple(Gap(gap.partition, part, gap.cause) for gap in gaps for part in without(gap.range, range_))
    return Seen(seen.next_offset, gaps)


def with_parked(seen: Seen, partition: Partition, offsets: Iterable[int]) -> Seen:
    """The evidence with records that could not be staged added as gaps; neighbours become one range."""
    ranges: list[Range] = []
    for offset in sorted(set(offsets)):
        if ranges and ranges[-1].until == offset:
            ranges[-1] = Range(ranges[-1].start, offset + 1)
        else:
            ranges.append(Range(offset, offset + 1))
    if not ranges:
        return seen
    return Seen(seen.next_offset, (*seen.gaps, *(Gap(partition, one, PARKED) for one in ranges)))


def load(cursor: Cursor, partitions: Iterable[Partition]) -> dict[Partition, Seen]:
    """The evidence of these partitions; one that was never staged is left out."""
    wanted = list(partitions)
    if not wanted:
        return {}
    cursor.execute(
        "SELECT topic, topic_id, partition, next_offset FROM evidence WHERE (topic, topic_id, partition) IN %s",
        (tuple(tuple(partition) for partition in wanted),),
    )
    found = {Partition(*row[:3]): row[3] for row in cursor.fetchall()}
    gaps = open_gaps(cursor)
    return {
        partition: Seen(next_offset, tuple(gap for gap in gaps if gap.partition == partition))
        for partition, next_offset in found.items()
    }


def open_gaps(cursor: Cursor) -> list[Gap]:
    """All open gaps, including those of topics that no longer exist."""
    cursor.execute(
        "SELECT topic, topic_id, partition, from_offset, until_offset, cause FROM gap"
        " ORDER BY topic, topic_id, partition, from_offset"
    )
    return [Gap(Partition(*row[:3]), Range(row[3], row[4]), row[5]) for row in cursor.fetchall()]


def close_skipped(cursor: Cursor, topics: Iterable[str]) -> list[Gap]:
    """Closes the skipped gaps of these topics, and of earlier topics with the same names, and returns them. From now
    on, reading there is a replay."""
    cursor.execute(
        "DELETE FROM gap WHERE topic = ANY(%s) AND cause = %s"
        " RETURNING topic, topic_id, partition, from_offset, until_offset, cause",
        (list(topics), SKIPPED),
    )
    return sorted(Gap(Partition(*row[:3]), Range(row[3], row[4]), row[5]) for row in cursor.fetchall())


def save(cursor: Cursor, before: Mapping[Partition, Seen], now: Mapping[Partition, Seen]) -> list[Gap]:
    """Writes the evidence of partitions that were read. Returns the gaps that are new."""
    rows = [(*partition, seen.next_offset) for partition, seen in sorted(now.items())]
    if rows:
        execute_values(
            cursor,
            "INSERT INTO evidence (topic, topic_id, partition, next_offset) VALUES %s"
            " ON CONFLICT (topic, topic_id, partition)"
            " DO UPDATE SET next_offset = excluded.next_offset, staged_at = now()",
            rows,
        )
    new: list[Gap] = []
    for partition, seen in now.items():
        old = before[partition].gaps if partition in before else ()
        if old == seen.gaps:
            continue
        known_before = frozenset(old)
        opened = [gap for gap in seen.gaps if gap not in known_before]
        _replace(cursor, set(old) - set(seen.gaps), opened)
        new += [gap for gap in opened if not any(_within(gap.range, known.range) for known in old)]
    return new


def _replace(cursor: Cursor, closed: Iterable[Gap], opened: Iterable[Gap]) -> None:
    for gap in closed:
        cursor.execute(
            "DELETE FROM gap WHERE (topic, topic_id, partition) = (%s, %s, %s) AND from_offset = %s",
            (*gap.partition, gap.range.start),
        )
    for gap in opened:
        cursor.execute(
            "INSERT INTO gap (topic, topic_id, partition, from_offset, until_offset, cause)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            (*gap.partition, *gap.range, gap.cause),
        )


def _within(part: Range, whole: Range) -> bool:
    return whole.start <= part.start and part.until <= whole.until


def other_ids(cursor: Cursor, partitions: Iterable[Partition]) -> set[str]:
    """The topics that have evidence under another id only: they were dropped and made again."""
    wanted = {(partition.topic, partition.topic_id) for partition in partitions}
    if not wanted:
        return set()
    cursor.execute(
        "SELECT DISTINCT topic, topic_id FROM evidence WHERE topic = ANY(%s)",
        ([topic for topic, _ in wanted],),
    )
    known = set(cursor.fetchall())
    same = {topic for topic, topic_id in known & wanted}
    return {topic for topic, _ in known} - same
