"""The decoder's line of COPY has the same values as the slow reader; bytes that are no record are an error without
values."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.model.change import UNAVAILABLE, UNCHANGED
from schemas.model.errors import DataError
from schemas.model.relation import Column, ColumnFacts, Relation, TableFacts
from schemas.reading.json_text import json_text, without_logical_types
from schemas.types.arrays import array_elements
from schemas.types.kind import VARIABLE_SCALE, Schema, decimal_type, named
from schemas.writing.codec import compile_codec
from sink.intake.copy_text import Remembered
from sink.intake.decoder import NEITHER, compile_decoder, compile_key_decoder, staged_type
from tests.postgres_text import text
from tests.record_reader import row_reader
from tests.unit.schemas.examples import LSN_OF_ROW, ORDERS, ORDERS_FACTS, PREFIX, ROW, TOPIC, debezium_records
from tests.unit.sink.intake.avro_rows import AVRO_TYPES, change, encoded, envelope, fields, key, rows, values

TAIL = b"2\t423384100\t\\N\x02"
CODEC = compile_codec(TOPIC, ORDERS, ORDERS_FACTS)
ENCODER = CODEC.bind(1, 2)
DECODER = compile_decoder(CODEC.value_schema)
VALUE = ENCODER.create(PREFIX, LSN_OF_ROW, ROW)

_ESCAPES = {b"t": b"\t", b"n": b"\n", b"r": b"\r", b"002": b"\x02"}


def unescaped(cell: bytes) -> bytes:
    """A field of COPY as PostgreSQL takes it."""
    assert not set(cell) & set(b"\t\n\r")
    return re.sub(rb"\\(002|.)", lambda found: _ESCAPES.get(found[1], found[1]), cell, flags=re.DOTALL)


def cells(line: bytes) -> list[bytes | None]:
    """The fields of a line or a key; None for NULL."""
    return [None if cell == b"\x02" else unescaped(cell) for cell in line.split(b"\t")]


def row_of(line: Any, columns: int) -> list[bytes | None]:
    """The fields of a whole line without its tail."""
    assert isinstance(line, bytes)
    end = b"\t" + TAIL + b"\n"
    assert line.endswith(end)
    found = cells(line[: -len(end)])
    assert len(found) == columns
    return found


def plain(staged: str, value: Any) -> Any:
    """One form for texts that are one value to PostgreSQL."""
    if value is None or staged.endswith("[]"):
        return value if value is None else [plain(staged[:-2], item) for item in value]
    if staged == "boolean":
        return {"t": "true", "f": "false"}.get(value, value)
    if staged.startswith("timestamp") and re.match(r"\d{4}-\d\d-\d\d[T ][^ ]+$", value):
        return datetime.fromisoformat(value).replace(tzinfo=None) if staged == "timestamp" else _moment(value)
    return value


def _moment(value: str) -> Any:
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError):
        return value


def shown(staged: str, cell: bytes | None) -> Any:
    """A field of COPY, in the form of `plain`."""
    if cell is None or not staged.endswith("[]"):
        return plain(staged, None if cell is None else cell.decode())
    return plain(staged, [None if item is None else item.decode() for item in array_elements(cell)])


def expected(schema: Schema, value: bytes, unchanged: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The values of the same row by the slow reader."""
    reader = row_reader(schema)
    record = reader.record(value[5:])
    row = reader.row(record.get("after", record), unchanged)
    assert row is not None
    return {name: plain(staged_type(kind), text(row.get(name))) for name, kind in reader.columns.items()}


def decoded(columns: dict[str, str], found: list[bytes | None]) -> dict[str, Any]:
    return {name: shown(kind, cell) for (name, kind), cell in zip(columns.items(), found, strict=True)}


@pytest.mark.parametrize("avro", AVRO_TYPES.values(), ids=AVRO_TYPES)
@settings(max_examples=12)
@given(data=st.data())
def test_every_type_is_what_the_reader_says(avro: Any, data: st.DataObject) -> None:
    columns = fields([avro, avro, "string"], [False, True, False])
    schema = envelope(columns)
    decoder = compile_decoder(schema)
    row = {"v0": data.draw(values(avro)), "v1": data.draw(st.none() | values(avro)), "v2": "end"}
    value = change(schema, row, row)
    assert decoded(decoder.columns, row_of(decoder.line(value, 5, TAIL), 3)) == expected(schema, value)
    assert decoder.columns == {name: staged_type(kind) for name, kind in row_reader(schema).columns.items()}


@settings(max_examples=150)
@given(made=rows(), with_before=st.booleans(), data=st.data())
def test_any_row_is_what_the_reader_says(made: Any, with_before: bool, data: st.DataObject) -> None:
    schema, (after, before) = made
    decoder = compile_decoder(schema)
    value = change(schema, after, before if with_before else None)
    assert decoded(decoder.columns, row_of(decoder.line(value, 5, TAIL), len(after))) == expected(schema, value)
    unchanged = frozenset(data.draw(st.sets(st.sampled_from(list(after)))))
    line = decoder.line_without(unchanged)
    assert line is decoder.line_without(unchanged)
    found = decoded(decoder.columns, row_of(line(value, 5, TAIL), len(after)))
    assert found == expected(schema, value, unchanged)
    assert decoder.line(change(schema, None, before), 5, TAIL) is None
    assert decoder.line(change(schema, None, None), 5, TAIL) is NEITHER


LENGTHS_OF_LONGS = sorted(
    {sign * 2 ** (7 * size - 1) + by for size in range(1, 10) for sign in (1, -1) for by in (-1, 0, 1)}
)


@pytest.mark.parametrize("avro", ["long", named("long", "io.debezium.time.MicroTimestamp")], ids=["long", "timestamp"])
def test_longs_of_every_length(avro: Any) -> None:
    schema = envelope(fields([avro], [True]))
    decoder = compile_decoder(schema)
    for number in (0, 2**63 - 1, -(2**63), 1_795_387_678_803_755, -62_135_596_800_000_000, *LENGTHS_OF_LONGS):
        value = change(schema, {"v0": number})
        assert decoded(decoder.columns, row_of(decoder.line(value, 5, TAIL), 1)) == expected(schema, value)


def test_a_line_of_an_order() -> None:
    assert DECODER.line(VALUE, 5, b"2\t423384100\t3") == (
        b"7\t12\tpaid\t19.90\t2024-02-29T10:34:56.789123Z\t\x02\tt\t\\\\x00ff\t1.250\t2\t423384100\t3\n"
    )
    assert DECODER.columns == {
        "id": "bigint",
        "customer_id": "integer",
        "status": "text",
        "total": "numeric",
        "placed_at": "timestamptz",
        "note": "text",
        "paid": "boolean",
        "photo": "bytea",
        "rate": "numeric",
    }


def test_the_operations_of_capture() -> None:
    assert DECODER.line(ENCODER.delete(PREFIX, LSN_OF_ROW, ROW), 5, TAIL) is None
    assert DECODER.line(ENCODER.delete(PREFIX, LSN_OF_ROW, (b"7", *[None] * 8), key_only=True), 5, TAIL) is None
    assert DECODER.line(ENCODER.truncate(PREFIX, LSN_OF_ROW), 5, TAIL) is NEITHER
    assert DECODER.line(ENCODER.update(PREFIX, LSN_OF_ROW, ROW, ROW), 5, TAIL) == DECODER.line(VALUE, 5, TAIL)


def test_what_was_not_sent_is_null_whatever_stands_there() -> None:
    value = ENCODER.update(PREFIX, LSN_OF_ROW, (*ROW[:3], UNCHANGED, UNCHANGED, UNCHANGED, b"t", UNCHANGED, None))
    unchanged = frozenset({"total", "placed_at", "note", "photo", "no column"})
    found = row_of(DECODER.line_without(unchanged)(value, 5, TAIL), 9)
    assert found == [b"7", b"12", b"paid", None, None, None, b"t", None, None]
    decoder = compile_decoder(
        envelope(fields([named("string", "io.debezium.time.ZonedTimestamp"), "long"], [False] * 2))
    )
    value = change(envelope(fields(["string", "long"], [False] * 2)), {"v0": UNAVAILABLE, "v1": 3})
    with pytest.raises(DataError, match="not what its schema says"):
        decoder.line(value, 5, TAIL)
    assert row_of(decoder.line_without(frozenset({"v0"}))(value, 5, TAIL), 2) == [None, b"3"]


def test_an_array_that_was_not_sent_is_not_read_as_one_of_numbers() -> None:
    number = {"type": "string", "connect.parameters": {"ordertap.type": "numeric(12,2)"}}
    schema = envelope(fields([{"type": "array", "items": ["null", number]}, number, "long"], [False] * 3))
    value, decoder = change(schema, {"v0": [UNAVAILABLE], "v1": UNAVAILABLE, "v2": 7}), compile_decoder(schema)
    with pytest.raises(DataError):
        decoder.line(value, 5, TAIL)
    line = decoder.line_without(frozenset({"v0", "v1"}))
    assert row_of(line(value, 5, TAIL), 3) == [None, None, b"7"]


SPECIAL = (
    "\\",
    "\t",
    "\n",
    "\r",
    "\x02",
    "\\.",
    "\\N",
    "\\x41",
    "\\t",
    "a\\",
    "\x02\x02",
    "\\\x02",
    "\\002",
    "\x01",
    "",
)


@pytest.mark.parametrize("value", SPECIAL)
@pytest.mark.parametrize("null", [None, "\x02"])
def test_every_text_comes_back(value: str, null: str | None) -> None:
    schema = envelope(fields(["string", "string", "bytes", "string"], [True] * 4))
    decoder = compile_decoder(schema)
    row = {"v0": value, "v1": null, "v2": value.encode(), "v3": value}
    found = row_of(decoder.line(change(schema, row), 5, TAIL), 4)
    content = value.encode()
    assert found == [content, null and null.encode(), b"\\x" + content.hex().encode(), content]


def test_a_line_of_one_column_is_never_the_end_of_the_data() -> None:
    schema = envelope(fields(["string"], [False]))
    line = compile_decoder(schema).line(change(schema, {"v0": "\\."}), 5, b"1")
    assert line == b"\\\\.\t1\n"


def test_the_character_nul_is_refused_by_column() -> None:
    schema = envelope(fields(["string", "string"], [True, True]))
    value = change(schema, {"v0": "S3CRET", "v1": "S3C\0RET"})
    with pytest.raises(DataError, match=r"topic shop\.public\.t, column v1: .* NUL") as failure:
        compile_decoder(schema).line(value, 5, TAIL)
    assert "S3C" not in str(failure.value)


JSON = named("string", "io.debezium.data.Json")


@pytest.mark.parametrize(
    "avro", [JSON, {"type": "array", "items": ["null", JSON]}], ids=["json", "array of json"]
)  # fmt: skip
@pytest.mark.parametrize("content", ['"S3CRET\\u0000"', '["S3CRET", "\\ud800"]', "1e200000", "1E-20000", "1" * 140_000])
def test_json_that_jsonb_cannot_hold_is_refused_by_column(avro: Any, content: str) -> None:
    schema = envelope(fields(["long", avro], [False, True]))
    with pytest.raises(DataError, match=r"topic shop\.public\.t, column v1: jsonb cannot hold") as failure:
        compile_decoder(schema).line(change(schema, {"v0": 1, "v1": [content] if avro != JSON else content}), 5, TAIL)
    assert "S3CRET" not in str(failure.value)


@pytest.mark.parametrize("content", ['"\\\\u0000"', '"\\ud83d\\ude00 e12345"', "1e999", "[1,\t2]"])
def test_json_that_only_looks_so_is_taken(content: str) -> None:
    schema = envelope(fields([JSON], [True]))
    assert row_of(compile_decoder(schema).line(change(schema, {"v0": content}), 5, TAIL), 1) == [content.encode()]


def test_every_record_of_debezium() -> None:
    seen = 0
    for which in debezium_records():
        for part in ("key", "value"):
            schema = which[f"{part}_schema"]
            if which[part] is None or schema.get("name") not in ("Envelope", "Key"):
                continue
            value = encoded(schema, which[part])
            if part == "key":
                key_decoder = compile_key_decoder(schema)
                assert decoded(key_decoder.columns, cells(key_decoder.line(value, 5))) == expected(schema, value)
                continue
            decoder = compile_decoder(schema)
            unsent = frozenset(name for name, sent in (which[part]["after"] or {}).items() if sent == UNAVAILABLE)
            line = decoder.line_without(unsent)(value, 5, TAIL)
            if which[part]["after"] is None:
                assert line is (NEITHER if which[part]["before"] is None else None)
                continue
            seen += 1
            assert decoded(decoder.columns, row_of(line, len(decoder.columns))) == expected(schema, value, unsent)
    assert seen > 5


def fits(schema: Schema, value: bytes) -> bool:
    """Whether fastavro reads the value to its last byte."""
    rest = io.BytesIO(value[5:])
    fastavro.schemaless_reader(rest, fastavro.parse_schema(without_logical_types(schema)), None)
    return rest.read() == b""


def line_or_error(line: Any, value: bytes, columns: int) -> Any:
    """A line with this many columns, or the error, which shows nothing of the record."""
    try:
        found = line(value, 5, TAIL)
    except DataError as error:
        return error
    assert found is None or found is NEITHER or row_of(found, columns)
    return found


@settings(max_examples=30)
@given(made=rows(), with_before=st.booleans())
def test_a_record_cut_anywhere_gives_an_error_or_its_row(made: Any, with_before: bool) -> None:
    schema, (after, before) = made
    decoder = compile_decoder(schema)
    value = change(schema, after, before if with_before else None)
    assert fits(schema, value)
    whole, connector = decoder.line(value, 5, TAIL), value.index(b"\x14postgresql")
    for end in range(5, len(value)):
        found = line_or_error(decoder.line, value[:end], len(after))
        assert found == whole if end >= connector + 11 else isinstance(found, DataError)


def test_every_flipped_bit_of_an_order_gives_an_error_or_a_line() -> None:
    for value in (VALUE, ENCODER.update(PREFIX, LSN_OF_ROW, ROW, ROW)):
        for bit in range(40, len(value) * 8):
            flipped = bytearray(value)
            flipped[bit // 8] ^= 1 << bit % 8
            found = line_or_error(DECODER.line, bytes(flipped), 9)
            assert "paid" not in str(found) or not isinstance(found, DataError)


@settings(max_examples=200)
@given(made=rows(), data=st.data())
def test_damaged_records_give_an_error_or_a_line(made: Any, data: st.DataObject) -> None:
    schema, (after, before) = made
    decoder = compile_decoder(schema)
    damaged = bytearray(change(schema, after, before))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(5, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    for line in (decoder.line, decoder.line_without(frozenset({"v0"}))):
        line_or_error(line, bytes(damaged), len(after))


@given(rest=st.binary(max_size=80))
def test_any_bytes_give_an_error_or_a_line(rest: bytes) -> None:
    line_or_error(DECODER.line, VALUE[:7] + rest, 9)


def test_an_error_says_nothing_of_its_cause() -> None:
    with pytest.raises(
        DataError, match=r"shop\.public\.orders: not what its schema says \(IndexError, 30 bytes\)"
    ) as error:
        DECODER.line(VALUE[:30], 5, TAIL)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


def test_a_length_without_end_is_refused_at_once() -> None:
    with pytest.raises(DataError, match="not what its schema says"):
        DECODER.line(VALUE[:7] + b"\xff" * 3_000_000, 5, TAIL)
    array = compile_decoder(envelope(fields([{"type": "array", "items": ["null", "int"]}], [False])))
    with pytest.raises(DataError, match="not what its schema says"):
        array.line(VALUE[:7] + b"\xfe\xff\xff\xff\xff\xff\xff\x0f" + b"\0" * 100, 5, TAIL)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("avro", [VARIABLE_SCALE, decimal_type(12, 2)], ids=["any scale", "scale 2"])
def test_a_number_longer_than_any_numeric_is_refused_at_once(avro: Any) -> None:
    schema, digits = envelope(fields([avro], [False])), b"\x81" * 1_000_000
    value = change(schema, {"v0": digits if avro != VARIABLE_SCALE else {"scale": 2, "value": digits}})
    with pytest.raises(DataError, match="not what its schema says"):
        compile_decoder(schema).line(value, 5, TAIL)


def test_a_shifted_record_is_noticed() -> None:
    """One byte less in a text, whose length says so: all after it moves, and the row still reads."""
    schema = envelope(fields(["string"], [False]))
    value = change(schema, {"v0": "abc"})
    at = value.index(b"abc")
    with pytest.raises(DataError):
        compile_decoder(schema).line(value[: at - 1] + b"\x04" + value[at:], 5, TAIL)


KEY_TYPES: dict[str, tuple[Any, bool]] = {
    "long": ("long", True),
    "text": ("string", True),
    "decimal": (decimal_type(12, 2), True),
    "variable": (VARIABLE_SCALE, False),
    "double": ("double", False),
    "zoned": (named("string", "io.debezium.time.ZonedTimestamp"), False),
    "json": (JSON, False),
    "array": ({"type": "array", "items": ["null", "int"]}, False),
    "uuid": (named("string", "io.debezium.data.Uuid"), True),
}


@pytest.mark.parametrize("which", KEY_TYPES)
@settings(max_examples=20)
@given(data=st.data())
def test_keys(which: str, data: st.DataObject) -> None:
    avro, canonical = KEY_TYPES[which]
    schema = key(fields(["string", avro], [False, False]))
    decoder = compile_key_decoder(schema)
    assert decoder.canonical == canonical
    record = {"v0": data.draw(values("string")), "v1": data.draw(values(avro))}
    content = encoded(schema, record)
    assert decoded(decoder.columns, cells(decoder.line(content, 5))) == expected(schema, content)
    assert decoder.texts_of_json(json_text(schema)(content[5:])) == decoder.texts(content, 5)
    for damaged in (content + b"\0", content[:-1], content[:5]):
        with pytest.raises(DataError):
            decoder.line(damaged, 5)


def test_a_key_of_capture() -> None:
    assert CODEC.key_schema is not None
    decoder = compile_key_decoder(CODEC.key_schema)
    content = ENCODER.key(ROW)
    assert content is not None
    assert (decoder.line(content, 5), decoder.columns, decoder.canonical) == (b"7", {"id": "bigint"}, True)
    assert decoder.texts(content, 5) == decoder.texts_of_json(ENCODER.key_json(ROW)) == {"id": "7"}


@pytest.mark.parametrize("header", [b"", b"\xff", b"7", b"[]", b"{}", b'{"id":"x"}', b'{"id":null}', b"[" * 100_000])
def test_json_that_is_no_key_is_refused_without_its_values(header: bytes) -> None:
    with pytest.raises(DataError, match="does not fit"):
        compile_key_decoder(CODEC.key_schema or {}).texts_of_json(header)


@pytest.mark.parametrize(
    ("name", "staged"),
    [
        ("numeric(12,2)", "numeric"),
        ("numeric(12,2)[]", "numeric[]"),
        ("timestamp(3)", "timestamp"),
        ("time(3)[]", "time[]"),
        ("timestamptz", "timestamptz"),
        ("timestamp(3) with time zone", "timestamp with time zone"),
        ("bit(11)", "varbit"),
        ("bit varying(11)", "bit varying"),
        ("char(3)[]", "bpchar[]"),
        ("character varying(20)", "character varying"),
        ("double precision", "double precision"),
    ],
)
def test_types_are_staged_wide(name: str, staged: str) -> None:
    assert staged_type(name) == staged


@pytest.mark.parametrize("schema", [CODEC.key_schema, {"name": "Envelope", "fields": []}, {"name": "x"}])
def test_another_schema_is_refused(schema: Any) -> None:
    with pytest.raises(DataError, match="not that of a table's records"):
        compile_decoder(schema)


@pytest.mark.parametrize("avro", ["gone.Name", {"type": "decimal"}, ["null"], {"no": "type"}, 7])
def test_a_schema_with_an_unknown_type_is_refused(avro: Any) -> None:
    schema = envelope(fields(["string"], [False]))
    schema["fields"][0]["type"][1]["fields"][0]["type"] = avro
    with pytest.raises(DataError):
        compile_decoder(schema)
    with pytest.raises(DataError):
        compile_key_decoder({"name": "Key", "fields": [{"name": "v", "type": avro}]})


def test_what_is_remembered_is_bounded() -> None:
    table = Remembered(lambda number: b"%d" % number)
    for number in range(40_000):
        assert table[number] == b"%d" % number
    assert len(table) <= 16_384


def test_a_wide_table_is_read() -> None:
    relation = Relation(1, "public", "t", "d", tuple(Column(f"c{n}", 25) for n in range(1600)))
    codec = compile_codec("t", relation, TableFacts((), {"c0": ColumnFacts(not_null=True)}))
    value = codec.bind(None, 1).create(PREFIX, 1, tuple(b"%d" % n for n in range(1600)))
    assert row_of(compile_decoder(codec.value_schema).line(value, 5, TAIL), 1600)[1599] == b"1599"
