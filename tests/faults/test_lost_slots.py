"""A slot that the server gives up: capture, `status` and `repair` say why, which setting to raise, and what a repair
reads again."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.embedded import Kafka, Postgres
from tests.programs import run
from tests.shop import PATIENCE, Shop, open_shop, said

SETTINGS = {"fsync": "off", "max_wal_size": "64MB", "min_wal_size": "32MB", "logical_decoding_work_mem": "64kB"}


@pytest.fixture
def shop(
    request: pytest.FixtureRequest, parts_folder: Path, kafka: Kafka, prefix: str, tmp_path: Path
) -> Iterator[Shop]:
    """A server of its own, because its limits are changed; PostgreSQL 18 if not parametrised."""
    with Postgres(parts_folder / f"lost-{prefix}", getattr(request, "param", 18), SETTINGS) as server:
        server.psql("CREATE DATABASE lost")
        with open_shop(server, kafka, server.dsn("lost"), prefix, tmp_path) as made:
            made.sql("CREATE TABLE noise (text text)", "ANALYZE")  # not published: nothing of it is sent
            yield made


def set_limit(shop: Shop, name: str, value: str) -> None:
    shop.server.psql(f"ALTER SYSTEM SET {name} = '{value}'")
    shop.server.psql("SELECT pg_reload_conf()")


def status(shop: Shop) -> dict[str, Any]:
    """Also of one that has problems."""
    content: dict[str, Any] = json.loads(
        run("capture", "status", "--json", "--seconds", "0", config=shop.config).stdout
    )
    return content


def lost(shop: Shop) -> bool:
    shop.server.psql("CHECKPOINT")
    return bool(shop.value(f"SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = '{shop.prefix}'"))


def told_of(shop: Shop, reason: str, setting: str) -> None:
    """Capture has ended, and says why, what to raise, and what a repair costs; `status` and `repair` say so, too."""
    assert shop.capture.wait(PATIENCE) == 78, shop.capture.tail()
    log = said(shop.capture)
    assert f"slot {shop.prefix} was invalidated ({reason}" in log
    assert f"raise {setting}" in log
    assert "; about 50 rows of 2 tables, 0.0 MB in the shop, are read again" in log
    told = status(shop)
    assert any(reason in problem and f"raise {setting}" in problem for problem in told["problems"])
    assert told["slot"]["wal_status"] == "lost"
    assert "is dropped, about 50 rows of 2 tables" in run("capture", "repair", config=shop.config).stdout


@pytest.mark.parametrize("shop", [16, 18], indirect=True, ids=["pg16", "pg18"])
def test_a_slot_that_is_lost_under_a_running_capture(shop: Shop) -> None:
    """Capture stands still, the log grows past the limit, and the server ends the walsender that waits for it."""
    shop.capture.start()
    shop.drain()
    shop.witness.drop()  # it would be lost, too
    os.kill(shop.capture.pid, signal.SIGSTOP)
    try:
        set_limit(shop, "max_slot_wal_keep_size", "1MB")
        deadline = time.monotonic() + PATIENCE
        while not lost(shop):
            assert time.monotonic() < deadline
            shop.sql("INSERT INTO noise SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
    finally:
        os.kill(shop.capture.pid, signal.SIGCONT)
    told_of(shop, "max_slot_wal_keep_size", "max_slot_wal_keep_size")
    assert status(shop)["slot"]["invalidation_reason"] == (None if shop.server.version < 17 else "wal_removed")
    set_limit(shop, "max_slot_wal_keep_size", "-1")
    shop.repair(generation=2)
    assert shop.capture.stop() == 0


def test_a_slot_that_nobody_read_for_idle_replication_slot_timeout(shop: Shop) -> None:
    """PostgreSQL 18 and later."""
    shop.capture.start()
    shop.drain()
    shop.witness.drop()  # nobody reads it
    set_limit(shop, "idle_replication_slot_timeout", "1s")
    time.sleep(2)
    assert not lost(shop), "it is read"
    assert shop.capture.stop() == 0
    deadline = time.monotonic() + PATIENCE
    while not lost(shop):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    shop.capture.start()
    told_of(shop, "idle_replication_slot_timeout", "idle_replication_slot_timeout")
    told = status(shop)["slot"]
    assert told["invalidation_reason"] == "idle_timeout"
    assert told["inactive_since"]
    shown = run("capture", "status", "--seconds", "0", config=shop.config).stdout
    assert "unread     since" in shown
    set_limit(shop, "idle_replication_slot_timeout", "0")
    shop.repair(generation=2)
    assert shop.capture.stop() == 0


def test_what_the_server_spilled_is_in_status_and_metrics(shop: Shop) -> None:
    shop.capture.start()
    shop.drain()
    shop.sql("INSERT INTO orders SELECT n, repeat('x', 200), 1 FROM generate_series(1, 5000) n")
    shop.drain()
    assert shop.capture.stop() == 0  # the walsender reports what it has counted at its end, at the latest
    shop.until(lambda: bool(status(shop)["slot"]["spills"]))
    slot = status(shop)["slot"]
    assert slot["spilled_transactions"] == 1
    assert slot["spills"] >= 1
    assert slot["spilled_bytes"] > 500_000
    assert slot["conflicting"] is False
