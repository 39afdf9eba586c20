"""Our schemas are those that Debezium registers."""

import json
from typing import Any

import avro.schema
import fastavro
import pytest

from schemas.model.errors import DataError
from schemas.model.relation import Column, ColumnFacts, Relation, TableFacts
from schemas.writing import records
from schemas.writing.codec import compile_codec
from schemas.writing.column_rules import ColumnRules
from schemas.writing.envelope import adjust_name, adjust_namespace, static_schema
from schemas.writing.messages import MESSAGE_KEY, message_schema
from tests.unit.schemas.examples import ORDERS, ORDERS_FACTS, TOPIC, debezium_records


def numeric(precision: int, scale: int) -> int:
    return (precision << 16 | scale & 0x7FF) + 4


MOOD = ColumnFacts(type_name="mood", type_kind="e", labels=("sad", "ok", "happy"))
FACTS: dict[str, ColumnFacts] = {
    "f_enum": MOOD,
    "f_citext": ColumnFacts(type_name="citext"),
    "f_dom_int": ColumnFacts(base_oid=23),
    "f_dom_text": ColumnFacts(base_oid=25),
    "f_dom_num": ColumnFacts(base_oid=1700, base_typmod=numeric(10, 2)),
}
SCALARS = {
    "f_bool": (16, -1), "f_int2": (21, -1), "f_int4": (23, -1), "f_int8": (20, -1), "f_real": (700, -1),
    "f_float8": (701, -1), "f_num": (1700, numeric(12, 2)), "f_num_u": (1700, -1), "f_num_50": (1700, numeric(50, 10)),
    "f_num_0": (1700, numeric(5, 0)), "f_money": (790, -1), "f_text": (25, -1), "f_varchar": (1043, 24),
    "f_char": (1042, 10), "f_name": (19, -1), "f_qchar": (18, -1), "f_citext": (16390, -1), "f_bytea": (17, -1),
    "f_uuid": (2950, -1), "f_json": (114, -1), "f_jsonb": (3802, -1), "f_xml": (142, -1), "f_enum": (16395, -1),
    "f_dom_int": (16400, -1), "f_dom_text": (16401, -1), "f_dom_num": (16402, -1), "f_oid": (26, -1),
}  # fmt: skip
TIMES = {
    "f_date": (1082, -1), "f_time": (1083, -1), "f_time0": (1083, 0), "f_time3": (1083, 3), "f_time6": (1083, 6),
    "f_timetz": (1266, -1), "f_timetz3": (1266, 3), "f_ts": (1114, -1), "f_ts0": (1114, 0), "f_ts3": (1114, 3),
    "f_ts6": (1114, 6), "f_tstz": (1184, -1), "f_tstz0": (1184, 0), "f_tstz3": (1184, 3), "f_interval": (1186, -1),
    "f_interval_d": (1186, -1),
}  # fmt: skip
TOASTED = {"n": (23, -1), "big": (25, -1), "bigb": (17, -1), "bigj": (3802, -1), "biga": (1009, -1)}
RI_DEFAULT = {"v": (25, -1), "n": (23, -1)}


def recorded(topic: str) -> dict[str, Any]:
    return next(record for record in debezium_records() if record["topic"] == topic)


@pytest.mark.parametrize(
    ("table", "columns"),
    [("scalars", SCALARS), ("times", TIMES), ("toasted", TOASTED), ("ri_default", RI_DEFAULT)],
)
def test_a_tables_schemas_are_debeziums(table: str, columns: dict[str, tuple[int, int]]) -> None:
    topic = f"gold_stream.public.{table}"
    all_columns = {"id": (23, -1), **columns}
    relation = Relation(
        1, "public", table, "d", tuple(Column(name, *kind, name == "id") for name, kind in all_columns.items())
    )
    codec = compile_codec(topic, relation, TableFacts(("id",), FACTS))
    theirs = recorded(topic)
    # Debezium reads numeric(5,-2) wrongly (scale 2046): in this column alone we differ on purpose.
    before = theirs["value_schema"]["fields"][0]["type"][1]
    before["fields"] = [field for field in before["fields"] if field["name"] != "f_num_neg"]
    assert codec.value_schema == theirs["value_schema"]
    assert codec.key_schema == theirs["key_schema"]
    assert list(codec.value_schema["fields"][0]["type"][1]["fields"]) == before["fields"]
    assert codec.unknown_types == ()


@pytest.mark.parametrize(
    ("topic", "key", "value"),
    [
        ("gold_stream.transaction", records.TRANSACTION_KEY, records.TRANSACTION_VALUE),
        ("__debezium-heartbeat.gold_stream", records.HEARTBEAT_KEY, records.HEARTBEAT_VALUE),
        ("gold_stream.message", MESSAGE_KEY, message_schema()),
    ],
)
def test_the_schemas_without_a_table_are_debeziums(topic: str, key: dict[str, Any], value: dict[str, Any]) -> None:
    assert key == recorded(topic)["key_schema"]
    assert value == recorded(topic)["value_schema"]


@pytest.mark.parametrize("name", ["Source", "block", "Notification", "NotificationKey"])
def test_a_static_schema_is_avro_and_named_like_its_file(name: str) -> None:
    schema = static_schema(name)
    assert schema["name"] == name
    fastavro.parse_schema(schema)
    assert schema["connect.name"] == f"{schema['namespace']}.{name}"


def test_apaches_own_library_takes_the_schemas() -> None:
    """It checks defaults and names more strictly than fastavro does."""
    facts = TableFacts(
        ("id",), {"v": ColumnFacts(default="1.5"), "w": ColumnFacts(not_null=True, default="random()"), "f_enum": MOOD}
    )
    columns = {"id": (20, -1), "v": (1700, numeric(12, 2)), "w": (1700, -1), "f_enum": (16395, -1), "a": (1231, -1)}
    relation = Relation(1, "public", "t", "d", tuple(Column(n, *kind, n == "id") for n, kind in columns.items()))
    codec = compile_codec("shop.public.t", relation, facts)
    for schema in (codec.key_schema, codec.value_schema, records.NOTIFICATION_VALUE, records.TRANSACTION_VALUE):
        assert avro.schema.parse(json.dumps(schema)).name == schema["name"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "adjusted"),
    [
        ("Order ID", "Order_ID"),
        ("größe", "gr__e"),
        ("1st", "_1st"),
        ("plain_2", "plain_2"),
        ("𝄞", "__"),
        ("a.b", "a_b"),
    ],
)
def test_names_are_adjusted_as_debezium_does(name: str, adjusted: str) -> None:
    assert adjust_name(name) == adjusted


def test_a_topics_dots_stay() -> None:
    assert adjust_namespace("my shop.public.Order Lines") == "my_shop.public.Order_Lines"


def test_two_columns_of_one_avro_name_are_named() -> None:
    relation = Relation(1, "public", "t", "d", (Column("a b", 25), Column("a_b", 25)))
    with pytest.raises(DataError, match='columns "a b" and "a_b" both become the Avro field a_b'):
        compile_codec("t", relation, None)


def fields_of(schema: dict[str, Any]) -> dict[str, Any]:
    return {field["name"]: field for field in schema["fields"][0]["type"][1]["fields"]}


def test_comments_and_defaults_are_in_the_schema() -> None:
    fields = fields_of(compile_codec(TOPIC, ORDERS, ORDERS_FACTS, rules=ColumnRules(commented=True)).value_schema)
    assert fields["total"]["doc"] == "with tax"
    assert fields["status"] == {
        "name": "status", "type": {"type": "string", "connect.default": "pending"}, "default": "pending",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("oid", "typmod", "not_null", "expression", "default"),
    [
        (23, -1, True, "0", 0),
        (23, -1, True, "'-1'::integer", -1),
        (23, -1, True, "(-5)", -5),
        (23, -1, True, "nextval('s'::regclass)", 0),
        (20, -1, False, "7", 7),
        (701, -1, True, "'NaN'::double precision", 0.0),
        (16, -1, False, "true", True),
        (25, -1, False, "'it''s'::text", "it's"),
        (1043, -1, False, "'x'::character varying", "x"),
        (1700, numeric(12, 2), False, "0", "\x00"),
        (1700, numeric(12, 2), False, "1.5", "\x00\x96"),
        (1082, -1, True, "CURRENT_DATE", 0),
        (1082, -1, False, "'2024-01-01'::date", 19723),
        (1184, -1, True, "now()", "1970-01-01T00:00:00.000000Z"),
        (3802, -1, True, "'[]'::jsonb", "[]"),
        (2950, -1, True, "gen_random_uuid()", "00000000-0000-0000-0000-000000000000"),
    ],
)
def test_a_default_is_the_literal_or_the_types_zero(
    oid: int, typmod: int, not_null: bool, expression: str, default: Any
) -> None:
    facts = TableFacts((), {"v": ColumnFacts(not_null=not_null, default=expression)})
    codec = compile_codec("t", Relation(1, "public", "t", "d", (Column("v", oid, typmod),)), facts)
    field = fields_of(codec.value_schema)["v"]
    assert field["default"] == default
    if not_null:
        assert not isinstance(field["type"], list)
    else:
        assert field["type"][1] == "null"
    fastavro.parse_schema(codec.value_schema)


@pytest.mark.parametrize(("oid", "expression"), [(1700, "2.5"), (1700, "random()"), (600, "'(1,2)'::point")])
@pytest.mark.parametrize("not_null", [True, False])
def test_a_record_has_no_default(oid: int, expression: str, not_null: bool) -> None:
    """Debezium writes none (numeric without a scale, point), and its JDBC sink ends with an error at one."""
    facts = TableFacts((), {"v": ColumnFacts(not_null=not_null, default=expression)})
    codec = compile_codec("t", Relation(1, "public", "t", "d", (Column("v", oid, -1),)), facts)
    assert fields_of(codec.value_schema)["v"].get("default") is None
    assert ("default" in fields_of(codec.value_schema)["v"]) == (not not_null)


@pytest.mark.parametrize("expression", ["now()", "NULL::text", None])
def test_a_nullable_column_with_a_function_as_default_has_none(expression: str | None) -> None:
    facts = TableFacts((), {"v": ColumnFacts(default=expression)})
    field = fields_of(compile_codec("t", Relation(1, "public", "t", "d", (Column("v", 25),)), facts).value_schema)["v"]
    assert field == {"name": "v", "type": ["null", "string"], "default": None}


def test_a_record_type_is_defined_once_and_then_named() -> None:
    relation = Relation(1, "public", "t", "d", (Column("a", 1700), Column("b", 1700), Column("c", 1231)))
    schema = compile_codec("t", relation, None).value_schema
    fields = fields_of(schema)
    assert fields["b"]["type"] == ["null", "io.debezium.data.VariableScaleDecimal"]
    assert fields["c"]["type"][1]["items"] == ["null", "io.debezium.data.VariableScaleDecimal"]
    fastavro.parse_schema(schema)
