"""Debezium's handling modes, and the kinds that depend on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from functools import partial
from typing import Final, Literal, NamedTuple, TypeAlias

from schemas.model.change import UNAVAILABLE
from schemas.types import binary, encoders, temporal
from schemas.types.arrays import hstore, hstore_map
from schemas.types.encoders import UnrepresentableError, long_bytes, sized
from schemas.types.kind import PLACEHOLDER, STRING_CODE, VARIABLE_SCALE, Kind, decimal_type, named, our_string

DecimalMode: TypeAlias = Literal["precise", "string", "double"]
TimeMode: TypeAlias = Literal[
    "adaptive", "adaptive_time_microseconds", "connect", "microseconds", "nanoseconds", "isostring"
]
BinaryMode: TypeAlias = Literal["bytes", "base64", "base64-url-safe", "hex"]


class Modes(NamedTuple):
    """How values travel where Debezium leaves a choice. Names and defaults are those of its options. `special_numbers`
    is ours: NaN and the infinities of numeric, for which Debezium writes null."""

    decimal_handling_mode: DecimalMode = "precise"
    time_precision_mode: TimeMode = "adaptive"
    binary_handling_mode: BinaryMode = "bytes"
    interval_handling_mode: Literal["numeric", "string"] = "numeric"
    hstore_handling_mode: Literal["json", "map"] = "json"
    unavailable_value_placeholder: str = UNAVAILABLE
    money_fraction_digits: int = 2
    special_numbers: Literal["null", "exact"] = "exact"

    @property
    def placeholder(self) -> bytes:
        """The placeholder's bytes; as in Debezium, `hex:` before it says that the rest are hexadecimal octets."""
        text = self.unavailable_value_placeholder
        return bytes.fromhex(text[4:]) if text.startswith("hex:") else text.encode()


Builder: TypeAlias = Callable[[int, Modes], Kind]
"""Makes a kind from the type's typmod (-1 if it has none) and the modes."""

_ANY_PRECISION: Final = Context(prec=200_000)  # more than PostgreSQL's longest numeric
_MIDNIGHT: Final = b"00:00:00"
_EPOCH: Final = b"1970-01-01 00:00:00"


def with_placeholder(kind: Kind, modes: Modes) -> Kind:
    """The kind with the modes' placeholder, if the kind has one."""
    if kind.unavailable != PLACEHOLDER or modes.unavailable_value_placeholder == UNAVAILABLE:
        return kind
    return replace(kind, unavailable=sized(modes.placeholder))


def numeric_scale(typmod: int) -> tuple[int, int]:
    """(precision, scale) of a numeric's typmod; the scale may be negative (PostgreSQL 15 and later)."""
    return (typmod - 4) >> 16 & 0xFFFF, (((typmod - 4) & 0x7FF) ^ 1024) - 1024  # 11 bits with sign


def _scaled(scale: int, text: bytes) -> bytes:
    """`0` for a numeric(12,2) is `0.00` in a row, `1.235` is `1.24`."""
    try:
        rounded = Decimal(text.decode()).quantize(Decimal(1).scaleb(-scale), ROUND_HALF_UP, _ANY_PRECISION)
    except InvalidOperation:
        raise UnrepresentableError("not a numeric") from None
    return (str(int(rounded)) if scale <= 0 and rounded.is_finite() else f"{rounded:f}").encode()


def numeric(typmod: int, modes: Modes) -> Kind:
    """numeric: Connect's Decimal if it has a scale, else VariableScaleDecimal; a string or a double by mode."""
    scaled, exact = typmod >= 4, modes.special_numbers == "exact"
    precision, scale = numeric_scale(typmod) if scaled else (0, 0)
    zero = b"0." + b"0" * scale if scale > 0 else b"0"
    fit = partial(_scaled, scale) if scaled else bytes
    if modes.decimal_handling_mode == "double":
        return Kind("double", encoders.double, zero, fit=fit)
    if modes.decimal_handling_mode == "string":
        ordinary = scaled and 0 <= scale <= precision  # other scales are known to PostgreSQL from 15 on
        name = f"numeric({precision},{scale})" if ordinary else "numeric"
        return our_string(name, sized, zero, code=STRING_CODE, unavailable=PLACEHOLDER, fit=fit)
    if not scaled:
        any_scale = encoders.variable_scale_decimal if exact else encoders.ordinary_decimal
        return Kind(VARIABLE_SCALE, any_scale, b"0")
    if scale < 0:  # Avro has no negative scale: the digits left of the point are all there
        precision, scale = precision - scale, 0
    precision = max(precision, scale)
    return Kind(decimal_type(precision, scale), encoders.decimal_encoder(precision, scale, exact), zero, fit=fit)


def money(_typmod: int, modes: Modes) -> Kind:
    """money: a decimal with money_fraction_digits; by mode like numeric."""
    if modes.decimal_handling_mode == "double":
        return Kind("double", binary.money_double, b"$0.00")
    if modes.decimal_handling_mode == "string":
        return our_string("numeric", binary.money_text, b"$0.00")
    digits = modes.money_fraction_digits
    return Kind(decimal_type(64, digits, shown_precision=False), binary.money_encoder(digits), b"$0.00")


def _connect(avro: str, name: str, logical: str) -> dict[str, object]:
    return named(avro, f"org.apache.kafka.connect.data.{name}") | {"logicalType": logical}


def _debezium(avro: str, name: str) -> dict[str, object]:
    return named(avro, f"io.debezium.time.{name}")


_DATES: Final[Mapping[str, Kind]] = {
    "connect": Kind(_connect("int", "Date", "date"), temporal.days, b"1970-01-01"),
    "isostring": Kind(_debezium("string", "IsoDate"), temporal.iso_date, b"1970-01-01"),
}
_DAYS: Final = Kind(_debezium("int", "Date"), temporal.days, b"1970-01-01")
_MILLI_TIME: Final = Kind(_debezium("int", "Time"), temporal.milli_time, _MIDNIGHT)
_MICRO_TIME: Final = Kind(_debezium("long", "MicroTime"), temporal.micro_time, _MIDNIGHT)
_TIMES: Final[Mapping[str, Kind]] = {
    "adaptive_time_microseconds": _MICRO_TIME,
    "connect": Kind(_connect("int", "Time", "time-millis"), temporal.milli_time, _MIDNIGHT),
    "microseconds": _MICRO_TIME,
    "nanoseconds": Kind(_debezium("long", "NanoTime"), temporal.nano_time, _MIDNIGHT),
    "isostring": Kind(_debezium("string", "IsoTime"), temporal.iso_time, _MIDNIGHT),
}
_MILLI_TIMESTAMP: Final = Kind(_debezium("long", "Timestamp"), temporal.milli_timestamp, _EPOCH)
_MICRO_TIMESTAMP: Final = Kind(_debezium("long", "MicroTimestamp"), temporal.micro_timestamp, _EPOCH)
_TIMESTAMPS: Final[Mapping[str, Kind]] = {
    "connect": Kind(_connect("long", "Timestamp", "timestamp-millis"), temporal.milli_timestamp, _EPOCH),
    "microseconds": _MICRO_TIMESTAMP,
    "nanoseconds": Kind(_debezium("long", "NanoTimestamp"), temporal.nano_timestamp, _EPOCH),
    "isostring": Kind(_debezium("string", "IsoTimestamp"), temporal.iso_timestamp, _EPOCH),
}


def rounding(kind: Kind, precision: int) -> Kind:
    """The kind of a time or timestamp with this many digits of a second; -1 and 6 are all."""
    return replace(kind, fit=partial(temporal.to_precision, precision)) if 0 <= precision < 6 else kind


def date(_typmod: int, modes: Modes) -> Kind:
    """date in days; by mode Connect's date or an ISO text."""
    return _DATES.get(modes.time_precision_mode, _DAYS)


def time(typmod: int, modes: Modes) -> Kind:
    """time in ms or µs by its precision; by mode one of them, ns or an ISO text."""
    adapted = _MILLI_TIME if 0 <= typmod <= 3 else _MICRO_TIME
    return rounding(_TIMES.get(modes.time_precision_mode, adapted), typmod)


def timestamp(typmod: int, modes: Modes) -> Kind:
    """timestamp in ms or µs by its precision; by mode one of them, ns or an ISO text."""
    adapted = _MILLI_TIMESTAMP if 0 <= typmod <= 3 else _MICRO_TIMESTAMP
    return rounding(_TIMESTAMPS.get(modes.time_precision_mode, adapted), typmod)


_DURATION: Final = Kind(_debezium("long", "MicroDuration"), temporal.micro_duration, _MIDNIGHT)
_INTERVAL: Final = Kind(_debezium("string", "Interval"), temporal.interval_text, _MIDNIGHT)


def interval(_typmod: int, modes: Modes) -> Kind:
    """interval in µs with months of average length, or an ISO text with all its parts."""
    return _INTERVAL if modes.interval_handling_mode == "string" else _DURATION


_BYTEA: Final = Kind("bytes", encoders.bytea, b"\\x", unavailable=PLACEHOLDER)


def bytea(_typmod: int, modes: Modes) -> Kind:
    """bytea as bytes, or as text."""
    mode = modes.binary_handling_mode
    if mode == "bytes":
        return _BYTEA
    return our_string("bytea", binary.bytea_text(mode), b"\\x", mode, unavailable=PLACEHOLDER)


_HSTORE: Final = Kind(named("string", "io.debezium.data.Json"), hstore, b"", unavailable=PLACEHOLDER)


def hstore_kind(_typmod: int, modes: Modes) -> Kind:
    """hstore as JSON or as a map of ["null", "string"]."""
    if modes.hstore_handling_mode == "json":
        return _HSTORE
    entry = sized(modes.placeholder)
    avro = {"type": "map", "values": ["null", "string"]}
    return Kind(avro, hstore_map, b"", unavailable=long_bytes(1) + entry + b"\x02" + entry + b"\x00")
