"""The consumer that schemas/README.md shows the data team, run exactly as printed."""

import re
from decimal import Decimal
from pathlib import Path

import psycopg2
import pytest

from deploy.embedded import Kafka, Postgres
from tests.programs import Program, write_settings

README = Path(__file__).parents[2] / "schemas" / "README.md"


@pytest.fixture
def code() -> str:
    """The page's only Python block."""
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    return str(block)


def test_the_readmes_consumer_reads_a_topic(
    code: str, postgres: Postgres, database: str, kafka: Kafka, registry_url: str, prefix: str, tmp_path: Path
) -> None:
    connection = psycopg2.connect(database)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE price (sku text PRIMARY KEY, amount numeric(10,2) NOT NULL)")
        cursor.execute("INSERT INTO price VALUES ('A', 12.90)")
        cursor.execute("CREATE PUBLICATION readme FOR TABLE price")
    config = write_settings(
        tmp_path / "config.yaml",
        capture={
            "name": prefix,
            "topic_prefix": prefix,
            "database_hostname": "127.0.0.1",
            "database_port": postgres.port,
            "database_user": "postgres",
            "database_dbname": database.rpartition("/")[2],
            "slot_name": prefix,
            "publication_name": "readme",
            "bootstrap_servers": kafka.bootstrap_servers,
            "schema_registry_url": registry_url,
            "health_port": 0,
        },
    )
    capture = Program("capture", config, tmp_path / "capture.log")
    capture.start()
    try:
        names = {
            "schema_registry_url": registry_url,
            "bootstrap_servers": kafka.bootstrap_servers,
            "topic": f"{prefix}.public.price",
            "wanted": 1,
        }
        exec(code, names)  # noqa: S102  the README's own code is what is tested
        assert names["rows"] == [("r", {"sku": "A", "amount": Decimal("12.90")})]
        with connection.cursor() as cursor:
            cursor.execute("UPDATE price SET amount = 13.55")
            cursor.execute("DELETE FROM price")
        again = dict(names, wanted=3)
        exec(code.replace('"data-team"', '"data-team-2"'), again)  # noqa: S102
        assert [op for op, _ in again["rows"]] == ["r", "u", "d"]
    finally:
        capture.stop()
        connection.close()
