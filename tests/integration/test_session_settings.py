"""A shop with a locale of its own: what capture's sessions show is still what the codecs read."""

from urllib.parse import urlsplit

import psycopg2
import psycopg2.extras
import pytest

from capture.postgres.replication import Server
from schemas.type_table import SESSION_SETTINGS


def server_of(dsn: str) -> Server:
    parts = urlsplit(dsn)
    user, database = parts.username or "postgres", parts.path.lstrip("/")
    return Server(parts.hostname or "localhost", parts.port or 5432, user, parts.password or "", database, "disable")


@pytest.mark.parametrize("factory", [None, psycopg2.extras.LogicalReplicationConnection], ids=["plain", "walsender"])
def test_the_sessions_form_of_values_does_not_depend_on_the_database(database: str, factory: type | None) -> None:
    with psycopg2.connect(database) as owner, owner.cursor() as cursor:
        name = owner.info.dbname
        for setting in (
            "TimeZone = 'Europe/Berlin'",
            "DateStyle = 'German'",
            "IntervalStyle = 'sql_standard'",
            "bytea_output = 'escape'",
            "extra_float_digits = -5",
        ):
            cursor.execute(f"ALTER DATABASE {name} SET {setting}")
    owner.close()
    server = server_of(database)
    connection = server.connect(connection_factory=factory) if factory else server.connect()
    try:
        with connection.cursor() as cursor:
            shown = {}
            for setting in SESSION_SETTINGS:
                cursor.execute(f"SHOW {setting}")
                shown[setting] = cursor.fetchone()[0]
    finally:
        connection.close()
    assert shown.pop("DateStyle").startswith("ISO")
    assert shown == {name: value for name, value in SESSION_SETTINGS.items() if name != "DateStyle"}
