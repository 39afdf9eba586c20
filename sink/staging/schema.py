"""Staged tables follow the shop's schema, and know which of their values never came.

A staged table has all columns that its topic ever had, and columns of our own, whose names (`#…`) no Avro field can
have. A view, in the schema named like the shop, shows the rows that are not deleted. It raises an error if a query
reads an unseen value: one that "#unseen" names, or of a column that was added after the row's "#version". A column that
the newest records no longer have is *gone*; reading it raises, too.

Versions are our own numbers, not stamps: records come late or again (a replay, a snapshot), and a row is complete if we
wrote it with the column, whatever its stamp.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import psycopg2
import structlog
from psycopg2 import sql

from schemas.model.change import Stamp
from schemas.model.errors import DataError, UnavailableError
from schemas.model.lsn import LSN
from sink.database import Cursor, schema_of
from sink.intake.decoder import staged_type
from sink.staging.dropped import forget_dropped

log = structlog.get_logger()
OWN_COLUMNS: Final = (
    '"#generation" bigint NOT NULL, "#lsn" numeric(20) NOT NULL, "#ordinal" bigint NOT NULL,'
    ' "#deleted" boolean NOT NULL, "#snapshot" text, "#unseen" text[], "#version" integer NOT NULL'
)
STAMP: Final = sql.SQL('"#generation", "#lsn", "#ordinal"')
_LONGEST_NAME: Final = 63  # bytes; PostgreSQL cuts longer ones off
_LONGEST_WAIT: Final = "2s"  # readers queue behind a lock request
_LADDERS: Final = (("smallint", "integer", "bigint"), ("real", "double precision"), ("date", "timestamp"))
_ROUNDED: Final = ("double precision", "timestamp")
"""Types whose values the shop rounds if it changes them to a narrower type of the ladder. Integers are not rounded."""
REFUSALS: Final = ("0A", "21", "22", "23", "2B", "42", "54")
"""SQLSTATE classes of refusals: trying again does not help."""
_READ: Final = """
    SELECT t.table_name, t.key_columns, t.version, t.shown,
           t.truncate_generation, t.truncate_lsn, t.truncate_ordinal,
           t.schema_generation, t.schema_lsn, t.schema_ordinal,
           array_agg(c.column_name ORDER BY c.position), array_agg(c.type ORDER BY c.position),
           array_agg(c.since_version ORDER BY c.position), array_agg(c.gone ORDER BY c.position)
    FROM staged_table AS t JOIN staged_column AS c USING (table_name) GROUP BY t.table_name
"""


_GRANTS: Final = """
    SELECT format('GRANT %%s ON %%s TO %%s%%s', a.privilege_type, c.oid::regclass,
                  CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
                  CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
    FROM pg_class AS c, aclexplode(c.relacl) AS a WHERE c.oid = to_regclass(%s) AND a.grantee <> c.relowner
"""


class SchemaBlockedError(UnavailableError):
    """Another session's lock keeps a staged table from following the shop. `message` names the session."""


class Column(NamedTuple):
    """A staged column. Rows with a "#version" before `since` have no value of it. `gone`: the shop no longer has it."""

    type: str
    since: int = 1
    gone: bool = False


@dataclass(frozen=True, slots=True)
class StagedTable:
    """A staged table, gone columns included.

    `schema`: the stamp of a record with its newest Avro schema; `home`: the PostgreSQL schema it is in; `truncated`:
    the stamp of its last TRUNCATE; `shown`: the query of its view.
    """

    name: str
    key: tuple[str, ...]
    columns: Mapping[str, Column]
    version: int
    schema: Stamp
    home: str
    truncated: Stamp | None = None
    shown: str | None = None

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.home, stored_name(self.name))

    @property
    def present(self) -> list[str]:
        """The columns that the shop still has."""
        return [name for name, column in self.columns.items() if not column.gone]

    def takes(self, name: str, kind: str) -> bool:
        """Whether values of this staged type fit the column."""
        return name in self.columns and widened(kind, self.columns[name].type) == self.columns[name].type


def stored_name(table: str) -> str:
    """The name of the staged table: the shop table's, which ends in a hash if it is too long."""
    if len(table.encode()) <= _LONGEST_NAME:
        return table
    return table.encode()[:50].decode(errors="ignore") + "#" + hashlib.sha256(table.encode()).hexdigest()[:12]


def names(columns: Iterable[str]) -> sql.Composed:
    """Quoted columns, separated by commas."""
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def widened(one: str, other: str) -> str | None:
    """The type that holds the values of both; None if there is none."""
    if one == other:
        return one
    for ladder in _LADDERS:
        if one in ladder and other in ladder:
            return max(one, other, key=ladder.index)
    return None


class Catalogue:
    """All staged tables of a shop. Used in the staging transaction, by one session at a time.

    `reads`: table → the columns that the profile reads; None: all; a table that is missing: none.
    """

    def __init__(self, shop: str, reads: Mapping[str, frozenset[str] | None]) -> None:
        self._shop = shop
        self._home = schema_of(shop)
        self._reads = reads
        self._tables: dict[str, StagedTable] | None = None
        self._newest: dict[str, Stamp] = {}
        self._fitting: dict[tuple[str, int], _Fitting] = {}
        self._told: set[tuple[str, str]] = set()
        self._grants: dict[str, list[str]] = {}

    def load(self, cursor: Cursor) -> None:
        """Reads the catalogue in two queries, and forgets tables that a person has dropped."""
        cursor.execute(_READ)
        found = {row[0]: _table(row, self._home) for row in cursor.fetchall()}
        gone = forget_dropped(cursor, self._home, {name: stored_name(name) for name in found})
        self._tables = {name: table for name, table in found.items() if name not in gone}
        self._newest = {table.name: table.schema for table in self._tables.values()}
        self._fitting.clear()

    def forget(self) -> None:
        """After a rollback: reads the catalogue again when it is needed."""
        self._tables = None
        self._fitting.clear()

    def declare(self, cursor: Cursor, name: str, columns: Mapping[str, str]) -> None:
        """Makes the view of a table as the profile needs it. It is empty while no row has come."""
        table = self.loaded(cursor).get(name)
        if table is not None:
            self._complain(table)
            if table.shown != self._query(cursor, table):
                with self._gate(cursor, name):
                    self._keep(cursor, table)
        elif columns:
            self._declare(cursor, name, staged(columns))

    def fit(
        self, cursor: Cursor, name: str, columns: Mapping[str, str], key: Sequence[str], stamp: Stamp
    ) -> StagedTable:
        """Creates or alters the table so that records with these columns fit, and returns it.

        `columns` is the same object for all records of one Avro schema; `stamp` is the newest record's. Only records
        newer than the newest known schema can make a column gone or change its type: records of an older schema may
        come late, and what does not fit of them counts as not sent. A later call may change the table again; `loaded`
        has its present form.

        DataError if the table cannot follow: park these records. SchemaBlockedError: try again.
        """
        table = self.loaded(cursor).get(name)
        known = self._fitting.get((name, id(columns)))
        if table is not None and known is not None and set(table.key) == set(key):
            newer = stamp > self._newest[name]
            if known.current and newer:
                self._newest[name] = stamp
            if known.current or not newer:
                return table
        return self._fit(cursor, name, table, _Fitting(columns, staged(columns)), key, stamp)

    def guard(self, cursor: Cursor, name: str, stamp: Stamp) -> StagedTable | None:
        """Writes the stamp of a TRUNCATE, so that older rows that come later count as deleted. None: nothing is staged,
        or a later TRUNCATE has come."""
        table = self.loaded(cursor).get(name)
        if table is None or (table.truncated is not None and table.truncated >= stamp):
            return None
        cursor.execute(
            "UPDATE staged_table SET truncate_generation = %s, truncate_lsn = %s, truncate_ordinal = %s"
            " WHERE table_name = %s",
            (*map(int, stamp), name),
        )
        guarded = replace(table, truncated=stamp)
        self.loaded(cursor)[name] = guarded
        return guarded

    def _declare(self, cursor: Cursor, name: str, types: Mapping[str, str]) -> None:
        if self._shown(cursor, name, types) == [(column, True) for column in types]:
            return
        nulls = [sql.SQL("NULL::{} AS {}").format(sql.SQL(kind), sql.Identifier(n)) for n, kind in types.items()]
        query = sql.SQL("SELECT {} WHERE false").format(sql.SQL(", ").join(nulls))
        with self._gate(cursor, name):
            self._replace_view(cursor, name, types, query.as_string(cursor))

    def loaded(self, cursor: Cursor) -> dict[str, StagedTable]:
        """All tables by name; loads them if needed."""
        if self._tables is None:
            self.load(cursor)
        assert self._tables is not None  # noqa: S101  just loaded
        return self._tables

    def _fit(
        self, cursor: Cursor, name: str, table: StagedTable | None, fitting: _Fitting, key: Sequence[str], stamp: Stamp
    ) -> StagedTable:
        _check_key(name, table, fitting.types, key)
        newer = table is None or stamp > self._newest[name]
        wanted = (
            _made(name, fitting.types, key, stamp, self._home)
            if table is None
            else _altered(table, fitting.types, newer)
        )
        if table is None or wanted != table:
            wanted = replace(wanted, schema=stamp) if newer else wanted
            with self._gate(cursor, name):
                if table is None:
                    self._create(cursor, wanted)
                else:
                    self._alter(cursor, table, wanted)
                wanted = self._keep(cursor, wanted)
            self._fitting = {at: known for at, known in self._fitting.items() if at[0] != name}
            self._complain(wanted)
        if newer:
            self._newest[name] = stamp
        fitting.current = set(wanted.present) == fitting.types.keys() and all(
            wanted.takes(column, kind) for column, kind in fitting.types.items()
        )
        self._fitting[name, id(fitting.columns)] = fitting
        return wanted

    def _create(self, cursor: Cursor, table: StagedTable) -> None:
        columns = [sql.SQL("{} {}").format(sql.Identifier(n), sql.SQL(c.type)) for n, c in table.columns.items()]
        statement = sql.SQL("CREATE TABLE {} ({}, {}, PRIMARY KEY ({}))")
        cursor.execute(
            statement.format(table.identifier, sql.SQL(", ").join(columns), sql.SQL(OWN_COLUMNS), names(table.key))
        )

    def _alter(self, cursor: Cursor, table: StagedTable, wanted: StagedTable) -> None:
        """Adds columns without a default, which rewrites nothing. For another type the view has to be dropped first.

        If somebody's view depends on ours, PostgreSQL refuses, and this table's records are parked. Waiting would stop
        all tables; dropping that view, or leaving it on an old table that is no longer written, would silently change
        what its owner reads.
        """
        if any(wanted.columns[name].type != column.type for name, column in table.columns.items()):
            self._drop_view(cursor, table.name)
        steps = []
        for name, column in wanted.columns.items():
            was = table.columns.get(name)
            if was is not None and was.type == column.type:
                continue
            if was is not None and widened(was.type, column.type) == column.type:
                step = "ALTER COLUMN {0} TYPE {1}"
            else:
                step = "ADD COLUMN {0} {1}" if was is None else "DROP COLUMN {0}, ADD COLUMN {0} {1}"
            steps.append(sql.SQL(step).format(sql.Identifier(name), sql.SQL(column.type)))
        if steps:
            cursor.execute(sql.SQL("ALTER TABLE {} {}").format(table.identifier, sql.SQL(", ").join(steps)))

    def _keep(self, cursor: Cursor, table: StagedTable) -> StagedTable:
        """Makes the view, and writes the catalogue."""
        query = self._query(cursor, table)
        self._replace_view(cursor, table.name, {name: column.type for name, column in table.columns.items()}, query)
        kept = replace(table, shown=query)
        cursor.execute(
            "INSERT INTO staged_table"
            " (table_name, key_columns, version, shown, schema_generation, schema_lsn, schema_ordinal)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (table_name) DO UPDATE SET version = excluded.version,"
            " shown = excluded.shown, schema_generation = excluded.schema_generation,"
            " schema_lsn = excluded.schema_lsn, schema_ordinal = excluded.schema_ordinal",
            (kept.name, list(kept.key), kept.version, query, *map(int, kept.schema)),
        )
        cursor.execute("DELETE FROM staged_column WHERE table_name = %s", (kept.name,))
        columns = kept.columns.values()
        cursor.execute(
            "INSERT INTO staged_column (table_name, column_name, position, type, since_version, gone)"
            " SELECT %s, c.* FROM unnest(%s::text[], %s::int[], %s::text[], %s::int[], %s::boolean[]) AS c",
            (
                kept.name,
                list(kept.columns),
                list(range(len(columns))),
                [c.type for c in columns],
                [c.since for c in columns],
                [c.gone for c in columns],
            ),
        )
        self.loaded(cursor)[kept.name] = kept
        return kept

    def _view(self, name: str) -> sql.Identifier:
        return sql.Identifier(self._shop, name.partition(".")[2])

    def _query(self, cursor: Cursor, table: StagedTable) -> str:
        """The view's query: rows that are not deleted. It raises an error if a row has unseen values that the profile
        reads.

        Columns keep their order in the view and new ones come last, so that views on it keep working.
        """
        types = {name: column.type for name, column in table.columns.items()}
        order = dict.fromkeys([name for name, same in self._shown(cursor, table.name, types) if same] + list(types))
        conditions = sql.SQL(" AND ").join([sql.SQL('NOT "#deleted"'), *self._conditions(table)])
        query = sql.SQL("SELECT {} FROM {} WHERE {}").format(names(order), table.identifier, conditions)
        return query.as_string(cursor)

    def _conditions(self, table: StagedTable) -> Iterator[sql.Composable]:
        """Conditions that are true, or raise an error if a value that the profile reads is unseen."""
        reads = self._reads.get(table.name, frozenset())
        name = sql.Literal(table.name)
        read = {n: c for n, c in table.columns.items() if n not in table.key and (reads is None or n in reads)}
        gone = sorted(n for n, c in read.items() if c.gone)
        here = sorted(read.keys() - set(gone))
        if here and reads is None:
            yield sql.SQL('("#unseen" IS NULL OR unseen({}, "#unseen"))').format(name)
        elif here:
            condition = '("#unseen" IS NULL OR NOT "#unseen" && {1} OR unseen({0}, "#unseen", {1}))'
            yield sql.SQL(condition).format(name, sql.Literal(here))
        for version in sorted({read[n].since for n in here} - {1}):
            young = sql.Literal([n for n in here if read[n].since == version])
            condition = '("#version" >= {} OR unseen({}, {}))'
            yield sql.SQL(condition).format(sql.Literal(version), name, young)
        if gone:
            yield sql.SQL("gone({}, {})").format(name, sql.Literal(gone))

    def _shown(self, cursor: Cursor, name: str, types: Mapping[str, str]) -> list[tuple[str, bool]]:
        """The columns of the present view, and whether each has the type given here."""
        cursor.execute(
            "SELECT a.attname, coalesce(a.atttypid = to_regtype(w.type) AND a.atttypmod = -1, false)"
            " FROM pg_attribute AS a LEFT JOIN unnest(%s::text[], %s::text[]) AS w (name, type) ON w.name = a.attname"
            " WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
            (list(types), list(types.values()), self._view(name).as_string(cursor)),
        )
        return cursor.fetchall()

    def _replace_view(self, cursor: Cursor, name: str, types: Mapping[str, str], query: str) -> None:
        """CREATE OR REPLACE VIEW can neither drop a column nor change its type. Then the view is dropped and made
        again."""
        view = self._view(name)
        cursor.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(self._shop)))
        if not all(same for _, same in self._shown(cursor, name, types)):
            self._drop_view(cursor, name)
        cursor.execute(sql.SQL("CREATE OR REPLACE VIEW {} AS {}").format(view, sql.SQL(query)))
        for grant in self._grants.pop(name, ()):
            cursor.execute(grant)

    def _drop_view(self, cursor: Cursor, name: str) -> None:
        """Drops the view, and remembers its grants for the next one."""
        view = self._view(name)
        cursor.execute(_GRANTS, (view.as_string(cursor),))
        self._grants[name] = [statement for (statement,) in cursor.fetchall()]
        cursor.execute(sql.SQL("DROP VIEW IF EXISTS {}").format(view))

    def _complain(self, table: StagedTable) -> None:
        """Logs once, as an error, that the profile reads a column that is gone."""
        reads = self._reads.get(table.name, frozenset())
        for name, column in table.columns.items():
            if column.gone and (reads is None or name in reads) and (table.name, name) not in self._told:
                self._told.add((table.name, name))
                log.error(
                    "the profile reads a column that the shop's table no longer has: its documents are held",
                    table=table.name,
                    column=name,
                    next="change the profile, which reads it",
                )

    @contextmanager
    def _gate(self, cursor: Cursor, name: str) -> Iterator[None]:
        """Runs the block alone with the staged tables: readers with an older snapshot have ended, new ones wait."""
        cursor.execute("SELECT current_setting('lock_timeout')")
        before = first(cursor)
        cursor.execute("SAVEPOINT schema_gate")
        try:
            cursor.execute("SELECT set_config('lock_timeout', %s, true)", (_LONGEST_WAIT,))
            cursor.execute("LOCK TABLE schema_gate IN ACCESS EXCLUSIVE MODE")
            yield
            cursor.execute("SELECT set_config('lock_timeout', %s, true)", (before,))
        except psycopg2.Error as error:
            if error.pgcode is None or error.pgcode[:2] not in (*REFUSALS, "55"):
                raise
            cursor.execute("ROLLBACK TO SAVEPOINT schema_gate")
            if error.pgcode == "55P03":
                raise self._blocked(cursor, name) from None
            raise _cannot_follow(name, error) from None
        cursor.execute("RELEASE SAVEPOINT schema_gate")

    def _blocked(self, cursor: Cursor, name: str) -> SchemaBlockedError:
        """The error that names the session which has held the lock for longest."""
        ours = [
            "schema_gate",
            sql.Identifier(stored_name(name)).as_string(cursor),
            self._view(name).as_string(cursor),
        ]
        cursor.execute(
            "SELECT format('%%s.%%I', c.relnamespace::regnamespace, c.relname), l.pid, a.application_name, a.usename,"
            " to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')"
            " FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation LEFT JOIN pg_stat_activity AS a USING (pid)"
            " WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()"
            " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            " AND l.relation IN (SELECT to_regclass(r) FROM unnest(%s) AS r) ORDER BY a.xact_start LIMIT 1",
            (ours,),
        )
        holder = cursor.fetchone()
        what = f"{name}: its staged table cannot follow the shop's schema: "
        if holder is None:
            return SchemaBlockedError(what + "a lock was not free in time", "it is tried again")
        relation, pid, application, user, since = holder
        return SchemaBlockedError(
            f"{what}process {pid} ({application or 'no application name'}, user {user}) holds a lock on {relation},"
            f" in a transaction since {since or 'an unknown time'} UTC",
            f"end that transaction, or `SELECT pg_terminate_backend({pid})`; it is tried again",
        )


@dataclass(slots=True)
class _Fitting:
    """A set of columns that fits. It keeps `columns` alive, so that no other object gets its id. `current`: it is the
    newest schema."""

    columns: Mapping[str, str]
    types: Mapping[str, str]
    current: bool = field(default=False)


def staged(columns: Mapping[str, str]) -> dict[str, str]:
    """A record's columns, with staged types."""
    return {name: staged_type(kind) for name, kind in columns.items()}


def _made(name: str, types: Mapping[str, str], key: Sequence[str], stamp: Stamp, home: str) -> StagedTable:
    return StagedTable(name, tuple(key), {column: Column(kind) for column, kind in types.items()}, 1, stamp, home)


def _altered(table: StagedTable, types: Mapping[str, str], newer: bool) -> StagedTable:
    """The table as records with these types need it. `newer`: they have its newest schema."""
    version = table.version + 1
    columns = dict(table.columns)
    for name, kind in types.items():
        was = columns.get(name)
        wide = widened(was.type, kind) if was is not None else None
        if was is not None and name not in table.key and _rounded(was.type, kind, newer):
            wide = None
        if was is None:
            columns[name] = Column(kind, version, not newer)
        elif wide is not None:
            columns[name] = was._replace(type=wide)
        elif newer:
            columns[name] = Column(kind, version)
        if newer and columns[name].gone:
            columns[name] = Column(columns[name].type, version)
    if newer:
        columns |= {name: was._replace(gone=True) for name, was in columns.items() if name not in types}
    used = max(column.since for column in columns.values())
    return replace(table, columns=columns, version=max(used, table.version))


def _rounded(was: str, kind: str, newer: bool) -> bool:
    """Whether the change of type has rounded the shop's values."""
    wide = widened(was, kind)
    return wide in _ROUNDED and wide != (kind if newer else was)


def _check_key(name: str, table: StagedTable | None, types: Mapping[str, str], key: Sequence[str]) -> None:
    if not key:
        raise DataError(f"{name}: its records have no key", "give the table a primary key")
    if table is None:
        return
    if set(table.key) != set(key):
        raise DataError(f"{name}: the key is now ({', '.join(key)}), staged by ({', '.join(table.key)})", _anew(table))
    for column in key:
        if column in types and widened(types[column], table.columns[column].type) is None:
            raise DataError(
                f"{name}: the key's column {column} is now {types[column]}, staged as {table.columns[column].type}",
                _anew(table),
            )


def _anew(table: StagedTable) -> str:
    """The next step that has a staged table made again."""
    where = ".".join('"' + part.replace('"', '""') + '"' for part in (table.home, stored_name(table.name)))
    return (
        f"stop `sink run`; `DROP TABLE {where} CASCADE`, which drops the views on it, too; start it again, then"
        f" `capture signal snapshot {table.name}`"
    )


def _cannot_follow(name: str, error: psycopg2.Error) -> DataError:
    """The error with PostgreSQL's message, which names tables and columns but no values."""
    primary = error.diag.message_primary or type(error).__name__
    if error.pgcode == "2BP01":
        who = (error.diag.message_detail or "").splitlines()
        return DataError(
            f"{name}: the type of a column changed, but other views depend on its view: {'; '.join(who) or primary}",
            f"drop those views, `capture signal snapshot {name}`, then make them again",
        )
    return DataError(
        f"{name}: its staged table cannot follow the shop's schema: {primary}",
        f"fix that, then `capture signal snapshot {name}`",
    )


def _table(row: tuple[Any, ...], home: str) -> StagedTable:
    name, key, version, shown = row[:4]
    columns = {column: Column(*rest) for column, *rest in zip(*row[10:], strict=True)}
    schema = _stamp(row[7:10])
    return StagedTable(name, tuple(key), columns, version, schema or Stamp(0, LSN(0), 0), home, _stamp(row[4:7]), shown)


def _stamp(parts: tuple[Any, ...]) -> Stamp | None:
    return None if parts[0] is None else Stamp(parts[0], LSN(int(parts[1])), parts[2])


def first(cursor: Cursor) -> Any:
    """The single value of a query's row."""
    row = cursor.fetchone()
    assert row is not None  # noqa: S101  the query gives one
    return row[0]
