"""`capture signal`: writes a signal into the shop's log, where the reader finds it in the order of the changes."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence

from psycopg2 import sql

from capture.demand import SIGNAL_PREFIX, Signal, SignalType
from capture.plan import Plan
from capture.postgres import catalogue
from capture.postgres.catalogue import Published
from capture.postgres.replication import Connection, database_errors, first_line, slot_state
from capture.snapshot.chunk_reader import NOT_SQL
from schemas.model.errors import SettingsError


def send(plan: Plan, kind: SignalType, tables: Sequence[str] = (), condition: str | None = None) -> Signal:
    """Writes the signal and returns it. SettingsError if no chunk of these tables could be read (or with this
    condition), none could be written, or there is no slot: a slot reads nothing from before it was made."""
    signal = Signal(plan.options.slot, str(uuid.uuid4()), kind, tuple(dict.fromkeys(tables)), condition)
    signal = signal.signed(plan.options.signal_key.get_secret_value().encode())
    connection = plan.server.connect()
    try:
        published = {table.relation.table: table for table in catalogue.published_tables(connection, plan.publication)}
        unnamed = _unnamed(plan, published) if tables else {}
        for name in tables:
            _check(connection, plan, published, name, condition)
            if name in unnamed:
                raise unnamed[name]
        if slot_state(connection, plan.options.slot) is None:
            raise SettingsError(
                f"slot {plan.options.slot} is not there, so nobody would ever read the signal",
                "`capture run` makes it, and copies the tables by itself; if it was lost, `capture check` says so",
            )
        with database_errors("writing the signal"), connection.cursor() as cursor:
            # The commit of an xid flushes it: a crash of the server does not lose what we say was asked for. No
            # standby's answer is needed for that, and one that is away would hold the command for ever.
            cursor.execute("SET synchronous_commit = local")
            statement = "SELECT pg_logical_emit_message(false, %s, %s), txid_current()"
            cursor.execute(statement, [SIGNAL_PREFIX, signal.dump()])
    finally:
        connection.close()
    return signal


def _unnamed(plan: Plan, published: Iterable[str]) -> dict[str, SettingsError]:
    """The tables that can have no topic, and why. Tables that are written already have theirs, so they are asked for
    first, as in a start."""
    position = plan.position(settled=False)
    parked = () if position is None else position.parked
    captured = sorted(filter(plan.selection.table, published), key=lambda name: name in parked)
    return plan.topics.of_each(captured)[1]


def _check(
    connection: Connection, plan: Plan, published: dict[str, Published], name: str, condition: str | None
) -> None:
    table = published.get(name)
    if table is None or not plan.selection.table(name):
        captured = ", ".join(sorted(filter(plan.selection.table, published))) or "none"
        raise SettingsError(f"table {name} is not captured; captured are: {captured}", "write schema.table")
    if not catalogue.has_key(connection, table.relation, plan.selection.rules(table.relation)):
        raise SettingsError(
            f"table {name} has no key: it cannot be read while it changes",
            "give it a primary key, or capture repair --execute reads all tables again",
        )
    if condition is not None:
        _try(connection, table, condition)


def _try(connection: Connection, table: Published, condition: str) -> None:
    name = sql.Identifier(table.relation.schema, table.relation.name)
    try:
        with connection.cursor() as cursor:
            for form in ("({})", "{}"):  # in a chunk's parentheses, and without: `true) OR (true` is no condition
                where = sql.SQL(form).format(sql.SQL(condition))
                cursor.execute(sql.SQL("SELECT FROM {} WHERE {} LIMIT 0").format(name, where))
    except NOT_SQL as error:
        raise SettingsError(
            f"--where is not a condition on {table.relation.table}: {first_line(error)}",
            "write what would follow WHERE, for example: --where \"placed_at >= '2026-01-01'\"",
        ) from None
