"""The one table of types: type OID → (Avro type, encoder of PostgreSQL's text), so schema and value cannot disagree.

What no row covers travels as text and is reported once by the codec (`unknown_types`).
Source: PostgreSQL's pg_type.dat for the OIDs; Debezium's PostgreSQL connector for the Avro types.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from schemas import encoders, temporal
from schemas.arrays import array_encoder, hstore
from schemas.change import UNAVAILABLE
from schemas.encoders import long_bytes, sized
from schemas.relation import Column, ColumnFacts

AvroType: TypeAlias = str | dict[str, Any]

SESSION_SETTINGS: Final = {
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "3",
    "lc_monetary": "C",
    "client_encoding": "UTF8",
}
"""What a session whose text is encoded here must have set: the walsender's and the snapshot's."""

STRING_CODE: Final = "LENGTHS[len({0})] + {0}"


@dataclass(frozen=True, slots=True)
class Kind:
    """How one type travels.

    `encode` turns text into Avro bytes; `code` is the same as an expression for generated code (`{0}` is the cell).
    `zero` is the text that stands for "no value" where the schema allows no null. `unavailable` are Avro bytes that
    say that a TOAST value was not sent, None when the type cannot say so. `known` is False for text in place of a type
    that has no row.
    """

    avro: AvroType
    encode: Callable[[bytes], bytes]
    zero: bytes
    code: str = "{encode}({0})"
    unavailable: bytes | None = None
    known: bool = True


Builder: TypeAlias = Callable[[int], Kind]
"""From the type's typmod, -1 when it has none."""

_PLACEHOLDER: Final = sized(UNAVAILABLE.encode())


def _named(avro: str, name: str, parameters: dict[str, str] | None = None) -> dict[str, Any]:
    shown: dict[str, Any] = {"type": avro, "connect.version": 1}
    if parameters:
        shown["connect.parameters"] = parameters
    shown["connect.name"] = name
    return shown


def _string(name: str | None = None, zero: bytes = b"", parameters: dict[str, str] | None = None) -> Kind:
    avro: AvroType = "string" if name is None else _named("string", name, parameters)
    return Kind(avro, sized, zero, STRING_CODE, _PLACEHOLDER)


TEXT: Final = _string()
UNKNOWN: Final = Kind("string", sized, b"", STRING_CODE, _PLACEHOLDER, known=False)


def _always(kind: Kind) -> Builder:
    return lambda _typmod: kind


def decimal_type(precision: int, scale: int, shown_precision: bool = True) -> dict[str, Any]:
    """Connect's Decimal; Debezium leaves the precision out of the parameters where PostgreSQL gives none (money)."""
    parameters = {"scale": str(scale)}
    if shown_precision:
        parameters["connect.decimal.precision"] = str(precision)
    return {
        "type": "bytes",
        "scale": scale,
        "precision": precision,
        "connect.version": 1,
        "connect.parameters": parameters,
        "connect.name": "org.apache.kafka.connect.data.Decimal",
        "logicalType": "decimal",
    }


_VARIABLE_SCALE: Final[dict[str, Any]] = {
    "type": "record",
    "name": "VariableScaleDecimal",
    "namespace": "io.debezium.data",
    "fields": [{"name": "scale", "type": "int"}, {"name": "value", "type": "bytes"}],
    "connect.doc": "Variable scaled decimal",
    "connect.version": 1,
    "connect.name": "io.debezium.data.VariableScaleDecimal",
}


def _numeric(typmod: int) -> Kind:
    if typmod < 4:
        return Kind(_VARIABLE_SCALE, encoders.variable_scale_decimal, b"0")
    precision = (typmod - 4) >> 16 & 0xFFFF
    scale = (((typmod - 4) & 0x7FF) ^ 1024) - 1024  # 11 bits with sign, PostgreSQL 15 and later
    if scale < 0:  # Avro has no negative scale: the digits left of the point are all there
        precision, scale = precision - scale, 0
    precision = max(precision, scale)
    zero = b"0." + b"0" * scale if scale else b"0"
    return Kind(decimal_type(precision, scale), encoders.decimal_encoder(precision, scale), zero)


def _timestamp(typmod: int) -> Kind:
    zero = b"1970-01-01 00:00:00"
    if 0 <= typmod <= 3:
        return Kind(_named("long", "io.debezium.time.Timestamp"), temporal.milli_timestamp, zero)
    return Kind(_named("long", "io.debezium.time.MicroTimestamp"), temporal.micro_timestamp, zero)


def _time(typmod: int) -> Kind:
    if 0 <= typmod <= 3:
        return Kind(_named("int", "io.debezium.time.Time"), temporal.milli_time, b"00:00:00")
    return Kind(_named("long", "io.debezium.time.MicroTime"), temporal.micro_time, b"00:00:00")


def _bit(typmod: int) -> Kind:
    if typmod in (-1, 1):
        return Kind("boolean", encoders.bit_boolean, b"0")
    avro = _named("bytes", "io.debezium.data.Bits", {"length": str(typmod)})
    return Kind(avro, encoders.bits_encoder(typmod), b"0")


_BOOL: Final = Kind("boolean", encoders.boolean, b"f", "BOOLEANS[{0}]")
_INT2: Final = Kind({"type": "int", "connect.type": "int16"}, encoders.integer, b"0", encoders.INTEGER_CODE)
_INT4: Final = Kind("int", encoders.integer, b"0", encoders.INTEGER_CODE)
_INT8: Final = Kind("long", encoders.integer, b"0", encoders.INTEGER_CODE)
_FLOAT4: Final = Kind("float", encoders.single, b"0")
_FLOAT8: Final = Kind("double", encoders.double, b"0")
_BYTEA: Final = Kind("bytes", encoders.bytea, b"\\x", unavailable=_PLACEHOLDER)
_MONEY: Final = Kind(decimal_type(64, 2, shown_precision=False), encoders.money, b"$0.00")
_DATE: Final = Kind(_named("int", "io.debezium.time.Date"), temporal.days, b"1970-01-01")
_TIMESTAMPTZ: Final = Kind(
    _named("string", "io.debezium.time.ZonedTimestamp"), temporal.zoned_timestamp, b"1970-01-01 00:00:00+00"
)
_TIMETZ: Final = Kind(_named("string", "io.debezium.time.ZonedTime"), temporal.zoned_time, b"00:00:00+00")
_INTERVAL: Final = Kind(_named("long", "io.debezium.time.MicroDuration"), temporal.micro_duration, b"00:00:00")
_JSON: Final = _string("io.debezium.data.Json", b"{}")
_UUID: Final = _string("io.debezium.data.Uuid", b"00000000-0000-0000-0000-000000000000")
_HSTORE: Final = Kind(_named("string", "io.debezium.data.Json"), hstore, b"", unavailable=_PLACEHOLDER)

TYPE_TABLE: Final[dict[int, Builder]] = {
    16: _always(_BOOL),
    17: _always(_BYTEA),
    18: _always(TEXT),  # "char"
    19: _always(TEXT),  # name
    20: _always(_INT8),
    21: _always(_INT2),
    23: _always(_INT4),
    25: _always(TEXT),
    26: _always(_INT8),  # oid, unsigned
    114: _always(_JSON),
    142: _always(_string("io.debezium.data.Xml")),
    650: _always(TEXT),  # cidr
    700: _always(_FLOAT4),
    701: _always(_FLOAT8),
    774: _always(TEXT),  # macaddr8
    790: _always(_MONEY),
    829: _always(TEXT),  # macaddr
    869: _always(TEXT),  # inet
    1042: _always(TEXT),  # char(n), with its blanks
    1043: _always(TEXT),  # varchar
    1082: _always(_DATE),
    1083: _time,
    1114: _timestamp,
    1184: _always(_TIMESTAMPTZ),
    1186: _always(_INTERVAL),
    1266: _always(_TIMETZ),
    1560: _bit,
    1562: _always(TEXT),  # bit varying: Debezium's Bits would lose its length
    1700: _numeric,
    2950: _always(_UUID),
    3802: _always(_JSON),
    3904: _always(TEXT),  # ranges, from int4range
    3906: _always(TEXT),
    3908: _always(TEXT),
    3910: _always(TEXT),
    3912: _always(TEXT),
    3926: _always(TEXT),
}

ARRAY_ELEMENTS: Final[dict[int, int]] = {
    143: 142, 199: 114, 651: 650, 775: 774, 791: 790, 1000: 16, 1001: 17, 1002: 18, 1003: 19, 1005: 21, 1007: 23,
    1009: 25, 1014: 1042, 1015: 1043, 1016: 20, 1021: 700, 1022: 701, 1028: 26, 1040: 829, 1041: 869, 1115: 1114,
    1182: 1082, 1183: 1083, 1185: 1184, 1187: 1186, 1231: 1700, 1270: 1266, 1561: 1560, 1563: 1562, 2951: 2950,
    3807: 3802,
}  # fmt: skip

_BY_NAME: Final[dict[str, Kind]] = {"citext": TEXT, "hstore": _HSTORE, "ltree": _string("io.debezium.data.Ltree")}
"""Types of extensions, whose OIDs differ from one database to the next."""


def kind_of(column: Column, facts: ColumnFacts) -> Kind:
    """The row of the table for a column; a type that nothing is known of is UNKNOWN."""
    return _kind(column.type_oid, column.typmod, facts)


def _kind(oid: int, typmod: int, facts: ColumnFacts) -> Kind:
    if oid in TYPE_TABLE:
        return TYPE_TABLE[oid](typmod)
    if oid in ARRAY_ELEMENTS:
        return _array(TYPE_TABLE[ARRAY_ELEMENTS[oid]](typmod))
    if facts.base_oid and facts.base_oid != oid:
        return _kind(facts.base_oid, facts.base_typmod, facts)
    if facts.element_oid and facts.element_oid != oid:
        element = _kind(facts.element_oid, typmod, facts)
        return _array(element) if element.known else UNKNOWN
    if facts.labels:
        return _string("io.debezium.data.Enum", facts.labels[0].encode(), {"allowed": ",".join(facts.labels)})
    if facts.type_kind in ("r", "m"):
        return TEXT
    return _BY_NAME.get(facts.type_name, UNKNOWN)


def _array(element: Kind) -> Kind:
    avro = {"type": "array", "items": ["null", element.avro]}
    unavailable = None
    if element.unavailable is not None:
        unavailable = long_bytes(1) + b"\x02" + element.unavailable + b"\x00"
    return Kind(avro, array_encoder(element.encode), b"{}", unavailable=unavailable)
