"""The one table of types: type OID → (Avro type, encoder of PostgreSQL's text), so schema and value cannot disagree.

A type that no row covers travels as text, and the codec says so once (`unknown_types`).
Source: PostgreSQL's pg_type.dat for the OIDs; Debezium's PostgreSQL connector for the Avro types.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

from schemas.model.relation import Column, ColumnFacts
from schemas.types import encoders, temporal, type_modes
from schemas.types.arrays import array_encoder, point
from schemas.types.encoders import long_bytes
from schemas.types.kind import BOOLEAN_CODE, CALL_CODE, POINT, TEXT, UNKNOWN, AvroType, Kind, named, string
from schemas.types.type_modes import Builder, Modes, rounding, with_placeholder

__all__ = ["DEFAULT_MODES", "SESSION_SETTINGS", "TEXT", "AvroType", "Kind", "Modes", "kind_of", "text_kind"]

SESSION_SETTINGS: Final = {
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "3",
    "lc_monetary": "C",
    "client_encoding": "UTF8",
}
"""Settings of each session whose text is encoded here: the walsender's and the snapshot's."""

DEFAULT_MODES: Final = Modes()


def _always(kind: Kind) -> Builder:
    return lambda _typmod, _modes: kind


def _bit(typmod: int, _modes: Modes) -> Kind:
    if typmod == -1:  # from CREATE TABLE AS: any length, as bit varying
        return TEXT
    if typmod == 1:
        return Kind("boolean", encoders.bit_boolean, b"0")
    avro = named("bytes", "io.debezium.data.Bits", {"length": str(typmod)})
    return Kind(avro, encoders.bits, b"0")


def _blank_padded(typmod: int, _modes: Modes) -> Kind:
    """char(n), with its blanks."""
    length = typmod - 4
    return TEXT if typmod == -1 else replace(TEXT, fit=lambda text: text.decode().ljust(length)[:length].encode())


_BOOL: Final = Kind("boolean", encoders.boolean, b"f", BOOLEAN_CODE)
_INT2: Final = Kind({"type": "int", "connect.type": "int16"}, encoders.integer, b"0", encoders.INTEGER_CODE)
_INT4: Final = Kind("int", encoders.integer, b"0", encoders.INTEGER_CODE)
_INT8: Final = Kind("long", encoders.integer, b"0", encoders.INTEGER_CODE)
_FLOAT4: Final = Kind("float", encoders.single, b"0")
_FLOAT8: Final = Kind("double", encoders.double, b"0")
_TIMESTAMPTZ: Final = [
    Kind(
        named("string", "io.debezium.time.ZonedTimestamp"),
        partial(temporal.zoned_timestamp, digits),
        b"1970-01-01 00:00:00+00",
    )
    for digits in range(7)
]
_TIMETZ: Final = Kind(named("string", "io.debezium.time.ZonedTime"), temporal.zoned_time, b"00:00:00+00")
_JSON: Final = string("io.debezium.data.Json", b"{}")
_UUID: Final = string("io.debezium.data.Uuid", b"00000000-0000-0000-0000-000000000000")

TYPE_TABLE: Final[dict[int, Builder]] = {
    16: _always(_BOOL),
    17: type_modes.bytea,
    18: _always(TEXT),  # "char"
    19: _always(TEXT),  # name
    20: _always(_INT8),
    21: _always(_INT2),
    23: _always(_INT4),
    25: _always(TEXT),
    26: _always(_INT8),  # oid, unsigned
    114: _always(_JSON),
    142: _always(string("io.debezium.data.Xml")),
    600: _always(Kind(POINT, point, b"(0,0)")),
    650: _always(TEXT),  # cidr
    700: _always(_FLOAT4),
    701: _always(_FLOAT8),
    774: _always(TEXT),  # macaddr8
    790: type_modes.money,
    829: _always(TEXT),  # macaddr
    869: _always(TEXT),  # inet
    1042: _blank_padded,
    1043: _always(TEXT),  # varchar
    1082: type_modes.date,
    1083: type_modes.time,
    1114: type_modes.timestamp,
    1184: lambda typmod, _: rounding(_TIMESTAMPTZ[typmod if 0 <= typmod < 6 else 6], typmod),
    1186: type_modes.interval,
    1266: lambda typmod, _: rounding(_TIMETZ, typmod),
    1560: _bit,
    1562: _always(TEXT),  # bit varying: Debezium's Bits is a number, which has no length
    1700: type_modes.numeric,
    2950: _always(_UUID),
    3614: _always(string("io.debezium.data.TsVector")),
    3802: _always(_JSON),
}

_AS_TEXT: Final = (
    22, 30,  # int2vector, oidvector: arrays by category, but not in their text
    27, 28, 29, 5069, 2970, 5038,  # tid, xid, cid, xid8, txid_snapshot, pg_snapshot
    601, 602, 603, 604, 628, 718,  # lseg, path, box, polygon, line, circle
    1790, 3220, 3615, 4072,  # refcursor, pg_lsn, tsquery, jsonpath
    24, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191,  # regproc … regcollation
    3904, 3906, 3908, 3910, 3912, 3926,  # ranges, from int4range
    4451, 4532, 4533, 4534, 4535, 4536,  # their multiranges
)  # fmt: skip
TYPE_TABLE.update((oid, _always(TEXT)) for oid in _AS_TEXT)

ARRAY_ELEMENTS: Final[dict[int, int]] = {
    143: 142, 199: 114, 210: 24, 271: 5069, 629: 628, 651: 650, 719: 718, 775: 774, 791: 790, 1000: 16, 1001: 17,
    1002: 18, 1003: 19, 1005: 21, 1006: 22, 1007: 23, 1008: 24, 1009: 25, 1010: 27, 1011: 28, 1012: 29, 1013: 30,
    1014: 1042, 1015: 1043, 1016: 20, 1017: 600, 1018: 601, 1019: 602, 1020: 603, 1021: 700, 1022: 701, 1027: 604,
    1028: 26, 1040: 829, 1041: 869, 1115: 1114, 1182: 1082, 1183: 1083, 1185: 1184, 1187: 1186, 1231: 1700, 1270:
    1266, 1561: 1560, 1563: 1562, 2201: 1790, 2207: 2202, 2208: 2203, 2209: 2204, 2210: 2205, 2211: 2206, 2949: 2970,
    2951: 2950, 3221: 3220, 3643: 3614, 3645: 3615, 3735: 3734, 3770: 3769, 3807: 3802, 3905: 3904, 3907: 3906, 3909:
    3908, 3911: 3910, 3913: 3912, 3927: 3926, 4073: 4072, 4090: 4089, 4097: 4096, 4192: 4191, 5039: 5038, 6150: 4451,
    6151: 4532, 6152: 4533, 6153: 4534, 6155: 4535, 6157: 4536,
}  # fmt: skip

_BOX: Final = 603  # the one type whose arrays have another delimiter

_BY_NAME: Final[dict[str, Builder]] = {
    "citext": _always(TEXT),
    "hstore": type_modes.hstore_kind,
    "ltree": _always(string("io.debezium.data.Ltree")),
    "isbn": _always(TEXT),
}
"""Types of extensions, whose OIDs differ between databases."""


def kind_of(column: Column, facts: ColumnFacts, modes: Modes = DEFAULT_MODES) -> Kind:
    """The table's row for a column; UNKNOWN if there is none. A column that was declared with more than one dimension
    travels as PostgreSQL's text, because an Avro array has only one."""
    kind = _kind(column.type_oid, column.typmod, facts, modes)
    return text_kind(modes) if facts.dimensions > 1 and _is_array(kind) else kind


def text_kind(modes: Modes = DEFAULT_MODES) -> Kind:
    """PostgreSQL's text, for a column of any type."""
    return with_placeholder(TEXT, modes)


def _kind(oid: int, typmod: int, facts: ColumnFacts, modes: Modes) -> Kind:
    if oid in ARRAY_ELEMENTS:
        element_oid = ARRAY_ELEMENTS[oid]
        return _array(_kind(element_oid, typmod, facts, modes), b";" if element_oid == _BOX else b",")
    if oid not in TYPE_TABLE and facts.base_oid not in (0, oid):
        return _kind(facts.base_oid, facts.base_typmod, facts, modes)
    if oid not in TYPE_TABLE and facts.element_oid not in (0, oid):
        element = _kind(facts.element_oid, typmod, facts.element or facts, modes)
        # The elements of an array may be arrays only by way of a domain.
        return _array(element) if element.known and not _is_array(element) else with_placeholder(UNKNOWN, modes)
    builder = TYPE_TABLE.get(oid) or _user_defined(facts)
    return with_placeholder(builder(typmod, modes), modes)


def _user_defined(facts: ColumnFacts) -> Builder:
    if facts.labels:
        text = string("io.debezium.data.Enum", facts.labels[0].encode(), {"allowed": ",".join(facts.labels)})
        labels = encoders.Labels((label.encode(), text.encode(label.encode())) for label in facts.labels)
        return _always(replace(text, encode=labels.__getitem__, code=CALL_CODE, lenient=text.encode))
    if facts.type_kind in ("r", "m"):
        return _always(TEXT)
    return _BY_NAME.get(facts.type_name, _always(UNKNOWN))


def _is_array(kind: Kind) -> bool:
    return isinstance(kind.avro, dict) and kind.avro["type"] == "array"


def _array(element: Kind, delimiter: bytes = b",") -> Kind:
    def fitted(text: bytes) -> bytes:
        return element.encode(element.fit(text))

    avro = {"type": "array", "items": ["null", element.avro]}
    unavailable = None
    if element.unavailable is not None:
        unavailable = long_bytes(1) + b"\x02" + element.unavailable + b"\x00"
    encode, encode_fitted = (array_encoder(one, delimiter) for one in (element.encode, fitted))

    def lenient(text: bytes) -> bytes | None:
        try:
            return element.encode(text)
        except encoders.NotedError:
            return None if element.lenient is None else element.lenient(text)

    def fit(text: bytes) -> bytes:
        if encode(text) != encode_fitted(text):
            raise encoders.UnrepresentableError("its elements are not as a row shows them")
        return text

    return Kind(avro, encode, b"{}", unavailable=unavailable, fit=fit, lenient=array_encoder(lenient, delimiter))
