"""A shop's middle layer: its schema with the ledger and the staged tables, and the migrations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, Final

import psycopg2.errors
from psycopg2 import sql

from schemas.model.errors import OrdertapError, SettingsError, UnavailableError
from sink.database import Connection, Cursor, schema_of, transaction

OLD: Final = "ordertap"
"""The schema of early releases, which had one shop per middle layer and its staged tables in `staged`."""
_INDEX_OF_COMMITS: Final = 4  # rows staged before this version cannot be assigned to commits
_OLD_STAGER: Final = "ordertap.stager"  # the stager's lock of those releases
_PATIENCE: Final = "5s"
_HOLDERS: Final = """
    SELECT a.pid, a.application_name, host(a.client_addr),
           to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')
    FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND a.pid <> pg_backend_pid()
    AND l.database = a.datid AND a.datname = current_database()
    AND (l.classid::bigint << 32 | l.objid::bigint) IN (SELECT hashtextextended(k, 0) FROM unnest(%s) AS k)
    ORDER BY a.backend_start LIMIT 10
"""
_MAY_WORK: Final = """
    SELECT has_database_privilege(current_database(), 'CREATE') AND NOT EXISTS (
        SELECT FROM pg_tables WHERE schemaname = %s AND NOT pg_has_role(tableowner, 'USAGE'))
"""


def migrations() -> list[tuple[int, str]]:
    """(version, SQL) of each numbered file in `migrations/`, in order."""
    found = [file for file in files("sink").joinpath("migrations").iterdir() if file.name.endswith(".sql")]
    return sorted((int(file.name[:4]), file.read_text("utf-8")) for file in found)


VERSION: Final = migrations()[-1][0]
"""The schema version of this release."""


def version(cursor: Cursor, shop: str) -> int:
    """The schema version of the shop's layer; 0 if there is none."""
    home = home_of(cursor, shop)
    cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (f"{home}.migration",))
    if not _only(cursor):
        return 0
    cursor.execute(sql.SQL("SELECT coalesce(max(version), 0) FROM {}").format(sql.Identifier(home, "migration")))
    return int(_only(cursor))


def read_again(cursor: Cursor, shop: str) -> list[str]:
    """The tables whose staged rows a migration would drop, so that they are read again."""
    if not 0 < version(cursor, shop) < _INDEX_OF_COMMITS:
        return []
    staged = sql.Identifier(home_of(cursor, shop), "staged_table")
    cursor.execute(sql.SQL("SELECT table_name FROM {} ORDER BY 1").format(staged))
    return [str(name) for (name,) in cursor.fetchall()]


def is_new(connection: Connection, shop: str) -> bool:
    """Whether the shop has no layer yet."""
    with as_owner(connection) as cursor:
        return version(cursor, shop) == 0


def home_of(cursor: Cursor, shop: str) -> str:
    """The schema where the shop's ledger is."""
    return OLD if _is_old(cursor, shop) else schema_of(shop)


def enter(connection: Connection, shop: str) -> None:
    """Takes a shared lock on the layer's version for as long as the connection lives, so that nobody migrates it
    meanwhile.

    UnavailableError while it is being migrated, SettingsError if there is none or it has another version.
    """
    with as_owner(connection) as cursor:
        if not _waited(cursor, "pg_advisory_lock_shared", [_lock(shop)]):
            raise UnavailableError(
                f"the middle layer of shop {shop} is being migrated", "try again when that has finished"
            )
        found = version(cursor, shop)
    refuse_newer(found)
    if not found:
        raise SettingsError(
            f"the database {connection.info.dbname} has no middle layer of shop {shop}",
            "check `database_url` and `shop`; if the shop is new, `sink check` or `sink run` makes it",
        )
    if found < VERSION:
        raise SettingsError(
            f"the middle layer of shop {shop} has schema version {found}, this release has {VERSION}",
            "`sink migrate` says what changes with it, `sink run` or `sink migrate --execute` does it",
        )


def migrate(connection: Connection, shop: str, also: Callable[[Cursor], None] = lambda _: None) -> int:
    """Creates the shop's layer, or brings it to our version, and returns that.

    `also` runs in the same transaction. `connection`: with search_path `schema_of(shop)`. SettingsError if the layer is
    of a later release. UnavailableError, naming the sessions, while somebody uses it.
    """
    with as_owner(connection) as cursor:
        if version(cursor, shop) == VERSION:
            return VERSION
        _alone(cursor, shop)
        current = version(cursor, shop)  # another process may have done it while we waited
        refuse_newer(current)
        _adopt(cursor, shop)
        cursor.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema_of(shop))))
        cursor.execute(
            "CREATE TABLE IF NOT EXISTS migration (version integer PRIMARY KEY, done_at timestamptz DEFAULT now())"
        )
        for number, script in migrations():
            if number > current:
                cursor.execute(script)
                cursor.execute("INSERT INTO migration (version) VALUES (%s)", [number])
        also(cursor)
    return VERSION


def refuse_newer(found: int) -> None:
    """SettingsError if a layer of this version is of a later release."""
    if found > VERSION:
        raise SettingsError(
            f"the middle layer has schema version {found}, this release knows {VERSION}", "run the newer release"
        )


def check_rights(connection: Connection, shop: str) -> None:
    """SettingsError if the user may look at the shop's layer, but not do all that `sink run` does there."""
    with as_owner(connection) as cursor:
        cursor.execute(_MAY_WORK, (schema_of(shop),))
        if not _only(cursor):
            raise _not_the_owner(connection, "it may not create schemas, or does not own all tables")


@contextmanager
def as_owner(connection: Connection) -> Iterator[Cursor]:
    """A transaction on a layer that may not be the user's. SettingsError if the database refuses the user,
    UnavailableError if it takes no changes."""
    try:
        with transaction(connection) as cursor:
            yield cursor
    except psycopg2.errors.InsufficientPrivilege as error:
        raise _not_the_owner(connection, str(error).partition("\n")[0]) from None
    except psycopg2.errors.ReadOnlySqlTransaction:
        raise UnavailableError(
            f"the database {connection.info.dbname} takes no changes",
            "is it a standby? `database_url` has to lead to the primary",
        ) from None


def _not_the_owner(connection: Connection, reason: str) -> SettingsError:
    name, user = connection.info.dbname, connection.info.user
    return SettingsError(
        f"the database {name} does not let user {user} work: {reason}",
        f"the middle layer's user has to own its database and all that is in it: `ALTER DATABASE {name} OWNER TO"
        f" {user}`; what another user has made there: `REASSIGN OWNED BY THAT_USER TO {user}`",
    )


def _lock(shop: str) -> str:
    return f"{schema_of(shop)}.version"


def _alone(cursor: Cursor, shop: str) -> None:
    """Waits until nobody uses the layer, and keeps others out until the end of the transaction."""
    locks = [_lock(shop)]
    if _is_old(cursor, shop):
        locks.append(_OLD_STAGER)
    # Another process may have migrated it and be at work already.
    if not _waited(cursor, "pg_advisory_xact_lock", locks) and version(cursor, shop) != VERSION:
        raise _in_use(cursor, shop, locks)


def _waited(cursor: Cursor, function: str, locks: list[str]) -> bool:
    """Takes advisory locks with this function. False if one was not free in time."""
    cursor.execute("SAVEPOINT waits")
    try:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", (_PATIENCE,))
        for lock in locks:
            cursor.execute(f"SELECT {function}(hashtextextended(%s, 0))", (lock,))
    except psycopg2.errors.LockNotAvailable:
        cursor.execute("ROLLBACK TO SAVEPOINT waits")
        return False
    cursor.execute("RELEASE SAVEPOINT waits")
    return True


def _in_use(cursor: Cursor, shop: str, locks: list[str]) -> UnavailableError:
    cursor.execute(_HOLDERS, (locks,))
    sessions = cursor.fetchall()
    who = "; ".join(
        f"process {pid} of the database ({name or 'no application name'}, from {address or 'its own machine'},"
        f" since {since} UTC)"
        for pid, name, address, since in sessions
    )
    return UnavailableError(
        f"the middle layer of shop {shop} cannot be migrated to schema version {VERSION} while others work with it:"
        f" {who or 'they have just ended'}",
        "stop every sink and command of the old release, then start this one again; to end a session by force:"
        f" `SELECT pg_terminate_backend({sessions[0][0] if sessions else 'PID'})`",
    )


def _adopt(cursor: Cursor, shop: str) -> None:
    """Renames the single schema of an early release to this shop's, if it is this shop's."""
    if not _is_old(cursor, shop):
        return
    cursor.execute(sql.SQL("ALTER SCHEMA {} RENAME TO {}").format(*map(sql.Identifier, (OLD, schema_of(shop)))))
    cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'staged'")
    for (table,) in cursor.fetchall():
        move = sql.SQL("ALTER TABLE {} SET SCHEMA {}")
        cursor.execute(move.format(sql.Identifier("staged", table), sql.Identifier(schema_of(shop))))
    cursor.execute("SELECT EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace('staged'))")
    if not _only(cursor):
        cursor.execute("DROP SCHEMA IF EXISTS staged")
    # A process of those releases looks for this schema. Without it, it would start with an empty ledger.
    cursor.execute(
        "CREATE SCHEMA ordertap; COMMENT ON SCHEMA ordertap IS 'Keeps sinks of before schema version 5 from starting';"
        " CREATE TABLE ordertap.migration (version integer PRIMARY KEY, done_at timestamptz DEFAULT now());"
        " INSERT INTO ordertap.migration (version) VALUES (5)"
    )


def _is_old(cursor: Cursor, shop: str) -> bool:
    """Whether the shop's ledger is still in the schema of early releases, by its `binding`."""
    cursor.execute(
        "SELECT to_regnamespace(%s) IS NULL AND to_regclass('ordertap.binding') IS NOT NULL", (schema_of(shop),)
    )
    if not _only(cursor):
        return False
    cursor.execute("SELECT EXISTS (SELECT FROM ordertap.binding WHERE (name, value) = ('shop', %s))", (shop,))
    return bool(_only(cursor))


def _only(cursor: Cursor) -> Any:
    row = cursor.fetchone()
    if row is None:
        raise OrdertapError("the middle layer returned no row where there must be one", "report this")
    return row[0]
