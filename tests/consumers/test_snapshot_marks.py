"""Rows of a first snapshot say in Debezium's words where they are in it, as far as that is certain."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from capture.snapshot.chunks import CHUNK_BYTES
from deploy.embedded import Kafka, Postgres
from tests.shop import Shop, open_shop

LARGE_ROWS = CHUNK_BYTES // 2048 + 500
SCHEMA = f"""
    CREATE TABLE large (id int PRIMARY KEY, filler text);
    CREATE TABLE many (id int PRIMARY KEY);
    CREATE TABLE none (id int PRIMARY KEY);
    CREATE TABLE one (id int PRIMARY KEY);
    CREATE TABLE two (id int PRIMARY KEY);
    CREATE PUBLICATION tap FOR TABLE large, many, none, one, two;
    INSERT INTO large SELECT n, repeat('x', 1900) FROM generate_series(1, {LARGE_ROWS}) n;
    INSERT INTO many SELECT generate_series(1, 9);
    INSERT INTO one VALUES (1);
    INSERT INTO two VALUES (1), (2);
"""
TABLES = ("public.large", "public.many", "public.none", "public.one", "public.two")
FIRST, LAST = "first_in_data_collection", "last_in_data_collection"


@pytest.fixture
def copied(
    postgres: Postgres, new_database: Callable[[Postgres, str], str], kafka: Kafka, prefix: str, tmp_path: Path
) -> Iterator[Callable[[int], Shop]]:
    database, settings = new_database(postgres, "marks"), {"topic_creation_default_partitions": 1}
    with open_shop(postgres, kafka, database, prefix, tmp_path, settings, SCHEMA, TABLES) as shop:

        def start(threads: int) -> Shop:
            assert shop.value("SELECT pg_relation_size('large')") > CHUNK_BYTES, "the table is one chunk"
            shop.configure(snapshot_max_threads=threads)
            shop.capture.start()
            shop.drain()
            return shop

        yield start
        shop.drop_slots()


def sources(shop: Shop) -> Iterator[dict[str, Any]]:
    """The source of each row that was read, in the order of the topics."""
    for record in shop.records():
        if record.value is not None and record.value.get("op") == "r":
            yield record.value["source"]


def marks(shop: Shop) -> dict[str, list[tuple[str, int]]]:
    """Each table's marks in the order of its topic: (mark, how many rows in a row have it)."""
    found: dict[str, list[str]] = defaultdict(list)
    for source in sources(shop):
        found[source["table"]].append(source["snapshot"])
    return {table: [(mark, len(list(same))) for mark, same in groupby(rows)] for table, rows in found.items()}


def test_one_process_says_all_of_it(copied: Callable[[int], Shop]) -> None:
    shop = copied(1)
    assert marks(shop) == {
        "large": [("first", 1), ("true", LARGE_ROWS - 2), (LAST, 1)],
        "many": [(FIRST, 1), ("true", 7), (LAST, 1)],
        "one": [(LAST, 1)],
        "two": [(FIRST, 1), ("last", 1)],
    }
    shop.signal("snapshot", "public.two")
    shop.until_said("snapshot completed", times=2)
    assert marks(shop)["two"] == [(FIRST, 1), ("last", 1), ("incremental", 2)]
    places = {(source["snapshot"] == "incremental", source["txId"], source["lsn"]) for source in sources(shop)}
    assert {transaction for _, transaction, _ in places} == {None}
    ((on_demand, _, chunk), (_, _, first)) = sorted(places, reverse=True)
    assert on_demand
    assert chunk > first


def test_several_processes_say_nothing_that_they_do_not_know(copied: Callable[[int], Shop]) -> None:
    assert marks(copied(2)) == {
        "large": [("true", LARGE_ROWS)],
        "many": [(FIRST, 1), ("true", 7), (LAST, 1)],
        "one": [(LAST, 1)],
        "two": [(FIRST, 1), (LAST, 1)],
    }
