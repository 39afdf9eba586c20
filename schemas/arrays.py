"""PostgreSQL's text of composite values (arrays, hstore) to Avro bytes.

Source: PostgreSQL manual, "Array Input and Output Syntax" and "hstore External Representation".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

from schemas.encoders import UnrepresentableError, long_bytes, sized

_BOUNDS = re.compile(rb"(\[[-+]?\d+:[-+]?\d+\])+=")
_ELEMENT = re.compile(rb'"((?:[^"\\]|\\.)*)"|([^",{}\\]+)', re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_PAIR = re.compile(rb'"((?:[^"\\]|\\.)*)"=>(?:"((?:[^"\\]|\\.)*)"|NULL)(?:, |\Z)', re.DOTALL)


def array_elements(text: bytes) -> Iterator[bytes | None]:
    """The elements of a one-dimensional array in their text form; a lower bound other than 1 is not kept.

    Raises UnrepresentableError for more dimensions, which one Avro array of values cannot hold.
    """
    bounds = _BOUNDS.match(text)
    body = text if bounds is None else text[bounds.end() :]
    if body[:1] != b"{" or body[-1:] != b"}":
        raise UnrepresentableError("not an array")
    if body[1:2] == b"{":
        raise UnrepresentableError("an array of more than one dimension")
    at, end = 1, len(body) - 1
    while at < end:
        found = _ELEMENT.match(body, at, end)
        if found is None:
            raise UnrepresentableError("not an array")
        quoted, plain = found.groups()
        if quoted is not None:
            yield _ESCAPED.sub(rb"\1", quoted)
        else:
            yield None if plain.upper() == b"NULL" else plain
        at = found.end() + 1


def array_encoder(element: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """An encoder of arrays of ["null", element], null the first branch."""

    def encode(text: bytes) -> bytes:
        items = [b"\x00" if item is None else b"\x02" + element(item) for item in array_elements(text)]
        if not items:
            return b"\x00"
        return long_bytes(len(items)) + b"".join(items) + b"\x00"

    return encode


def hstore(text: bytes) -> bytes:
    """hstore as a JSON object, as Debezium's hstore.handling.mode=json."""
    pairs: dict[str, str | None] = {}
    at = 0
    while at < len(text):
        found = _PAIR.match(text, at)
        if found is None:
            raise UnrepresentableError("not an hstore")
        name, value = (None if part is None else _ESCAPED.sub(rb"\1", part).decode() for part in found.groups())
        pairs[str(name)] = value
        at = found.end()
    return sized(json.dumps(pairs, ensure_ascii=False, separators=(",", ":")).encode())
