"""Which ERP a ledger belongs to: the first one that it saw, for ever."""

from __future__ import annotations

from schemas.model.errors import SettingsError
from sink.database import Cursor


def bind(cursor: Cursor, name: str, value: str, what: str) -> None:
    """The first time it is written down, later it must be the same; SettingsError."""
    cursor.execute("INSERT INTO binding (name, value) VALUES (%s, %s) ON CONFLICT DO NOTHING", (name, value))
    cursor.execute("SELECT value, current_schema FROM binding WHERE name = %s", (name,))
    bound, schema = cursor.fetchone() or (value, "")
    if bound != value:
        raise SettingsError(
            f"this middle layer belongs to {what} {bound}, the settings lead to {value}",
            f"correct the settings; if it was moved on purpose, delete that row of {schema}.binding",
        )
