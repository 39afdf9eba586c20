"""Rows of every type as Avro values: a strategy of hypothesis for each Avro type that capture writes, in every mode."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import fastavro
from hypothesis import strategies as st

from schemas.model.relation import Column, ColumnFacts
from schemas.reading.json_text import without_logical_types
from schemas.registry import wire
from schemas.types.binary import ENCODINGS
from schemas.types.encoders import unscaled_bytes
from schemas.types.kind import Schema
from schemas.types.temporal import INFINITE_DATE, INFINITE_TIMESTAMP, MICROSECONDS_PER_DAY, MINUS_INFINITE_TIMESTAMP
from schemas.types.type_table import ARRAY_ELEMENTS, TYPE_TABLE, Modes, kind_of
from schemas.writing.envelope import Field, key_schema, value_schema
from sink.intake.jsonb import unfit

Values = st.SearchStrategy[Any]

MODES: Final = (
    Modes(),
    Modes(decimal_handling_mode="string", binary_handling_mode="base64", interval_handling_mode="string"),
    Modes(decimal_handling_mode="double", binary_handling_mode="hex", hstore_handling_mode="map"),
    Modes(time_precision_mode="connect", binary_handling_mode="base64-url-safe", money_fraction_digits=0),
    Modes(time_precision_mode="nanoseconds"),
    Modes(time_precision_mode="isostring"),
    Modes(time_precision_mode="microseconds"),
)
_TYPMODS: Final = {
    1700: (-1, (12 << 16 | 2) + 4, (5 << 16) + 4, (38 << 16 | 10) + 4, (1000 << 16 | 500) + 4, (5 << 16 | 2046) + 4),
    1083: (-1, 3),
    1114: (-1, 3),
    1560: (1, 11, 64),
}
_USER_DEFINED: Final = (ColumnFacts(type_name="hstore"), ColumnFacts(labels=("sad", "so, so")))


def _all_types() -> dict[str, Any]:
    found = {}
    for modes in MODES:
        for oid in (*TYPE_TABLE, *ARRAY_ELEMENTS):
            for typmod in _TYPMODS.get(ARRAY_ELEMENTS.get(oid, oid), (-1,)):
                avro = kind_of(Column("v", oid, typmod), ColumnFacts(), modes).avro
                found[json.dumps(avro, sort_keys=True)] = avro
        for facts in _USER_DEFINED:
            avro = kind_of(Column("v", 70_000), facts, modes).avro
            found[json.dumps(avro, sort_keys=True)] = avro
    return found


AVRO_TYPES: Final[dict[str, Any]] = _all_types()
"""Every Avro type that a column may have, by its JSON."""

TEXTS: Final = st.text(st.sampled_from("aß\U0010ffff\\\t\n\r\x02\x7f\",'{}0N. "), max_size=12) | st.sampled_from(
    ("\x02", "\\.", "\\N", "NULL", "", "\\", "\t", "x" * 63, "y" * 64, "z" * 9000)
)
_DAYS: Final = (
    st.integers(-2_500_000, 2_000_000_000) | st.integers(0, 30_000) | st.sampled_from((INFINITE_DATE, -INFINITE_DATE))
)
_LONGS: Final = (
    st.integers(-(2**63), 2**63 - 1)
    | st.integers(10**15, 2 * 10**15)
    | st.sampled_from((INFINITE_TIMESTAMP, MINUS_INFINITE_TIMESTAMP, 0, -1, 63, 64, -64, -65, 8191, 8192, 2**20, 2**48))
)
_NUMBERS: Final = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
_JSON: Final = st.recursive(
    st.none() | st.booleans() | _NUMBERS | TEXTS,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(TEXTS, part, max_size=3),
    max_leaves=5,
)
_MOMENTS: Final = st.datetimes().map(lambda moment: moment.isoformat() + "Z") | st.sampled_from(
    ("infinity", "-infinity", "-0043-03-15T12:00:00Z", "0000-12-31T12:00:00.25Z", "+12345-06-07T08:09:10.5Z",
     "2024-02-29T10:34:56.5Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2024-02-29T10:34:56+02:00")
)  # fmt: skip
_DECIMALS: Final = st.integers(-(10**30), 10**30).map(lambda number: str(Decimal(number).scaleb(-4)))

_BY_NAME: Final[Mapping[str, Values]] = {
    "io.debezium.time.Date": _DAYS,
    "org.apache.kafka.connect.data.Date": _DAYS,
    "io.debezium.time.Time": st.integers(0, 86_400_000),
    "org.apache.kafka.connect.data.Time": st.integers(0, 86_400_000),
    "io.debezium.time.MicroTime": st.integers(0, MICROSECONDS_PER_DAY),
    "io.debezium.time.NanoTime": st.integers(0, MICROSECONDS_PER_DAY).map(lambda count: count * 1000),
    "io.debezium.time.ZonedTimestamp": _MOMENTS,
    "io.debezium.time.IsoTimestamp": _MOMENTS.filter(lambda text: "+02" not in text),
    "io.debezium.time.IsoDate": st.dates().map(lambda day: f"{day}Z") | st.sampled_from(("infinity", "-0043-03-15Z")),
    "io.debezium.time.IsoTime": st.times().map(lambda time: f"{time}Z") | st.just("24:00:00Z"),
    "io.debezium.time.ZonedTime": st.times().map(lambda time: f"{time}+02:00"),
    "io.debezium.time.Interval": st.sampled_from(("P1Y2M-3DT-4H-5M-6.7S", "infinity")),
    "io.debezium.data.Json": _JSON.map(json.dumps).filter(lambda text: unfit(text) is None),
    "io.debezium.data.Uuid": st.uuids().map(str),
    "io.debezium.data.VariableScaleDecimal": st.sampled_from(
        [{"scale": scale, "value": b""} for scale in (0, 1, -1)]
    ) | st.builds(
        lambda scale, number: {"scale": scale, "value": unscaled_bytes(number)}, st.integers(-400, 400), st.integers()
    ),
    "io.debezium.data.geometry.Point": st.builds(
        lambda x, y: {"x": x, "y": y, "wkb": b"\\\t"}, st.floats(), st.floats()
    ),
}  # fmt: skip
_SIMPLE: Final[Mapping[str, Values]] = {
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1) | st.integers(-9000, 9000),
    "long": _LONGS,
    "float": st.floats(width=32),
    "double": st.floats(),
    "string": TEXTS,
    "bytes": st.binary(max_size=9) | st.sampled_from((b"\\", b"\x02", b"\t")),
}


def values(avro: Any) -> Values:
    """Values of an Avro type, as fastavro writes them without logical types."""
    if isinstance(avro, list):
        return st.none() | values(next(branch for branch in avro if branch != "null"))
    if isinstance(avro, str):
        return _SIMPLE[avro]
    name, parameters = avro.get("connect.name", ""), avro.get("connect.parameters", {})
    if name in _BY_NAME:
        return _BY_NAME[name]
    if avro.get("logicalType") == "decimal":
        most = 10 ** avro["precision"]
        return (st.integers(1 - most, most) | st.integers(0, 300)).map(unscaled_bytes)
    if name == "io.debezium.data.Bits":
        length = int(parameters["length"])
        return st.integers(0, 2**length - 1).map(lambda bits: bits.to_bytes((length + 7) // 8, "little"))
    if "ordertap.encoding" in parameters:
        encode = ENCODINGS[parameters["ordertap.encoding"]][0]
        return st.binary(max_size=9).map(lambda content: encode(content).decode())
    if parameters.get("ordertap.type", "").startswith("numeric"):
        return _DECIMALS | st.sampled_from(("NaN", "Infinity", "-Infinity", "1.10"))
    if avro["type"] == "array":
        return st.lists(values(avro["items"]), max_size=4)
    if avro["type"] == "map":
        return st.dictionaries(TEXTS, st.none() | TEXTS, max_size=3)
    return _SIMPLE[avro["type"]]


def fields(types: Sequence[Any], nullable: Sequence[bool]) -> list[Field]:
    """Columns v0, v1 …; every third one that may be null has a default, so that null is its second branch."""
    return [
        Field(f"v{index}", avro, may, has_default=may and index % 3 == 2)
        for index, (avro, may) in enumerate(zip(types, nullable, strict=True))
    ]


SOURCE: Final = {
    "version": "0.1.0", "connector": "postgresql", "name": "shop", "ts_ms": 5, "snapshot": "false", "db": "shopdb",
    "schema": "public", "table": "t",
}  # fmt: skip


def encoded(schema: Schema, record: Any) -> bytes:
    """A whole Kafka key or value, by fastavro."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(without_logical_types(schema)), record)
    return wire.frame(1, out.getvalue())


def envelope(columns: Sequence[Field]) -> Schema:
    """The value's schema of a table with these columns."""
    return value_schema("shop.public.t", columns)


def key(columns: Sequence[Field]) -> Schema:
    """The key's."""
    return key_schema("shop.public.t", columns)


def change(schema: Schema, after: Any, before: Any = None) -> bytes:
    """The Kafka value of a change."""
    return encoded(schema, {"before": before, "after": after, "source": SOURCE, "op": "u"})


@st.composite
def rows(draw: st.DrawFn, most: int = 6) -> tuple[Schema, list[dict[str, Any]]]:
    """An envelope's schema of some columns of any types, and two rows of it."""
    types = draw(st.lists(st.sampled_from(list(AVRO_TYPES.values())), min_size=1, max_size=most))
    nullable = draw(st.lists(st.booleans(), min_size=len(types), max_size=len(types)))
    columns = fields(types, nullable)
    row = {
        column.name: st.none() | values(column.avro) if column.nullable else values(column.avro) for column in columns
    }
    return envelope(columns), [draw(st.fixed_dictionaries(row)) for _ in range(2)]
