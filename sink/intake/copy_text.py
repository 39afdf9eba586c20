"""From the bytes of one Avro value to its text for COPY: what the generated decoders call. Pure.

All functions that read take the whole message and where the value begins, and return where it ends. If the bytes are
not such a value, they raise one of FAILURES. What they read past the end of the message, the next check finds. Source:
Avro specification, "Binary Encoding"; PostgreSQL manual, "COPY", section "Text Format", and "Array Input and Output
Syntax".
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final

from schemas.model.errors import DataError
from schemas.types.kind import Schema

Read = Callable[[bytes, int], tuple[Any, int]]
"""Reads what begins at a place of the message: (value as fastavro gives it without logical types, where it ends)."""

FAILURES: Final = (
    LookupError, ValueError, TypeError, ArithmeticError, AttributeError, RecursionError, struct.error
)  # fmt: skip


class _Null(bytes):
    """NULL has a class of its own, so that a value of the same byte is never taken for it."""


NULL: Final = _Null(b"\x02")
"""NULL in COPY's text: COPY … (NULL E'\\x02'). A value that is just this byte is escaped."""

_REMEMBERED: Final = 16_384
_SHORT: Final = 40
"""Longest text in bytes."""

INTEGERS: Final = tuple(b"%d" % ((n >> 1) ^ -(n & 1)) for n in range(1 << 14))
"""Zigzag → text, for numbers of one or two bytes."""

BOOLEANS: Final = (b"f", b"t")

LOWER_EXPONENT: Final = re.compile(rb"e[+-]?\d\d\d\d\d").search
UPPER_EXPONENT: Final = re.compile(rb"E[+-]?\d\d\d\d\d").search
"""What a number that is beyond numeric looks like in JSON; two, since a pattern of one first letter is found fast."""

WRITER_HINT: Final = "see what wrote it; the record cannot be staged"


class Remembered(dict[Any, bytes]):
    """What was made of each value, for columns with few distinct values. Forgets everything when there are too many.
    Long texts are not kept."""

    def __init__(self, make: Callable[[Any], bytes]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, value: Any) -> bytes:
        made = self._make(value)
        if len(made) <= _SHORT:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[value] = made
        return made


def long(b: bytes, i: int) -> tuple[int, int]:
    """Avro's int and long."""
    n = shift = 0
    for part in b[i : i + 10]:
        i += 1
        if part < 128:
            n |= part << shift
            return (n >> 1) ^ -(n & 1), i
        n |= (part & 127) << shift
        shift += 7
    raise ValueError("no long")


def span(b: bytes, i: int) -> tuple[int, int]:
    """Where the content of a string or of a bytes value begins and ends."""
    size, start = long(b, i)
    end = start + size
    if not start <= end <= len(b):
        raise ValueError("an invalid length")
    return start, end


def content(b: bytes, i: int) -> tuple[bytes, int]:
    """Avro's bytes."""
    start, end = span(b, i)
    return b[start:end], end


def string(b: bytes, i: int) -> tuple[str, int]:
    """Avro's string."""
    start, end = span(b, i)
    return b[start:end].decode(), end


def boolean(b: bytes, i: int) -> tuple[bool, int]:
    """Avro's boolean."""
    return (False, True)[b[i]], i + 1


def _null(_b: bytes, i: int) -> tuple[None, int]:
    return None, i


_float: Final = struct.Struct("<f").unpack_from
_double: Final = struct.Struct("<d").unpack_from


def single(b: bytes, i: int) -> tuple[float, int]:
    """Avro's float."""
    return _float(b, i)[0], i + 4


def double(b: bytes, i: int) -> tuple[float, int]:
    """Avro's double."""
    return _double(b, i)[0], i + 8


_SIMPLE: Final[dict[str, Read]] = {
    "null": _null,
    "boolean": boolean,
    "int": long,
    "long": long,
    "float": single,
    "double": double,
    "bytes": content,
    "string": string,
}


def reader(avro: Any, named: dict[str, Read]) -> Read:
    """A function that reads any value of an Avro type. `named`: the records so far. DataError for enum and fixed."""
    if isinstance(avro, list):
        return _union([reader(branch, named) for branch in avro])
    if isinstance(avro, str):
        known = _SIMPLE.get(avro) or named.get(avro)
        if known is None:
            raise DataError(f"a schema of the Avro type {avro}, which no connector writes", WRITER_HINT)
        return known
    if avro["type"] == "record":
        return _record(avro, named)
    if avro["type"] == "array":
        return _array(reader(avro["items"], named))
    if avro["type"] == "map":
        return _map(reader(avro["values"], named))
    return reader(avro["type"], named)


def _union(branches: Sequence[Read]) -> Read:
    def read(b: bytes, i: int) -> tuple[Any, int]:
        branch, i = long(b, i)
        if branch < 0:
            raise ValueError("an invalid branch")
        return branches[branch](b, i)

    return read


def _record(avro: Schema, named: dict[str, Read]) -> Read:
    fields: list[tuple[str, Read]] = []

    def read(b: bytes, i: int) -> tuple[dict[str, Any], int]:
        found = {}
        for name, read_field in fields:
            found[name], i = read_field(b, i)
        return found, i

    # Both names are known before the fields are read; the short one is for types of the same namespace.
    named[avro["name"]] = named[f"{avro.get('namespace', '')}.{avro['name']}"] = read
    fields += [(field["name"], reader(field["type"], named)) for field in avro["fields"]]
    return read


def _block(b: bytes, i: int) -> tuple[int, int]:
    """How many items the next block of an array or map has; 0 at its end."""
    count, i = long(b, i)
    if count < 0:  # its size in bytes comes next
        count, i = -count, long(b, i)[1]
    if count > len(b) - i:  # an item has at least one byte
        raise ValueError("an invalid count")
    return count, i


def _array(item: Read) -> Read:
    def read(b: bytes, i: int) -> tuple[list[Any], int]:
        items = []
        count, i = _block(b, i)
        while count:
            for _ in range(count):
                value, i = item(b, i)
                items.append(value)
            count, i = _block(b, i)
        return items, i

    return read


def _map(item: Read) -> Read:
    def read(b: bytes, i: int) -> tuple[dict[str, Any], int]:
        items = {}
        count, i = _block(b, i)
        while count:
            for _ in range(count):
                name, i = string(b, i)
                items[name], i = item(b, i)
            count, i = _block(b, i)
        return items, i

    return read


def text(value: Any) -> str:
    """The text that PostgreSQL reads as this value. Not for None."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() else str(value)
    if isinstance(value, datetime):
        return value.isoformat(" ")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return f"{value.days} days {value.seconds}.{value.microseconds:06d} seconds"
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, list):
        # Quotes do no harm around a number; NULL, braces and commas need them to keep their meaning.
        return "{" + ",".join("NULL" if item is None else _quoted(text(item)) for item in value) + "}"
    return str(value)


def _quoted(item: str) -> str:
    return '"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"'


def json_text(value: Any) -> str:
    """The JSON of a value that Avro keeps as a structure (a record, arrays of arrays)."""
    return json.dumps(value, ensure_ascii=False, default=str)


def shown(convert: Callable[[Any], Any] | None) -> Callable[[Any], bytes]:
    """Makes the text of an Avro value, through schemas.reading.values and Python."""
    if convert is None:
        return lambda value: text(value).encode()
    return lambda value: text(convert(value)).encode()


def number(show: Callable[[int], bytes]) -> Callable[[bytes, int], tuple[bytes, int]]:
    """A function that reads an int or long and makes its text."""

    def read(b: bytes, i: int) -> tuple[bytes, int]:
        value, i = long(b, i)
        return show(value), i

    return read


def shown_string(convert: Callable[[Any], Any]) -> Callable[[bytes], bytes]:
    """The same for the bytes of a string."""
    return lambda value: text(convert(value.decode())).encode()


def shown_decimal(convert: Callable[[Any], Any], scale: int, precision: int) -> Callable[[bytes], bytes]:
    """The same for the bytes of a decimal. Ordinary ones, positive and with digits after the point, go without
    Decimal."""
    unit, beyond, pattern = 10**scale, 10**precision, b"%%d.%%0%dd" % scale

    def show(value: bytes) -> bytes:
        unscaled = int.from_bytes(value, "big", signed=True)
        if scale and 0 <= unscaled < beyond:
            shown: bytes = pattern % divmod(unscaled, unit)
            return shown
        return text(convert(value)).encode()

    return show


def shown_bytea(value: bytes) -> bytes:
    """bytea in hex, already escaped for COPY."""
    return b"\\\\x" + value.hex().encode()


_MINUTE: Final = 60_000_000
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001  a timestamp without time zone has none
_FIRST_MINUTE: Final = (datetime.min - _EPOCH) // timedelta(minutes=1)  # noqa: DTZ901  the same
_LAST_MINUTE: Final = (datetime.max - _EPOCH) // timedelta(minutes=1)  # noqa: DTZ901  the same


def _minute(minutes: int) -> bytes:
    return (_EPOCH + timedelta(minutes=minutes)).isoformat(" ")[:-2].encode()


_MINUTES: Final = Remembered(_minute)
"""Minutes since 1970 → `2024-02-29 12:34:`. Rows that were written together share a few minutes."""


_PAIRS: Final = tuple(
    (a & 127) | (z & 127) << 7 if a > 127 and z > 127 else None for z in range(256) for a in range(256)
)
_LAST: Final = tuple((a & 127) | z << 7 if a > 127 and z < 128 else None for z in range(256) for a in range(256))
"""Two bytes in the middle and at the end of a long → their 14 bits."""
_four_pairs: Final = struct.Struct("<HHHH").unpack_from


def micro_timestamp(otherwise: Callable[[int], bytes]) -> Callable[[bytes, int], tuple[bytes, int]]:
    """A function that reads µs since 1970 and shows six digits after the point. `otherwise`: for years beyond Python's.
    Values of eight bytes, from 1974 to 3111, are read two bytes at a time."""

    def read(b: bytes, i: int) -> tuple[bytes, int]:
        try:
            first, second, third, last = _four_pairs(b, i)
            minutes, rest = divmod(
                _PAIRS[first] | _PAIRS[second] << 14 | _PAIRS[third] << 28 | _LAST[last] << 42, 2 * _MINUTE
            )
            if rest & 1 == 0:  # zigzag: not negative, and twice its value
                return b"%b%09.6f" % (_MINUTES[minutes], rest / 2_000_000), i + 8
        except (TypeError, struct.error):
            pass
        count, i = long(b, i)
        minutes, rest = divmod(count, _MINUTE)
        if _FIRST_MINUTE <= minutes <= _LAST_MINUTE:
            return b"%b%09.6f" % (_MINUTES[minutes], rest / 1_000_000), i
        return otherwise(count), i

    return read


def escaped(value: bytes) -> bytes:
    """The text of a value for COPY."""
    value = value.replace(b"\\", b"\\\\").replace(b"\t", b"\\t").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return value.replace(b"\x02", b"\\002")


_ESCAPED: Final = {b"\\\\": b"\\", b"\\t": b"\t", b"\\n": b"\n", b"\\r": b"\r", b"\\002": b"\x02"}
_ESCAPES: Final = re.compile(rb"\\(?:002|.)", re.DOTALL)


def unescaped(text: bytes) -> bytes:
    """The reverse of `escaped`."""
    return _ESCAPES.sub(lambda found: _ESCAPED[found[0]], text) if b"\\" in text else text
