"""Snapshots: which are under way, and what a complete one means for rows that it does not have."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import structlog

from schemas.model.change import Stamp
from schemas.model.commits import SnapshotState
from schemas.model.errors import SettingsError
from schemas.model.lsn import LSN
from sink.database import Cursor
from sink.intake import evidence
from sink.intake.evidence import Gap
from sink.staging.gaps import TableGap, close_gaps, has_gap, open_gap
from sink.staging.position import is_whole
from sink.staging.writer import CopyWriter

log = structlog.get_logger()


class Announced(NamedTuple):
    """A snapshot that is complete by the index. Its last rows may still come."""

    id: str
    stamp: Stamp
    tables: tuple[str, ...]
    rows: dict[str, int]


class Completed(NamedTuple):
    """A snapshot whose rows are all here, as far as they can come. Rows of `compacted` tables may have been removed by
    compaction."""

    snapshot: Announced
    compacted: frozenset[str]


class MadeUp(NamedTuple):
    """What no longer counts as missing because its tables were read again: skipped offsets, and the places of parked
    records."""

    skipped: Sequence[Gap]
    parked: Sequence[tuple[str, int, int]]


def note(cursor: Cursor, generation: int, state: SnapshotState) -> None:
    """Writes what the index says of a snapshot."""
    if state.state == "aborted":
        cursor.execute("DELETE FROM snapshot WHERE id = %s AND state <> 'complete'", (state.id,))
        return
    cursor.execute(
        "INSERT INTO snapshot AS s (id, generation, lsn, first, tables, rows, state)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO UPDATE SET state = excluded.state,"
        " rows = excluded.rows, tables = excluded.tables WHERE s.state = 'running'",
        (
            state.id,
            generation,
            int(state.lsn),
            state.first,
            list(state.tables),
            json.dumps(dict(state.rows)),
            "announced" if state.state == "completed" else "running",
        ),
    )


def announced(cursor: Cursor) -> list[Announced]:
    """Snapshots that wait for their last rows, oldest first."""
    cursor.execute("SELECT id, generation, lsn, tables, rows FROM snapshot WHERE state = 'announced' ORDER BY 2, 3")
    return [
        Announced(row[0], Stamp(row[1], LSN(int(row[2])), 0), tuple(row[3]), row[4] or {}) for row in cursor.fetchall()
    ]


def first_runs(cursor: Cursor, generation: int) -> bool:
    """Whether capture takes a first snapshot of this generation."""
    cursor.execute(
        "SELECT EXISTS (SELECT FROM snapshot WHERE first AND state = 'running' AND generation = %s)", (generation,)
    )
    return bool((cursor.fetchone() or (False,))[0])


def complete(
    cursor: Cursor, writer: CopyWriter, done: Completed, followed: frozenset[str], topics: Mapping[str, str]
) -> MadeUp:
    """Completes a snapshot: older rows of its tables that are not in it are deleted.

    A table with fewer rows than the index says gets a gap instead, unless its topics are compacted. For the other
    tables, earlier skipped offsets and parked records no longer count as missing. `topics`: topic → table.
    """
    one = done.snapshot
    whole = []
    for table in (name for name in one.tables if name in followed):
        if _read_later(cursor, table, one):  # a later snapshot has its rows now: a row remembers only the last one
            continue
        missing = one.rows.get(table, 0) - writer.brought(cursor, table, one.id)
        if missing > 0 and table not in done.compacted:
            detail = f"{missing} of the {one.rows[table]} rows of its snapshot are not in its topic"
            open_gap(cursor, TableGap(table, "short snapshot", one.stamp, detail))
            log.warning("a table has a gap", table=table, reason=detail, next=f"capture signal snapshot {table}")
            continue
        writer.vanish(cursor, table, one.stamp, one.id)
        whole.append(table)
    writer.touch_readers(cursor, close_gaps(cursor, whole, one.stamp))
    cursor.execute("UPDATE snapshot SET state = 'complete' WHERE id = %s", (one.id,))
    log.info("snapshot staged", snapshot=one.id, tables=whole)
    read = {topic: table for topic, table in topics.items() if table in whole}
    older = [topic for topic, table in read.items() if not has_gap(cursor, table, "skipped")]
    return MadeUp(evidence.close_skipped(cursor, older), writer.read_again(cursor, read.keys(), one.stamp))


def _read_later(cursor: Cursor, table: str, one: Announced) -> bool:
    cursor.execute(
        "SELECT EXISTS (SELECT FROM snapshot WHERE %s = ANY(tables) AND id <> %s AND (generation, lsn) > (%s, %s))",
        (table, one.id, *map(int, one.stamp[:2])),
    )
    return bool((cursor.fetchone() or (False,))[0])


def refuse_accepted(cursor: Cursor) -> None:
    """SettingsError if the first snapshot of this generation is complete already."""
    if is_whole(cursor):
        raise SettingsError("the first snapshot is complete already", "there is nothing to accept")


def accept(cursor: Cursor, person: str) -> None:
    """Declares the first snapshot complete, because its end is out of reach (reset, retention).

    Deletes no rows. A first snapshot under way no longer counts.
    """
    cursor.execute("DELETE FROM snapshot WHERE first AND state <> 'complete'")
    cursor.execute(
        "INSERT INTO snapshot (id, generation, lsn, first, tables, state, accepted_by)"
        " VALUES (%s, 0, 0, true, '{}', 'complete', %s) ON CONFLICT (id) DO NOTHING",
        (f"accepted by {person}", person),
    )
