"""The ledger: for each document what is desired, what the ERP was given, and what keeps the two apart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from psycopg2.extras import Json, execute_values

from schemas.errors import SettingsError
from sink.database import Cursor


class DocumentRef(NamedTuple):
    """A document by its name in the profile and the shop's key."""

    type: str
    key: str

    def __str__(self) -> str:
        return f"{self.type} {self.key}"


def mark(cursor: Cursor, touched: Mapping[DocumentRef, str]) -> None:
    """Says that documents want another look; `touched`: document → unit, such as `sales_order:17`, leased together.

    Called inside the staging transaction. Each mark is a version, so that a look that began before it does not clear
    it. Upserts are in sorted order: two staging transactions never wait for each other in a circle.
    """
    if not touched:
        return
    units = [(unit,) for unit in sorted(set(touched.values()))]
    execute_values(
        cursor,
        "INSERT INTO ordertap.document AS d (type, key, unit) VALUES %s"
        " ON CONFLICT (type, key) DO UPDATE SET marked = d.marked + 1, marked_at = clock_timestamp(), unit = excluded.unit",
        sorted((ref.type, ref.key, unit) for ref, unit in touched.items()),
        page_size=1_000,
    )
    execute_values(
        cursor,
        "INSERT INTO ordertap.unit AS u (unit, due_at) VALUES %s"
        " ON CONFLICT (unit) DO UPDATE SET due_at = least(u.due_at, excluded.due_at)",
        units,
        template="(%s, clock_timestamp())",
        page_size=1_000,
    )


def ready(cursor: Cursor) -> bool:
    """Whether a first snapshot is staged as a whole: before that no document is planned."""
    cursor.execute("SELECT EXISTS (SELECT FROM ordertap.snapshot WHERE state = 'complete')")
    return bool(_one(cursor)[0])


def _one(cursor: Cursor) -> tuple[Any, ...]:
    row = cursor.fetchone()
    if row is None:
        raise LookupError("no row")
    return row
