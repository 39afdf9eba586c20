"""The ledger: for each document what is desired, what the ERP was given, and what keeps the two apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from psycopg2.extras import Json, execute_values

from schemas.errors import SettingsError
from sink.database import Cursor
from sink.documents.refs import DocumentRef


def mark(cursor: Cursor, touched: Mapping[DocumentRef, str]) -> None:
    """Says that documents want another look; `touched`: document → unit, such as `sales_order:17`, leased together.

    Called inside the staging transaction. Each mark is a version, so that a look that began before it does not clear
    it. Upserts are in sorted order, and units come before documents here and everywhere: nobody waits in a circle.
    """
    if not touched:
        return
    units = [(unit,) for unit in sorted(set(touched.values()))]
    execute_values(
        cursor,
        "INSERT INTO ordertap.unit AS u (unit, due_at) VALUES %s"
        " ON CONFLICT (unit) DO UPDATE SET due_at = least(u.due_at, excluded.due_at)",
        units,
        template="(%s, clock_timestamp())",
        page_size=1_000,
    )
    execute_values(
        cursor,
        "INSERT INTO ordertap.document AS d (type, key, unit) VALUES %s"
        " ON CONFLICT (type, key) DO UPDATE"
        " SET marked = d.marked + 1, marked_at = clock_timestamp(), unit = excluded.unit",
        sorted((ref.type, ref.key, unit) for ref, unit in touched.items()),
        page_size=1_000,
    )


def _one(cursor: Cursor) -> tuple[Any, ...]:
    row = cursor.fetchone()
    if row is None:
        raise LookupError("no row")
    return row


class Lease(NamedTuple):
    """The right to call the ERP for a unit until the deadline; `epoch` proves it at each write."""

    unit: str
    owner: str
    epoch: int


class LeaseLostError(Exception):
    """Another worker has the unit now: this one must send nothing more."""


@dataclass
class Entry:
    """A document as the ledger has it, read at the mark `marked`."""

    ref: DocumentRef
    unit: str
    marked: int
    marked_at: datetime
    state: str
    needed: bool
    fingerprint: str | None
    incarnation: int
    revision: int
    intent: dict[str, Any] | None
    applied: dict[str, Any] | None
    reference: str | None
    attempts: int
    age: float  # seconds since the last mark
    identity: str | None = None  # the fingerprint of what the shop has now
    shown: str | None = None  # its number in the shop, for people

    def external(self, shop: str) -> str:
        """The key that the ERP keeps."""
        return f"{shop}/{self.ref.type}/{self.ref.key}/{self.incarnation}"


_ENTRY = (
    "SELECT type, key, unit, marked, marked_at, state, needed, fingerprint, incarnation, revision, intent, applied,"
    " reference, attempts, extract(epoch FROM clock_timestamp() - marked_at)::float FROM ordertap.document"
)


def lease(cursor: Cursor, owner: str, seconds: float) -> Lease | None:
    """The unit that waits longest, for so many seconds; None when none is due.

    A unit whose last owner vanished becomes free when its deadline has passed, not before: until then that owner's
    last call may still arrive at the ERP.
    """
    cursor.execute(
        "UPDATE ordertap.unit SET owner = %s, epoch = epoch + 1, due_at = NULL,"
        " deadline = clock_timestamp() + make_interval(secs => %s)"
        " WHERE unit = (SELECT unit FROM ordertap.unit WHERE due_at <= clock_timestamp()"
        " AND (deadline IS NULL OR deadline < clock_timestamp()) ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED)"
        " RETURNING unit, epoch",
        (owner, seconds),
    )
    row = cursor.fetchone()
    if row is None:
        return None
    # A worker that dies now leaves the unit due.
    cursor.execute("UPDATE ordertap.unit SET due_at = deadline WHERE unit = %s", (row[0],))
    return Lease(row[0], owner, row[1])


def renew(cursor: Cursor, held: Lease, seconds: float) -> None:
    """Extends the lease in the caller's transaction, which so cannot commit without it; LeaseLostError."""
    cursor.execute(
        "UPDATE ordertap.unit SET deadline = clock_timestamp() + make_interval(secs => %s)"
        " WHERE unit = %s AND owner = %s AND epoch = %s AND deadline > clock_timestamp()",
        (seconds, held.unit, held.owner, held.epoch),
    )
    if cursor.rowcount != 1:
        raise LeaseLostError(held.unit)


def prove(cursor: Cursor, held: Lease) -> None:
    """The caller's transaction cannot commit without the lease, which is not extended; LeaseLostError."""
    cursor.execute(
        "SELECT FROM ordertap.unit WHERE unit = %s AND owner = %s AND epoch = %s AND deadline > clock_timestamp()"
        " FOR UPDATE",
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
    cursor.execute("SELECT FROM ordertap.unit WHERE unit = %s FOR UPDATE", (held.unit,))
    cursor.execute(
        "UPDATE ordertap.unit AS u SET owner = NULL, due_at = d.due_at,"
        " deadline = CASE WHEN d.unsettled THEN u.deadline END"
        " FROM (SELECT coalesce(bool_or(intent IS NOT NULL), false) AS unsettled,"
        "  min(CASE WHEN seen < marked THEN clock_timestamp()"
        "   WHEN intent IS NOT NULL THEN coalesce(next_try, clock_timestamp()) ELSE next_try END) AS due_at"
        "  FROM ordertap.document WHERE unit = %s) AS d"
        " WHERE u.unit = %s AND u.owner = %s AND u.epoch = %s",
        (held.unit, held.unit, held.owner, held.epoch),
    )


def entries(cursor: Cursor, unit: str) -> list[Entry]:
    """The documents of a unit."""
    cursor.execute(_ENTRY + " WHERE unit = %s ORDER BY type, key", (unit,))
    return [_entry(row) for row in cursor.fetchall()]


def entry(cursor: Cursor, ref: DocumentRef) -> Entry | None:
    """One document."""
    cursor.execute(_ENTRY + " WHERE type = %s AND key = %s", tuple(ref))
    row = cursor.fetchone()
    return None if row is None else _entry(row)


def _entry(row: tuple[Any, ...]) -> Entry:
    return Entry(DocumentRef(row[0], row[1]), *row[2:])


def save(cursor: Cursor, ref: DocumentRef, **columns: Any) -> None:
    """Writes columns of one document."""
    names = ", ".join(f"{name} = %s" for name in columns)
    values = [Json(value) if isinstance(value, dict) else value for value in columns.values()]
    cursor.execute(f"UPDATE ordertap.document SET {names} WHERE type = %s AND key = %s", (*values, *ref))  # noqa: S608


def wait(cursor: Cursor, ref: DocumentRef, seconds: float | None) -> None:
    """When to look again by itself; None: not before the next mark or retry."""
    cursor.execute(
        "UPDATE ordertap.document SET next_try = clock_timestamp() + make_interval(secs => %s)"
        " WHERE type = %s AND key = %s",
        (seconds, *ref),
    )


def need(cursor: Cursor, ref: DocumentRef) -> None:
    """A document that others wait for is wanted now."""
    _lock(cursor, "type = %s AND key = %s AND NOT needed", tuple(ref))
    cursor.execute(
        "UPDATE ordertap.document SET needed = true, marked = marked + 1"
        " WHERE type = %s AND key = %s AND NOT needed RETURNING unit",
        tuple(ref),
    )
    _due(cursor, [row[0] for row in cursor.fetchall()])


def wake(cursor: Cursor, waits_for: str) -> None:
    """What waited for this looks again at once."""
    _lock(cursor, "waits_for = %s", (waits_for,))
    cursor.execute(
        "UPDATE ordertap.document SET next_try = clock_timestamp() WHERE waits_for = %s RETURNING unit", (waits_for,)
    )
    _due(cursor, sorted({row[0] for row in cursor.fetchall()}))


def retry(cursor: Cursor, ref: DocumentRef | None) -> int:
    """Looks again at one held document, or at all of them; how many."""
    which = "type = %s AND key = %s" if ref else "state IN ('held', 'waits', 'retry', 'settling', 'planned')"
    _lock(cursor, which, tuple(ref or ()))
    cursor.execute(
        f"UPDATE ordertap.document SET next_try = clock_timestamp(), marked = marked + 1, attempts = 0"  # noqa: S608
        f" WHERE {which} RETURNING unit",
        tuple(ref or ()),
    )
    found = cursor.fetchall()
    _due(cursor, sorted({row[0] for row in found}))
    return len(found)


def resume(cursor: Cursor) -> None:
    """What was only planned, because `mode` was `plan`, is due now."""
    planned = "state = 'planned'"
    _lock(cursor, planned, ())
    cursor.execute(f"UPDATE ordertap.document SET marked = marked + 1 WHERE {planned} RETURNING unit")  # noqa: S608
    _due(cursor, sorted({row[0] for row in cursor.fetchall()}))


def _lock(cursor: Cursor, which: str, values: tuple[str, ...]) -> None:
    """Units before their documents. A worker has its unit locked when it writes a document."""
    units = f"SELECT unit FROM ordertap.document WHERE {which}"  # noqa: S608  our own conditions
    cursor.execute(f"SELECT FROM ordertap.unit WHERE unit IN ({units}) ORDER BY unit FOR UPDATE", values)


def _due(cursor: Cursor, units: Sequence[str]) -> None:
    cursor.execute(
        "UPDATE ordertap.unit SET due_at = least(due_at, clock_timestamp()) WHERE unit = ANY(%s)", (list(units),)
    )


def note(cursor: Cursor, ref: DocumentRef, event: str, detail: str = "") -> None:
    """A line of history."""
    cursor.execute(
        "INSERT INTO ordertap.history (type, key, event, detail) VALUES (%s, %s, %s, %s)", (*ref, event, detail)
    )


def bind(cursor: Cursor, name: str, value: str, what: str) -> None:
    """The first time it is written down, later it must be the same; SettingsError."""
    cursor.execute("INSERT INTO ordertap.binding (name, value) VALUES (%s, %s) ON CONFLICT DO NOTHING", (name, value))
    cursor.execute("SELECT value FROM ordertap.binding WHERE name = %s", (name,))
    bound = _one(cursor)[0]
    if bound != value:
        raise SettingsError(
            f"this middle layer belongs to {what} {bound}, the settings lead to {value}",
            "correct the settings; if it was moved on purpose, delete that row of ordertap.binding",
        )


class Held(NamedTuple):
    """A document that waits for someone."""

    type: str
    key: str
    number: str | None
    state: str
    cause: str | None
    reason: str | None
    next_step: str | None
    since: datetime | None


def held(cursor: Cursor) -> list[Held]:
    """Held documents, and those that wait for them, oldest first."""
    cursor.execute(
        "SELECT type, key, number, state, cause, reason, next_step, held_since FROM ordertap.document"
        " WHERE state IN ('held', 'waits') ORDER BY held_since NULLS LAST, type, key"
    )
    return [Held(*row) for row in cursor.fetchall()]


def counts(cursor: Cursor) -> dict[tuple[str, str], int]:
    """(type, state) → documents; one that is marked anew counts as due."""
    cursor.execute(
        "SELECT type, CASE WHEN seen < marked AND state <> 'held' THEN 'due' ELSE state END, count(*)"
        " FROM ordertap.document GROUP BY 1, 2 ORDER BY 1, 2"
    )
    return {(row[0], row[1]): row[2] for row in cursor.fetchall()}
