"""JSON text with its schema, as Kafka Connect's JsonConverter writes it with `schemas.enable=true`: `{"schema",
"payload"}`.

Source: Apache Kafka, org.apache.kafka.connect.json.JsonConverter (asJsonSchema) and JsonSchema.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any, Final

from schemas.reading.json_text import json_text
from schemas.types.kind import Schema

_TYPES: Final = {
    "boolean": "boolean", "int": "int32", "long": "int64", "float": "float", "double": "double", "bytes": "bytes",
    "string": "string",
}  # fmt: skip
_TEXT: Final = {"type": "string", "optional": False}


def json_with_schema(schema: Schema) -> Callable[[bytes], bytes]:
    """A function from a record's Avro bytes to JSON text, like json_text, with the schema in each."""
    text = json_text(schema)
    head = json.dumps({"schema": connect_schema(schema)}, ensure_ascii=False, separators=(",", ":"))
    before = head.encode()[:-1] + b',"payload":'
    return lambda avro: b"%b%b}" % (before, text(avro))


def connect_schema(schema: Schema) -> dict[str, Any]:
    """Connect's schema of an Avro record of ours, as JSON. Records that Avro only names the second time are written
    out."""
    return _shown(schema, {})


def _shown(avro: Any, named: dict[str, Any], optional: bool = False) -> dict[str, Any]:
    """`named`: the records so far, by the names that Avro may use for them."""
    if isinstance(avro, list):  # ours are of null and a type
        return _shown(next(branch for branch in avro if branch != "null"), named, "null" in avro)
    if isinstance(avro, str):
        return _shown(named[avro], named, optional) if avro in named else {"type": _TYPES[avro], "optional": optional}
    shown = _parts(avro, named) | {"optional": optional}
    if "connect.name" in avro:
        shown["name"] = avro["connect.name"]
    for name in ("version", "doc", "parameters"):
        if f"connect.{name}" in avro:
            shown[name] = avro[f"connect.{name}"]
    return shown


def _parts(avro: dict[str, Any], named: dict[str, Any]) -> dict[str, Any]:
    """The type, and what it is made of."""
    kind = avro["type"]
    if kind == "array":
        return {"type": "array", "items": _shown(avro["items"], named)}
    if kind == "map":
        return {"type": "map", "keys": _TEXT, "values": _shown(avro["values"], named)}
    if kind == "record":
        fields = [_field(field, named) for field in avro["fields"]]
        named[avro["name"]] = named[f"{avro.get('namespace')}.{avro['name']}"] = avro
        return {"type": "struct", "fields": fields}
    return {"type": avro.get("connect.type", _TYPES[kind])}


def _field(field: Schema, named: dict[str, Any]) -> dict[str, Any]:
    shown = _shown(field["type"], named)
    if "doc" in field:
        shown["doc"] = field["doc"]
    if field.get("default") is not None:
        shown["default"] = _default(field["default"], shown)
    return shown | {"field": field["name"]}


def _default(value: Any, schema: dict[str, Any]) -> Any:
    """Avro's default as JSON of a value: its bytes are characters, the converter's base64."""
    if schema["type"] == "bytes":
        return base64.b64encode(value.encode("latin-1")).decode()
    if schema["type"] == "struct":
        return {field["field"]: _default(value[field["field"]], field) for field in schema["fields"]}
    return value
