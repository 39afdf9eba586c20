"""Binds a ledger to the first ERP that it wrote to."""

from __future__ import annotations

from schemas.model.errors import SettingsError
from sink.database import Cursor


def bind(cursor: Cursor, name: str, value: str, what: str) -> None:
    """Writes the value the first time; later it must be the same, or SettingsError. `what`: the thing, for the
    message."""
    cursor.execute("INSERT INTO binding (name, value) VALUES (%s, %s) ON CONFLICT DO NOTHING", (name, value))
    cursor.execute("SELECT value, current_schema FROM binding WHERE name = %s", (name,))
    bound, schema = cursor.fetchone() or (value, "")
    if bound != value:
        raise SettingsError(
            f"this middle layer belongs to {what} {bound}, but the settings lead to {value}",
            f"correct the settings; if the change is on purpose, delete that row of {schema}.binding",
        )
