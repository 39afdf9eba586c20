"""Debezium's handling modes: the schemas that it registers for them, the placeholder, and the ends of each unit."""

from typing import Any

import pytest

from schemas.model.change import UNAVAILABLE, UNCHANGED
from schemas.model.relation import Column, ColumnFacts, Relation, TableFacts
from schemas.reading.values import column_value
from schemas.types import temporal
from schemas.types.binary import money_encoder
from schemas.types.encoders import long_bytes
from schemas.types.type_table import Modes, kind_of
from schemas.writing.codec import SourceOrigin, compile_codec
from tests.record_reader import row_reader

NUMERIC_12_2 = (12 << 16 | 2) + 4
HSTORE = ColumnFacts(type_name="hstore")
CONNECT = "org.apache.kafka.connect.data"
TIME = "io.debezium.time"


def named(avro: str, name: str, **more: str) -> dict[str, Any]:
    return {"type": avro, "connect.version": 1, "connect.name": name, **more}


@pytest.mark.parametrize(
    ("modes", "oid", "typmod", "avro"),
    [
        (Modes(decimal_handling_mode="double"), 1700, NUMERIC_12_2, "double"),
        (Modes(decimal_handling_mode="double"), 790, -1, "double"),
        (Modes(time_precision_mode="connect"), 1082, -1, named("int", f"{CONNECT}.Date", logicalType="date")),
        (Modes(time_precision_mode="connect"), 1083, 6, named("int", f"{CONNECT}.Time", logicalType="time-millis")),
        (Modes(time_precision_mode="connect"), 1114, -1,
         named("long", f"{CONNECT}.Timestamp", logicalType="timestamp-millis")),
        (Modes(time_precision_mode="microseconds"), 1083, 0, named("long", f"{TIME}.MicroTime")),
        (Modes(time_precision_mode="microseconds"), 1114, 0, named("long", f"{TIME}.MicroTimestamp")),
        (Modes(time_precision_mode="microseconds"), 1082, -1, named("int", f"{TIME}.Date")),
        (Modes(time_precision_mode="nanoseconds"), 1083, 0, named("long", f"{TIME}.NanoTime")),
        (Modes(time_precision_mode="nanoseconds"), 1114, 0, named("long", f"{TIME}.NanoTimestamp")),
        (Modes(time_precision_mode="adaptive_time_microseconds"), 1083, 0, named("long", f"{TIME}.MicroTime")),
        (Modes(time_precision_mode="adaptive_time_microseconds"), 1114, 0, named("long", f"{TIME}.Timestamp")),
        (Modes(time_precision_mode="isostring"), 1082, -1, named("string", f"{TIME}.IsoDate")),
        (Modes(time_precision_mode="isostring"), 1083, -1, named("string", f"{TIME}.IsoTime")),
        (Modes(time_precision_mode="isostring"), 1114, -1, named("string", f"{TIME}.IsoTimestamp")),
        (Modes(interval_handling_mode="string"), 1186, -1, named("string", f"{TIME}.Interval")),
        (Modes(hstore_handling_mode="map"), 70_000, -1, {"type": "map", "values": ["null", "string"]}),
    ],
)  # fmt: skip
def test_the_schema_is_debeziums(modes: Modes, oid: int, typmod: int, avro: Any) -> None:
    assert kind_of(Column("v", oid, typmod), HSTORE, modes).avro == avro


def test_zoned_types_have_no_other_form() -> None:
    for mode in ("connect", "nanoseconds", "isostring"):
        assert kind_of(Column("v", 1184), HSTORE, Modes(time_precision_mode=mode)).avro == named(
            "string", f"{TIME}.ZonedTimestamp"
        )


@pytest.mark.parametrize(
    ("name", "encoding", "staged"),
    [
        ("numeric", "", "numeric"),
        ("numeric(12,2)", "", "numeric(12,2)"),
        ("bytea", "hex", "bytea"),
        ("bytea", "rot13", "text"),
        ("numeric); DROP TABLE x; --", "", "text"),
        ("numeric(1,2)\n", "", "text"),
        ("inet", "", "text"),
    ],
)
def test_a_schema_names_only_types_that_we_write(name: str, encoding: str, staged: str) -> None:
    parameters = {"ordertap.type": name, "ordertap.encoding": encoding}
    assert column_value({"type": "string", "connect.parameters": parameters}, {}).type == staged


PLACEHOLDERS: list[tuple[int, Modes, Any]] = [
    (25, Modes(), UNAVAILABLE),
    (25, Modes(unavailable_value_placeholder="not sent"), "not sent"),
    (1009, Modes(unavailable_value_placeholder="not sent"), ["not sent"]),
    (3802, Modes(unavailable_value_placeholder="hex:6f6666"), "off"),
    (17, Modes(unavailable_value_placeholder="hex:6f6666"), b"off"),
    (70_000, Modes(hstore_handling_mode="map", unavailable_value_placeholder="off"), {"off": "off"}),
    (1700, Modes(decimal_handling_mode="string", unavailable_value_placeholder="off"), "off"),
    (17, Modes(binary_handling_mode="hex", unavailable_value_placeholder="off"), "off"),
    (1700, Modes(unavailable_value_placeholder="off"), None),
]


@pytest.mark.parametrize(("oid", "modes", "value"), PLACEHOLDERS)
def test_an_unsent_value_is_the_placeholder_where_the_type_can_say_so(oid: int, modes: Modes, value: Any) -> None:
    codec = compile_codec(
        "t", Relation(1, "public", "t", "d", (Column("v", oid),)), TableFacts((), {"v": HSTORE}), modes=modes
    )
    record = codec.bind(None, 1).create(SourceOrigin("shop", "test", "0").snapshot(0, 0), 1, (UNCHANGED,))
    assert row_reader(codec.value_schema).record(record[5:])["after"] == {"v": value}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (b"2262-04-11 23:47:16.854775", 2**63 - 808),
        (b"2262-04-11 23:47:16.854776", 2**63 - 1),
        (b"9999-12-31 00:00:00", 2**63 - 1),
        (b"infinity", 2**63 - 1),
        (b"1677-09-21 00:12:43.145225", -(2**63) + 808),
        (b"0001-01-01 00:00:00", -(2**63)),
    ],
)
def test_nanoseconds_end_in_the_infinities(text: bytes, count: int) -> None:
    assert temporal.nano_timestamp(text) == long_bytes(count)


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        (b"1 year 2 mons 3 days 04:05:06.789", b"P1Y2M3DT4H5M6.789S"),
        (b"00:00:00", b"P0Y0M0DT0H0M0S"),
        (b"-1 years -2 mons +3 days -00:05:00.5", b"P-1Y-2M3DT0H-5M-0.5S"),
        (b"infinity", b"infinity"),
    ],
)
def test_an_interval_keeps_its_parts(text: bytes, iso: bytes) -> None:
    assert temporal.interval_text(text) == long_bytes(len(iso)) + iso


@pytest.mark.parametrize(
    ("digits", "text", "unscaled"),
    [(0, b"$1.49", 1), (0, b"$1.50", 2), (0, b"-$1.50", -2), (1, b"$1,000.05", 10001), (4, b"-$0.01", -100)],
)
def test_money_is_rounded_half_up_as_debezium_does(digits: int, text: bytes, unscaled: int) -> None:
    encoded = money_encoder(digits)(text)
    assert int.from_bytes(encoded[1:], "big", signed=True) == unscaled
