"""Debezium's own JDBC sink, in Kafka Connect and with the file in schemas/README.md, reads what capture wrote.

A day of the sample shop, and a table for each thing that a sink may stumble over, must be equal in the database that it
fills.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from deploy.embedded import Kafka, Postgres, Registry
from deploy.shop.simulator import Simulator, prepare
from tests.consumers.connect import Connect
from tests.proof.records import Record, changes
from tests.shop import Shop, open_shop

README = Path(__file__).parents[2] / "schemas" / "README.md"
TABLES = (Path(__file__).parent / "jdbc_tables.sql").read_text("utf-8")
SHOP = (
    "customers", "addresses", "products", "product_prices", "orders", "order_addresses", "order_lines",
    "order_discounts", "payments", "returns", "return_lines",
)  # fmt: skip
FEATURES = (
    "lists", "numbers", "times", "kinds", "nulls", "defaults", "by_index", "keys", "long_full", "wider",
    "emptied", "Mixed Case",
)  # fmt: skip
ORDERS = 25
PLACEHOLDER = "__debezium_unavailable_value"
CHANGES = (
    "INSERT INTO lists (id) VALUES (4); INSERT INTO lists VALUES (5, '{}', '{7}', '{sad,NULL}')",
    "UPDATE lists SET tags = tags || '{z}' WHERE id < 3",
    "INSERT INTO numbers VALUES (4, 'NaN', '-Infinity', 1, 1, 'Infinity', 'NaN'), (5, 1, 1, 1, 1, 1, 1)",
    "UPDATE numbers SET fixed = 'NaN', free = 'NaN' WHERE id = 1; UPDATE numbers SET fixed = 0 WHERE id = 3",
    "INSERT INTO times (at) VALUES ('2026-11-30 10:34:00Z'); UPDATE times SET short = now() WHERE at < '1970-01-01Z'",
    "UPDATE times SET at = at + interval '0.001 s' WHERE at > '2026-11-30 10:34:00Z'",
    "ALTER TYPE mood ADD VALUE 'glad'",
    "INSERT INTO kinds (id, feeling, raw) VALUES (3, 'glad', '')",
    "UPDATE kinds SET name = gen_random_uuid(), flag = true",
    "INSERT INTO nulls (id) VALUES (3); UPDATE nulls SET state = NULL, n = NULL, at = NULL, price = NULL WHERE id = 1",
    "INSERT INTO defaults (id) VALUES (3); UPDATE defaults SET free = -0.001 WHERE id = 1",
    "UPDATE by_index SET n = 20 WHERE code = 'b'; UPDATE by_index SET code = 'd' WHERE code = 'c'",
    "DELETE FROM by_index WHERE code = 'a'",
    "UPDATE keys SET number = number + 100 WHERE code <> 'gone'; DELETE FROM keys WHERE code = 'gone'",
    "UPDATE keys SET n = 0; INSERT INTO keys VALUES ('gone', 4, 44)",
    "UPDATE long SET n = 1 WHERE id = 1; UPDATE long SET body = 'short' WHERE id = 2",
    "UPDATE long_full SET n = 1 WHERE id = 1; UPDATE long_full SET body = 'short' WHERE id = 2",
    "INSERT INTO wider VALUES (4, 'before')",
    "ALTER TABLE wider ADD COLUMN price numeric(8,2), ADD COLUMN state text NOT NULL DEFAULT 'new', ADD at timestamptz",
    "INSERT INTO wider VALUES (5, 'after', 9.90, 'x', now()); UPDATE wider SET price = 1.10 WHERE id = 1",
    "INSERT INTO emptied VALUES (3, 'gone'); TRUNCATE emptied; INSERT INTO emptied VALUES (4, 'there')",
    """UPDATE "Mixed Case" SET "Order" = 'z'; INSERT INTO "Mixed Case" VALUES (2, NULL, 'u')""",
)
"""Each in a transaction. After them, the topics of the shop's tables and of these have all kinds of changes."""


UNWRAPPED = r"""
collection.name.format=${topic}
transforms=unwrap,route
transforms.unwrap.type=io.debezium.transforms.ExtractNewRecordState
transforms.route.type=org.apache.kafka.connect.transforms.RegexRouter
transforms.route.regex=.*\\.(.*)
transforms.route.replacement=$1
"""
"""What the second connector has in addition to the page's file: Debezium's transformation, and tables named after the
topics."""


@dataclass(frozen=True)
class Copies:
    """The shop, and the databases that the connectors have filled from its topics."""

    shop: Shop
    whole: str
    unwrapped: str


@pytest.fixture(scope="module")
def copies(
    connect_plugins: None,
    postgres: Postgres,
    kafka: Kafka,
    schema_registry: Registry,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Copies]:
    """Waits until both connectors have read everything: one takes Debezium's records as they are, one through
    ExtractNewRecordState."""
    folder, prefix = tmp_path_factory.mktemp("jdbc"), "jdbcshop"
    source, *targets = (postgres.create_database(f"jdbc_{name}") for name in ("shop", "whole", "unwrapped"))
    prepare(source, lambda _: None)
    settings = {"schema_registry_url": schema_registry.url}
    schema = f"{TABLES}; CREATE PUBLICATION tap FOR ALL TABLES"
    with open_shop(postgres, kafka, source, prefix, folder, settings, schema) as shop:
        shop.capture.start()
        shop.drain()
        files = {
            "whole": connector_file("whole", prefix, targets[0], schema_registry),
            "unwrapped": connector_file("unwrapped", prefix, targets[1], schema_registry) + UNWRAPPED,
        }
        with Connect(folder / "connect", kafka, files) as connect:
            live(shop)
            records = [each for each in shop.records() if each.topic.startswith(f"{prefix}.public.")]
            connect.until_read("whole", ends(records))
            # The sink does not commit records that the transformation drops at the end of a partition.
            connect.until_read("unwrapped", ends(each for each in records if each.op not in ("t", "tombstone")))
        yield Copies(shop, *targets)
        shop.drop_slots()


def connector_file(name: str, prefix: str, target: str, registry: Registry) -> str:
    """The page's file, with the addresses of this run."""
    (text,) = re.findall(r"```properties\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    own = {
        "name=warehouse": f"name={name}",
        r"topics.regex=shop\\.public": rf"topics.regex={prefix}\\.public",
        "postgresql://warehouse:5432/copy": target.replace("postgres@", ""),
        "connection.username=copy": "connection.username=postgres",
        "http://registry:8080": registry.url.removesuffix("/apis/ccompat/v7"),
    }
    for theirs, ours in own.items():
        assert theirs in text
        text = text.replace(theirs, ours)
    return str(text)


def live(shop: Shop) -> None:
    """Plays the shop's day, and the changes of the other tables. Returns when Kafka has them."""
    with closing(Simulator(shop.dsn, seed=5)) as simulator:
        simulator.run(ORDERS)
    for change in CHANGES:
        shop.sql(change)
    shop.drain()


def ends(records: Iterable[Record]) -> dict[tuple[str, int], int]:
    """The offset after the last record of each partition."""
    return {(each.topic, each.partition): each.offset + 1 for each in records}


def columns(dsn: str, table: str) -> dict[str, str]:
    """The columns of the shop's table, with the types in which both sides are compared: an enum is text."""
    query = f"""
        SELECT attname, CASE WHEN e.typtype = 'e' THEN 'text' || repeat('[]', (t.typcategory = 'A')::int)
                             ELSE format_type(atttypid, atttypmod) END
          FROM pg_attribute JOIN pg_type t ON t.oid = atttypid
          JOIN pg_type e ON e.oid = CASE t.typcategory WHEN 'A' THEN t.typelem ELSE t.oid END
         WHERE attrelid = '"{table}"'::regclass AND attnum > 0 AND NOT attisdropped"""
    return dict(rows(dsn, query))


def rows(dsn: str, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    with closing(psycopg2.connect(dsn, options="-c timezone=UTC")) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def content(dsn: str, table: str, of: Mapping[str, str]) -> list[tuple[str | None, ...]]:
    """The sorted rows as text. `of`: the columns' types."""
    shown = ", ".join(f"""("{name}"::{kind})::text""" for name, kind in of.items())
    return sorted(rows(dsn, f'SELECT {shown} FROM "{table}"'), key=str)


def without_special_numbers(content: list[tuple[str | None, ...]]) -> list[tuple[str | None, ...]]:
    """NaN and the infinities of numeric as null, as they are sent (special_numbers: null). Those of floats stay."""
    return [
        tuple(None if place in (1, 2) and str(cell).strip("-") in ("NaN", "Infinity") else cell
              for place, cell in enumerate(row))
        for row in content
    ]  # fmt: skip


@pytest.mark.parametrize("table", [*SHOP, *FEATURES])
def test_a_table_is_equal(copies: Copies, table: str) -> None:
    of = columns(copies.shop.dsn, table)
    expected = content(copies.shop.dsn, table, of)
    if table == "numbers":
        expected = sorted(without_special_numbers(expected), key=str)
    assert expected
    assert content(copies.whole, table, of) == expected
    if table != "emptied":  # the transformation drops a TRUNCATE
        assert content(copies.unwrapped, table.replace(" ", "_"), of) == expected


def test_a_value_that_the_log_did_not_repeat_is_a_placeholder(copies: Copies) -> None:
    """The table has no REPLICA IDENTITY FULL. Debezium writes the same placeholder."""
    of = columns(copies.shop.dsn, "long")
    (first, *rest) = content(copies.shop.dsn, "long", of)
    for target in (copies.whole, copies.unwrapped):
        assert content(target, "long", of) == [(first[0], PLACEHOLDER, first[2]), *rest]


def test_all_kinds_of_changes_were_there(copies: Copies) -> None:
    ops = {
        table.removeprefix("public."): {each.op for each in found}
        for table, found in changes(copies.shop.records(), copies.shop.prefix).items()
    }
    assert ops.keys() == {*SHOP, *(table.replace(" ", "_") for table in FEATURES), "long"}
    assert {op for table in SHOP for op in ops[table]} >= {"r", "c", "u"}
    assert {op for table in ops.keys() - {*SHOP} for op in ops[table]} == {"r", "c", "u", "d", "t", "tombstone"}
