"""Staged tables that a person has dropped, for example because the shop gave the table another key. They are forgotten,
and the next record makes them again."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from sink.database import Cursor
from sink.staging.gaps import FILLED_BY, TableGap, open_gap
from sink.staging.position import load_position

log = structlog.get_logger()


def forget_dropped(cursor: Cursor, home: str, stored: Mapping[str, str]) -> list[str]:
    """Forgets tables that are no longer in schema `home`, and opens a gap for each, because its older rows are missing.
    Returns their names. `stored`: table → its name in the schema. Runs in the staging transaction."""
    cursor.execute(
        "SELECT t.name FROM unnest(%s::text[], %s::text[]) AS t (name, stored)"
        " WHERE to_regclass(format('%%I.%%I', %s::text, t.stored)) IS NULL",
        (list(stored), list(stored.values()), home),
    )
    gone = [name for (name,) in cursor.fetchall()]
    if gone:
        cursor.execute("DELETE FROM staged_table WHERE table_name = ANY(%s)", (gone,))
    for name in gone:
        detail = "its staged table was dropped; its earlier rows are not staged"
        open_gap(cursor, TableGap(name, "begun without a copy", load_position(cursor).stamp, detail))
        log.warning("a table has a gap", table=name, reason=detail, next=FILLED_BY.format(table=name))
    return gone
