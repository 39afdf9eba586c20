"""`capture check`: the publication and its tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from capture.changes.messages import refuse_taken
from capture.commands.findings import Finding, found, literal, quoted, quoted_table
from capture.plan import Plan
from capture.postgres import catalogue
from capture.postgres.catalogue import Published
from capture.postgres.replication import Connection, database_errors
from capture.selection import patterns
from capture.snapshot.chunks import plan_table
from capture.snapshot.initial import chosen
from schemas.model.errors import OrdertapError

Schemas = list[tuple[str, dict[str, Any]]]
_OPERATIONS = ("insert", "update", "delete", "truncate")


class Publication(NamedTuple):
    """A row of pg_publication, and the comment that init wrote on it. Source: PostgreSQL manual, "pg_publication"."""

    all_tables: bool
    operations: tuple[str, ...]
    via_root: bool
    comment: str | None
    owned: bool


def publication_of(connection: Connection, name: str) -> Publication | None:
    """The publication; None if there is none. `owned`: our role may drop it."""
    statement = """
        SELECT puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot,
               obj_description(oid, 'pg_publication'), pg_has_role(pubowner, 'USAGE')
        FROM pg_publication WHERE pubname = %s"""
    row = _row(connection, statement, name)
    if row is None:
        return None
    every, *operations, via_root, comment, owned = row
    return Publication(
        every, tuple(op for op, on in zip(_OPERATIONS, operations, strict=True) if on), via_root, comment, owned
    )


def _row(connection: Connection, statement: str, *parameters: object) -> Any:
    with database_errors("looking at the publication"), connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchone()


def wanted_tables(connection: Connection, plan: Plan) -> list[str]:
    """The tables of the database that the settings include, and those that the settings name, in order."""
    there = filter(plan.selection.table, catalogue.database_tables(connection))
    return sorted({*there, *plan.selection.named})


def create_publication(plan: Plan, tables: Sequence[str]) -> str:
    """The SQL that makes the publication. `tables`: the wanted ones, unless the settings leave none out."""
    name = quoted(plan.publication)
    if plan.selection.every_table:
        return f"CREATE PUBLICATION {name} FOR ALL TABLES;"
    return f"CREATE PUBLICATION {name} FOR TABLE {', '.join(map(quoted_table, tables)) or '...'};"


def add_table(plan: Plan, table: str) -> str:
    """The SQL that adds a table to the publication."""
    return f"ALTER PUBLICATION {quoted(plan.publication)} ADD TABLE {quoted_table(table)};"


def keyless(connection: Connection, tables: Sequence[str] | None) -> Iterator[Finding]:
    """A finding for each of the tables (None: of all) that the shop could no longer update once it is published."""
    for table in catalogue.tables_without_identity(connection):
        if tables is None or table in tables:
            said = f"table {table} has no key: once it is published, the server refuses its updates and deletes"
            yield Finding("BAD", said, f"ALTER TABLE {quoted_table(table)} REPLICA IDENTITY FULL; -- or a primary key")


def publication_findings(connection: Connection, plan: Plan, schemas: Schemas) -> Iterator[Finding]:
    """Checks the publication and its tables. Adds the schemas that a start would register and the registry would take
    to `schemas`, as (subject, schema)."""
    name = plan.publication
    publication = publication_of(connection, name)
    if publication is None:
        there = catalogue.database_tables(connection)
        for table in plan.selection.named:
            if table not in there:
                yield Finding("BAD", f"table {table} does not exist", "correct table_include_list, or make the table")
        wanted_names = [table for table in wanted_tables(connection, plan) if table in there]
        yield from keyless(connection, None if plan.selection.every_table else wanted_names)
        yield Finding("BAD", f"publication {name} does not exist", create_publication(plan, wanted_names))
        return
    published = catalogue.published_tables(connection, name)
    if not published and not plan.selection.listed:
        yield Finding("BAD", f"publication {name} has no tables", f"ALTER PUBLICATION {quoted(name)} ADD TABLE ...;")
    yield from _missing(connection, plan, publication, {table.relation.table for table in published})
    yield from _operations(name, publication)
    wanted = [one for one in published if plan.selection.table(one.relation.table)]
    unwanted = sorted(one.relation.table for one in published if one not in wanted)
    if unwanted:
        rest = ", ".join(quoted_table(table) for table in unwanted)
        drop = f"ALTER PUBLICATION {quoted(name)} DROP TABLE {rest};"
        if publication.all_tables:
            create = create_publication(plan, wanted_tables(connection, plan))
            # In one transaction: changes between the two statements could never be read from the log again.
            drop = f"BEGIN; DROP PUBLICATION {quoted(name)}; {create} COMMIT;"
        said = f"publication {name} has {len(unwanted)} tables that are not captured here, read for nothing: "
        yield Finding("warn", said + _few(unwanted), f"{drop} -- unless another reader has this publication")
    for one in wanted:
        yield from _table(connection, plan, publication, one)
    try:
        catalogue.refuse_namesakes(wanted)
    except OrdertapError as error:
        yield Finding("BAD", error.message, error.hint)
    yield from _unused(plan, wanted)
    yield from _schemas(connection, plan, wanted, schemas)
    try:
        chosen(wanted, plan.snapshot)
    except OrdertapError as error:
        yield Finding("BAD", error.message, error.hint)


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _unused(plan: Plan, wanted: list[Published]) -> Iterator[Finding]:
    for entry in plan.selection.unused(one.relation for one in wanted):
        yield Finding("BAD", f"no captured column or table matches {entry}", "correct the entry, or take it out")


def _missing(connection: Connection, plan: Plan, publication: Publication, names: set[str]) -> Iterator[Finding]:
    missing = patterns(plan.selection.missing(names))
    there = catalogue.database_tables(connection) if missing else []
    tables = {one.entry for one in missing if one.entry in plan.selection.named}
    for one in missing:
        meant = [table for table in there if one.matches(table)]
        tables.update(meant)
        if not meant and one.entry not in tables:
            said = f"no table of the database matches {one.entry}"
            yield Finding("BAD", said, "correct table_include_list, or make the table")
    for table in sorted(tables):
        row = _row(
            connection,
            "SELECT c.relkind, c.relpersistence FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname || '.' || c.relname = %s",
            table,
        )
        what = f"table {table} is not in publication {plan.publication}"
        if row is None:
            yield Finding("BAD", f"table {table} does not exist", "correct table_include_list, or make the table")
        elif row[0] == "p" and not publication.via_root:
            remedy = f"ALTER PUBLICATION {quoted(plan.publication)} SET (publish_via_partition_root = true);"
            add = "" if publication.all_tables else f" {add_table(plan, table)} -- unless it is there"
            yield Finding("BAD", f"{what} as a whole: its partitions are, each by itself", remedy + add)
        elif row[0] not in "rp":
            yield Finding("BAD", f"{table} is not a table: only tables are in the log", "correct table_include_list")
        elif row[1] == "u":
            yield Finding("BAD", f"table {table} is unlogged", f"ALTER TABLE {quoted_table(table)} SET LOGGED;")
        else:
            yield Finding("BAD", what, add_table(plan, table))


def _operations(name: str, publication: Publication) -> Iterator[Finding]:
    silent = [op for op in _OPERATIONS if op not in publication.operations]
    said = f"publication {name} publishes {', '.join(publication.operations) or 'nothing'}"
    if silent:
        said += f", and no {' and no '.join(silent)}: consumers never hear of those"
    remedy = f"ALTER PUBLICATION {quoted(name)} SET (publish = {literal(', '.join(_OPERATIONS))});"
    yield found(not silent, said, remedy, "warn" if silent == ["truncate"] else "BAD")


def _table(connection: Connection, plan: Plan, publication: Publication, one: Published) -> Iterator[Finding]:
    relation = one.relation
    table = quoted(relation.schema, relation.name)
    yield _identity(one, table, publication)
    if one.partitioned:
        said = f"table {relation.table} is sent as a whole: no record tells of a TRUNCATE of one partition, or of the"
        yield Finding("ok", f"{said} rows of one that is attached; after it: capture signal snapshot {relation.table}")
    if one.partitioned and relation.replica_identity == "f":
        yield from _unlike_root(connection, one)
    schema, select, filtered, partition = _row(
        connection,
        "SELECT has_schema_privilege(%s, 'USAGE'), has_table_privilege(%s::oid, 'SELECT'),"
        " row_security_active(%s::oid), (SELECT relispartition FROM pg_class WHERE oid = %s)",
        relation.schema,
        *(relation.oid,) * 3,
    )
    user = quoted(plan.server.user)
    if not schema:
        grant = f"GRANT USAGE ON SCHEMA {quoted(relation.schema)} TO {user};"
        yield Finding("BAD", f"schema {relation.schema} of table {relation.table} may not be used", grant)
    if not select:
        grant = f"GRANT SELECT ON TABLE {table} TO {user};"
        yield Finding("BAD", f"table {relation.table} may not be read", grant)
    if filtered:
        said = f"table {relation.table} has row level security: the snapshot would leave out rows that the log has"
        yield Finding("BAD", said, f"ALTER ROLE {user} BYPASSRLS;")
    if partition and not publication.via_root:
        remedy = f"ALTER PUBLICATION {quoted(plan.publication)} SET (publish_via_partition_root = true);"
        said = f"table {relation.table} is a partition: it has a topic of its own"
        yield Finding("warn", said, f"to have one topic of the whole: {remedy}")


def _unlike_root(connection: Connection, one: Published) -> Iterator[Finding]:
    """Partitions whose identity is not FULL although the root's is.

    A partition logs old rows by its own identity, but the server sends them as the root's: as whole rows with NULLs,
    even for TOAST values that an update of the key left alone.
    """
    statement = """
        SELECT n.nspname, c.relname FROM pg_partition_tree(%s) JOIN pg_class c ON c.oid = relid
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE isleaf AND c.relreplident <> 'f' ORDER BY 1, 2"""
    with database_errors("looking at the partitions"), connection.cursor() as cursor:
        cursor.execute(statement, [one.relation.oid])
        for schema, name in cursor.fetchall():
            leaf, root = f"{schema}.{name}", one.relation.table
            said = f"partition {leaf} is not REPLICA IDENTITY FULL as {root} is: values of its rows come as NULL"
            yield Finding("BAD", said, f"ALTER TABLE {quoted(schema, name)} REPLICA IDENTITY FULL;")


def _identity(one: Published, table: str, publication: Publication) -> Finding:
    relation = one.relation
    what = f"table {relation.table} is published"
    changes = {"update", "delete"} & set(publication.operations)
    identity = f"ALTER TABLE {table} REPLICA IDENTITY"
    if relation.replica_identity == "f":
        return Finding("ok", f"{what}, with REPLICA IDENTITY FULL: whole old rows, at the cost of a larger log")
    if relation.replica_identity == "n":
        said = f"{what} with REPLICA IDENTITY NOTHING: the server refuses its updates and deletes"
        return found(not changes, said if changes else what, f"{identity} DEFAULT; -- or FULL")
    keyed = any(column.key for column in relation.columns)
    if relation.replica_identity == "i":
        return found(
            keyed, f"{what}, identified by an index" if keyed else f"{what}, its index is gone", f"{identity} DEFAULT;"
        )
    said = what if keyed else f"{what} but has no key: the server refuses its updates and deletes"
    return found(
        keyed, said, f"ALTER TABLE {table} ADD PRIMARY KEY (...); -- or {identity} FULL;", "BAD" if changes else "warn"
    )


def _schemas(connection: Connection, plan: Plan, wanted: list[Published], schemas: Schemas) -> Iterator[Finding]:
    """Compiles what a start would compile. This finds columns that cannot be told apart, SELECTs that do not fit, and
    schemas that the registry refuses."""
    answers = True
    with suppress(OrdertapError):  # kafka_findings reports it
        plan.topics.look()
    try:
        plan.registry.check()
    except OrdertapError:  # registry_findings reports it
        answers = False

    def register(subject: str, schema: dict[str, Any]) -> int:
        if answers:
            plan.registry.try_out(subject, schema)
        schemas.append((subject, schema))
        return len(schemas)

    facts = catalogue.Facts(connection)
    facts.ahead([one.relation for one in wanted])
    tables = plan.tables(facts, register, lambda _: 1)
    for one in wanted:
        name = one.relation.table
        try:
            table = tables.compile(one.relation)
            if name in plan.snapshot.overrides:
                plan_table(connection, 0, one, [], plan.snapshot.overrides[name], table.encoder.skipped)
        except OrdertapError as error:
            yield Finding("BAD", error.message, error.hint or "leave the column out of the publication, or rename it")
    try:
        refuse_taken(plan.outbox, plan.topics.taken)
    except OrdertapError as error:
        yield Finding("BAD", error.message, error.hint)
