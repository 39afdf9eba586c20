"""`capture check` and `capture init`: what must be so before reading starts, each finding with what mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from psycopg2 import sql

from capture import catalogue
from capture.pipeline import Plan
from capture.replication import Replication, database_errors, slot_state
from schemas.envelope import topic_name
from schemas.errors import OrdertapError

MINIMUM_VERSION = 140_000


class Finding(NamedTuple):
    """One thing that was looked at; `remedy` is SQL or a command, empty when it is well."""

    ok: bool
    what: str
    remedy: str = ""


def check(plan: Plan) -> Iterator[Finding]:
    """Looks at the shop's database, Kafka and the registry; goes on after what is wrong."""
    yield from _database(plan)
    yield _tried(f"Kafka answers at {plan.cluster.servers}", plan.cluster.partitions)
    yield _tried("the schema registry answers", plan.registry.check)


def _database(plan: Plan) -> Iterator[Finding]:
    try:
        connection = plan.server.connect()
    except OrdertapError as error:
        yield Finding(False, error.message, error.hint)
        return
    try:
        yield from _server(connection)
        yield from _role(connection, plan.server.user)
        yield from _publication(connection, plan)
        yield from _slots(connection, plan)
    finally:
        connection.close()
    yield _tried(
        "a replication connection is allowed", lambda: _replicates(plan), _PG_HBA.format(user=plan.server.user)
    )


_PG_HBA = "in pg_hba.conf: host replication {user} <address of capture> scram-sha-256 -- then SELECT pg_reload_conf();"


def _one(connection: Any, statement: str, *parameters: object) -> Any:
    with database_errors("looking at the server"), connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchone()


def _server(connection: Any) -> Iterator[Finding]:
    version = connection.server_version
    upgrade = "upgrade the server: logical messages in pgoutput came with PostgreSQL 14"
    yield Finding(version >= MINIMUM_VERSION, f"PostgreSQL {version // 10_000}", upgrade)
    (level,) = _one(connection, "SHOW wal_level")
    remedy = "ALTER SYSTEM SET wal_level = logical; -- then restart the server"
    yield Finding(level == "logical", f"wal_level is {level}", remedy)
    (standby,) = _one(connection, "SELECT pg_is_in_recovery()")
    yield Finding(
        not standby, "the server is a primary" if not standby else "the server is a standby", "use the primary"
    )
    (keep,) = _one(connection, "SHOW max_slot_wal_keep_size")
    bounded = keep != "-1"
    said = f"max_slot_wal_keep_size is {keep}" + ("" if bounded else ": a stopped reader can fill the shop's disk")
    yield Finding(True, said)


def _role(connection: Any, user: str) -> Iterator[Finding]:
    (may,) = _one(connection, "SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user")
    remedy = f"ALTER ROLE {sql.Identifier(user).as_string(connection)} REPLICATION;"
    yield Finding(may, f"role {user} may replicate" if may else f"role {user} may not replicate", remedy)


def _publication(connection: Any, plan: Plan) -> Iterator[Finding]:
    published = catalogue.published_tables(connection, plan.publication)
    statement = create_publication(connection, plan)
    if not published:
        yield Finding(False, f"publication {plan.publication} does not exist or has no tables", statement)
    names = {table.relation.table for table in published}
    for table in sorted(plan.included - names) if published else ():
        add = f"ALTER PUBLICATION {sql.Identifier(plan.publication).as_string(connection)} ADD TABLE {table};"
        yield Finding(False, f"table {table} is not in publication {plan.publication}", add)
    for one in published:
        yield from _table(connection, one)


def _table(connection: Any, published: catalogue.Published) -> Iterator[Finding]:
    relation = published.relation
    quoted = sql.Identifier(relation.schema, relation.name)
    has_key = any(column.key for column in relation.columns)
    remedy = sql.SQL("ALTER TABLE {} ADD PRIMARY KEY (...); -- or REPLICA IDENTITY FULL").format(quoted)
    what = f"table {relation.table} is published" + ("" if has_key else " but has no key: its updates would be refused")
    yield Finding(has_key, what, remedy.as_string(connection))
    (may,) = _one(connection, "SELECT has_table_privilege(%s::oid, 'SELECT')", relation.oid)
    if not may:
        grant = sql.SQL("GRANT SELECT ON {} TO CURRENT_USER;").format(quoted).as_string(connection)
        yield Finding(False, f"table {relation.table} may not be read", grant)


def _slots(connection: Any, plan: Plan) -> Iterator[Finding]:
    name = plan.options.slot
    slot = slot_state(connection, name)
    if slot is not None:
        ok = slot.plugin == "pgoutput" and slot.database == plan.server.database and slot.wal_status != "lost"
        said = f"slot {name}: {slot.plugin}, database {slot.database}, {slot.wal_status}, holds {slot.held_bytes} bytes"
        yield Finding(ok, said, f"set another slot_name, or SELECT pg_drop_replication_slot('{name}');")
        return
    (used,) = _one(connection, "SELECT count(*) FROM pg_replication_slots")
    (most,) = _one(connection, "SELECT current_setting('max_replication_slots')::int")
    remedy = f"ALTER SYSTEM SET max_replication_slots = {most + 5}; -- then restart the server"
    yield Finding(used < most, f"slot {name} will be made; {most - used} of {most} slots are free", remedy)


def _replicates(plan: Plan) -> None:
    replication = Replication(plan.server)
    try:
        replication.identify()
    finally:
        replication.close()


def _tried(what: str, call: Callable[[], object], remedy: str = "") -> Finding:
    try:
        call()
    except OrdertapError as error:
        return Finding(False, error.message, remedy or error.hint)
    return Finding(True, what)


def create_publication(connection: Any, plan: Plan) -> str:
    """The SQL that makes the publication, quoted for this connection."""
    name = sql.Identifier(plan.publication)
    if not plan.included:
        return sql.SQL("CREATE PUBLICATION {} FOR ALL TABLES;").format(name).as_string(connection)
    tables = sql.SQL(", ").join(sql.Identifier(*table.split(".", 1)) for table in sorted(plan.included))
    return sql.SQL("CREATE PUBLICATION {} FOR TABLE {};").format(name, tables).as_string(connection)


def init(plan: Plan, dry_run: bool) -> Iterator[str]:
    """Makes the publication and the topics where they are missing; says each thing that it does (or would do)."""
    connection = plan.server.connect()
    try:
        (there,) = _one(connection, "SELECT count(*) FROM pg_publication WHERE pubname = %s", plan.publication)
        if there:
            yield f"publication {plan.publication} is there"
        else:
            statement = create_publication(connection, plan)
            yield statement
            if not dry_run:
                with database_errors("making the publication"), connection.cursor() as cursor:
                    cursor.execute(statement)
        published = catalogue.published_tables(connection, plan.publication)
    finally:
        connection.close()
    names = [table.relation.table for table in published] or sorted(plan.included)
    topics = [topic_name(plan.prefix, name) for name in names if not plan.included or name in plan.included]
    if dry_run:
        existing = plan.cluster.partitions()
        own = (plan.topics.position, plan.topics.transaction, plan.topics.notification, plan.topics.heartbeat)
        yield from (f"topic {topic} would be made" for topic in (*own, *topics) if topic not in existing)
        return
    yield from (f"topic {topic} made" for topic in plan.topics.create(topics))
    yield f"slot {plan.options.slot} is made by the first `capture run`, together with the snapshot"
