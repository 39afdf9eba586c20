"""Values as PostgreSQL's text, to compare the decoder with the slow reader."""

from __future__ import annotations

import json
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any


def text(value: Any) -> Any:
    """A value as text that PostgreSQL reads. Lists stay lists, None stays None."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() else str(value)
    if isinstance(value, datetime):
        return value.isoformat(" ")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return f"{value.days} days {value.seconds}.{value.microseconds:06d} seconds"
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, list):
        return [text(item) for item in value]
    return json.dumps(value) if isinstance(value, dict) else str(value)
