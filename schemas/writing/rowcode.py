"""The fast way to write rows: straight-line Python generated for one table, without a loop over its columns.

`record` goes from pgoutput's message to Kafka's key and value in one function, `row` and `key` from the cells of a row.
They fail (encoders.FAILURES) on everything unusual: a NULL in a NOT NULL column, a value that was not sent, a bad text.
Such a row then goes the careful way (RowLayout.careful), which finds the column and says what is wrong. Source:
PostgreSQL manual, "Logical Replication Message Formats", TupleData.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from types import CodeType
from typing import Any, Final, NamedTuple

from schemas.model.change import Cells
from schemas.types import encoders
from schemas.types.kind import STRING_CODE
from schemas.writing.layout import ColumnCodec, RowLayout

RowEncoder = Callable[[Cells], bytes]
RecordEncoder = Callable[..., tuple[bytes | None, bytes]]

NEW_TUPLE: Final = 6
"""Where the new row's TupleData begins in an Insert, and in an Update without an old row."""

_SPACE: Final = {name: getattr(encoders, name) for name in ("LENGTHS", "BOOLEANS", "SMALL_INTEGERS", "long_bytes")}


class RowCode(NamedTuple):
    """The generated functions of a layout, and their source for people."""

    source: str
    row: RowEncoder
    key: RowEncoder
    space: dict[str, Any]
    columns: tuple[ColumnCodec, ...]
    key_indexes: tuple[int, ...]

    def record(self, key_head: bytes | None, value_head: bytes, table: bytes) -> RecordEncoder:
        """`record(data, prefix, lsn, op)`: (key, value) of the new row in an Insert or Update message.

        `key_head` (None: a table without key) and `value_head` begin key and value; `table` is schema and name in
        `source`; `prefix` is a codec.SourcePrefix; `op` is "c" or "u".
        """
        source = _record_source(self.columns, None if key_head is None else self.key_indexes)
        space = {**self.space, "KEY": key_head, "VALUE": value_head, "TABLE": table, "COUNT": len(self.columns)}
        space |= {"count": struct.Struct(">H").unpack_from, "cell": struct.Struct(">BI").unpack_from}
        exec(compiled(source, "<record>"), space)  # noqa: S102  made of our own templates and numbers, no names
        made: RecordEncoder = space["record"]
        return made


@lru_cache(256)
def compiled(source: str, name: str) -> CodeType:
    """Generated code, compiled. Tables of one shape, such as those of a shop's tenants, share it."""
    return compile(source, name, "exec")


def generate(layout: RowLayout) -> RowCode:
    """The fast functions of a layout."""
    space: dict[str, Any] = dict(_SPACE)
    for index, column in enumerate(layout.columns):
        space[f"encode{index}"] = column.kind.encode
    columns = range(len(layout.columns))
    cells = "".join(f"c{index}, " for index in columns)
    expressions = {index: _cell(index, column) for index, column in enumerate(layout.columns) if not column.skipped}
    row = _joined(list(expressions.values()))
    source = (
        f"def row(cells):\n    {f'({cells})' if cells else '()'} = cells\n    return {row}\n\n\n"
        "def key(cells):\n"
        + "".join(f"    c{index} = cells[{index}]\n" for index in layout.key)
        + f"    return {_joined([expressions[index] for index in layout.key])}\n"
    )
    exec(compiled(source, "<row>"), space)  # noqa: S102
    return RowCode(source, space["row"], space["key"], space, layout.columns, layout.key)


def _value(index: int, column: ColumnCodec) -> str:
    """An expression for the Avro bytes of a cell that has a value."""
    code = column.kind.code.replace("{encode}", f"encode{index}").replace("{0}", f"c{index}")
    return code if column.null is None else f"{column.present!r} + {code}"


def _cell(index: int, column: ColumnCodec) -> str:
    value = _value(index, column)
    return value if column.null is None else f"{column.null!r} if c{index} is None else {value}"


def _record_source(columns: tuple[ColumnCodec, ...], key: tuple[int, ...] | None) -> str:
    lines = [
        "def record(data, prefix, lsn, op):",
        f"    if count(data, {NEW_TUPLE})[0] != COUNT: raise ValueError",
        f"    at = {NEW_TUPLE + 2}",
    ]
    for index, column in enumerate(columns):
        lines += _read(index, column)
    lines += [
        "    if at != len(data): raise ValueError",
        "    head, sequence, times, xid, clock, tails = prefix",
        "    text = b'%b%d\"]' % (sequence, lsn)",
    ]
    written = ((index, column) for index, column in enumerate(columns) if not column.skipped)
    cells = "".join(f"{_parts(index, column)}, " for index, column in written)
    source = "head, LENGTHS[len(text)], text, times, TABLE, xid, long_bytes(lsn), tails[op], clock"
    keys = "None" if key is None else "b''.join((KEY, " + "".join(f"{_parts(i, columns[i])}, " for i in key) + "))"
    lines.append(f"    return {keys}, b''.join((VALUE, {cells}{source}))")
    return "\n".join(lines) + "\n"


def _parts(index: int, column: ColumnCodec) -> str:
    """Expressions for a column in the join, so that a text is not copied once more after its length."""
    return f"e{index}, c{index}" if column.kind.code == STRING_CODE else f"e{index}"


def _read(index: int, column: ColumnCodec) -> list[str]:
    """Lines that read one cell, `n`ull (110) or `t`ext (116) with a length, and make its Avro bytes (see _parts)."""
    if column.skipped:
        return ["    at += 5 + cell(data, at)[1] if data[at] == 116 else 1"]
    text = column.kind.code == STRING_CODE
    value = f"{column.present!r} + LENGTHS[size]" if text else _value(index, column)
    if text and column.null is None:
        value = "LENGTHS[size]"
    there = [
        "kind, size = cell(data, at)",
        "if kind != 116: raise ValueError",
        f"start = at + 5; at = start + size; c{index} = data[start:at]",
        f"e{index} = {value}",
    ]
    if column.null is None:
        return _indent(there)
    missing = f"at += 1; e{index} = {column.null!r}" + (f"; c{index} = b''" if text else "")
    return ["    if data[at] == 110:", f"        {missing}", "    else:", *_indent(there, 8)]


def _indent(lines: list[str], by: int = 4) -> list[str]:
    return [" " * by + line for line in lines]


def _joined(expressions: list[str]) -> str:
    if len(expressions) == 1:
        return expressions[0]
    return "b''.join((\n" + "".join(f"        {code},\n" for code in expressions) + "    ))"
