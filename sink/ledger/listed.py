"""Queries for the verbs that only look: what waits and why, lists by state, plans, search by number."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple

from sink.database import OF_THESE, Cursor, these
from sink.documents.refs import DocumentRef
from sink.erp.commands import Command
from sink.ledger.documents import TELLS_AT
from sink.ledger.marks import WAITING, WAITS_FOR
from sink.ledger.outcomes import State

CAUSES: Final = ("decision", "data", "master data", "waits", "retry")
"""What documents wait for, in the order of `sink held`. `retry` is tried again by the sink."""


class Listed(NamedTuple):
    """A document in a list. `gross`: of the shop's version at the last look, None if it has no amount or could not be
    built; `since`: when it was held, or else last marked; `next_try`: when the sink looks again; `in_erp`: the ERP was
    given it."""

    type: str
    key: str
    number: str | None
    state: str
    gross: Decimal | None
    currency: str | None
    cause: str | None
    reason: str | None
    next_step: str | None
    since: datetime | None
    attempts: int
    next_try: datetime | None
    reference: str | None
    check: str | None = None
    in_erp: bool = False

    @property
    def ref(self) -> DocumentRef:
        """Type and key."""
        return DocumentRef(self.type, self.key)


_STATE: Final = "CASE WHEN seen < marked AND state <> 'held' THEN 'due' ELSE state END"
_LISTED: Final = (
    f"type, key, number, {_STATE} AS shown, gross, currency, cause, reason, next_step,"
    " coalesce(held_since, marked_at) AS since, attempts, next_try, reference, check_name,"
    " applied IS NOT NULL AS in_erp"
)
# Reasons are grouped without the words that contain a digit: these are a document's own numbers and amounts. An item
# that the ERP lacks stays in the reason: it is one thing to do for all of its orders.
_WAITING: Final = f"""
    SELECT {_LISTED}, state = 'retry' AND attempts >= {TELLS_AT} AS stuck,
        {WAITS_FOR} AS waits_for_what,
        CASE WHEN cause = 'master data' THEN reason
            ELSE regexp_replace(reason, '[^\\s,;:]*\\d([^\\s,;:]|,(?=\\d\\d\\d))*', '…', 'g') END AS alike
    FROM document WHERE {WAITING}
"""  # noqa: S608  our own text


@dataclass
class HeldGroup:
    """Documents that wait for the same reason. `reason` has … in place of what differs between them. `money`: gross by
    currency; `without_money`: how many have no known gross; `stuck`: how many have failed so often that a person should
    look; `first`: the oldest."""

    cause: str
    reason: str
    documents: int = 0
    money: dict[str, Decimal] = field(default_factory=dict)
    without_money: int = 0
    stuck: int = 0
    oldest: datetime | None = None
    first: list[Listed] = field(default_factory=list)


def held(cursor: Cursor, word: str, limit: int) -> list[HeldGroup]:
    """What is held, waits or is tried again, by cause and reason, with the `limit` oldest documents of each.

    `word`: one of `CAUSES`, or the name of a check; "" for all.
    """
    groups: dict[tuple[str, str], HeldGroup] = {}
    cursor.execute(
        "SELECT waits_for_what, alike, currency, count(*), sum(gross), count(*) - count(gross),"  # noqa: S608
        " count(*) FILTER (WHERE stuck), min(since), min(reason), count(DISTINCT reason)"
        f" FROM ({_WAITING}) AS w WHERE %s IN (waits_for_what, check_name, '') GROUP BY 1, 2, 3",
        (word,),
    )
    for what, alike, currency, count, money, without, stuck, oldest, reason, reasons in cursor.fetchall():
        one = groups.setdefault((what, alike), HeldGroup(what, reason))
        if reasons > 1 or one.reason != reason:
            one.reason = alike
        one.documents, one.stuck = one.documents + count, one.stuck + stuck
        one.without_money += without
        if currency is not None and money is not None:
            one.money[currency] = money
        one.oldest = min(filter(None, (one.oldest, oldest)), default=None)
    for what, alike, listed in _oldest(cursor, word, limit):
        groups[what, alike].first.append(listed)
    return sorted(groups.values(), key=lambda one: (CAUSES.index(one.cause), -one.stuck, -one.documents, one.reason))


def not_in_erp(cursor: Cursor, type_: str) -> list[str]:
    """Keys of documents that the ERP does not have yet and should have."""
    cursor.execute(
        "SELECT key FROM document WHERE type = %s AND applied IS NULL AND state <> ALL (%s) ORDER BY key",
        (type_, [State.GONE, State.IGNORED, State.EARLY]),
    )
    return [key for (key,) in cursor.fetchall()]


def waiting(cursor: Cursor) -> dict[str, int]:
    """Cause → number of documents that wait for it."""
    cursor.execute(f"SELECT waits_for_what, count(*) FROM ({_WAITING}) AS w GROUP BY 1")  # noqa: S608
    return dict(cursor.fetchall())


def _oldest(cursor: Cursor, word: str, limit: int) -> list[tuple[str, str, Listed]]:
    cursor.execute(
        f"SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY waits_for_what, alike"  # noqa: S608
        f" ORDER BY since, type, key) AS place FROM ({_WAITING}) AS w) AS w"
        " WHERE %s IN (waits_for_what, check_name, '') AND place <= %s ORDER BY place",
        (word, limit),
    )
    return [(row[-3], row[-2], Listed(*row[:-4])) for row in cursor.fetchall()]


def stuck(cursor: Cursor) -> int:
    """How many documents have failed so often that a person should look."""
    cursor.execute("SELECT count(*) FROM document WHERE state = 'retry' AND attempts >= %s", (TELLS_AT,))
    return int((cursor.fetchone() or (0,))[0])


def listed(cursor: Cursor, state: State | None, type_: str | None, limit: int) -> list[Listed]:
    """Documents in a state and of a type (None: any), oldest first, at most `limit`."""
    cursor.execute(
        # `state` is compared by itself as well, so that its index is used: a million documents are done, few are in
        # other states.
        f"SELECT {_LISTED} FROM document WHERE (%s::text IS NULL OR {_STATE} = %s)"  # noqa: S608
        " AND (%s::text IS NULL OR %s::text = 'due' OR state = %s)"
        " AND (%s::text IS NULL OR type = %s) ORDER BY coalesce(held_since, marked_at), type, key LIMIT %s",
        (*[state] * 5, type_, type_, limit),
    )
    return [Listed(*row) for row in cursor.fetchall()]


def listed_of(cursor: Cursor, refs: Collection[DocumentRef]) -> dict[DocumentRef, Listed]:
    """Single documents; those that the ledger does not have are left out."""
    cursor.execute(
        f"SELECT {_LISTED} FROM document"  # noqa: S608
        f" WHERE {OF_THESE}",
        these(refs),
    )
    return {one.ref: one for one in (Listed(*row) for row in cursor.fetchall())}


def named(cursor: Cursor, text: str, types: Collection[str]) -> list[tuple[DocumentRef, str]]:
    """Documents with this number, or else with this key and one of these types, each with its unit."""
    for column in ("number", "key"):
        condition = f"{column} = %s" + (" AND type = ANY(%s)" if column == "key" else "")
        query = f"SELECT type, key, unit FROM document WHERE {condition} ORDER BY 1, 2"  # noqa: S608
        cursor.execute(query, (text, list(types)) if column == "key" else (text,))
        if found := [(DocumentRef(type_, key), unit) for type_, key, unit in cursor.fetchall()]:
            return found
    return []


class PlannedSum(NamedTuple):
    """Planned commands of one verb, kind and currency: their number, and their documents' gross before and after."""

    verb: str
    kind: str
    currency: str | None
    commands: int
    before: Decimal
    after: Decimal


class PlannedDocument(NamedTuple):
    """The commands planned for a document, in order."""

    document: Listed
    commands: Sequence[Command]


_PLANNED: Final = "planned IS NOT NULL AND state NOT IN ('done', 'gone')"


def planned_sums(cursor: Cursor) -> list[PlannedSum]:
    """Sums of all planned commands, by verb, kind and currency."""
    cursor.execute(
        "SELECT c ->> 'verb', c ->> 'kind', c ->> 'currency', count(*),"  # noqa: S608
        " coalesce(sum((c ->> 'before')::numeric), 0), coalesce(sum((c ->> 'after')::numeric), 0)"
        f" FROM document, jsonb_array_elements(planned) AS c WHERE {_PLANNED} GROUP BY 1, 2, 3 ORDER BY 2, 1, 3"
    )
    return [PlannedSum(*row) for row in cursor.fetchall()]


def planned(cursor: Cursor, limit: int) -> list[PlannedDocument]:
    """Documents with planned commands, at most `limit`, those of a unit together."""
    cursor.execute(
        f"SELECT {_LISTED}, planned FROM document WHERE {_PLANNED}"  # noqa: S608
        " ORDER BY unit, length(key), type DESC, key LIMIT %s",
        (limit,),
    )
    return [
        PlannedDocument(Listed(*row[:-1]), [Command.from_json(one) for one in row[-1]]) for row in cursor.fetchall()
    ]
