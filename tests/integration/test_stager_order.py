"""The copy is the shop as of one commit, even if records come late or never, and index entries are missing or repeated.

One stager runs through all cases, in any order. Each case has its own orders.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from json import dumps
from typing import Any

import pytest

from deploy.embedded import Kafka, Postgres
from schemas.model.commits import index_topic
from sink.database import transaction
from sink.intake.consumer import ReadAgainError, ShopConsumer
from sink.metrics import UNNAMED
from sink.staging.position import why_not_planned
from tests.integration.stager_feed import LINES, ORDERS, Feed, Running, line, order, until

BEFORE = 900


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory, kafka: Kafka, postgres: Postgres) -> Feed:
    folder = tmp_path_factory.mktemp("order")
    made = Feed(folder, kafka.bootstrap_servers, f"t{os.getpid()}order", postgres.create_database("stager_order"))
    write_foreign(made, b"what is this?")
    made.write(order(1, BEFORE, 1), line(1, BEFORE, 2, of=1))  # from before the index
    made.begin()
    return made


@pytest.fixture(scope="module")
def running(feed: Feed) -> Iterator[Running]:
    with feed.running() as running:
        until(lambda: feed.stands_at() > 0, "the copy has caught up")
        yield running


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one element each time the stager asks for the ends of partitions."""
    calls: list[int] = []
    real = ShopConsumer.uncommitted_ends

    def ends(consumer: ShopConsumer, *arguments: Any) -> Any:
        found = real(consumer, *arguments)
        calls.append(len(calls))
        return found

    monkeypatch.setattr(ShopConsumer, "uncommitted_ends", ends)
    return calls


def write_foreign(feed: Feed, *values: bytes | None) -> None:
    """Writes records to the index's topic that capture did not write."""
    feed.producer.begin_transaction()
    for value in values:
        feed.producer.produce(index_topic(feed.prefix), value, b"?", partition=0)
    feed.producer.commit_transaction(20)


def not_planned(feed: Feed) -> str:
    with transaction(feed.connection) as cursor:
        return why_not_planned(cursor, require_snapshot=True)


def test_rows_older_than_the_index_are_there_before_the_copy_stands_anywhere(feed: Feed, running: Running) -> None:
    until(lambda: feed.stands_at() > 0, "the copy has caught up")
    assert feed.rows("SELECT id FROM shop.orders WHERE id = 1") == [(1,)]
    assert feed.rows("SELECT order_id FROM shop.order_lines WHERE id = 1") == [(1,)]
    until(lambda: not_planned(feed) == "", "the first snapshot is staged")


def test_f0_a_head_alone_waits_for_the_line_of_the_commit_before(feed: Feed, running: Running) -> None:
    first, raised, cancelled = feed.place(), feed.place(), feed.place()
    feed.commit(first, order(20, first, 1, row={"total": "10"}), line(20, first, 2, of=20))
    feed.until_at(first)
    late = feed.another_producer()
    head = "SELECT status, total::int FROM orders WHERE id = 20"
    with feed.watched(head, "SELECT count(*) FROM order_lines WHERE order_id = 20") as states:
        feed.write(line(21, raised, 1, of=20), commit=False, producer=late)
        index = feed.indexed([(raised, {ORDERS: 1, LINES: 1}), (cancelled, {ORDERS: 1})])
        raise_it = order(20, raised, 2, "paid", "u", row={"total": "20"})
        feed.write(raise_it, order(20, cancelled, 1, "cancelled", "u", row={"total": "20"}), index=index)
        until(lambda: f"1 changes of {LINES}" in feed.waits(), "the commit lacks a line")
        running.until_turned()
        late.commit_transaction(20)
        feed.until_at(cancelled)
        until(lambda: len(states) == 2, "the reader has seen the last state")
    # Both commits went in one step: whoever read in between saw the order as it was, or as it is.
    assert states == {((("paid", 10),), ((1,),)), ((("cancelled", 20),), ((2,),))}
    assert feed.gaps() == []


def test_an_open_transaction_holds_a_commit_and_makes_no_gap(feed: Feed, running: Running, asked: list[int]) -> None:
    """The row is before the uncommitted end, but after the end that a `read_committed` reader sees."""
    held, later = feed.place(), feed.place()
    late = feed.another_producer()
    feed.write(line(31, held, 2, of=30), commit=False, producer=late)
    feed.write(order(30, held, 1), index=feed.indexed([(held, {ORDERS: 1, LINES: 1})]))
    feed.commit(later, order(31, later, 1))
    until(lambda: asked, "the ends were asked for")
    running.until_turned(5)
    assert feed.gaps() == []
    assert feed.stands_at() < held
    late.commit_transaction(20)
    feed.until_at(later)
    assert feed.rows("SELECT id FROM shop.order_lines WHERE order_id = 30") == [(31,)]
    assert feed.gaps() == []


def test_what_was_read_before_partitions_were_taken_away_counts_no_more(
    feed: Feed, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the one line that is there would count twice, in place of the missing one."""
    at = feed.place()
    late = feed.another_producer()
    feed.write(line(91, at, 3, of=90, partition=1), commit=False, producer=late)
    pieces = [order(90, at, 1), line(90, at, 2, of=90, partition=0)]
    feed.write(*pieces, index=feed.indexed([(at, {ORDERS: 1, LINES: 2})]))
    until(lambda: f"1 changes of {LINES}" in feed.waits(), "half of the commit is read")
    taken: list[int] = []
    real = ShopConsumer.poll

    def poll(consumer: ShopConsumer, seconds: float) -> Any:
        if not taken:
            taken.append(1)
            raise ReadAgainError("partitions were taken away", "by the test")
        return real(consumer, seconds)

    monkeypatch.setattr(ShopConsumer, "poll", poll)
    until(lambda: taken, "partitions are taken away")
    running.until_turned(6)
    assert feed.stands_at() < at
    late.commit_transaction(20)
    feed.until_at(at)
    assert feed.rows("SELECT id FROM shop.order_lines WHERE order_id = 90 ORDER BY 1") == [(90,), (91,)]
    assert feed.gaps() == []


def test_a_row_that_is_aborted_is_a_gap_and_the_next_commit_comes(feed: Feed, running: Running) -> None:
    lost, later = feed.place(), feed.place()
    late = feed.another_producer()
    feed.write(line(41, lost, 2, of=40), commit=False, producer=late)
    feed.write(order(40, lost, 1), index=feed.indexed([(lost, {ORDERS: 1, LINES: 1})]))
    feed.commit(later, order(41, later, 1))
    until(lambda: f"1 changes of {LINES}" in feed.waits(), "the commit lacks a line, and status says so")
    late.abort_transaction(20)
    feed.until_at(later)
    assert feed.gaps() == [(LINES, "lost")]
    (detail,) = feed.rows("SELECT detail FROM ordertap_shop.table_gap")
    assert "1 changes of the commit at" in detail[0]
    assert feed.topic(LINES) in detail[0]
    until(lambda: feed.waits() == "", "nothing is waited for")
    feed.rows("DELETE FROM ordertap_shop.table_gap")


def test_a_row_that_the_index_passed_unnamed_is_dropped_and_counted(feed: Feed, running: Running) -> None:
    unnamed, later = feed.place(), feed.place()
    before = UNNAMED._value.get()
    feed.write(order(50, unnamed, 3))  # before the index is past it
    feed.commit(later, order(51, later, 1))
    feed.until_at(later)
    feed.write(order(52, unnamed, 4, partition=1))  # and after
    until(lambda: UNNAMED._value.get() == before + 2, "both are counted")
    heartbeat = feed.place()
    feed.write(index=feed.indexed(end=heartbeat))
    feed.until_at(heartbeat)
    assert feed.rows("SELECT id FROM shop.orders WHERE id BETWEEN 50 AND 52") == [(51,)]
    assert feed.rows('SELECT id FROM ordertap_shop."public.orders" WHERE id IN (50, 52)') == []
    assert feed.gaps() == []


def test_heartbeats_move_the_copy_of_an_idle_shop(feed: Feed, running: Running) -> None:
    for _ in range(3):
        heartbeat = feed.place()
        feed.write(index=feed.indexed(end=heartbeat))
        feed.until_at(heartbeat)


def test_a_commit_at_the_place_of_the_heartbeat_before_it_is_not_passed_by(feed: Feed, running: Running) -> None:
    here = feed.place()
    feed.write(index=feed.indexed(end=here))
    feed.until_at(here)
    feed.commit(here, order(60, here, 1), line(60, here, 2, of=60))
    until(lambda: feed.rows("SELECT id FROM shop.orders WHERE id = 60"), "the commit is visible")
    assert feed.rows("SELECT id FROM shop.order_lines WHERE order_id = 60") == [(60,)]


def test_a_chain_that_breaks_is_caught_up_and_nothing_is_planned_meanwhile(feed: Feed, running: Running) -> None:
    missed, next_ = feed.place(), feed.place()
    late = feed.another_producer()
    feed.write(line(71, missed, 2, of=70), commit=False, producer=late)  # keeps one partition from being read on
    feed.write(order(70, missed, 1))
    feed.indexed([(missed, {ORDERS: 1, LINES: 1})])  # never written
    feed.commit(next_, order(71, next_, 1))
    until(lambda: "catching up" in not_planned(feed), "the copy claims nothing")
    until(lambda: "where the index of commits begins" in feed.waits(), "status says what it reads")
    running.until_turned()
    assert feed.stands_at() == 0
    late.commit_transaction(20)
    feed.until_at(next_)
    assert not_planned(feed) == ""
    assert feed.rows("SELECT id FROM shop.order_lines WHERE order_id = 70") == [(71,)]
    assert feed.rows("SELECT id FROM shop.orders WHERE id IN (70, 71)") == [(70,), (71,)]
    assert feed.gaps() == []


def test_a_record_of_the_index_that_comes_twice_counts_once(feed: Feed, running: Running) -> None:
    first, second = feed.place(), feed.place()
    again = feed.indexed([(first, {ORDERS: 1})])
    feed.write(order(80, first, 1), index=again)
    feed.write(index=again)
    feed.commit(second, order(81, second, 1))
    feed.until_at(second)
    assert feed.rows("SELECT id FROM shop.orders WHERE id IN (80, 81)") == [(80,), (81,)]
    assert feed.gaps() == []


ANOTHER = {
    "version": 1,
    "serial": 1,
    "generation": 1,
    "previous": 0,
    "end": 1,
    "parked": [],
    "begun": [],
    "snapshots": [],
}
FOREIGN = (
    b"\xff", b"", None, b"[]", b'{"version": 2}',
    dumps({**ANOTHER, "tables": [], "commits": [], "serial": "one"}).encode(),
    dumps({**ANOTHER, "tables": [[ORDERS, "t"]], "commits": [[1 << 60, 0, [1, 1]]], "end": 1 << 60}).encode(),
)  # fmt: skip


def test_a_foreign_record_in_the_index_is_said_and_passed_by(
    feed: Feed, running: Running, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing of capture's is missing, so the chain continues after it."""
    first, second = feed.place(), feed.place()
    feed.commit(first, order(110, first, 1))
    write_foreign(feed, *FOREIGN)
    feed.commit(second, order(111, second, 1))
    feed.until_at(second)
    assert feed.rows("SELECT id FROM shop.orders WHERE id IN (110, 111) ORDER BY 1") == [(110,), (111,)]
    assert feed.gaps() == []
    said = capfd.readouterr().out
    assert said.count("a record of the index of commits is skipped") == len(FOREIGN)
    assert "catches up" not in said
    offsets = re.findall(rf"offset=(\d+) .*partition=0 .*topic={index_topic(feed.prefix)}", said)
    assert len(set(offsets)) == len(FOREIGN)


def test_an_unreadable_record_in_place_of_captures_is_a_break_that_is_caught_up(
    feed: Feed, running: Running, capfd: pytest.CaptureFixture[str]
) -> None:
    spoilt, next_ = feed.place(), feed.place()
    feed.indexed([(spoilt, {ORDERS: 1})])  # its record cannot be read
    feed.write(order(120, spoilt, 1))
    write_foreign(feed, b"{")
    feed.commit(next_, order(121, next_, 1))
    feed.until_at(next_)
    assert feed.rows("SELECT id FROM shop.orders WHERE id IN (120, 121) ORDER BY 1") == [(120,), (121,)]
    assert feed.gaps() == []
    assert "the copy has caught up" in capfd.readouterr().out
