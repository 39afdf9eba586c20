"""Sessions of a snapshot that hold its tables, so that nobody rewrites one while it is read.

Whatever they read, they hold from before the slot is made: a TRUNCATE that waits for one of them would make every later
look of another at the same table wait behind it, and each of us for the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from psycopg2 import sql

from capture.catalogue import Published
from capture.replication import Server, database_errors

_NO_TIME_LIMITS: Final = """
    SELECT set_config(name, '0', false) FROM pg_settings
    WHERE name IN ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')"""
"""A snapshot takes as long as it takes; not every server version knows all of them."""


class Locks(NamedTuple):
    """The tables (schema, name, with partitions?) to hold, and how long to wait for one of them."""

    tables: tuple[tuple[str, str, bool], ...]
    timeout_ms: int


def locks_of(published: Sequence[Published], timeout_ms: int) -> Locks:
    """A table without those that inherit from it, a partitioned one with its partitions."""
    tables = tuple((one.relation.schema, one.relation.name, one.partitioned) for one in published)
    return Locks(tables, timeout_ms)


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
    connection = server.connect()
    try:
        with database_errors("locking the tables for the snapshot"), connection.cursor() as cursor:
            cursor.execute(_NO_TIME_LIMITS)
            cursor.execute("SET row_security = off")
            cursor.execute("SELECT set_config('lock_timeout', %s, false)", [str(locks.timeout_ms)])
            cursor.execute(begin)
            for schema, name, partitioned in locks.tables:
                only = sql.SQL("" if partitioned else "ONLY ")
                table = sql.Identifier(schema, name)
                cursor.execute(sql.SQL("LOCK TABLE {}{} IN ACCESS SHARE MODE").format(only, table))
    except BaseException:
        connection.close()
        raise
    return connection
