"""Avro values to Python values in full fidelity, and the PostgreSQL type of a column that holds them.

| Avro (connect.name) | Python | PostgreSQL |
| --- | --- | --- |
| decimal | Decimal (NaN: see encoders.decimal_encoder) | numeric(p,s) |
| VariableScaleDecimal | Decimal, NaN and infinities too | numeric |
| Date | date | date |
| Time, MicroTime | time | time(3), time |
| ZonedTime | its ISO text | timetz |
| Timestamp, MicroTimestamp | datetime without zone | timestamp(3), timestamp |
| ZonedTimestamp | datetime in UTC | timestamptz |
| MicroDuration | timedelta | interval |
| Json, Uuid, Xml, Enum, other strings | str | jsonb, uuid, text |
| Bits | the text of its bits | bit(n) |

A date or time that Python's type cannot hold (infinity, BC, year 10000, 24:00:00) is a str that PostgreSQL reads as its
input: `infinity`, `0044-03-15 BC`, `10000-01-01 00:00:00+00`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal
from typing import Any, Final, NamedTuple

from schemas.temporal import EPOCH, INFINITE_DATE, INFINITE_TIMESTAMP, MICROSECONDS_PER_DAY, MINUS_INFINITE_TIMESTAMP

Convert = Callable[[Any], Any]

_ANY_PRECISION: Final = Context(prec=200_000)  # more than PostgreSQL's longest numeric
_FIRST_DAY: Final = date.min.toordinal() - EPOCH.toordinal()
_LAST_DAY: Final = date.max.toordinal() - EPOCH.toordinal()
_SPECIAL_DECIMALS: Final = {0: "NaN", 1: "Infinity", -1: "-Infinity"}
_ISO_WIDE: Final = re.compile(r"([+-]\d{4,6})(-\d\d-\d\d)T(.*)Z")


class ColumnValue(NamedTuple):
    """How a field is read: `convert` from what fastavro gives (None: as it is), `type` for PostgreSQL."""

    convert: Convert | None
    type: str


def _decimal(scale: int, precision: int) -> Convert:
    beyond = 10**precision

    def convert(content: bytes) -> Decimal:
        unscaled = int.from_bytes(content, "big", signed=True)
        return Decimal("NaN") if unscaled == beyond else Decimal(unscaled).scaleb(-scale, _ANY_PRECISION)

    return convert


def _variable_scale(record: dict[str, Any]) -> Decimal:
    if not record["value"]:
        return Decimal(_SPECIAL_DECIMALS[record["scale"]])
    return Decimal(int.from_bytes(record["value"], "big", signed=True)).scaleb(-record["scale"], _ANY_PRECISION)


def _date_text(days: int) -> tuple[str, str]:
    """(date, era) of any day as PostgreSQL shows it."""
    cycles, rest = divmod(days - _FIRST_DAY, 146_097)  # days of 400 years
    shown = date.fromordinal(rest + 1)
    year = shown.year + 400 * cycles
    era = "" if year > 0 else " BC"
    return f"{year if year > 0 else 1 - year:04d}-{shown:%m-%d}", era


def _date(days: int) -> date | str:
    if _FIRST_DAY <= days <= _LAST_DAY:
        return date.fromordinal(days + EPOCH.toordinal())
    if abs(days) == INFINITE_DATE:
        return "infinity" if days > 0 else "-infinity"
    return "".join(_date_text(days))


def _timestamp(unit: int) -> Convert:
    def convert(count: int) -> datetime | str:
        if count in (INFINITE_TIMESTAMP, MINUS_INFINITE_TIMESTAMP):
            return "infinity" if count > 0 else "-infinity"
        days, rest = divmod(count * unit, MICROSECONDS_PER_DAY)
        if _FIRST_DAY <= days <= _LAST_DAY:
            return EPOCH + timedelta(days, 0, rest)
        text, era = _date_text(days)
        return f"{text} {_clock(rest)}{era}"

    return convert


def _clock(microseconds: int) -> str:
    seconds, fraction = divmod(microseconds, 1_000_000)
    shown = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{shown}.{fraction:06d}".rstrip("0") if fraction else shown


def _time(unit: int) -> Convert:
    def convert(count: int) -> time | str:
        microseconds = count * unit
        if microseconds >= MICROSECONDS_PER_DAY:
            return _clock(microseconds)
        return (datetime.min + timedelta(microseconds=microseconds)).time()  # noqa: DTZ901  only its time is used

    return convert


def _zoned_timestamp(text: str) -> datetime | str:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        found = _ISO_WIDE.fullmatch(text)
        if found is None:
            if text in ("infinity", "-infinity"):
                return text
            if re.fullmatch(r"0000-\d\d-\d\dT.*Z", text):
                return f"0001{text[4:10]} {text[11:-1]}+00 BC"
            raise
        year = int(found[1])
        era = "" if year > 0 else " BC"
        return f"{year if year > 0 else 1 - year:04d}{found[2]} {found[3]}+00{era}"


def _duration(microseconds: int) -> timedelta | str:
    if microseconds in (INFINITE_TIMESTAMP, MINUS_INFINITE_TIMESTAMP):
        return "infinity" if microseconds > 0 else "-infinity"
    return timedelta(microseconds=microseconds)


def _bits(length: int) -> Convert:
    return lambda content: f"{int.from_bytes(content, 'little'):0{length}b}"


_PLAIN: Final = {
    "boolean": "boolean",
    "int": "integer",
    "long": "bigint",
    "float": "real",
    "double": "double precision",
    "string": "text",
    "bytes": "bytea",
}

_NAMED: Final = {
    "io.debezium.time.Date": ColumnValue(_date, "date"),
    "io.debezium.time.Time": ColumnValue(_time(1000), "time(3)"),
    "io.debezium.time.MicroTime": ColumnValue(_time(1), "time"),
    "io.debezium.time.ZonedTime": ColumnValue(None, "timetz"),
    "io.debezium.time.Timestamp": ColumnValue(_timestamp(1000), "timestamp(3)"),
    "io.debezium.time.MicroTimestamp": ColumnValue(_timestamp(1), "timestamp"),
    "io.debezium.time.ZonedTimestamp": ColumnValue(_zoned_timestamp, "timestamptz"),
    "io.debezium.time.MicroDuration": ColumnValue(_duration, "interval"),
    "io.debezium.time.Interval": ColumnValue(None, "interval"),
    "io.debezium.data.Json": ColumnValue(None, "jsonb"),
    "io.debezium.data.Uuid": ColumnValue(None, "uuid"),
    "io.debezium.data.Xml": ColumnValue(None, "text"),  # a server may be built without xml
    "io.debezium.data.VariableScaleDecimal": ColumnValue(_variable_scale, "numeric"),
}


def column_value(avro: Any, named: dict[str, Any]) -> ColumnValue:
    """How a field of this Avro type is read; `named` are the records defined before, by full name."""
    if isinstance(avro, list):
        return column_value(next(branch for branch in avro if branch != "null"), named)
    if isinstance(avro, str):
        return ColumnValue(None, _PLAIN[avro]) if avro in _PLAIN else column_value(named[avro], named)
    if avro["type"] == "record":
        named[f"{avro.get('namespace', '')}.{avro['name']}"] = avro
    name = avro.get("connect.name", "")
    if name in _NAMED:
        return _NAMED[name]
    if avro.get("logicalType") == "decimal" or name == "org.apache.kafka.connect.data.Decimal":
        return _decimal_value(avro)
    if name == "io.debezium.data.Bits":
        length = int(avro["connect.parameters"]["length"])
        return ColumnValue(_bits(length), f"bit({length})")
    return _composite(avro, named)


def _decimal_value(avro: dict[str, Any]) -> ColumnValue:
    scale, precision = int(avro.get("scale", 0)), int(avro.get("precision", 64))
    # Precision 64 is what a decimal without one has (money).
    return ColumnValue(_decimal(scale, precision), "numeric" if precision == 64 else f"numeric({precision},{scale})")


def _composite(avro: dict[str, Any], named: dict[str, Any]) -> ColumnValue:
    if avro["type"] == "array":
        element = column_value(avro["items"], named)
        if element.type.endswith("[]"):
            return ColumnValue(None, "jsonb")
        return ColumnValue(_each(element.convert) if element.convert else None, f"{element.type}[]")
    if avro["type"] in _PLAIN:
        return ColumnValue(None, "smallint" if avro.get("connect.type") == "int16" else _PLAIN[avro["type"]])
    return ColumnValue(None, "jsonb")


def _each(convert: Convert) -> Convert:
    return lambda items: [None if item is None else convert(item) for item in items]
