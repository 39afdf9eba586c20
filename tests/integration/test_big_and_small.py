"""Records and transactions of an unusual size."""

from __future__ import annotations

import time
from itertools import count
from pathlib import Path

from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from tests.fix_capture import PATIENCE, TABLES, Shop
from tests.programs import run
from tests.proof.records import changes
from tests.proof.verdict import judge

LARGE = 100_000  # rows


def test_a_record_over_the_limit_stops_all_or_parks_its_table_and_is_never_dropped(shop: Shop) -> None:
    shop.configure(kafka={"message.max.bytes": 20_000})
    shop.capture.start()
    shop.drain()
    shop.sql(
        "INSERT INTO log VALUES (1, 'before')",
        "INSERT INTO orders VALUES (1000, 'beside', 1)",
        "INSERT INTO log VALUES (2, repeat('secret', 5000))",
        "INSERT INTO orders VALUES (1001, 'behind', 1)",
    )
    assert shop.capture.wait(PATIENCE) != 0
    said = shop.capture.tail()
    assert "table public.log: the change 1:" in said
    assert "message.max.bytes is 20000; nothing is lost" in said
    assert "Traceback" not in said
    assert "secret" not in said
    shop.configure(oversized_record="park")
    shop.capture.start()
    shop.drain()
    shop.sql("INSERT INTO log VALUES (3, 'parked too')", "INSERT INTO lines VALUES (1, 99, 'flows')")
    shop.drain()
    assert shop.position()["parked"] == ["public.log"]
    verdict = judge(shop.witness, shop.bootstrap_servers, shop.registry, shop.prefix, TABLES)
    assert {finding.text.split()[:2][0] for finding in verdict.findings} == {"public.log"}, str(verdict)
    assert [each.key for each in changes(shop.records(), shop.prefix)["public.log"]] == ['{"id": 1}']
    shop.signal("snapshot", "public.log")
    shop.until_said("table public.log: a row of the snapshot makes a record of")
    shop.sql("INSERT INTO orders VALUES (1002, 'behind the snapshot', 1)")
    shop.drain()
    assert shop.position()["parked"] == ["public.log"]
    assert '{"id": 1002}' in {each.key for each in changes(shop.records(), shop.prefix)["public.orders"]}
    assert shop.capture.stop() == 0
    shop.configure(kafka={})
    shop.capture.start()
    shop.drain()
    assert run("capture", "signal", "snapshot", "public.log", config=shop.config).returncode == 0
    shop.until(lambda: len(changes(shop.records(), shop.prefix)["public.log"]) == 4)
    assert shop.position()["parked"] == []
    shop.sql("UPDATE log SET what = 'goes on' WHERE id = 1")
    shop.drain()
    assert changes(shop.records(), shop.prefix)["public.log"][-1].op in ("r", "u")


def test_a_large_transaction_is_there_before_it_is_read_and_memory_stays_flat(shop: Shop) -> None:
    shop.configure(max_batch_size=5_000)
    shop.capture.start()
    shop.drain()
    assert shop.capture.stop() == 0
    shop.sql(f"INSERT INTO lines SELECT n, 7, 'large' FROM generate_series(1, {LARGE}) n")
    shop.sql("INSERT INTO orders VALUES (5000, 'a neighbour', 1)")
    victim = shop.copy("victim", "tests.faults.broken", ("-X", "fault=after-commit:3"))
    victim.start()
    assert victim.wait(PATIENCE) == -9, victim.tail()
    partial = shop.position()["partial"]
    assert partial is not None  # what is in Kafka is committed there, and the transaction is not whole yet
    assert 0 < partial["ordinal"] < LARGE
    shop.capture.start()
    shop.drain()
    assert peak_kilobytes(shop) < 150 * 1024
    assert shop.capture.stop() == 0, shop.capture.tail()
    shop.prove()
    assert '{"id": 5000}' in {each.key for each in changes(shop.records(), shop.prefix)["public.orders"]}


def peak_kilobytes(shop: Shop) -> int:
    """The peak memory of capture."""
    status = Path(f"/proc/{shop.capture.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def test_a_record_that_the_broker_refuses_is_named(shop: Shop) -> None:
    shop.capture.start()
    shop.drain()
    topic = f"{shop.prefix}.public.log"
    limit = ConfigEntry("max.message.bytes", "5000", incremental_operation=AlterConfigOpType.SET)
    admin = AdminClient({"bootstrap.servers": shop.bootstrap_servers})
    asked = admin.incremental_alter_configs([ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[limit])])
    for answer in asked.values():
        answer.result()
    rows = count(1)
    while shop.capture.ended() is None:  # a broker hears of a new limit a moment after the controller has it
        shop.sql(f"INSERT INTO log SELECT {next(rows)}, string_agg(md5(n::text), '') FROM generate_series(1, 1000) n")
        time.sleep(0.5)
    assert shop.capture.wait(PATIENCE) != 0
    assert f"bytes for topic {topic}, or the batch around them" in shop.capture.tail()
    limit.value = "1000000"
    asked = admin.incremental_alter_configs([ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[limit])])
    for answer in asked.values():
        answer.result()
    shop.capture.start()
    shop.drain()
    assert shop.capture.stop() == 0
    shop.prove()


def test_a_table_of_wide_rows_is_read_again_in_little_memory(shop: Shop) -> None:
    """A chunk of the usual number of rows would have 200 MB."""
    shop.sql("INSERT INTO log SELECT n, repeat(md5(n::text), 3000) FROM generate_series(1, 2100) n")
    shop.configure(snapshot_include_collection_list=["public.orders"])
    shop.capture.start()
    shop.drain()
    shop.signal("snapshot", "public.log")
    shop.until(lambda: (shop.position()["demand"] or {"requests": 1})["requests"] == [])
    assert peak_kilobytes(shop) < 150 * 1024
    rows = [each for each in changes(shop.records(), shop.prefix)["public.log"] if each.op == "r"]
    assert sorted(each.key or "" for each in rows) == sorted(f'{{"id": {n}}}' for n in range(1, 2101))
