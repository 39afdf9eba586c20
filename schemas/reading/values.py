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
| IsoDate, IsoTime, IsoTimestamp | as date, time, timestamp | date, time, timestamp |
| NanoTime, NanoTimestamp | as time, timestamp | time, timestamp |
| Interval | its ISO text | interval |
| Point | `(x,y)` | point |
| a string with `ordertap.type` (modes) | as its type | its type |
| map (hstore) | its JSON text | jsonb |
| Bits | the text of its bits | bit(n) |

A date or time that Python's type cannot hold (infinity, BC, year 10000, 24:00:00) is a str that PostgreSQL reads as its
input: `infinity`, `0044-03-15 BC`, `10000-01-01 00:00:00+00`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal
from typing import Any, Final, NamedTuple

from schemas.types.binary import ENCODINGS
from schemas.types.kind import OUR_ENCODING, OUR_TYPE
from schemas.types.temporal import (
    AROUND,
    EPOCH,
    INFINITE_DATE,
    INFINITE_TIMESTAMP,
    MICROSECONDS_PER_DAY,
    MINUS_INFINITE_TIMESTAMP,
)

Convert = Callable[[Any], Any]

_ANY_PRECISION: Final = Context(prec=200_000)  # more than PostgreSQL's longest numeric
_LONGEST_NUMERIC: Final = 61_440  # bytes; PostgreSQL's 147,455 digits take fewer, and a megabyte takes minutes
_FIRST_DAY: Final = date.min.toordinal() - EPOCH.toordinal()
_LAST_DAY: Final = date.max.toordinal() - EPOCH.toordinal()
_SPECIAL_DECIMALS: Final = {0: "NaN", 1: "Infinity", -1: "-Infinity"}
_ISO_WIDE: Final = re.compile(r"([+-]\d{4,7}|0000)(-\d\d-\d\d)(?:T(\d\d:\d\d:\d\d(?:\.\d+)?))?Z")


_NUMERIC: Final = re.compile(r"numeric(\([0-9]{1,4},[0-9]{1,4}\))?")


class ColumnValue(NamedTuple):
    """How a field is read. `convert`: from what fastavro gives (None: no conversion). `type`: for PostgreSQL."""

    convert: Convert | None
    type: str


def _decimal(scale: int, precision: int) -> Convert:
    beyond = 10**precision

    def convert(content: bytes) -> Decimal:
        unscaled = _unscaled(content)
        return Decimal("NaN") if unscaled == beyond else Decimal(unscaled).scaleb(-scale, _ANY_PRECISION)

    return convert


def _variable_scale(record: dict[str, Any]) -> Decimal:
    if not record["value"]:
        return Decimal(_SPECIAL_DECIMALS[record["scale"]])
    return Decimal(_unscaled(record["value"])).scaleb(-record["scale"], _ANY_PRECISION)


def _unscaled(content: bytes) -> int:
    if len(content) > _LONGEST_NUMERIC:
        raise ValueError("more digits than numeric has")
    return int.from_bytes(content, "big", signed=True)


def _date_text(days: int) -> tuple[str, str]:
    """(date, era) of any day, as PostgreSQL shows it."""
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


def _moment(microseconds: int) -> datetime | str:
    days, rest = divmod(microseconds, MICROSECONDS_PER_DAY)
    if _FIRST_DAY <= days <= _LAST_DAY:
        return EPOCH + timedelta(days, 0, rest)
    text, era = _date_text(days)
    return f"{text} {_clock(rest)}{era}"


def _timestamp(to_microseconds: Callable[[int], int]) -> Convert:
    def convert(count: int) -> datetime | str:
        if count in (INFINITE_TIMESTAMP, MINUS_INFINITE_TIMESTAMP):
            return "infinity" if count > 0 else "-infinity"
        return _moment(to_microseconds(count))

    return convert


def _unwound(microseconds: int) -> int:
    return microseconds if microseconds > -AROUND // 4 else microseconds + AROUND


def _clock(microseconds: int) -> str:
    seconds, fraction = divmod(microseconds, 1_000_000)
    shown = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{shown}.{fraction:06d}".rstrip("0") if fraction else shown


def _time(to_microseconds: Callable[[int], int]) -> Convert:
    def convert(count: int) -> time | str:
        microseconds = to_microseconds(count)
        if microseconds >= MICROSECONDS_PER_DAY:
            return _clock(microseconds)
        return (datetime.min + timedelta(microseconds=microseconds)).time()  # noqa: DTZ901  only its time is used

    return convert


def _iso_time(text: str) -> time | str:
    return "24:00:00" if text == "24:00:00Z" else time.fromisoformat(text.removesuffix("Z"))


def _wide(text: str) -> tuple[str, str, str]:
    """(date, clock, era), as PostgreSQL shows them, of an ISO date or timestamp beyond Python's years."""
    found = _ISO_WIDE.fullmatch(text)
    if found is None:
        raise ValueError("not an ISO date")
    year = int(found[1])
    return f"{year if year > 0 else 1 - year:04d}{found[2]}", found[3] or "", "" if year > 0 else " BC"


def _zoned_timestamp(text: str) -> datetime | str:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        if text in ("infinity", "-infinity"):
            return text
        day, clock, era = _wide(text)
        return f"{day} {clock}+00{era}"


def _iso_timestamp(text: str) -> datetime | str:
    moment = _zoned_timestamp(text)
    return moment.replace(tzinfo=None) if isinstance(moment, datetime) else moment.replace("+00", "")


def _iso_date(text: str) -> date | str:
    try:
        return date.fromisoformat(text.removesuffix("Z"))
    except ValueError:
        if text in ("infinity", "-infinity"):
            return text
        day, _, era = _wide(text)
        return day + era


def _point(record: dict[str, float]) -> str:
    return f"({record['x']!r},{record['y']!r})"


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


def _thousand(count: int) -> int:
    return count * 1000


def _thousandth(count: int) -> int:
    return count // 1000


_NAMED: Final = {
    "io.debezium.time.Date": ColumnValue(_date, "date"),
    "io.debezium.time.IsoDate": ColumnValue(_iso_date, "date"),
    "io.debezium.time.Time": ColumnValue(_time(_thousand), "time(3)"),
    "io.debezium.time.MicroTime": ColumnValue(_time(int), "time"),
    "io.debezium.time.NanoTime": ColumnValue(_time(_thousandth), "time"),
    "io.debezium.time.IsoTime": ColumnValue(_iso_time, "time"),
    "io.debezium.time.ZonedTime": ColumnValue(None, "timetz"),
    "io.debezium.time.Timestamp": ColumnValue(_timestamp(_thousand), "timestamp(3)"),
    "io.debezium.time.MicroTimestamp": ColumnValue(_timestamp(_unwound), "timestamp"),
    "io.debezium.time.NanoTimestamp": ColumnValue(_timestamp(_thousandth), "timestamp"),
    "io.debezium.time.IsoTimestamp": ColumnValue(_iso_timestamp, "timestamp"),
    "io.debezium.time.ZonedTimestamp": ColumnValue(_zoned_timestamp, "timestamptz"),
    "io.debezium.time.MicroDuration": ColumnValue(_duration, "interval"),
    "io.debezium.time.Interval": ColumnValue(None, "interval"),
    "io.debezium.data.Json": ColumnValue(None, "jsonb"),
    "io.debezium.data.Uuid": ColumnValue(None, "uuid"),
    "io.debezium.data.Xml": ColumnValue(None, "text"),  # a server may be built without xml
    "io.debezium.data.VariableScaleDecimal": ColumnValue(_variable_scale, "numeric"),
    "io.debezium.data.geometry.Point": ColumnValue(_point, "point"),
    "org.apache.kafka.connect.data.Date": ColumnValue(_date, "date"),
    "org.apache.kafka.connect.data.Time": ColumnValue(_time(_thousand), "time(3)"),
    "org.apache.kafka.connect.data.Timestamp": ColumnValue(_timestamp(_thousand), "timestamp(3)"),
}


def column_value(avro: Any, named: dict[str, Any]) -> ColumnValue:
    """How a field of this Avro type is read. `named`: the records defined before, by full name."""
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
    if OUR_TYPE in avro.get("connect.parameters", {}):
        return _our_string(avro["connect.parameters"])
    return _composite(avro, named)


def _our_string(parameters: dict[str, str]) -> ColumnValue:
    """How a string written by a mode is read: a number, or bytes in an encoding. Other type names in a schema are not
    trusted, because the name becomes SQL: such a field is text."""
    name, encoding = parameters[OUR_TYPE], ENCODINGS.get(parameters.get(OUR_ENCODING, ""))
    if name == "bytea" and encoding is not None:
        return ColumnValue(encoding[1], name)
    return ColumnValue(Decimal, name) if _NUMERIC.fullmatch(name) else ColumnValue(None, "text")


def _decimal_value(avro: dict[str, Any]) -> ColumnValue:
    scale, precision = int(avro.get("scale", 0)), int(avro.get("precision", 64))
    # Precision 64 is what a decimal without one has (money); 1000 is PostgreSQL's largest, numeric(1000,-1) has more.
    declared = "numeric" if precision == 64 or precision > 1000 else f"numeric({precision},{scale})"
    return ColumnValue(_decimal(scale, precision), declared)


def _composite(avro: dict[str, Any], named: dict[str, Any]) -> ColumnValue:
    if avro["type"] == "array":
        element = column_value(avro["items"], named)
        if element.type.endswith("[]"):
            return ColumnValue(None, "jsonb")
        return ColumnValue(_each(element.convert) if element.convert else None, f"{element.type}[]")
    if avro["type"] in _PLAIN:
        return ColumnValue(None, "smallint" if avro.get("connect.type") == "int16" else _PLAIN[avro["type"]])
    return ColumnValue(_json_text if avro["type"] == "map" else None, "jsonb")


def _json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _each(convert: Convert) -> Convert:
    return lambda items: [None if item is None else convert(item) for item in items]
