"""What changes of rows do to the copy, from records as capture encodes them: changed keys, TOAST, TRUNCATE, snapshots,
records that cannot be staged.

Tests about when something becomes visible have a stager on a real Kafka. The others give the records to its writer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.model.commits import SnapshotState
from schemas.model.errors import SettingsError
from sink.database import Cursor, names_of, reading, transaction
from sink.documents.build import build
from sink.documents.models import Invalid, NotReady
from sink.intake.consumer import ShopConsumer
from sink.intake.offsets import GroupOffsets
from sink.metrics import REPLAYED
from sink.staging import snapshots
from sink.staging.position import why_not_planned
from tests.integration.stager_feed import LINES, ORDERS, START, TYPES, Feed, Piece, line, order, until
from tests.integration.written_rows import Written, key_change, unchanged

JSONB, JSONB_ARRAY, TEXT, BIT = (3802, -1), (3807, -1), (25, -1), 1560


@pytest.fixture
def written(database: str, tmp_path: Path) -> Written:
    return Written(tmp_path, "", "shop", database)


@pytest.fixture
def feed(tmp_path: Path, bootstrap_servers: str, prefix: str, database: str) -> Feed:
    made = Feed(tmp_path, bootstrap_servers, prefix, database)
    made.begin()
    return made


def marks(shop: Feed, column: str) -> list[Any]:
    """One of our own columns of the orders, by id."""
    return [row[0] for row in shop.rows(f'SELECT "{column}" FROM ordertap_shop."public.orders" ORDER BY id')]


def notes(shop: Feed) -> list[tuple[Any, ...]]:
    return shop.orders("id, status, note")


# What one change does


def test_unchanged_toast_keeps_the_old_value(written: Written) -> None:
    written.stage(order(17, 100))
    written.stage(order(17, 200, status="sent", op="u", row={"note": None}, headers=unchanged("note")))
    assert notes(written) == [(17, "sent", "x")]
    # One batch has the record with the value, and a later one of the same row without it.
    written.stage(
        order(17, 300, 1, op="u", row={"note": "new"}),
        order(17, 300, 2, status="done", op="u", row={"note": None}, headers=unchanged("note")),
    )
    assert notes(written) == [(17, "done", "new")]
    assert marks(written, "#unseen") == [None]


def test_a_value_that_never_came_blocks_its_document_until_it_comes(database: str, tmp_path: Path) -> None:
    head = "SELECT id AS key, note, false AS ready FROM orders WHERE id = ANY (%(keys)s::bigint[])"
    shop = Written(tmp_path, "", "shop", database, heads={"sales_order.sql": head})
    sent = order(17, 200, status="sent", op="u", row={"note": None}, headers=unchanged("note"))
    shop.stage(sent, order(18, 200, 2))
    assert marks(shop, "#unseen") == [["note"], None]
    unseen = built(shop, "17")
    assert isinstance(unseen, Invalid)
    assert "note was never seen" in unseen.reason
    assert built(shop, "18") == NotReady()
    marked = shop.marked()["17"]
    shop.stage(order(17, 300, 0, op="r", snapshot="again"))
    assert notes(shop)[0] == (17, "paid", "x")
    assert built(shop, "17") == NotReady()
    assert shop.marked()["17"] > marked


def built(shop: Written, key: str) -> Any:
    """The order as built from the copy, or why it cannot be built."""
    with reading(shop.connection) as cursor, names_of(cursor, "shop"):
        return build(cursor, shop.profile.documents["sales_order"], [key])[key]


def test_delete_and_insert_in_one_commit_leave_nothing_of_the_old_row(written: Written) -> None:
    written.stage(order(17, 100))
    written.stage(order(17, 200, 1, op="d"), order(17, 200, 2, status="new", row={"note": None}))
    assert notes(written) == [(17, "new", None)]
    written.stage(order(17, 300, op="d"))
    assert written.orders() == []
    assert written.rows('SELECT status, "#deleted" FROM ordertap_shop."public.orders"') == [("new", True)]
    assert written.marked() == {"17": 3}


@pytest.mark.parametrize("old_first", [True, False])
def test_a_key_change_takes_over_what_was_not_sent(written: Written, old_first: bool) -> None:
    written.stage(order(17, 100))
    old, new = key_change(order(17, 200), order(18, 200, row={"note": None}), without=["note"])
    written.stage(*((old, new) if old_first else (new, old)))
    assert notes(written) == [(18, "paid", "x")]
    assert written.marked() == {"17": 2, "18": 1}


@pytest.mark.parametrize("old_first", [True, False])
def test_f5_what_key_a_document_had_is_known(written: Written, old_first: bool) -> None:
    """Also if the row was changed again in the same transaction of the copy. Lines are not documents."""
    written.stage(order(17, 100), line(1, 100))
    old, new = key_change(order(17, 200), order(18, 200))
    lines = key_change(line(1, 200, 2), line(2, 200, 2))
    written.stage(*((old, new) if old_first else (new, old)), *lines, order(18, 300, op="u"))
    assert written.rows("SELECT * FROM ordertap_shop.key_change") == [("sales_order", "18", "17")]


@pytest.mark.parametrize("old_first", [True, False])
def test_f5_a_key_change_is_known_if_its_halves_are_written_apart(written: Written, old_first: bool) -> None:
    """As in a large commit. The new row has the value that was not sent, as of the last change before."""
    written.stage(order(17, 100))
    earlier = order(17, 200, 1, op="u", row={"note": "new"})
    old, new = key_change(order(17, 200, 2), order(18, 200, 2, row={"note": None}), without=["note"])
    written.stage_parts(*(([earlier, old], [new]) if old_first else ([new], [earlier, old])))
    assert written.rows("SELECT * FROM ordertap_shop.key_change") == [("sales_order", "18", "17")]
    assert notes(written) == [(18, "paid", "new")]


@pytest.mark.parametrize("bad_half", [False, True])
def test_f5_a_key_change_is_known_beside_a_record_that_cannot_be_staged(written: Written, bad_half: bool) -> None:
    """Also if that is the new half: its row may come again."""
    written.stage(order(17, 100))
    old, new = key_change(order(17, 200), order(18, 200, row={"note": None}), without=["note"])
    bad = (new if bad_half else order(19, 200, 2))._replace(row_bytes=b"\0\0\0")
    written.stage(old, *(() if bad_half else (new,)), bad)
    assert written.rows("SELECT * FROM ordertap_shop.key_change") == [("sales_order", "18", "17")]
    assert notes(written) == ([] if bad_half else [(18, "paid", "x")])


def test_a_key_change_takes_over_what_was_changed_just_before(written: Written) -> None:
    """Also if the row had two keys since the last batch."""
    written.stage(order(17, 100))
    changed = order(17, 200, op="u", row={"note": "new"})
    halves = key_change(order(17, 300), order(18, 300, row={"note": None}), without=["note"])
    again = key_change(order(18, 400), order(19, 400, row={"note": None}), without=["note"])
    written.stage(changed, *halves, *again)
    assert notes(written) == [(19, "paid", "new")]


def test_a_line_that_moves_touches_both_orders(written: Written) -> None:
    written.stage(line(1, 100))
    written.stage(line(1, 200, of=18, op="u"))
    assert written.marked() == {"17": 2, "18": 1}
    written.stage(line(1, 300, of=18, op="d"))
    assert written.marked() == {"17": 2, "18": 2}


def test_a_new_column_and_a_wider_type_alter_the_table(written: Written) -> None:
    written.stage(order(17, 100))
    written.types[ORDERS] = TYPES[ORDERS] | {"total": (1700, (14 << 16 | 3) + 4), "channel": TEXT}
    written.stage(order(18, 200, row={"total": "1234567890.125", "channel": "web"}))
    written.types[ORDERS] = dict(TYPES[ORDERS])  # an older record that comes late
    written.stage(order(19, 150))
    assert written.orders("id, total::text") == [(17, "19.90"), (18, "1234567890.125"), (19, "19.90")]
    staged = written.rows(
        'SELECT id, channel, "#version" < 2 OR "#unseen" IS NOT NULL FROM ordertap_shop."public.orders"'
    )
    assert sorted(staged) == [(17, None, True), (18, "web", False), (19, None, True)]


def test_bits_of_any_number_are_staged(written: Written) -> None:
    """A plain `bit` of PostgreSQL is one bit."""
    for number, bits, length in ((17, "10110001", 8), (18, "1011000111", 10)):
        written.types[ORDERS] = TYPES[ORDERS] | {"flags": (BIT, length)}
        written.stage(order(number, 100 * number, row={"flags": int(bits, 2).to_bytes(2, "little")[: -(-length // 8)]}))
    assert written.rows("SELECT reason FROM ordertap_shop.parked") == []
    assert written.orders("id, flags") == [(17, "10110001"), (18, "1011000111")]


def test_a_table_without_rows_is_there_for_the_profiles_sql(written: Written) -> None:
    joined = "SELECT o.total, l.sku FROM shop.orders o LEFT JOIN shop.order_lines l ON l.order_id = o.id"
    assert written.rows(joined) == []
    written.stage(order(17, 200))
    assert written.orders() == [(17, "paid")]
    assert len(written.rows(joined)) == 1


# Records that cannot be staged


def test_a_table_without_key_is_parked_and_the_rest_flows_on(written: Written) -> None:
    keyless = written.row(line(1, 100))
    written.stage((*keyless[:3], None, *keyless[4:]), order(17, 200))
    assert written.orders() == [(17, "paid")]
    [(reason,)] = written.rows("SELECT reason FROM ordertap_shop.parked")
    assert "give the table a primary key" in reason


@pytest.mark.parametrize(
    ("kind", "extra"), [(JSONB, r'{"a": "x\u0000y"}'), (JSONB_ARRAY, [r'"\ud83d"', "1"])], ids=["jsonb", "jsonb[]"]
)
def test_json_that_jsonb_refuses_parks_its_record_and_the_rest_flows_on(
    written: Written, kind: tuple[int, int], extra: object
) -> None:
    written.types[ORDERS] = TYPES[ORDERS] | {"extra": kind}
    written.stage(order(17, 100, row={"extra": extra}), order(18, 200, row={"extra": None}))
    assert written.orders() == [(18, "paid")]
    [(reason,)] = written.rows("SELECT reason FROM ordertap_shop.parked")
    assert f"{ORDERS}, column extra: jsonb cannot hold" in reason
    assert "; next: " in reason


def test_records_that_can_be_read_later_are_staged_when_their_offsets_are_read_again(feed: Feed) -> None:
    """Two records of one commit are fixed one after the other. What their commit holds waits for both."""
    first, second = (write_with_own_schema(feed, number) for number in (1, 2))
    feed.types[LINES] = dict(TYPES[LINES])
    feed.write(order(17, 1_100), line(3, 1_100, 4), index=feed.indexed([(1_100, {ORDERS: 1, LINES: 3})]))
    for path in (first, second):
        path.rename(path.with_suffix(".away"))
    with feed.running():
        feed.until_at(1_100)
    assert (feed.orders(), feed.lines()) == ([(17, "paid")], [(3, 17)])
    parked = "SELECT count(*) FROM ordertap_shop.parked"
    assert feed.rows(parked) == [(2,)]
    held = "SELECT count(*) FROM ordertap_shop.blocked WHERE (type, key) = ('sales_order', '17')"
    for path, lines, left in ((first, [(1, 17), (3, 17)], 1), (second, [(1, 17), (2, 17), (3, 17)], 0)):
        assert feed.rows(held) == [(1,)]
        marked = feed.marked()["17"]
        path.with_suffix(".away").rename(path)
        set_back(feed)
        with feed.running():
            until(lambda left=left: feed.rows(parked) == [(left,)], "the fixed record is staged")
        assert feed.lines() == lines
        assert feed.rows(held) == [(left,)]
        assert feed.marked()["17"] > marked
    assert feed.rows("SELECT count(*) FROM ordertap_shop.gap") == [(0,)]


def test_records_that_capture_did_not_write_are_parked_and_those_of_before_the_index_are_a_gap(
    tmp_path: Path, bootstrap_servers: str, prefix: str, database: str
) -> None:
    feed = Feed(tmp_path, bootstrap_servers, prefix, database)
    parked = 'SELECT "offset", reason FROM ordertap_shop.parked ORDER BY 1'
    write_foreign(feed, [])  # offset 0 and a marker: another connector was here first
    feed.begin()
    with feed.running():
        feed.until_at(START)
        assert feed.rows(parked) == []
        write_foreign(feed, [], [("ordertap.stamp", b"secret"), ("ordertap.transaction", b"7:1")])  # 2, 3, a marker
        feed.commit(1_100, order(17, 1_100, partition=0))
        feed.until_at(1_100)
        until(lambda: len(feed.rows(parked)) == 2, "both are parked")
    told = feed.rows(parked)
    assert [offset for offset, _ in told] == [2, 3]
    assert {reason for _, reason in told} == {"its headers are not those of capture"}
    assert feed.orders() == [(17, "paid")]
    set_back(feed)
    feed.commit(1_200, order(18, 1_200, partition=0))
    with feed.running():
        feed.until_at(1_200)
    assert feed.rows(parked) == told
    assert feed.gaps() == [(ORDERS, "begun without a copy")]  # what the other connector wrote is not staged


def write_foreign(feed: Feed, *headers: list[tuple[str, bytes]]) -> None:
    """Writes records with these headers to partition 0 of the orders, in one transaction."""
    feed.producer.begin_transaction()
    for one in headers:
        feed.producer.produce(feed.topic(ORDERS), b"?", b"?", partition=0, headers=one)
    feed.producer.commit_transaction(20)


def write_with_own_schema(feed: Feed, number: int) -> Path:
    """Writes a line with its own schema. Returns where the registry has that schema."""
    feed.types[LINES] = TYPES[LINES] | {f"extra{number}": TEXT}
    feed.write(line(number, 1_100, number + 1))
    (path,) = [path for path in feed.folder.glob("registry/*.json") if f"extra{number}" in path.read_text()]
    return path


def set_back(feed: Feed) -> None:
    """Sets offsets back to the beginning of all topics with the Kafka tool, once nobody reads."""
    topics = [feed.topic(table) for table in feed.types]
    tool = GroupOffsets({"bootstrap.servers": feed.servers}, f"g-{feed.prefix}", topics)
    until(lambda: not tool.members(), "no member in the group")
    parts = [TopicPartition(one.topic, one.number, 0) for one in tool.partitions()]
    admin = AdminClient({"bootstrap.servers": feed.servers, "log_level": "2"})
    for future in admin.alter_consumer_group_offsets(
        [ConsumerGroupTopicPartitions(f"g-{feed.prefix}", parts)]
    ).values():
        future.result()


# When it becomes visible


def test_the_halves_of_a_key_change_lie_in_two_partitions(feed: Feed) -> None:
    feed.commit(1_100, order(17, 1_100))
    old, new = key_change(order(17, 1_200, partition=1), order(18, 1_200, row={"note": None}, partition=0), ["note"])
    late = feed.another_producer()
    with feed.running():
        feed.until_at(1_100)
        feed.write(old, commit=False, producer=late)
        feed.write(new, index=feed.indexed([(1_200, {ORDERS: 2})]))
        waits_for_more(feed, 1)
        assert feed.orders() == [(17, "paid")]
        late.commit_transaction(20)
        feed.until_at(1_200)
    assert notes(feed) == [(18, "paid", "x")]
    assert set(feed.marked()) == {"17", "18"}


def waits_for_more(feed: Feed, changes: int) -> None:
    until(lambda: f"{changes} changes of" in feed.waits(), f"{changes} changes are waited for")


def test_truncate_marks_the_table_and_older_rows_that_come_later(feed: Feed) -> None:
    feed.commit(1_100, order(17, 1_100), line(1, 1_100, 2))
    late = feed.another_producer()
    feed.write(order(19, 1_150, partition=1), commit=False, producer=late)
    with feed.running():
        feed.until_at(1_100)
        one, two = (Piece(ORDERS, "t", {}, 1_200, 1, partition) for partition in (0, 1))
        feed.write(one, two, index=feed.indexed([(1_150, {ORDERS: 1}), (1_200, {ORDERS: 1})]))  # it counts once
        waits_for_more(feed, 1)
        assert feed.orders() == [(17, "paid")]
        late.commit_transaction(20)
        feed.until_at(1_200)
        assert feed.orders() == []
        assert marks(feed, "#deleted") == [True, True]
        read_late = SnapshotState("s", "completed", 1_190, False, (ORDERS,), {ORDERS: 1})
        feed.write(  # rows of a chunk that began before it
            order(20, 1_190, 0, op="r", snapshot="s"), order(21, 1_300, 1),
            index=feed.indexed([(1_300, {ORDERS: 1})], snapshots=(read_late,)),
        )  # fmt: skip
        feed.until_at(1_300)
    assert feed.orders() == [(21, "paid")]
    assert feed.lines() == [(1, 17)]


def test_a_crash_between_database_and_offset_commit_makes_a_replay_that_changes_nothing(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed.commit(1_100, order(17, 1_100))
    with feed.running():
        feed.until_at(1_100)
    feed.commit(1_200, order(17, 1_200, status="sent", op="u"))
    late = feed.another_producer()
    feed.write(order(17, 1_300, 1, "half", "u"), index=feed.indexed([(1_300, {ORDERS: 2})]))
    feed.write(order(17, 1_300, 2, "returned", "u"), commit=False, producer=late)
    with monkeypatch.context() as crash, feed.running():
        crash.setattr(ShopConsumer, "commit", lambda *_, **__: None)
        feed.until_at(1_200)
        waits_for_more(feed, 1)
        assert feed.orders() == [(17, "sent")]  # the half commit is not to be seen
    marked, before = feed.marked(), REPLAYED._value.get()
    with feed.running():
        waits_for_more(feed, 1)
        assert (feed.orders(), feed.marked()) == ([(17, "sent")], marked)  # twice delivered, it is still half
        late.commit_transaction(20)
        feed.until_at(1_300)
    assert feed.orders() == [(17, "returned")]
    assert feed.marked() == {"17": marked["17"] + 1}
    assert REPLAYED._value.get() > before


# Snapshots


def planned(feed: Feed) -> bool:
    with transaction(feed.connection) as cursor:
        return why_not_planned(cursor, require_snapshot=True) == ""


@pytest.fixture
def copying(tmp_path: Path, bootstrap_servers: str, prefix: str, database: str) -> Feed:
    """A stager while capture is at its first snapshot."""
    made = Feed(tmp_path, bootstrap_servers, prefix, database)
    running = SnapshotState("first", "running", START, True, (ORDERS, LINES), {})
    made.write(index=made.indexed(snapshots=(running,)))
    return made


def test_a_later_snapshot_of_a_table_does_not_keep_the_first_from_completing(copying: Feed) -> None:
    feed = copying
    states: Callable[[], dict[str, str]] = lambda: dict(feed.rows("SELECT id, state FROM ordertap_shop.snapshot"))  # noqa: E731
    late = feed.another_producer()
    first = SnapshotState("first", "completed", START, True, (ORDERS, LINES), {ORDERS: 1, LINES: 1})
    second = SnapshotState("second", "completed", 1_200, False, (ORDERS,), {ORDERS: 1})
    with feed.running():
        feed.until_at(START)
        feed.write(line(1, START, 0, op="r", snapshot="first"), commit=False, producer=late)
        feed.write(order(17, START, 0, op="r", snapshot="first"), index=feed.indexed(snapshots=(first,)))
        again = order(17, 1_200, 0, "read again", "r", snapshot="second")
        feed.write(again, index=feed.indexed(chunks=[(1_200, {ORDERS: 1}, "second")], snapshots=(second,)))
        until(lambda: feed.orders() == [(17, "read again")], "the second snapshot's rows")
        assert states()["first"] == "announced"
        assert not planned(feed), "the first has a line that is not here"
        late.commit_transaction(20)
        until(lambda: states() == {"first": "complete", "second": "complete"}, "both are complete")
        assert planned(feed)
    assert (feed.orders(), feed.lines(), feed.gaps()) == ([(17, "read again")], [(1, 17)], [])
    with transaction(feed.connection) as cursor, pytest.raises(SettingsError, match="complete already"):
        snapshots.refuse_accepted(cursor)


def test_rows_of_two_snapshots_of_one_table_become_visible_together(written: Written) -> None:
    written.stage(
        order(1, 1_100, 0, op="r", snapshot="one"),
        order(3, 1_100, 0, op="r", snapshot="one"),
        order(2, 1_200, 0, op="r", snapshot="two"),
        order(1, 1_200, 0, "shipped", op="r", snapshot="two"),
    )
    assert written.orders() == [(1, "shipped"), (2, "paid"), (3, "paid")]


def test_a_small_commit_takes_few_round_trips(written: Written) -> None:
    """Each costs a commit of a few rows as much as several rows."""
    said: list[str] = []

    class Counting(Cursor):
        def execute(self, query: Any, *arguments: Any) -> None:
            said.append(query if isinstance(query, str) else query.as_string(self))
            super().execute(query, *arguments)

        def copy_expert(self, query: Any, *arguments: Any) -> None:
            said.append(query.as_string(self))
            super().copy_expert(query, *arguments)

    written.stage(order(1, 1_100), line(1, 1_100, 2), line(2, 1_100, 3))
    written.connection.cursor_factory = Counting
    written.stage(order(1, 1_200, 1, "shipped", "u"), line(1, 1_200, 2, op="u"), line(2, 1_200, 3, op="u"))
    assert len(said) == 13, said  # BEGIN and COMMIT, two tables each by COPY and upsert, and seven for all tables
    assert written.marked() == {"1": 2, "17": 2}
