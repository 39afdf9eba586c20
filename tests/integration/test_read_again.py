"""What ends when a snapshot has read a table again: holds by parked records, and skipped offsets."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from schemas.model.commits import SnapshotState
from sink.commands.status import told
from sink.database import connect, transaction
from sink.operations.accept import accept_gaps
from sink.operations.status import status
from sink.staging import snapshots
from sink.staging.gaps import table_gaps
from sink.staging.snapshots import Announced, Completed
from tests.integration.staged_rows import stamp
from tests.integration.stager_feed import LINES, ORDERS, Feed, Piece, line, order, until
from tests.integration.written_rows import Written

PARKED = 'SELECT topic, "offset" FROM ordertap_shop.parked ORDER BY 1, 2'
BLOCKED = "SELECT key FROM ordertap_shop.blocked ORDER BY 1"
SKIPPED = "SELECT DISTINCT topic FROM ordertap_shop.gap ORDER BY 1"
UNREADABLE = b"\x00\x00\x00\x00"


@pytest.fixture
def feed(tmp_path: Path, bootstrap_servers: str, prefix: str, database: str) -> Feed:
    made = Feed(tmp_path, bootstrap_servers, prefix, database)
    made.begin()
    return made


@pytest.fixture
def written(tmp_path: Path, prefix: str, database: str) -> Written:
    return Written(tmp_path, "", prefix, database)


def read_again(feed: Feed, table: str, *pieces: Piece) -> None:
    """Reads a whole table in a snapshot on demand, and waits until it is staged."""
    at = feed.place()
    rows = [piece._replace(lsn=at, ordinal=0, op="r", snapshot=f"s{at}") for piece in pieces]
    state = SnapshotState(f"s{at}", "completed", at, False, (table,), {table: len(rows)})
    feed.write(*rows, index=feed.indexed(chunks=[(at, {table: len(rows)}, f"s{at}")], snapshots=(state,)))
    done = "SELECT 1 FROM ordertap_shop.snapshot WHERE id = %s AND state = 'complete'"
    until(lambda: feed.rows(done, f"s{at}"), "the snapshot is staged")


def go_on(feed: Feed) -> None:
    """Stages another commit, with the offsets of its partition."""
    at = feed.place()
    feed.commit(at, order(99, at, 1, "shipped"), line(99, at, 2, of=99), line(98, at, 3, of=99))
    feed.until_at(at)


def test_a_parked_record_holds_until_its_table_is_read_again(feed: Feed) -> None:
    """One commit has two tables: the documents are free when both have been read."""
    feed.commit(1_100, order(17, 1_100), line(1, 1_100, 2))
    pieces = [order(17, 1_200, 1, "shipped", "u"), line(1, 1_200, 2, op="u")]
    feed.commit(1_200, *(piece._replace(row_bytes=UNREADABLE) for piece in pieces))
    with feed.running():
        feed.until_at(1_200)
        assert len(feed.rows(PARKED)) == 2
        read_again(feed, LINES, line(1, 0))
        assert [topic for topic, _ in feed.rows(PARKED)] == [feed.topic(ORDERS)]
        assert feed.rows(BLOCKED) == [("17",)]
        marked = feed.marked()["17"]
        read_again(feed, ORDERS, order(17, 0, status="shipped"))
        assert (feed.rows(PARKED), feed.rows(BLOCKED), feed.orders()) == ([], [], [(17, "shipped")])
        assert feed.marked()["17"] > marked
        go_on(feed)
        assert feed.rows(SKIPPED) == []
    feed.set_offsets(lambda one: one.low)  # what was parked is a replay now
    with feed.running():
        go_on(feed)
        assert (feed.rows(PARKED), feed.rows(BLOCKED)) == ([], [])


@pytest.mark.parametrize("comes_again", [False, True])
def test_what_a_new_row_that_could_not_be_staged_holds_is_free_once_it_can_be_or_its_row_comes_again(
    feed: Feed, comes_again: bool
) -> None:
    """Once free, the document stays free when everything is read again."""
    feed.commit(1_100, order(17, 1_100), line(1, 1_100, 2))
    feed.commit(1_200, order(18, 1_200))
    with feed.running():
        feed.until_at(1_200)
        feed.rows("ALTER TABLE ordertap_shop.\"public.order_lines\" ADD CONSTRAINT mine CHECK (sku <> 'B')")
        feed.commit(1_300, line(2, 1_300, of=18)._replace(row={"id": 2, "order_id": 18, "sku": "B", "quantity": 1}))
        feed.until_at(1_300)
        assert (len(feed.rows(PARKED)), unreadable(feed)) == (1, [LINES])
        [said] = [one for one in told(status(feed.connection, True)) if one.startswith("parked")]
        assert "PostgreSQL rejects a row: CheckViolation (23514); next: change the row in the shop" in said
        if comes_again:
            feed.commit(1_400, line(2, 1_400, of=18, op="u"))
            feed.until_at(1_400)
            assert (feed.rows(PARKED), unreadable(feed)) == ([], [])
    if not comes_again:
        feed.rows('ALTER TABLE ordertap_shop."public.order_lines" DROP CONSTRAINT mine')
    feed.set_offsets(lambda one: one.low)
    with feed.running():
        until(lambda: feed.rows(PARKED) == [] and unreadable(feed) == [], "nothing is held")
        go_on(feed)
        assert (feed.rows(PARKED), unreadable(feed), feed.rows(SKIPPED)) == ([], [], [])
    assert (2, 18) in feed.lines()


def unreadable(feed: Feed) -> list[str]:
    """Tables with records that cannot be staged and may be part of any document."""
    with transaction(feed.connection) as cursor:
        return [gap.table for gap in table_gaps(cursor) if gap.cause == "unreadable"]


def test_records_newer_than_the_snapshot_and_those_that_capture_did_not_write_stay_parked(written: Written) -> None:
    written.stage(order(17, 50), order(18, 50, 2))
    old, new = (
        written.row(order(key, lsn, 1, "shipped", "u", partition=0, row_bytes=UNREADABLE))
        for key, lsn in ((17, 100), (18, 300))
    )
    written.stage(old, new)
    foreign = [(*written.row(order(19, 400, partition=0))[:5], b"", b"", more) for more in ((), (("a", b"1"),))]
    with transaction(written.connection) as cursor:
        written.copy.park_foreign(cursor, foreign)
    done = Completed(Announced("s", stamp(200, 0), (ORDERS,), {ORDERS: 0}), frozenset())
    with transaction(written.connection) as cursor:
        snapshots.complete(cursor, written.copy, done, frozenset([ORDERS]), {written.topic(ORDERS): ORDERS})
        written.copy.mark(cursor)
    assert [offset for _, offset in written.rows(PARKED)] == [new[2], *(row[2] for row in foreign)]
    assert written.rows(BLOCKED) == [("18",)]
    with transaction(written.connection) as cursor:  # the same record can be read now
        written.copy.unpark(cursor, [new])
    assert written.rows(BLOCKED) == []


def test_a_staged_table_that_was_dropped_is_made_anew_and_whole_once_it_is_read_again(feed: Feed) -> None:
    feed.commit(1_100, order(1, 1_100), order(2, 1_100, 2))
    with feed.running():
        feed.until_at(1_100)
    feed.rows('DROP TABLE "ordertap_shop"."public.orders" CASCADE')
    feed.commit(1_200, order(2, 1_200, 1, "shipped", "u"), line(2, 1_200, 2, of=2))
    with feed.running():
        feed.until_at(1_200)
        assert (feed.orders(), feed.gaps()) == ([(2, "shipped")], [(ORDERS, "begun without a copy")])
        read_again(feed, ORDERS, order(1, 0), order(2, 0, status="shipped"))
        assert (feed.orders(), feed.gaps()) == ([(1, "paid"), (2, "shipped")], [])


def test_skipped_offsets_that_a_person_accepts_do_not_come_back(feed: Feed) -> None:
    """The stager that is running has them in memory."""
    feed.commit(1_100, order(1, 1_100))
    with feed.running():
        feed.until_at(1_100)
    feed.commit(1_200, order(1, 1_200, 1, "shipped", "u"))
    feed.set_offsets(lambda one: one.high)
    with feed.running():
        feed.until_at(1_200)
        assert feed.rows(SKIPPED) == [(feed.topic(ORDERS),)]
        with closing(connect(feed.url, "ordertap_shop")) as connection:
            accept_gaps(connection, ORDERS, feed.topic(ORDERS), "Ada", execute=True)
        go_on(feed)
        go_on(feed)
        assert (feed.rows(SKIPPED), feed.gaps()) == ([], [])


def test_offsets_that_were_skipped_are_no_gap_once_their_table_is_read_again(feed: Feed) -> None:
    feed.commit(1_100, order(1, 1_100), line(1, 1_100, 2, of=1))
    with feed.running():
        feed.until_at(1_100)
    feed.commit(1_200, order(1, 1_200, 1, "shipped", "u"), line(1, 1_200, 2, of=1, op="u"))
    feed.set_offsets(lambda one: one.high)
    with feed.running():
        feed.until_at(1_200)
        assert feed.rows(SKIPPED) == [(feed.topic(LINES),), (feed.topic(ORDERS),)]
        read_again(feed, ORDERS, order(1, 0, status="shipped"))
        assert feed.gaps() == [(LINES, "skipped")]
        assert feed.rows(SKIPPED) == [(feed.topic(LINES),)]
        go_on(feed)
        assert feed.rows(SKIPPED) == [(feed.topic(LINES),)]
        read_again(feed, LINES, line(1, 0, of=1))
        go_on(feed)
        assert feed.rows(SKIPPED) == []
    with feed.running():
        go_on(feed)
        assert (feed.rows(SKIPPED), feed.gaps()) == ([], [])
