"""The slow reader returns what was written, by us or by Debezium, and names a bad record only by its position."""

import datetime as dt
import io
from decimal import Decimal
from typing import Any

import fastavro
import pytest

from schemas.model.change import (
    NEW_KEY_HEADER,
    OLD_KEY_HEADER,
    STAMP_HEADER,
    TRANSACTION_HEADER,
    UNCHANGED,
    UNCHANGED_HEADER,
    Stamp,
    snapshot_header,
    stamp_header,
    transaction_header,
)
from schemas.model.errors import DataError
from schemas.model.lsn import LSN
from schemas.reading.json_text import without_logical_types
from schemas.registry import wire
from schemas.writing import records
from schemas.writing.codec import compile_codec
from tests.record_reader import Change, RecordError, RecordReader, SnapshotNotice, TransactionEnd
from tests.unit.schemas.examples import LSN_OF_ROW, ORDERS, ORDERS_FACTS, PREFIX, ROW, TOPIC, debezium_records

STAMP = Stamp(2, LSN(423384100), 3)
HEADERS = [
    (STAMP_HEADER, stamp_header(STAMP)),
    (TRANSACTION_HEADER, transaction_header(4711, 423384100)),
]


class Schemas:
    """A registry in memory that counts how often it is asked."""

    def __init__(self) -> None:
        self.known: list[dict[str, Any]] = []
        self.asked = 0

    def register(self, subject: str, schema: dict[str, Any]) -> int:
        self.known.append(schema)
        return len(self.known)

    def schema(self, schema_id: int) -> dict[str, Any]:
        self.asked += 1
        if not 0 < schema_id <= len(self.known):
            raise DataError(f"schema {schema_id} is not in the registry")
        return self.known[schema_id - 1]

    def check(self) -> None:
        return

    def close(self) -> None:
        return


SCHEMAS = Schemas()
CODEC = compile_codec(TOPIC, ORDERS, ORDERS_FACTS)
assert CODEC.key_schema is not None
ENCODER = CODEC.bind(SCHEMAS.register("k", CODEC.key_schema), SCHEMAS.register("v", CODEC.value_schema))
READER = RecordReader(SCHEMAS)


def read(value: bytes | None, headers: list[tuple[str, bytes]] | None = HEADERS, key: bytes | None = None) -> Any:
    return READER.read(TOPIC, 1, 42, ENCODER.key(ROW) if key is None else key, value, headers)


def test_a_change_comes_back_with_all_that_it_is() -> None:
    found = read(ENCODER.create(PREFIX, LSN_OF_ROW, ROW))
    assert found == Change(
        table="public.orders",
        op="c",
        stamp=STAMP,
        transaction_id="4711:423384100",
        size=None,
        snapshot=None,
        key={"id": 7},
        before=None,
        after={
            "id": 7,
            "customer_id": 12,
            "status": "paid",
            "total": Decimal("19.90"),
            "placed_at": dt.datetime(2024, 2, 29, 10, 34, 56, 789123, dt.UTC),
            "note": None,
            "paid": True,
            "photo": b"\x00\xff",
            "rate": Decimal("1.250"),
        },
        unchanged=frozenset(),
        key_change=None,
        ts_us=1_795_387_678_803_755,
        topic=TOPIC,
        partition=1,
        offset=42,
        columns={
            "id": "bigint",
            "customer_id": "integer",
            "status": "text",
            "total": "numeric(12,2)",
            "placed_at": "timestamptz",
            "note": "text",
            "paid": "boolean",
            "photo": "bytea",
            "rate": "numeric",
        },
    )
    assert str(found.after["total"]) == "19.90"


def test_the_registry_is_asked_once_per_schema() -> None:
    fresh = RecordReader(SCHEMAS)
    before = SCHEMAS.asked
    value, key = ENCODER.create(PREFIX, LSN_OF_ROW, ROW), ENCODER.key(ROW)
    changes = [fresh.read(TOPIC, 0, offset, key, value, HEADERS) for offset in range(5)]
    assert SCHEMAS.asked - before == 2
    first = changes[0]
    assert isinstance(first, Change)
    assert all(isinstance(c, Change) and c.columns is first.columns for c in changes)


def test_an_unsent_column_is_in_no_row() -> None:
    row = (*ROW[:5], UNCHANGED, b"t", UNCHANGED, None)
    names = ENCODER.unchanged(row)
    assert names is not None
    found = read(ENCODER.update(PREFIX, LSN_OF_ROW, row, ROW), [*HEADERS, (UNCHANGED_HEADER, names)])
    assert found.unchanged == {"note", "photo"}
    assert set(found.after) == {"id", "customer_id", "status", "total", "placed_at", "paid", "rate"}
    assert found.after["rate"] is None
    assert set(found.before) == set(CODEC.field_names)


def test_a_delete_of_which_the_key_was_sent_has_the_key_alone() -> None:
    assert ENCODER.key_only_unchanged is not None
    headers = [*HEADERS, (UNCHANGED_HEADER, ENCODER.key_only_unchanged), (NEW_KEY_HEADER, b'{"id":8}')]
    found = read(ENCODER.delete(PREFIX, LSN_OF_ROW, (b"7", *[None] * 8), key_only=True), headers)
    assert (found.op, found.before, found.after, found.key_change) == ("d", {"id": 7}, None, "old")
    assert found.unchanged == set(CODEC.field_names) - {"id"}


def test_the_other_half_of_a_key_change() -> None:
    headers = [*HEADERS, (OLD_KEY_HEADER, b'{"id":6}')]
    assert read(ENCODER.create(PREFIX, LSN_OF_ROW, ROW), headers).key_change == "new"


def test_a_snapshot_row_carries_its_snapshot() -> None:
    headers = [(STAMP_HEADER, b"0:9:0"), (TRANSACTION_HEADER, snapshot_header("abc"))]
    found = read(ENCODER.read(PREFIX, LSN_OF_ROW, ROW), headers)
    assert (found.op, found.snapshot, found.transaction_id, found.size) == ("r", "abc", None, None)


def test_a_truncate_has_no_key() -> None:
    found = READER.read(TOPIC, 0, 0, None, ENCODER.truncate(PREFIX, LSN_OF_ROW), HEADERS)
    assert isinstance(found, Change)
    assert (found.op, found.key, found.before, found.after) == ("t", None, None, None)


def test_a_tombstone_is_nothing() -> None:
    assert read(None) is None


def framed(schema: dict[str, Any], record: dict[str, Any]) -> bytes:
    return wire.frame(SCHEMAS.register("s", schema), records.encode(schema, record))


def test_the_end_of_a_transaction_and_not_its_begin() -> None:
    end = framed(records.TRANSACTION_VALUE, records.transaction_end("4711:9", {"public.orders": 3, "public.x": 1}, 5))
    found = READER.read("shop.transaction", 0, 3, None, end, [(STAMP_HEADER, b"1:9:4")])
    size = {"public.orders": 3, "public.x": 1}
    assert found == TransactionEnd(Stamp(1, LSN(9), 4), "4711:9", size, "shop.transaction", 0, 3)
    begin = framed(records.TRANSACTION_VALUE, records.transaction_begin("4711:9", 5))
    assert READER.read("shop.transaction", 0, 2, None, begin, None) is None


def test_a_heartbeat_is_nothing() -> None:
    assert READER.read("h", 0, 0, None, framed(records.HEARTBEAT_VALUE, {"ts_ms": 1}), None) is None


@pytest.mark.parametrize(
    ("step", "more"),
    [
        (records.STARTED, {}),
        (records.TABLE_SCAN_COMPLETED, {"table": "public.b", "rows_scanned": 0}),
        (records.COMPLETED, {"rows": {"public.a": 12, "public.b": 0}}),
    ],
)
def test_snapshot_notices_come_back(step: str, more: dict[str, Any]) -> None:
    facts: dict[str, Any] = {"connector": "shop", "snapshot_id": "abc", "generation": 2, "lsn": LSN(77)}
    tables = ("public.a", "public.b")
    record = records.snapshot_notice(step, notification_id="n", tables=tables, timestamp_ms=1, **facts, **more)
    found = READER.read("shop.notification", 0, 5, None, framed(records.NOTIFICATION_VALUE, record), None)
    place: dict[str, Any] = {"topic": "shop.notification", "partition": 0, "offset": 5}
    rest = {"table": None, "rows_scanned": None, "rows": None} | more
    assert found == SnapshotNotice(step=step, tables=tables, **facts, **rest, **place)


def test_another_notification_is_nothing() -> None:
    record = {"id": "1", "type": "X", "aggregate_type": "Other", "additional_data": None, "timestamp": 1}
    assert READER.read("n", 0, 0, None, framed(records.NOTIFICATION_VALUE, record), None) is None


def test_every_cut_record_is_named_by_its_place_alone() -> None:
    secret = "S3CRET-note"
    whole = ENCODER.create(PREFIX, LSN_OF_ROW, (*ROW[:5], secret.encode(), *ROW[6:]))
    for end in range(len(whole)):
        with pytest.raises(RecordError) as failure:
            read(whole[:end])
        assert f"{TOPIC} [1] offset 42" in str(failure.value)
        assert secret not in str(failure.value)
        assert failure.value.__cause__ is None


@pytest.mark.parametrize(
    ("value", "headers", "reason"),
    [
        (b'{"json": true}', HEADERS, "not an Avro record"),
        (wire.frame(9999, b"x"), HEADERS, "schema 9999 is not in the registry"),
        (ENCODER.truncate(PREFIX, 1), [(STAMP_HEADER, b"x")], "header ordertap.stamp"),
    ],
)
def test_a_bad_record_says_why(value: bytes, headers: list[tuple[str, bytes]], reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        read(value, headers)


def debezium(which: dict[str, Any]) -> Any:
    """One of Debezium's recorded records, through Avro and our reader."""
    parts = []
    for part in ("key", "value"):
        if which[part] is None:
            parts.append(None)
            continue
        schema = without_logical_types(which[f"{part}_schema"])
        out = io.BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema(schema), which[part])
        parts.append(wire.frame(SCHEMAS.register("d", which[f"{part}_schema"]), out.getvalue()))
    headers = [(name, value.encode()) for name, value in which["headers"]]
    return READER.read(which["topic"], which["partition"], which["offset"], *parts, headers)


def recorded(table: str, offset: int) -> Any:
    return debezium(
        next(r for r in debezium_records() if r["topic"] == f"gold_stream.{table}" and r["offset"] == offset)
    )


def test_debeziums_scalars() -> None:
    found = recorded("public.scalars", 0)
    after = found.after
    assert (found.table, found.op, found.transaction_id) == ("public.scalars", "c", "173003")
    assert after["f_num"] == Decimal("1234567890.12")
    assert str(after["f_num_u"]) == "12345678901234567890.123456789"
    assert after["f_money"] == Decimal("1234.56")
    assert (after["f_bytea"], after["f_int2"], after["f_enum"]) == (b"\x00\xff\x10", 32767, "happy")
    assert found.columns["f_num"] == "numeric(12,2)"
    assert [found.columns[c] for c in ("f_int2", "f_jsonb", "f_uuid", "f_real")] == [
        "smallint",
        "jsonb",
        "uuid",
        "real",
    ]


def test_debeziums_times() -> None:
    after = recorded("public.times", 0).after
    assert after["f_date"] == dt.date(2024, 2, 29)
    assert after["f_time3"] == dt.time(12, 34, 56, 789000)
    assert after["f_time6"] == dt.time(12, 34, 56, 789123)
    assert after["f_ts"] == after["f_ts6"] == dt.datetime(2024, 2, 29, 12, 34, 56, 789123)  # noqa: DTZ001
    assert after["f_ts3"] == dt.datetime(2024, 2, 29, 12, 34, 56, 789000)  # noqa: DTZ001
    assert after["f_tstz"] == dt.datetime(2024, 2, 29, 10, 34, 56, 789123, dt.UTC)
    assert after["f_interval"] == dt.timedelta(microseconds=37091106789000)


def test_debeziums_placeholders_are_columns_not_sent() -> None:
    found = recorded("public.toasted", 2)
    assert found.unchanged == {"big", "bigb", "bigj", "biga"}
    assert found.after == {"id": 1, "n": 2}


def test_debeziums_order_is_that_of_its_source() -> None:
    changes = [recorded("public.ri_default", offset) for offset in (0, 4, 6, 8)]
    assert [c.stamp for c in changes] == sorted(c.stamp for c in changes)
    assert changes[0].stamp == Stamp(0, LSN(423384048), 423384048)
    assert [c.key_change for c in changes] == [None, None, "old", "new"]


def test_debeziums_end_of_a_transaction() -> None:
    found = recorded("transaction", 1)
    assert (found.transaction_id, found.size) == ("173003", {"public.scalars": 5})
    assert recorded("transaction", 0) is None
