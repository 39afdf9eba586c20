"""`capture check`: checks everything before reading starts, each finding with a remedy.

This file looks at server, role and slot.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from capture.checks import why_lost
from capture.commands.check_kafka import kafka_findings, registry_findings
from capture.commands.check_tables import publication_findings
from capture.commands.findings import Finding, Looks, found, literal, quoted
from capture.plan import Plan
from capture.postgres import catalogue
from capture.postgres.replication import Connection, Replication, database_errors, slot_state
from capture.snapshot.modes import next_step
from schemas.model.errors import OrdertapError
from schemas.process.service import port_taken

MINIMUM_VERSION = 140_000
_SESSIONS = 5  # leader, its reader, a standby, chunks on demand, a command; a snapshot's workers come on top
_CLOCK_TOLERANCE = 2.0  # seconds; the lag in seconds is wrong by the difference


def check(plan: Plan, health: tuple[str, int] = ("", 0)) -> Iterator[Finding]:
    """Checks the shop's database, Kafka and the registry. Goes on after a finding. Changes nothing there. `health`:
    host and port of capture's own server on this machine; port 0: none."""
    schemas: list[tuple[str, dict[str, Any]]] = []
    has_slot = yield from _database(plan, schemas)
    topics = [subject.removesuffix("-value") for subject, _ in schemas if _is_value(subject)]
    has_position = yield from kafka_findings(plan, topics)
    yield from registry_findings(plan, schemas)
    if has_slot and has_position:
        yield from _guarded(_next_start(plan))
    yield from _health(*health)


def _health(host: str, port: int) -> Iterator[Finding]:
    """Whether the health server can have its port. A capture that runs here has it."""
    if not port:
        return
    reason, ours = port_taken(host, port)
    said = f"health_port {port} of {host} "
    if ours:
        hint = "if that is the capture with these settings, all is well; otherwise set another health_port"
        yield Finding("warn", f"{said}is in use on this machine by a running capture or sink", hint)
    else:
        hint = "set health_port to a free one, health_host to an address of this machine"
        yield found(not reason, said + (f"cannot be opened on this machine: {reason}" if reason else "is free"), hint)


def _is_value(subject: str) -> bool:
    return subject.endswith("-value")


def _database(plan: Plan, schemas: list[tuple[str, dict[str, Any]]]) -> Looks:
    """Findings about server, role, slot and publication. Adds the tables' schemas to `schemas`. Returns whether we may
    read the log of a primary."""
    try:
        connection = plan.server.ask()
    except OrdertapError as error:
        yield Finding("BAD", error.message, error.hint)
        return False
    try:
        for part in (_server, _clock, _role, _connections, _locks, _slots, _senders):
            yield from _guarded(part(connection, plan))
        yield from _guarded(publication_findings(connection, plan, schemas))
        if not _may_replicate(connection):
            return False
        connects = yield from _replicates(plan)
        return connects and not _is_standby(connection)
    finally:
        connection.close()


def _guarded(findings: Iterator[Finding]) -> Iterator[Finding]:
    """Turns an error of a check into a finding."""
    try:
        yield from findings
    except OrdertapError as error:
        yield Finding("BAD", error.message, error.hint)


def _one(connection: Connection, statement: str, *parameters: object) -> Any:
    with database_errors("looking at the server"), connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchone()


def _setting(connection: Connection, name: str) -> str:
    """A setting as SHOW prints it; "" if this version of the server does not have it."""
    (value,) = _one(connection, "SELECT coalesce(current_setting(%s, true), '')", name)
    return str(value)


def _is_standby(connection: Connection) -> bool:
    return bool(_one(connection, "SELECT pg_is_in_recovery()")[0])


def encoding_findings(connection: Connection) -> Iterator[Finding]:
    """Whether the database knows its encoding. If not, the server cannot convert its bytes to UTF-8."""
    encoding = _setting(connection, "server_encoding")
    said = f"the database's encoding is {encoding}"
    if encoding == "SQL_ASCII":
        said += ": it accepts any bytes, and a text that is not UTF-8 parks its table"
    remedy = "make sure that every writer there writes UTF-8, or move the shop to a database of ENCODING 'UTF8'"
    yield found(encoding != "SQL_ASCII", said, remedy, "warn")


def _server(connection: Connection, _plan: Plan) -> Iterator[Finding]:
    version = connection.server_version
    upgrade = "upgrade the server: logical messages in pgoutput came with PostgreSQL 14"
    yield found(version >= MINIMUM_VERSION, f"PostgreSQL {version // 10_000}", upgrade)
    level = _setting(connection, "wal_level")
    remedy = "ALTER SYSTEM SET wal_level = logical; -- then restart the server"
    yield found(level == "logical", f"wal_level is {level}", remedy)
    yield from encoding_findings(connection)
    standby = _is_standby(connection)
    use = "set database_hostname to the primary: heartbeats and the leadership lock are written there"
    yield found(not standby, f"the server is a {'standby' if standby else 'primary'}", use)
    keep = _setting(connection, "max_slot_wal_keep_size")
    said = f"max_slot_wal_keep_size is {keep}"
    if keep == "-1":
        said += ": a reader that is stopped for a long time fills the shop's disk"
    bound = "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf(); -- less than the free disk"
    yield found(keep != "-1", said, bound, "warn")
    idle = _setting(connection, "idle_replication_slot_timeout")
    if idle:
        said = f"idle_replication_slot_timeout is {idle}"
        if idle != "0":
            said += ": the server invalidates the slot when capture is stopped for that long"
        off = "ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf();"
        yield found(idle == "0", said, off, "warn")


def _clock(connection: Connection, _plan: Plan) -> Iterator[Finding]:
    before = time.time()
    (theirs,) = _one(connection, "SELECT extract(epoch FROM clock_timestamp())::float8")
    after = time.time()
    ahead = theirs - (before + after) / 2
    close = abs(ahead) <= _CLOCK_TOLERANCE + (after - before)
    said = "the clocks of the shop's server and of this machine agree"
    if not close:
        said = f"the shop's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
    yield found(close, said, "set both by NTP; until then the lag in seconds is wrong by that much", "warn")


def _may_replicate(connection: Connection) -> bool:
    statement = "SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user"
    return bool(_one(connection, statement)[0])


def _role(connection: Connection, plan: Plan) -> Iterator[Finding]:
    user = plan.server.user
    role = quoted(user)
    may = _may_replicate(connection)
    (superuser,) = _one(connection, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
    yield found(may, f"role {user} may {'' if may else 'not '}replicate", f"ALTER ROLE {role} REPLICATION;")
    less = "use a role of its own: `capture init --dry-run` prints the SQL that makes one"
    if superuser:
        yield Finding("warn", f"role {user} is a superuser: REPLICATION, CONNECT and SELECT are enough", less)
    beats, emit = _one(  # its arguments differ between versions
        connection,
        "SELECT has_function_privilege(oid, 'EXECUTE'), oid::regprocedure::text FROM pg_proc"
        " WHERE proname = 'pg_logical_emit_message' AND proargtypes[2] = 'text'::regtype",
    )
    if not beats:
        yield Finding("BAD", f"role {user} may not write heartbeats", f"GRANT EXECUTE ON FUNCTION {emit} TO {role};")


def _connections(connection: Connection, plan: Plan) -> Iterator[Finding]:
    """How many sessions role and database allow. This session is among those that exist."""
    wanted = _SESSIONS + plan.snapshot.threads
    limits = _one(
        connection,
        "SELECT CASE WHEN rolsuper THEN -1 ELSE rolconnlimit END, CASE WHEN rolsuper THEN -1 ELSE datconnlimit END"
        " FROM pg_roles, pg_database WHERE rolname = current_user AND datname = current_database()",
    )
    names = f"ROLE {quoted(plan.server.user)}", f"DATABASE {quoted(plan.server.database)}"
    for name, limit in zip(names, limits, strict=True):
        said = f"{name} has CONNECTION LIMIT {limit}, and capture opens up to {wanted}"
        if limit >= 0:
            yield found(limit >= wanted, said, f"ALTER {name} CONNECTION LIMIT {limit + wanted};")


def _locks(connection: Connection, plan: Plan) -> Iterator[Finding]:
    """A first snapshot holds each table and each partition in each of its sessions.

    Source: PostgreSQL manual, "Lock Management" (max_locks_per_transaction).
    """
    published = catalogue.published_tables(connection, plan.publication)
    tables = catalogue.extent(connection, published).parts
    each, room = _one(
        connection,
        "SELECT current_setting('max_locks_per_transaction')::int, current_setting('max_locks_per_transaction')::int *"
        " (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int)",
    )
    wanted = tables * (1 + plan.snapshot.threads)
    said = f"a snapshot of {tables} tables and partitions takes {wanted} locks, and the server has room for {room}"
    remedy = f"ALTER SYSTEM SET max_locks_per_transaction = {each * (wanted // room + 1)}; -- then restart the server"
    yield found(wanted <= room, said, remedy, "warn")


def _slots(connection: Connection, plan: Plan) -> Iterator[Finding]:
    name = plan.options.slot
    if plan.failover and connection.server_version < 170_000:
        yield Finding("BAD", "slot_failover needs PostgreSQL 17", "set slot_failover: false")
    slot = slot_state(connection, name)
    if slot is not None:
        ok = slot.plugin == "pgoutput" and slot.database == plan.server.database and slot.wal_status != "lost"
        said = f"slot {name}: {slot.plugin}, database {slot.database}, {slot.wal_status}"
        said += "" if slot.held_bytes is None else f", holds {slot.held_bytes} bytes"
        why, keep = why_lost(slot)
        gone = f"it was invalidated ({why}): {keep}; `capture repair` says what is lost and reads the tables again"
        other = f"set another slot_name, or SELECT pg_drop_replication_slot({literal(name)});"
        yield found(ok, said, gone if slot.wal_status == "lost" else other)
        if slot.wal_status == "unreserved":
            soon = "start capture now, or ALTER SYSTEM SET max_slot_wal_keep_size higher; SELECT pg_reload_conf();"
            yield Finding("warn", f"slot {name} is about to be invalidated by the server", soon)
        yield from _failover(connection, plan)
        return
    used, most = _one(
        connection, "SELECT count(*), current_setting('max_replication_slots')::int FROM pg_replication_slots"
    )
    remedy = f"ALTER SYSTEM SET max_replication_slots = {most + 5}; -- then restart the server"
    yield found(used < most, f"slot {name} will be made; {most - used} of {most} slots are free", remedy)


def _failover(connection: Connection, plan: Plan) -> Iterator[Finding]:
    """Whether the slot is as slot_failover says. The setting counts for new slots; an existing one is altered over a
    replication connection, while nobody reads it.

    Source: PostgreSQL manual, "Streaming Replication Protocol", ALTER_REPLICATION_SLOT.
    """
    name, server = plan.options.slot, plan.server
    if not plan.failover or connection.server_version < 170_000:
        return
    (copied,) = _one(connection, "SELECT failover FROM pg_replication_slots WHERE slot_name = %s", name)
    if not copied:
        where = f"host={server.host} port={server.port} user={server.user} dbname={server.database}"
        alter = f"""psql "{where} replication=database" -c 'ALTER_REPLICATION_SLOT "{name}" (FAILOVER true)'"""
        said = f"slot {name} was made without failover: standbys do not get it, though slot_failover is true"
        yield Finding("BAD", said, f"stop capture; {alter}")


def _senders(connection: Connection, plan: Plan) -> Iterator[Finding]:
    used, ours, most = _one(
        connection,
        "SELECT (SELECT count(*) FROM pg_stat_replication), (SELECT count(active_pid) FROM pg_replication_slots"
        " WHERE slot_name = %s), current_setting('max_wal_senders')::int",
        plan.options.slot,
    )
    remedy = f"ALTER SYSTEM SET max_wal_senders = {most + 5}; -- then restart the server"
    yield found(used < most or ours > 0, f"{most - used} of {most} max_wal_senders are free", remedy)


def _replicates(plan: Plan) -> Looks:
    """Whether a replication connection is let in. pg_hba.conf treats a logical one like an ordinary one; its word
    `replication` does not match it. Source: PostgreSQL manual, "The pg_hba.conf File"."""
    server = plan.server
    try:
        replication = Replication(server)
    except OrdertapError as error:
        line = f"host {server.database} {server.user} <address of capture> scram-sha-256"
        yield Finding("BAD", error.message, f"in pg_hba.conf: {line} -- then SELECT pg_reload_conf();")
        return False
    try:
        replication.identify()
    except OrdertapError as error:
        yield Finding("BAD", error.message, error.hint)
        return False
    finally:
        replication.close()
    yield Finding("ok", "a replication connection is allowed")
    return True


def _next_start(plan: Plan) -> Iterator[Finding]:
    """What a start would do with position and slot, or why it would refuse them."""
    mode = plan.snapshot.mode
    position = plan.position(settled=False)
    replication = Replication(plan.server)
    connection = plan.server.connect()
    try:
        system = replication.identify()  # after reading the position, which a running capture advances
        trouble = plan.problem(position, system, slot_state(connection, plan.options.slot), replication.history)
        step = next_step(mode, position, trouble, taken=False)
    finally:
        connection.close()
        replication.close()
    does = {
        "snapshot": "only makes the slot" if mode == "no_data" else "takes a snapshot",
        "stream": f"continues from {position and position.end_lsn}",
        "end": "has nothing to do",
    }
    yield Finding("ok", f"the next start {does[step]} (snapshot_mode {mode})")
