"""Offsets that others move, lose or set back: replayed records change nothing, and skipped ones are a gap.

Each case has a shop of its own, because each moves its group's offsets.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions

from schemas.model.commits import SnapshotState, index_topic
from sink.database import transaction
from sink.intake.consumer import ShopConsumer
from sink.metrics import REPLAYED
from sink.staging.position import note_acted, why_not_planned
from tests.integration.stager_feed import LINES, ORDERS, PROFILE, START, Feed, Piece, line, order, until


@pytest.fixture
def feed(tmp_path: Path, bootstrap_servers: str, prefix: str, database: str) -> Feed:
    made = Feed(tmp_path, bootstrap_servers, prefix, database)
    made.begin()
    return made


def an_order(feed: Feed, number: int, lines: int = 1) -> int:
    """Commits an order with its lines, spread over both partitions. Returns its place."""
    at = feed.place()
    feed.commit(at, order(number, at, 1), *(line(number * 10 + n, at, n + 2, of=number) for n in range(lines)))
    return at


def staged(feed: Feed) -> tuple[list[object], list[object], dict[str, int]]:
    """Everything that a replay must not change."""
    rows = feed.rows(
        'SELECT id, "#generation", "#lsn", "#ordinal", "#deleted" FROM ordertap_shop."public.orders" ORDER BY 1'
    )
    return rows, list(feed.lines()), feed.marked()


def heartbeat(feed: Feed) -> None:
    at = feed.place()
    feed.write(index=feed.indexed(end=at))
    feed.until_at(at)


def test_a_replay_of_everything_marks_nothing_then_a_forward_reset_is_a_gap_and_going_back_fills_it(
    feed: Feed,
) -> None:
    an_order(feed, 1, 3)
    last = an_order(feed, 2, 3)
    with feed.running():
        feed.until_at(last)
    before = staged(feed)
    assert before[2] == {"1": 1, "2": 1}
    feed.set_offsets(lambda one: one.low)
    replayed = REPLAYED._value.get()
    with feed.running():
        until(lambda: REPLAYED._value.get() >= replayed + 8, "all records are read again")
        heartbeat(feed)
        assert staged(feed) == before
        assert feed.gaps() == []
    # Forward, over a commit that nobody has read.
    skipped = an_order(feed, 3, 2)
    where = {one.partition: one.committed for one in feed.offsets()}
    feed.set_offsets(lambda one: one.high)
    with feed.running():
        feed.until_at(skipped)
        assert feed.gaps() == [(LINES, "skipped"), (ORDERS, "skipped")]
        assert feed.rows("SELECT cause, count(*) FROM ordertap_shop.gap GROUP BY 1") == [("skipped", 3)]
        after = feed.place()
        feed.commit(after, order(3, after, 1, "shipped", "u"), order(4, after, 2))
        feed.until_at(after)
        assert [row[0] for row in feed.orders()] == [1, 2, 3, 4]
    # And back: the skipped records are older than the later ones, and win over nothing.
    feed.set_offsets(lambda one: where[one.partition])
    with feed.running():
        until(lambda: feed.gaps() == [], "what was skipped has been read")
        assert feed.orders() == [(1, "paid"), (2, "paid"), (3, "shipped"), (4, "paid")]
        assert feed.rows("SELECT count(*) FROM shop.order_lines WHERE order_id = 3") == [(2,)]
        assert feed.rows("SELECT count(*) FROM ordertap_shop.gap") == [(0,)]
        assert feed.marked().keys() == {"1", "2", "3", "4"}


def test_a_row_that_was_lost_is_not_found_by_reading_what_was_skipped(feed: Feed) -> None:
    """Its place is after the skipped offsets, whether or not the sink has read something there before."""
    first = an_order(feed, 1, 2)
    with feed.running():
        feed.until_at(first)
    where = {one.partition: one.committed for one in feed.offsets()}
    skipped = an_order(feed, 2, 2)
    feed.set_offsets(lambda one: one.high)
    with feed.running():
        feed.until_at(skipped)
        assert feed.gaps() == [(LINES, "skipped"), (ORDERS, "skipped")]
        after = an_order(feed, 3, 2)
        lose_a_line(feed, 4)
        assert feed.stands_at() > after
        assert feed.gaps() == [(LINES, "lost"), (LINES, "skipped"), (ORDERS, "skipped")]
        read_again(feed, "s1", [line(n, 0, 0, op="r") for n in (10, 11, 30, 31)], LINES)
        until(lambda: feed.gaps() == [(ORDERS, "skipped")], "the lines were read again")
    with feed.running():
        lose_a_line(feed, 5)
        assert feed.gaps() == [(LINES, "lost"), (ORDERS, "skipped")]
    feed.set_offsets(lambda one: where[one.partition])
    with feed.running():
        until(lambda: (ORDERS, "skipped") not in feed.gaps(), "what was skipped has been read")
        assert feed.gaps() == [(LINES, "lost")]


def lose_a_line(feed: Feed, number: int) -> None:
    """Commits an order of which a line never comes."""
    at = feed.place()
    feed.write(order(number, at, 1), index=feed.indexed([(at, {ORDERS: 1, LINES: 1})]))
    feed.until_at(at)


def test_a_kill_between_the_commits_of_database_and_offsets_makes_a_replay(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = an_order(feed, 1, 3)
    with monkeypatch.context() as killed:
        killed.setattr(ShopConsumer, "commit", lambda *_: None)
        with feed.running():
            feed.until_at(last)
    assert all(one.committed is None for one in feed.offsets())
    before = staged(feed)
    monkeypatch.setattr(ShopConsumer, "commit", ShopConsumer.commit)
    with feed.running():
        heartbeat(feed)
        assert staged(feed) == before
        assert feed.gaps() == []
    assert all(one.committed is not None for one in feed.offsets())


def test_where_partitions_begin_is_asked_for_once_per_assignment(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = feed.consumer

    def consumer(staged: Any) -> ShopConsumer:
        def counted(partitions: Any) -> Any:
            asked.append(len(partitions))
            return staged(partitions)

        return real(counted)

    monkeypatch.setattr(feed, "consumer", consumer)
    last = an_order(feed, 1)
    with feed.running():
        feed.until_at(last)
    assert asked == [5]


def test_a_restart_in_the_middle_of_commits_reads_their_first_rows_again(feed: Feed) -> None:
    """What was read and is not visible is read again, in each partition from its first such row."""
    first, second = feed.place(), feed.place()
    late = feed.another_producer()
    with feed.running():
        feed.until_at(START)
        feed.write(line(11, first, 3, of=1), commit=False, producer=late)
        index = feed.indexed([(first, {ORDERS: 1, LINES: 2}), (second, {ORDERS: 1, LINES: 1})])
        here = [order(1, first, 1), line(10, first, 2, of=1), order(2, second, 1), line(20, second, 2, of=2)]
        feed.write(*here, index=index)
        until(lambda: f"1 changes of {LINES}" in feed.waits(), "all but one row is read")
    late.commit_transaction(20)
    with feed.running():
        feed.until_at(second)
    assert feed.lines() == [(10, 1), (11, 1), (20, 2)]
    assert [row[0] for row in feed.orders()] == [1, 2]
    assert feed.gaps() == []
    third = an_order(feed, 3, 2)
    with feed.running():
        feed.until_at(third)
    assert feed.rows("SELECT count(*) FROM shop.order_lines WHERE order_id = 3") == [(2,)]
    assert feed.gaps() == []


def test_a_parked_record_stays_so_while_it_cannot_be_staged_and_is_free_when_it_can(feed: Feed) -> None:
    first = an_order(feed, 1)
    with feed.running():
        feed.until_at(first)
        feed.rows("ALTER TABLE ordertap_shop.\"public.order_lines\" ADD CONSTRAINT mine CHECK (sku <> 'B')")
        at = feed.place()
        feed.commit(at, order(1, at, 1, "shipped", "u"), line(11, at, 2, of=1)._replace(row=LINE_B))
        feed.until_at(at)
    held = "SELECT count(*), (SELECT count(*) FROM ordertap_shop.blocked WHERE key = '1') FROM ordertap_shop.parked"
    assert feed.rows(held) == [(1, 1)]
    feed.set_offsets(lambda one: one.low)
    replayed = REPLAYED._value.get()
    with feed.running():
        until(lambda: REPLAYED._value.get() > replayed, "all is read again")
        heartbeat(feed)
    assert feed.rows(held) == [(1, 1)]
    feed.rows('ALTER TABLE ordertap_shop."public.order_lines" DROP CONSTRAINT mine')
    feed.set_offsets(lambda one: one.low)
    with feed.running():
        until(lambda: feed.rows(held) == [(0, 0)], "it is staged, and holds nothing")
    assert feed.rows("SELECT sku FROM shop.order_lines WHERE id = 11") == [("B",)]


LINE_B = {"id": 11, "order_id": 1, "sku": "B", "quantity": 1}


def test_a_restored_middle_layer_goes_back_to_its_evidence_and_nothing_is_planned_until_it_is_past(feed: Feed) -> None:
    tables = (
        "ordertap_shop.copy",
        "ordertap_shop.evidence",
        'ordertap_shop."public.orders"',
        'ordertap_shop."public.order_lines"',
    )
    first = an_order(feed, 1)
    with feed.running():
        feed.until_at(first)
        until(
            lambda: feed.rows("SELECT state FROM ordertap_shop.copy") == [("steady",)], "the first snapshot is staged"
        )
    for number, table in enumerate(tables):  # the backup
        feed.rows(f"CREATE TABLE backup_{number} AS TABLE {table}")
    last = an_order(feed, 2)
    with feed.running():
        feed.until_at(last)
        with transaction(feed.connection) as cursor:
            note_acted(cursor)
    for number, table in enumerate(tables):  # is restored, all but what the ledger remembers
        feed.rows(f"TRUNCATE {table}")
        feed.rows(f"INSERT INTO {table} TABLE backup_{number}")
    assert [row[0] for row in feed.orders()] == [1]
    with transaction(feed.connection) as cursor:
        assert "behind what the ledger acted on" in why_not_planned(cursor, True)
    with feed.running():
        feed.until_at(last)
        with transaction(feed.connection) as cursor:
            assert why_not_planned(cursor, True) == ""
    assert [row[0] for row in feed.orders()] == [1, 2]
    assert feed.gaps() == []


def test_an_expired_group_goes_on_where_the_evidence_is(feed: Feed) -> None:
    last = an_order(feed, 1)
    with feed.running():
        feed.until_at(last)
    before = staged(feed)
    until(lambda: not feed._group().members(), "no member in the group")
    for future in feed.admin.delete_consumer_groups([feed.group]).values():
        future.result()
    assert all(one.committed is None for one in feed.offsets())
    replayed = REPLAYED._value.get()
    with feed.running():
        heartbeat(feed)
    assert staged(feed) == before
    assert REPLAYED._value.get() == replayed
    assert feed.gaps() == []


def test_retention_that_overtook_is_a_gap_that_a_snapshot_ends(feed: Feed) -> None:
    last = an_order(feed, 1)
    with feed.running():
        feed.until_at(last)
    lost = an_order(feed, 2, 2)
    ends = [TopicPartition(one.partition.topic, one.partition.number, one.high) for one in feed.offsets()]
    for future in feed.admin.delete_records(ends).values():
        future.result()
    after = an_order(feed, 3)
    with feed.running():
        feed.until_at(after)
        assert feed.gaps() == [(LINES, "skipped"), (ORDERS, "skipped")]
        assert [row[0] for row in feed.orders()] == [1, 3]
        assert feed.stands_at() > lost
        read_again(feed, "s1", [order(n, 0, 0, op="r") for n in (1, 2, 3)], ORDERS)
        until(lambda: feed.gaps() == [(LINES, "skipped")], "the orders were read again")
        assert [row[0] for row in feed.orders()] == [1, 2, 3]


def read_again(feed: Feed, name: str, pieces: list[Piece], table: str) -> None:
    """A snapshot on demand: its rows as a chunk, and its end."""
    at = feed.place()
    rows = [piece._replace(lsn=at, snapshot=name) for piece in pieces]
    state = SnapshotState(name, "completed", at, False, (table,), {table: len(rows)})
    feed.write(*rows, index=feed.indexed(chunks=[(at, {table: len(rows)}, name)], snapshots=(state,)))


def test_topics_that_are_made_again_are_read_from_their_beginning(feed: Feed) -> None:
    """A table's topic, then the index's: rows that are in neither are gaps, and what comes after is staged."""
    last = an_order(feed, 1)
    with feed.running():
        feed.until_at(last)
    feed.make_again(feed.topic(LINES), 2)
    between = an_order(feed, 2)
    with feed.running():
        feed.until_at(between)
        assert feed.rows("SELECT id FROM shop.order_lines ORDER BY 1") == [(10,), (20,)]
    feed.indexed([(feed.place(), {ORDERS: 1})])  # its record is in the topic that is deleted
    feed.write(order(3, feed.last, 1))
    feed.make_again(index_topic(feed.prefix), 1)
    after = an_order(feed, 4)
    with feed.running():
        feed.until_at(after)
        assert [row[0] for row in feed.orders()] == [1, 2, 3, 4]
        assert feed.gaps() == []
        assert feed.rows("SELECT state FROM ordertap_shop.copy") == [("steady",)]


def evidence_of(feed: Feed, topic: str) -> int:
    """How many partitions of a topic have evidence."""
    ((count,),) = feed.rows("SELECT count(*) FROM ordertap_shop.evidence WHERE topic = %s", topic)
    return int(count)


JOINED = "public.parcels"
LATER_PROFILE = PROFILE.replace("documents:", "  public.parcels: {id: bigint, order_id: bigint}\ndocuments:").replace(
    "      order_lines: order_id\n", "      order_lines: order_id\n      parcels: order_id\n"
)


def parcel(number: int, lsn: int, ordinal: int, of: int = 1, **more: object) -> Piece:
    return Piece(JOINED, "c", {"id": number, "order_id": of}, lsn, ordinal, number % 2, **more)  # type: ignore[arg-type]


def test_f4_a_table_that_joins_the_profile_has_a_gap_and_no_commit_of_before_waits(
    tmp_path: Path, bootstrap_servers: str, prefix: str, database: str
) -> None:
    feed = Feed(tmp_path, bootstrap_servers, prefix, database)
    feed.types[JOINED] = {"id": (20, -1), "order_id": (20, -1)}
    feed.make_topics({feed.topic(JOINED): 2})
    feed.begin()
    first = feed.place()
    feed.commit(first, order(1, first, 1), line(10, first, 2, of=1), parcel(1, first, 3))
    with feed.running():
        feed.until_at(first)
    unread = feed.place()  # while no stager runs, and one of its rows is lost
    pieces = [order(1, unread, 1, "shipped", "u"), parcel(2, unread, 2)]
    feed.write(*pieces, index=feed.indexed([(unread, {ORDERS: 1, JOINED: 1})]))
    feed.profile_text = LATER_PROFILE
    with feed.running():
        feed.until_at(unread)
        assert feed.gaps() == [(JOINED, "joined")]
        assert feed.rows("SELECT id FROM shop.parcels ORDER BY 1") == [(1,), (2,)]
        later = feed.place()
        feed.commit(later, parcel(3, later, 1))
        feed.until_at(later)
        read_again(feed, "s1", [parcel(n, 0, 0)._replace(op="r") for n in (1, 2, 3)], JOINED)
        until(lambda: feed.gaps() == [], "the snapshot has filled the gap")
        assert feed.orders() == [(1, "shipped")]
    feed.profile_text = PROFILE  # is left out for a while, and its rows are not read
    without = feed.place()
    with feed.running():
        feed.commit(without, order(1, without, 1, "paid", "u"), parcel(4, without, 2))
        feed.until_at(without)
    feed.profile_text = LATER_PROFILE
    with feed.running():
        until(lambda: feed.gaps() == [(JOINED, "joined")], "it is missed")


def test_partitions_and_topics_that_come_while_it_runs_are_waited_for(feed: Feed) -> None:
    """A row in a partition that nobody reads yet is on its way: its commit waits, and makes no gap."""
    first = an_order(feed, 1)
    with feed.running() as running:
        feed.until_at(first)
        half = feed.place()  # half of a commit is read when the partitions are assigned anew
        late = feed.another_producer()
        feed.write(line(51, half, 3, of=5), commit=False, producer=late)
        pieces = [order(5, half, 1), line(50, half, 2, of=5)]
        feed.write(*pieces, index=feed.indexed([(half, {ORDERS: 1, LINES: 2})]))
        until(lambda: f"1 changes of {LINES}" in feed.waits(), "a commit waits")
        grown = feed.topic(LINES)
        for future in feed.admin.create_partitions([NewPartitions(grown, 3)]).values():
            future.result()
        until(lambda: evidence_of(feed, grown) == 3, "the new partition is read")
        running.until_turned(5)
        assert feed.stands_at() < half
        late.commit_transaction(20)
        feed.until_at(half)
        assert feed.rows("SELECT id FROM shop.order_lines WHERE order_id = 5 ORDER BY 1") == [(50,), (51,)]
        at = feed.place()
        feed.producer = feed.another_producer()  # the other does not know of the partition yet
        feed.commit(at, order(2, at, 1), line(20, at, 2, of=2, partition=2))
        feed.until_at(at)
        assert feed.rows("SELECT id FROM shop.order_lines WHERE order_id = 2") == [(20,)]
        assert feed.gaps() == []
        # Capture writes to a topic of a later version from now on.
        later = f"{feed.topic(LINES)}.v2"
        feed.make_topics({later: 2})
        feed.topics[LINES] = later
        at = feed.place()
        feed.commit(at, order(3, at, 1), line(30, at, 2, of=3))
        feed.until_at(at)
        assert feed.rows("SELECT id FROM shop.order_lines WHERE order_id = 3") == [(30,)]
        assert feed.gaps() == []
    at = feed.place()
    feed.commit(at, order(4, at, 1), line(40, at, 2, of=4), line(41, at, 3, of=4))
    with feed.running():
        feed.until_at(at)
        assert feed.rows("SELECT id FROM shop.order_lines WHERE order_id = 4 ORDER BY 1") == [(40,), (41,)]
        assert feed.gaps() == []
