"""Which shop and which ERP a middle layer belongs to: the first ones that it saw, for ever."""

from __future__ import annotations

from schemas.errors import SettingsError
from sink.database import Cursor


def bind(cursor: Cursor, name: str, value: str, what: str) -> None:
    """The first time it is written down, later it must be the same; SettingsError."""
    cursor.execute("INSERT INTO binding (name, value) VALUES (%s, %s) ON CONFLICT DO NOTHING", (name, value))
    cursor.execute("SELECT value FROM binding WHERE name = %s", (name,))
    row = cursor.fetchone()
    bound = row[0] if row else value
    if bound != value:
        raise SettingsError(
            f"this middle layer belongs to {what} {bound}, the settings lead to {value}",
            "correct the settings; if it was moved on purpose, delete that row of ordertap.binding",
        )
