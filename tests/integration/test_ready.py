"""`/health/ready` of a sink that stages on a real Kafka, and of one that stands by."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from schemas.model.commits import SnapshotState
from sink.database import connect, reading
from sink.ledger.control import Control, Word
from sink.ledger.listed import CAUSES
from sink.pipeline import Parts, Sink
from sink.planning.brake import MASSES
from tests.integration.stager_feed import START, Feed, order, until

NOT_SENT = "planning (mode is plan, nothing is sent)"


class Idle:
    """A worker that finds nothing due."""

    control = Control()

    def step(self) -> bool:
        return False


@pytest.fixture
def feed(tmp_path: Path, bootstrap_servers: str, prefix: str, database: str) -> Feed:
    return Feed(tmp_path, bootstrap_servers, prefix, database)


@contextmanager
def running(feed: Feed, applies: bool = True, reread: threading.Event | None = None) -> Iterator[Sink]:
    """A sink, until the end of the block."""
    worker: Any = lambda connection, number: Idle()  # noqa: E731
    parts = Parts(
        lambda: connect(feed.url, "ordertap_shop"), feed.consumer, feed.stager(), worker, lambda _: None, 1, applies
    )
    stop = threading.Event()
    sink = Sink(parts, stop, reread=reread)
    thread = threading.Thread(target=sink.run)
    thread.start()
    try:
        yield sink
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()


def test_a_sink_is_ready_once_the_copy_follows_the_shop_and_so_is_one_that_stands_by(feed: Feed) -> None:
    with running(feed) as first:
        until(lambda: first.ready() == (False, "the copy is catching up with the shop"), "it says so")
        feed.begin()
        until(lambda: first.ready() == (True, "staging and applying"), "it follows the shop")
        with running(feed, applies=False) as second:
            until(lambda: second.ready() == (True, f"standing by to stage and {NOT_SENT}"), "the second stands by")
        assert first.ready()[0]


def test_one_that_is_told_to_read_its_settings_again_says_that_it_does_not(feed: Feed) -> None:
    """V8: a SIGHUP changed nothing, without a word."""
    asked = threading.Event()
    with capture_logs() as logs, running(feed, reread=asked):
        asked.set()
        until(lambda: not asked.is_set(), "it has heard of it")
        until(lambda: any("settings are read at the start only" in line["event"] for line in logs), "it says so")


def test_what_a_person_or_the_brake_has_stopped_is_said_and_is_no_failure_of_this_copy(feed: Feed) -> None:
    feed.begin()
    with running(feed) as sink:
        until(lambda: sink.ready() == (True, "staging and applying"), "it follows the shop")
        word = Word("Ada", datetime(2026, 11, 29, tzinfo=UTC), "stocktaking")
        Idle.control = Control(paused=word)
        try:
            until(lambda: sink.ready() == (True, f"staging and paused {word}"), "it says who paused it")
            assert REGISTRY.get_sample_value("ordertap_sink_paused") == 1
            assert REGISTRY.get_sample_value("ordertap_sink_applying") == 0
            Idle.control = Control(stopped={"orders": "brake: too many"})
            until(lambda: sink.ready() == (True, "staging and applying; brake: too many"), "it says what waits")
            found = [REGISTRY.get_sample_value("ordertap_sink_braked", {"kind": kind}) for kind in MASSES]
            assert found == [1, 0]
        finally:
            Idle.control = Control()


def test_held_documents_and_tables_with_a_gap_are_metrics(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sink.pipeline._COUNTS_EVERY", 0.1)

    def told() -> list[float | None]:
        held = [REGISTRY.get_sample_value("ordertap_sink_held_documents", {"cause": one}) for one in CAUSES]
        return [*held, REGISTRY.get_sample_value("ordertap_sink_gap_tables")]

    feed.rows(
        "INSERT INTO ordertap_shop.document (type, key, unit, state, cause)"
        " VALUES ('sales_order', '1', 'sales_order:1', 'held', 'data'),"
        " ('sales_order', '2', 'sales_order:2', 'waits', 'waits'), ('sales_order', '3', 'sales_order:3', 'done', NULL)"
    )
    feed.rows(
        "INSERT INTO ordertap_shop.table_gap (table_name, cause, generation, lsn, detail)"
        " VALUES ('public.orders', 'lost', 1, 1, ''), ('public.orders', 'skipped', 1, 1, '')"
    )
    with running(feed):
        until(lambda: told() == [0, 1, 0, 1, 0, 1], "what waits, and for what, and one table")
        feed.rows("DELETE FROM ordertap_shop.document")
        feed.rows("DELETE FROM ordertap_shop.table_gap")
        until(lambda: told() == [0] * 6, "nothing waits any more")


def test_a_sink_is_not_ready_while_somebody_keeps_the_copy_from_following_a_change(feed: Feed) -> None:
    """Not between two tries either."""
    feed.begin()
    feed.commit(1_100, order(1, 1_100))
    with running(feed) as sink:
        until(lambda: sink.ready() == (True, "staging and applying"), "it follows the shop")
        feed.until_at(1_100)
        with reading(connect(feed.url, "ordertap_shop")):
            feed.types["public.orders"]["extra"] = (25, -1)
            feed.commit(1_200, order(2, 1_200))
            until(lambda: not sink.ready()[0], "it says so")
            found = {sink.ready() for _ in range(60) if time.sleep(0.1) is None}  # two seconds are one try
            assert {ready for ready, _ in found} == {False}
            assert all("holds a lock on ordertap_shop.schema_gate" in reason for _, reason in found)
        feed.until_at(1_200)
        until(lambda: sink.ready()[0], "it goes on")


def test_what_waits_for_kafka_is_said(feed: Feed) -> None:
    state = SnapshotState("first", "completed", START, True, (), {})
    with feed.running() as stager:
        feed.write(index=feed.indexed(snapshots=(state,)))
        feed.until_at(START)
        stager.until_turned()
    assert stager.blocked >= {"Kafka has not assigned all partitions of the shop's topics to this sink yet", ""}
