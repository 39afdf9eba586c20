"""Finds the documents that changed rows touch, by the SQL of the profile's `touched_by`.

Functions that make SQL take `relations`: table → a SELECT of its rows before and after the change (`before_and_after`
or `all_rows`). Their SQL returns rows of (type, key) and has no parameters. A SELECT of the profile reads the shop's
other tables by plain names; the caller sets the search_path (`names_of`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import psycopg2
import psycopg2.errors
from psycopg2 import sql

from schemas.model.errors import DataError, OrdertapError, SettingsError
from sink.database import Cursor
from sink.documents.profile import DocumentRule, Profile
from sink.documents.refs import DocumentRef
from sink.documents.touched_by import Touch
from sink.staging.schema import StagedTable

Relations = Mapping[str, sql.Composable]


def expressions(profile: Profile, relations: Relations) -> sql.Composable | None:
    """One statement for all expressions over these tables, which reads each table once. None if there are none."""
    found: dict[str, list[tuple[DocumentRule, Touch]]] = defaultdict(list)
    for rule, touch in _touches(profile, relations, selects=False):
        found[touch.table].append((rule, touch))
    return _together([_expressions(touches, relations[table]) for table, touches in found.items()])


def selects(profile: Profile, relations: Relations) -> sql.Composable | None:
    """One statement for all SELECTs over `changed` of these tables. None if there are none."""
    return _together([_select(*pair, relations[pair[1].table]) for pair in _touches(profile, relations, selects=True)])


def one(rule: DocumentRule, touch: Touch, relation: sql.Composable) -> sql.Composable:
    """The statement for one touch."""
    return _select(rule, touch, relation) if touch.selects else _expressions([(rule, touch)], relation)


def before_and_after(
    table: StagedTable, new: sql.Composable, columns: Iterable[str], live: bool = True
) -> sql.Composable:
    """The staged rows with the keys of `new`, a relation that is not written yet, and these rows as they will be.

    `columns`: those of `new`; other columns stay as they are staged. `live` False: `new` has only the keys of deleted
    rows.
    """
    sent = set(columns)
    # OFFSET 0 makes PostgreSQL look up each row by its key; it may plan a plain join as a scan of the whole table.
    staged = sql.SQL("LATERAL (SELECT * FROM {} AS s WHERE {} OFFSET 0) AS t").format(
        table.identifier,
        sql.SQL(" AND ").join(sql.SQL("s.{0} = n.{0}").format(sql.Identifier(name)) for name in table.key),
    )
    before = sql.SQL("SELECT {} FROM {} AS n CROSS JOIN {}").format(_of("t", table.columns), new, staged)
    if not live:
        return before
    after = sql.SQL(", ").join(
        sql.SQL("{}.{}").format(sql.Identifier("n" if name in sent else "t"), sql.Identifier(name))
        for name in table.columns
    )
    rows = sql.SQL("{} UNION ALL SELECT {} FROM {} AS n").format(before, after, new)
    if sent.issuperset(table.columns):
        return rows
    return rows + sql.SQL(" LEFT JOIN {} ON true").format(staged)


def find_orders(cursor: Cursor, profile: Profile, tables: Mapping[str, StagedTable]) -> None:
    """Finds the orders of touched documents by the profile's SELECTs in `order`. SettingsError names one that fails."""
    for rule in profile.documents.values():
        if rule.order is None or not rule.order.selects or rule.root not in tables:
            continue
        root = tables[rule.root]
        statement = sql.SQL(
            "UPDATE pg_temp.touched AS t SET of = (SELECT max(o.key) FROM {} AS o) FROM {} AS r"
            " WHERE t.type = {} AND r.{} = t.key::{}"
        ).format(
            _select(rule, rule.order, sql.SQL("SELECT {}").format(_of("r", root.columns))),
            root.identifier,
            sql.Literal(rule.name),
            sql.Identifier(rule.key),
            sql.SQL(root.columns[rule.key].type),
        )
        try:
            cursor.execute(statement)
        except (psycopg2.DataError, psycopg2.ProgrammingError) as error:
            raise _no_order(profile, rule, error) from None


def try_orders(cursor: Cursor, profile: Profile) -> None:
    """Runs the SELECTs in `order` over no rows. SettingsError names one that does not run."""
    nothing = no_rows(profile)
    for rule in profile.documents.values():
        if rule.order is not None and rule.order.selects:
            try:
                cursor.execute(_select(rule, rule.order, nothing[rule.root]))
            except psycopg2.ProgrammingError as error:
                raise _no_order(profile, rule, error) from None


def _no_order(profile: Profile, rule: DocumentRule, error: psycopg2.Error) -> SettingsError:
    wrong = _wrong(f"{profile.file}: documents.{rule.name}.order", error)
    return SettingsError(wrong.message, "correct the profile: its SELECT gives one key for any row")


def units(profile: Profile, tables: Mapping[str, StagedTable]) -> sql.Composable:
    """A SELECT of the touched documents, each with its unit: its order, or else the document itself.

    If the profile's SELECT finds no order, since that is deleted or has not come, the document stays in its unit.
    """
    orders = profile.of_model("SalesOrder")
    parts = []
    for rule in profile.documents.values():
        of = rule.order if orders else None
        name = sql.Literal(f"{orders[0].name if of else rule.name}:")
        unit: sql.Composable = sql.SQL("{} || t.key").format(name)
        joined: sql.Composable = sql.SQL("")
        root = tables.get(rule.root)
        if of is not None and of.selects:
            unit = sql.SQL("coalesce({} || t.of, d.unit, {})").format(name, unit)
            joined = sql.SQL(" LEFT JOIN document AS d ON d.type = {} AND d.key = t.key").format(sql.Literal(rule.name))
        elif of is not None and root is not None:
            unit = sql.SQL("{} || coalesce(r.{}::text, t.key)").format(name, sql.Identifier(of.sql))
            joined = sql.SQL(" LEFT JOIN {} AS r ON r.{} = t.key::{}").format(
                root.identifier, sql.Identifier(rule.key), sql.SQL(root.columns[rule.key].type)
            )
        part = sql.SQL(
            "SELECT {0} AS type, t.key, {1} AS unit"
            " FROM (SELECT key, max(of) AS of FROM pg_temp.touched WHERE type = {0} GROUP BY key OFFSET 0) AS t{2}"
        )
        parts.append(part.format(sql.Literal(rule.name), unit, joined))
    return sql.SQL(" UNION ALL ").join(parts)


def all_rows(table: StagedTable) -> sql.Composable:
    """All staged rows, deleted ones included."""
    return sql.SQL("SELECT {} FROM {} AS t").format(_of("t", table.columns), table.identifier)


def no_rows(profile: Profile) -> dict[str, sql.Composable]:
    """An empty relation for each table, to check that the SQL runs."""
    names = {table: sql.Identifier(table.rpartition(".")[2]) for table in profile.tables}
    return {table: sql.SQL("SELECT * FROM {} WHERE false").format(name) for table, name in names.items()}


def find(cursor: Cursor, profile: Profile, relations: Relations) -> set[DocumentRef]:
    """The documents that these rows touch.

    DataError if the SQL fails for a row, SettingsError if it does not run at all. Both name document and table. The
    transaction is rolled back to its state before, so that the caller can try with fewer rows.
    """
    cursor.execute("SAVEPOINT touches")
    found: set[DocumentRef] = set()
    try:
        for statement in (expressions(profile, relations), selects(profile, relations)):
            if statement is not None:
                cursor.execute(statement)
                found |= {DocumentRef(*row) for row in cursor.fetchall()}
    except (psycopg2.DataError, psycopg2.ProgrammingError) as error:
        cursor.execute("ROLLBACK TO SAVEPOINT touches")
        raise blame(cursor, profile, relations, error) from None
    cursor.execute("RELEASE SAVEPOINT touches")
    return found


def collect(cursor: Cursor, profile: Profile, relations: Relations, statement: sql.Composable | None) -> None:
    """Adds the result of a statement of `expressions` or `selects` to the touched documents of this transaction.

    Errors as for `find`.
    """
    if statement is None:
        return
    insert = sql.SQL("SAVEPOINT touches; INSERT INTO pg_temp.touched (type, key) {}; RELEASE SAVEPOINT touches")
    try:
        cursor.execute(insert.format(statement))  # one round trip, since most commits are small
    except (psycopg2.DataError, psycopg2.ProgrammingError) as error:
        cursor.execute("ROLLBACK TO SAVEPOINT touches")
        raise blame(cursor, profile, relations, error) from None


def blame(cursor: Cursor, profile: Profile, relations: Relations, error: psycopg2.Error) -> OrdertapError:
    """Finds the touch by which a combined statement failed, by running each alone. The statement has been rolled
    back."""
    for rule, touch in _touches(profile, relations):
        cursor.execute("SAVEPOINT touch")
        try:
            cursor.execute(one(rule, touch, relations[touch.table]))
        except (psycopg2.DataError, psycopg2.ProgrammingError) as alone:
            cursor.execute("ROLLBACK TO SAVEPOINT touch")
            return _wrong(f"{profile.file}: documents.{rule.name}.touched_by.{touch.table}", alone)
        cursor.execute("RELEASE SAVEPOINT touch")
    return _wrong(f"{profile.file}: touched_by", error)


def _touches(
    profile: Profile, relations: Relations, selects: bool | None = None
) -> Iterator[tuple[DocumentRule, Touch]]:
    """The touches of these tables. `selects`: True: only SELECTs; False: only expressions; None: both."""
    for rule in profile.documents.values():
        for touch in rule.touched_by:
            if touch.table in relations and selects in (None, touch.selects):
                yield rule, touch


def _expressions(touches: Iterable[tuple[DocumentRule, Touch]], relation: sql.Composable) -> sql.Composable:
    """All expressions over one relation, which is read once. An expression sees only the columns of the changed row."""
    values = [
        sql.SQL("({}, ({}\n)::text)").format(sql.Literal(rule.name), sql.SQL(touch.sql)) for rule, touch in touches
    ]
    return sql.SQL("SELECT d.type, d.key FROM ({}) AS changed CROSS JOIN LATERAL (VALUES {}) AS d (type, key)").format(
        relation, sql.SQL(", ").join(values)
    )


def _select(rule: DocumentRule, touch: Touch, relation: sql.Composable) -> sql.Composable:
    """The profile's SELECT with `changed` as a CTE. The UNION refuses a SELECT of more than one column."""
    return sql.SQL(
        "(WITH changed AS ({}) SELECT {} AS type, d.key::text AS key"
        " FROM (SELECT NULL AS key WHERE false UNION ALL ({}\n)) AS d)"
    ).format(relation, sql.Literal(rule.name), sql.SQL(touch.sql))


def _together(parts: Sequence[sql.Composable]) -> sql.Composable | None:
    if not parts:
        return None
    return sql.SQL("SELECT DISTINCT type, key FROM ({}) AS touched WHERE key IS NOT NULL").format(
        sql.SQL(" UNION ALL ").join(parts)
    )


def _of(alias: str, names: Iterable[str]) -> sql.Composable:
    return sql.SQL(", ").join(sql.SQL("{}.{}").format(sql.Identifier(alias), sql.Identifier(name)) for name in names)


def _wrong(place: str, error: psycopg2.Error) -> OrdertapError:
    """For an error of the data only its class, since its message may show a value; for an error of the SQL its
    message."""
    if isinstance(error, psycopg2.DataError | psycopg2.errors.CardinalityViolation):
        cause = type(error).__name__
        return DataError(
            f"{place}: fails for a row: {cause}", "correct the row in the shop, or make the SQL accept any row"
        )
    reason = str(error).strip().splitlines()[0]
    return SettingsError(f"{place}: {reason}", "correct the profile")
