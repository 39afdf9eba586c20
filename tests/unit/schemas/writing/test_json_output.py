"""JSON text is what Connect's JsonConverter writes without schemas: each group of types, and each part of a record."""

import base64
import json
import struct
from typing import Any

import pytest

from schemas.model.change import UNAVAILABLE, UNCHANGED
from schemas.model.errors import DataError
from schemas.model.relation import Column, ColumnFacts, Relation, TableFacts
from schemas.reading.json_text import json_text
from schemas.types.type_table import Modes
from schemas.writing import records
from schemas.writing.codec import compile_codec
from schemas.writing.json_output import JsonEncoder, JsonRegistry, RowText
from schemas.writing.messages import MESSAGE_KEY, message_key, message_schema, message_value
from tests.unit.schemas.examples import LSN_OF_ROW, ORDERS, ORDERS_FACTS, PREFIX, ROW, TOPIC

NUMERIC_12_2 = (12 << 16 | 2) + 4


def encoder() -> JsonEncoder:
    return JsonEncoder(compile_codec(TOPIC, ORDERS, ORDERS_FACTS))


def parsed(text: bytes | None) -> Any:
    """JSON as strict as RFC 8259: NaN and Infinity are no numbers there."""

    def refused(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    assert text is not None
    return json.loads(text, parse_constant=refused)


def base64_of(number: int, size: int = 1) -> str:
    return base64.b64encode(number.to_bytes(size, "big", signed=True)).decode()


@pytest.mark.parametrize(
    ("oid", "modifier", "cell", "shown"),
    [
        (16, -1, b"t", "true"),
        (20, -1, b"9223372036854775807", "9223372036854775807"),
        (21, -1, b"-7", "-7"),
        (25, -1, 'Grüße 😀 "\\\n\x01'.encode(), '"Grüße 😀 \\"\\\\\\n\\u0001"'),
        (1700, NUMERIC_12_2, b"19.90", json.dumps(base64_of(1990, 2))),
        (1700, NUMERIC_12_2, b"-0.01", json.dumps(base64_of(-1))),
        (1700, -1, b"1.250", f'{{"scale":3,"value":{json.dumps(base64_of(1250, 2))}}}'),
        (1700, -1, b"NaN", '{"scale":0,"value":""}'),
        (790, -1, b"$12.34", json.dumps(base64_of(1234, 2))),
        (17, -1, b"\\x00ff", '"AP8="'),
        (1560, 11, b"00000000101", '"BQ=="'),
        (701, -1, b"0.1", "0.1"),
        (701, -1, b"NaN", '"NaN"'),
        (701, -1, b"-Infinity", '"-Infinity"'),
        (700, -1, b"0.1", "0.1"),
        (700, -1, b"16777216", "16777216.0"),
        (700, -1, b"3.4028235e+38", "3.4028235e+38"),
        (700, -1, b"Infinity", '"Infinity"'),
        (1184, -1, b"2024-02-29 10:34:56.789123+00", '"2024-02-29T10:34:56.789123Z"'),
        (1114, -1, b"1970-01-01 00:00:01.000002", "1000002"),
        (1082, -1, b"1970-01-03", "2"),
        (1186, -1, b"00:00:01", "1000000"),
        (3802, -1, b'{"a": [1]}', '"{\\"a\\": [1]}"'),
        (3904, -1, b"[1,5)", '"[1,5)"'),
        (1007, -1, b"{1,NULL,3}", "[1,null,3]"),
        (1022, -1, b"{0.5,NaN,NULL}", '[0.5,"NaN",null]'),
        (1021, -1, b"{0.1}", "[0.1]"),
        (1001, -1, b'{"\\\\x00ff",NULL}', '["AP8=",null]'),
        (1231, -1, b"{1.5}", f'[{{"scale":1,"value":{json.dumps(base64_of(15))}}}]'),
        (600, -1, b"(1.5,-0)", None),
        (25, -1, None, "null"),
    ],
)
def test_a_value(oid: int, modifier: int, cell: bytes | None, shown: str | None) -> None:
    relation = Relation(1, "public", "t", "f", (Column("v", oid, modifier),))
    text = JsonEncoder(compile_codec("shop.public.t", relation, TableFacts())).create(PREFIX, 1, (cell,))
    assert parsed(text)["op"] == "c"
    if shown is None:
        point = parsed(text)["after"]["v"]
        assert (point["x"], point["y"], point["srid"]) == (1.5, -0.0, None)
        assert struct.unpack("<dd", base64.b64decode(point["wkb"])[-16:]) == (1.5, -0.0)
    else:
        assert f'"after":{{"v":{shown}}},'.encode() in text


def test_a_float_of_32_bits_has_no_more_digits_than_tell_it_apart() -> None:
    schema = {"type": "record", "name": "R", "fields": [{"name": "v", "type": "float"}]}
    show = json_text(schema)
    for bits in range(0, 0x7F800000, 999_983):
        avro = bits.to_bytes(4, "little")
        number = parsed(show(avro))["v"]
        assert struct.pack("<f", number) == avro
        assert float(f"{number:.9g}") == number


def test_hstore_as_a_map_is_an_object() -> None:
    relation = Relation(1, "public", "t", "f", (Column("v", 90_000),))
    facts = TableFacts((), {"v": ColumnFacts(type_name="hstore")})
    codec = compile_codec("shop.public.t", relation, facts, modes=Modes(hstore_handling_mode="map"))
    text = JsonEncoder(codec).create(PREFIX, 1, (b'"a"=>"1", "b"=>NULL',))
    assert parsed(text)["after"] == {"v": {"a": "1", "b": None}}


def test_a_record_has_the_envelopes_fields_in_their_order() -> None:
    text = encoder().create(PREFIX, LSN_OF_ROW, ROW)
    record = parsed(text)
    assert [*record] == ["before", "after", "source", "transaction", "op", "ts_ms", "ts_us", "ts_ns"]
    assert record["before"] is None
    assert record["transaction"] is None
    assert (record["source"]["txId"], record["source"]["lsn"], record["source"]["snapshot"]) == (
        4711, LSN_OF_ROW, "false",
    )  # fmt: skip
    assert record["source"]["sequence"] == f'["423384000","{LSN_OF_ROW}"]'
    assert record["ts_ns"] == 10**18 + 7
    assert b": " not in text


def test_the_stream_and_the_snapshot_write_the_same_as_the_certain_way() -> None:
    cells = b"".join(b"n" if cell is None else struct.pack(">cI", b"t", len(cell)) + cell for cell in ROW)
    message = struct.pack(">cIcH", b"I", ORDERS.oid, b"N", len(ROW)) + cells
    made = encoder()
    assert made.record(message, PREFIX, LSN_OF_ROW, "c") == (b'{"id":7}', made.create(PREFIX, LSN_OF_ROW, ROW))
    produced: list[Any] = []
    avro = made.codec.bind(1, 2)
    produce = RowText(made.codec).before(lambda *record: produced.append(record))
    produce("t", avro.read(PREFIX, LSN_OF_ROW, ROW), avro.key(ROW), -1, [])
    assert produced == [("t", made.read(PREFIX, LSN_OF_ROW, ROW), b'{"id":7}', -1, [])]


def test_the_other_operations() -> None:
    made = encoder()
    new = parsed(made.create(PREFIX, 1, ROW))["after"]
    update = parsed(made.update(PREFIX, 1, ROW, ROW))
    assert (update["op"], update["before"], update["after"]) == ("u", new, new)
    delete = parsed(made.delete(PREFIX, 1, (b"7", *[None] * (len(ROW) - 1)), key_only=True))
    assert (delete["op"], delete["before"]["id"], delete["before"]["note"], delete["after"]) == ("d", 7, None, None)
    truncate = parsed(made.truncate(PREFIX, 1))
    assert (truncate["op"], truncate["before"], truncate["after"]) == ("t", None, None)
    assert made.key(ROW) == made.key_json(ROW) == b'{"id":7}'


def test_an_unsent_value_is_the_placeholder_in_base64_where_it_is_bytes() -> None:
    row = (*ROW[:5], UNCHANGED, ROW[6], UNCHANGED, ROW[8])
    after = parsed(encoder().update(PREFIX, 1, row))["after"]
    assert after["note"] == UNAVAILABLE
    assert base64.b64decode(after["photo"]) == UNAVAILABLE.encode()


def test_a_table_without_key_has_none() -> None:
    keyless = JsonEncoder(compile_codec("t", Relation(1, "public", "t", "f", (Column("v", 25),)), TableFacts()))
    assert not keyless.has_key
    assert keyless.key((b"a",)) is None


def test_a_text_that_is_not_utf8_is_refused_without_showing_it() -> None:
    relation = Relation(1, "public", "t", "f", (Column("v", 25),))
    with pytest.raises(DataError, match="UTF-8") as failure:
        JsonEncoder(compile_codec("shop.public.t", relation, TableFacts())).create(PREFIX, 1, (b"secret\xff",))
    assert "shop.public.t" in failure.value.message
    assert "secret" not in str(failure.value)


def test_our_own_records_and_messages() -> None:
    registry = JsonRegistry()
    value = registry.register("shop.transaction-value", records.TRANSACTION_VALUE)
    notice = registry.register("shop.notification-value", records.NOTIFICATION_VALUE)
    ids = [registry.register("m-key", MESSAGE_KEY), registry.register("m-value", message_schema())]
    assert len({value, notice, *ids}) == 4
    assert registry.register("another", dict(records.TRANSACTION_VALUE)) == value
    end = records.transaction_end("5:7", {"public.orders": 2}, 9)
    assert parsed(registry.frame(value, records.encode(records.TRANSACTION_VALUE, end))) == end
    data = {"id": "n", "type": "STARTED", "aggregate_type": "x", "additional_data": {"a": "b"}, "timestamp": 1}
    assert parsed(registry.frame(notice, records.encode(records.NOTIFICATION_VALUE, data))) == data
    assert registry.frame(ids[0], message_key("app")) == b'{"prefix":"app"}'
    message = parsed(registry.frame(ids[1], message_value(PREFIX, 500, 9 * 10**9, "app", b"\x00raw")))
    assert (message["op"], message["message"]) == ("m", {"prefix": "app", "content": "AHJhdw=="})


def test_an_id_of_nobody_is_refused() -> None:
    with pytest.raises(DataError, match="schema 3"):
        JsonRegistry().frame(3, b"")
