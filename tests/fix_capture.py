"""A shop with three tables that capture reads in small chunks, for most tests of capture as a process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.embedded import Kafka, Postgres
from tests.shop import Shop, open_shop

__all__ = ("PATIENCE", "TABLES", "Shop", "shop")

TABLES = ("public.orders", "public.lines", "public.log")
SCHEMA = """
    CREATE TABLE orders (id bigint PRIMARY KEY, note text, total numeric(12,2) NOT NULL, at timestamptz DEFAULT now());
    ALTER TABLE orders ALTER COLUMN note SET STORAGE EXTERNAL;
    CREATE TABLE lines (order_id bigint, number int, sku text, PRIMARY KEY (order_id, number));
    CREATE TABLE log (id int PRIMARY KEY, what text); ALTER TABLE log REPLICA IDENTITY FULL;
    CREATE PUBLICATION tap FOR TABLE orders, lines, log;
    INSERT INTO orders SELECT n, E'a\\tb\\\\N' || n, n / 3.0 FROM generate_series(1, 300) n;
    INSERT INTO lines SELECT n, 1, NULL FROM generate_series(1, 300) n;
"""
PATIENCE = 120.0
SMALL_PIECES = {"topic_creation_default_partitions": 3, "max_batch_size": 400}


@pytest.fixture
def shop(
    server: Postgres, new_database: Callable[[Postgres, str], str], kafka: Kafka, prefix: str, tmp_path: Path
) -> Iterator[Shop]:
    database = new_database(server, "shop")
    with open_shop(server, kafka, database, prefix, tmp_path, SMALL_PIECES, SCHEMA, TABLES) as made:
        yield made
        made.drop_slots()
