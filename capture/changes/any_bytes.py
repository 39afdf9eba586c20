"""Text in a database that does not know its encoding (SQL_ASCII): it may be any bytes, and records are UTF-8.

A text that is not UTF-8 parks its table, with a message that names it. Other tables go on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from capture.changes.versions import ParkedError
from capture.postgres import pgoutput
from schemas.model.change import Cell
from schemas.model.relation import Relation
from schemas.writing.codec import Encoder

_SHOWN = re.compile(r"\\x[89a-f][0-9a-f]")
_REMEDY = "write that value as UTF-8 in the shop"


def not_utf8(table: str, column: str) -> ParkedError:
    """The error for a value that is not UTF-8."""
    return ParkedError(table, f'table {table}: a value of column "{column}" is not UTF-8', _REMEDY)


def check_message(table: str, encoder: Encoder, payload: bytes) -> None:
    """ParkedError if an Insert, Update or Delete has a text that is not UTF-8."""
    if payload.isascii():  # including its lengths and numbers, which mostly are ASCII
        return
    message = pgoutput.decode(payload)
    for cells in (getattr(message, "old", None), getattr(message, "new", None)):
        if column := other_bytes(encoder, cells or ()):
            raise not_utf8(table, column)


def check_names(relation: Relation) -> None:
    """ParkedError if the name of the table or of a column is not UTF-8, as pgoutput shows it."""
    for name in (relation.table, *[column.name for column in relation.columns]):
        if _SHOWN.search(name):
            said = f"table {relation.table}: one of its names, {name}, is not UTF-8"
            raise ParkedError(relation.table, said, "give it another name in the shop")


def other_bytes(encoder: Encoder, cells: Iterable[Cell]) -> str | None:
    """The first of the recorded columns whose value is not UTF-8."""
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
