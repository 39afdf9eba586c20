"""Snapshots: which are complete, and what a complete one says about rows that it does not have."""

from __future__ import annotations

import json
from collections.abc import Iterable

from psycopg2 import sql

from schemas.change import SnapshotNotice, Stamp
from schemas.errors import SettingsError
from schemas.lsn import LSN
from schemas.records import COMPLETED
from sink.database import Cursor
from sink.staging.tables import StagedTables, mark_deleted


def note(cursor: Cursor, notices: Iterable[SnapshotNotice]) -> None:
    """Keeps what capture says of its snapshots."""
    for notice in notices:
        done = notice.step == COMPLETED
        cursor.execute(
            "INSERT INTO ordertap.snapshot AS s (id, generation, lsn, tables, rows, state)"
            " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO UPDATE SET state = excluded.state,"
            " rows = excluded.rows, tables = excluded.tables WHERE s.state = 'running'",
            (
                notice.snapshot_id,
                notice.generation,
                int(notice.lsn),
                list(notice.tables),
                json.dumps(dict(notice.rows)) if done and notice.rows is not None else None,
                "announced" if done else "running",
            ),
        )


def ready(cursor: Cursor) -> bool:
    """Whether the first snapshot is staged as a whole: before that no document is planned.

    One on demand may be complete before it, with a part of the tables.
    """
    cursor.execute(
        "SELECT EXISTS (SELECT FROM ordertap.snapshot AS whole WHERE state = 'complete' AND NOT EXISTS"
        " (SELECT FROM ordertap.snapshot AS older WHERE older.state = 'announced'"
        " AND (older.generation, older.lsn) < (whole.generation, whole.lsn)))"
    )
    row = cursor.fetchone()
    return row is not None and bool(row[0])


def complete(cursor: Cursor, tables: StagedTables, staged: frozenset[str]) -> list[str]:
    """Completes the announced snapshots whose rows are all here; the tables of those, in which vanished rows are now
    marked deleted. A table that a later complete snapshot has is that one's: a row remembers the last that brought it.
    """
    cursor.execute(
        "SELECT id, generation, lsn, tables, rows FROM ordertap.snapshot WHERE state = 'announced'"
        " ORDER BY generation DESC, lsn DESC"
    )
    done: list[str] = []
    for snapshot_id, generation, lsn, names, rows in cursor.fetchall():
        later = _read_later(cursor, generation, lsn)
        ours = [name for name in names if name in staged - later]
        if any(_come(cursor, tables, name, snapshot_id) < (rows or {}).get(name, 0) for name in ours):
            continue
        stamp = Stamp(generation, LSN(int(lsn)), 0)
        for name in ours:
            table = tables.get(cursor, name)
            if table is not None:
                vanished = sql.SQL("_snapshot IS DISTINCT FROM %s")
                mark_deleted(cursor, table, stamp, vanished, (snapshot_id,))
        cursor.execute("UPDATE ordertap.snapshot SET state = 'complete' WHERE id = %s", (snapshot_id,))
        done += ours
    return done


def _read_later(cursor: Cursor, generation: int, lsn: int) -> set[str]:
    """The tables of complete snapshots that are later than this place."""
    cursor.execute(
        "SELECT DISTINCT unnest(tables) FROM ordertap.snapshot"
        " WHERE state = 'complete' AND (generation, lsn) > (%s, %s)",
        (generation, lsn),
    )
    return {name for (name,) in cursor.fetchall()}


def accept(cursor: Cursor, person: str) -> str:
    """Declares the first copy complete by a person's word, where its end is out of reach (reset, retention).

    What it is called; nothing is marked deleted. SettingsError when a snapshot is complete already.
    """
    cursor.execute("SELECT EXISTS (SELECT FROM ordertap.snapshot WHERE state = 'complete')")
    row = cursor.fetchone()
    if row is not None and row[0]:
        raise SettingsError("a snapshot is complete already", "nothing is to be accepted")
    name = f"accepted by {person}"
    cursor.execute(
        "INSERT INTO ordertap.snapshot (id, generation, lsn, tables, state, accepted_by)"
        " VALUES (%s, 0, 0, '{}', 'complete', %s) ON CONFLICT (id) DO NOTHING",
        (name, person),
    )
    return name


def _come(cursor: Cursor, tables: StagedTables, name: str, snapshot_id: str) -> int:
    table = tables.get(cursor, name)
    if table is None:
        return 0
    cursor.execute(sql.SQL("SELECT count(*) FROM {} WHERE _snapshot = %s").format(table.identifier), (snapshot_id,))
    row = cursor.fetchone()
    return 0 if row is None else int(row[0])
