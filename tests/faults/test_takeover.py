"""Two copies of capture: one leads, the other waits. One that has lost the lead writes nothing more."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.embedded import Kafka, Postgres
from tests.shop import Shop, open_shop, said


@pytest.fixture
def shop(postgres: Postgres, kafka: Kafka, database: str, prefix: str, tmp_path: Path) -> Iterator[Shop]:
    with open_shop(postgres, kafka, database, prefix, tmp_path) as made:
        yield made
        made.drop_slots()


def test_a_standby_takes_over_within_seconds_of_a_kill(shop: Shop) -> None:
    shop.capture.start()
    shop.drain()
    standby = shop.copy("standby")
    standby.start()
    shop.until_said("standing by", standby)
    shop.order(1, 100)
    shop.capture.kill()
    began = time.monotonic()
    shop.order(101, 200)
    shop.until_said("streaming", standby)
    assert time.monotonic() - began < 45  # about 3 s, and not the minute of wal_sender_timeout
    shop.drain(standby)
    assert standby.stop() == 0, standby.tail()
    shop.prove()


def test_a_zombie_that_wakes_up_is_fenced_and_stands_by(shop: Shop) -> None:
    """The leader freezes, its connections are cut, the other takes over. Then the leader wakes up."""
    zombie, standby = shop.capture, shop.copy("standby")
    zombie.start()
    shop.drain()
    standby.start()
    shop.until_said("standing by", standby)
    shop.order(1, 200)
    streamed = said(zombie).count("] streaming ")
    os.kill(zombie.pid, signal.SIGSTOP)  # most likely with something open
    try:
        assert shop.end_backends("walsender") >= 1
        assert shop.end_backends("client backend") >= 1
        shop.order(201, 300)
        shop.until_said("streaming", standby)
        shop.drain(standby)
    finally:
        os.kill(zombie.pid, signal.SIGCONT)
    shop.until_said("another copy took the lead", zombie)
    shop.order(301, 400)
    shop.drain(standby)
    assert "Traceback" not in said(zombie)
    assert said(zombie).count("] streaming ") == streamed
    standby.kill()
    shop.order(401, 450)
    shop.drain(zombie)  # a good standby, too
    shop.prove()
