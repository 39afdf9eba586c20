"""The codec writes what fastavro reads as the row, and says which column is wrong without showing a value."""

import io
import json
from datetime import datetime
from decimal import Decimal
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.model.change import UNAVAILABLE, UNCHANGED, Cell
from schemas.model.errors import DataError
from schemas.model.relation import Column, ColumnFacts, Relation, TableFacts
from schemas.registry import wire
from schemas.types.encoders import FAILURES
from schemas.types.type_table import ARRAY_ELEMENTS, TYPE_TABLE
from schemas.writing.codec import Codec, WidenError, compile_codec, fill_unchanged, key_indexes
from tests.unit.schemas.examples import LSN_OF_ROW, ORDERS, ORDERS_FACTS, ORIGIN, PREFIX, ROW, TOPIC

CODEC = compile_codec(TOPIC, ORDERS, ORDERS_FACTS)
ENCODER = CODEC.bind(3, 4)
AFTER = {
    "id": 7, "customer_id": 12, "status": "paid", "total": Decimal("19.90"),
    "placed_at": "2024-02-29T10:34:56.789123Z", "note": None, "paid": True, "photo": b"\x00\xff",
    "rate": {"scale": 3, "value": (1250).to_bytes(2)},
}  # fmt: skip


def decoded(record: bytes, codec: Codec = CODEC) -> dict[str, Any]:
    """The record by fastavro, to its last byte."""
    schema_id, avro = wire.parse(record)
    assert schema_id == 4
    rest = io.BytesIO(avro)
    found = fastavro.schemaless_reader(rest, codec.value_schema, None)
    assert rest.read() == b""
    assert isinstance(found, dict)
    return found


def test_a_create_is_read_by_fastavro_as_the_row_and_its_source() -> None:
    assert decoded(ENCODER.create(PREFIX, LSN_OF_ROW, ROW)) == {
        "before": None,
        "after": AFTER,
        "source": {
            "version": "0.1.0", "connector": "postgresql", "name": "shop", "ts_ms": 1795387678803, "snapshot": "false",
            "db": "shopdb", "sequence": '["423384000","423384048"]', "ts_us": 1795387678803755,
            "ts_ns": 1795387678803755000, "schema": "public", "table": "orders", "txId": 4711, "lsn": 423384048,
            "xmin": None, "origin": None, "origin_lsn": None,
        },
        "transaction": None,
        "op": "c",
        "ts_ms": 10**12,
        "ts_us": 10**15,
        "ts_ns": 10**18 + 7,
    }  # fmt: skip


def test_the_other_operations() -> None:
    old = (b"7", *ROW[1:2], b"pending", *ROW[3:])
    update = decoded(ENCODER.update(PREFIX, LSN_OF_ROW, ROW))
    assert (update["op"], update["before"], update["after"]) == ("u", None, AFTER)
    full = decoded(ENCODER.update(PREFIX, LSN_OF_ROW, ROW, old))
    assert (full["before"], full["after"]) == (AFTER | {"status": "pending"}, AFTER)
    delete = decoded(ENCODER.delete(PREFIX, LSN_OF_ROW, old))
    assert (delete["op"], delete["before"], delete["after"]) == ("d", AFTER | {"status": "pending"}, None)
    truncate = decoded(ENCODER.truncate(PREFIX, LSN_OF_ROW))
    assert (truncate["op"], truncate["before"], truncate["after"]) == ("t", None, None)


def test_a_row_with_its_place_in_the_transaction() -> None:
    placed = PREFIX.from_origin("other", 99).placed(b"4711:500", 300, 7)
    for record in (ENCODER.create(placed, LSN_OF_ROW, ROW), ENCODER.truncate(placed, LSN_OF_ROW)):
        found = decoded(record)
        assert found["transaction"] == {"id": "4711:500", "total_order": 300, "data_collection_order": 7}
        assert (found["source"]["origin"], found["source"]["origin_lsn"], found["ts_ms"]) == ("other", 99, 10**12)


def test_a_snapshot_row_says_so() -> None:
    prefix = ORIGIN.snapshot(snapshot_us=1_000_000, now_ns=5, marker="last")
    record = decoded(ENCODER.read(prefix, LSN_OF_ROW, ROW))
    assert (record["op"], record["after"]) == ("r", AFTER)
    source = record["source"]
    assert (source["snapshot"], source["sequence"], source["txId"]) == ("last", '[null,"423384048"]', None)


def test_a_delete_with_the_key_alone_names_what_was_not_sent() -> None:
    record = decoded(ENCODER.delete(PREFIX, LSN_OF_ROW, (b"7", *[None] * 8), key_only=True))
    assert record["before"]["id"] == 7
    assert record["before"]["customer_id"] is None
    assert ENCODER.key_only_unchanged is not None
    assert set(json.loads(ENCODER.key_only_unchanged)) == set(AFTER) - {"id"}


def test_the_key() -> None:
    key = ENCODER.key(ROW)
    assert key is not None
    assert wire.parse(key)[0] == 3
    assert fastavro.schemaless_reader(io.BytesIO(key[5:]), CODEC.key_schema, None) == {"id": 7}
    assert ENCODER.key_json(ROW) == b'{"id":7}'


def test_a_decimal_in_a_key_is_base64_in_its_json_as_connect_does() -> None:
    relation = Relation(1, "public", "t", "d", (Column("v", 1700, (12 << 16 | 2) + 4, True),))
    assert compile_codec("t", relation, None).bind(3, 4).key_json((b"1.50",)) == b'{"v":"AJY="}'


def test_a_table_without_key_has_none() -> None:
    codec = compile_codec("t", Relation(1, "public", "t", "n", (Column("v", 25),)), None)
    assert codec.key_schema is None
    assert codec.bind(None, 4).key((b"x",)) is None


def test_an_unsent_value_is_a_placeholder_and_named() -> None:
    row: tuple[Cell, ...] = (*ROW[:2], UNCHANGED, UNCHANGED, UNCHANGED, UNCHANGED, b"f", UNCHANGED, UNCHANGED)
    after = decoded(ENCODER.update(PREFIX, LSN_OF_ROW, row))["after"]
    assert after["status"] == after["note"] == UNAVAILABLE
    assert after["photo"] == UNAVAILABLE.encode()
    assert after["rate"] is None
    assert after["total"] == 0
    names = ENCODER.unchanged(row)
    assert names is not None
    assert json.loads(names) == ["status", "total", "placed_at", "note", "photo", "rate"]
    assert ENCODER.unchanged(ROW) is None


def test_an_unsent_array_is_an_array_of_the_placeholder() -> None:
    codec = compile_codec("t", Relation(1, "public", "t", "d", (Column("v", 1009),)), None)
    record = decoded(codec.bind(None, 4).update(PREFIX, 1, (UNCHANGED,)), codec)
    assert record["after"] == {"v": [UNAVAILABLE]}


def test_the_old_row_fills_in_what_was_not_sent() -> None:
    assert fill_unchanged((b"1", UNCHANGED, None), (b"0", b"old", b"gone")) == (b"1", b"old", None)


@pytest.mark.parametrize("oid", [*TYPE_TABLE, *ARRAY_ELEMENTS, 99_999])
def test_no_type_takes_an_unsent_value_or_a_null_for_a_value(oid: int) -> None:
    """The generated code fails on both, which is what sends them to the careful way."""
    relation = Relation(1, "public", "t", "d", (Column("v", oid),))
    row = compile_codec("t", relation, TableFacts((), {"v": ColumnFacts(not_null=True)})).code.row
    for cell in (UNCHANGED, None):
        with pytest.raises(FAILURES):
            row((cell,))


def test_null_where_the_catalogue_allows_none_widens() -> None:
    row = (*ROW[:2], None, *ROW[3:])
    with pytest.raises(WidenError) as failure:
        ENCODER.create(PREFIX, LSN_OF_ROW, row)
    assert failure.value.column == "status"
    wider = compile_codec(TOPIC, ORDERS, ORDERS_FACTS, nullable=frozenset({"status"}))
    assert decoded(wider.bind(3, 4).create(PREFIX, LSN_OF_ROW, row), wider)["after"] == AFTER | {"status": None}


def test_a_null_in_a_nullable_column_with_a_default_stays_null() -> None:
    facts = TableFacts((), {"v": ColumnFacts(default="'x'::text")})
    codec = compile_codec("t", Relation(1, "public", "t", "d", (Column("v", 25),)), facts)
    encoder = codec.bind(None, 4)
    assert decoded(encoder.create(PREFIX, 1, (None,)), codec)["after"] == {"v": None}
    assert decoded(encoder.create(PREFIX, 1, (b"y",)), codec)["after"] == {"v": "y"}


@pytest.mark.parametrize(
    ("index", "text"), [(0, b"S3CRET"), (3, b"S3CRET"), (3, b"1.5"), (4, b"S3CRET"), (6, b"S3CRET"), (7, b"S3CRET")]
)
def test_a_bad_text_is_named_by_column_and_not_shown(index: int, text: bytes) -> None:
    row = (*ROW[:index], text, *ROW[index + 1 :])
    with pytest.raises(DataError, match=f'table public.orders: column "{ORDERS.columns[index].name}"') as failure:
        ENCODER.create(PREFIX, LSN_OF_ROW, row)
    assert text.decode() not in str(failure.value)
    assert failure.value.__cause__ is None


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(DataError, match="a row of 2 values in a relation of 9 columns"):
        ENCODER.create(PREFIX, LSN_OF_ROW, ROW[:2])


def test_an_unknown_type_is_text_and_reported() -> None:
    facts = TableFacts((), {"v": ColumnFacts(type_name="geometry")})
    relation = Relation(1, "public", "t", "d", (Column("v", 99_999), Column("w", 99_998)))
    codec = compile_codec("t", relation, facts)
    assert codec.unknown_types == (("v", "geometry"), ("w", "OID 99998"))
    assert decoded(codec.bind(None, 4).create(PREFIX, 1, (b"POINT", None)), codec)["after"] == {"v": "POINT", "w": None}


@pytest.mark.parametrize(
    ("identity", "flagged", "primary", "expected"),
    [
        ("d", "ab", ("b", "a"), (1, 0)),
        ("d", "a", (), (0,)),
        ("d", "a", ("b",), (0,)),
        ("i", "b", ("a",), (1,)),
        ("f", "abc", ("c",), (2,)),
        ("f", "abc", (), ()),
        ("f", "abc", ("gone",), ()),
        ("f", "abc", None, ()),
        ("n", "", ("a",), (0,)),
    ],
)
def test_the_key_is_what_deletes_carry(
    identity: str, flagged: str, primary: tuple[str, ...] | None, expected: tuple[int, ...]
) -> None:
    relation = Relation(1, "public", "t", identity, tuple(Column(c, 23, -1, c in flagged) for c in "abc"))
    assert key_indexes(relation, TableFacts(primary)) == expected


def test_the_generated_code_has_no_branch_for_a_column_that_is_never_null() -> None:
    lines = CODEC.code.source.splitlines()
    assert "        LENGTHS[len(c2)] + c2," in lines
    assert "        b'\\x00' if c5 is None else b'\\x02' + LENGTHS[len(c5)] + c5," in lines


cell_text = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])).map(str.encode)


@settings(max_examples=200, deadline=None)
@given(
    st.tuples(
        st.integers(-(2**63), 2**63 - 1).map(lambda n: b"%d" % n),
        st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1).map(lambda n: b"%d" % n)),
        cell_text,
        st.integers(-(10**12), 10**12).map(lambda n: str(Decimal(n).scaleb(-2)).encode()),
        st.one_of(st.none(), st.datetimes().map(lambda d: d.isoformat(" ").encode() + b"+00")),
        st.one_of(st.none(), cell_text),
        st.sampled_from([b"t", b"f", None]),
        st.one_of(st.none(), st.binary().map(lambda b: b"\\x" + b.hex().encode())),
        st.one_of(st.none(), st.decimals(allow_nan=False, allow_infinity=False).map(lambda d: f"{d:f}".encode())),
    )
)
def test_any_row_is_read_by_fastavro_as_it_was(row: tuple[Any, ...]) -> None:
    record = ENCODER.create(PREFIX, LSN_OF_ROW, row)
    after = decoded(record)["after"]
    assert after["id"] == int(row[0])
    assert after["customer_id"] == (None if row[1] is None else int(row[1]))
    assert after["status"] == row[2].decode()
    assert after["total"] == Decimal(row[3].decode())
    placed_at = None if row[4] is None else datetime.fromisoformat(row[4].decode())
    shown = placed_at and placed_at.isoformat(timespec="microseconds").replace("+00:00", "Z")
    assert after["placed_at"] == shown
    assert after["note"] == (None if row[5] is None else row[5].decode())
    assert after["paid"] == (None if row[6] is None else row[6] == b"t")
    assert after["photo"] == (None if row[7] is None else bytes.fromhex(row[7][2:].decode()))
    rate = after["rate"]
    assert (rate is None) == (row[8] is None)
    if rate is not None:
        number = int.from_bytes(rate["value"], "big", signed=True)
        assert Decimal((int(number < 0), tuple(map(int, str(abs(number)))), -rate["scale"])) == Decimal(row[8].decode())
    assert CODEC.layout.careful(row) == CODEC.code.row(row)
