"""How one type travels (Kind), and the Avro types that kinds are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from schemas.model.change import UNAVAILABLE
from schemas.types.encoders import sized

AvroType: TypeAlias = str | dict[str, Any]
Schema = dict[str, Any]

PLACEHOLDER: Final = sized(UNAVAILABLE.encode())
STRING_CODE: Final = "LENGTHS[len({0})] + {0}"
BOOLEAN_CODE: Final = "BOOLEANS[{0}]"
CALL_CODE: Final = "{encode}({0})"
OUR_TYPE: Final = "ordertap.type"
"""The parameter that names a string's PostgreSQL type if Debezium's schema does not tell it."""

OUR_ENCODING: Final = "ordertap.encoding"


@dataclass(frozen=True, slots=True)
class Kind:
    """How one type travels.

    `encode` turns text into Avro bytes; `code` is the same as an expression for generated code (`{0}` is the cell).
    `zero` is the text that stands for "no value" where the schema allows no null. `unavailable` are the Avro bytes of a
    TOAST value that was not sent, None when the type cannot say so. `known` is False where text stands for a type that
    has no row in the table of types. `fit` makes of a literal (a column's default) the text that a row of this type
    shows. `lenient` makes what is written of a text for which `encode` raises NotedError, None for null.
    """

    avro: AvroType
    encode: Callable[[bytes], bytes]
    zero: bytes
    code: str = CALL_CODE
    unavailable: bytes | None = None
    known: bool = True
    fit: Callable[[bytes], bytes] = bytes
    lenient: Callable[[bytes], bytes | None] | None = None


def named(avro: str, name: str, parameters: dict[str, str] | None = None) -> dict[str, Any]:
    """A simple type with Connect's name for it."""
    shown: dict[str, Any] = {"type": avro, "connect.version": 1}
    if parameters:
        shown["connect.parameters"] = parameters
    shown["connect.name"] = name
    return shown


def string(name: str | None = None, zero: bytes = b"", parameters: dict[str, str] | None = None) -> Kind:
    """A type whose text is its value, with Connect's name if it has one."""
    avro: AvroType = "string" if name is None else named("string", name, parameters)
    return Kind(avro, sized, zero, STRING_CODE, PLACEHOLDER)


def our_string(
    type_name: str, encode: Callable[[bytes], bytes], zero: bytes, encoding: str | None = None, **rest: Any
) -> Kind:
    """A string whose PostgreSQL type and encoding our reader knows."""
    parameters = {OUR_TYPE: type_name} | ({OUR_ENCODING: encoding} if encoding else {})
    return Kind({"type": "string", "connect.parameters": parameters}, encode, zero, **rest)


TEXT: Final = string()
UNKNOWN: Final = Kind("string", sized, b"", STRING_CODE, PLACEHOLDER, known=False)


def decimal_type(precision: int, scale: int, shown_precision: bool = True) -> dict[str, Any]:
    """Connect's Decimal. Debezium leaves the precision out of the parameters if PostgreSQL has none (money)."""
    parameters = {"scale": str(scale)}
    if shown_precision:
        parameters["connect.decimal.precision"] = str(precision)
    return {
        "type": "bytes",
        "scale": scale,
        "precision": precision,
        "connect.version": 1,
        "connect.parameters": parameters,
        "connect.name": "org.apache.kafka.connect.data.Decimal",
        "logicalType": "decimal",
    }


VARIABLE_SCALE: Final[dict[str, Any]] = {
    "type": "record",
    "name": "VariableScaleDecimal",
    "namespace": "io.debezium.data",
    "fields": [{"name": "scale", "type": "int"}, {"name": "value", "type": "bytes"}],
    "connect.doc": "Variable scaled decimal",
    "connect.version": 1,
    "connect.name": "io.debezium.data.VariableScaleDecimal",
}

POINT: Final[dict[str, Any]] = {
    "type": "record",
    "name": "Point",
    "namespace": "io.debezium.data.geometry",
    "fields": [
        {"name": "x", "type": "double"},
        {"name": "y", "type": "double"},
        {"name": "wkb", "type": ["null", "bytes"], "default": None},
        {"name": "srid", "type": ["null", "int"], "default": None},
    ],
    "connect.doc": "Geometry (POINT)",
    "connect.version": 1,
    "connect.name": "io.debezium.data.geometry.Point",
}
