"""One thread reads while the other writes: what happens to a batch that PostgreSQL holds up.

A lock of the test holds the batch, so each case knows that it is in flight.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import NewPartitions

from sink.database import connect
from sink.intake.evidence import Partition
from sink.staging.committer import Committer
from sink.staging.serial_executor import SerialExecutor
from tests.integration.stager_feed import LINES, ORDERS, START, Feed, line, order, until

WAITS = """SELECT pid FROM pg_locks WHERE NOT granted AND relation = 'ordertap_shop."public.orders"'::regclass"""


@pytest.fixture
def feed(tmp_path: Path, bootstrap_servers: str, prefix: str, database: str) -> Feed:
    made = Feed(tmp_path, bootstrap_servers, prefix, database)
    made.begin()
    made.commit(1_100, order(1, 1_100))
    return made


@pytest.fixture
def stood(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where the copy stood each time reading began."""
    found: list[int] = []
    real = Committer.staged

    def staged(committer: Committer, partitions: Sequence[Partition]) -> Any:
        found.append(feed.stands_at())
        return real(committer, partitions)

    monkeypatch.setattr(Committer, "staged", staged)
    return found


@contextmanager
def in_flight(feed: Feed, at: int, number: int) -> Iterator[int]:
    """A commit of an order that the stager is writing, and cannot finish until the end of the block. Yields its
    session."""
    with closing(connect(feed.url, "ordertap_shop")) as other, other.cursor() as cursor:
        cursor.execute('BEGIN; LOCK TABLE ordertap_shop."public.orders" IN SHARE MODE')
        feed.commit(at, order(number, at))
        until(lambda: feed.rows(WAITS), "the batch is in flight")
        yield int(feed.rows(WAITS)[0][0])
        assert feed.rows("SELECT id FROM shop.orders WHERE id = %s", number) == []


def assign_anew(feed: Feed, table: str, partitions: int) -> None:
    """Adds a partition, which makes a new assignment of all."""
    for future in feed.admin.create_partitions([NewPartitions(feed.topic(table), partitions)]).values():
        future.result()


def test_reading_goes_on_while_a_batch_is_written_and_the_next_comes_after_it(feed: Feed) -> None:
    with feed.running() as running:
        feed.until_at(1_100)
        with in_flight(feed, 1_200, 2):
            running.until_turned()
            feed.commit(1_300, order(2, 1_300, 1, "shipped", "u"))
            running.until_turned()
        feed.until_at(1_300)
    assert feed.orders() == [(1, "paid"), (2, "shipped")]
    assert feed.marked() == {"1": 1, "2": 2}


def test_a_session_that_ends_in_the_middle_of_a_batch_loses_nothing(feed: Feed) -> None:
    with feed.running() as running:
        feed.until_at(1_100)
        with in_flight(feed, 1_200, 2) as session:
            feed.commit(1_300, order(3, 1_300))
            running.until_turned()
            feed.rows("SELECT pg_terminate_backend(%s)", session)
            until(lambda: running.outages, "the reading side is told")
        feed.until_at(1_300)
    assert feed.orders() == [(1, "paid"), (2, "paid"), (3, "paid")]
    assert feed.marked() == {"1": 1, "2": 1, "3": 1}
    assert feed.gaps() == []


def test_an_assignment_begins_after_what_was_in_flight_has_ended(
    feed: Feed, stood: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    discarded: list[bool] = []
    real = SerialExecutor.discard

    def discard(database: SerialExecutor[Any]) -> None:
        discarded.append(database.pending > 0)
        real(database)

    monkeypatch.setattr(SerialExecutor, "discard", discard)
    with feed.running():
        feed.until_at(1_100)
        with in_flight(feed, 1_200, 2):
            assign_anew(feed, LINES, 3)
            until(lambda: True in discarded, "partitions are taken away")
            assert len(stood) == 1
        until(lambda: len(stood) == 2, "reading begins anew")
        feed.commit(1_300, order(3, 1_300))
        feed.until_at(1_300)
    assert stood[1] >= 1_200
    assert feed.orders() == [(1, "paid"), (2, "paid"), (3, "paid")]
    assert feed.marked() == {"1": 1, "2": 1, "3": 1}


def test_a_stop_waits_for_the_batch_and_commits_its_offsets(feed: Feed) -> None:
    topic = feed.topic(ORDERS)
    with feed.running() as running:
        feed.until_at(1_100)
        with in_flight(feed, 1_200, 2):
            running.ask_to_stop()
        running.stop()
        assert feed.orders() == [(1, "paid"), (2, "paid")]
    committed = {one.partition.number: one.committed for one in feed.offsets() if one.partition.topic == topic}
    assert (committed[0] or 0) >= 1


def test_a_large_commit_that_is_interrupted_is_visible_as_a_whole_or_not_at_all(feed: Feed, stood: list[int]) -> None:
    """A new assignment interrupts it in its middle, then a stop."""
    pieces = [line(n, 1_200, n) for n in range(1, 12_001)]
    late = feed.another_producer()
    open_ = "SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = current_database()"
    with feed.running():
        feed.until_at(1_100)
    with feed.watched("SELECT count(*) FROM order_lines") as counts:
        with feed.running():
            until(lambda: counts, "a reader has seen none")
            feed.write(*pieces[:7_000])
            feed.write(*pieces[7_000:], commit=False, producer=late)
            feed.write(index=feed.indexed([(1_200, {LINES: 12_000})]))
            until(lambda: "12000 rows, which become visible together" in feed.waits(), "status says what it waits for")
            until(lambda: feed.rows(open_), "some of them are written")
            begun = len(stood)
            assign_anew(feed, ORDERS, 3)
            until(lambda: len(stood) > begun, "reading begins anew")
            until(lambda: feed.rows(open_), "they are written again")
        assert feed.lines() == []
        with feed.running():
            late.commit_transaction(20)
            feed.until_at(1_200)
            until(lambda: "together" not in feed.waits(), "nothing is waited for any more")
            until(lambda: ((12_000,),) in {state[0] for state in counts}, "a reader has seen it")
    assert counts == {(((0,),),), (((12_000,),),)}
    assert feed.marked() == {"1": 1, "17": 1}
    assert feed.stands_at() >= 1_200 > START
