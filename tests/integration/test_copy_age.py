"""`copy_behind_seconds`: small in a quiet shop, however old its last commit is, and growing while staging waits."""

from pathlib import Path

from prometheus_client import REGISTRY

from schemas.model.commits import SnapshotState
from sink.metrics import COPY_AGE
from tests.integration.stager_feed import ORDERS, START, Feed, order, until

LONG = 600.0  # seconds; the feed's commits are from 1970


def behind() -> float:
    found = REGISTRY.get_sample_value("ordertap_sink_copy_behind_seconds")
    assert found is not None
    return found


def test_it_says_whether_the_copy_has_all_that_is_in_kafka(
    tmp_path: Path, bootstrap_servers: str, prefix: str, database: str
) -> None:
    feed = Feed(tmp_path, bootstrap_servers, prefix, database)
    feed.begin()
    COPY_AGE.stands_by()
    assert behind() == 0
    with feed.running():
        at = feed.place()
        feed.commit(at, order(1, at))
        feed.until_at(at)
        until(lambda: behind() < LONG, "a quiet shop's copy is not behind")

        other, at = feed.another_producer(), feed.place()
        feed.write(order(2, at), commit=False, producer=other)
        feed.write(index=feed.indexed([(at, {ORDERS: 1})]))
        until(lambda: "still lacks" in feed.waits(), "staging waits for the rest of a commit")
        before = behind()
        until(lambda: behind() > before + 1, "it grows")

        waited = behind()
        other.commit_transaction(20)
        feed.until_at(at)
        until(lambda: behind() < waited, "the copy has all")
    COPY_AGE.stands_by()


def test_a_start_goes_on_from_the_last_commit_until_it_has_read_the_rest(
    tmp_path: Path, bootstrap_servers: str, prefix: str, database: str
) -> None:
    feed = Feed(tmp_path, bootstrap_servers, prefix, database)
    feed.begin()
    at = feed.place()
    feed.commit(at, order(1, at))
    with feed.running():
        feed.until_at(at)
    COPY_AGE.stands_by()
    other, at = feed.another_producer(), feed.place()
    feed.write(order(2, at), commit=False, producer=other)
    feed.write(index=feed.indexed([(at, {ORDERS: 1})]))
    with feed.running():
        until(lambda: behind() > LONG, "what waits is as old as the copy")
        other.commit_transaction(20)
        until(lambda: behind() < LONG, "the copy has all")
    COPY_AGE.stands_by()


def test_a_first_snapshot_has_no_heartbeats_and_leaves_nobody_behind(
    tmp_path: Path, bootstrap_servers: str, prefix: str, database: str
) -> None:
    feed = Feed(tmp_path, bootstrap_servers, prefix, database)
    feed.write(index=feed.indexed(snapshots=(SnapshotState("first", "running", START, True, (), {}),)))
    COPY_AGE.stands_by()
    with feed.running():
        until(lambda: feed.rows("SELECT id FROM ordertap_shop.snapshot") != [], "it knows of the snapshot")
        COPY_AGE.complete(1.0)
        assert behind() == 0
        feed.begin()
        until(lambda: 0 < behind() < LONG, "it counts from the snapshot's end")
    COPY_AGE.stands_by()
