"""Marks: which documents want another look, and the units that are due by them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from psycopg2 import sql

from sink.database import OF_THESE, Cursor, TextArray, these
from sink.documents.refs import DocumentRef

_THIS: Final = "type = %s AND key = %s"
_WAITS: Final = "state IN ('held', 'waits', 'retry', 'settling', 'planned')"
WAITING: Final = "state IN ('held', 'waits', 'retry')"
WAITS_FOR: Final = "CASE WHEN state = 'retry' THEN 'retry' ELSE coalesce(cause, 'decision') END"
"""Of documents that are `WAITING`: what for. An earlier release did not write down each cause."""
BUSY: Final = (
    "intent IS NOT NULL OR EXISTS (SELECT FROM unit AS u WHERE u.unit = document.unit AND u.owner IS NOT NULL"
    " AND u.deadline > clock_timestamp())"
)
"""Of a document: whether a worker has it, or nobody knows what became of its step."""
_ANEW: Final = "next_try = clock_timestamp(), marked = marked + 1, attempts = 0"

_TURN: Final = sql.SQL("statement_timestamp() + interval '1 us' * dense_rank() OVER (ORDER BY length(unit), unit)")
"""When a unit is due: one microsecond after the one before it. The same for all statements of a round trip."""


def mark(cursor: Cursor, touched: sql.Composable) -> int:
    """Says that documents want another look; how many. `touched`: a SELECT of (type, key, unit), each document once.

    A unit, such as `sales_order:17`, is leased together. Called inside the staging transaction. Each mark is a version,
    so that a look that began before it does not clear it. Upserts are in sorted order, and units come before documents
    here and everywhere: nobody waits in a circle. Units are due in the order in which numbers are counted: what waits
    for days was often marked together, and older orders go first. A document's mark has the time of its unit, by which
    that gets its place again when it is given back.

    A document of which a step is under way stays in its unit until that is settled: who has the unit has the call.
    """
    units = sql.SQL(
        "INSERT INTO unit AS u (unit, due_at)"
        " SELECT unit, {}"
        " FROM (SELECT DISTINCT unit FROM ({}) AS t) AS t ORDER BY unit"
        " ON CONFLICT (unit) DO UPDATE SET due_at = excluded.due_at"
        " WHERE u.due_at IS NULL OR u.due_at > excluded.due_at"
    ).format(_TURN, touched)
    documents = sql.SQL(
        "INSERT INTO document AS d (type, key, unit, marked_at) SELECT type, key, unit, {} FROM ({}) AS t ORDER BY 1, 2"
        " ON CONFLICT (type, key) DO UPDATE"
        " SET marked = d.marked + 1, marked_at = excluded.marked_at,"
        " unit = CASE WHEN d.intent IS NULL THEN excluded.unit ELSE d.unit END,"
        " next_unit = CASE WHEN d.intent IS NOT NULL THEN nullif(excluded.unit, d.unit) END"
    ).format(_TURN, touched)
    cursor.execute(sql.SQL("{}; {}").format(units, documents))  # in one round trip; the count is of the last
    return cursor.rowcount


def need(cursor: Cursor, refs: Collection[DocumentRef]) -> None:
    """Documents that others wait for are wanted now."""
    if refs:
        _look_again(cursor, "needed = true, marked = marked + 1", f"{OF_THESE} AND NOT needed", these(refs))


def waiting_for(cursor: Cursor, refs: Collection[DocumentRef]) -> list[str]:
    """The units of documents that wait for one of these."""
    if not refs:
        return []
    cursor.execute("SELECT DISTINCT unit FROM document WHERE waits_for = ANY(%s)", (TextArray(map(str, refs)),))
    return [row[0] for row in cursor.fetchall()]


def wake(cursor: Cursor, refs: Collection[DocumentRef], units: Collection[str]) -> None:
    """What waited for these looks again at once. The caller has the units locked."""
    if not units:
        return
    cursor.execute(
        "UPDATE document SET next_try = marked_at WHERE waits_for = ANY(%s) AND unit = ANY(%s)",
        (TextArray(map(str, refs)), TextArray(units)),
    )
    # In its turn by its mark: after an outage of days all others have waited for longer than since now.
    cursor.execute(
        "UPDATE unit AS u SET due_at = least(u.due_at, d.at) FROM (SELECT unit, min(marked_at) AS at FROM document"
        " WHERE waits_for = ANY(%s) AND unit = ANY(%s) GROUP BY unit) AS d WHERE u.unit = d.unit",
        (TextArray(map(str, refs)), TextArray(units)),
    )


def retry(cursor: Cursor, ref: DocumentRef | None) -> int:
    """Looks again at one held document, or at all of them; how many. The brake lets pass what a person has named."""
    if ref is not None:
        return pass_once(cursor, [ref])
    return _look_again(cursor, _ANEW, _WAITS, ())


def pass_once(cursor: Cursor, refs: Collection[DocumentRef]) -> int:
    """Looks again at documents, of which the brake does not count what the shop has of them until now; how many."""
    if not refs:
        return 0
    which = f"{OF_THESE} AND state <> 'ignored'"
    return _look_again(cursor, f"passed_at = marked_at, {_ANEW}", which, these(refs))


def retry_by(cursor: Cursor, cause: str) -> int:
    """Looks again at all that wait for a cause, or are held for a check of this name; how many."""
    return _look_again(cursor, _ANEW, f"{WAITING} AND %s IN ({WAITS_FOR}, check_name)", (cause,))


def look_at(cursor: Cursor, refs: Collection[DocumentRef]) -> int:
    """Looks again at documents of which a person has said something. The brake counts what comes of it: it opens by a
    word about it alone. Nobody else writes them before the caller's transaction has ended. How many."""
    wanted = (tuple(tuple(ref) for ref in refs),)
    return _look_again(cursor, _ANEW, "(type, key) IN %s AND state <> 'ignored'", wanted) if refs else 0


def retry_everything(cursor: Cursor, execute: bool) -> int:
    """Looks again at all documents but ignored ones, those that are done too; how many that is, done or not."""
    if execute:
        return _look_again(cursor, _ANEW, "state <> 'ignored'", ())
    cursor.execute("SELECT count(*) FROM document WHERE state <> 'ignored'")
    return sum(count for (count,) in cursor.fetchall())


def look_anew(cursor: Cursor, refs: Collection[DocumentRef]) -> int:
    """Looks again at documents, by nobody's word for one of them: the brake counts what comes of it. How many."""
    if not refs:
        return 0
    return _look_again(cursor, f"passed_at = NULL, {_ANEW}", OF_THESE, these(refs))


def accept(cursor: Cursor, ref: DocumentRef) -> int:
    """Looks again at a document, and takes the identity that the shop shows then for the one that was sent."""
    return _look_again(cursor, f"fingerprint = NULL, {_ANEW}", _THIS, tuple(ref))


def ignore(cursor: Cursor, refs: Collection[DocumentRef], undo: bool) -> int:
    """Documents are left alone for ever, or no more; how many. The look that they are due for says why they rest."""
    rests = f"state = 'ignored', held_since = NULL, waits_for = NULL, made_by = NULL, {_ANEW}"
    change = f"state = 'due', {_ANEW}" if undo else rests
    # A worker that has one of them would write over it.
    which = f"{OF_THESE} AND state {'=' if undo else '<>'} 'ignored' AND NOT ({BUSY})"
    return _look_again(cursor, change, which, these(refs)) if refs else 0


def as_new(cursor: Cursor, ref: DocumentRef) -> int:
    """Looks again at a document that the ERP does not have, and no more for what it may have been under another key."""
    return _look_again(cursor, f"revision = greatest(revision, 1), {_ANEW}", f"{_THIS} AND intent IS NULL", tuple(ref))


def resume(cursor: Cursor) -> None:
    """What was only planned, because `mode` was `plan`, is due now. Each worker says so, one after the other: what is
    due already is left."""
    _look_again(cursor, "marked = marked + 1", "state = 'planned' AND seen = marked", ())


def _look_again(cursor: Cursor, change: str, which: str, values: tuple[Any, ...]) -> int:
    """Changes documents and makes their units due; how many documents.

    Units are locked before their documents: a worker has its unit locked when it writes a document.
    """
    units = f"SELECT unit FROM document WHERE {which}"  # noqa: S608  our own conditions
    cursor.execute(f"SELECT FROM unit WHERE unit IN ({units}) ORDER BY unit FOR UPDATE", values)
    cursor.execute(f"UPDATE document SET {change} WHERE {which} RETURNING unit", values)  # noqa: S608
    found = [row[0] for row in cursor.fetchall()]
    cursor.execute(
        "UPDATE unit SET due_at = least(due_at, clock_timestamp()) WHERE unit = ANY(%s)", (TextArray(set(found)),)
    )
    return len(found)
