"""The middle-layer database: connections and forward migrations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

import psycopg2
import psycopg2.extensions

from schemas.errors import OrdertapError, SettingsError, UnavailableError

Connection = psycopg2.extensions.connection
Cursor = psycopg2.extensions.cursor

# A server whose host is gone says nothing: without these its silence is noticed after the system's two hours.
_KEEPALIVES: dict[str, Any] = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('ordertap.migrations', 0))"


def connect(url: str, what: str = "the middle layer (database_url)") -> Connection:
    """A connection in autocommit; UnavailableError or SettingsError with the next step, never with the password."""
    try:
        connection: Connection = psycopg2.connect(
            url, connect_timeout=10, application_name="ordertap sink", **_KEEPALIVES
        )
    except psycopg2.OperationalError as error:
        reasons = [line for line in str(error).splitlines() if line and not line.startswith("\t")]
        reason = reasons[-1] if reasons else "no reason given"
        if any(word in reason for word in ("authentication failed", "does not exist", "pg_hba")):
            raise SettingsError(f"{what}: {reason}", "check its URL in the settings") from None
        raise UnavailableError(f"{what}: {reason}", "check that the database runs and can be reached") from None
    except psycopg2.ProgrammingError:
        raise SettingsError(f"{what}: its URL is not one", "write postgresql://user@host:port/database") from None
    connection.autocommit = True
    return connection


@contextmanager
def transaction(connection: Connection, isolation: str = "READ COMMITTED") -> Iterator[Cursor]:
    """One transaction on a connection in autocommit; `isolation` may end in READ ONLY. Its errors are ours."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"BEGIN ISOLATION LEVEL {isolation}")
            try:
                yield cursor
            except BaseException:
                if not connection.closed:
                    cursor.execute("ROLLBACK")
                raise
            cursor.execute("COMMIT")
    except (psycopg2.OperationalError, psycopg2.InterfaceError, psycopg2.extensions.TransactionRollbackError) as error:
        raise UnavailableError(
            f"the database: {_first_line(error)}", "check that it runs; the sink tries again"
        ) from None


@contextmanager
def reading(connection: Connection, schema: str, staged: bool = True) -> Iterator[Cursor]:
    """One moment of the database, read-only; plain names of tables are those of the schema.

    `staged`: of the middle layer. Then the gate is taken first, which needs no snapshot yet: a staged table that was
    rewritten after the snapshot was taken would look empty.
    """
    with transaction(connection, "REPEATABLE READ READ ONLY") as cursor:
        if staged:
            cursor.execute("LOCK TABLE ordertap.schema_gate IN ACCESS SHARE MODE")
        cursor.execute("SELECT set_config('search_path', quote_ident(%s), true)", (schema,))
        yield cursor


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def migrations() -> list[tuple[int, str]]:
    """(version, SQL) of each numbered file in `migrations/`, in order."""
    found = [file for file in files("sink").joinpath("migrations").iterdir() if file.name.endswith(".sql")]
    return sorted((int(file.name[:4]), file.read_text("utf-8")) for file in found)


def migrate(connection: Connection) -> int:
    """Brings the schema to our version and returns it; SettingsError when the database is of a later release."""
    with transaction(connection) as cursor:
        cursor.execute(_LOCK)
        cursor.execute("CREATE SCHEMA IF NOT EXISTS ordertap")
        cursor.execute(
            "CREATE TABLE IF NOT EXISTS ordertap.migration"
            " (version integer PRIMARY KEY, done_at timestamptz DEFAULT now())"
        )
        cursor.execute("SELECT coalesce(max(version), 0) FROM ordertap.migration")
        current: int = _only(cursor)
        every = migrations()
        if current > every[-1][0]:
            raise SettingsError(
                f"the middle layer has schema version {current}, this release knows {every[-1][0]}",
                "run the newer release",
            )
        for version, script in every:
            if version > current:
                cursor.execute(script)
                cursor.execute("INSERT INTO ordertap.migration (version) VALUES (%s)", [version])
        return every[-1][0]


def _only(cursor: Cursor) -> Any:
    row = cursor.fetchone()
    if row is None:
        raise OrdertapError("the middle layer gave no row where there must be one", "report this")
    return row[0]
