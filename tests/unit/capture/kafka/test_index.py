"""The index of commits as capture writes it: its bytes are what schemas.model.commits reads, its chain is unbroken."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capture.demand import Demand, Request
from capture.kafka.index import Index, News, states_of
from capture.kafka.topics import UnnamedError
from capture.position import Chain, InitialSnapshot, Partial, Position
from schemas.model import commits
from schemas.model.commits import Commit, IndexRecord, dump_index, parse_index
from schemas.model.lsn import LSN

START = Position(3, "42", 1, "tap", LSN(100), LSN(90), "hash", chain=Chain(6, LSN(80)))
TOPIC_OF = "s.{}".format
ORDERS, LINES, LATER = ("public.o", "s.public.o"), ("public.l", "s.public.l"), ("public.o", "s.public.o.v2")

_names = st.text(max_size=8)
_counts = st.dictionaries(st.tuples(_names, _names), st.integers(1, 2**40), min_size=1, max_size=4)
_lsn, _us = st.integers(0, 2**64 - 1), st.integers(0, 2**62)
_news = st.builds(News, _lsn, _us, _counts, st.none() | _names, st.just(()))


def record(index: Index, position: Position = START) -> IndexRecord:
    ((_, _, _, value, _),), _ = index.record(position)
    return parse_index(cast("bytes", value))


@given(st.lists(_news, max_size=6), st.lists(_names, max_size=2), st.lists(_names, max_size=2, unique=True))
def test_the_bytes_are_those_of_the_agreed_form(several: list[News], parked: list[str], begun: list[str]) -> None:
    index = Index("t", b"k", START, TOPIC_OF)
    tables: dict[tuple[str, str], int] = {}
    listed = []
    for news in several:
        index.take(news)
        changes = [(tables.setdefault(table, len(tables)), count) for table, count in news.counts.items()]
        listed.append(Commit(news.lsn, news.ts_us, tuple(changes), news.snapshot))
    index.parked(parked)
    for name in begun:
        index.begins(name)
    ((topic, partition, key, value, headers),), position = index.record(START)
    told = tuple(sorted(set(parked)))
    wanted = IndexRecord(
        7, 3, LSN(80), LSN(100), tuple(tables), tuple(listed), told, tuple(begun), tuple(states_of(START))
    )
    assert value == dump_index(wanted)
    assert (topic, partition, key, headers) == ("t", 0, b"k", [("ordertap.stamp", b"3:100:0")])
    assert position.chain == Chain(7, LSN(100))


def test_tables_have_one_number_in_each_record_and_topics_of_their_own() -> None:
    index = Index("t", b"k", START, TOPIC_OF)
    index.take(News(90, 1, {LINES: 1, ORDERS: 2}))
    index.take(News(95, 1, {LATER: 1, ORDERS: 1}))
    found = record(index)
    assert found.tables == (LINES, ORDERS, LATER)
    assert [one.changes for one in found.commits] == [((0, 1), (1, 2)), ((2, 1), (1, 1))]
    index.take(News(99, 1, {ORDERS: 1}))
    found = record(index, START._replace(end_lsn=LSN(120)))
    assert (found.tables, found.commits[0].changes) == ((ORDERS,), ((0, 1),))
    assert (found.serial, found.previous, found.end) == (8, 100, 120)


def test_what_wrote_to_no_topic_is_not_listed() -> None:
    index = Index("t", b"k", START, TOPIC_OF)
    index.take(News(90, 1, {}))
    assert record(index).commits == ()


@pytest.mark.parametrize("found", [None, START._replace(chain=None)], ids=["no position", "one of before the index"])
def test_a_chain_begins_where_the_position_is_and_lists_nothing_before(found: Position | None) -> None:
    index = Index("t", b"k", found, TOPIC_OF)
    index.take(News(90, 1, {ORDERS: 1}))
    first = record(index)
    assert (first.serial, first.previous, first.end, first.commits, first.tables) == (1, 100, 100, (), ())
    index.take(News(110, 1, {ORDERS: 1}))
    second = record(index, START._replace(end_lsn=LSN(120)))
    assert (second.serial, second.previous, len(second.commits)) == (2, 100, 1)


def test_a_chain_does_not_begin_inside_a_commit_that_was_not_counted() -> None:
    half = START._replace(chain=None, partial=Partial(LSN(110), 5, {"public.o": 5}))
    index = Index("t", b"k", half, TOPIC_OF)
    assert index.record(half) == ([], half)
    index.take(News(110, 1, {ORDERS: 2}))  # the rest of it
    first = record(index, START._replace(end_lsn=LSN(120)))
    assert (first.serial, first.previous, first.end, first.commits) == (1, 120, 120, ())


def test_a_commit_that_this_version_has_counted_does_not_keep_the_chain_waiting() -> None:
    half = START._replace(partial=Partial(LSN(110), 5, {}, {ORDERS: 5}))
    assert record(Index("t", b"k", half, TOPIC_OF), half).serial == 7


def test_what_was_parked_at_the_start_is_in_the_first_record() -> None:
    index = Index("t", b"k", START._replace(parked=("public.o",)), TOPIC_OF)
    assert record(index).parked == ("public.o",)
    assert record(index).parked == ()


def test_how_the_snapshots_stand_is_in_the_first_record_of_a_start_alone() -> None:
    index = Index("t", b"k", START, TOPIC_OF)
    running = commits.SnapshotState("b", "running", 90, False, ("public.o",), {})
    ended = running._replace(state="completed", rows={"public.o": 3})
    index.take(News(states=(running,)))
    index.take(News(states=(ended,)))
    assert [one.id for one in record(index).snapshots] == ["no_data", "b"]
    index.take(News(states=(ended,)))
    assert record(index).snapshots == (ended,)
    assert record(index).snapshots == ()


def test_the_tables_of_a_snapshot_are_named_with_their_topics_behind_those_of_commits() -> None:
    index = Index("t", b"k", START, TOPIC_OF)
    index.take(News(90, 1, {LINES: 1, LATER: 2}))
    index.take(News(states=(commits.SnapshotState("b", "running", 90, True, ("public.o", "public.l"), {}),)))
    found = record(index)
    assert found.tables == (LINES, LATER, ORDERS)
    assert [one.changes for one in found.commits] == [((0, 1), (1, 2))]
    assert record(index).tables == ()


def test_a_table_that_can_have_no_topic_is_left_out_of_a_snapshot_and_keeps_no_record_from_being_made() -> None:
    def topic_of(table: str) -> str:
        if table == "public.ö":
            raise UnnamedError("it is not a valid topic name")
        return TOPIC_OF(table)

    index = Index("t", b"k", START, topic_of)
    asked = commits.SnapshotState("b", "running", 90, False, ("public.ö", "public.o"), {})
    index.take(News(states=(asked,)))
    found = record(index)
    assert found.tables == (ORDERS,)
    assert found.snapshots[-1].tables == ("public.o",)


def _request(name: str, **more: object) -> Request:
    scope = (("public.o", None), ("public.l", "id > 5"))
    return Request(name, LSN(50), scope, scope)._replace(**more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("snapshot", "requests", "told"),
    [
        (None, [], [("no_data", "completed", True, ())]),
        (InitialSnapshot("a", "making"), [], []),
        (InitialSnapshot("a", "running", {"public.x": 3}), [], [("a", "running", True, ("public.x",))]),
        (InitialSnapshot("a", "completed"), [], [("a", "completed", True, ())]),
        (
            InitialSnapshot("a", "completed"),
            [_request("b"), _request("c", first=("a", {"public.x": 3}))],
            [
                ("b", "running", False, ("public.o",)),
                ("a", "running", True, ("public.x", "public.o")),
                ("c", "running", False, ("public.o",)),
            ],
        ),
    ],
    ids=["none was made", "a slot is being made", "it runs", "it is done", "its rest is read while streaming"],
)
def test_how_snapshots_stand_by_a_position(
    snapshot: InitialSnapshot | None, requests: list[Request], told: list[object]
) -> None:
    found = states_of(START._replace(snapshot=snapshot, demand=Demand(tuple(requests))))
    assert [(one.id, one.state, one.first, one.tables) for one in found] == told


def test_a_table_is_named_once_when_it_begins_without_a_copy() -> None:
    index = Index("t", b"k", START, TOPIC_OF, frozenset({"public.o"}))
    assert index.take_accounted() is None
    for name in ("public.o", "public.l", "public.l"):
        index.begins(name)
    assert record(index).begun == ("public.l",)
    assert index.take_accounted() == {"public.o", "public.l"}
    assert index.take_accounted() is None
    index.begins("public.l")
    assert record(index).begun == ()


def test_what_a_snapshot_has_read_as_a_whole_is_accounted_for_and_a_new_first_one_counts_anew() -> None:
    index = Index("t", b"k", START, TOPIC_OF, frozenset({"public.o", "public.x"}))
    first = commits.SnapshotState("a", "running", 90, True, ("public.o",), {})
    index.take(News(states=(first,)))
    assert index.take_accounted() is None, "a crash now leaves what was"
    index.take(News(states=(first._replace(state="completed", rows={"public.o": 0}),)))
    asked = commits.SnapshotState("b", "completed", 95, False, ("public.l",), {"public.l": 1, "public.x": 1})
    index.take(News(states=(asked,)))
    assert index.take_accounted() == {"public.o", "public.l"}, "of the other one a part was read"


def test_where_nobody_has_kept_account_nothing_is_known_of_any_table() -> None:
    index = Index("t", b"k", START, TOPIC_OF)
    index.take(News(states=(commits.SnapshotState("no_data", "completed", 90, True, (), {}),)))
    assert index.accounted is None
