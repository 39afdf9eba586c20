"""The stager on a real Kafka and PostgreSQL: whole commits in the order of the index, in whatever order records
come."""

from pathlib import Path

import pytest

from schemas.model.commits import SnapshotState
from tests.integration.stager_feed import LINES, ORDERS, START, Feed, line, order, until


@pytest.fixture
def feed(tmp_path: Path, bootstrap_servers: str, prefix: str, database: str) -> Feed:
    made = Feed(tmp_path, bootstrap_servers, prefix, database)
    made.begin()
    return made


def test_commits_become_visible_and_touch_their_documents(feed: Feed) -> None:
    feed.commit(1_100, order(17, 1_100, 1), line(1, 1_100, 2), line(2, 1_100, 3))
    with feed.running():
        feed.until_at(1_100)
        assert feed.orders() == [(17, "paid")]
        assert feed.lines() == [(1, 17), (2, 17)]
        assert feed.marked() == {"17": 1}
        feed.commit(1_200, order(17, 1_200, 1, "shipped", "u"), line(2, 1_200, 2, op="d"))
        feed.until_at(1_200)
        assert feed.orders() == [(17, "shipped")]
        assert feed.lines() == [(1, 17)]
        assert feed.marked() == {"17": 2}


def test_a_whole_commit_waits_for_an_earlier_one_that_is_not(feed: Feed) -> None:
    late = feed.another_producer()
    with feed.running():
        feed.until_at(START)
        feed.write(line(1, 1_100, 2), commit=False, producer=late)
        index = feed.indexed([(1_100, {ORDERS: 1, LINES: 1}), (1_200, {ORDERS: 1})])
        feed.write(order(17, 1_100, 1), order(17, 1_200, 1, "cancelled", "u"), index=index)
        until(lambda: "1 changes of public.order_lines" in feed.waits(), "the stager waits for a line")
        assert feed.orders() == []
        late.commit_transaction(20)
        feed.until_at(1_200)
        assert (feed.orders(), feed.lines()) == ([(17, "cancelled")], [(1, 17)])
        assert feed.gaps() == []


def test_a_heartbeat_says_until_when_the_copy_has_everything(feed: Feed) -> None:
    """In a quiet shop, nothing else does."""
    feed.commit(1_100, order(17, 1_100))
    feed.write(index=feed.indexed(end=1_200, beat_us=5_000_000))
    with feed.running():
        feed.until_at(1_200)
        assert feed.rows("SELECT extract(epoch FROM committed_at) FROM ordertap_shop.copy") == [(5,)]


def test_one_row_changed_five_times_in_a_commit_is_five_changes(feed: Feed) -> None:
    feed.commit(1_100, *(order(17, 1_100, n, f"s{n}", "c" if n == 1 else "u") for n in range(1, 6)))
    with feed.running():
        feed.until_at(1_100)
    assert feed.orders() == [(17, "s5")]
    assert feed.marked() == {"17": 1}


def test_a_restart_goes_on_where_the_copy_stands_and_replays_nothing(feed: Feed) -> None:
    feed.commit(1_100, order(17, 1_100))
    with feed.running():
        feed.until_at(1_100)
    feed.commit(1_200, order(18, 1_200))
    with feed.running():
        feed.until_at(1_200)
    assert feed.orders() == [(17, "paid"), (18, "paid")]
    assert feed.marked() == {"17": 1, "18": 1}


def test_a_commit_of_which_a_row_never_comes_becomes_visible_and_its_table_has_a_gap(feed: Feed) -> None:
    index = feed.indexed([(1_100, {ORDERS: 1, LINES: 2})])
    feed.write(order(17, 1_100, 1), line(1, 1_100, 2), index=index)
    with feed.running():
        feed.until_at(1_100)
        assert (feed.orders(), feed.lines()) == ([(17, "paid")], [(1, 17)])
        assert feed.gaps() == [(LINES, "lost")]
        read = SnapshotState("s2", "completed", 1_150, False, (LINES,), {LINES: 2})
        pieces = [line(n, 1_150, 0, op="r", snapshot="s2") for n in (1, 2)]
        feed.write(*pieces, index=feed.indexed(chunks=[(1_150, {LINES: 2}, "s2")], snapshots=(read,)))
        until(lambda: feed.gaps() == [], "the snapshot has filled the gap")
        assert feed.lines() == [(1, 17), (2, 17)]


def test_a_first_snapshot_marks_what_it_did_not_bring(feed: Feed) -> None:
    feed.commit(1_100, order(1, 1_100), order(3, 1_100, 2, "streamed"))
    with feed.running():
        feed.until_at(1_100)
        feed.generation = 2
        running = SnapshotState("again", "running", 1_200, True, (ORDERS, LINES), {})
        feed.write(index=feed.indexed(end=1_200, snapshots=(running,)))
        feed.write(*(order(n, 1_200, 0, op="r", snapshot="again") for n in (2, 3)))
        done = SnapshotState("again", "completed", 1_200, True, (ORDERS, LINES), {ORDERS: 2, LINES: 0})
        feed.write(index=feed.indexed(end=1_210, snapshots=(done,)))
        until(lambda: feed.orders() == [(2, "paid"), (3, "paid")], "the second copy, and nothing else")
        assert feed.gaps() == []


@pytest.mark.parametrize("comes", [True, False])
def test_what_a_first_snapshot_lacks_is_judged_at_its_end_by_the_uncommitted_ends(feed: Feed, comes: bool) -> None:
    """Order 1 was deleted in the shop, and order 2 is on its way: nothing is marked until that is decided. A snapshot
    that lacks a row marks nothing at all, because it cannot be told which of the two it is."""
    feed.commit(1_100, order(1, 1_100), order(2, 1_100, 2, "older"), order(3, 1_100, 3))
    with feed.running() as running:
        feed.until_at(1_100)
        feed.generation = 2
        late = feed.another_producer()
        feed.write(order(2, 1_200, 0, op="r", snapshot="again", partition=1), commit=False, producer=late)
        feed.write(order(3, 1_200, 0, "read again", "r", snapshot="again", partition=0))
        done = SnapshotState("again", "completed", 1_200, True, (ORDERS,), {ORDERS: 2})
        feed.write(index=feed.indexed(end=1_210, snapshots=(done,)))
        state = "SELECT state FROM ordertap_shop.snapshot WHERE id = 'again'"
        until(lambda: feed.rows(state) == [("announced",)], "its end is named")
        running.until_turned(5)
        every = [(1, "paid"), (2, "older"), (3, "read again")]
        assert (feed.rows(state), feed.orders(), feed.gaps()) == ([("announced",)], every, [])
        (late.commit_transaction if comes else late.abort_transaction)(20)
        until(lambda: feed.rows(state) == [("complete",)], "its end")
        if comes:
            assert (feed.orders(), feed.gaps()) == ([(2, "paid"), (3, "read again")], [])
        else:
            assert (feed.orders(), feed.gaps()) == (every, [(ORDERS, "short snapshot")])


def test_a_large_commit_is_staged_in_one_step(feed: Feed) -> None:
    pieces = [line(n, 1_100, n) for n in range(1, 12_001)]
    for start in range(0, len(pieces), 4_000):
        feed.write(*pieces[start : start + 4_000])
    with feed.running():
        until(lambda: feed.stands_at() > 0, "the copy has caught up")
        assert feed.lines() == []
        feed.write(index=feed.indexed([(1_100, {LINES: 12_000})]))
        feed.until_at(1_100)
    assert len(feed.lines()) == 12_000
    assert feed.marked() == {"17": 1}


def test_a_record_that_cannot_be_staged_is_parked_and_holds_what_its_commit_touches(feed: Feed) -> None:
    feed.commit(1_100, order(17, 1_100), line(1, 1_100, 2))
    feed.commit(1_200, order(17, 1_200, 1, "shipped", "u"), line(1, 1_200, 2, op="u", row_bytes=b"\x00\x00\x00\x00"))
    feed.commit(1_300, order(18, 1_300))
    with feed.running():
        feed.until_at(1_300)
    assert feed.orders() == [(17, "shipped"), (18, "paid")]
    assert feed.rows("SELECT count(*) FROM ordertap_shop.parked") == [(1,)]
    assert feed.rows("SELECT type, key FROM ordertap_shop.blocked") == [("sales_order", "17")]
