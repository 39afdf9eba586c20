"""Sessions of a snapshot that hold its tables, so that nobody rewrites one while it is read.

Whatever they read, they hold from before the slot is made: a TRUNCATE that waits for one of them would make every later
look of another at the same table wait behind it, and each of us for the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from psycopg2 import sql

from capture.postgres.catalogue import Published
from capture.postgres.replication import Server, database_errors

_NO_TIME_LIMITS: Final = """
    SELECT set_config(name, '0', false) FROM pg_settings
    WHERE name IN ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')"""
"""A snapshot takes as long as it takes; not every server version knows all of them."""


class Locks(NamedTuple):
    """The statements that take the locks, and how long to wait for one of them."""

    statements: tuple[sql.Composable, ...]
    timeout_ms: int


def locks_of(published: Sequence[Published], timeout_ms: int) -> Locks:
    """On all of these tables."""
    return Locks(tuple(map(statement, published)), timeout_ms)


def statement(published: Published) -> sql.Composable:
    """Holds a table without those that inherit from it, a partitioned one with its partitions."""
    only = sql.SQL("" if published.partitioned else "ONLY ")
    table = sql.Identifier(published.relation.schema, published.relation.name)
    return sql.SQL("LOCK TABLE {}{} IN ACCESS SHARE MODE").format(only, table)


def session(server: Server) -> Any:
    """A connection for as long as it takes, which fails where policies would hide rows."""
    connection = server.connect()
    with database_errors("opening a session for a snapshot"), connection.cursor() as cursor:
        cursor.execute(_NO_TIME_LIMITS)
        cursor.execute("SET row_security = off")
    return connection


def holding(server: Server, locks: Locks) -> Any:
    """A connection in an open transaction that has ACCESS SHARE on the tables; close it to let go.

    UnavailableError when a schema change keeps one of them too long. Source: PostgreSQL manual, "Explicit Locking".
    """
    return _open(server, locks, "BEGIN")


def holding_for(server: Server, locks: Locks) -> Any:
    """The same to read at a snapshot that see() names; it fails where policies would hide rows."""
    return _open(server, locks, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")


def see(reader: Any, exported: str) -> None:
    """From here on the reader sees an exported snapshot; it must not have looked at any row before."""
    with database_errors("reading the exported snapshot"), reader.cursor() as cursor:
        cursor.execute("SET TRANSACTION SNAPSHOT %s", [exported])


def _open(server: Server, locks: Locks, begin: str) -> Any:
    connection = session(server)
    try:
        with database_errors("locking the tables for the snapshot"), connection.cursor() as cursor:
            cursor.execute("SELECT set_config('lock_timeout', %s, false)", [str(locks.timeout_ms)])
            cursor.execute(begin)
            for one in locks.statements:
                cursor.execute(one)
    except BaseException:
        connection.close()
        raise
    return connection
