"""The shop's server dies and a physical standby is promoted: capture continues from the synced slot."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from deploy.embedded import Kafka, Postgres
from tests.shop import PATIENCE, Shop, open_shop, said

PRIMARY = {"hot_standby_feedback": "on", "fsync": "off"}
STANDBY = PRIMARY | {"sync_replication_slots": "on", "primary_slot_name": "standby"}


def _standby_of(primary: Postgres, folder: Path) -> Postgres:
    """A running standby that follows the primary and its failover slots."""
    standby = Postgres(folder, primary.version, STANDBY)
    standby._make()
    subprocess.run(["rm", "-rf", str(standby.data)], check=True)
    source = f"host=127.0.0.1 port={primary.port} user=postgres dbname=postgres"
    command = [str(standby.bin / "pg_basebackup"), "-D", str(standby.data), "-d", source, "-R", "-c", "fast"]
    subprocess.run(command, check=True, capture_output=True, **standby.account())  # type: ignore[call-overload]
    with (standby.data / "postgresql.auto.conf").open("a") as settings:
        settings.write(f"primary_conninfo = '{source}'\n")
    standby.start()
    return standby


def _until(met: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not met():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def _copied(shop: Shop, standby: Postgres, slot: str) -> bool:
    """Whether the standby has a persistent copy of the slot. Makes the primary write, so that slots advance."""
    shop.sql("SELECT txid_current()", "SELECT pg_log_standby_snapshot()")
    copy = f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{slot}' AND synced AND NOT temporary"
    return bool(Shop.value_of(standby.dsn(), copy))


def test_capture_goes_on_with_the_promoted_standby(
    kafka: Kafka, prefix: str, parts_folder: Path, tmp_path: Path
) -> None:
    primary = Postgres(parts_folder / f"primary-{prefix}", 18, PRIMARY)
    more = {"slot_failover": True}
    with primary, open_shop(primary, kafka, primary.create_database("shop"), prefix, tmp_path, more) as shop:
        primary.psql("SELECT pg_create_physical_replication_slot('standby', true)")
        standby = _standby_of(primary, parts_folder / f"standby-{prefix}")
        try:
            shop.witness.drop()
            shop.capture.start()
            shop.drain()
            primary.psql("ALTER SYSTEM SET synchronized_standby_slots = 'standby'")
            primary.psql("SELECT pg_reload_conf()")
            shop.order(1, 40)
            shop.drain()
            _until(lambda: _copied(shop, standby, prefix), "the slot was never copied to the standby")
            shop.order(41, 80)
            shop.drain()
            standby.stop()
            ended = shop.log_end()
            _until(lambda: shop.log_end() > ended + 1000, "no heartbeats that the standby never gets")
            beat = shop.position()["heartbeat"]
            primary.kill()
            standby.port = primary.port  # like an address that is moved
            standby.start()
            standby.psql("SELECT pg_promote()")
            shop.order(81, 120)
            shop.drain()
            shop.until(lambda: shop.position()["heartbeat"]["at_ms"] > beat["at_ms"] + 2000)  # one of the standby's log
            assert "Traceback" not in said(shop.capture)
            assert shop.position()["timeline"] == 2
            assert shop.position()["generation"] == 1
            shop.prove_streamed(range(1, 121))
        finally:
            shop.capture.stop()
            standby.stop()
