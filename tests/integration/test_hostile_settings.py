"""C1: a whole day of capture, as a role with every setting against it that a role or a database may have."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from deploy.embedded import Kafka, Postgres
from tests.fix_postgres import AVAILABLE
from tests.integration.test_session_settings import LIMITS, OTHERS
from tests.programs import run
from tests.proof.content import check_content, replay, shop_tables
from tests.proof.records import Record
from tests.proof.rules import check_order, check_snapshots
from tests.shop import TABLES, Shop, open_shop

LIMIT = 0.2  # seconds
FORMS = {
    "TimeZone": "Asia/Kolkata", "DateStyle": "German", "IntervalStyle": "iso_8601", "bytea_output": "escape",
    "extra_float_digits": "-5", "lc_monetary": "C", "client_encoding": "LATIN1",
}  # fmt: skip
SCHEMA = """
    CREATE TYPE mood AS ENUM ('glad', 'sad');
    CREATE TABLE orders (id bigint PRIMARY KEY, note text, total numeric(12,2) NOT NULL);
    CREATE TABLE lines (id bigint PRIMARY KEY, sku text);
    CREATE TABLE shapes (id int PRIMARY KEY, at timestamptz, lasts interval, raw bytea, ratio float8, day date,
        mood mood DEFAULT 'glad', kin regclass, "Größe" text DEFAULT 'größer');
    CREATE PUBLICATION tap FOR TABLE orders, lines, shapes;
    INSERT INTO orders SELECT -n, 'old', n FROM generate_series(1, 50) n;
"""
SHAPE = """(%d, '2026-01-02 03:04:05.123456+01', '1 year 2 mons 3 days 04:05:06', '\\xdeadbeef', 0.1::float8 + 0.2,
    '2026-02-03', 'sad', 'public.orders', 'weiß')"""
SHOWN = {
    "at": "2026-01-02T02:04:05.123456Z", "raw": b"\xde\xad\xbe\xef", "ratio": 0.1 + 0.2, "day": 20487,
    "mood": "sad", "kin": "orders", "Gr__e": "weiß",
}  # fmt: skip


@pytest.fixture
def shop(
    server: Postgres, new_database: Callable[[Postgres, str], str], kafka: Kafka, prefix: str, tmp_path: Path
) -> Iterator[Shop]:
    user, tables = f"hostile_{prefix}", (*TABLES, "public.shapes")
    settings = {"database_user": user, "snapshot_max_threads": 2}
    dsn = new_database(server, "hostile")
    with open_shop(server, kafka, dsn, prefix, tmp_path, settings, SCHEMA, tables) as made:
        made.sql(f"CREATE ROLE {user} LOGIN SUPERUSER")
        limits = made.value(f"SELECT array_agg(name) FROM ({LIMITS}) limits")
        database = dsn.rpartition("/")[2]
        theirs = dict.fromkeys(limits, f"{LIMIT * 1000:.0f}ms") | FORMS | OTHERS
        for number, (name, value) in enumerate(theirs.items()):
            where = f" IN DATABASE {database}" if number % 2 else ""
            made.sql(f"ALTER ROLE {user}{where} SET {name} = '{value}'")
        yield made
        made.drop_slots()


def shapes(records: list[Record]) -> dict[int, dict[str, Any]]:
    """The newest row of each id in `shapes`, as Kafka has it, without the id."""
    rows = [one.value["after"] for one in records if one.topic.endswith(".shapes") and one.value]
    return {row["id"]: {name: value for name, value in row.items() if name != "id"} for row in rows}


@pytest.mark.parametrize("server", AVAILABLE, indirect=True, ids=lambda version: f"pg{version}")
def test_c1_a_day_under_all_that_a_role_may_have_set(shop: Shop) -> None:
    shop.sql("INSERT INTO shapes VALUES " + SHAPE % 1)
    with psycopg2.connect(shop.dsn) as buyer, buyer.cursor() as cursor:
        cursor.execute("INSERT INTO orders VALUES (-100, 'open', 1)")  # the slot is made once it has ended
        shop.capture.start()
        shop.until_said("making the slot")
        time.sleep(3 * LIMIT)
    buyer.close()
    shop.drain()
    shop.sql("INSERT INTO shapes VALUES " + SHAPE % 2)
    shop.order(1, 50)
    time.sleep(3 * LIMIT)  # idle
    shop.sql("INSERT INTO orders SELECT n, repeat('x', 500), 1 FROM generate_series(1000, 9000) n")
    shop.sql("UPDATE lines SET sku = 'b' WHERE id < 10", "DELETE FROM lines WHERE id = 20")
    shop.signal("snapshot", "public.orders", "public.shapes")
    shop.drain()
    shop.until(lambda: not shop.position()["demand"]["requests"])
    told = json.loads(run("capture", "status", "--json", config=shop.config).stdout)
    assert (told["running"], told["parked"], told["problems"]) == (True, [], [])
    checked = json.loads(run("capture", "check", "--json", config=shop.config).stdout)
    assert [one for one in checked["findings"] if one["level"] == "BAD"] == []
    assert shop.capture.stop() == 0, shop.capture.tail()
    assert "starting again" not in shop.capture.log.read_text()
    records = shop.records()
    usual = [one for one in records if not one.topic.endswith(".shapes")]  # the proof knows no intervals
    content = check_content(replay(usual, shop.prefix), shop_tables(shop.dsn, TABLES))
    assert [*check_order(records, shop.prefix), *check_snapshots(records, shop.prefix), *content] == []
    found = shapes(records)
    assert found[1] == found[2]
    assert {name: found[1][name] for name in SHOWN} == SHOWN
