"""A shop with a role that has only the documented rights."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.embedded import Kafka, Postgres
from tests.integration.ops_shop import TABLES, OpsShop


@pytest.fixture
def ops_shop(
    server: Postgres, new_database: Callable[[Postgres, str], str], kafka: Kafka, prefix: str, tmp_path: Path
) -> Iterator[OpsShop]:
    """Only tables are set up in it."""
    settings = {
        "name": prefix,
        "topic_prefix": prefix,
        "database_hostname": "127.0.0.1",
        "database_port": server.port,
        "database_user": f"role_{prefix}",
        "database_dbname": new_database(server, "ops").rpartition("/")[2],
        "slot_name": prefix,
        "publication_name": "tap",
        "table_include_list": ["public.lines", "public.orders"],
        "heartbeat_interval_ms": 300,
        "bootstrap_servers": kafka.bootstrap_servers,
        "schema_registry_url": (tmp_path / "registry").as_uri(),
        "health_port": 0,
    }
    shop = OpsShop(server, str(settings["database_dbname"]), tmp_path / "settings.yaml", settings)
    shop.sql(TABLES)
    yield shop
    slots = "FROM pg_replication_slots WHERE database = current_database()"
    shop.sql(
        f"SELECT pg_terminate_backend(active_pid, 30000) {slots} AND active",
        f"SELECT pg_drop_replication_slot(slot_name) {slots}",
    )
