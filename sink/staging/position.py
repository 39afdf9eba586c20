"""Where the copy stands, kept with the staged rows: up to where it is the shop, and the place in the index."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal, NamedTuple, TypeAlias

from schemas.model.change import Stamp
from schemas.model.lsn import LSN
from sink.database import Cursor

State: TypeAlias = Literal["catching up", "copying", "steady"]

_IS_WHOLE: Final = (
    "SELECT coalesce(bool_or(state = 'complete') AND bool_and(state = 'complete' OR NOT first), false)"
    " FROM snapshot WHERE generation IN (0, %s)"
)
"""Whether the copy of a generation has its first snapshot; one that a person has accepted is of generation 0."""

NOWHERE: Final = Stamp(0, LSN(0), 0)


class Position(NamedTuple):
    """The copy is the shop as of `stamp` while it is `steady`. Otherwise it claims nothing: catching up, it is on its
    way there by single rows; copying, the first snapshot of its generation is not staged as a whole.

    `topic_id` and `next_offset` say where the index is read on, `serial` is its last record that was taken ("" and 0:
    none yet) and `end` where that ended.
    """

    stamp: Stamp = NOWHERE
    state: State = "catching up"
    topic_id: str = ""
    next_offset: int = 0
    serial: int = 0
    end: Stamp = NOWHERE


def load_position(cursor: Cursor) -> Position:
    """The position; the first one's where there is none yet."""
    cursor.execute(
        "SELECT generation, lsn, ordinal, state, index_topic_id, index_offset, serial, end_generation, end_lsn"
        " FROM copy"
    )
    row = cursor.fetchone()
    if row is None:
        return Position()
    stamp, end = Stamp(row[0], LSN(int(row[1])), row[2]), Stamp(row[7], LSN(int(row[8])), 0)
    return Position(stamp, row[3], row[4], row[5], row[6], end)


def save_position(cursor: Cursor, position: Position, commit_us: int | None) -> None:
    """Keeps the position, in the transaction that brings the copy there. The snapshots say whether it is steady.

    `commit_us`: when the last commit of the shop that is visible with it was made, µs since 1970; None: it brings none.
    """
    cursor.execute(
        "INSERT INTO copy AS c (one, generation, lsn, ordinal, state, index_topic_id,"  # noqa: S608  (our own text)
        " index_offset, serial, end_generation, end_lsn, committed_at)"
        " VALUES (true, %s, %s, %s, CASE WHEN %s = 'catching up' THEN 'catching up' WHEN"
        f" ({_IS_WHOLE}) THEN 'steady' ELSE 'copying' END,"
        " %s, %s, %s, %s, %s, to_timestamp(%s::float8 / 1e6)) ON CONFLICT (one) DO UPDATE SET"
        " (generation, lsn, ordinal, state, index_topic_id, index_offset, serial, end_generation, end_lsn,"
        " committed_at, reached_at) = (excluded.generation, excluded.lsn, excluded.ordinal, excluded.state,"
        " excluded.index_topic_id, excluded.index_offset, excluded.serial, excluded.end_generation, excluded.end_lsn,"
        " coalesce(excluded.committed_at, c.committed_at), clock_timestamp())",
        (
            *map(int, position.stamp),
            position.state,
            position.stamp.generation,
            position.topic_id,
            position.next_offset,
            position.serial,
            *map(int, position.end[:2]),
            commit_us,
        ),
    )


def is_whole(cursor: Cursor) -> bool:
    """Whether the first snapshot of the copy's generation is staged as a whole, or was accepted as it is."""
    cursor.execute(_IS_WHOLE, (load_position(cursor).stamp.generation,))
    return bool((cursor.fetchone() or (False,))[0])


def save_waiting(cursor: Cursor, reason: str) -> None:
    """Says what the copy waits for; "" for nothing."""
    cursor.execute("UPDATE copy SET waits_for = %s WHERE waits_for IS DISTINCT FROM %s", (reason, reason))


class Copy(NamedTuple):
    """The copy for people: where it stands and since when, when the shop made its last commit, what it waits for."""

    stamp: Stamp
    state: State
    committed_at: datetime | None
    reached_at: datetime | None
    waits_for: str


def show_copy(cursor: Cursor) -> Copy:
    """Where the copy stands."""
    cursor.execute("SELECT generation, lsn, ordinal, state, committed_at, reached_at, waits_for FROM copy")
    row = cursor.fetchone()
    if row is None:
        return Copy(NOWHERE, "catching up", None, None, "nothing was read yet")
    return Copy(Stamp(row[0], LSN(int(row[1])), row[2]), *row[3:])


def place_of_shop(cursor: Cursor) -> tuple[datetime, LSN]:
    """Now in the shop, and where its log ends: behind all that the transaction sees, if this is its first query."""
    cursor.execute(
        "SELECT clock_timestamp(), (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()"
        " ELSE pg_current_wal_insert_lsn() END - '0/0')::bigint"
    )
    at, lsn = cursor.fetchone() or (None, 0)
    return at, LSN(lsn)


def why_not_planned(cursor: Cursor, require_snapshot: bool, position: Position | None = None) -> str:
    """Why no document may be planned now; "" when it may.

    The copy must be the shop's state, of no earlier point than the ledger acted on before. `require_snapshot`: without
    it, a copy may be planned from that never had a first snapshot. `position`: if it is known already.
    """
    position = position or load_position(cursor)
    if position.state == "catching up":
        return "the copy is catching up with the shop"
    if position.state == "copying" and (require_snapshot or _is_copied(cursor)):
        return "the first snapshot is not staged as a whole"
    at = tuple(map(int, position.stamp[:2]))
    cursor.execute("SELECT generation, lsn FROM acted WHERE (generation, lsn) > (%s, %s)", at)
    if (further := cursor.fetchone()) is not None:
        return f"the copy is behind what the ledger acted on, {LSN(int(further[1]))} of generation {further[0]}"
    return ""


def _is_copied(cursor: Cursor) -> bool:
    """Whether a first snapshot is under way."""
    cursor.execute("SELECT EXISTS (SELECT FROM snapshot WHERE first AND state <> 'complete')")
    return bool((cursor.fetchone() or (False,))[0])


def note_acted(cursor: Cursor) -> None:
    """The ledger acts on the copy as it stands, and must never act on an earlier one. In the caller's transaction."""
    cursor.execute(
        "INSERT INTO acted AS a (one, generation, lsn) SELECT true, generation, lsn FROM copy"
        " ON CONFLICT (one) DO UPDATE SET generation = excluded.generation, lsn = excluded.lsn"
        " WHERE (a.generation, a.lsn) < (excluded.generation, excluded.lsn)"
    )
