"""Capture's sessions: they show values in the form that the codecs read, and `capture status` tells them apart."""

from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

import psycopg2
import psycopg2.extras
import pytest

from capture.commands.status import sessions
from capture.postgres.replication import Leadership, Server
from deploy.embedded import Postgres
from schemas.model.errors import SettingsError
from schemas.types.type_table import SESSION_SETTINGS
from tests.fix_postgres import AVAILABLE
from tests.programs import ROOT

LIMITS = """SELECT name FROM pg_settings
    WHERE name ~ '_timeout$' AND context = 'user' AND name <> 'wal_sender_timeout'"""
"""All time limits that a role may have, except the server's patience with us, which is asked for."""
OTHERS = {
    "default_transaction_isolation": "serializable", "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on", "search_path": "nowhere", "quote_all_identifiers": "on",
    "standard_conforming_strings": "off", "row_security": "on",
}  # fmt: skip
"""What a role or a database may have set, besides time limits and formats of values."""
OURS = {
    "default_transaction_isolation": "read committed", "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off", "search_path": "public", "quote_all_identifiers": "off",
    "standard_conforming_strings": "on", "row_security": "off",
}  # fmt: skip


def server_of(dsn: str) -> Server:
    parts = urlsplit(dsn)
    user, database = parts.username or "postgres", parts.path.lstrip("/")
    return Server(parts.hostname or "localhost", parts.port or 5432, user, parts.password or "", database, "disable")


def shown_by(server: Server, factory: type | None, settings: Iterable[str]) -> dict[str, str]:
    """The settings of a session of capture."""
    connection = server.connect(connection_factory=factory) if factory else server.connect()
    try:
        with connection.cursor() as cursor:
            shown = {}
            for setting in settings:
                cursor.execute(f"SHOW {setting}")
                shown[setting] = cursor.fetchone()[0]
            return shown
    finally:
        connection.close()


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
    shown = shown_by(server, factory, SESSION_SETTINGS)
    assert shown.pop("DateStyle").startswith("ISO")
    assert shown == {name: value for name, value in SESSION_SETTINGS.items() if name != "DateStyle"}


@pytest.mark.parametrize("server", AVAILABLE, indirect=True, ids=lambda version: f"pg{version}")
@pytest.mark.parametrize("factory", [None, psycopg2.extras.LogicalReplicationConnection], ids=["plain", "walsender"])
def test_c1_what_role_and_database_have_set_is_not_what_our_sessions_have(
    server: Postgres, new_database: Callable[[Postgres, str], str], factory: type | None
) -> None:
    dsn = new_database(server, "limits")
    with psycopg2.connect(dsn) as owner, owner.cursor() as cursor:
        user, database = f"limited_{owner.info.dbname}", owner.info.dbname
        cursor.execute(f"CREATE ROLE {user} LOGIN SUPERUSER")
        cursor.execute(LIMITS)
        limits = [name for (name,) in cursor.fetchall()]
        theirs = dict.fromkeys(limits, "20s") | OTHERS
        for number, (name, value) in enumerate(theirs.items()):
            whom = (f"ROLE {user}", f"DATABASE {database}", f"ROLE {user} IN DATABASE {database}")[number % 3]
            cursor.execute(f"ALTER {whom} SET {name} = {value!r}")
    owner.close()
    assert len(limits) >= (6 if server.version >= 17 else 5)
    shown = shown_by(server_of(dsn)._replace(user=user), factory, theirs)
    assert {name: shown.pop(name) for name in limits} == dict.fromkeys(limits, "0")
    assert shown == OURS


@pytest.mark.parametrize("factory", [None, psycopg2.extras.LogicalReplicationConnection], ids=["plain", "walsender"])
def test_the_server_notices_when_we_are_gone_without_a_word(database: str, factory: type | None) -> None:
    """Otherwise the session of a leader whose machine lost power would keep the lock, and its standby would wait."""
    server = server_of(database)
    connection = server.connect(connection_factory=factory) if factory else server.connect()
    leadership = Leadership(server, "ours")
    try:
        with connection.cursor() as cursor:
            shown = []
            for setting in ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count"):
                cursor.execute(f"SHOW {setting}")
                shown.append(cursor.fetchone()[0])
            cursor.execute("SHOW tcp_user_timeout")
            assert cursor.fetchone()[0] == "0", "it would end a COPY that waits for Kafka"
        assert shown == ["30", "10", "3"]
        assert leadership.setting("tcp_user_timeout") == "60000"
        assert leadership.setting("tcp_keepalives_idle") == "30"
    finally:
        connection.close()
        leadership.close()


def test_a_leaders_question_may_take_longer_than_it_waits_for_a_lock(database: str) -> None:
    """On a busy server, the facts of thousands of tables may; each start asks for them."""
    leadership = Leadership(server_of(database), "ours")
    try:
        assert leadership.setting("lock_timeout") == "10s"
        with leadership.connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(10.2)")
    finally:
        leadership.close()


def test_only_the_copies_of_one_capture_are_its_leader_and_standby(database: str) -> None:
    server = server_of(database)
    leader, standby, other = (Leadership(server, slot) for slot in ("ours", "ours", "theirs"))
    idle, looking = server.connect(), server.connect()  # a reading of a table, and `capture status`
    try:
        assert (leader.acquire(), standby.acquire(), other.acquire()) == (True, False, True)
        with idle.cursor() as cursor:
            cursor.execute("SELECT 1")
        found = {pid: role for pid, _, role in sessions(looking, server.user, "ours")}
        pids = [connection.info.backend_pid for connection in (leader.connection, standby.connection)]
        assert found == dict(zip(pids, ("leader", "standby"), strict=True))
    finally:
        for each in (leader, standby, other, idle, looking):
            each.close()


def test_a_role_that_may_not_replicate_is_sent_to_check_and_not_to_the_network(database: str) -> None:
    with psycopg2.connect(database) as owner, owner.cursor() as cursor:
        cursor.execute("DROP ROLE IF EXISTS plain")
        cursor.execute("CREATE ROLE plain LOGIN")
    owner.close()
    server = server_of(database)._replace(user="plain")
    server.connect().close()
    with pytest.raises(SettingsError, match="capture check"):
        server.connect(connection_factory=psycopg2.extras.LogicalReplicationConnection)


def test_one_place_opens_sessions() -> None:
    """So all have its settings: the walsender, a snapshot's workers, chunks on demand, and every command."""
    places = [path.name for path in (ROOT / "capture").rglob("*.py") if "psycopg2.connect(" in path.read_text("utf-8")]
    assert places == ["replication.py"]
