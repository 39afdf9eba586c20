"""Text of a database that does not know its encoding (SQL_ASCII): any bytes may stand there, and records have UTF-8.

Other bytes park their table, which is told by name; the others go on.
"""

from __future__ import annotations

from collections.abc import Iterable

from capture.changes.versions import ParkedError
from capture.postgres import pgoutput
from schemas.model.change import Cell
from schemas.writing.codec import Encoder

_REMEDY = "write that value as UTF-8 in the shop"


def not_utf8(table: str, column: str) -> ParkedError:
    """The error for a value that is other bytes."""
    return ParkedError(table, f'table {table}: a value of column "{column}" is no UTF-8', _REMEDY)


def check_message(table: str, encoder: Encoder, payload: bytes) -> None:
    """ParkedError where an Insert, Update or Delete has a text that is no UTF-8."""
    if payload.isascii():  # with its lengths and numbers, which mostly are
        return
    message = pgoutput.decode(payload)
    for cells in (getattr(message, "old", None), getattr(message, "new", None)):
        if column := other_bytes(encoder, cells or ()):
            raise not_utf8(table, column)


def other_bytes(encoder: Encoder, cells: Iterable[Cell]) -> str | None:
    """The first column whose value is no UTF-8, of those that records have."""
    for column, cell in zip(encoder.codec.layout.columns, cells, strict=False):
        if isinstance(cell, bytes) and not column.skipped and not _is_utf8(cell):
            return column.name
    return None


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
