"""Kafka restarts, freezes, loses the position or aborts a transaction: nothing is lost or doubled, or capture stops and
names the repair. The shop can be shut down meanwhile."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from deploy.embedded import Kafka, Postgres
from tests.programs import standing_still
from tests.shop import Shop, open_shop, said

CLEANUP = {"transaction.abort.timed.out.transaction.cleanup.interval.ms": "300"}


@pytest.fixture(scope="module")
def own_kafka(parts_folder: Path) -> Iterator[Kafka]:
    """A broker that these tests may stop. It checks for timed-out transactions more often than usual."""
    with Kafka(parts_folder / "faults-kafka", CLEANUP) as broker:
        yield broker


@pytest.fixture(scope="module")
def own_server(parts_folder: Path) -> Iterator[Postgres]:
    """A server that these tests may stop."""
    with Postgres(parts_folder / "broker-faults-postgres", settings={"fsync": "off"}) as server:
        yield server


@pytest.fixture
def shop(
    own_server: Postgres, own_kafka: Kafka, new_database: Callable[[Postgres, str], str], prefix: str, tmp_path: Path
) -> Iterator[Shop]:
    with open_shop(own_server, own_kafka, new_database(own_server, "faults"), prefix, tmp_path, _more()) as made:
        yield made
        made.drop_slots()


def _more() -> dict[str, object]:
    return {"linger_ms": 1500, "kafka": {"transaction.timeout.ms": "20000"}}


def test_broker_restarted_and_gone_for_a_while(shop: Shop) -> None:
    shop.capture.start()
    shop.drain()
    shop.order(1, 50)
    shop.kafka.stop()
    shop.order(51, 100)
    shop.kafka.start()
    shop.order(101, 150)
    shop.drain()
    with standing_still(shop.kafka.process):
        shop.order(151, 200)
        again = said(shop.capture).count("starting again")
        shop.until_said("starting again", times=again + 1)
    shop.order(201, 250)
    shop.drain()
    assert "Traceback" not in said(shop.capture)
    shop.prove()


def test_rows_that_come_further_apart_than_a_transaction_may_last_are_copied_nevertheless(shop: Shop) -> None:
    """As of a SELECT in the settings that finds few rows: Kafka's transaction is open while the next one is looked for.
    Each row is larger than what the server keeps before it sends."""
    slow = "SELECT id, repeat('x', 20000) AS note, total FROM orders WHERE id >= -3 AND pg_sleep(5) IS NOT NULL"
    shop.configure(
        snapshot_select_statement_overrides={"public.orders": slow}, kafka={"transaction.timeout.ms": "3000"}
    )
    shop.capture.start()
    shop.drain()
    assert shop.capture.stop() == 0
    assert "starting again" not in said(shop.capture)
    orders = [each for each in shop.records() if each.topic == f"{shop.prefix}.public.orders"]
    assert [each.op for each in orders] == ["r"] * 3


def test_waiting_for_a_broker_that_stands_still_takes_no_cpu_though_the_shop_goes_on(shop: Shop) -> None:
    shop.configure(max_batch_size=100, linger_ms=5, kafka={}, stall_seconds=60)
    shop.capture.start()
    shop.drain()
    with standing_still(shop.kafka.process):
        shop.order(1, 600)
        used = []
        for _ in range(3):  # what it had not read yet belongs to the first
            before = _cpu_seconds(shop.capture.pid)
            time.sleep(2)
            used.append(_cpu_seconds(shop.capture.pid) - before)
    assert min(used) < 0.2, used
    shop.drain()
    shop.prove()


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_transaction_that_the_broker_gave_up_is_sent_again_by_the_leader(shop: Shop) -> None:
    shop.configure(kafka={"transaction.timeout.ms": "2500"})
    shop.capture.start()
    shop.drain()
    following = 1
    for _ in range(5):  # capture may have asked for the end just before it was stopped; that answer does not count
        following = shop.order_until_open(following)
        try:
            shop.until(lambda: not shop.open_transaction())
        finally:
            os.kill(shop.capture.pid, signal.SIGCONT)
        shop.order(following, following + 4)
        following += 5
        shop.drain()
        if "the broker gave up our transaction" in said(shop.capture):
            break
    else:
        raise AssertionError(shop.capture.tail(40))
    shop.prove()


def test_status_answers_while_a_killed_capture_left_a_transaction_open(shop: Shop) -> None:
    """What was committed before is shown at once. A command that changes something waits for the end."""
    shop.capture.start()
    shop.order(1, 5)
    shop.drain()
    assert shop.capture.stop() == 0
    committed = shop.position()
    topic = f"ordertap.{shop.prefix}.position"
    options = {"transactional.id": f"{shop.prefix}-killed", "transaction.timeout.ms": 20000}
    killed = Producer({"bootstrap.servers": shop.kafka.bootstrap_servers, **options})
    killed.init_transactions()
    killed.begin_transaction()
    killed.produce(topic, b"never committed", shop.prefix.encode())
    killed.flush()
    assert shop.position(settled=False) == committed
    assert shop.open_transaction("position", [0]), "status waited for its end"
    assert shop.position() == committed
    assert not shop.open_transaction("position", [0])


def test_a_lost_position_stops_capture_and_repair_fixes_it(shop: Shop) -> None:
    shop.capture.start()
    shop.order(1, 10)
    shop.drain()
    admin = AdminClient({"bootstrap.servers": shop.kafka.bootstrap_servers})
    for future in admin.delete_topics([f"ordertap.{shop.prefix}.position"]).values():
        future.result()
    shop.order(11, 20)
    assert shop.capture.wait(60) != 0  # while it runs
    assert "the topic was lost and changes may be missing" in said(shop.capture)
    shop.sql("DELETE FROM orders WHERE id = -7")
    shop.stops_with("the topic was lost and changes may be missing")
    for future in admin.delete_topics([f"ordertap.{shop.prefix}.position"]).values():
        future.result()
    before = int(time.time())
    shop.repair()
    assert shop.position()["generation"] >= before, "it must be above every generation that was there before"


@pytest.mark.parametrize("when", ["idle", "under load", "in a snapshot"])
def test_the_shop_shuts_down_while_kafka_is_away(shop: Shop, when: str) -> None:
    """pg_ctl stop -m fast waits for the walsender, which waits for a confirmation that only Kafka can make possible."""
    if when == "in a snapshot":
        shop.sql("INSERT INTO lines SELECT n, repeat('x', 500) FROM generate_series(1000, 60000) n")
        shop.capture.start()
        shop.until_said("snapshot begins")
    else:
        shop.capture.start()
        shop.drain()
    with standing_still(shop.kafka.process):
        if when == "under load":
            shop.order(1, 300)
        began = time.monotonic()
        shop.server.stop(60)
        took = time.monotonic() - began
    shop.server.start()
    assert took < 15, f"{took:.1f} s"
    shop.order(200001, 200020)
    shop.drain()
    shop.prove()
