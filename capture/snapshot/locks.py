"""Sessions of a snapshot that hold its tables, so that nobody rewrites one while it is read.

They take their locks only once the slot exists. Making the slot waits for open transactions, and one of them may wait
behind a TRUNCATE that waits for a lock of ours. The shop would stand still, and the server would not see the deadlock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import psycopg2
from psycopg2 import sql

from capture.postgres.catalogue import Published
from capture.postgres.replication import Connection, Cursor, Server, database_errors, first_line
from schemas.model.errors import UnavailableError

_LOCKING: Final = "locking the tables for the snapshot"
_STORAGE: Final = """
    WITH RECURSIVE tree(oid) AS (
        SELECT unnest(%s::oid[]) UNION SELECT inhrelid FROM tree JOIN pg_inherits ON inhparent = tree.oid)
    SELECT c.oid, c.relfilenode FROM tree JOIN pg_class c USING (oid)"""


class Locks(NamedTuple):
    """The statement that takes the locks, and how long to wait for each."""

    statement: sql.Composable
    timeout_ms: int


def locks_of(published: Sequence[Published], timeout_ms: int) -> Locks:
    """Locks on all of these tables."""
    return Locks(statement(*published), timeout_ms)


def statement(*published: Published) -> sql.Composable:
    """Locks tables without those that inherit from them, and partitioned ones with their partitions. All at once,
    because each statement would be a round trip."""
    return sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(sql.SQL(", ").join(map(_target, published)))


def _target(published: Published) -> sql.Composable:
    only = sql.SQL("" if published.partitioned else "ONLY ")
    return only + sql.Identifier(published.relation.schema, published.relation.name)


def hold(connection: Connection, locks: Locks) -> None:
    """Takes ACCESS SHARE on the tables in a transaction that stays open; close the connection to let go.
    UnavailableError if a schema change keeps one of them too long. Source: PostgreSQL manual, "Explicit Locking"."""
    with database_errors(_LOCKING), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, false)", [str(locks.timeout_ms)])
        cursor.execute("BEGIN")
        cursor.execute(locks.statement)


def reader_at(server: Server, locks: Locks, exported: str) -> Connection:
    """A connection that sees the exported snapshot and has the same locks as the holder.

    It does not wait for its locks: whoever keeps it from them waits for the holder. If it did not lock a table now, a
    later look at it would wait behind a TRUNCATE, which waits for the holder. UnavailableError as in hold().
    """
    connection = server.connect()
    try:
        with database_errors(_LOCKING), connection.cursor() as cursor:
            _see(cursor, exported)
            cursor.execute(locks.statement + sql.SQL(" NOWAIT"))
    except BaseException:
        connection.close()
        raise
    return connection


def storage_at(connection: Connection, oids: Sequence[int], exported: str | None = None) -> dict[int, int]:
    """The file of each table and of what inherits from it, as the exported snapshot shows it; without one, as it is
    now. Another file means a rewrite, and an older snapshot may then read nothing. Source: PostgreSQL manual,
    "pg_class" (relfilenode), and "Caveats" of "Concurrency Control"."""
    with database_errors("looking for rewritten tables"), connection.cursor() as cursor:
        if exported is not None:
            _see(cursor, exported)
        cursor.execute(_STORAGE, [list(oids)])
        found = dict(cursor.fetchall())
        if exported is not None:
            cursor.execute("COMMIT")
        return found


def _see(cursor: Cursor, exported: str) -> None:
    """Makes the session see the exported snapshot."""
    cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        cursor.execute("SET TRANSACTION SNAPSHOT %s", [exported])
    except (psycopg2.errors.UndefinedObject, psycopg2.errors.InvalidParameterValue) as error:
        hint = "the connection that made the slot was cut; capture begins the snapshot again"
        raise UnavailableError(f"the exported snapshot is gone: {first_line(error)}", hint) from None
