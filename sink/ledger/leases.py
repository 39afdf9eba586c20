"""Leases: one worker at a time may call the ERP for a unit, and what it writes proves that it still is that one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from schemas.errors import OrdertapError
from sink.database import Cursor, TextArray


class Lease(NamedTuple):
    """The right to call the ERP for a unit until the deadline; `epoch` proves it at each write."""

    unit: str
    owner: str
    epoch: int


class LeaseLostError(OrdertapError):
    """Another worker has the unit now: this one must send nothing more."""

    def __init__(self, unit: str) -> None:
        super().__init__(f"another worker has taken over {unit}", "nothing is to be done: it goes on there")


# The time of a statement is one for all rows, so that the index knows where a search ends. With clock_timestamp() it
# would read all units.
_DUE: Final = "due_at <= statement_timestamp() AND (deadline IS NULL OR deadline < clock_timestamp())"


def any_due(cursor: Cursor) -> bool:
    """Whether there is anything to lease. To ask takes far less than to lease nothing."""
    # In order, so that it is asked of the index: after a backlog the statistics promise one in each page of the table.
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
    """The units that wait longest, at most so many, for so many seconds; those of the types in `filling` only as far as
    there are too few of others, those of the types in `later` only where no others are due, and then `most_later` of
    them, if that is more.

    A unit whose last owner vanished becomes free when its deadline has passed, not before: until then that owner's
    last call may still arrive at the ERP.
    """
    due = (
        f"SELECT unit FROM unit WHERE {_DUE} AND split_part(unit, ':', 1) <> ALL(%s)"  # noqa: S608
        " ORDER BY due_at LIMIT %s FOR UPDATE SKIP LOCKED"
    )
    found = _take(cursor, owner, seconds, due, [*later, *filling], most)
    if filling and len(found) < most:
        found += _take(cursor, owner, seconds, due, [*later], most - len(found))
    return found if found or not later else _take(cursor, owner, seconds, due, [], max(most, most_later))


def take(cursor: Cursor, owner: str, seconds: float, units: Collection[str]) -> list[Lease]:
    """Those of the units that nobody has, due or not."""
    free = (
        "SELECT unit FROM unit WHERE unit = ANY(%s) AND (deadline IS NULL OR deadline < clock_timestamp())"
        " ORDER BY unit FOR UPDATE SKIP LOCKED"
    )
    return _take(cursor, owner, seconds, free, TextArray(units)) if units else []


def of_others(cursor: Cursor, owner: str, units: Collection[str]) -> set[str]:
    """Those of units that `owner` could not take which come free as soon as somebody else is done with them, or have
    come free since. The others are his own, or a call is under way for them, and nobody has them until its time is
    over."""
    if not units:
        return set()
    cursor.execute(
        "SELECT unit FROM unit WHERE unit = ANY(%s) AND owner IS DISTINCT FROM %s"
        " AND (owner IS NOT NULL OR deadline IS NULL OR deadline <= clock_timestamp())",
        (TextArray(units), owner),
    )
    return {row[0] for row in cursor.fetchall()}


def _take(cursor: Cursor, owner: str, seconds: float, which: str, *values: object) -> list[Lease]:
    # A worker that dies now leaves the unit due.
    taken = (
        "UPDATE unit AS u SET owner = %s, epoch = epoch + 1, due_at = t.ends, deadline = t.ends"
        " FROM (SELECT clock_timestamp() + make_interval(secs => %s) AS ends) AS t WHERE unit = ANY(ARRAY("
    )
    cursor.execute(taken + which + ")) RETURNING unit, epoch", (owner, seconds, *values))
    return [Lease(unit, owner, epoch) for unit, epoch in cursor.fetchall()]


def renew(cursor: Cursor, held: Sequence[Lease], seconds: float, least: float) -> float:
    """Proves leases, and extends them to so many seconds if the first to end has less than `least` of them left; how
    many are left of it."""
    left = prove(cursor, held)
    if left >= least:
        return left
    cursor.execute(
        "UPDATE unit SET deadline = greatest(deadline, clock_timestamp() + make_interval(secs => %s))"
        " WHERE unit = ANY(%s)",
        (seconds, TextArray(one.unit for one in held)),
    )
    return seconds


def prove(cursor: Cursor, held: Sequence[Lease], others: Collection[str] = ()) -> float:
    """The caller's transaction cannot commit without the leases, which are not extended; LeaseLostError. How many
    seconds are left of the first to end.

    `others`: units that it changes too. All are locked in one order, so that nobody waits in a circle.
    """
    cursor.execute(
        "SELECT unit, owner, epoch, extract(epoch FROM deadline - clock_timestamp())::float FROM unit"
        " WHERE unit = ANY(%s) ORDER BY unit FOR UPDATE",
        (TextArray({*(one.unit for one in held), *others}),),
    )
    left = {Lease(unit, owner, epoch): seconds or 0.0 for unit, owner, epoch, seconds in cursor.fetchall()}
    for one in held:
        if left.get(one, 0.0) <= 0:
            raise LeaseLostError(one.unit)
    return min(left[one] for one in held)


def release(cursor: Cursor, held: Sequence[Lease], in_turn: bool = False, rest: float | None = None) -> None:
    """Gives units back, each due when its next document is: at once where one was marked since it was read, behind all
    others; `in_turn`: by its mark, since nothing could be looked at. `rest`: seconds before which nobody takes them.

    Where a call ended without a known outcome its deadline stays, for everybody: until then it may still arrive at the
    ERP, and what was asked before that would be no answer. Such a unit stays due, whatever else was written.
    """
    units = TextArray(one.unit for one in held)
    # A mark may be about to commit. Its unit is locked before we look at the documents: either we see it, or it comes
    # after us and makes the unit due again.
    cursor.execute("SELECT FROM unit WHERE unit = ANY(%s) ORDER BY unit FOR UPDATE", (units,))
    cursor.execute(
        "UPDATE unit AS u SET owner = NULL, due_at = d.due_at,"
        " deadline = CASE WHEN d.unsettled THEN u.deadline ELSE clock_timestamp() + make_interval(secs => %s) END"
        " FROM unnest(%s, %s, %s::bigint[]) AS l (unit, owner, epoch) LEFT JOIN LATERAL"
        "  (SELECT coalesce(bool_or(intent IS NOT NULL), false) AS unsettled,"
        "  min(CASE WHEN seen < marked THEN CASE WHEN %s THEN marked_at ELSE clock_timestamp() END"
        "   WHEN intent IS NOT NULL THEN coalesce(next_try, clock_timestamp()) ELSE next_try END) AS due_at"
        "  FROM document WHERE unit = l.unit) AS d ON true"
        " WHERE u.unit = l.unit AND u.owner = l.owner AND u.epoch = l.epoch",
        (rest, units, TextArray(one.owner for one in held), [one.epoch for one in held], in_turn),
    )
