"""Records to commits: in the index's order and whole, in whatever order partitions are read and wherever reading
restarts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.model.change import Stamp
from schemas.model.commits import Commit, IndexRecord
from schemas.model.lsn import LSN
from sink.staging.assembly import LAST, Assembly, ChainBreak, Feed, IndexEnd, PendingCommit, Place, Row

TABLES = ("public.a", "public.b")
TOPICS = {"public.a": "shop.a", "public.b": "shop.b"}
PARTITIONS = 2
GENERATION = 1
START = 10


@dataclass
class Log:
    """What capture has written: records by partition, and the index."""

    parts: dict[Place, list[Row]] = field(default_factory=dict)
    index: list[IndexRecord] = field(default_factory=list)
    commits: dict[int, list[bytes]] = field(default_factory=dict)

    def write(self, lsn: int, changes: list[tuple[str, int]], end: int) -> None:
        """A commit with a change of a table in each named partition."""
        counts: dict[str, int] = {}
        for ordinal, (table, number) in enumerate(changes, 1):
            counts[table] = counts.get(table, 0) + 1
            part = self.parts.setdefault((TOPICS[table], number), [])
            stamp = b"%d:%d:%d" % (GENERATION, lsn, ordinal)
            part.append((TOPICS[table], number, len(part), b"k%d" % ordinal, b"v", stamp, b"7:%d" % lsn, ()))
            self.commits.setdefault(lsn, []).append(stamp)
        numbered = tuple((TABLES.index(table), count) for table, count in counts.items())
        previous = self.index[-1].end if self.index else START
        pairs = tuple((table, TOPICS[table]) for table in TABLES)
        listed = (Commit(lsn, 0, numbered),) if numbered else ()
        self.index.append(IndexRecord(len(self.index) + 1, GENERATION, previous, end, pairs, listed))


def places() -> Iterator[Place]:
    return ((topic, number) for topic in TOPICS.values() for number in range(PARTITIONS))


class Reader:
    """Reads a log as the stager does; `stamp`, `serial` and `next` are what it has staged."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.stamp, self.serial, self.end, self.index_next = Stamp(0, LSN(0), 0), 0, None, 0
        self.next = dict.fromkeys(places(), 0)
        self.visible: list[tuple[int, list[bytes]]] = []
        self.start()

    def start(self) -> None:
        """A restart: memory is lost, and reading begins where the staged state says."""
        self.assembly = Assembly(TABLES, self.stamp, self.serial, self.end)
        self.assembly.feeds = {place: Feed(place, self.next[place]) for place in places()}
        self.index_at = self.index_next

    def read_index(self) -> None:
        if self.index_at < len(self.log.index):
            self.assembly.index(self.log.index[self.index_at], self.index_at)
            self.index_at += 1

    def read(self, place: Place) -> None:
        feed = self.assembly.feeds[place]
        part = self.log.parts.get(place, [])
        if feed.position < len(part):
            row = part[feed.position]
            feed.position += 1
            self.assembly.row(feed, row)

    def stage(self, most: int) -> None:
        if isinstance(self.assembly.next, ChainBreak):
            self.assembly.catch_up()
            self.assembly.caught_up()
        for step in self.assembly.ready(most):
            self.stamp = step.stamp
            if isinstance(step, IndexEnd):
                self.serial, self.end, self.index_next = step.serial, step.stamp, step.next_offset
            else:
                self.visible.append((int(step.stamp.commit_lsn), sorted(row[5] for row in step.rows)))
        self.assembly.left()
        self.next = {place: feed.first_invisible for place, feed in self.assembly.feeds.items()}

    def finish(self, most: int) -> None:
        for _ in range(sum(map(len, self.log.parts.values())) + len(self.log.index) + 2):
            self.read_index()
            for place in places():
                self.read(place)
            self.stage(most)


changes = st.lists(st.tuples(st.sampled_from(TABLES), st.integers(0, PARTITIONS - 1)), max_size=5)
actions = st.sampled_from(["index", "stage", "restart", *places()])


def log_of(commits: list[list[tuple[str, int]]]) -> Log:
    log = Log()
    for number, made in enumerate(commits):
        lsn = START + 10 * (number + 1)
        log.write(lsn, made, lsn + 5)
    return log


@given(st.lists(changes, min_size=1, max_size=12), st.lists(actions, max_size=80), st.integers(1, 4))
def test_commits_become_visible_once_whole_and_in_order(
    commits: list[list[tuple[str, int]]], steps: list[Any], most: int
) -> None:
    log = log_of(commits)
    reader = Reader(log)
    for step in steps:
        if step == "index":
            reader.read_index()
        elif step == "stage":
            reader.stage(most)
        elif step == "restart":
            reader.start()
        else:
            reader.read(step)
    reader.finish(most)
    assert reader.visible == [(lsn, sorted(stamps)) for lsn, stamps in log.commits.items()]
    assert reader.next == {place: len(log.parts.get(place, [])) for place in places()}
    assert reader.stamp == Stamp(GENERATION, LSN(log.index[-1].end), 0)


def whole(log: Log) -> Reader:
    """A reader whose chain has begun."""
    reader = Reader(log)
    reader.read_index()
    reader.stage(1)
    return reader


def test_a_whole_commit_waits_for_an_earlier_one_that_is_not() -> None:
    log = log_of([[], [("public.a", 0), ("public.b", 0)], [("public.a", 1)]])
    reader = whole(log)
    reader.read_index()
    reader.read_index()
    reader.read(("shop.a", 1))
    reader.read(("shop.a", 0))
    reader.stage(100)
    assert reader.visible == []
    assert reader.next["shop.a", 1] == 0
    reader.read(("shop.b", 0))
    reader.stage(100)
    assert [lsn for lsn, _ in reader.visible] == [30, 40]
    assert reader.next["shop.a", 1] == 1


def test_what_a_commit_lacks_is_named_and_it_can_be_given_up() -> None:
    log = log_of([[], [("public.a", 0), ("public.b", 0), ("public.b", 1)]])
    reader = whole(log)
    reader.read_index()
    reader.read(("shop.b", 1))
    entry = reader.assembly.next
    assert isinstance(entry, PendingCommit)
    assert [tuple(one) for one in reader.assembly.short(entry)] == [
        ("public.a", "shop.a", 1),
        ("public.b", "shop.b", 1),
    ]
    reader.assembly.give_up(entry)
    reader.stage(100)
    assert [len(rows) for _, rows in reader.visible] == [1]


@pytest.mark.parametrize(
    ("last", "position", "end", "passed"),
    [(b"1:31:1", 5, None, True), (b"1:30:2", 5, None, False), (b"1:30:2", 5, 6, False), (b"", 6, 6, True)],
)
def test_a_partition_has_passed_a_commit_by_a_later_stamp_or_by_its_end(
    last: bytes, position: int, end: int | None, passed: bool
) -> None:
    feed = Feed(("shop.a", 0), position)
    feed.last = last
    assert feed.has_passed(Stamp(1, LSN(30), LAST), end) is passed


def test_a_record_of_the_index_that_does_not_join_is_a_break() -> None:
    log = log_of([[("public.a", 0)], [("public.a", 0)], [("public.a", 0)]])
    reader = whole(log)
    reader.assembly.index(log.index[2], 2)
    reader.read(("shop.a", 0))
    reader.stage(100)
    step = reader.assembly.next
    assert step == ChainBreak(Stamp(1, LSN(35), 0))


def test_a_record_of_the_index_that_was_taken_is_passed_by() -> None:
    log = log_of([[], [("public.a", 0)]])
    reader = whole(log)
    for _ in range(2):
        reader.assembly.index(log.index[1], 1)
    assert reader.assembly.queued == 2  # the commit, and its end


def test_a_partition_that_runs_ahead_is_crowded_unless_the_next_commit_fills_it() -> None:
    log = log_of([[], [("public.a", 0)] * 4, [("public.b", 0)], [("public.b", 1)] * 4])
    reader = whole(log)
    for _ in range(4):
        reader.read(("shop.a", 0))
        reader.read(("shop.b", 1))
    assert reader.assembly.crowded(2, whole=4) == {("shop.a", 0), ("shop.b", 1)}
    reader.read_index()
    assert reader.assembly.crowded(2, whole=4) == {("shop.b", 1)}
    assert reader.assembly.crowded(2, whole=3) == {("shop.a", 0), ("shop.b", 1)}  # it is drained


def test_a_large_commit_is_drained_as_it_comes() -> None:
    log = log_of([[], [("public.a", 0)] * 5])
    reader = whole(log)
    reader.read_index()
    entry = reader.assembly.next
    assert isinstance(entry, PendingCommit)
    for number in range(5):
        reader.read(("shop.a", 0))
        assert reader.next["shop.a", 0] == 0
        assert len(reader.assembly.drain(entry)) == 1
        assert bool(reader.assembly.short(entry)) is (number < 4)
    reader.assembly.drained(entry)
    reader.stage(100)
    assert reader.next["shop.a", 0] == 5


def test_a_tombstone_and_the_other_copies_of_a_truncate_count_once() -> None:
    assembly = Assembly(TABLES, Stamp(1, LSN(START), 0), 1, Stamp(1, LSN(START), 0))
    feeds = {place: Feed(place, 0) for place in places()}
    assembly.feeds = feeds
    delete: Row = ("shop.a", 0, 0, b"k", b"v", b"1:20:1", b"7:20", ())
    assembly.row(feeds["shop.a", 0], delete)
    assembly.row(feeds["shop.a", 0], ("shop.a", 0, 1, b"k", None, b"1:20:1", b"7:20", ()))
    for number in range(PARTITIONS):
        assembly.row(feeds["shop.b", number], ("shop.b", number, 0, None, b"t", b"1:20:2", b"7:20", ()))
    record = IndexRecord(
        2, 1, START, 25, (("public.a", "shop.a"), ("public.b", "shop.b")), (Commit(20, 0, ((0, 1), (1, 1))),)
    )
    assembly.index(record, 1)
    steps = assembly.ready(100)
    assert [len(step.rows) for step in steps if isinstance(step, PendingCommit)] == [2]


def test_rows_of_a_commit_that_the_index_passed_without_naming_it_come_back() -> None:
    assembly = Assembly(TABLES, Stamp(1, LSN(START), 0), 1, Stamp(1, LSN(START), 0))
    feed = Feed(("shop.a", 0), 0)
    assembly.feeds = {feed.place: feed}
    part: Row = ("shop.a", 0, 0, b"k", b"v", b"1:15:1", b"7:15", ())
    assert assembly.row(feed, part) is None
    assembly.index(IndexRecord(2, 1, START, 25), 1)
    assembly.ready(100)
    assert assembly.left() == [part]
    assert feed.first_invisible == 0
    late: Row = ("shop.a", 0, 1, b"k", b"v", b"1:15:2", b"7:15", ())
    assert assembly.row(feed, late) is late


def test_a_heartbeats_place_may_be_that_of_the_next_commit() -> None:
    log = Log()
    log.write(START, [], 20)
    log.write(20, [("public.a", 0)], 30)
    reader = whole(log)
    assert reader.stamp == Stamp(1, LSN(20), 0)
    reader.finish(100)
    assert [lsn for lsn, _ in reader.visible] == [20]
