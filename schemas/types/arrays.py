"""PostgreSQL's text of values made of values (arrays, hstore, point) to Avro bytes.

Source: PostgreSQL manual, "Array Input and Output Syntax" and "hstore External Representation".
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable

from schemas.types.encoders import UnrepresentableError, long_bytes, sized

_BOUNDS = re.compile(rb"(\[[-+]?\d+:[-+]?\d+\])+=")
# Possessive: backtracking would take 160 bytes of memory for each byte of a text.
_QUOTED = rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)"'
_PAIR = re.compile(rb"%b=>(?:%b|NULL)(?:, |\Z)" % (_QUOTED, _QUOTED), re.DOTALL)
_TOKENS = {
    delimiter: re.compile(rb'([{}%b])|%b|([^"{}\\%b]+)' % (delimiter, _QUOTED, delimiter), re.DOTALL)
    for delimiter in (b",", b";")
}


def _unescaped(quoted: bytes) -> bytes:
    """Without the backslash before each escaped character, which may be a backslash."""
    return b"\\".join(part.replace(b"\\", b"") for part in quoted.split(b"\\\\"))


def array_elements(text: bytes, delimiter: bytes = b",") -> list[bytes | None]:
    """The elements of an array in their text form. `delimiter`: `;` for box.

    An Avro array has neither a lower bound nor further dimensions: the bound is dropped, and the elements come one
    after the other, as unnest() gives them. UnrepresentableError if the text is not an array.
    """
    bounds = _BOUNDS.match(text)
    body = text if bounds is None else text[bounds.end() :]
    if body == b"{}":
        return []
    inner = body[1:-1]
    if body[:1] != b"{" or body[-1:] != b"}" or not inner:
        raise UnrepresentableError("not an array")
    if b'"' in inner or b"{" in inner or b"}" in inner or b"\\" in inner:
        return _scan(body, delimiter)
    elements = inner.split(delimiter)
    if b"" in elements:
        raise UnrepresentableError("not an array")
    return [None if element == b"NULL" else element for element in elements] if b"NULL" in elements else list(elements)


def _scan(body: bytes, delimiter: bytes) -> list[bytes | None]:
    """The same for elements in quotes or braces. Braces must close, and delimiters must be between values."""
    match = _TOKENS[delimiter].match
    elements: list[bytes | None] = []
    at, depth, valued = 0, 0, False
    while at < len(body):
        found = match(body, at)
        if found is None:
            raise UnrepresentableError("not an array")
        mark, quoted, plain = found.groups()
        opens = mark is None or mark == b"{"
        if valued == opens or (mark != b"{" and depth == 0):  # two values in a row, or a delimiter without a value
            raise UnrepresentableError("not an array")
        if mark is None:
            elements.append(_unescaped(quoted) if plain is None else None if plain == b"NULL" else plain)
        else:
            depth += {b"{": 1, b"}": -1}.get(mark, 0)
        valued = mark is None or mark == b"}"
        at = found.end()
    if depth or not valued:
        raise UnrepresentableError("not an array")
    return elements


def array_encoder(element: Callable[[bytes], bytes | None], delimiter: bytes = b",") -> Callable[[bytes], bytes]:
    """An encoder of arrays of ["null", element]. An element that `element` returns None for is null, too."""

    def encode(text: bytes) -> bytes:
        made = [None if item is None else element(item) for item in array_elements(text, delimiter)]
        items = [b"\x00" if item is None else b"\x02" + item for item in made]
        if not items:
            return b"\x00"
        return long_bytes(len(items)) + b"".join(items) + b"\x00"

    return encode


def _pairs(text: bytes) -> dict[bytes, bytes | None]:
    pairs: dict[bytes, bytes | None] = {}
    at = 0
    while at < len(text):
        found = _PAIR.match(text, at)
        if found is None:
            raise UnrepresentableError("not an hstore")
        name, value = (None if part is None else _unescaped(part) for part in found.groups())
        pairs[name or b""] = value
        at = found.end()
    return pairs


def hstore(text: bytes) -> bytes:
    """hstore as a JSON object (Debezium's hstore.handling.mode=json). NULL is null."""
    pairs = {name.decode(): None if value is None else value.decode() for name, value in _pairs(text).items()}
    return sized(json.dumps(pairs, ensure_ascii=False, separators=(",", ":")).encode())


def hstore_map(text: bytes) -> bytes:
    """hstore as an Avro map of ["null", "string"], Debezium's hstore.handling.mode=map."""
    pairs = _pairs(text)
    if not pairs:
        return b"\x00"
    items = [sized(name) + (b"\x00" if value is None else b"\x02" + sized(value)) for name, value in pairs.items()]
    return long_bytes(len(pairs)) + b"".join(items) + b"\x00"


_POINT = re.compile(rb"\(([^,()]+),([^,()]+)\)")
_pack_point = struct.Struct("<dd").pack
_WKB_HEAD = b"\x02" + sized(b"\x00" * 21)[:1] + b"\x01\x01\x00\x00\x00"  # branch, length; little-endian, type point


def point(text: bytes) -> bytes:
    """point as Debezium's Point: x, y, the same as well-known binary, and no srid."""
    found = _POINT.fullmatch(text)
    if found is None:
        raise UnrepresentableError("not a point")
    both = _pack_point(float(found[1]), float(found[2]))
    return both + _WKB_HEAD + both + b"\x00"
