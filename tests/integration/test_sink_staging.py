"""Staging on a real PostgreSQL: whole commits, the guard, replays and gaps, snapshots, values in full fidelity."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import cast

import psycopg2
import pytest

from schemas.change import Change, Stamp, TransactionEnd
from schemas.commits import Commit, IndexRecord, dump_index
from schemas.lsn import LSN
from schemas.reader import RecordReader
from sink.database import transaction
from sink.documents.refs import DocumentRef
from sink.intake.consumer import Batch, KafkaRecord
from sink.intake.evidence import Partition, Range
from sink.ledger import blocked, marks
from sink.staging import inbox, jsonb, snapshots
from sink.staging.stager import Staging, Unreadable, decode
from tests.integration.sink_feed import COLUMNS, LINES, ORDERS, Shop, batch_of, completed

ORDER = {
    "id": 17,
    "status": "paid",
    "total": Decimal("19.90"),
    "placed_at": datetime(2026, 11, 23, 1, 2, 3, 456789, UTC),
    "note": "x" * 10,
}
REF = DocumentRef("sales_order", "17")


@pytest.fixture
def shop(database: str, tmp_path: Path) -> Shop:
    return Shop(database, tmp_path)


def line(number: int, order: int = 17) -> dict[str, object]:
    return {"id": number, "order_id": order, "sku": "A", "quantity": 1}


def reasons(shop: Shop) -> dict[DocumentRef, str]:
    with transaction(shop.connection) as cursor:
        return blocked.reasons(cursor, [REF])


def test_one_row_changed_five_times_in_a_commit_is_five_changes(shop: Shop) -> None:
    size = {ORDERS: 5}
    steps = [shop.change("c" if n == 1 else "u", ORDER | {"status": f"s{n}"}, (100, n), size) for n in range(1, 6)]
    shop.stage(*steps[:4])
    assert shop.rows("SELECT to_regclass('shop.orders') IS NULL OR NOT EXISTS (SELECT FROM ordertap.document)") == [
        (True,)
    ]
    shop.stage(steps[4])
    assert shop.orders() == [(17, "s5")]
    assert shop.rows("SELECT count(*) FROM ordertap.inbox") == [(0,)]
    assert shop.marked() == {"17": 1}


def test_a_replay_after_a_crash_between_database_and_offset_commit_changes_nothing(shop: Shop) -> None:
    first = shop.change("c", ORDER, (100, 1), {ORDERS: 1})
    second = shop.change("u", ORDER | {"status": "shipped"}, (200, 1), {ORDERS: 2})
    third = shop.change("u", ORDER | {"status": "returned"}, (200, 2), {ORDERS: 2})
    shop.stage(first, second)
    assert shop.stage(first, second).replays == 2
    assert shop.orders() == [(17, "paid")]  # the half commit, twice delivered, is still half
    shop.stage(third)
    assert shop.orders() == [(17, "returned")]
    before = shop.marked()
    assert shop.stage(first, second, third).replays == 3  # a reset to the earliest
    assert (shop.orders(), shop.marked()) == ([(17, "returned")], before)


def test_two_replicas_with_a_table_each_complete_a_commit_together(shop: Shop) -> None:
    other = shop.another()
    size = {ORDERS: 1, LINES: 2, "public.elsewhere": 4}
    shop.stage(shop.change("c", ORDER, (100, 1), size))
    shop.stage(shop.change("c", line(1), (100, 2), size, LINES), staging=other)
    assert shop.marked() == {}
    shop.stage(shop.change("c", line(2), (100, 3), size, LINES), staging=other)
    assert shop.orders() == [(17, "paid")]
    assert shop.rows("SELECT id FROM shop.order_lines ORDER BY id") == [(1,), (2,)]
    assert shop.rows("SELECT key, unit FROM ordertap.document") == [("17", "sales_order:17")]


def test_the_halves_of_a_key_change_lie_in_two_partitions(shop: Shop) -> None:
    shop.stage(shop.change("c", ORDER, (100, 1), {ORDERS: 1}))
    size = {ORDERS: 1}
    sent = {name: value for name, value in ORDER.items() if name != "note"}
    new = shop.change(
        "c", sent | {"id": 18}, (200, 1), size, partition=1, key_change="new", unchanged=frozenset({"note"})
    )
    shop.stage(new)
    assert shop.orders() == [(17, "paid")]
    shop.stage(shop.change("d", {"id": 17}, (200, 1), size, key_change="old"))
    assert shop.orders("id, note") == [(18, ORDER["note"])]
    assert set(shop.marked()) == {"17", "18"}


def test_interleaved_commits_that_arrive_out_of_order(shop: Shop) -> None:
    late = shop.change("u", ORDER | {"status": "late"}, (300, 1), {ORDERS: 1})
    early = shop.change("c", ORDER | {"status": "early"}, (200, 1), {ORDERS: 1, LINES: 1})
    shop.stage(early, late)
    assert shop.orders() == [(17, "late")]
    shop.stage(shop.change("c", line(1), (200, 2), {ORDERS: 1, LINES: 1}, LINES))
    assert shop.orders() == [(17, "late")]
    assert shop.rows("SELECT id FROM shop.order_lines") == [(1,)]


def test_unchanged_toast_keeps_the_old_value_and_one_never_seen_blocks(shop: Shop) -> None:
    sent = {name: value for name, value in ORDER.items() if name != "note"} | {"status": "shipped"}
    unseen = frozenset({"note"})
    shop.stage(shop.change("u", sent, (200, 1), {ORDERS: 1}, unchanged=unseen, offset=5))
    assert shop.rows('SELECT note, _unseen FROM staged."public.orders"') == [(None, ["note"])]
    assert "note" in reasons(shop)[REF]
    # The skipped create comes by a replay: it fills what was never seen and changes nothing else.
    create = shop.change("c", ORDER, (100, 1), {ORDERS: 1}, offset=3)
    batch = Batch(read={Partition("shop.public.orders", "id-1", 0): Range(3, 4)})
    with transaction(shop.connection) as cursor:
        cursor.execute("INSERT INTO ordertap.gap VALUES ('shop.public.orders', 'id-1', 0, 0, 5, 'skipped')")
    shop.stage(create, read=batch)
    assert shop.orders("id, status, note") == [(17, "shipped", ORDER["note"])]
    assert reasons(shop) == {}
    shop.stage(shop.change("u", sent | {"status": "done"}, (300, 1), {ORDERS: 1}, unchanged=unseen, offset=6))
    assert shop.orders("status, note") == [("done", ORDER["note"])]


def test_delete_and_insert_in_one_commit_leave_nothing_of_the_old_row(shop: Shop) -> None:
    size = {ORDERS: 2}
    shop.stage(shop.change("c", ORDER, (100, 1), {ORDERS: 1}))
    again = ORDER | {"status": "new", "note": None}
    shop.stage(shop.change("d", {"id": 17}, (200, 1), size), shop.change("c", again, (200, 2), size))
    assert shop.orders("id, status, note") == [(17, "new", None)]
    shop.stage(shop.change("d", {"id": 17}, (300, 1), {ORDERS: 1}))
    assert shop.orders() == []
    assert shop.rows('SELECT status, _deleted FROM staged."public.orders"') == [("new", True)]
    assert shop.marked() == {"17": 3}


def test_a_line_that_moves_touches_both_orders(shop: Shop) -> None:
    shop.stage(shop.change("c", line(1), (100, 1), {LINES: 1}, LINES))
    shop.stage(shop.change("u", line(1, order=18), (200, 1), {LINES: 1}, LINES))
    assert shop.marked() == {"17": 2, "18": 1}
    shop.stage(shop.change("d", {"id": 1}, (300, 1), {LINES: 1}, LINES))
    assert shop.marked() == {"17": 2, "18": 2}


def test_truncate_marks_the_table_and_older_rows_that_come_later(shop: Shop) -> None:
    shop.stage(shop.change("c", ORDER, (100, 1), {ORDERS: 1}))
    one, two = (shop.change("t", {}, (200, 1), {ORDERS: 1}, partition=n) for n in (0, 1))
    shop.stage(one)
    shop.stage(two)
    assert shop.orders() == []
    assert shop.rows("SELECT count(*) FROM ordertap.inbox") == [(0,)]
    shop.stage(shop.change("c", ORDER | {"id": 19}, (150, 1), {ORDERS: 1}, partition=1))
    assert shop.orders() == []
    shop.stage(shop.change("c", ORDER | {"id": 20}, (250, 1), {ORDERS: 1}))
    assert shop.orders() == [(20, "paid")]


def test_a_completed_snapshot_marks_rows_that_it_does_not_have(shop: Shop) -> None:
    shop.stage(shop.change("c", ORDER | {"id": 1}, (50, 1), {ORDERS: 1}))
    shop.stage(shop.change("u", ORDER | {"id": 3, "status": "streamed"}, (200, 1), {ORDERS: 1}))
    shop.stage(
        shop.change("r", ORDER | {"id": 2}, (100, 0), snapshot="s1"),
        completed("s1", {ORDERS: 2, "public.elsewhere": 9}, 100),
    )
    assert shop.rows("SELECT state FROM ordertap.snapshot") == [("announced",)]
    shop.stage(shop.change("r", ORDER | {"id": 3}, (100, 0), snapshot="s1"))
    assert shop.rows("SELECT state FROM ordertap.snapshot") == [("complete",)]
    assert shop.orders() == [(2, "paid"), (3, "streamed")]
    assert set(shop.marked()) == {"1", "2", "3"}
    with transaction(shop.connection) as cursor, pytest.raises(Exception, match="complete already"):
        snapshots.accept(cursor, "Ada")


def test_a_later_snapshot_of_a_table_does_not_keep_the_first_from_completing(shop: Shop) -> None:
    def states() -> list[tuple[object, ...]]:
        return shop.rows("SELECT id, state FROM ordertap.snapshot ORDER BY id")

    def planning() -> bool:
        with transaction(shop.connection) as cursor:
            return snapshots.ready(cursor)

    shop.stage(
        shop.change("c", ORDER | {"id": 9}, (50, 1), {ORDERS: 1}),
        shop.change("c", line(9), (60, 1), {LINES: 1}, LINES),
        shop.change("r", ORDER, (100, 0), snapshot="first"),
        completed("first", {ORDERS: 1, LINES: 1}, 100),
        shop.change("r", ORDER | {"status": "read again"}, (200, 0), snapshot="second"),
        completed("second", {ORDERS: 1}, 190),
    )
    assert states() == [("first", "announced"), ("second", "complete")]
    assert not planning(), "the first has lines that are not here"
    shop.stage(shop.change("r", line(1), (100, 0), None, LINES, snapshot="first"))
    assert states() == [("first", "complete"), ("second", "complete")]
    assert planning()
    assert shop.orders() == [(17, "read again")]
    assert shop.rows("SELECT id FROM shop.order_lines") == [(1,)]


def test_a_streamed_transaction_waits_for_its_end(shop: Shop) -> None:
    shop.stage(shop.change("c", ORDER, (100, 1)), shop.change("c", line(1), (100, 2), None, LINES))
    assert shop.marked() == {}
    with transaction(shop.connection) as cursor:
        (entry,) = inbox.waiting(cursor)
    assert (entry.come, entry.size) == ({ORDERS: 1, LINES: 1}, None)
    end = TransactionEnd(Stamp(1, LSN(100), 3), "7:100", {ORDERS: 1, LINES: 2}, "shop.transaction", 0, 0)
    shop.stage(end)
    assert shop.marked() == {}
    shop.stage(shop.change("c", line(2), (100, 3), None, LINES))
    assert shop.orders() == [(17, "paid")]
    assert shop.rows("SELECT count(*) FROM ordertap.transaction_size") == [(0,)]


def listed(offset: int, *entries: Commit) -> KafkaRecord:
    """A record of the index with these commits, of generation 1."""
    tables = ((ORDERS, "shop.public.orders"), (LINES, "shop.public.order_lines"), ("public.x", "shop.public.x"))
    value = dump_index(IndexRecord(1, 1, LSN(0), LSN(900), tables, entries))
    return KafkaRecord("ordertap.shop.commits", 0, offset, b"shop", value, [])


def test_the_index_of_commits_says_what_belongs_to_a_commit(shop: Shop) -> None:
    """With both halves of a key change; what was listed for other tables alone leaves nothing behind."""
    reader = cast("RecordReader", None)  # the index is read without schemas
    entries = (Commit(100, 5, ((0, 3), (2, 1))), Commit(110, 5, ((2, 7),)), Commit(120, 0, ((0, 4),), "chunk"))
    ends = decode(reader, [listed(0, *entries)], "shop")
    halves = [shop.change("d", {"id": 17}, (100, 2), key_change="old")]
    halves += [shop.change("c", ORDER | {"id": 18}, (100, 2), key_change="new", partition=1)]
    rows = [replace(row, transaction_id="1:100") for row in (shop.change("c", ORDER, (100, 1)), *halves)]
    shop.stage(*rows[:2])
    shop.stage(*ends)
    assert shop.orders() == []
    shop.stage(rows[2])
    assert shop.orders() == [(18, "paid")]
    assert shop.rows("SELECT count(*) FROM ordertap.transaction_size") == [(0,)]


def test_a_record_of_the_index_that_is_none_is_parked(shop: Shop) -> None:
    (item,) = decode(cast("RecordReader", None), [KafkaRecord("ordertap.shop.commits", 0, 0, None, b"{}", [])], "shop")
    assert shop.stage(item).parked == 1


def test_a_parked_record_counts_as_seen_and_holds_what_its_commit_touches(shop: Shop) -> None:
    size = {ORDERS: 1, LINES: 1}
    broken = shop.change("c", line(1), (100, 2), size, LINES)
    place = (broken.topic, broken.partition, broken.offset)
    unreadable = Unreadable(
        KafkaRecord(*place, b"k", b"\x07", [("h", b"v")]), "not Avro", LINES, broken.stamp, "7:100", size
    )
    other = shop.change("c", ORDER | {"id": 18}, (90, 1), {ORDERS: 1})
    staged = shop.stage(other, shop.change("c", ORDER, (100, 1), size), unreadable)
    assert staged.parked == 1
    assert shop.orders() == [(17, "paid"), (18, "paid")]
    assert "cannot be read" in reasons(shop)[REF]
    assert shop.rows("SELECT reason, value FROM ordertap.parked")[0][0] == "not Avro"
    marked = shop.marked()["17"]
    assert shop.stage(broken, read=batch_of([broken])).replays == 0  # mended, and read again
    assert shop.rows("SELECT id FROM shop.order_lines") == [(1,)]
    assert reasons(shop) == {}
    assert shop.marked()["17"] > marked
    assert shop.rows("SELECT count(*) FROM ordertap.gap") == [(0,)]


def test_two_parked_records_of_one_commit_that_are_mended_in_two_batches(shop: Shop) -> None:
    size = {ORDERS: 1, LINES: 3}
    broken = [shop.change("c", line(n), (100, 1 + n), size, LINES) for n in (1, 2)]
    unreadable = [
        Unreadable(
            KafkaRecord(c.topic, c.partition, c.offset, b"k", b"\x07", [("h", b"v")]),
            "x",
            LINES,
            c.stamp,
            "7:100",
            size,
        )
        for c in broken
    ]
    shop.stage(shop.change("c", ORDER, (100, 1), size), *unreadable)
    for mended in broken:
        shop.stage(mended, read=batch_of([mended]))
    assert shop.orders() == []  # the third line has not come yet
    shop.stage(shop.change("c", line(3), (100, 4), size, LINES))
    assert shop.orders() == [(17, "paid")]
    assert shop.rows("SELECT id FROM shop.order_lines ORDER BY id") == [(1,), (2,), (3,)]
    assert shop.rows("SELECT count(*) FROM ordertap.inbox") == [(0,)]


def test_a_replica_sees_the_truncate_and_the_columns_of_another(shop: Shop) -> None:
    other = shop.another()
    size = {ORDERS: 1}
    shop.stage(shop.change("c", ORDER, (100, 1), size))
    shop.stage(shop.change("u", ORDER | {"status": "sent"}, (110, 1), size), staging=other)
    shop.stage(shop.change("t", {}, (300, 1), size))
    shop.stage(shop.change("c", ORDER | {"id": 18}, (200, 1), size), staging=other)  # older, and late
    assert shop.orders() == []
    columns = COLUMNS[ORDERS] | {"channel": "text"}
    row = ORDER | {"channel": "web"}
    shop.stage(shop.change("c", row | {"id": 19}, (400, 1), size, columns=columns))
    shop.stage(shop.change("c", row | {"id": 20}, (410, 1), size, columns=columns), staging=other)
    assert shop.orders("id, channel") == [(19, "web"), (20, "web")]


def test_a_skip_is_a_gap_that_a_replay_fills(shop: Shop) -> None:
    size = {ORDERS: 1, LINES: 1}
    changes = [shop.change("c", ORDER | {"id": n}, (n, 1), {ORDERS: 1}) for n in range(1, 6)]
    shop.stage(changes[0])
    staged = shop.stage(changes[4])
    assert [gap.range for gap in staged.gaps] == [Range(1, 4)]
    shop.stage(changes[2])
    assert shop.rows("SELECT from_offset, until_offset FROM ordertap.gap ORDER BY 1") == [(1, 2), (3, 4)]
    assert shop.stage(*changes).replays == 3
    assert [row[0] for row in shop.orders()] == [1, 2, 3, 4, 5]
    assert shop.rows("SELECT count(*) FROM ordertap.gap") == [(0,)]
    # A commit whose other table was skipped holds the documents that it touches.
    shop.stage(shop.change("c", ORDER, (100, 1), {ORDERS: 1}), shop.change("c", line(1), (100, 2), {LINES: 1}, LINES))
    lost = shop.change("u", line(1), (200, 2), size, LINES)
    shop.stage(shop.change("u", ORDER, (200, 1), size), shop.change("c", line(3, 9), (300, 1), {LINES: 1}, LINES))
    assert "gap" in reasons(shop)[REF]
    shop.stage(lost)
    assert reasons(shop) == {}


def test_a_new_column_and_a_wider_type_alter_the_table(shop: Shop) -> None:
    shop.stage(shop.change("c", ORDER, (100, 1), {ORDERS: 1}))
    wider = dict(COLUMNS[ORDERS]) | {"total": "numeric(14,3)", "channel": "text"}
    row = ORDER | {"id": 18, "total": Decimal("1234567890.125"), "channel": "web"}
    shop.stage(shop.change("c", row, (200, 1), {ORDERS: 1}, columns=wider))
    shop.stage(shop.change("c", ORDER | {"id": 19}, (300, 1), {ORDERS: 1}), staging=shop.another())
    assert shop.orders("id, total, channel") == [
        (17, Decimal("19.90"), None),
        (18, Decimal("1234567890.125"), "web"),
        (19, Decimal("19.90"), None),
    ]


@pytest.mark.parametrize("through_inbox", [False, True])
def test_values_keep_their_full_fidelity(shop: Shop, through_inbox: bool) -> None:
    columns = {
        "id": "bigint", "n": "numeric", "m": "numeric(30,10)", "ts": "timestamptz", "far": "timestamptz",
        "plain": "timestamp", "raw": "bytea", "tags": "text[]", "amounts": "numeric(12,2)[]", "j": "jsonb",
        "empty": "text[]", "f": "double precision",
    }  # fmt: skip
    row = {
        "id": 2**63 - 1, "n": Decimal("NaN"), "m": Decimal("12345678901234567890.0123456789"),
        "ts": datetime(2026, 11, 23, 1, 2, 3, 456789, UTC), "far": "infinity",
        "plain": datetime(1, 1, 1, 0, 0, 0, 1), "raw": b"\x00\xff'\\", "tags": ["a,b", None, 'c"d'],  # noqa: DTZ001
        "amounts": [Decimal("1.10"), None], "j": '{"a": 1.10, "b": "%s"}', "empty": [], "f": 0.1,
    }  # fmt: skip
    size = {ORDERS: 1, LINES: 1} if through_inbox else {ORDERS: 1}
    shop.stage(shop.change("c", row, (100, 1), size, columns=columns))
    if through_inbox:
        shop.stage(shop.change("c", line(1), (100, 2), size, LINES))
    found = shop.orders("id, n, m, ts, far::text, plain, raw, tags, amounts, j->>'a', empty, f")[0]
    assert found[1].is_nan()
    assert [found[0], *found[2:6], bytes(found[6]), *found[7:]] == [
        row["id"], row["m"], row["ts"], "infinity", row["plain"], row["raw"], row["tags"], row["amounts"], "1.10", [],
        0.1,
    ]  # fmt: skip


def test_a_table_without_key_is_parked_and_the_rest_flows_on(shop: Shop) -> None:
    keyless: Change = shop.change("c", line(1), (100, 1), {LINES: 1}, LINES, key=None)
    assert shop.stage(keyless, shop.change("c", ORDER, (200, 1), {ORDERS: 1})).parked == 1
    assert shop.orders() == [(17, "paid")]


def test_a_table_without_rows_is_there_for_the_profiles_sql(shop: Shop) -> None:
    staging = Staging("shop", shop.profile, marks.mark, lambda table: COLUMNS[table])
    shop.stage(completed("s1", {ORDERS: 0, LINES: 0}, 100), staging=staging)
    assert shop.rows("SELECT o.total, l.sku FROM shop.orders o LEFT JOIN shop.order_lines l ON l.order_id = o.id") == []
    shop.stage(shop.change("c", ORDER, (200, 1), {ORDERS: 1}), staging=staging)
    assert shop.orders() == [(17, "paid")]


@pytest.mark.parametrize("extra", [r'{"a": "x\u0000y"}', [r'"\ud83d"', "1"]], ids=["jsonb", "jsonb[]"])
def test_json_that_jsonb_refuses_parks_its_record_and_the_rest_flows_on(shop: Shop, extra: object) -> None:
    columns = {**COLUMNS[ORDERS], "extra": "jsonb" if isinstance(extra, str) else "jsonb[]"}
    bad = shop.change("c", ORDER | {"extra": extra}, (100, 1), {ORDERS: 1}, columns=columns)
    good = shop.change("c", ORDER | {"id": 18, "extra": None}, (200, 1), {ORDERS: 1}, columns=columns)
    assert shop.stage(bad, good).parked == 1
    assert shop.orders("id") == [(18,)]
    [(reason,)] = shop.rows("SELECT reason FROM ordertap.parked")
    assert str(reason).startswith(f"table {ORDERS}, column extra: jsonb cannot hold")


_JSON = [
    r'"\u0000"', r'"\\u0000"', r'"\\\u0000"', r'"\\ud83d"', r'"\ud83d"', r'"\ude00"', r'"\ud83d\ude00"',
    r'"\ude00\ud83d"', r'{"x": "\uD83D\uDE00 \ud83d"}', r'[1e1, {"a\u0000": 1}]', '"1e999999"', "0e999999", "0e-99999",
    "1e+99999", "1e131071", "1.5e131071", "0.1e131072", "1e131072", "-1e131072", "1e10000000000",
    "1e99999999999999999999", "1e-16383", "1e-16384", "0." + "1" * 16383, "0." + "1" * 16384,
    "1" * 131072, "1" * 131073,
]  # fmt: skip


@pytest.mark.parametrize("text", _JSON, ids=lambda text: text[:24])
def test_what_jsonb_refuses_is_what_the_server_refuses(shop: Shop, text: str) -> None:
    shop.rows(f"SELECT '{text}'::json::text")
    try:
        shop.rows(f"SELECT '{text}'::jsonb::text")
    except psycopg2.DataError:
        assert jsonb.unfit(text) is not None
    else:
        assert jsonb.unfit(text) is None
