"""From PostgreSQL's text of one value straight to its Avro bytes, one function per kind of value.

Each takes the bytes that pgoutput or COPY shows under `type_table.SESSION_SETTINGS`. For anything else, UNCHANGED and
None included, it raises one of FAILURES, which the codec turns into a message with the column's name. Only the text of
UnrepresentableError is safe to show; the others may contain the value. Source: Avro specification, "Binary Encoding";
PostgreSQL manual, "Data Types".
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Final

_REMEMBERED: Final = 4096
_INT_DIGITS: Final = 4000
_NUMERIC_DIGITS: Final = 131_072 + 16_383
FAILURES: Final = (ValueError, TypeError, LookupError, AttributeError, OverflowError, struct.error)


class UnrepresentableError(ValueError):
    """A legal value that the Avro type cannot hold. The text says why, without the value."""


class NotedError(UnrepresentableError):
    """A value for which the kind writes something else (Kind.lenient), which people or the catalogue must hear of. The
    text is SPECIAL_NUMBER, or NEW_LABEL followed by the label, which is not shown."""

    def __init__(self, what: str, label: str = "") -> None:
        super().__init__(what)
        self.what = what + label


SPECIAL_NUMBER: Final = "NaN or infinity of numeric"
NEW_LABEL: Final = "a label that its enum did not have"


def long_bytes(number: int) -> bytes:
    """Avro's int and long: zigzag, then 7 bits per byte, low first."""
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


# Most ids, quantities and lengths take one look-up. LSNs and times in µs take two and their upper bits, which stay the
# same for 128 MB of log or for two minutes.
_SMALL: Final = 1 << 14
_SMALL_SQUARED: Final = 1 << 28
_VARINT: Final = [_varint(n) for n in range(_SMALL)]
_CONTINUED: Final = [bytes((n & 127 | 128, n >> 7 | 128)) for n in range(_SMALL)]
_high_bits = lru_cache(4096)(_varint)


class _Lengths(dict[int, bytes]):
    """Length → its Avro bytes. Long ones are computed and not kept."""

    def __missing__(self, length: int) -> bytes:
        return long_bytes(length)


LENGTHS: Final = _Lengths((n, long_bytes(n)) for n in range(2048))
BOOLEANS: Final = {b"t": b"\x01", b"f": b"\x00"}
SMALL_INTEGERS: Final = {str(n).encode(): long_bytes(n) for n in range(-99, 1000)}
"""All integers of at most three characters."""
INTEGER_CODE: Final = "(SMALL_INTEGERS[{0}] if len({0}) < 4 else long_bytes(int({0})))"


def sized(content: bytes) -> bytes:
    """Avro's bytes, and its string if the content is UTF-8."""
    return LENGTHS[len(content)] + content


def integer(text: bytes) -> bytes:
    """int2, int4, int8, oid."""
    return long_bytes(int(text))


def boolean(text: bytes) -> bytes:
    """`t` or `f`."""
    return BOOLEANS[text]


class Remembered(dict[bytes, bytes]):
    """What an encoder made of each text, for columns with few values. Forgets everything when there are too many."""

    def __init__(self, encode: Callable[[bytes], bytes]) -> None:
        super().__init__()
        self._encode = encode

    def __missing__(self, text: bytes) -> bytes:
        if len(self) >= _REMEMBERED:
            self.clear()
        made = self[text] = self._encode(text)
        return made


class FixedDecimals(Remembered):
    """Encodes numeric(p,s), which has a fixed number of digits after the point."""

    def __init__(self, encode: Callable[[bytes], bytes], scale: int) -> None:
        super().__init__(encode)
        self.scale = scale


def bit_boolean(text: bytes) -> bytes:
    """bit(1), a boolean in Debezium."""
    return {b"1": b"\x01", b"0": b"\x00"}[text]


_pack_double = struct.Struct("<d").pack
_pack_float = struct.Struct("<f").pack


def double(text: bytes) -> bytes:
    """float8, including NaN and the infinities."""
    return _pack_double(float(text))


_ROUNDED_TWICE: Final = {b"7.038531e-26": b"\xfd\x43\xae\x15", b"-7.038531e-26": b"\xfd\x43\xae\x95"}
"""Floats whose text is rounded twice on its way through a double. Of the texts that PostgreSQL shows, only these come
out different."""


def single(text: bytes) -> bytes:
    """float4."""
    return _ROUNDED_TWICE.get(text) or _pack_float(float(text))


def unscaled_bytes(number: int) -> bytes:
    """Two's complement, big-endian, as short as Java's BigInteger.toByteArray."""
    return number.to_bytes(((number if number >= 0 else ~number).bit_length() >> 3) + 1, "big", signed=True)


def decimal_encoder(precision: int, scale: int, exact: bool = True) -> Callable[[bytes], bytes]:
    """numeric(p,s) as the bytes of the unscaled number. PostgreSQL always shows exactly s digits after the point.

    No decimal can be NaN, so NaN is 10**p: one more than any value of that precision, and so neither null nor a value.
    Unless `exact`, it raises NotedError.
    """
    beyond = sized(unscaled_bytes(10**precision))

    def not_a_number() -> bytes:
        if not exact:
            raise NotedError(SPECIAL_NUMBER)
        return beyond

    def whole(text: bytes) -> bytes:
        if text == b"NaN":
            return not_a_number()
        return sized(unscaled_bytes(int(text)))

    def fraction(text: bytes) -> bytes:
        if text == b"NaN":
            return not_a_number()
        if text[-point] != 46:
            raise UnrepresentableError(
                f"not {scale} digits after the point: the type's scale in the catalogue is another one"
            )
        number = int(text.replace(b".", b""))
        content = number.to_bytes(((number if number >= 0 else ~number).bit_length() >> 3) + 1, "big", signed=True)
        return LENGTHS[len(content)] + content

    point = scale + 1
    # Prices, rates and quantities of a shop are few values many times.
    return FixedDecimals(fraction, scale).__getitem__ if scale > 0 else whole


_SPECIAL_DECIMALS: Final = {b"NaN": b"\x00\x00", b"Infinity": b"\x02\x00", b"-Infinity": b"\x01\x00"}


def _integer(text: bytes) -> int:
    """int() of any length that PostgreSQL has: up to 147,455 digits, while Python's int() takes 4300."""
    if len(text) <= _INT_DIGITS:
        return int(text)
    digits = text.removeprefix(b"-")
    if len(digits) > _NUMERIC_DIGITS or not digits.isdigit():
        raise UnrepresentableError("not a numeric")
    return -_of_digits(digits) if len(digits) < len(text) else _of_digits(digits)


def _of_digits(digits: bytes) -> int:
    if len(digits) <= _INT_DIGITS:
        return int(digits)
    half = len(digits) // 2
    shift: int = 10**half
    return _of_digits(digits[:-half]) * shift + _of_digits(digits[-half:])


def variable_scale_decimal(text: bytes) -> bytes:
    """numeric without scale: {scale, value}. NaN, Infinity and -Infinity have an empty value and the scale 0, 1 and -1.
    No reader takes an empty value for a number (Java's BigInteger refuses it)."""
    whole, _, fraction = text.partition(b".")
    if text in _SPECIAL_DECIMALS:
        return _SPECIAL_DECIMALS[text]
    return long_bytes(len(fraction)) + sized(unscaled_bytes(_integer(whole + fraction)))


def ordinary_decimal(text: bytes) -> bytes:
    """The same, but NotedError for NaN and the infinities."""
    if text in _SPECIAL_DECIMALS:
        raise NotedError(SPECIAL_NUMBER)
    return variable_scale_decimal(text)


class Labels(dict[bytes, bytes]):
    """An enum's labels and their Avro bytes. Any other label raises NotedError."""

    def __missing__(self, label: bytes) -> bytes:
        raise NotedError(NEW_LABEL, label.decode(errors="replace"))


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


def bits(text: bytes) -> bytes:
    """bit(n) as Debezium's Bits: little-endian bytes, the last bit of the text is bit 0; as few bytes as it takes."""
    number = int(text, 2)
    return sized(number.to_bytes((number.bit_length() + 7) // 8, "little"))
