"""The middle layer of a shop: a schema of ledger and staged tables, and how it comes to the version of this release."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Final

from psycopg2 import sql

from schemas.errors import OrdertapError, SettingsError
from sink.database import Connection, Cursor, schema_of, transaction

OLD: Final = "ordertap"
"""The one schema of releases that kept one shop in a middle layer, with the staged tables in `staged`."""


def migrations() -> list[tuple[int, str]]:
    """(version, SQL) of each numbered file in `migrations/`, in order."""
    found = [file for file in files("sink").joinpath("migrations").iterdir() if file.name.endswith(".sql")]
    return sorted((int(file.name[:4]), file.read_text("utf-8")) for file in found)


def migrate(connection: Connection, shop: str) -> int:
    """Brings the shop's layer to our version and returns it; SettingsError when it is of a later release.

    `connection` has the names of the shop's ledger (`schema_of`).
    """
    with transaction(connection) as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"{schema_of(shop)}.version",))
        _adopt(cursor, shop)
        cursor.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema_of(shop))))
        cursor.execute(
            "CREATE TABLE IF NOT EXISTS migration (version integer PRIMARY KEY, done_at timestamptz DEFAULT now())"
        )
        cursor.execute("SELECT coalesce(max(version), 0) FROM migration")
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
                cursor.execute("INSERT INTO migration (version) VALUES (%s)", [version])
        return every[-1][0]


def _adopt(cursor: Cursor, shop: str) -> None:
    """Makes the layer of a release with one schema the shop's own, if it is of this shop."""
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
    # What those releases look for: with nothing there they would begin anew, with a ledger that knows of no order.
    cursor.execute(
        "CREATE SCHEMA ordertap; COMMENT ON SCHEMA ordertap IS 'Keeps sinks of before schema version 5 from starting';"
        " CREATE TABLE ordertap.migration (version integer PRIMARY KEY, done_at timestamptz DEFAULT now());"
        " INSERT INTO ordertap.migration (version) VALUES (5)"
    )


def _is_old(cursor: Cursor, shop: str) -> bool:
    """Whether the shop's ledger is still in the schema of old. It says whose it is."""
    cursor.execute(
        "SELECT to_regnamespace(%s) IS NULL AND to_regclass('ordertap.binding') IS NOT NULL", [schema_of(shop)]
    )
    if not _only(cursor):
        return False
    cursor.execute("SELECT EXISTS (SELECT FROM ordertap.binding WHERE (name, value) = ('shop', %s))", (shop,))
    return bool(_only(cursor))


def _only(cursor: Cursor) -> Any:
    row = cursor.fetchone()
    if row is None:
        raise OrdertapError("the middle layer gave no row where there must be one", "report this")
    return row[0]
