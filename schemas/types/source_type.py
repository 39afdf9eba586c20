"""What a column is in PostgreSQL, as Debezium's column.propagate.source.type puts it into a schema.

Source: Debezium's PropagateSourceMetadataToSchemaParameter and (pgoutput) ColumnMetaData, which ask pgjdbc's
TypeInfoCache for length and scale: of numbers the digits, of dates and times the characters and a second's digits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from schemas.model.relation import Column, ColumnFacts
from schemas.types.type_modes import numeric_scale
from schemas.types.type_table import ARRAY_ELEMENTS

_UNLIMITED: Final = 2**31 - 1
_LONGEST_NUMERIC: Final = 131_089


def source_type(column: Column, facts: ColumnFacts) -> dict[str, str]:
    """The parameters of the column's field; for a domain, those of its base type."""
    oid, typmod = (facts.base_oid, facts.base_typmod) if facts.base_oid else (column.type_oid, column.typmod)
    oid = ARRAY_ELEMENTS.get(oid, oid)
    length = _LENGTHS.get(oid, _unlimited)(typmod)
    scale = _SCALES.get(oid, _no_scale)(typmod)
    said = {"type": facts.type_name.upper(), "length": str(length), "scale": str(scale), "name": column.name}
    return {f"__debezium.source.column.{name}": value for name, value in said.items()}


def _always(number: int) -> Callable[[int], int]:
    return lambda _typmod: number


_unlimited: Final = _always(_UNLIMITED)
_no_scale: Final = _always(0)


def _characters(typmod: int) -> int:
    return _UNLIMITED if typmod == -1 else typmod - 4


def _bits(typmod: int) -> int:
    return _UNLIMITED if typmod == -1 else typmod


def _precision(typmod: int) -> int:
    return _LONGEST_NUMERIC if typmod == -1 else numeric_scale(typmod)[0]


def _numeric_scale(typmod: int) -> int:
    return 0 if typmod == -1 else numeric_scale(typmod)[1]


def _seconds(typmod: int) -> int:
    return 6 if typmod == -1 else typmod & 0xFFFF  # of an interval the upper bits are its fields


def _with_seconds(before: int) -> Callable[[int], int]:
    """Characters before the point of a second and behind it; of one digit the driver counts two."""
    return lambda typmod: before + {0: 0, 1: 3}.get(_seconds(typmod), _seconds(typmod) + 1)


_LENGTHS: Final[dict[int, Callable[[int], int]]] = {
    16: _always(1), 18: _always(1), 21: _always(5), 23: _always(10), 26: _always(10), 20: _always(19),
    700: _always(8), 701: _always(17), 1700: _precision, 1042: _characters, 1043: _characters,
    1082: _always(13), 1083: _with_seconds(8), 1266: _with_seconds(14), 1114: _with_seconds(22),
    1184: _with_seconds(28), 1186: _always(49), 1560: _bits, 1562: _bits,
}  # fmt: skip
_SCALES: Final[dict[int, Callable[[int], int]]] = {
    700: _always(8), 701: _always(17), 1700: _numeric_scale, 1083: _seconds, 1266: _seconds, 1114: _seconds,
    1184: _seconds, 1186: _seconds,
}  # fmt: skip
