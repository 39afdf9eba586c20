"""Rows as PostgreSQL prints them, for both sides of a comparison. Values are text; NULL is None."""

from __future__ import annotations

import io
import re
from decimal import Decimal, InvalidOperation
from typing import Any, Final

Row = dict[str, str | None]

_NUMERIC, _PADDED, _FLOATS = 1700, 1042, (700, 701)
_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_ESCAPE = re.compile(r"\\(.)")


def rows_of(cursor: Any, query: str) -> list[Row]:
    """The rows of a query, by COPY, which prints values as the log does (`::text` would print `true` for `t`)."""
    out = io.StringIO()
    cursor.copy_expert(f"COPY ({query}) TO STDOUT WITH (FORMAT text, HEADER)", out)
    header, *lines = out.getvalue().split("\n")[:-1]
    names = [_field(name) for name in header.split("\t")]
    return [dict(zip(names, map(_field, line.split("\t")), strict=True)) for line in lines]  # type: ignore[arg-type]


def _field(text: str) -> str | None:
    if "\\" not in text:
        return text
    return None if text == r"\N" else _ESCAPE.sub(lambda found: _ESCAPES.get(found[1], found[1]), text)


def plain(value: str | None, kind: int) -> str | None:
    """The value in a form that does not depend on the column's type. `kind`: OID of the shop's type."""
    if value is None:
        return None
    if kind == _PADDED:
        return value.rstrip(" ")
    if kind == _NUMERIC or kind in _FLOATS:
        try:
            return f"{Decimal(value).normalize():f}" if Decimal(value).is_finite() else value
        except InvalidOperation:
            return value
    return value
