"""Avro schemas of change records, exactly as Debezium 3.x registers them, and the static ones from `avsc/`."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from schemas.model.errors import DataError
from schemas.types.kind import AvroType, Schema


@dataclass(frozen=True, slots=True)
class Field:
    """A column as a field of a record. `default`: its Avro JSON default if `has_default`. `source`: parameters with its
    PostgreSQL type (types.source_type), only for a row's field."""

    name: str
    avro: AvroType
    nullable: bool
    has_default: bool = False
    default: Any = None
    doc: str | None = None
    source: Mapping[str, str] = dataclasses.field(default_factory=dict)


def static_schema(name: str) -> Schema:
    """A fresh copy of `avsc/<name>.avsc`, a schema that no table shapes."""
    schema: Schema = json.loads(_static_text(name))
    return schema


@cache
def _static_text(name: str) -> str:
    return files("schemas").joinpath("avsc", f"{name}.avsc").read_text("utf-8")


def adjust_name(name: str) -> str:
    """A legal Avro name as Debezium's adjustment mode `avro` makes it: "Order ID" → Order_ID, "größe" → gr__e."""
    # Java counts UTF-16 units, so a character beyond the basic plane becomes two.
    kept = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "__" if ord(c) > 0xFFFF else "_" for c in name)
    return f"_{kept}" if not kept or kept[0].isdigit() else kept


def adjust_namespace(topic: str) -> str:
    """The same for each part of a dotted name."""
    return ".".join(adjust_name(part) for part in topic.split("."))


def topic_name(prefix: str, table: str) -> str:
    """The topic of a table, `prefix.schema.table`, with `_` for characters that Kafka does not allow."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", f"{prefix}.{table}")


def field_names(table: str, columns: Sequence[str]) -> tuple[str, ...]:
    """The adjusted names of a table's columns. DataError if two of them become the same."""
    seen: dict[str, str] = {}
    for column in columns:
        other = seen.setdefault(adjust_name(column), column)
        if other != column:
            raise DataError(
                f'table {table}: columns "{other}" and "{column}" both become the Avro field {adjust_name(column)}',
                "rename one of them, or leave it out of the publication's column list",
            )
    return tuple(seen)


def key_schema(topic: str, fields: Sequence[Field]) -> Schema:
    """`<topic>.Key`, one field for each key column."""
    return _record(topic, "Key", _fields([replace(field, source={}) for field in fields]))


def value_schema(topic: str, fields: Sequence[Field]) -> Schema:
    """`<topic>.Envelope` with the row as `<topic>.Value`, in the order of fields of Debezium 3.x."""
    row = _record(topic, "Value", _fields(fields))
    del row["namespace"]  # the envelope's namespace applies
    envelope: list[Schema] = [
        {"name": "before", "type": ["null", row], "default": None},
        {"name": "after", "type": ["null", "Value"], "default": None},
        {"name": "source", "type": static_schema("Source")},
        {"name": "transaction", "type": ["null", static_schema("block")], "default": None},
        {"name": "op", "type": "string"},
        *({"name": name, "type": ["null", "long"], "default": None} for name in ("ts_ms", "ts_us", "ts_ns")),
    ]
    return _record(topic, "Envelope", envelope) | {"connect.version": 2}


def _record(topic: str, name: str, fields: list[Schema]) -> Schema:
    namespace = adjust_namespace(topic)
    return {
        "type": "record",
        "name": name,
        "namespace": namespace,
        "fields": fields,
        "connect.name": f"{namespace}.{name}",
    }


def _fields(fields: Sequence[Field]) -> list[Schema]:
    named: set[str] = set()
    return [_field(field, named) for field in fields]


def _field(field: Field, named: set[str]) -> Schema:
    """One field. `named` collects the records so far: Avro defines each once, and then refers to it by name."""
    avro = _with_parameters(_reference(field.avro, named), field.source)
    if field.has_default:
        avro = ({"type": avro} if isinstance(avro, str) and "." not in avro else avro)  # fmt: skip
        if isinstance(avro, dict):
            avro = {**avro, "connect.default": field.default}
    shown: Schema = {"name": field.name, "type": avro}
    if field.nullable:
        # The branch of the default comes first, so a column with a default has null last.
        shown["type"] = [avro, "null"] if field.has_default else ["null", avro]
        shown["default"] = None
    if field.has_default:
        shown["default"] = field.default
    if field.doc is not None:
        shown["doc"] = field.doc
    return shown


def _with_parameters(avro: AvroType, source: Mapping[str, str]) -> AvroType:
    if not source or (isinstance(avro, str) and "." in avro):  # a record's parameters are where it is defined
        return avro
    avro = {"type": avro} if isinstance(avro, str) else avro
    if avro["type"] == "record":  # other columns call it by name
        source = {name: value for name, value in source.items() if not name.endswith(".name")}
    return {**avro, "connect.parameters": {**avro.get("connect.parameters", {}), **source}}


def _reference(avro: AvroType, named: set[str]) -> AvroType:
    if isinstance(avro, str):
        return avro
    if avro["type"] == "array":
        return {**avro, "items": [avro["items"][0], _reference(avro["items"][1], named)]}
    if avro["type"] != "record":
        return avro
    name = f"{avro['namespace']}.{avro['name']}"
    if name in named:
        return name
    named.add(name)
    return avro
