"""From PostgreSQL's text of one value straight to its Avro bytes, one function per kind of value.

Each takes the bytes that pgoutput or COPY shows under `type_table.SESSION_SETTINGS` and raises for anything else,
UNCHANGED and None included (one of FAILURES); the codec turns that into
a message with the column's name. Only UnrepresentableError's text is safe to show; the others' may hold the value.
Source: Avro specification, "Binary Encoding"; PostgreSQL manual, "Date/Time Output".
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Final

FAILURES: Final = (ValueError, TypeError, LookupError, AttributeError, OverflowError, struct.error)

MICROSECONDS_PER_DAY: Final = 86_400_000_000
EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001  a timestamp without time zone has none
_MICROSECOND: Final = timedelta(microseconds=1)
_EPOCH_ORDINAL: Final = EPOCH.toordinal()
INFINITE_DATE: Final = 2_146_033_979  # what Debezium writes for date 'infinity'; beyond PostgreSQL's last date
INFINITE_TIMESTAMP: Final = 2**63 - 1
MINUS_INFINITE_TIMESTAMP: Final = -(2**63)


class UnrepresentableError(ValueError):
    """A legal value that the Avro type cannot hold; the text says why without showing the value."""


def long_bytes(number: int) -> bytes:
    """Avro's int and long: zigzag, then 7 bits a byte, low first."""
    rest = number << 1 if number >= 0 else (-number << 1) - 1
    if rest < _SMALL:
        return _VARINT[rest]
    if rest < _SMALL_SQUARED:
        return _CONTINUED[rest & (_SMALL - 1)] + _VARINT[rest >> 14]
    return _CONTINUED[rest & (_SMALL - 1)] + _CONTINUED[rest >> 14 & (_SMALL - 1)] + _high_bits(rest >> 28)


def _varint(rest: int) -> bytes:
    parts = bytearray()
    while rest > 127:
        parts.append(rest & 127 | 128)
        rest >>= 7
    parts.append(rest)
    return bytes(parts)


# Most ids, quantities and lengths are one look-up. An LSN and a time in µs are two and the bits above, which are the
# same for 128 MB of log and for two minutes.
_SMALL: Final = 1 << 14
_SMALL_SQUARED: Final = 1 << 28
_VARINT: Final = [_varint(n) for n in range(_SMALL)]
_CONTINUED: Final = [bytes((n & 127 | 128, n >> 7 | 128)) for n in range(_SMALL)]
_high_bits = lru_cache(4096)(_varint)


class _Lengths(dict[int, bytes]):
    """Length → its Avro bytes; long ones are computed and not kept."""

    def __missing__(self, length: int) -> bytes:
        return long_bytes(length)


LENGTHS: Final = _Lengths((n, long_bytes(n)) for n in range(2048))
BOOLEANS: Final = {b"t": b"\x01", b"f": b"\x00"}


def sized(content: bytes) -> bytes:
    """Avro's bytes, and its string when the content is UTF-8."""
    return LENGTHS[len(content)] + content


def integer(text: bytes) -> bytes:
    """int2, int4, int8, oid."""
    return long_bytes(int(text))


def boolean(text: bytes) -> bytes:
    """`t` or `f`."""
    return BOOLEANS[text]


def bit_boolean(text: bytes) -> bytes:
    """bit(1), a boolean in Debezium."""
    return {b"1": b"\x01", b"0": b"\x00"}[text]


_pack_double = struct.Struct("<d").pack
_pack_float = struct.Struct("<f").pack


def double(text: bytes) -> bytes:
    """float8; NaN and the infinities are what they are."""
    return _pack_double(float(text))


def single(text: bytes) -> bytes:
    """float4."""
    return _pack_float(float(text))


def unscaled_bytes(number: int) -> bytes:
    """Two's complement, big-endian, as short as Java's BigInteger.toByteArray."""
    return number.to_bytes(((number if number >= 0 else ~number).bit_length() >> 3) + 1, "big", signed=True)


def decimal_encoder(precision: int, scale: int) -> Callable[[bytes], bytes]:
    """numeric(p,s) as the bytes of the unscaled number; PostgreSQL always shows exactly s digits after the point.

    NaN, which no decimal can be, is 10**p: one more than any value of that precision, so neither null nor a value.
    """
    not_a_number = sized(unscaled_bytes(10**precision))

    def whole(text: bytes) -> bytes:
        if text == b"NaN":
            return not_a_number
        return sized(unscaled_bytes(int(text)))

    def fraction(text: bytes) -> bytes:
        if text == b"NaN":
            return not_a_number
        if text[-point] != 46:
            raise UnrepresentableError(
                f"not {scale} digits after the point: the type's scale in the catalogue is another one"
            )
        number = int(text.replace(b".", b""))
        content = number.to_bytes(((number if number >= 0 else ~number).bit_length() >> 3) + 1, "big", signed=True)
        return LENGTHS[len(content)] + content

    point = scale + 1
    return fraction if scale > 0 else whole


_SPECIAL_DECIMALS: Final = {b"NaN": b"\x00\x00", b"Infinity": b"\x02\x00", b"-Infinity": b"\x01\x00"}


def variable_scale_decimal(text: bytes) -> bytes:
    """numeric without scale: {scale, value}. NaN, Infinity and -Infinity have an empty value and scale 0, 1 and -1.

    An empty value is no number in any reader (Java's BigInteger refuses it), so it is taken for nothing else.
    """
    whole, _, fraction = text.partition(b".")
    if text in _SPECIAL_DECIMALS:
        return _SPECIAL_DECIMALS[text]
    return long_bytes(len(fraction)) + sized(unscaled_bytes(int(whole + fraction)))


def money(text: bytes) -> bytes:
    """money under lc_monetary C: `$1,234.56`, `-$1,234.56`; scale 2."""
    if not re.fullmatch(rb"-?\$[0-9,]+\.\d\d", text):
        raise UnrepresentableError("not in the form of lc_monetary = C")
    return sized(unscaled_bytes(int(re.sub(rb"[$,.]", b"", text))))


def bytea(text: bytes) -> bytes:
    r"""bytea under bytea_output hex: `\xdeadbeef`."""
    if text[:2] != b"\\x":
        raise UnrepresentableError("not in the form of bytea_output = hex")
    return sized(bytes.fromhex(text[2:].decode()))


def bits_encoder(length: int) -> Callable[[bytes], bytes]:
    """bit(n) as Debezium's Bits: little-endian bytes, the last bit of the text is bit 0."""
    size = (length + 7) // 8
    return lambda text: sized(int(text, 2).to_bytes(size, "little"))


# The wide forms: any year of the common era or before it, as PostgreSQL shows it.
_DATE_TIME = re.compile(
    rb"(?P<year>\d{4,7})-(?P<month>\d\d)-(?P<day>\d\d)"
    rb"(?: (?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)(?:\.(?P<fraction>\d{1,6}))?)?"
    rb"(?P<zone>[+-]\d\d(?::\d\d){0,2})?(?P<before> BC)?"
)
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
    """µs since 1970 of any timestamp without time zone; None: an infinity."""
    if text[4] == 45 and text[-1] != 67:  # four digits of year, and not the C of BC
        return (datetime.fromisoformat(text.decode()) - EPOCH) // _MICROSECOND
    if text in (b"infinity", b"-infinity"):
        return None
    found = _match_date_time(text)
    passed_days = days_since_epoch(_astronomical_year(found), int(found["month"]), int(found["day"]))
    moment = passed_days * MICROSECONDS_PER_DAY + _microseconds(*found.group("hour", "minute", "second", "fraction"))
    if moment >= INFINITE_TIMESTAMP:
        raise UnrepresentableError("a timestamp after the year 294246 is more microseconds than a long holds")
    return moment


def _infinite(text: bytes) -> bytes:
    return long_bytes(INFINITE_TIMESTAMP if text == b"infinity" else MINUS_INFINITE_TIMESTAMP)


def micro_timestamp(text: bytes) -> bytes:
    """timestamp, timestamp(4-6) as µs since 1970; infinity and -infinity are the ends of long, as in Debezium."""
    moment = _timestamp(text)
    return _infinite(text) if moment is None else long_bytes(moment)


def milli_timestamp(text: bytes) -> bytes:
    """timestamp(0-3) as ms since 1970; the infinities as in micro_timestamp."""
    moment = _timestamp(text)
    return _infinite(text) if moment is None else long_bytes(moment // 1000)


def zoned_timestamp(text: bytes) -> bytes:
    """timestamptz under TimeZone UTC as ISO 8601 with Z; years before 0 with `-`, after 9999 with `+`, as in Java."""
    if text[-3:] == b"+00" and text[4] == 45:
        return LENGTHS[len(text) - 2] + text[:10] + b"T" + text[11:-3] + b"Z"
    if text in (b"infinity", b"-infinity"):
        return sized(text)
    found = _match_date_time(text)
    if found["zone"] != b"+00" or found["hour"] is None:
        raise UnrepresentableError("not in the form of TimeZone = UTC")
    year = _astronomical_year(found)
    shown = b"%04d" % year if 0 <= year <= 9999 else b"%+05d" % year
    return sized(shown + text[text.index(b"-") :].removesuffix(b" BC").removesuffix(b"+00").replace(b" ", b"T") + b"Z")


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


def zoned_time(text: bytes) -> bytes:
    """timetz as ISO 8601 with its own offset (Debezium moves it to UTC and so loses the zone that PostgreSQL keeps)."""
    found = re.fullmatch(rb"(\d\d:\d\d:\d\d(?:\.\d+)?)([+-]\d\d(?::\d\d){0,2})", text)
    if found is None:
        raise UnrepresentableError("not a time with time zone")
    zone = found[2]
    return sized(found[1] + (b"Z" if zone == b"+00" else zone if b":" in zone else zone + b":00"))


_INTERVAL = re.compile(
    rb"(?:(?P<years>-?\d+) years? ?)?(?:(?P<months>-?\d+) mons? ?)?(?:(?P<days>-?\d+) days? ?)?"
    rb"(?:(?P<sign>-?)(?P<hour>\d+):(?P<minute>\d\d):(?P<second>\d\d)(?:\.(?P<fraction>\d{1,6}))?)?"
)
_MICROSECONDS_PER_MONTH = MICROSECONDS_PER_DAY * 1461 // 48  # 365.25 / 12 days


def micro_duration(text: bytes) -> bytes:
    """interval under IntervalStyle postgres as µs; a month has 365.25/12 days, as in Debezium.

    The infinite intervals of PostgreSQL 17 are the ends of long.
    """
    if text in (b"infinity", b"-infinity"):
        return _infinite(text)
    found = _INTERVAL.fullmatch(text.replace(b"+", b""))
    if found is None or not text:
        raise UnrepresentableError("not in the form of IntervalStyle = postgres")
    years, months, whole_days, sign, hour, minute, second, fraction = found.groups()
    clock = 0 if hour is None else _microseconds(hour, minute, second, fraction)
    all_months = int(years or 0) * 12 + int(months or 0)
    length = all_months * _MICROSECONDS_PER_MONTH + int(whole_days or 0) * MICROSECONDS_PER_DAY
    length += -clock if sign == b"-" else clock
    if abs(length) >= INFINITE_TIMESTAMP:
        raise UnrepresentableError("an interval of more microseconds than a long holds")
    return long_bytes(length)
