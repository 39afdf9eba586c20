"""Rows that once stopped everything, and values that were once kept too long, each in a stager that goes on with other
rows.

One stager runs through all cases, in any order. Each case has its own table or rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest

from deploy.embedded import Kafka, Postgres
from schemas.model import change
from schemas.model.change import UNAVAILABLE
from schemas.model.commits import SnapshotState
from sink.database import connect, names_of, reading
from sink.staging.assembly import Assembly
from tests.integration.stager_feed import PROFILE, Feed, Piece, Running, counts, order, until

BIGINT, TEXT, INTEGER, NUMERIC = (20, -1), (25, -1), (23, -1), (1700, -1)
ODD, EVENTS, RATES, WIDE, TEXTS = "public.odd", "public.events", "public.rates", "public.wide", "public.texts"
SHORT, SEEN, BROKEN, EMPTIED, TYPED, COLUMNS, MANY = (
    "public.short", "public.seen", "public.broken", "public.emptied", "public.typed", "public.columns", "public.many",
)  # fmt: skip
NAMES = ("_deleted", "_generation", "_commit_lsn", "deleted", "excluded", "t", "n")
TABLES = {
    ODD: {"id": BIGINT} | dict.fromkeys(NAMES, TEXT),
    EVENTS: {"id": BIGINT, "ref": TEXT},
    RATES: {"id": NUMERIC, "name": TEXT},
    WIDE: {"id": BIGINT} | {f"c{n}": INTEGER for n in range(1_650)},
    TEXTS: {"id": BIGINT, "body": TEXT, "n": INTEGER},
    SHORT: {"id": BIGINT, "name": TEXT},
    SEEN: {"id": BIGINT, "name": TEXT},
    BROKEN: {"id": BIGINT, "name": TEXT},
    EMPTIED: {"id": BIGINT, "name": TEXT},
    TYPED: {"id": BIGINT, "amount": INTEGER},
    COLUMNS: {"id": BIGINT, "price": INTEGER, "old": TEXT},
    MANY: {"id": BIGINT, "name": TEXT},
}
READS = {
    ODD: "id: bigint", EVENTS: "id: bigint, ref: text", RATES: "id: numeric", WIDE: "id: bigint",
    TEXTS: "id: bigint, body: text, n: integer", SEEN: "id: bigint, name: text", BROKEN: "id: bigint",
    EMPTIED: "id: bigint", TYPED: "id: bigint, amount: integer", COLUMNS: "id: bigint, price: integer, old: text",
    MANY: "id: bigint", SHORT: "id: bigint",
}  # fmt: skip
TOUCHES = {EVENTS: "ref::bigint", TEXTS: "id", BROKEN: "id", EMPTIED: "id", COLUMNS: "id"}
GARBAGE = b"\x00\x00\x00\x00"


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory, kafka: Kafka, postgres: Postgres) -> Feed:
    name = f"t{os.getpid()}rows"
    tables = "".join(f"  {table}: {{{columns}}}\n" for table, columns in READS.items())
    touches = "".join(f"      {table.partition('.')[2]}: {sql}\n" for table, sql in TOUCHES.items())
    text = PROFILE.replace("documents:\n", f"{tables}documents:\n") + touches
    made = Feed(tmp_path_factory.mktemp("rows"), kafka.bootstrap_servers, name, postgres.create_database("stager_rows"))
    made.make_topics({made.topic(table): 2 for table in TABLES})
    made.types |= {table: dict(columns) for table, columns in TABLES.items()}
    made.profile_text = text
    made.begin()
    return made


@pytest.fixture(scope="module")
def running(feed: Feed) -> Iterator[Running]:
    with feed.running() as running:
        yield running


def row(table: str, key: Any, lsn: int, ordinal: int = 1, op: str = "c", **values: Any) -> Piece:
    """A change of a row; `partition`, `headers`, `row_bytes`, `snapshot`: as in Piece."""
    more = {name: values.pop(name) for name in Piece._fields if name in values}
    return Piece(table, op, {"id": key, **values}, lsn, ordinal, more.pop("partition", 0), **more)


def put(feed: Feed, *pieces: Piece) -> None:
    """Commits the pieces after all others, whatever their own places, and waits until they are visible."""
    at = feed.place()
    feed.commit(at, *(piece._replace(lsn=at) for piece in pieces))
    feed.until_at(at)


def truncate(table: str, ordinal: int) -> list[Piece]:
    """A TRUNCATE, which is in every partition."""
    return [Piece(table, "t", {}, 0, ordinal, partition) for partition in (0, 1)]


def shown(feed: Feed, table: str, columns: str = "id") -> list[tuple[Any, ...]]:
    return feed.rows(f"SELECT {columns} FROM shop.{table.partition('.')[2]} ORDER BY id")


def held_for(feed: Feed, table: str, columns: str) -> str:
    """Why a document that reads these columns is held; "" if it is not."""
    try:
        shown(feed, table, columns)
    except psycopg2.Error as error:
        if error.pgcode != "OT001":
            raise
        return f"{error.diag.message_primary}: {error.diag.message_hint}"
    return ""


def snapshot(feed: Feed, name: str, table: str, *pieces: Piece, says: int | None = None) -> int:
    """A snapshot on demand of a table in one chunk. `says`: how many rows the index says it has. Returns its place."""
    at = feed.place()
    rows = [piece._replace(lsn=at, ordinal=0, op="r", snapshot=name) for piece in pieces]
    state = SnapshotState(name, "completed", at, False, (table,), {table: len(rows) if says is None else says})
    feed.write(*rows, index=feed.indexed(chunks=[(at, {table: len(rows)}, name)] if rows else [], snapshots=(state,)))
    until(
        lambda: feed.rows("SELECT 1 FROM ordertap_shop.snapshot WHERE id = %s AND state = 'complete'", name), "its end"
    )
    return at


def test_s1_columns_of_the_shop_that_were_named_like_ours(feed: Feed, running: Running) -> None:
    put(feed, row(ODD, 1, 0, **dict.fromkeys(NAMES, "the shop's")), row(ODD, 2, 0, 2))
    put(feed, row(ODD, 2, 0, op="d"))
    assert shown(feed, ODD, '_deleted, _generation, "t"') == [("the shop's",) * 3]


def test_s2_a_row_for_which_a_touch_fails_is_parked_and_the_others_go_on(feed: Feed, running: Running) -> None:
    pieces = [row(EVENTS, n, 0, n, ref="no number" if n == 5 else str(1_000 + n)) for n in range(1, 10)]
    put(feed, *pieces)
    assert shown(feed, EVENTS) == [(n,) for n in range(1, 10) if n != 5]
    topic = feed.topic(EVENTS)
    ((reason,),) = feed.rows("SELECT reason FROM ordertap_shop.parked WHERE topic = %s", topic)
    assert "touched_by" in reason
    assert "no number" not in reason
    put(feed, row(EVENTS, 5, 0, op="u", ref="1005"))  # fixed in the shop
    assert shown(feed, EVENTS) == [(n,) for n in range(1, 10)]


def test_s3_a_persons_view_on_ours_and_a_new_column(feed: Feed, running: Running) -> None:
    put(feed, row(SEEN, 1, 0, name="one"))
    feed.rows("CREATE VIEW public.report AS SELECT id, name FROM shop.seen")
    feed.types[SEEN]["more"] = TEXT
    put(feed, row(SEEN, 2, 0, name="two", more="x"))
    assert feed.rows("SELECT id, name FROM public.report ORDER BY id") == [(1, "one"), (2, "two")]
    assert feed.rows("SELECT more FROM shop.seen WHERE id = 2") == [("x",)]


def test_s4_a_numeric_key_that_is_equal_and_differs_as_bytes(feed: Feed, running: Running) -> None:
    five, same = {"scale": 2, "value": (500).to_bytes(2, "big")}, {"scale": 0, "value": b"\x05"}
    put(feed, row(RATES, five, 0, 1, name="first"), row(RATES, same, 0, 2, "u", name="second"))  # in one batch
    assert shown(feed, RATES, "id, name") == [(5, "second")]
    put(feed, row(RATES, five, 0, 1, "u", name="third"))
    put(feed, row(RATES, same, 0, 1, "u", name="fourth"))  # and over two
    assert shown(feed, RATES, "id, name") == [(5, "fourth")]
    put(feed, row(RATES, five, 0, 1, "d"))
    assert shown(feed, RATES) == []


def test_s8_a_table_of_too_many_columns_parks_its_records_alone(feed: Feed, running: Running) -> None:
    pieces = [row(WIDE, n, 0, n) for n in range(1, 4)]
    put(feed, order(900, 0, 10), *pieces)
    assert feed.rows("SELECT id FROM shop.orders WHERE id = 900") == [(900,)]
    reasons = feed.rows("SELECT reason FROM ordertap_shop.parked WHERE topic = %s", feed.topic(WIDE))
    assert len(reasons) == 3
    assert "1600 columns" in reasons[0][0]


def _key_change(old: int, new: int, ordinal: int, halves: tuple[int, int], **values: Any) -> list[Piece]:
    unchanged = ((change.UNCHANGED_HEADER, change.unchanged_header(["body"])),) if "body" not in values else ()
    out = row(TEXTS, old, 0, ordinal, "d", partition=halves[0], headers=((change.NEW_KEY_HEADER, b'{"id":%d}' % new),))
    values = {"body": UNAVAILABLE, **values}
    headers = ((change.OLD_KEY_HEADER, b'{"id":%d}' % old), *unchanged)
    return [out, row(TEXTS, new, 0, ordinal, partition=halves[1], headers=headers, **values)]


@pytest.mark.parametrize("halves", [(0, 0), (0, 1), (1, 0)])
def test_a_key_change_takes_over_what_was_not_sent(feed: Feed, running: Running, halves: tuple[int, int]) -> None:
    old = 100 * (1 + halves[0] + 2 * halves[1])
    put(feed, row(TEXTS, old, 0, body="long", n=1, partition=halves[0]))
    put(feed, *_key_change(old, old + 1, 1, halves, n=2))
    assert feed.rows("SELECT id, body, n FROM shop.texts WHERE id BETWEEN %s AND %s", old, old + 1) == [
        (old + 1, "long", 2)
    ]
    assert {str(old), str(old + 1)} <= feed.marked().keys()


def test_what_was_not_sent_is_kept_and_what_was_never_seen_holds(feed: Feed, running: Running) -> None:
    unchanged = ((change.UNCHANGED_HEADER, change.unchanged_header(["body"])),)
    put(feed, row(TEXTS, 50, 0, body="long", n=1))
    put(feed, row(TEXTS, 50, 0, op="u", body=UNAVAILABLE, n=2, headers=unchanged))
    assert feed.rows("SELECT body, n FROM shop.texts WHERE id = 50") == [("long", 2)]
    put(feed, row(TEXTS, 51, 0, op="u", body=UNAVAILABLE, n=3, headers=unchanged))  # its row was skipped once
    reason = held_for(feed, TEXTS, "body")
    assert reason == f"{TEXTS}.body was never seen: `capture signal snapshot {TEXTS}`"
    put(feed, row(TEXTS, 51, 0, op="d"))
    assert held_for(feed, TEXTS, "body") == ""


def test_a_delete_and_an_insert_in_one_commit_are_one_row(feed: Feed, running: Running) -> None:
    put(feed, row(TEXTS, 60, 0, body="first", n=1))
    marked = feed.marked()["60"]
    put(feed, row(TEXTS, 60, 0, 1, "d"), row(TEXTS, 60, 0, 2, body="second", n=2))
    assert feed.rows("SELECT body FROM shop.texts WHERE id = 60") == [("second",)]
    put(feed, row(TEXTS, 60, 0, 1, "u", body="third", n=3), row(TEXTS, 60, 0, 2, "d"))
    assert feed.rows("SELECT body FROM shop.texts WHERE id = 60") == []
    assert feed.marked()["60"] == marked + 2


def test_a_truncate_counts_once_and_what_comes_after_it_stays(feed: Feed, running: Running) -> None:
    put(feed, row(EMPTIED, 1, 0), row(EMPTIED, 2, 0, 2, partition=1))
    inserted = [row(EMPTIED, 3, 0, 1), row(EMPTIED, 4, 0, 3, partition=1)]
    put(feed, inserted[0], *truncate(EMPTIED, 2), inserted[1])
    assert shown(feed, EMPTIED) == [(4,)]
    assert {"1", "2", "3", "4"} <= feed.marked().keys()
    assert (EMPTIED, "lost") not in feed.gaps()


def test_f1_a_type_changes_while_a_reader_waits(feed: Feed, running: Running) -> None:
    """The reader keeps its snapshot; the stager waits and names it. A later reader finds all rows."""
    put(feed, row(TYPED, 1, 0, amount=10))
    feed.types[TYPED]["amount"] = BIGINT
    reader = connect(feed.url, "ordertap_shop")
    try:
        at = feed.place()
        with reading(reader) as cursor, names_of(cursor, "shop"):
            cursor.execute("SELECT amount FROM typed")
            assert cursor.fetchall() == [(10,)]
            feed.commit(at, row(TYPED, 2, at, amount=1 << 40))
            until(lambda: "holds a lock on ordertap_shop.schema_gate" in feed.waits(), "status names the reader")
            cursor.execute("SELECT amount FROM typed")
            assert cursor.fetchall() == [(10,)]
        feed.until_at(at)
        with reading(reader) as cursor, names_of(cursor, "shop"):
            cursor.execute("SELECT amount FROM typed ORDER BY id")
            assert cursor.fetchall() == [(10,), (1 << 40,)]
    finally:
        reader.close()


def test_f3_a_column_that_changes_is_unseen_until_a_snapshot(feed: Feed, running: Running) -> None:
    put(feed, row(COLUMNS, 1, 0, price=10, old="x"))
    feed.types[COLUMNS]["price"] = TEXT  # TYPE … USING: staged values have another unit
    put(feed, row(COLUMNS, 2, 0, price="20 EUR", old="x"))
    assert "public.columns.price was never seen" in held_for(feed, COLUMNS, "price")
    again = [row(COLUMNS, 1, 0, price="10 EUR", old="x"), row(COLUMNS, 2, 0, price="20 EUR", old="x")]
    snapshot(feed, "f3-type", COLUMNS, *again)
    assert shown(feed, COLUMNS, "price") == [("10 EUR",), ("20 EUR",)]
    feed.types[COLUMNS]["kind"] = TEXT  # ADD COLUMN … DEFAULT: the values of older rows are not known
    feed.types[COLUMNS]["renamed"] = feed.types[COLUMNS].pop("old")  # RENAME
    put(feed, row(COLUMNS, 3, 0, price="30 EUR", kind="a", renamed="y"))
    assert "public.columns.old is no longer in the shop" in held_for(feed, COLUMNS, "price")
    feed.types[COLUMNS]["old"] = feed.types[COLUMNS].pop("renamed")  # and back
    put(feed, row(COLUMNS, 4, 0, price="40 EUR", kind="a", old="z"))
    assert "public.columns.old was never seen" in held_for(feed, COLUMNS, "price")
    every = [row(COLUMNS, n, 0, price=f"{n}0 EUR", kind="a", old="z") for n in range(1, 5)]
    snapshot(feed, "f3-name", COLUMNS, *every)
    assert shown(feed, COLUMNS, "old") == [("z",)] * 4


def test_v6_parked_neighbours_are_one_gap_and_cost_no_more_the_more_there_are(feed: Feed, running: Running) -> None:
    def broken(count: int) -> int:
        before = running.statements
        put(feed, *(row(BROKEN, n, 0, n, row_bytes=GARBAGE) for n in range(1, count + 1)))
        return running.statements - before

    first = broken(1_000)
    many = broken(9_000)
    last = broken(1_000)
    gaps = feed.rows(
        "SELECT until_offset - from_offset FROM ordertap_shop.gap WHERE topic = %s ORDER BY from_offset",
        feed.topic(BROKEN),
    )
    assert gaps == [(1_000,), (9_000,), (1_000,)]
    assert many < 9 * first + 100
    assert last < first + 60  # some are signs of life
    assert feed.rows("SELECT count(*) FROM ordertap_shop.parked WHERE topic = %s", feed.topic(BROKEN)) == [(11_000,)]


def test_v7_a_large_commit_is_seen_as_a_whole_and_is_never_kept_as_one(
    feed: Feed, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    real = Assembly.crowded

    def crowded(assembly: Assembly, most: int, whole: int) -> set[tuple[str, int]]:
        kept.append(sum(len(one.waiting) for one in assembly.feeds.values()))
        return real(assembly, most, whole)

    monkeypatch.setattr(Assembly, "crowded", crowded)
    at = feed.place()
    pieces = [row(MANY, n, at, n, name="x", partition=n % 2) for n in range(1, 60_001)]
    with feed.watched("SELECT count(*) FROM many") as states:
        for start in range(0, 60_000, 20_000):
            feed.write(*pieces[start : start + 20_000])
        feed.write(index=feed.indexed([(at, counts(pieces))]))
        until(lambda: feed.stands_at() >= at, "it is visible", 90)
        until(lambda: len(states) == 2, "the reader has seen it")
    assert states == {(((0,),),), (((60_000,),),)}
    assert max(kept) < 20_000


def test_a_snapshot_on_demand_while_the_stream_goes_on(feed: Feed, running: Running) -> None:
    """Newer rows stay. Vanished rows are marked at its end, not before."""
    put(feed, *(row(TEXTS, n, 0, n, body="old", n=1) for n in range(70, 74)))
    at = feed.place()
    rows = [row(TEXTS, n, at, 0, "r", body="read", n=2, snapshot="demand") for n in (70, 71, 72)]
    running_now = SnapshotState("demand", "running", at, False, (TEXTS,), {})
    feed.write(index=feed.indexed(end=at - 1, snapshots=(running_now,)))
    feed.write(*rows, index=feed.indexed(chunks=[(at, {TEXTS: 3}, "demand")]))
    put(feed, row(TEXTS, 71, 0, op="u", body="streamed", n=3), row(TEXTS, 72, 0, 2, "d"), row(TEXTS, 74, 0, 3, n=1))
    query = "SELECT id, body FROM shop.texts WHERE id BETWEEN 70 AND 79 ORDER BY id"
    assert feed.rows(query) == [(70, "read"), (71, "streamed"), (73, "old"), (74, None)]
    done = SnapshotState("demand", "completed", at, False, (TEXTS,), {TEXTS: 3})
    feed.write(index=feed.indexed(snapshots=(done,)))
    until(lambda: (73, "old") not in feed.rows(query), "its end marks what it did not bring")
    assert feed.rows(query) == [(70, "read"), (71, "streamed"), (74, None)]
    assert feed.gaps() == [gap for gap in feed.gaps() if gap[0] != TEXTS]


def test_a_short_snapshot_is_a_gap_and_a_whole_one_ends_it(feed: Feed, running: Running) -> None:
    put(feed, row(SHORT, 80, 0, name="a"), row(SHORT, 81, 0, 2, name="b"))
    snapshot(feed, "short", SHORT, row(SHORT, 80, 0, name="a"), says=2)
    assert (SHORT, "short snapshot") in feed.gaps()
    assert feed.rows("SELECT id FROM shop.short WHERE id IN (80, 81)") == [(80,), (81,)]  # nothing is marked
    every = [row(SHORT, n, 0, name="a") for n in (80,)]
    snapshot(feed, "whole", SHORT, *every)
    assert (SHORT, "short snapshot") not in feed.gaps()
    assert feed.rows("SELECT id FROM shop.short WHERE id IN (80, 81)") == [(80,)]
