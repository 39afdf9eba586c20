"""Reads `{"schema", "payload"}` as Kafka Connect's JsonConverter does: by the schema in the text.

Source: Apache Kafka, JsonConverter (asConnectSchema, convertToConnect) and SchemaBuilder, whose checks these are.
"""

from __future__ import annotations

import base64
import json
from decimal import Decimal
from typing import Any, Final

_INTEGERS: Final = {"int8": 8, "int16": 16, "int32": 32, "int64": 64}
_PARTS: Final = {"type", "optional", "name", "version", "doc", "parameters", "default", "field"}
_PARTS_OF: Final = {"array": {"items"}, "map": {"keys", "values"}, "struct": {"fields"}}
DECIMAL: Final = "org.apache.kafka.connect.data.Decimal"


def read(text: bytes) -> Any:
    """The value. AssertionError for anything that the converter would refuse, or that no schema describes. null stays
    null even if a column has a default, as with `replace.null.with.default=false`."""

    def refused(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    envelope = json.loads(text, parse_constant=refused)
    assert envelope.keys() == {"schema", "payload"}
    return _value(envelope["schema"], envelope["payload"])


def _value(schema: dict[str, Any], value: Any) -> Any:
    assert schema.keys() <= _PARTS | _PARTS_OF.get(schema["type"], set())
    assert isinstance(schema["optional"], bool)
    assert all(isinstance(part, str) for part in schema.get("parameters", {}).values())
    if "default" in schema:
        assert _there(schema, schema["default"]) is not None
    if value is None:
        assert schema["optional"]
        return None
    return _there(schema, value)


def _there(schema: dict[str, Any], value: Any) -> Any:
    kind = schema["type"]
    if kind in _INTEGERS:
        assert type(value) is int
        assert -(1 << _INTEGERS[kind] - 1) <= value < 1 << _INTEGERS[kind] - 1
    elif kind in ("float", "double"):
        assert type(value) in (int, float) or value in ("NaN", "Infinity", "-Infinity")
    elif kind in ("boolean", "string"):
        assert type(value) is (bool if kind == "boolean" else str)
    elif kind == "bytes":
        content = base64.b64decode(value, validate=True)
        return _decimal(schema, content) if schema.get("name") == DECIMAL else content
    elif kind == "array":
        return [_value(schema["items"], item) for item in value]
    elif kind == "map":
        return {_value(schema["keys"], name): _value(schema["values"], part) for name, part in value.items()}
    else:
        assert kind == "struct"
        assert [field["field"] for field in schema["fields"]] == [*value]
        return {field["field"]: _value(field, value[field["field"]]) for field in schema["fields"]}
    return value


def _decimal(schema: dict[str, Any], content: bytes) -> Decimal:
    return Decimal(int.from_bytes(content, "big", signed=True)).scaleb(-int(schema["parameters"]["scale"]))
