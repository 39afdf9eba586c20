"""A start that fails the same way again and again says so, with cause and next step, in health, metrics and status."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extras import LogicalReplicationConnection

from deploy.embedded import Kafka, Postgres, free_port
from tests.programs import http_get, run, standing_still
from tests.shop import Shop, open_shop


@pytest.fixture
def shop(postgres: Postgres, kafka: Kafka, database: str, prefix: str, tmp_path: Path) -> Iterator[Shop]:
    with open_shop(postgres, kafka, database, prefix, tmp_path, {"health_port": free_port()}) as made:
        yield made
        made.drop_slots()


def get(shop: Shop, path: str) -> tuple[int, str]:
    """The health server's answer."""
    port = re.search(r"health_port: (\d+)", shop.config.read_text())
    assert port is not None
    return http_get(int(port[1]), path)


def taken_over(shop: Shop) -> psycopg2.extensions.connection:
    """Lets somebody else read the slot from now on, without a word."""
    patient = "-c wal_sender_timeout=0"
    other = psycopg2.connect(shop.dsn, connection_factory=LogicalReplicationConnection, options=patient)
    with standing_still(shop.capture):
        shop.end_backends("walsender")
        shop.free_slot()
        options = {"proto_version": "1", "publication_names": "tap"}
        other.cursor().start_replication(shop.prefix, options=options)
    return other


def test_a_start_that_fails_the_same_way_is_told_after_the_third_time(shop: Shop) -> None:
    shop.capture.start()
    shop.drain()
    other = taken_over(shop)
    shop.until(lambda: "failed 3 times" in get(shop, "/health/ready")[1])
    status, reason = get(shop, "/health/ready")
    assert status == 503
    assert "is active for PID" in reason
    assert "next: another reader uses this slot: stop it" in reason
    assert get(shop, "/health/live")[0] == 200
    assert re.search(r"^ordertap_capture_failed_starts [3-9]", get(shop, "/metrics")[1], re.MULTILINE)
    told = run("capture", "status", "--seconds", "0", "--json", config=shop.config)
    assert told.returncode == 1
    content = json.loads(told.stdout)
    assert content["health"]["ready"] is False
    assert any("the same start has failed" in one and "another reader uses" in one for one in content["problems"])
    shown = run("capture", "status", "--seconds", "0", config=shop.config).stdout
    assert "health     not ready: starting again" in shown
    other.close()
    shop.order(1, 3)
    shop.drain()
    shop.until(lambda: get(shop, "/health/ready")[0] == 200)
    shop.until(lambda: "ordertap_capture_failed_starts 0.0" in get(shop, "/metrics")[1])  # with the next heartbeat
    told = run("capture", "status", "--seconds", "0", config=shop.config)
    assert told.returncode == 0, told.stdout
    assert "health     ready: streaming" in told.stdout
    assert shop.capture.stop() == 0
    shop.prove()
