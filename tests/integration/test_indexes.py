"""Indexes from a profile, on a real server: made while staging, and repaired after an interruption."""

import threading
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from structlog.testing import capture_logs

from schemas.model.errors import UnavailableError
from sink.database import Connection, connect, transaction
from sink.staging import indexes
from tests.integration.stager_feed import LINES, line, order
from tests.integration.written_rows import Written

NAME = "ordertap_order_lines_order_id"


@pytest.fixture
def shop(database: str, tmp_path: Path) -> Written:
    shop = Written(tmp_path, "", "shop", database)
    shop.stage(line(1, 100))
    return shop


def add_order(shop: Written) -> None:
    shop.stage(order(17, 200))


def names(shop: Written) -> list[str]:
    """Valid indexes of ours on the staged tables."""
    rows = shop.rows(
        "SELECT c.relname FROM pg_index JOIN pg_class c ON c.oid = indexrelid"
        " WHERE indisvalid AND c.relname LIKE 'ordertap%%' AND indrelid::regclass::text LIKE '\"public.%%'"
    )
    return [str(name) for (name,) in rows]


def make(url: str, shop: Written) -> bool:
    with closing(connect(url, "ordertap_shop")) as connection:
        return indexes.make(connection, shop.profile)


def test_an_index_is_made_once_its_table_is_staged_and_a_key_has_one_already(database: str, shop: Written) -> None:
    assert make(database, shop) is False  # there are no orders yet
    assert names(shop) == [NAME]
    add_order(shop)
    assert make(database, shop) is True
    assert make(database, shop) is True
    assert names(shop) == [NAME]


def test_what_an_interruption_left_is_made_again(database: str, shop: Written) -> None:
    add_order(shop)
    with closing(connect(database, "ordertap_shop")) as connection, connection.cursor() as cursor:
        with closing(connect(database, "ordertap_shop")) as reader, transaction(reader, "REPEATABLE READ") as old:
            old.execute("SELECT count(*) FROM ordertap_shop.document")  # an index waits for such a transaction
            cursor.execute("SET lock_timeout = '100ms'")
            with pytest.raises(psycopg2.OperationalError):
                cursor.execute(f'CREATE INDEX CONCURRENTLY {NAME} ON ordertap_shop."{LINES}" (order_id)')
        cursor.execute("SELECT count(*) FROM pg_index WHERE NOT indisvalid")
        assert cursor.fetchone() == (1,)
    assert names(shop) == []
    assert make(database, shop) is True
    assert names(shop) == [NAME]


def test_a_failure_is_told_with_the_next_step_and_keeps_no_other_index_from_being_made(
    database: str, shop: Written
) -> None:
    with transaction(shop.connection) as cursor:
        cursor.execute(f'ALTER TABLE ordertap_shop."{LINES}" ADD COLUMN status json')
        cursor.execute(f'ALTER TABLE ordertap_shop."{LINES}" RENAME COLUMN order_id TO kept')
        cursor.execute(f'ALTER TABLE ordertap_shop."{LINES}" RENAME COLUMN status TO order_id')
    add_order(shop)
    with capture_logs() as logs:
        assert make(database, shop) is False
    [told] = [entry for entry in logs if entry["log_level"] == "warning"]
    assert (told["table"], told["column"]) == (LINES, "order_id")
    assert "json" in told["reason"]
    assert "yourself" in told["next"]


def test_one_replica_makes_them_at_a_time(database: str, shop: Written) -> None:
    with closing(connect(database, "ordertap_shop")) as other, other.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(hashtextextended('ordertap_shop.indexes', 0))")
        assert make(database, shop) is False
        assert names(shop) == []


def test_a_database_that_is_away_ends_nothing(shop: Written) -> None:
    stop = threading.Event()

    def away() -> Connection:
        stop.set()
        raise UnavailableError("no database", "start it")

    with capture_logs() as logs:
        indexes.keep(away, shop.profile, stop)
    assert [entry["reason"] for entry in logs] == ["no database"]


def test_time_limits_of_the_database_are_not_ours(database: str, shop: Written) -> None:
    with transaction(shop.connection) as cursor:
        cursor.execute(f"ALTER DATABASE {database.rpartition('/')[2]} SET statement_timeout = '20s'")
    with closing(connect(database, "ordertap_shop")) as connection, connection.cursor() as cursor:
        indexes.make(connection, shop.profile)
        cursor.execute("SELECT current_setting('statement_timeout'), current_setting('lock_timeout')")
        assert cursor.fetchone() == ("0", "10s")
