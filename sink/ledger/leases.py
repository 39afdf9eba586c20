"""Leases: one worker at a time may call the ERP for a unit, and what it writes proves that it still is that one."""

from __future__ import annotations

from typing import NamedTuple

from schemas.errors import OrdertapError
from sink.database import Cursor


class Lease(NamedTuple):
    """The right to call the ERP for a unit until the deadline; `epoch` proves it at each write."""

    unit: str
    owner: str
    epoch: int


class LeaseLostError(OrdertapError):
    """Another worker has the unit now: this one must send nothing more."""

    def __init__(self, unit: str) -> None:
        super().__init__(f"another worker has taken over {unit}", "nothing is to be done: it goes on there")


def lease(cursor: Cursor, owner: str, seconds: float) -> Lease | None:
    """The unit that waits longest, for so many seconds; None when none is due.

    A unit whose last owner vanished becomes free when its deadline has passed, not before: until then that owner's
    last call may still arrive at the ERP.
    """
    cursor.execute(
        "UPDATE unit SET owner = %s, epoch = epoch + 1, due_at = NULL,"
        " deadline = clock_timestamp() + make_interval(secs => %s)"
        " WHERE unit = (SELECT unit FROM unit WHERE due_at <= clock_timestamp()"
        " AND (deadline IS NULL OR deadline < clock_timestamp()) ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED)"
        " RETURNING unit, epoch",
        (owner, seconds),
    )
    row = cursor.fetchone()
    if row is None:
        return None
    # A worker that dies now leaves the unit due.
    cursor.execute("UPDATE unit SET due_at = deadline WHERE unit = %s", (row[0],))
    return Lease(row[0], owner, row[1])


def renew(cursor: Cursor, held: Lease, seconds: float) -> None:
    """Extends the lease in the caller's transaction, which so cannot commit without it; LeaseLostError."""
    cursor.execute(
        "UPDATE unit SET deadline = clock_timestamp() + make_interval(secs => %s)"
        " WHERE unit = %s AND owner = %s AND epoch = %s AND deadline > clock_timestamp()",
        (seconds, held.unit, held.owner, held.epoch),
    )
    if cursor.rowcount != 1:
        raise LeaseLostError(held.unit)


def prove(cursor: Cursor, held: Lease) -> None:
    """The caller's transaction cannot commit without the lease, which is not extended; LeaseLostError."""
    cursor.execute(
        "SELECT FROM unit WHERE unit = %s AND owner = %s AND epoch = %s AND deadline > clock_timestamp() FOR UPDATE",
        (held.unit, held.owner, held.epoch),
    )
    if cursor.rowcount != 1:
        raise LeaseLostError(held.unit)


def release(cursor: Cursor, held: Lease) -> None:
    """Gives the unit back, due when its next document is: at once where one was marked since it was read.

    Where a call ended without a known outcome its deadline stays, for everybody: until then it may still arrive at the
    ERP, and what was asked before that would be no answer. Such a unit stays due, whatever else was written.
    """
    # A mark may be about to commit. Its unit is locked before we look at the documents: either we see it, or it comes
    # after us and makes the unit due again.
    cursor.execute("SELECT FROM unit WHERE unit = %s FOR UPDATE", (held.unit,))
    cursor.execute(
        "UPDATE unit AS u SET owner = NULL, due_at = d.due_at,"
        " deadline = CASE WHEN d.unsettled THEN u.deadline END"
        " FROM (SELECT coalesce(bool_or(intent IS NOT NULL), false) AS unsettled,"
        "  min(CASE WHEN seen < marked THEN clock_timestamp()"
        "   WHEN intent IS NOT NULL THEN coalesce(next_try, clock_timestamp()) ELSE next_try END) AS due_at"
        "  FROM document WHERE unit = %s) AS d"
        " WHERE u.unit = %s AND u.owner = %s AND u.epoch = %s",
        (held.unit, held.unit, held.owner, held.epoch),
    )
