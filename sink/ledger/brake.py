"""The brake's counters: how many documents were changed recently, and which ones wait because there were too many."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

from psycopg2.extras import Json, execute_values

from sink.database import OF_THESE, Cursor, these
from sink.documents.refs import DocumentRef
from sink.ledger import marks


class Limit(NamedTuple):
    """At most `least` documents may change within `seconds`; if `share` percent of the ERP's documents of these types
    are more, then that many. `what`: what is counted, in words."""

    what: str
    least: int
    seconds: float
    share: float = 0.0


def passed(cursor: Cursor, refs: Sequence[DocumentRef]) -> set[DocumentRef]:
    """The documents that the shop has not changed since a person let them pass.

    Ask after they were built. A change that came before that has left its mark, so an older entry proves nothing.
    """
    if not refs:
        return set()
    cursor.execute(f"SELECT type, key FROM document WHERE passed_at = marked_at AND {OF_THESE}", these(refs))  # noqa: S608  our own text
    return {DocumentRef(*row) for row in cursor.fetchall()}


def admit(cursor: Cursor, kind: str, refs: Sequence[DocumentRef], limit: Limit) -> tuple[set[DocumentRef], str]:
    """Counts the documents that may change now and returns them; also why the others wait, "" if none does.

    The counter is locked to the end of the caller's transaction, which writes the intents, so that two workers do not
    use the same room. It is locked before units, here and in `release`, so that no deadlock is possible.
    """
    cursor.execute("SELECT stopped_at IS NOT NULL, reason FROM brake WHERE kind = %s FOR UPDATE", (kind,))
    stopped, reason = cursor.fetchone() or (False, "")
    if stopped:
        return set(), reason
    counted, again = _counted(cursor, kind, refs, limit.seconds)
    new = [ref for ref in dict.fromkeys(refs) if ref not in again]
    most = limit.least
    if limit.share and counted + len(new) > most:
        most = max(most, int(_in_erp(cursor, {ref.type for ref in refs}) * limit.share / 100))
    room = max(0, most - counted)
    passing = {*refs} - {*new[room:]}
    _count(cursor, kind, passing)
    if len(new) > room:
        reason = f"brake: more than {most} {limit.what} within {_words(limit.seconds)}"
        cursor.execute("UPDATE brake SET stopped_at = clock_timestamp(), reason = %s WHERE kind = %s", (reason, kind))
    return passing, reason


def _counted(cursor: Cursor, kind: str, refs: Sequence[DocumentRef], seconds: float) -> tuple[int, set[DocumentRef]]:
    """The number of documents in the window, and which of `refs` are among them. Deletes older counts."""
    cursor.execute(
        "DELETE FROM brake_count WHERE kind = %s AND at < clock_timestamp() - make_interval(secs => %s)",
        (kind, seconds),
    )
    cursor.execute("SELECT count(*) FROM brake_count WHERE kind = %s", (kind,))
    (counted,) = cursor.fetchone() or (0,)
    cursor.execute(
        f"SELECT type, key FROM brake_count WHERE kind = %s AND {OF_THESE}",  # noqa: S608  our own text
        (kind, *these(refs)),
    )
    return counted, {DocumentRef(*row) for row in cursor.fetchall()}


def _count(cursor: Cursor, kind: str, refs: Collection[DocumentRef]) -> None:
    cursor.execute(
        "INSERT INTO brake_count (kind, type, key, at)"
        " SELECT %s, type, key, clock_timestamp() FROM unnest(%s::text[], %s::text[]) AS r (type, key)"
        " ON CONFLICT (kind, type, key) DO UPDATE SET at = excluded.at",
        (kind, *these(sorted(refs))),
    )


def _in_erp(cursor: Cursor, types: Collection[str]) -> int:
    """The documents of these types in the ERP: all documents less the open ones that are not there. A full count would
    be too slow for each call."""
    cursor.execute(
        "SELECT coalesce((SELECT sum(documents) FROM document_total WHERE type = ANY(%s)), 0) - count(*) FROM document"
        " WHERE type = ANY(%s) AND (state <> 'done' OR seen < marked) AND applied IS NULL",
        (list(types), list(types)),
    )
    return int((cursor.fetchone() or (0,))[0])


def _words(seconds: float) -> str:
    if seconds == 3600:
        return "an hour"
    return f"{seconds / 60:g} minutes" if seconds % 60 == 0 else f"{seconds:g} seconds"


class Back(NamedTuple):
    """A change that the brake stops, of a document as of the mark `seen`."""

    ref: DocumentRef
    kind: str
    seen: int
    verb: str
    record: dict[str, Any]


def hold_back(cursor: Cursor, changes: Sequence[Back]) -> None:
    """Writes the stopped changes. The caller writes the outcomes."""
    rows = [(*one.ref, one.kind, one.seen, one.verb, Json(one.record)) for one in changes]
    execute_values(
        cursor,
        "INSERT INTO braked (type, key, kind, seen, verb, record) VALUES %s ON CONFLICT (type, key) DO UPDATE"
        " SET (kind, seen, verb, record) = (excluded.kind, excluded.seen, excluded.verb, excluded.record)",
        rows,
    )


class Counter(NamedTuple):
    """How many documents passed since `counts_since`, which is at most one window ago. `stopped_at`: None while changes
    pass."""

    kind: str
    counted: int
    counts_since: datetime
    stopped_at: datetime | None
    reason: str


def counters(cursor: Cursor, seconds: float) -> list[Counter]:
    """The counters of all kinds. `seconds`: the window."""
    cursor.execute(
        "SELECT kind, (SELECT count(*) FROM brake_count AS c WHERE c.kind = b.kind AND at >= s.start),"
        " greatest(counts_since, s.start), stopped_at, reason"
        " FROM brake AS b, (SELECT clock_timestamp() - make_interval(secs => %s) AS start) AS s ORDER BY kind",
        (seconds,),
    )
    return [Counter(*row) for row in cursor.fetchall()]


class Waiting(NamedTuple):
    """Waiting changes of one type and verb, with their documents' gross in the ERP before and after. None for prices,
    whose sum means nothing."""

    kind: str
    type: str
    verb: str
    currency: str | None
    documents: int
    before: Decimal | None
    after: Decimal | None


class Example(NamedTuple):
    """One waiting change."""

    type: str
    key: str
    number: str | None
    verb: str
    currency: str | None
    before: Decimal | None
    after: Decimal | None


_WAITING: Final = (
    "(SELECT b.kind, type, key, unit, number, verb, record #>> '{fields,currency}' AS currency,"
    "  coalesce(applied #>> '{fields,gross,n}', applied #>> '{fields,amount,n}')::numeric AS before,"
    "  CASE WHEN verb IN ('cancel', 'remove') THEN 0"
    "   ELSE coalesce(record #>> '{fields,gross,n}', record #>> '{fields,amount,n}')::numeric END AS after"
    " FROM braked AS b JOIN document AS d USING (type, key)"
    " WHERE d.state = 'held' AND b.seen = d.seen AND d.seen = d.marked AND b.kind = ANY(%s)) AS w"
)
"""Only documents that are still as they were when the brake stopped them. One that the shop has changed since is left
out, so that nobody releases a change that nobody has seen."""


def waiting(cursor: Cursor, kinds: Collection[str]) -> list[Waiting]:
    """What waits, by kind, type, verb and currency."""
    cursor.execute(
        "SELECT kind, type, verb, currency, count(*),"  # noqa: S608  ours
        " CASE WHEN kind <> 'prices' THEN sum(before) END, CASE WHEN kind <> 'prices' THEN sum(after) END"
        f" FROM {_WAITING} GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4",
        (list(kinds),),
    )
    return [Waiting(*row) for row in cursor.fetchall()]


def examples(cursor: Cursor, kinds: Collection[str], most: int) -> list[Example]:
    """The waiting changes with the largest amounts."""
    cursor.execute(
        f"SELECT type, key, number, verb, currency, before, after FROM {_WAITING}"  # noqa: S608  ours
        " ORDER BY abs(after - before) DESC NULLS LAST, type, key LIMIT %s",
        (list(kinds), most),
    )
    return [Example(*row) for row in cursor.fetchall()]


def release(cursor: Cursor, kinds: Collection[str]) -> list[DocumentRef]:
    """Lets everything that waits pass once, and starts the count again. Later changes in the shop count as usual."""
    cursor.execute("SELECT FROM brake WHERE kind = ANY(%s) ORDER BY kind FOR UPDATE", (list(kinds),))
    cursor.execute(f"SELECT type, key FROM {_WAITING} ORDER BY 1, 2", (list(kinds),))  # noqa: S608  ours
    refs = [DocumentRef(*row) for row in cursor.fetchall()]
    marks.pass_once(cursor, refs)
    cursor.execute("DELETE FROM braked WHERE kind = ANY(%s)", (list(kinds),))
    cursor.execute("DELETE FROM brake_count WHERE kind = ANY(%s)", (list(kinds),))
    cursor.execute(
        "UPDATE brake SET stopped_at = NULL, reason = '', counts_since = clock_timestamp() WHERE kind = ANY(%s)",
        (list(kinds),),
    )
    return refs
