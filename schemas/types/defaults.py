"""Column defaults of the catalogue as Avro defaults: a literal as the column keeps it, a function as the type's zero.

They exist so that a new NOT NULL column passes a registry's BACKWARD check. No reader of ours fills one in.
"""

from __future__ import annotations

import io
import json
import re
from typing import Any, Final, NamedTuple

import fastavro

from schemas.types.encoders import FAILURES
from schemas.types.type_table import AvroType, Kind

_QUOTED = re.compile(r"'((?:[^']|'')*)'(?:::[\w .\"()\[\],]+)?", re.DOTALL)
_NUMBER = re.compile(r"\(?'?(-?\d+(?:\.\d+)?)'?\)?(?:::[\w .\"(),]+)?")
_BOOLEAN = {"true": b"t", "false": b"f"}


def literal(expression: str) -> bytes | None:
    """The text of the value if pg_get_expr shows a plain literal, with or without a cast; else None."""
    if expression in _BOOLEAN:
        return _BOOLEAN[expression]
    number = _NUMBER.fullmatch(expression)
    if number is not None:
        return number[1].encode()
    quoted = _QUOTED.fullmatch(expression)
    return None if quoted is None else quoted[1].replace("''", "'").encode()


class Default(NamedTuple):
    """A column's default as JSON for the Avro schema, and as the bytes of a value. `there`: whether there is one."""

    there: bool
    shown: Any = None
    encoded: bytes = b""


NO_DEFAULT: Final = Default(False)


def avro_default(kind: Kind, expression: str | None, nullable: bool) -> Default:
    """The Avro default of a column.

    For a function it is the type's zero if NULL is not allowed, else none; the same for a literal that is not the value
    that the column would have. An array has no default, as in Debezium: null comes first in the union of its elements,
    so no Avro default could have an element. Nor has a record (numeric without a scale, point): Debezium's JDBC sink
    ends with an error when it makes a table from one.
    """
    if expression is None or expression.startswith("NULL::") or _is_compound(kind.avro):
        return NO_DEFAULT
    text = literal(expression)
    if expression in _BOOLEAN and kind.avro != "boolean":  # in a text column it is the text true, not t
        text = None
    for candidate, fit in ((text, kind.fit), (kind.zero if not nullable else None, bytes)):
        if candidate is None:
            continue
        try:
            encoded = kind.encode(fit(candidate))
            return Default(True, _json_of(kind.avro, encoded), encoded)
        except FAILURES:
            continue
    return NO_DEFAULT


def _is_compound(avro: AvroType) -> bool:
    return isinstance(avro, dict) and avro["type"] in ("array", "record")


def _json_of(avro: AvroType, encoded: bytes) -> Any:
    plain = {name: part for name, part in avro.items() if name != "logicalType"} if isinstance(avro, dict) else avro
    shown = _shown(fastavro.schemaless_reader(io.BytesIO(encoded), plain, None))
    json.dumps(shown, allow_nan=False)  # ValueError: JSON has no NaN, and a registry refuses a schema with one
    return shown


def _shown(value: Any) -> Any:
    """Avro's JSON of a default: bytes as the characters of the same code points."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value
