"""From PostgreSQL's text of dates, times and intervals to Avro bytes, over PostgreSQL's whole range if Avro has it.

As in schemas.types.encoders, anything that is not a text of the type raises one of its FAILURES. Source: PostgreSQL
manual, "Date/Time Output"; Debezium's temporal types.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Final

from schemas.types.encoders import UnrepresentableError, long_bytes, sized

MICROSECONDS_PER_DAY: Final = 86_400_000_000
EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001  a timestamp without time zone has none
_SERVER_EPOCH: Final = datetime(2000, 1, 1)  # noqa: DTZ001  the same
_MICROSECOND: Final = timedelta(microseconds=1)
_EPOCH_ORDINAL: Final = EPOCH.toordinal()
INFINITE_DATE: Final = 2_146_033_979  # what Debezium writes for date 'infinity'; beyond PostgreSQL's last date
INFINITE_TIMESTAMP: Final = 2**63 - 1
MINUS_INFINITE_TIMESTAMP: Final = -(2**63)
AROUND: Final = 2**64 - 2
"""The µs of PostgreSQL's last 30 years, from 294247-01-10, do not fit into a long. They wrap around to the far negative
numbers, as in Debezium, and two further, so that none is an infinity. No timestamp of PostgreSQL is before -AROUND /
4."""

# The wide forms: any year of the common era or before it, as PostgreSQL shows it.
_DATE_TIME = re.compile(
    rb"(?P<year>\d{4,7})-(?P<month>\d\d)-(?P<day>\d\d)"
    rb"(?: (?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)(?:\.(?P<fraction>\d{1,6}))?)?"
    rb"(?P<zone>[+-]\d\d(?::\d\d){0,2})?(?P<before> BC)?"
)
_FRACTION = re.compile(rb"(\d{4}-\d\d-\d\d )?(\d\d:\d\d:\d\d)\.(?P<fraction>\d{1,6})((?:[+-]\d\d(?::\d\d){0,2})?)")
_TIME = re.compile(rb"(\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?")


def days_since_epoch(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the proleptic Gregorian calendar for any astronomical year (0 is 1 BC)."""
    cycles, rest = divmod(year - 1, 400)  # 400 years are 146,097 days
    return date(rest + 1, month, day).toordinal() - _EPOCH_ORDINAL + 146_097 * cycles


def _match_date_time(text: bytes) -> re.Match[bytes]:
    found = _DATE_TIME.fullmatch(text)
    if found is None:
        raise UnrepresentableError("not in the form of DateStyle = ISO")
    return found


def _astronomical_year(found: re.Match[bytes]) -> int:
    year = int(found["year"])
    return 1 - year if found["before"] else year


@lru_cache(8192)
def days(text: bytes) -> bytes:
    """date as days since 1970; infinity and -infinity are ±INFINITE_DATE."""
    if text[4] == 45 and len(text) == 10:
        return long_bytes(date.fromisoformat(text.decode()).toordinal() - _EPOCH_ORDINAL)
    if text in (b"infinity", b"-infinity"):
        return long_bytes(INFINITE_DATE if text == b"infinity" else -INFINITE_DATE)
    found = _match_date_time(text)
    return long_bytes(days_since_epoch(_astronomical_year(found), int(found["month"]), int(found["day"])))


def _microseconds(hour: bytes, minute: bytes, second: bytes, fraction: bytes | None) -> int:
    whole = int(hour) * 3600 + int(minute) * 60 + int(second)
    return whole * 1_000_000 + int((fraction or b"").ljust(6, b"0"))


def _timestamp(text: bytes) -> int | None:
    """µs since 1970 of any timestamp without time zone; None for an infinity."""
    if text[4] == 45 and text[-1] != 67:  # four digits of year, and not the C of BC
        return (datetime.fromisoformat(text.decode()) - EPOCH) // _MICROSECOND
    if text in (b"infinity", b"-infinity"):
        return None
    found = _match_date_time(text)
    passed_days = days_since_epoch(_astronomical_year(found), int(found["month"]), int(found["day"]))
    return passed_days * MICROSECONDS_PER_DAY + _microseconds(*found.group("hour", "minute", "second", "fraction"))


def _infinite(text: bytes) -> bytes:
    return long_bytes(INFINITE_TIMESTAMP if text == b"infinity" else MINUS_INFINITE_TIMESTAMP)


def micro_timestamp(text: bytes) -> bytes:
    """timestamp, timestamp(4-6) as µs since 1970; infinity and -infinity are the ends of long, as in Debezium."""
    moment = _timestamp(text)
    if moment is None:
        return _infinite(text)
    return long_bytes(moment if moment < INFINITE_TIMESTAMP else moment - AROUND)


def milli_timestamp(text: bytes) -> bytes:
    """timestamp(0-3) as ms since 1970; the infinities as in micro_timestamp."""
    moment = _timestamp(text)
    return _infinite(text) if moment is None else long_bytes(moment // 1000)


def nano_timestamp(text: bytes) -> bytes:
    """timestamp as ns since 1970. Outside 1677-09-21 to 2262-04-11 it is an infinity, the ends of long."""
    moment = _timestamp(text)
    if moment is None:
        return _infinite(text)
    return long_bytes(max(MINUS_INFINITE_TIMESTAMP, min(moment * 1000, INFINITE_TIMESTAMP)))


def _iso_date(found: re.Match[bytes]) -> bytes:
    year = _astronomical_year(found)
    shown = b"%04d" % year if 0 <= year <= 9999 else b"%+05d" % year
    return b"%b-%b-%b" % (shown, found["month"], found["day"])


def _iso(text: bytes, zone: bytes | None, digits: int = 0) -> bytes:
    found = _match_date_time(text)
    if found["zone"] != zone or found["hour"] is None:
        raise UnrepresentableError("not in the form of TimeZone = UTC")
    clock = text[text.index(b" ") + 1 :].removesuffix(b" BC").removesuffix(b"+00")
    return sized(b"%bT%bZ" % (_iso_date(found), _with_digits(clock, digits, 9)))


def _with_digits(text: bytes, digits: int, before: int) -> bytes:
    """Fills up with zeros to this many digits of a second. `before`: where the first digit is."""
    return (text if b"." in text else text + b".").ljust(before + digits, b"0") if digits else text


def zoned_timestamp(digits: int, text: bytes) -> bytes:
    """timestamptz under TimeZone UTC as ISO 8601 with Z; years before 0 with `-`, after 9999 with `+`, as in Java. It
    has all `digits` of its column's precision, as in Debezium: `10:34:56.120000Z`."""
    if text[-3:] == b"+00" and text[4] == 45:
        return sized(_with_digits(text[:-3].replace(b" ", b"T"), digits, 20) + b"Z")
    return sized(text) if text in (b"infinity", b"-infinity") else _iso(text, b"+00", digits)


def iso_timestamp(text: bytes) -> bytes:
    """timestamp in the form of zoned_timestamp, Debezium's IsoTimestamp."""
    return sized(text) if text in (b"infinity", b"-infinity") else _iso(text, None)


def iso_date(text: bytes) -> bytes:
    """date as Debezium's IsoDate: `2024-02-29Z`; wide years as in zoned_timestamp."""
    if text in (b"infinity", b"-infinity"):
        return sized(text)
    found = _match_date_time(text)
    if found["zone"] is not None or found["hour"] is not None:
        raise UnrepresentableError("not in the form of DateStyle = ISO")
    return sized(_iso_date(found) + b"Z")


def _time_of_day(text: bytes) -> int:
    found = _TIME.fullmatch(text)
    if found is None:
        raise UnrepresentableError("not a time of day")
    return _microseconds(*found.groups())


def micro_time(text: bytes) -> bytes:
    """time, time(4-6) as µs since midnight; 24:00:00 is 86,400,000,000."""
    return long_bytes(_time_of_day(text))


def milli_time(text: bytes) -> bytes:
    """time(0-3) as ms since midnight."""
    return long_bytes(_time_of_day(text) // 1000)


def nano_time(text: bytes) -> bytes:
    """time as ns since midnight."""
    return long_bytes(_time_of_day(text) * 1000)


def iso_time(text: bytes) -> bytes:
    """time as Debezium's IsoTime: `12:30:00.5Z`; 24:00:00 is kept."""
    if _TIME.fullmatch(text) is None:
        raise UnrepresentableError("not a time of day")
    return sized(text + b"Z")


_ZONED_TIME = re.compile(rb"(\d\d:\d\d:\d\d(?:\.\d+)?)([+-]\d\d(?::\d\d){0,2})")


def zoned_time(text: bytes) -> bytes:
    """timetz as ISO 8601 with its own offset (Debezium moves it to UTC and so loses the offset)."""
    found = _ZONED_TIME.fullmatch(text)
    if found is None:
        raise UnrepresentableError("not a time with time zone")
    zone = found[2]
    return sized(found[1] + (b"Z" if zone == b"+00" else zone if b":" in zone else zone + b":00"))


def to_precision(digits: int, text: bytes) -> bytes:
    """Rounds a time or timestamp, with its zone if it has one, to this many digits of a second, as a column does. The
    server rounds halves away from 2000-01-01, from where it counts. Only years of four digits have their fractions
    rounded."""
    found = _FRACTION.fullmatch(text)
    if found is None and b"." in text:
        raise UnrepresentableError("not a year of four digits")
    if found is None or len(found["fraction"]) <= digits:
        return text
    day, clock, fraction, zone = found.groups()
    moment = datetime.fromisoformat(((day or b"2000-01-01 ") + clock + b"." + fraction).decode())
    count, step = (moment - _SERVER_EPOCH) // _MICROSECOND, 10 ** (6 - digits)
    away = (abs(count) + step // 2) // step * step
    rounded = _SERVER_EPOCH + timedelta(microseconds=away if count >= 0 else -away)
    if not day and rounded.day > 1:
        return b"24:00:00" + zone
    shown = rounded.isoformat(" ")[0 if day else 11 :]
    return (shown.rstrip("0") if "." in shown else shown).encode() + zone


_INTERVAL = re.compile(
    rb"(?:(?P<years>-?\d+) years? ?)?(?:(?P<months>-?\d+) mons? ?)?(?:(?P<days>-?\d+) days? ?)?"
    rb"(?:(?P<sign>-?)(?P<hour>\d+):(?P<minute>\d\d):(?P<second>\d\d)(?:\.(?P<fraction>\d{1,6}))?)?"
)
_MICROSECONDS_PER_MONTH = MICROSECONDS_PER_DAY * 1461 // 48  # 365.25 / 12 days


def _interval_parts(text: bytes) -> tuple[int, int, int, int]:
    """(years, months, days, µs) as PostgreSQL keeps them: each with a sign of its own."""
    found = _INTERVAL.fullmatch(text.replace(b"+", b""))
    if found is None or not text:
        raise UnrepresentableError("not in the form of IntervalStyle = postgres")
    years, months, whole_days, sign, hour, minute, second, fraction = found.groups()
    clock = 0 if hour is None else _microseconds(hour, minute, second, fraction)
    return int(years or 0), int(months or 0), int(whole_days or 0), -clock if sign == b"-" else clock


def micro_duration(text: bytes) -> bytes:
    """interval under IntervalStyle postgres as µs. A month has 365.25/12 days, as in Debezium. The infinite intervals
    of PostgreSQL 17 are the ends of long. Longer intervals than fit into a long become the longest, 292,271 years."""
    if text in (b"infinity", b"-infinity"):
        return _infinite(text)
    years, months, whole_days, clock = _interval_parts(text)
    length = (years * 12 + months) * _MICROSECONDS_PER_MONTH + whole_days * MICROSECONDS_PER_DAY + clock
    return long_bytes(max(MINUS_INFINITE_TIMESTAMP + 1, min(length, INFINITE_TIMESTAMP - 1)))


def interval_text(text: bytes) -> bytes:
    """interval as Debezium's Interval, ISO 8601: `P1Y2M-3DT-4H-5M-6.7S`, which PostgreSQL reads again."""
    if text in (b"infinity", b"-infinity"):
        return sized(text)
    years, months, whole_days, clock = _interval_parts(text)
    sign = b"-" if clock < 0 else b""
    minutes, microseconds = divmod(abs(clock), 60_000_000)
    hours, minutes = divmod(minutes, 60)
    seconds = b"%d" % (microseconds // 1_000_000)
    if microseconds % 1_000_000:
        seconds += (b".%06d" % (microseconds % 1_000_000)).rstrip(b"0")
    signed = [sign + part if part != b"0" else part for part in (b"%d" % hours, b"%d" % minutes, seconds)]
    return sized(b"P%dY%dM%dDT%bH%bM%bS" % (years, months, whole_days, signed[0], signed[1], signed[2]))
