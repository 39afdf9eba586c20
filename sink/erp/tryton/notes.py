"""What Tryton has no field for: JSON in a comment or note, beside what people write there. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from sink.erp.fields import FieldType
from sink.erp.kinds import ErpRef, Fields, Value

_OURS: Final = re.compile(r"^ordertap (\{.*\})$", re.MULTILINE)


def written(text: str | None, data: Mapping[str, Value | int]) -> str:
    """The text with our line in it, in place of our former one. The rest belongs to other people."""
    line = "ordertap " + json.dumps({name: _plain(value) for name, value in data.items()}, ensure_ascii=False)
    others = _OURS.sub("", text or "").strip()
    return f"{others}\n{line}" if others else line


def read(text: str | None) -> dict[str, Any]:
    """The data that `written` put into a text, as JSON; {} if somebody has removed or damaged it."""
    found = _OURS.search(text or "")
    try:
        data = json.loads(found.group(1)) if found else {}
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def typed(data: Mapping[str, Any], types: Mapping[str, FieldType]) -> Fields:
    """The values of these fields. A value that does not fit its type is left out."""
    found: dict[str, Value] = {}
    for name, type_ in types.items():
        if name in data:
            try:
                found[name] = _value(data[name], type_)
            except (ValueError, TypeError, InvalidOperation):
                continue
    return found


def _plain(value: Value | int) -> Any:
    match value:
        case ErpRef():
            return value.external
        case Decimal():
            return f"{value:f}"
        case datetime():
            return value.isoformat()
    return value


def _value(value: Any, type_: FieldType) -> Value:
    if value is None:
        return None
    match type_.type:
        case "money" | "number":
            return Decimal(value)
        case "time":
            return datetime.fromisoformat(value)
        case "yes or no":
            return bool(value)
    return str(value)
