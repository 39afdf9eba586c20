"""Marks: which documents want another look, and the units that are due by them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from psycopg2 import sql

from sink.database import Cursor
from sink.documents.refs import DocumentRef

_THIS: Final = "type = %s AND key = %s"
_ANEW: Final = "next_try = clock_timestamp(), marked = marked + 1, attempts = 0"


def mark(cursor: Cursor, touched: sql.Composable) -> int:
    """Says that documents want another look; how many. `touched`: a SELECT of (type, key, unit), each document once.

    A unit, such as `sales_order:17`, is leased together. Called inside the staging transaction. Each mark is a version,
    so that a look that began before it does not clear it. Upserts are in sorted order, and units come before documents
    here and everywhere: nobody waits in a circle. Units are due in the order in which numbers are counted: what waits
    for days was often marked together, and older orders go first.
    """
    units = sql.SQL(
        "INSERT INTO unit AS u (unit, due_at)"
        " SELECT unit, statement_timestamp() + interval '1 us' * row_number() OVER (ORDER BY length(unit), unit)"
        " FROM (SELECT DISTINCT unit FROM ({}) AS t) AS t ORDER BY unit"
        " ON CONFLICT (unit) DO UPDATE SET due_at = excluded.due_at"
        " WHERE u.due_at IS NULL OR u.due_at > excluded.due_at"
    ).format(touched)
    documents = sql.SQL(
        "INSERT INTO document AS d (type, key, unit) SELECT type, key, unit FROM ({}) AS t ORDER BY 1, 2"
        " ON CONFLICT (type, key) DO UPDATE"
        " SET marked = d.marked + 1, marked_at = clock_timestamp(), unit = excluded.unit"
    ).format(touched)
    cursor.execute(sql.SQL("{}; {}").format(units, documents))  # in one round trip; the count is of the last
    return cursor.rowcount


def need(cursor: Cursor, refs: Collection[DocumentRef]) -> None:
    """Documents that others wait for are wanted now."""
    if refs:
        wanted = (tuple(tuple(ref) for ref in refs),)
        _look_again(cursor, "needed = true, marked = marked + 1", "(type, key) IN %s AND NOT needed", wanted)


def waiting_for(cursor: Cursor, refs: Collection[DocumentRef]) -> list[str]:
    """The units of documents that wait for one of these."""
    if not refs:
        return []
    cursor.execute("SELECT DISTINCT unit FROM document WHERE waits_for = ANY(%s)", ([*map(str, refs)],))
    return [row[0] for row in cursor.fetchall()]


def wake(cursor: Cursor, refs: Collection[DocumentRef], units: Collection[str]) -> None:
    """What waited for these looks again at once. The caller has the units locked."""
    if not units:
        return
    cursor.execute(
        "UPDATE document SET next_try = marked_at WHERE waits_for = ANY(%s) AND unit = ANY(%s)",
        ([*map(str, refs)], list(units)),
    )
    # In its turn by its mark: after an outage of days all others have waited for longer than since now.
    cursor.execute(
        "UPDATE unit AS u SET due_at = least(u.due_at, d.at) FROM (SELECT unit, min(marked_at) AS at FROM document"
        " WHERE waits_for = ANY(%s) AND unit = ANY(%s) GROUP BY unit) AS d WHERE u.unit = d.unit",
        ([*map(str, refs)], list(units)),
    )


def retry(cursor: Cursor, ref: DocumentRef | None) -> int:
    """Looks again at one held document, or at all of them; how many."""
    which = _THIS if ref else "state IN ('held', 'waits', 'retry', 'settling', 'planned')"
    return _look_again(cursor, _ANEW, which, tuple(ref or ()))


def accept(cursor: Cursor, ref: DocumentRef) -> int:
    """Looks again at a document, and takes the identity that the shop shows then for the one that was sent."""
    return _look_again(cursor, f"fingerprint = NULL, {_ANEW}", _THIS, tuple(ref))


def settle(cursor: Cursor, ref: DocumentRef) -> int:
    """A held document is settled as it is, until it is marked again; 0: it is not held, or a step of it is under way.

    One that was marked since it was held stays due: nobody has seen what became of that.
    """
    settled = "state = 'ignored', next_try = NULL, held_since = NULL"
    return _look_again(cursor, settled, f"{_THIS} AND state = 'held' AND intent IS NULL", tuple(ref))


def resume(cursor: Cursor) -> None:
    """What was only planned, because `mode` was `plan`, is due now."""
    _look_again(cursor, "marked = marked + 1", "state = 'planned'", ())


def _look_again(cursor: Cursor, change: str, which: str, values: tuple[Any, ...]) -> int:
    """Changes documents and makes their units due; how many documents.

    Units are locked before their documents: a worker has its unit locked when it writes a document.
    """
    units = f"SELECT unit FROM document WHERE {which}"  # noqa: S608  our own conditions
    cursor.execute(f"SELECT FROM unit WHERE unit IN ({units}) ORDER BY unit FOR UPDATE", values)
    cursor.execute(f"UPDATE document SET {change} WHERE {which} RETURNING unit", values)  # noqa: S608
    found = [row[0] for row in cursor.fetchall()]
    cursor.execute(
        "UPDATE unit SET due_at = least(due_at, clock_timestamp()) WHERE unit = ANY(%s)", (sorted(set(found)),)
    )
    return len(found)
