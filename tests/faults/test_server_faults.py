"""PostgreSQL fails, restarts, or loses or changes what capture needs: nothing is lost or doubled, or capture stops and
names the cause, and `capture repair` fixes it."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.embedded import Kafka, Postgres, Registry
from tests.programs import standing_still
from tests.shop import PATIENCE, Shop, open_shop, said

CUT_SECONDS = 2
SETTINGS = {"wal_sender_timeout": f"{CUT_SECONDS}s", "fsync": "off", "max_wal_size": "64MB", "min_wal_size": "32MB"}


@pytest.fixture(scope="module")
def own_server(parts_folder: Path) -> Iterator[Postgres]:
    """A server whose connections and process these tests may end."""
    with Postgres(parts_folder / "faults-postgres", settings=SETTINGS) as server:
        yield server


@pytest.fixture
def shop(
    own_server: Postgres, kafka: Kafka, new_database: Callable[[Postgres, str], str], prefix: str, tmp_path: Path
) -> Iterator[Shop]:
    with open_shop(own_server, kafka, new_database(own_server, "faults"), prefix, tmp_path) as made:
        yield made
        made.drop_slots()


def test_restart_immediate_shutdown_and_cut_connections_lose_and_double_nothing(shop: Shop) -> None:
    shop.capture.start()
    shop.drain()
    shop.order(1, 100)
    shop.until(lambda: shop.end_backends("walsender") >= 1)
    shop.order(101, 150)
    shop.drain()
    assert shop.end_backends("client backend") >= 1  # the leadership, and the catalogue's connection
    shop.order(151, 200)
    shop.drain()
    shop.order(201, 250)
    began = time.monotonic()
    shop.server.stop()  # fast
    assert time.monotonic() - began < 15
    shop.server.start()
    shop.order(251, 300)
    shop.drain()
    shop.order(301, 350)
    assert shop.server.process is not None
    shop.server.process.send_signal(signal.SIGQUIT)  # immediate
    shop.server.process.wait()
    shop.server.start()
    shop.order(351, 400)
    shop.drain()
    assert "Traceback" not in said(shop.capture)
    shop.prove()


def test_wal_sender_timeout_while_the_process_or_the_broker_stands_still(shop: Shop) -> None:
    shop.configure(stall_seconds=60)
    shop.capture.start()
    shop.drain()
    with standing_still(shop.capture):
        shop.order(1, 50)
        walsender = f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{shop.prefix}' AND active"
        shop.until(lambda: shop.value(walsender) == 0)
    shop.order(51, 100)
    shop.drain()
    shop.undisturbed(lambda attempt: _order_while_the_broker_hangs(shop, 101 + 50 * attempt))
    shop.prove()


def _order_while_the_broker_hangs(shop: Shop, first: int) -> None:
    with standing_still(shop.kafka.process):
        shop.order(first, first + 49)
        time.sleep(3 * CUT_SECONDS)


def test_wal_sender_timeout_while_the_registry_stands_still(
    own_server: Postgres,
    kafka: Kafka,
    schema_registry: Registry,
    new_database: Callable[[Postgres, str], str],
    prefix: str,
    tmp_path: Path,
) -> None:
    """A new schema cannot be registered for longer than wal_sender_timeout."""
    more = {"schema_registry_url": schema_registry.url, "schema_registry": {"timeout": "60"}}
    with open_shop(own_server, kafka, new_database(own_server, "faults"), prefix, tmp_path, more) as shop:
        shop.capture.start()
        shop.drain()
        shop.undisturbed(lambda attempt: _alter_while_it_hangs(shop, schema_registry, attempt))
        shop.sql("UPDATE orders SET more_0 = 1")
        shop.drain()
        shop.prove()
        shop.drop_slots()


def _alter_while_it_hangs(shop: Shop, registry: Registry, attempt: int) -> None:
    with standing_still(registry.process):
        shop.sql(
            f"ALTER TABLE orders ADD COLUMN more_{attempt} int", f"INSERT INTO orders VALUES (1 + {attempt}, '', 1)"
        )
        time.sleep(3 * CUT_SECONDS)


def _dropped(shop: Shop) -> str:
    shop.sql(f"SELECT pg_drop_replication_slot('{shop.prefix}')")
    return "is gone: changes since"


def _moved(shop: Shop) -> str:
    shop.sql(f"SELECT pg_replication_slot_advance('{shop.prefix}', pg_current_wal_lsn())")
    return "was moved from"


def _invalidated(shop: Shop) -> str:
    shop.witness.drop()  # it would be invalidated, too
    shop.server.psql("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
    shop.server.psql("SELECT pg_reload_conf()")
    try:
        lost = f"SELECT wal_status FROM pg_replication_slots WHERE slot_name = '{shop.prefix}'"
        for _ in range(10):
            shop.sql("SELECT pg_logical_emit_message(false, 'noise', repeat('x', 20000000))", "SELECT pg_switch_wal()")
            shop.server.psql("CHECKPOINT")
            if shop.value(lost) == "lost":
                break
    finally:
        shop.server.psql("ALTER SYSTEM RESET max_slot_wal_keep_size")
        shop.server.psql("SELECT pg_reload_conf()")
    shop.witness.create()
    return "was invalidated"


@pytest.mark.parametrize("harm", [_dropped, _moved, _invalidated], ids=["dropped", "moved", "invalidated"])
def test_a_slot_that_was_harmed_stops_capture_and_repair_fixes_it(shop: Shop, harm: Callable[[Shop], str]) -> None:
    shop.capture.start()
    shop.order(1, 20)
    shop.drain()
    assert shop.capture.stop() == 0
    while shop.position()["stopped_lsn"] is None:  # the server took long to end the walsender, or had cut it
        shop.capture.start()
        shop.drain()
        assert shop.capture.stop() == 0
    shop.order(21, 40)
    shop.sql("DELETE FROM orders WHERE id = -3", "UPDATE orders SET total = 77 WHERE id = -4")
    shop.stops_with(harm(shop))
    shop.repair(generation=2)


def test_a_slot_that_was_moved_under_a_running_capture_stops_it_and_repair_fixes(shop: Shop) -> None:
    """The walsender freezes and is ended, and the slot is advanced over changes that it had not sent, heartbeats
    included."""
    shop.capture.start()
    shop.order(1, 20)
    shop.drain()
    shop.until(lambda: shop.position()["heartbeat"] is not None)
    slot = f"pg_replication_slots WHERE slot_name = '{shop.prefix}'"
    shop.until(lambda: shop.value(f"SELECT active_pid FROM {slot}") is not None)
    walsender = int(shop.value(f"SELECT active_pid FROM {slot}"))
    os.kill(walsender, signal.SIGSTOP)
    try:
        shop.order(21, 40)
        before = shop.log_end()
        shop.until(lambda: shop.log_end() > before + 1000)  # heartbeats that the next one does not follow
        os.kill(shop.capture.pid, signal.SIGSTOP)
        shop.end_backends("walsender")
    finally:
        os.kill(walsender, signal.SIGCONT)
    try:
        shop.until(lambda: shop.value(f"SELECT active_pid IS NULL FROM {slot}"))
        shop.sql(f"SELECT pg_replication_slot_advance('{shop.prefix}', pg_current_wal_lsn())")
    finally:
        os.kill(shop.capture.pid, signal.SIGCONT)
    assert shop.capture.wait(PATIENCE) not in (0, -9)
    assert "was advanced by someone else: heartbeats" in said(shop.capture)
    assert "capture repair --execute" in said(shop.capture)
    shop.repair(generation=2)


def test_another_cluster_and_an_older_copy_stop_capture_and_repair_fixes_it(
    kafka: Kafka, prefix: str, parts_folder: Path, tmp_path: Path
) -> None:
    """The data directory is restored from an older copy; then a new cluster takes its place on the same port."""
    place = parts_folder / f"restored-{prefix}"
    server = Postgres(place, settings=SETTINGS)
    with server, open_shop(server, kafka, server.create_database("shop"), prefix, tmp_path) as shop:
        shop.capture.start()
        shop.drain()
        assert shop.capture.stop() == 0
        server.stop()
        _copy(server.data, place / "older")
        server.start()
        shop.capture.start()
        shop.order(1, 60)
        shop.drain()
        assert shop.capture.stop() == 0
        server.stop()
        server.data.rename(place / "newer")
        (place / "older").rename(server.data)
        server.start()
        shop.stops_with("before the position")
        shop.order(1001, 1010)
        shop.repair(generation=2)
        assert shop.capture.stop() == 0
        server.stop()
        server.data.rename(place / "left")
        server.start()
        server.create_database("shop")
        shop.sql(
            "CREATE TABLE orders (id bigint PRIMARY KEY, note text, total numeric(12,2) NOT NULL)",
            "CREATE TABLE lines (id bigint PRIMARY KEY, sku text)",
            "CREATE PUBLICATION tap FOR TABLE orders, lines",
            "INSERT INTO orders VALUES (1, 'came with the dump', 1)",
        )
        shop.stops_with("another PostgreSQL cluster")
        shop.repair(generation=3)


def test_an_older_copy_whose_log_has_come_past_the_position_stops_capture_and_repair_fixes_it(
    kafka: Kafka, prefix: str, parts_folder: Path, tmp_path: Path
) -> None:
    """Neither LSN nor timeline shows that the disk was restored; the heartbeat that the log should have does."""
    place = parts_folder / f"put-back-{prefix}"
    server = Postgres(place, settings=SETTINGS)
    with server, open_shop(server, kafka, server.create_database("shop"), prefix, tmp_path) as shop:
        shop.capture.start()
        shop.drain()
        assert shop.capture.stop() == 0
        server.stop()
        copied = shop.position()["heartbeat"]
        _copy(server.data, place / "older")
        server.start()
        shop.capture.start()
        shop.order(1, 60)
        shop.drain()
        shop.until(lambda: shop.position()["heartbeat"] != copied)  # which the older copy does not have
        assert shop.capture.stop() == 0
        server.stop()
        server.data.rename(place / "newer")
        (place / "older").rename(server.data)
        server.start()
        shop.order(1001, 1010)
        shop.sql("SELECT pg_logical_emit_message(false, 'noise', repeat('x', 1000000))")
        shop.order(2001, 2010)
        shop.stops_with("the log has no heartbeat of capture's")
        shop.stops_with("the log has no heartbeat of capture's")  # nothing was acknowledged
        shop.repair(generation=2)


def test_a_restore_in_the_middle_of_a_first_snapshot_begins_a_new_generation(
    kafka: Kafka, prefix: str, parts_folder: Path, tmp_path: Path
) -> None:
    """What was read before the restore has higher LSNs than what is read after it."""
    place = parts_folder / f"restored-early-{prefix}"
    server = Postgres(place, settings=SETTINGS)
    more = {"snapshot_max_threads": 1}
    with server, open_shop(server, kafka, server.create_database("shop"), prefix, tmp_path, more) as shop:
        server.stop()
        _copy(server.data, place / "older")
        server.start()
        shop.order(1, 200)
        victim = shop.copy("victim", "tests.faults.broken", ("-X", "fault=before-COMMIT:6"))
        victim.start()
        assert victim.wait(PATIENCE) == -9, victim.tail()
        server.stop()
        server.data.rename(place / "newer")
        (place / "older").rename(server.data)
        server.start()
        shop.sql("UPDATE orders SET total = 77")
        shop.capture.start()
        shop.drain()
        assert shop.position()["generation"] == 2
        shop.prove_content()


def test_the_old_primary_in_place_of_the_promoted_one_stops_capture_and_repair_fixes_it(
    kafka: Kafka, prefix: str, parts_folder: Path, tmp_path: Path
) -> None:
    """It is on the first timeline, which has no history file, and its log is longer than the position."""
    place = parts_folder / f"demoted-{prefix}"
    server = Postgres(place, settings=SETTINGS)
    with server, open_shop(server, kafka, server.create_database("shop"), prefix, tmp_path) as shop:
        shop.capture.start()
        shop.drain()
        assert shop.capture.stop() == 0
        server.stop()
        _copy(server.data, place / "old")
        (server.data / "standby.signal").touch()
        server.start()
        server.psql("SELECT pg_promote()")
        shop.capture.start()
        shop.order(1, 20)
        shop.drain()
        assert shop.position()["timeline"] == 2
        assert shop.capture.stop() == 0
        server.stop()
        server.data.rename(place / "promoted")
        (place / "old").rename(server.data)
        server.start()
        shop.order(1, 5)
        shop.sql("SELECT pg_logical_emit_message(false, 'noise', repeat('x', 1000000))")
        shop.stops_with("the server is on timeline 1, which does not descend from timeline 2")
        shop.repair(generation=2)


def _copy(data: Path, target: Path) -> None:
    """Copies with owners, which copytree does not keep and PostgreSQL insists on."""
    shutil.copytree(data, target)
    owner = data.stat()
    for path in (target, *target.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
