"""bytea and money in modes other than the default."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Final

from schemas.types.encoders import UnrepresentableError, double, money, sized, unscaled_bytes

ENCODINGS: Final[dict[str, tuple[Callable[[bytes], bytes], Callable[[str], bytes]]]] = {
    "base64": (base64.b64encode, lambda text: base64.b64decode(text, validate=True)),
    "base64-url-safe": (base64.urlsafe_b64encode, base64.urlsafe_b64decode),
    "hex": (lambda content: content.hex().encode(), bytes.fromhex),
}
"""Debezium's binary.handling.mode → (to text, back from it)."""


def bytea_text(mode: str) -> Callable[[bytes], bytes]:
    """An encoder of bytea under bytea_output hex to a string in one of ENCODINGS."""
    written = ENCODINGS[mode][0]

    def encode(text: bytes) -> bytes:
        if text[:2] != b"\\x":
            raise UnrepresentableError("not in the form of bytea_output = hex")
        return sized(written(bytes.fromhex(text[2:].decode())))

    return encode


def _cents(text: bytes) -> int:
    encoded = money(text)  # one length byte: money is a 64-bit number
    return int.from_bytes(encoded[1:], "big", signed=True)


def money_encoder(digits: int) -> Callable[[bytes], bytes]:
    """money as a decimal of `digits` after the point, halves rounded away from zero as Debezium does."""
    if digits == 2:
        return money
    if digits > 2:
        return lambda text: sized(unscaled_bytes(_cents(text) * 10 ** (digits - 2)))
    unit = 10 ** (2 - digits)

    def encode(text: bytes) -> bytes:
        cents = _cents(text)
        rounded = (abs(cents) + unit // 2) // unit
        return sized(unscaled_bytes(rounded if cents >= 0 else -rounded))

    return encode


def _plain(text: bytes) -> bytes:
    money(text)  # raises if it is no money
    return text.replace(b"$", b"").replace(b",", b"")


def money_text(text: bytes) -> bytes:
    """money as a string without currency sign: `-1234.56`."""
    return sized(_plain(text))


def money_double(text: bytes) -> bytes:
    """money as a double."""
    return double(_plain(text))
