"""Marks: which documents need another look, and which units are due because of them."""

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
"""What a `WAITING` document waits for. An earlier release did not write every cause."""
BUSY: Final = (
    "intent IS NOT NULL OR EXISTS (SELECT FROM unit AS u WHERE u.unit = document.unit AND u.owner IS NOT NULL"
    " AND u.deadline > clock_timestamp())"
)
"""Whether a worker has the document, or a step of it is in doubt."""
_ANEW: Final = "next_try = clock_timestamp(), marked = marked + 1, attempts = 0"

_TURN: Final = sql.SQL("statement_timestamp() + interval '1 us' * dense_rank() OVER (ORDER BY length(unit), unit)")
"""When a unit is due: one microsecond after the unit before it. The same value in both statements of `mark`, since they
go in one round trip."""


def mark(cursor: Cursor, touched: sql.Composable) -> int:
    """Marks documents for another look, and returns how many. `touched`: a SELECT of (type, key, unit), each document
    once. A unit, such as `sales_order:17`, is leased as a whole. Runs inside the staging transaction.

    Marks are counted, so a look that began before a mark does not clear it. Upserts are sorted, and units are locked
    before documents here and everywhere, so that no deadlock is possible. Units become due in the order of their
    numbers: in a backlog many were marked together, and older orders should go first. A document's mark has the time of
    its unit, so that the unit keeps its place when it is released.

    A document with an intent stays in its unit until its step is no longer in doubt: whoever has the unit has the call.
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
    cursor.execute(sql.SQL("{}; {}").format(units, documents))  # in one round trip; rowcount is the last one's
    return cursor.rowcount


def need(cursor: Cursor, refs: Collection[DocumentRef]) -> None:
    """Marks documents as needed, because others wait for them."""
    if refs:
        _look_again(cursor, "needed = true, marked = marked + 1", f"{OF_THESE} AND NOT needed", these(refs))


def take_turns(cursor: Cursor, refs: Collection[DocumentRef]) -> None:
    """Waits until no other transaction says that one of these has arrived, or that something waits for it.

    If two said so at once, neither would see the other's word, and nobody would wake what waits. The locks are taken in
    one order, and before all row locks, so that no deadlock is possible.
    """
    if refs:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(key) FROM (SELECT DISTINCT"
            " hashtextextended(current_schema || '.arrives.' || ref, 0) AS key FROM unnest(%s) AS ref ORDER BY 1) AS k",
            (TextArray(map(str, refs)),),
        )


def waiting_for(cursor: Cursor, refs: Collection[DocumentRef]) -> list[str]:
    """The units of documents that wait for one of these."""
    if not refs:
        return []
    cursor.execute("SELECT DISTINCT unit FROM document WHERE waits_for = ANY(%s)", (TextArray(map(str, refs)),))
    return [row[0] for row in cursor.fetchall()]


def wake(cursor: Cursor, refs: Collection[DocumentRef], units: Collection[str]) -> None:
    """Makes documents due that wait for these. The caller has locked the units."""
    if not units:
        return
    cursor.execute(
        "UPDATE document SET next_try = marked_at WHERE waits_for = ANY(%s) AND unit = ANY(%s)",
        (TextArray(map(str, refs)), TextArray(units)),
    )
    # Due at its mark and not now: after an outage of days it would otherwise come behind everything else.
    cursor.execute(
        "UPDATE unit AS u SET due_at = least(u.due_at, d.at) FROM (SELECT unit, min(marked_at) AS at FROM document"
        " WHERE waits_for = ANY(%s) AND unit = ANY(%s) GROUP BY unit) AS d WHERE u.unit = d.unit",
        (TextArray(map(str, refs)), TextArray(units)),
    )


def retry(cursor: Cursor, ref: DocumentRef | None) -> int:
    """Marks one document, or all that are held, wait, settle, are tried again or only planned, for another look, and
    returns how many. Their attempts count anew. A document that someone names bypasses the brake."""
    if ref is not None:
        return pass_once(cursor, [ref])
    return _look_again(cursor, _ANEW, _WAITS, ())


def pass_once(cursor: Cursor, refs: Collection[DocumentRef]) -> int:
    """Marks documents for another look, and returns how many. The brake does not count their present versions."""
    if not refs:
        return 0
    which = f"{OF_THESE} AND state <> 'ignored'"
    return _look_again(cursor, f"passed_at = marked_at, {_ANEW}", which, these(refs))


def retry_by(cursor: Cursor, cause: str) -> int:
    """Marks all documents that wait for a cause, or are held for the check of this name, and returns how many."""
    return _look_again(cursor, _ANEW, f"{WAITING} AND %s IN ({WAITS_FOR}, check_name)", (cause,))


def look_at(cursor: Cursor, refs: Collection[DocumentRef]) -> int:
    """Marks documents that a person has decided about, and returns how many. The brake counts what comes of it: only a
    word about the brake opens it. Locks the documents for the caller's transaction."""
    wanted = (tuple(tuple(ref) for ref in refs),)
    return _look_again(cursor, _ANEW, "(type, key) IN %s AND state <> 'ignored'", wanted) if refs else 0


def retry_everything(cursor: Cursor, execute: bool) -> int:
    """Marks all documents but ignored ones, even those that are done. Returns how many; without `execute` it only
    counts them."""
    if execute:
        return _look_again(cursor, _ANEW, "state <> 'ignored'", ())
    cursor.execute("SELECT count(*) FROM document WHERE state <> 'ignored'")
    return sum(count for (count,) in cursor.fetchall())


def look_anew(cursor: Cursor, refs: Collection[DocumentRef]) -> int:
    """Marks documents for another look, and returns how many. Nobody has named them one by one, so the brake counts
    what comes of it."""
    if not refs:
        return 0
    return _look_again(cursor, f"passed_at = NULL, {_ANEW}", OF_THESE, these(refs))


def accept(cursor: Cursor, ref: DocumentRef) -> int:
    """Marks a document, and takes the identity that the shop shows next for the one that was sent."""
    return _look_again(cursor, f"fingerprint = NULL, {_ANEW}", _THIS, tuple(ref))


def ignore(cursor: Cursor, refs: Collection[DocumentRef], undo: bool) -> int:
    """Sets documents to ignored, or back; returns how many. The next look writes the reason."""
    rests = f"state = 'ignored', held_since = NULL, waits_for = NULL, made_by = NULL, {_ANEW}"
    change = f"state = 'due', {_ANEW}" if undo else rests
    # A worker that has one of them would overwrite this.
    which = f"{OF_THESE} AND state {'=' if undo else '<>'} 'ignored' AND NOT ({BUSY})"
    return _look_again(cursor, change, which, these(refs)) if refs else 0


def as_new(cursor: Cursor, ref: DocumentRef) -> int:
    """Marks a document that the ERP does not have, and stops the search for what it was under another key."""
    return _look_again(cursor, f"revision = greatest(revision, 1), {_ANEW}", f"{_THIS} AND intent IS NULL", tuple(ref))


def resume(cursor: Cursor) -> None:
    """Makes planned documents due. Each worker calls this once; what is already due is left."""
    _look_again(cursor, "marked = marked + 1", "state = 'planned' AND seen = marked", ())


def _look_again(cursor: Cursor, change: str, which: str, values: tuple[Any, ...]) -> int:
    """Changes documents, makes their units due, and returns the number of documents.

    Units are locked before documents, as a worker does.
    """
    units = f"SELECT unit FROM document WHERE {which}"  # noqa: S608  our own conditions
    cursor.execute(f"SELECT FROM unit WHERE unit IN ({units}) ORDER BY unit FOR UPDATE", values)
    cursor.execute(f"UPDATE document SET {change} WHERE {which} RETURNING unit", values)  # noqa: S608
    found = [row[0] for row in cursor.fetchall()]
    cursor.execute(
        "UPDATE unit SET due_at = least(due_at, clock_timestamp()) WHERE unit = ANY(%s)", (TextArray(set(found)),)
    )
    return len(found)
