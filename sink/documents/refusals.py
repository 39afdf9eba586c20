"""Says in words for people why rows of the shop make no document. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from pydantic_core import ErrorDetails

from sink.documents.models import Part, part_of
from sink.erp.kinds import shown

_LONGEST: Final = 40


def in_words(model: type[Part], problem: ErrorDetails, content: Mapping[str, Any]) -> str:
    """One of pydantic's problems with what the profile's SQL returned: `lines l1: quantity is -2, and must be greater
    than 0`. Values are shown if they are numbers, or one of a few words."""
    of, row, place = _row_of(model, problem["loc"], content)
    if not place:
        return f"{'.'.join(map(str, problem['loc']))}: {_said(problem)}"
    name, where = str(place[0]), _where(problem["loc"], row)
    match problem["type"]:
        case "extra_forbidden":
            near = difflib.get_close_matches(name, of.model_fields, n=1, cutoff=0.4)
            nearest = f"; the nearest is {near[0]}" if near else ""
            return f"{where}the profile's SQL gives a column {name}, which a {of.__name__} does not have{nearest}"
        case "missing":
            return f"{where}the profile's SQL gives no column {name}, which a {of.__name__} must have"
    value = row.get(name)
    if value is None:
        return f"{where}{name} is empty, and {_said(problem)}"
    may_be_shown = isinstance(value, int | Decimal) or problem["type"] == "literal_error"
    said = f" is {_shown(value, name)}, and" if may_be_shown else ":"
    return f"{where}{name}{said} {_said(problem)}"


def _shown(value: Any, name: str) -> str:
    return shown(value, name) if isinstance(value, Decimal) and value.is_finite() else f"{value}"[:_LONGEST]


def _row_of(
    model: type[Part], loc: tuple[int | str, ...], content: Mapping[str, Any]
) -> tuple[type[Part], Mapping[str, Any], tuple[int | str, ...]]:
    """The model and the row that a problem is about, and the rest of its path; () if it is about all rows."""
    if len(loc) == 1:
        field = model.model_fields.get(str(loc[0]))
        return model, content, () if field is not None and part_of(field.annotation) else loc
    field, number = model.model_fields[str(loc[0])], loc[1]
    return part_of(field.annotation) or model, content[str(loc[0])][number], loc[2:]


def _where(loc: tuple[int | str, ...], row: Mapping[str, Any]) -> str:
    if len(loc) == 1:
        return ""
    return f"{loc[0]} {row.get('key') or int(loc[1]) + 1}: "


def _said(problem: ErrorDetails) -> str:
    """pydantic's words about a value, for the middle of a sentence."""
    words = problem["msg"].removeprefix("Value error, ")
    return words.replace("Input should", "must", 1) if words.startswith("Input should") else words
