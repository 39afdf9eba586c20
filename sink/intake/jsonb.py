"""Finds what a json column may contain and jsonb may not: one such row would stop the staging of all. Pure.

Source: PostgreSQL manual, "JSON Types" (\\u0000, surrogates, the range of numeric).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from schemas.model.errors import DataError

_SUSPECT: Final = re.compile(r"\\u(?:0000|[dD][89a-fA-F])|[eE][+-]?\d{5}|(?<!\d)\d{10000}")
_PAIR: Final = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_LONE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_STRING: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # to the end of the text without a second quote
_NUMBER: Final = re.compile(r"-?\d[\d.]*(?:[eE][+-]?\d+)?")
_MOST_DIGITS: Final = 131_072  # of numeric, before the decimal point
_MOST_DECIMALS: Final = 16_383


def refuse_unfit(topic: str, columns: Mapping[str, str], values: Mapping[str, Any]) -> None:
    """DataError that names the column, if the staged jsonb column would refuse a value."""
    for name, value in values.items():
        if columns.get(name) in ("jsonb", "jsonb[]"):
            texts = value if isinstance(value, list) else [value]
            for reason in filter(None, (unfit(text) for text in texts if isinstance(text, str))):
                hint = "write it without that in the shop, or leave schema.table.column out by column_exclude_list"
                raise DataError(f"topic {topic}, column {name}: jsonb cannot hold {reason}", hint)


def unfit(text: str) -> str | None:
    """Why jsonb refuses a text that json accepts; None if it does not."""
    if not _SUSPECT.search(text):
        return None
    escapes = text.replace("\\\\", "")  # an escaped backslash, and then letters, is no escape
    if r"\u0000" in escapes:
        return r"the character \u0000"
    if _LONE.search(_PAIR.sub("", escapes)):
        return "half of a surrogate pair"
    numbers = _NUMBER.findall(_STRING.sub("", text))
    return "so large or so fine a number" if any(map(_beyond_numeric, numbers)) else None


def _beyond_numeric(text: str) -> bool:
    try:
        number = Decimal(text)
    except InvalidOperation:  # an exponent of 19 digits and more
        return True
    exponent = number.as_tuple().exponent
    large = not number.is_zero() and number.adjusted() >= _MOST_DIGITS
    return large or (isinstance(exponent, int) and exponent < -_MOST_DECIMALS)
