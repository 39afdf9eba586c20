"""The copy's position in the shop's log and in the index of commits, kept with the staged rows."""

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
"""Whether the copy of a generation has its first snapshot. One that a person has accepted is of generation 0."""

NOWHERE: Final = Stamp(0, LSN(0), 0)


class Position(NamedTuple):
    """While the copy is `steady`, it is the shop as of `stamp`. Otherwise it claims nothing: `catching up`, rows arrive
    one by one; `copying`, the first snapshot of its generation is not complete.

    `topic_id`, `next_offset`: where the index is read on; `serial`, `end`: number and end of its record taken last (""
    and 0: none yet).
    """

    stamp: Stamp = NOWHERE
    state: State = "catching up"
    topic_id: str = ""
    next_offset: int = 0
    serial: int = 0
    end: Stamp = NOWHERE


def load_position(cursor: Cursor) -> Position:
    """The position; `Position()` if there is none yet."""
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
    """Writes the position, in the transaction that writes the rows. The snapshots decide whether it is steady.

    `commit_us`: time of the last visible commit or heartbeat, µs since 1970; None: unchanged.
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
    """Whether the first snapshot of the copy's generation is complete or accepted."""
    cursor.execute(_IS_WHOLE, (load_position(cursor).stamp.generation,))
    return bool((cursor.fetchone() or (False,))[0])


def save_waiting(cursor: Cursor, reason: str) -> None:
    """Writes what the copy waits for; "" for nothing."""
    cursor.execute("UPDATE copy SET waits_for = %s WHERE waits_for IS DISTINCT FROM %s", (reason, reason))


class Copy(NamedTuple):
    """The copy for people. `committed_at`: time of its last commit or heartbeat in the shop, up to which it has all;
    `reached_at`: since when it stands there."""

    stamp: Stamp
    state: State
    committed_at: datetime | None
    reached_at: datetime | None
    waits_for: str


def show_copy(cursor: Cursor) -> Copy:
    """The copy's state."""
    cursor.execute("SELECT generation, lsn, ordinal, state, committed_at, reached_at, waits_for FROM copy")
    row = cursor.fetchone()
    if row is None:
        return Copy(NOWHERE, "catching up", None, None, "nothing was read yet")
    return Copy(Stamp(row[0], LSN(int(row[1])), row[2]), *row[3:])


def copied_until(cursor: Cursor) -> datetime | None:
    """The shop's time up to which the copy has everything; None if no commit or heartbeat has come yet."""
    return show_copy(cursor).committed_at


def place_of_shop(cursor: Cursor) -> tuple[datetime, LSN]:
    """Time and log position of the shop. As a transaction's first query, the position is after everything that it
    sees."""
    cursor.execute(
        "SELECT clock_timestamp(), (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()"
        " ELSE pg_current_wal_insert_lsn() END - '0/0')::bigint"
    )
    at, lsn = cursor.fetchone() or (None, 0)
    return at, LSN(lsn)


def why_not_planned(cursor: Cursor, require_snapshot: bool, position: Position | None = None) -> str:
    """Why no document may be planned now; "" if it may.

    The copy has to be a state of the shop, and not older than what the ledger has acted on. `require_snapshot` False: a
    copy that never had a first snapshot will do. `position`: if already loaded.
    """
    position = position or load_position(cursor)
    if position.state == "catching up":
        return "the copy is catching up with the shop"
    if position.state == "copying" and (require_snapshot or _is_copied(cursor)):
        return "the first snapshot is not complete"
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
    """Notes that the ledger acts on the copy's present position, so that it never acts on an earlier one. In the
    caller's transaction."""
    cursor.execute(
        "INSERT INTO acted AS a (one, generation, lsn) SELECT true, generation, lsn FROM copy"
        " ON CONFLICT (one) DO UPDATE SET generation = excluded.generation, lsn = excluded.lsn"
        " WHERE (a.generation, a.lsn) < (excluded.generation, excluded.lsn)"
    )
