"""Which documents a changed row touches: the paths of the profile, followed through the staged tables.

Asked before the rows are written and again after, so that a line that moves from one order to another touches both.
A path that ends in a row that is not here yet resolves when that row comes: it marks by its own part of the path.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psycopg2
from psycopg2 import sql
from psycopg2.extras import execute_values

from schemas.errors import SettingsError
from sink.database import Cursor
from sink.documents.profile import DocumentRule, Profile, Touch
from sink.documents.refs import DocumentRef
from sink.staging.tables import StagedTable, StagedTables

Keys = Sequence[Mapping[str, Any]]


def touched(cursor: Cursor, profile: Profile, tables: StagedTables, changed: Mapping[str, Keys]) -> set[DocumentRef]:
    """The documents that these rows touch as they are staged now, marked rows too. `changed`: table → keys."""
    found: set[DocumentRef] = set()
    for rule in profile.documents.values():
        for touch in rule.touched_by:
            chain = _chain(cursor, tables, touch) if changed.get(touch.table) else None
            if chain is None:
                continue
            first = chain[0]
            keys = sql.SQL("(VALUES %s) AS k ({}) JOIN {} AS t0 USING ({})").format(
                _names(first.key), first.identifier, _names(first.key)
            )
            template = "(" + ", ".join(f"%s::{first.columns[name]}" for name in first.key) + ")"
            values = [tuple(key[name] for name in first.key) for key in changed[touch.table]]
            query = _select(touch, keys, chain).as_string(cursor)
            try:
                rows = execute_values(cursor, query, values, template, page_size=10_000, fetch=True)
            except psycopg2.ProgrammingError as error:
                raise _wrong(rule, touch, error) from None
            found |= {DocumentRef(rule.name, row[0]) for row in rows}
    return found


def every_document(cursor: Cursor, profile: Profile, tables: StagedTables, names: Iterable[str]) -> set[DocumentRef]:
    """The documents that any row of these tables touches: after a snapshot, or when a table was truncated."""
    wanted = set(names)
    found: set[DocumentRef] = set()
    for rule in profile.documents.values():
        for touch in rule.touched_by:
            chain = _chain(cursor, tables, touch) if touch.table in wanted else None
            if chain is None:
                continue
            try:
                cursor.execute(_select(touch, sql.SQL("{} AS t0").format(chain[0].identifier), chain, quoted=False))
            except psycopg2.ProgrammingError as error:
                raise _wrong(rule, touch, error) from None
            found |= {DocumentRef(rule.name, row[0]) for row in cursor.fetchall()}
    return found


def units(
    cursor: Cursor, profile: Profile, tables: StagedTables, refs: Iterable[DocumentRef]
) -> dict[DocumentRef, str]:
    """What each document is applied together with: its shop order, else it stands alone."""
    found: dict[DocumentRef, str] = {}
    by_type: dict[str, list[str]] = defaultdict(list)
    for ref in refs:
        found[ref] = f"{ref.type}:{ref.key}"
        by_type[ref.type].append(ref.key)
    sales_orders = profile.of_model("SalesOrder")
    for name, keys in by_type.items():
        rule = profile.documents[name]
        root = tables.get(cursor, rule.root)
        if rule.order is None or root is None or not sales_orders:
            continue
        cursor.execute(
            sql.SQL("SELECT ({0})::text, ({1})::text FROM {2} WHERE {0} = ANY(%s::{3}) AND {1} IS NOT NULL").format(
                sql.Identifier(rule.key),
                sql.Identifier(rule.order),
                root.identifier,
                sql.SQL(root.columns[rule.key] + "[]"),
            ),
            (keys,),
        )
        found |= {DocumentRef(name, key): f"{sales_orders[0].name}:{order}" for key, order in cursor.fetchall()}
    return found


def _chain(cursor: Cursor, tables: StagedTables, touch: Touch) -> list[StagedTable] | None:
    """The tables of a path; None while one of them has no row: nothing can resolve then."""
    chain = [tables.get(cursor, name) for name in (touch.table, *(step.table for step in touch.steps))]
    found = [table for table in chain if table is not None]
    return found if len(found) == len(chain) else None


def _select(touch: Touch, source: sql.Composable, chain: Sequence[StagedTable], quoted: bool = True) -> sql.Composable:
    """The SELECT of the keys. The expression stands in a query of its own, where its columns mean the last table's."""
    joins = [
        sql.SQL(" JOIN {} AS {} ON {}.{} = {}.{}").format(
            table.identifier,
            sql.Identifier(f"t{n}"),
            sql.Identifier(f"t{n}"),
            sql.Identifier(step.column if step.back else chain[n].key[0]),
            sql.Identifier(f"t{n - 1}"),
            sql.Identifier(chain[n - 1].key[0] if step.back else step.column),
        )
        for n, (step, table) in enumerate(zip(touch.steps, chain[1:], strict=True), 1)
    ]
    expression = touch.expression.replace("%", "%%") if quoted else touch.expression
    return sql.SQL(
        "SELECT DISTINCT d.document FROM {}{} CROSS JOIN LATERAL"
        " (SELECT ({})::text AS document FROM (SELECT {}.*) AS last) AS d WHERE d.document IS NOT NULL"
    ).format(source, sql.Composed(joins), sql.SQL(expression), sql.Identifier(f"t{len(joins)}"))


def _names(names: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _wrong(rule: DocumentRule, touch: Touch, error: psycopg2.Error) -> SettingsError:
    path = " -> ".join([touch.table, *(step.table for step in touch.steps)])
    reason = str(error).strip().splitlines()[0]
    return SettingsError(f"profile: documents.{rule.name}.touched_by: {path}: {reason}", "correct the profile")
