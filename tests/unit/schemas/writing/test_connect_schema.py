"""JSON text with its schema is read back, by that schema alone, as what the Avro record of the same row says."""

import base64
import json
from decimal import Decimal
from typing import Any

import pytest

from schemas.model.relation import Column, ColumnFacts, Relation, TableFacts
from schemas.reading.json_text import json_text
from schemas.types.kind import Schema
from schemas.types.type_modes import Modes
from schemas.writing import records
from schemas.writing.codec import compile_codec
from schemas.writing.column_rules import ColumnRules
from schemas.writing.connect_schema import connect_schema, json_with_schema
from schemas.writing.json_output import JsonEncoder, JsonRegistry, RowText
from tests.consumers.json_converter import read
from tests.unit.schemas.examples import LSN_OF_ROW, ORDERS, ORDERS_FACTS, PREFIX, ROW, TOPIC, debezium_records

ENCODER = JsonEncoder(compile_codec(TOPIC, ORDERS, ORDERS_FACTS), json_with_schema)


def test_a_record_is_read_back_by_its_schema() -> None:
    found = read(ENCODER.create(PREFIX, LSN_OF_ROW, ROW))
    assert found["after"] == {
        "id": 7, "customer_id": 12, "status": "paid", "total": Decimal("19.90"),
        "placed_at": "2024-02-29T10:34:56.789123Z", "note": None, "paid": True, "photo": b"\x00\xff",
        "rate": {"scale": 3, "value": (1250).to_bytes(2)},
    }  # fmt: skip
    assert (found["before"], found["op"], found["source"]["snapshot"]) == (None, "c", "false")
    assert read(ENCODER.key(ROW) or b"") == {"id": 7}
    assert ENCODER.key_json(ROW) == b'{"id":7}', "a header is as it was"


def test_the_schema_is_written_as_connect_does() -> None:
    """Source: the examples of the PostgreSQL connector's manual, "Change event values"."""
    content = json.loads(ENCODER.create(PREFIX, LSN_OF_ROW, ROW))
    assert [*content] == ["schema", "payload"]
    schema = content["schema"]
    assert (schema["type"], schema["optional"], schema["name"], schema["version"]) == (
        "struct", False, f"{TOPIC}.Envelope", 2,
    )  # fmt: skip
    before, after, source, transaction, *rest = schema["fields"]
    assert before | {"field": "after"} == after
    assert (before["type"], before["optional"], before["name"], before["field"]) == (
        "struct", True, f"{TOPIC}.Value", "before",
    )  # fmt: skip
    fields = {field["field"]: field for field in before["fields"]}
    assert fields["id"] == {"type": "int64", "optional": False, "field": "id"}
    assert fields["status"] == {"type": "string", "optional": False, "default": "pending", "field": "status"}
    assert fields["note"] == {"type": "string", "optional": True, "field": "note"}
    assert fields["total"] == {
        "type": "bytes", "optional": False, "name": "org.apache.kafka.connect.data.Decimal", "version": 1,
        "parameters": {"scale": "2", "connect.decimal.precision": "12"}, "field": "total",
    }  # fmt: skip
    assert {field["field"]: field for field in source["fields"]}["snapshot"] == {
        "type": "string", "optional": True, "name": "io.debezium.data.Enum", "version": 1,
        "parameters": {"allowed": "true,first,first_in_data_collection,last_in_data_collection,last,false,incremental"},
        "default": "false", "field": "snapshot",
    }  # fmt: skip
    assert (transaction["name"], transaction["optional"]) == ("event.block", True)
    assert [(one["type"], one["optional"], one["field"]) for one in rest] == [
        ("string", False, "op"), *(("int64", True, name) for name in ("ts_ms", "ts_us", "ts_ns")),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("oid", "facts", "cell", "value"),
    [
        (21, ColumnFacts(default="7"), b"-7", -7),
        (700, ColumnFacts(), b"0.5", 0.5),
        (17, ColumnFacts(default="'\\x00ff'::bytea"), b"\\x00ff", b"\x00\xff"),
        (1007, ColumnFacts(), b"{1,NULL}", [1, None]),
        (1231, ColumnFacts(), b"{1.5}", [{"scale": 1, "value": b"\x0f"}]),
        (1700, ColumnFacts(not_null=True, default="1.5"), b"2.5", {"scale": 1, "value": b"\x19"}),
        (600, ColumnFacts(), b"(1,2)", None),
        (90_000, ColumnFacts(type_name="hstore"), b'"a"=>NULL', {"a": None}),
        (16395, ColumnFacts(type_name="mood", type_kind="e", labels=("sad", "ok")), b"ok", "ok"),
    ],
)
def test_a_type_and_its_default(oid: int, facts: ColumnFacts, cell: bytes, value: Any) -> None:
    relation = Relation(1, "public", "t", "f", (Column("v", oid), Column("w", oid)))
    modes, rules = Modes(hstore_handling_mode="map"), ColumnRules(typed=frozenset("v"), commented=True)
    codec = compile_codec("t", relation, TableFacts((), {"v": facts, "w": facts}), modes=modes, rules=rules)
    with_schema, plain = JsonEncoder(codec, json_with_schema), JsonEncoder(codec)
    made = with_schema.create(PREFIX, 1, (cell, cell))
    after = read(made)["after"]
    assert after["v"] == after["w"]
    assert value is None or after["v"] == value
    assert json.loads(made)["payload"] == json.loads(plain.create(PREFIX, 1, (cell, cell)))
    field = json.loads(made)["schema"]["fields"][1]["fields"][0]
    assert field["parameters"]["__debezium.source.column.scale"]


def test_a_default_in_bytes_is_base64() -> None:
    facts = TableFacts((), {"v": ColumnFacts(default="1.5")})
    relation = Relation(1, "public", "t", "f", (Column("v", 1700, (12 << 16 | 2) + 4),))
    (field,) = connect_schema(compile_codec("t", relation, facts).value_schema)["fields"][0]["fields"]
    assert base64.b64decode(field["default"]) == (150).to_bytes(2)


@pytest.mark.parametrize("record", debezium_records(), ids=lambda record: f"{record['topic']}-{record['offset']}")
def test_every_schema_of_debezium_has_its_form(record: dict[str, Any]) -> None:
    for schema in (record["key_schema"], record["value_schema"]):
        assert schema is None or _types(connect_schema(schema)) <= {
            "boolean", "int16", "int32", "int64", "float", "double", "bytes", "string", "array", "struct",
        }  # fmt: skip


def _types(schema: dict[str, Any]) -> set[str]:
    parts = [*schema.get("fields", ()), *(schema[name] for name in ("items", "keys", "values") if name in schema)]
    return {schema["type"]}.union(*map(_types, parts))


@pytest.mark.parametrize(
    ("schema", "content"),
    [
        (records.TRANSACTION_VALUE, records.transaction_end("5:7", {"public.orders": 2}, 9)),
        (records.TRANSACTION_VALUE, records.transaction_begin("5:7", 9)),
        (records.HEARTBEAT_VALUE, {"ts_ms": 5}),
        (
            records.NOTIFICATION_VALUE,
            {"id": "n", "type": "STARTED", "aggregate_type": "x", "additional_data": {"a": "b"}, "timestamp": 1},
        ),
    ],
)
def test_our_own_records(schema: Schema, content: dict[str, Any]) -> None:
    registry = JsonRegistry(json_with_schema)
    assert read(registry.frame(registry.register("s", schema), records.encode(schema, content))) == content


def test_rows_of_a_snapshot_have_it_too() -> None:
    produced: list[Any] = []
    avro = ENCODER.codec.bind(1, 2)
    RowText(ENCODER.codec, json_with_schema).before(lambda *record: produced.append(record))(
        "t", avro.read(PREFIX, LSN_OF_ROW, ROW), avro.key(ROW), -1, []
    )
    assert produced == [("t", ENCODER.read(PREFIX, LSN_OF_ROW, ROW), ENCODER.key(ROW), -1, [])]


def test_a_reader_of_the_wrong_schema_is_not_pleased() -> None:
    """The reader of these tests does look at the schema."""
    schema, avro = compile_codec(TOPIC, ORDERS, ORDERS_FACTS).key_schema or {}, b"\x0e"
    assert json_text(schema)(avro) == b'{"id":7}'
    wrong = json.dumps({"schema": connect_schema(schema), "payload": {"id": "7"}})
    with pytest.raises(AssertionError):
        read(wrong.encode())
