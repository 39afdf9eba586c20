"""Two copies of the sink: one stages, and the other takes over within seconds of a kill or a freeze."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.embedded import Kafka, Postgres
from schemas.model.errors import SettingsError
from sink.database import connect
from sink.staging.leadership import lead
from tests.integration.stager_feed import ORDERS, Feed, order, until
from tests.programs import ROOT, Program, standing_still, write_settings

LOCK = (
    "SELECT l.pid FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database AND d.datname = current_database()"
    " WHERE locktype = 'advisory' AND granted AND mode = 'ExclusiveLock'"
    " AND (classid::bigint << 32 | objid::bigint) = hashtextextended('ordertap_shop.stager', 0)"
)


class Pair:
    """A shop with two sinks. `leader` is the one that was started first."""

    def __init__(self, folder: Path, kafka: Kafka, postgres: Postgres, name: str) -> None:
        self.feed = Feed(folder, kafka.bootstrap_servers, f"t{os.getpid()}{name}", postgres.create_database(name))
        self.feed.begin()
        erp = postgres.create_database(f"{name}_erp")
        with connect(erp, "public").cursor() as cursor:
            cursor.execute((ROOT / "deploy/erp/schema.sql").read_text())
            cursor.execute("INSERT INTO company VALUES ('erp-1', 'Works')")
        assert self.feed.profile  # writes its folder
        settings = {
            "shop": "shop",
            "profile": f"{folder}/profile",
            "topic_prefix": self.feed.prefix,
            "bootstrap_servers": kafka.bootstrap_servers,
            "group_id": self.feed.group,
            "schema_registry_url": (folder / "registry").as_uri(),
            "database_url": self.feed.url,
            "erp": {"url": erp, "mapping": str(ROOT / "deploy/erp/mapping.yaml")},
            "prices_owner": "shop",
            "workers": 1,
            "health_port": 0,
        }
        config = write_settings(folder / "settings.yaml", sink=settings)
        self.leader, self.standby = (Program("sink", config, folder / f"{name}.log") for name in ("one", "two"))
        self.number = 0

    def start(self) -> None:
        """One stages, the other stands by."""
        self.leader.start()
        self.stages()
        self.standby.start()
        until(lambda: self._tries_to_lead() >= 2, "the other stands by")

    def stages(self, seconds: float = 60.0) -> float:
        """Waits until a commit is staged, for so many seconds. Returns how long it took."""
        began = time.monotonic()
        self.number += 1
        at = self.feed.place()
        self.feed.commit(at, order(self.number, at, 1))
        until(lambda: self.feed.stands_at() >= at, f"a commit is staged\n{self.tails()}", seconds)
        return time.monotonic() - began

    def leads(self) -> int:
        """The pid of the session that has the lock; 0 if none has."""
        found = self.feed.rows(LOCK)
        return int(found[0][0]) if found else 0

    def tails(self) -> str:
        return "\n".join(f"{one.log.name}: {one.tail()}" for one in (self.leader, self.standby))

    def _tries_to_lead(self) -> int:
        """Sessions that lead or have tried to. Both have one, with a stager's time-outs."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        found = self.feed.rows(f"{query} AND query IN ('COMMIT', 'ROLLBACK')")
        return int(found[0][0])

    def stop(self) -> None:
        for program in (self.leader, self.standby):
            program.kill()


@pytest.fixture
def pair(tmp_path: Path, kafka: Kafka, postgres: Postgres, prefix: str) -> Iterator[Pair]:
    made = Pair(tmp_path, kafka, postgres, prefix)
    try:
        yield made
    finally:
        made.stop()


def test_v1_another_copy_stages_within_five_seconds_of_a_kill(pair: Pair) -> None:
    pair.start()
    # While it is a member, Kafka refuses to reset its offsets, by our tool or any other.
    with pytest.raises(SettingsError, match="live members"):
        pair.feed._group().reset(pair.feed._group().plan("earliest", {}))
    pair.leader.kill()
    assert pair.stages(20) < 5
    _staged_once(pair)
    # If the server ends the new leader's session, the process goes on.
    led = pair.leads()
    assert led
    pair.feed.rows("SELECT pg_terminate_backend(%s)", led)
    pair.stages(20)
    assert pair.leads() not in (0, led)
    assert pair.standby.ended() is None
    _staged_once(pair)


def test_v1_another_copy_stages_within_fifteen_seconds_of_a_stop_and_the_old_one_stands_by(pair: Pair) -> None:
    pair.start()
    led = pair.leads()
    with standing_still(pair.leader):
        assert pair.stages(40) < 15
    new = pair.leads()
    assert new not in (0, led)
    until(lambda: "staging waits" in pair.leader.tail(), f"the old one has noticed\n{pair.tails()}")
    committed = _committed(pair)
    for _ in range(3):
        pair.stages()
    assert pair.leads() == new  # it was not taken back
    assert pair.leader.log.read_text().count("this process stages") == 1
    until(lambda: _committed(pair) > committed, "the new one's offsets move on")
    _staged_once(pair)
    pair.standby.kill()
    pair.stages(20)  # and leads again later
    _staged_once(pair)


def test_v1_a_leader_that_stands_still_in_a_copy_loses_the_lead(pair: Pair) -> None:
    """No time-out of the server ends a session whose client freezes during a COPY."""
    frozen, standby = connect(pair.feed.url, "ordertap_shop"), connect(pair.feed.url, "ordertap_shop")
    assert lead(frozen)
    sends = threading.Event()

    class Rows:
        def read(self, _size: int) -> str:
            sends.wait(60)
            return ""

    def copy() -> None:
        with frozen.cursor() as cursor:
            cursor.execute("BEGIN; CREATE TEMPORARY TABLE rows (id int)")
            with pytest.raises(Exception, match="terminat"):
                cursor.copy_expert("COPY rows FROM STDIN", Rows())

    thread = threading.Thread(target=copy)
    thread.start()
    try:
        began = time.monotonic()
        assert not lead(standby)
        until(lambda: lead(standby), "the lead is free")
        assert time.monotonic() - began < 15
    finally:
        sends.set()
        thread.join(20)


def _staged_once(pair: Pair) -> None:
    """Each order is there, marked once."""
    numbers = [str(number) for number in range(1, pair.number + 1)]
    assert pair.feed.rows("SELECT id::text FROM shop.orders ORDER BY id") == [(number,) for number in numbers]
    assert pair.feed.marked() == dict.fromkeys(numbers, 1)
    assert pair.feed.gaps() == []


def _committed(pair: Pair) -> int:
    topic = pair.feed.topic(ORDERS)
    return sum(one.committed or 0 for one in pair.feed.offsets() if one.partition.topic == topic)
