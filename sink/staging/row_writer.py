"""Applies changes to the staged rows in bulk, in their order, and says which documents they touch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from psycopg2 import sql

from schemas.change import Stamp
from sink.database import Cursor
from sink.documents.profile import Profile
from sink.documents.refs import DocumentRef
from sink.ledger import blocked
from sink.staging import touches
from sink.staging.rows import NEW_HALF, OLD_HALF, PARKED_OP, RowChange, StagedRow, identity
from sink.staging.tables import StagedTable, StagedTables, load, write


class RowWriter:
    """Writes rows for one profile. All of it runs in the staging transaction, under its lock."""

    def __init__(self, profile: Profile, tables: StagedTables) -> None:
        self._profile = profile
        self._tables = tables

    def apply(self, cursor: Cursor, changes: Iterable[RowChange]) -> set[DocumentRef]:
        """Applies changes in their order; what they touch.

        Runs of changes are written together; a TRUNCATE, and a key change that must take values over from the row under
        its old key, need what is before them to be written.
        """
        refs: set[DocumentRef] = set()
        pending: list[RowChange] = []
        old_keys: dict[tuple[str, Stamp], Mapping[str, Any]] = {}
        for change in sorted(changes, key=lambda c: c.order):
            if change.op == PARKED_OP:
                continue
            if change.half == OLD_HALF:
                old_keys[change.table, change.stamp] = change.key or {}
            old_key = old_keys.get((change.table, change.stamp)) if _takes_over(change) else None
            if change.op != "t" and old_key is None:
                pending.append(change)
                continue
            refs |= self._write(cursor, pending)
            pending = []
            if change.op == "t":
                refs |= touches.every_document(cursor, self._profile, self._tables, [change.table])
                self._tables.truncate(cursor, change.table, change.stamp)
            else:
                pending.append(self._taken_over(cursor, change, old_key or {}))
        return refs | self._write(cursor, pending)

    def _write(self, cursor: Cursor, changes: Sequence[RowChange]) -> set[DocumentRef]:
        by_table: dict[str, dict[tuple[str, ...], list[RowChange]]] = defaultdict(lambda: defaultdict(list))
        for change in changes:
            self._tables.fit(cursor, change)
            by_table[change.table][identity(change.key or {})].append(change)
        keys = {name: [same[0].key or {} for same in by_key.values()] for name, by_key in by_table.items()}
        refs = touches.touched(cursor, self._profile, self._tables, keys)
        written: list[tuple[StagedTable, list[StagedRow], list[StagedRow]]] = []
        for name, by_key in by_table.items():
            table = self._tables.get(cursor, name)
            assert table is not None  # noqa: S101  fit has just made it
            rows = load(cursor, table, keys[name])
            incomplete = [row for row in rows if row.unseen]
            for row, same in zip(rows, by_key.values(), strict=True):
                for change in same:
                    row.apply(change)
            write(cursor, table, rows)
            written.append((table, rows, incomplete))
        for table, rows, incomplete in written:
            refs |= self._unseen(cursor, table, rows, incomplete)
        return refs | touches.touched(cursor, self._profile, self._tables, keys)

    def _unseen(
        self, cursor: Cursor, table: StagedTable, rows: Iterable[StagedRow], before: Iterable[StagedRow]
    ) -> set[DocumentRef]:
        """Blocks what is made of rows with values that never came; the documents that are free again."""
        for row in rows:
            if row.unseen and not row.deleted:
                refs = touches.touched(cursor, self._profile, self._tables, {table.name: [row.key]})
                names = ", ".join(sorted(row.unseen))
                reason = f"{table.name}: the value of {names} never came; `capture signal snapshot` reads it"
                blocked.block(cursor, refs, _unseen_cause(table, row), reason)
        return blocked.unblock(cursor, [_unseen_cause(table, row) for row in before if not row.unseen or row.deleted])

    def _taken_over(self, cursor: Cursor, change: RowChange, old_key: Mapping[str, Any]) -> RowChange:
        """A key change with the values that were not sent, from the row under the old key, as PostgreSQL's text."""
        table = self._tables.fit(cursor, change)
        missing = sorted(set(change.columns) - set(change.values))
        cursor.execute(
            sql.SQL("SELECT _unseen, {} FROM {} WHERE {}").format(
                sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in missing),
                table.identifier,
                sql.SQL(" AND ").join(
                    sql.SQL("{} = %s::{}").format(sql.Identifier(name), sql.SQL(table.columns[name]))
                    for name in table.key
                ),
            ),
            [old_key[name] for name in table.key],
        )
        found = cursor.fetchone()
        if found is None:
            return change
        known = {name: value for name, value in zip(missing, found[1:], strict=True) if name not in (found[0] or ())}
        return replace(change, values={**change.values, **known})


def _takes_over(change: RowChange) -> bool:
    return change.half == NEW_HALF and len(change.values) < len(change.columns)


def _unseen_cause(table: StagedTable, row: StagedRow) -> str:
    return f"unseen:{table.name}:{':'.join(identity(row.key))}"
