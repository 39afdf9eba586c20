"""Whole shop commits only: changes wait here until all of their transaction has come, in whatever order.

Completeness is counted in distinct ordinals per table, never in rows or records: a row that is updated twice, a record
that is delivered twice and the two records of a key change all count as what they are.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from psycopg2.extras import execute_values

from schemas.change import TransactionEnd
from sink.database import Cursor
from sink.staging.rows import NEW_HALF, OLD_HALF, WHOLE, RowChange, from_json, to_json


class Waiting(NamedTuple):
    """A transaction that is not complete: what has come of each table, and how many it has (None: not known yet)."""

    transaction_id: str
    since: str
    come: Mapping[str, int]
    size: Mapping[str, int] | None


HALVES = ""
"""In a size, beside its tables: it counts the two halves of a key change, as the index of commits does."""


def ordinals(changes: Iterable[RowChange], size: Mapping[str, int] | None) -> dict[str, int]:
    """The changes seen per table: an ordinal counts once, a key change when both of its halves are there; or each half
    where the size does so."""
    halves: dict[tuple[str, int], set[int]] = defaultdict(set)
    for change in changes:
        halves[change.table, change.stamp.ordinal].add(change.half)
    counts: dict[str, int] = defaultdict(int)
    for (table, _), found in halves.items():
        counts[table] += len(found) if HALVES in (size or ()) else WHOLE in found or {OLD_HALF, NEW_HALF} <= found
    return dict(counts)


def is_complete(come: Mapping[str, int], size: Mapping[str, int] | None, tables: frozenset[str]) -> bool:
    """Whether all changes of the staged tables are here; other tables of the transaction do not matter."""
    return size is not None and all(come.get(table, 0) >= count for table, count in size.items() if table in tables)


def whole(
    cursor: Cursor, changes: Iterable[RowChange], ends: Iterable[TransactionEnd], tables: frozenset[str]
) -> list[RowChange]:
    """The changes of all transactions that are complete with these; the others are kept in the inbox."""
    by_transaction: dict[str, list[RowChange]] = defaultdict(list)
    for change in changes:
        by_transaction[change.transaction_id or ""].append(change)
    sizes = {end.transaction_id: end.size for end in ends}
    known = _waiting_ids(cursor, [*by_transaction, *sizes])
    done: list[RowChange] = []
    rest: dict[str, list[RowChange]] = {}
    for transaction_id, part in by_transaction.items():
        size = _size(part) or sizes.get(transaction_id)
        if transaction_id not in known and is_complete(ordinals(part, size), size, tables):
            done += part
            sizes.pop(transaction_id, None)
        else:
            rest[transaction_id] = part
            if size is not None:
                sizes[transaction_id] = size
    _keep(cursor, rest, sizes)
    return done + _completed(cursor, [*rest, *(sizes.keys() - rest.keys())], tables)


def waiting(cursor: Cursor, transaction_ids: Sequence[str] | None = None) -> list[Waiting]:
    """The transactions in the inbox, or those of these, the oldest first."""
    cursor.execute(
        "SELECT i.transaction_id, i.table_name, CASE WHEN s.size ? %(halves)s THEN sum(i.halves)::bigint"
        " ELSE count(*) FILTER (WHERE i.whole) END, min(i.since)::text, s.size FROM ("
        " SELECT transaction_id, table_name, ordinal, min(received_at) AS since, count(DISTINCT half) AS halves,"
        " bool_or(half = 0) OR count(DISTINCT half) = 2 AS whole FROM ordertap.inbox"
        " WHERE %(ids)s IS NULL OR transaction_id = ANY(%(ids)s) GROUP BY 1, 2, 3"
        ") AS i LEFT JOIN ordertap.transaction_size AS s USING (transaction_id)"
        " GROUP BY i.transaction_id, i.table_name, s.size ORDER BY 4, 1",
        {"ids": None if transaction_ids is None else list(transaction_ids), "halves": HALVES},
    )
    found: dict[str, Waiting] = {}
    for transaction_id, table, count, since, size in cursor.fetchall():
        entry = found.setdefault(transaction_id, Waiting(transaction_id, since, {}, size))
        found[transaction_id] = entry._replace(come={**entry.come, table: count}, since=min(entry.since, since))
    return list(found.values())


def rows(cursor: Cursor, transaction_ids: Sequence[str]) -> list[RowChange]:
    """The changes of these transactions that wait in the inbox."""
    cursor.execute(
        "SELECT table_name, op, generation, commit_lsn, ordinal, half, transaction_id, row"
        " FROM ordertap.inbox WHERE transaction_id = ANY(%s)",
        (list(transaction_ids),),
    )
    return [
        from_json(table, op, (generation, int(lsn), ordinal), half, transaction_id, row)
        for table, op, generation, lsn, ordinal, half, transaction_id, row in cursor.fetchall()
    ]


def _size(part: Sequence[RowChange]) -> Mapping[str, int] | None:
    return next((change.size for change in part if change.size is not None), None)


def _waiting_ids(cursor: Cursor, transaction_ids: Sequence[str]) -> set[str]:
    if not transaction_ids:
        return set()
    cursor.execute(
        "SELECT transaction_id FROM ordertap.inbox WHERE transaction_id = ANY(%(ids)s)"
        " UNION SELECT transaction_id FROM ordertap.transaction_size WHERE transaction_id = ANY(%(ids)s)",
        {"ids": list(transaction_ids)},
    )
    return {row[0] for row in cursor.fetchall()}


def _keep(cursor: Cursor, rest: Mapping[str, Sequence[RowChange]], sizes: Mapping[str, Mapping[str, int]]) -> None:
    if sizes:
        execute_values(
            cursor,
            "INSERT INTO ordertap.transaction_size (transaction_id, size) VALUES %s ON CONFLICT DO NOTHING",
            [(transaction_id, json.dumps(dict(size))) for transaction_id, size in sizes.items()],
        )
    values = [
        (
            transaction_id,
            c.table,
            c.stamp.ordinal,
            c.half,
            c.stamp.generation,
            int(c.stamp.commit_lsn),
            c.op,
            to_json(c),
        )
        for transaction_id, part in rest.items()
        for c in part
    ]
    if values:
        execute_values(
            cursor,
            "INSERT INTO ordertap.inbox (transaction_id, table_name, ordinal, half, generation, commit_lsn, op, row)"
            " VALUES %s ON CONFLICT (transaction_id, table_name, ordinal, half)"
            # A record that could be read at last takes the place of its stand-in.
            " DO UPDATE SET op = excluded.op, row = excluded.row WHERE inbox.op = 'parked'",
            values,
            page_size=1_000,
        )


def _completed(cursor: Cursor, transaction_ids: Sequence[str], tables: frozenset[str]) -> list[RowChange]:
    if not transaction_ids:
        return []
    done = [
        entry.transaction_id
        for entry in waiting(cursor, transaction_ids)
        if is_complete(entry.come, entry.size, tables)
    ]
    found = rows(cursor, done) if done else []
    if done:
        cursor.execute("DELETE FROM ordertap.inbox WHERE transaction_id = ANY(%s)", (done,))
        cursor.execute("DELETE FROM ordertap.transaction_size WHERE transaction_id = ANY(%s)", (done,))
    return found


def forget_old_sizes(cursor: Cursor) -> None:
    """Drops ENDs whose transaction was complete before they came: after a week nothing of it can be under way."""
    cursor.execute(
        "DELETE FROM ordertap.transaction_size AS s WHERE received_at < now() - interval '7 days'"
        " AND NOT EXISTS (SELECT FROM ordertap.inbox AS i WHERE i.transaction_id = s.transaction_id)"
    )
