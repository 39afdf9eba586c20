"""Avro bytes as JSON text, as Kafka Connect's JsonConverter writes it with `schemas.enable=false`, and back.

The text is made from the Avro record, so that one place decides how a type travels. Bytes, and so decimals, are base64
(the converter's `decimal.format` BASE64). A double that is not a number is Jackson's string `NaN`, `Infinity` or
`-Infinity`.
"""

from __future__ import annotations

import base64
import io
import json
import math
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

import fastavro

from schemas.model.errors import DataError
from schemas.types.kind import Schema

Show = Callable[[Any], Any]
_FLOAT: Final = struct.Struct("<f")


def json_text(schema: Schema) -> Callable[[bytes], bytes]:
    """A function from a record's Avro bytes to JSON text (UTF-8, fields in the schema's order), which raises DataError
    for a text that is not UTF-8."""
    parsed = fastavro.parse_schema(without_logical_types(schema))
    show = _show(schema, {}, _SHOWN) or _as_it_is
    name = f"{schema.get('namespace', '')}.{schema['name']}"

    def text(avro: bytes) -> bytes:
        try:
            record = fastavro.schemaless_reader(io.BytesIO(avro), parsed, None)
        except UnicodeDecodeError:
            hint = "fix the row, or leave the column out: JSON is always UTF-8"
            raise DataError(f"{name}: a text is not UTF-8", hint) from None
        return _encode(show(record)).encode()

    return text


def avro_bytes(schema: Schema) -> Callable[[bytes], bytes]:
    """The reverse of json_text: a function from JSON text to a record's Avro bytes, which raises DataError for any
    other text."""
    parsed = fastavro.parse_schema(without_logical_types(schema))
    read = _show(schema, {}, _READ) or _as_it_is
    name = f"{schema.get('namespace', '')}.{schema['name']}"

    def avro(text: bytes) -> bytes:
        out = io.BytesIO()
        try:
            fastavro.schemaless_writer(out, parsed, read(json.loads(text)))
        except (LookupError, ValueError, TypeError, ArithmeticError, AttributeError, RecursionError, struct.error):
            raise DataError(f"{name}: JSON that does not fit the schema ({len(text)} bytes)") from None
        return out.getvalue()

    return avro


def without_logical_types(schema: Any) -> Any:
    """The schema without logical types, so that values are read as they are written: bytes for decimals."""
    if isinstance(schema, dict):
        return {name: without_logical_types(part) for name, part in schema.items() if name != "logicalType"}
    return [without_logical_types(part) for part in schema] if isinstance(schema, list) else schema


def _show(avro: Any, named: dict[str, Show | None], simple: Mapping[str, Show]) -> Show | None:
    """A function from a value of a type to a JSON value, or back; None if JSON has the value itself. `named`: the
    records so far. `simple`: the functions for simple types."""
    if isinstance(avro, list):
        # Ours are of null and a type.
        show = next((_show(branch, named, simple) for branch in avro if branch != "null"), None)
        return None if show is None else _unless_null(show)
    if isinstance(avro, str):
        return simple.get(avro) or named.get(avro)
    if avro["type"] == "record":
        fields = [(field["name"], _show(field["type"], named, simple)) for field in avro["fields"]]
        changed = [(name, show) for name, show in fields if show is not None]
        named[avro["name"]] = named[f"{avro.get('namespace')}.{avro['name']}"] = shown = _fields(changed)
        return shown
    if avro["type"] in ("array", "map"):
        show = _show(avro["items" if avro["type"] == "array" else "values"], named, simple)
        return None if show is None else _each(show)
    return _show(avro["type"], named, simple)


def _unless_null(show: Show) -> Show:
    return lambda value: None if value is None else show(value)


def _each(show: Show) -> Show:
    def each(values: Any) -> Any:
        if isinstance(values, dict):
            return {name: show(value) for name, value in values.items()}
        return [show(value) for value in values]

    return each


def _fields(changed: list[tuple[str, Show]]) -> Show | None:
    def fields(record: dict[str, Any]) -> dict[str, Any]:
        for name, show in changed:
            record[name] = show(record[name])
        return record

    return fields if changed else None


def _double(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _float(value: float) -> float | str:
    """A 32-bit float with the digits that it needs: 0.1 instead of 0.10000000149011612."""
    if not math.isfinite(value):
        return _double(value)
    exact = _FLOAT.pack(value)
    return next(short for short in (float(f"{value:.{digits}g}") for digits in range(6, 10)) if _is(short, exact))


def _is(number: float, exact: bytes) -> bool:
    try:
        return _FLOAT.pack(number) == exact
    except OverflowError:  # rounded up beyond the largest
        return False


def _as_it_is(value: Any) -> Any:
    return value


def _base64(value: object) -> str:
    if not isinstance(value, bytes):
        raise TypeError(type(value).__name__)
    return base64.b64encode(value).decode()


_SHOWN: Final[Mapping[str, Show]] = {"double": _double, "float": _float}  # and bytes, by `default` below
_READ: Final[Mapping[str, Show]] = {"double": float, "float": float, "bytes": base64.b64decode}
_encode: Final = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":"), default=_base64
).encode
