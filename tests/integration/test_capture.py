"""capture as a real process between a real PostgreSQL and Kafka, compared with the log by the proof."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest

from deploy.embedded import Postgres
from tests.fix_capture import PATIENCE, TABLES, Shop
from tests.fix_postgres import AVAILABLE
from tests.programs import Program, run
from tests.proof.content import check_content, replay, shop_tables
from tests.proof.records import Record, changes
from tests.shop import said


def one_table(shop: Shop, table: str) -> list[Record]:
    return changes(shop.records(), shop.prefix)[table]


@pytest.mark.parametrize("server", AVAILABLE, indirect=True, ids=lambda version: f"pg{version}")
def test_snapshot_then_every_kind_of_change_and_a_clean_stop(shop: Shop) -> None:
    shop.sql(f"UPDATE orders SET note = repeat('{'x' * 100}', 50) WHERE id = 1")
    shop.capture.start()
    shop.drain()
    shop.sql(
        "INSERT INTO orders VALUES (1000, 'new', 1.10)",
        "UPDATE orders SET total = 2 WHERE id = 1",  # its note stays in TOAST
        "UPDATE lines SET number = 2 WHERE order_id = 5",
        "SELECT pg_logical_emit_message(true, 'somebody', 'counts')",
        "DELETE FROM orders WHERE id = 2",
        "INSERT INTO log VALUES (1, 'whole rows'), (2, NULL)",
        "UPDATE log SET what = 'none' WHERE what IS NULL",
    )
    shop.sql("TRUNCATE lines", "INSERT INTO lines VALUES (1, 1, 'again')")
    shop.drain()
    began = time.monotonic()
    assert shop.capture.stop() == 0
    assert time.monotonic() - began < 20
    shop.prove()
    orders = one_table(shop, "public.orders")
    assert sum(record.op == "r" for record in orders) == 300
    assert [record.unchanged for record in orders if record.op == "u"] == [{"note"}]
    lines = one_table(shop, "public.lines")
    assert sorted(str(r.key_change) for r in lines if r.key_change) != []
    assert sorted(r.partition for r in lines if r.op == "t") == [0, 1, 2]


def test_goes_on_where_it_was_killed(shop: Shop) -> None:
    shop.capture.start()
    shop.drain()
    for number in range(2, 6):
        shop.sql(f"INSERT INTO lines SELECT n, {number}, 'sku' FROM generate_series(1, 200) n")
        shop.sql(f"UPDATE orders SET total = {number}")
        shop.capture.kill()
        shop.capture.start()
    shop.drain()
    shop.prove()


def test_tables_that_come_and_go_while_capture_is_down(shop: Shop) -> None:
    shop.sql("CREATE TABLE gone (id int PRIMARY KEY)", "ALTER PUBLICATION tap ADD TABLE gone")
    shop.configure(table_include_list=[*TABLES, "public.gone"])
    shop.capture.start()
    shop.drain()
    shop.capture.kill()
    shop.sql("DROP TABLE gone")
    shop.capture.start()
    shop.drain()
    assert "settings match no published table" in said(shop.capture)
    assert shop.capture.stop() == 0
    shop.sql(
        "CREATE TABLE late (id int PRIMARY KEY)",
        "CREATE TABLE bare (id int PRIMARY KEY)",
        "INSERT INTO late VALUES (1)",
    )
    shop.sql("ALTER PUBLICATION tap ADD TABLE late, bare")
    shop.configure(table_include_list=[*TABLES, "public.late", "public.bare"])
    shop.capture.start()
    shop.drain()
    assert said(shop.capture).count("table has rows, but Kafka has none of them") == 1
    assert "capture signal snapshot public.late" in said(shop.capture)
    assert shop.capture.stop() == 0
    shop.configure(table_include_list=[*TABLES, "public.never"])
    assert "does not have public.never" in run("capture", "run", config=shop.config).stderr


def test_a_large_transaction_streams_through_and_is_listed_once_it_is_whole(shop: Shop) -> None:
    shop.capture.start()
    shop.drain()
    shop.sql(
        "INSERT INTO lines SELECT n, 7, 'large' FROM generate_series(1, 5500) n", "DELETE FROM orders WHERE id = 9"
    )
    shop.drain()
    shop.prove()
    (xid,) = {r.transaction["id"] for r in one_table(shop, "public.lines") if r.op == "c"}
    index = shop.index()
    assert [one.content["serial"] for one in index] == list(range(1, len(index) + 1))
    assert sum(one.content["end"] < int(xid.partition(":")[2]) for one in index) > 5500 / 400, "it came in one go"
    ((listing, (_, _, numbers)),) = [(one, commit) for one in index for commit in one.content["commits"]]
    counts = {listing.content["tables"][at][0]: count for at, count in zip(numbers[::2], numbers[1::2], strict=True)}
    assert counts == {"public.lines": 5500, "public.orders": 1}
    assert not [r for r in shop.records() if r.topic == f"{shop.prefix}.transaction"], "nobody has asked for ENDs"


def test_a_standby_takes_over(shop: Shop, tmp_path: Path) -> None:
    shop.capture.start()
    shop.drain()
    standby = Program("capture", shop.config, tmp_path / "standby.log")
    standby.start()
    try:
        shop.until(lambda: "standing by" in standby.tail())
        shop.sql("INSERT INTO orders VALUES (2000, 'before', 1)")
        shop.capture.kill()
        shop.sql("INSERT INTO orders VALUES (2001, 'after', 1)")
        shop.drain()
    finally:
        assert standby.stop() == 0, standby.tail()
    shop.prove()


def test_stops_when_the_slot_is_gone_and_repair_reads_anew(shop: Shop) -> None:
    shop.capture.start()
    shop.drain()
    assert shop.capture.stop() == 0
    assert "nothing to repair" in run("capture", "repair", config=shop.config).stdout
    shop.free_slot()
    shop.value(f"SELECT pg_drop_replication_slot('{shop.prefix}')")
    assert "is gone" in run("capture", "repair", config=shop.config).stdout
    shop.sql("DELETE FROM orders WHERE id = 3")
    shop.capture.start()
    assert shop.capture.wait(PATIENCE) != 0
    assert "is gone" in shop.capture.tail()
    assert "capture repair --execute" in shop.capture.tail()
    assert "Traceback" not in shop.capture.tail(200)
    done = run("capture", "repair", "--execute", config=shop.config)
    assert done.returncode == 0, done.stderr
    shop.capture.start()
    shop.drain()
    assert shop.position()["generation"] == 2


def test_a_publication_made_again_is_fixed_by_the_repair_that_the_start_names(shop: Shop) -> None:
    shop.capture.start()
    shop.drain()
    assert shop.capture.stop() == 0
    shop.sql("DROP PUBLICATION tap", "DELETE FROM orders WHERE id = 3")
    shop.sql("CREATE PUBLICATION tap FOR TABLE orders, lines, log")
    shop.capture.start()
    assert shop.capture.wait(PATIENCE) == 78
    assert 'publication "tap" does not exist' in shop.capture.tail()
    assert "capture repair --execute" in shop.capture.tail()
    said = run("capture", "repair", config=shop.config).stdout
    assert '`publication "tap" does not exist` and that is there, it was dropped and made again' in said
    assert "generation 2" in said
    assert run("capture", "repair", "--execute", config=shop.config).returncode == 0
    shop.capture.start()
    shop.drain()
    assert shop.position()["generation"] == 2


def test_slot_and_position_lost_together_begin_a_generation_above_all_that_is_there(shop: Shop) -> None:
    shop.capture.start()
    shop.drain()
    shop.sql("UPDATE orders SET note = 'older' WHERE id < 9")
    shop.drain()
    assert shop.capture.stop() == 0
    assert run("capture", "drop", "--yes", config=shop.config).returncode == 0
    shop.sql("DELETE FROM orders WHERE id = 5", "UPDATE orders SET note = 'newer' WHERE id = 6")
    shop.capture.start()
    shop.drain()
    assert shop.position()["generation"] > 1_000_000
    assert not check_content(replay(shop.records(), shop.prefix), shop_tables(shop.dsn, TABLES))


def test_stops_when_somebody_moved_the_slot(shop: Shop) -> None:
    shop.capture.start()
    shop.drain()
    assert shop.capture.stop() == 0
    shop.sql("INSERT INTO orders VALUES (3000, 'will be skipped', 1)")
    shop.free_slot()
    shop.value(f"SELECT pg_replication_slot_advance('{shop.prefix}', pg_current_wal_lsn())")
    shop.capture.start()
    assert shop.capture.wait(PATIENCE) != 0
    assert "was moved from" in shop.capture.tail()


def test_another_slot_than_the_positions_is_neither_streamed_from_nor_dropped(shop: Shop) -> None:
    """It may be another reader's, and may have sent something else."""
    shop.capture.start()
    shop.drain()
    assert shop.capture.stop() == 0
    other = f"other_{shop.prefix}"
    shop.value(f"SELECT pg_create_logical_replication_slot('{other}', 'pgoutput')")
    for mode in ("initial", "when_needed", "always"):
        shop.configure(slot_name=other, snapshot_mode=mode)
        shop.capture.start()
        assert shop.capture.wait(PATIENCE) == 78, shop.capture.tail()
        assert f"is of slot {shop.prefix}, but slot_name is {other}" in shop.capture.tail()
        assert f"set slot_name: {shop.prefix}; or capture repair --execute" in shop.capture.tail()
        checked = run("capture", "check", config=shop.config).stdout
        assert f"is of slot {shop.prefix}, but slot_name is {other}" in checked
    assert shop.value(f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{other}'") == 1
    shop.configure(slot_name=shop.prefix, snapshot_mode="initial")
    shop.sql("INSERT INTO orders VALUES (1000, 'goes on', 1)")
    shop.capture.start()
    shop.drain()
    shop.prove()


def test_idle_beside_a_busy_neighbour_lets_the_log_go_and_starts_again(
    shop: Shop, postgres: Postgres, new_database: Callable[[Postgres, str], str]
) -> None:
    neighbour = psycopg2.connect(new_database(postgres, "neighbour"))
    shop.capture.start()
    shop.drain()
    with neighbour, neighbour.cursor() as cursor:
        cursor.execute("CREATE TABLE busy AS SELECT repeat('x', 500) FROM generate_series(1, 20000)")
    neighbour.close()
    shop.drain()
    end = shop.position()["end_lsn"]
    confirmed = (
        f"SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots WHERE slot_name = '{shop.prefix}'"
    )
    shop.until(lambda: shop.value(confirmed) >= end)
    for _ in range(3):
        shop.capture.kill()
        shop.capture.start()
        shop.drain()
    shop.prove()


def test_check_says_what_is_missing_and_init_makes_it(shop: Shop) -> None:
    assert run("capture", "check", config=shop.config).returncode == 0
    shop.sql("DROP PUBLICATION tap")
    missing = run("capture", "check", config=shop.config)
    assert missing.returncode == 1
    assert 'CREATE PUBLICATION "tap" FOR ALL TABLES' in missing.stdout
    refused = run("capture", "run", config=shop.config)
    assert refused.returncode != 0
    assert "capture init" in refused.stderr
    assert "Traceback" not in refused.stderr
    made = run("capture", "init", config=shop.config)
    assert made.returncode == 0, made.stderr
    assert run("capture", "check", config=shop.config).returncode == 0
    status = run("capture", "status", config=shop.config)
    assert status.returncode == 0, status.stderr
    assert "none yet: capture has not run" in status.stdout
