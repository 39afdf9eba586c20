"""The broker dies while capture runs: the shop can be shut down, and nothing is lost or doubled afterwards."""

import time
from collections.abc import Callable
from pathlib import Path

import psycopg2

from deploy.embedded import Kafka, Postgres
from tests.programs import Program, write_settings
from tests.proof.records import read_topics

TABLE = "CREATE TABLE orders (id int PRIMARY KEY, note text); CREATE PUBLICATION ordertap FOR TABLE orders"


def _sql(dsn: str, *statements: str) -> None:
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    connection.close()


def test_broker_killed_then_the_shop_shut_down(parts_folder: Path, tmp_path: Path) -> None:
    registry = (tmp_path / "registry").as_uri()
    with Postgres(parts_folder / "outage-postgres") as shop, Kafka(parts_folder / "outage-kafka") as kafka:
        dsn = shop.create_database("shop")
        _sql(dsn, TABLE)
        settings = {
            "topic_prefix": "shop",
            "database_hostname": "127.0.0.1",
            "database_port": shop.port,
            "database_user": "postgres",
            "database_dbname": "shop",
            "bootstrap_servers": kafka.bootstrap_servers,
            "schema_registry_url": registry,
            "heartbeat_interval_ms": 500,
            "stall_seconds": 5,
            "health_port": 0,
        }
        capture = Program("capture", write_settings(tmp_path / "c.yaml", capture=settings), tmp_path / "capture.log")
        capture.start()
        try:
            _until(lambda: "streaming" in capture.tail(50), capture)
            _sql(dsn, "INSERT INTO orders SELECT n, 'before' FROM generate_series(1, 300) n")
            kafka.kill()
            _sql(dsn, *(f"INSERT INTO orders VALUES ({n}, 'meanwhile')" for n in range(301, 501)))
            _until(lambda: "starting again" in capture.tail(50), capture)
            began = time.monotonic()
            shop.stop(60)
            assert time.monotonic() - began < 15, "the walsender kept the server from stopping"
            shop.start()
            kafka.start()
            _sql(dsn, "INSERT INTO orders VALUES (501, 'after')")
            wanted = [*range(1, 502)]
            _until(lambda: len(_ids(kafka, registry)) >= len(wanted), capture)
            assert _ids(kafka, registry) == wanted
        finally:
            capture.stop()


def _ids(kafka: Kafka, registry: str) -> list[int]:
    """The keys of all committed records, in order; there is one partition."""
    records = read_topics(kafka.bootstrap_servers, registry, "shop")
    return [record.value["after"]["id"] for record in records if record.topic == "shop.public.orders"]


def _until(met: Callable[[], bool], capture: Program) -> None:
    deadline = time.monotonic() + 60
    while not met():
        assert capture.ended() is None, capture.tail()
        assert time.monotonic() < deadline, capture.tail()
        time.sleep(0.3)
