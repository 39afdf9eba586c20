"""Leases: one worker at a time may call the ERP for a unit, and each of its writes proves that it still may.

A unit has two times. `due_at`: when it wants a look; while it is leased, the lease's end, or earlier if a mark has
come. `deadline`: until then nobody but the owner may take it. A document has two as well. `marked_at`: its last mark,
which gives it its turn; `next_try`: when it wants another look without a mark. `release` makes `due_at` of these two.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from schemas.model.errors import OrdertapError
from sink.database import Cursor, TextArray


class Lease(NamedTuple):
    """The right to call the ERP for a unit until its deadline. `epoch` is a fencing token: each write proves it."""

    unit: str
    owner: str
    epoch: int


class LeaseLostError(OrdertapError):
    """Another worker has the unit now. This one must send nothing more for it."""

    def __init__(self, unit: str) -> None:
        super().__init__(f"another worker has taken over {unit}", "no action needed: the other worker continues")


# statement_timestamp() is one value for the whole statement, so the index scan has an end. With clock_timestamp() it
# would read all units.
_DUE: Final = "due_at <= statement_timestamp() AND (deadline IS NULL OR deadline < clock_timestamp())"


def _due(types: str) -> str:
    """A query for those that have waited longest. Its values are types, of which `types` says how, and a number."""
    return (
        f"SELECT unit FROM unit WHERE {_DUE} AND split_part(unit, ':', 1) {types}(%s)"  # noqa: S608
        " ORDER BY due_at LIMIT %s FOR UPDATE SKIP LOCKED"
    )


def any_due(cursor: Cursor) -> bool:
    """Whether anything is due. Much cheaper than `lease` when nothing is."""
    # ORDER BY makes it use the index: after a backlog, statistics make a sequential scan look cheap.
    cursor.execute(f"SELECT FROM unit WHERE {_DUE} ORDER BY due_at LIMIT 1")
    return cursor.rowcount > 0


def lease(
    cursor: Cursor,
    owner: str,
    seconds: float,
    most: int = 1,
    later: Collection[str] = (),
    filling: Collection[str] = (),
    most_later: int = 0,
) -> list[Lease]:
    """Leases at most `most` units that have waited longest, for `seconds`. Units of the types in `filling` only fill up
    the batch; units of the types in `later` are taken only if no others are due, and then `most_later` of them, if that
    is more.

    A unit whose owner died becomes free when its deadline has passed, not before: until then the owner's last call may
    still arrive at the ERP.
    """
    found = _take(cursor, owner, seconds, _due("<> ALL"), [*later, *filling], most)
    if filling and len(found) < most:
        found += _take(cursor, owner, seconds, _due("<> ALL"), [*later], most - len(found))
    if found or not later:
        return found
    # Only these types: others may have become due since, and `most_later` is not their number.
    return _take(cursor, owner, seconds, _due("= ANY"), [*later], max(most, most_later))


def take(cursor: Cursor, owner: str, seconds: float, units: Collection[str]) -> list[Lease]:
    """Leases those of the units that nobody has, due or not."""
    free = (
        "SELECT unit FROM unit WHERE unit = ANY(%s) AND (deadline IS NULL OR deadline < clock_timestamp())"
        " ORDER BY unit FOR UPDATE SKIP LOCKED"
    )
    return _take(cursor, owner, seconds, free, TextArray(units)) if units else []


def of_others(cursor: Cursor, owner: str, units: Collection[str]) -> set[str]:
    """The units that `owner` could not take because another worker has them and will release them, or has just released
    them. Left out are the owner's units, and units that nobody may take before the deadline of a lost call."""
    if not units:
        return set()
    cursor.execute(
        "SELECT unit FROM unit WHERE unit = ANY(%s) AND owner IS DISTINCT FROM %s"
        " AND (owner IS NOT NULL OR deadline IS NULL OR deadline <= clock_timestamp())",
        (TextArray(units), owner),
    )
    return {row[0] for row in cursor.fetchall()}


def _take(cursor: Cursor, owner: str, seconds: float, which: str, *values: object) -> list[Lease]:
    # due_at is the lease's end, so a worker that dies leaves the unit due.
    taken = (
        "UPDATE unit AS u SET owner = %s, epoch = epoch + 1, due_at = t.ends, deadline = t.ends"
        " FROM (SELECT clock_timestamp() + make_interval(secs => %s) AS ends) AS t WHERE unit = ANY(ARRAY("
    )
    cursor.execute(taken + which + ")) RETURNING unit, epoch", (owner, seconds, *values))
    return [Lease(unit, owner, epoch) for unit, epoch in cursor.fetchall()]


def renew(cursor: Cursor, leased: Sequence[Lease], seconds: float, least: float) -> float:
    """Proves leases, and extends them to `seconds` if the first to end has less than `least` left. Returns the seconds
    left of the first to end."""
    left = prove(cursor, leased)
    if left >= least:
        return left
    # due_at follows, as in `_take`: by it a late row finds the documents that are being looked at.
    cursor.execute(
        "UPDATE unit AS u SET deadline = greatest(deadline, t.ends), due_at = greatest(deadline, t.ends)"
        " FROM (SELECT clock_timestamp() + make_interval(secs => %s) AS ends) AS t WHERE unit = ANY(%s)",
        (seconds, TextArray(one.unit for one in leased)),
    )
    return seconds


def prove(cursor: Cursor, leased: Sequence[Lease], others: Collection[str] = ()) -> float:
    """Locks the units and checks the leases, so that the caller's transaction cannot commit without them.
    LeaseLostError. Extends nothing. Returns the seconds left of the first to end.

    `others`: further units that the transaction changes. All are locked in one order, so that no deadlock is possible.
    """
    cursor.execute(
        "SELECT unit, owner, epoch, extract(epoch FROM deadline - clock_timestamp())::float FROM unit"
        " WHERE unit = ANY(%s) ORDER BY unit FOR UPDATE",
        (TextArray({*(one.unit for one in leased), *others}),),
    )
    left = {Lease(unit, owner, epoch): seconds or 0.0 for unit, owner, epoch, seconds in cursor.fetchall()}
    for one in leased:
        if left.get(one, 0.0) <= 0:
            raise LeaseLostError(one.unit)
    return min(left[one] for one in leased)


def release(cursor: Cursor, leased: Sequence[Lease], in_turn: bool = False, rest: float | None = None) -> None:
    """Releases units, each due when its next document is. If a document was marked since it was read, the unit is due
    at once, behind all others; with `in_turn` it keeps the place of its mark, because nothing could be looked at.
    `rest`: seconds during which nobody may take the units.

    A unit with a step in doubt keeps its deadline, for everybody: until then the call may still arrive at the ERP, and
    asking before that gives no certain answer. Such a unit stays due, whatever else was written.
    """
    units = TextArray(one.unit for one in leased)
    # A mark may be about to commit. We lock the units before we read the documents: either we see the mark, or it comes
    # after us and makes the unit due again.
    cursor.execute("SELECT FROM unit WHERE unit = ANY(%s) ORDER BY unit FOR UPDATE", (units,))
    cursor.execute(
        "UPDATE unit AS u SET owner = NULL, due_at = d.due_at,"
        " deadline = CASE WHEN d.in_doubt THEN u.deadline ELSE clock_timestamp() + make_interval(secs => %s) END"
        " FROM unnest(%s, %s, %s::bigint[]) AS l (unit, owner, epoch) LEFT JOIN LATERAL"
        "  (SELECT coalesce(bool_or(intent IS NOT NULL), false) AS in_doubt,"
        "  min(CASE WHEN seen < marked THEN CASE WHEN %s THEN marked_at ELSE clock_timestamp() END"
        "   WHEN intent IS NOT NULL THEN coalesce(next_try, clock_timestamp()) ELSE next_try END) AS due_at"
        "  FROM document WHERE unit = l.unit) AS d ON true"
        " WHERE u.unit = l.unit AND u.owner = l.owner AND u.epoch = l.epoch",
        (rest, units, TextArray(one.owner for one in leased), [one.epoch for one in leased], in_turn),
    )
