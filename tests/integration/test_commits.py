"""The index of commits as a reader of Kafka finds it, and topics that only one connector may have."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from capture.kafka.cluster import Cluster, Making
from capture.kafka.producer import TransactionalProducer
from capture.position import is_moved, parse_position
from schemas.model.errors import DataError
from tests.fix_capture import PATIENCE, TABLES, Shop
from tests.programs import run
from tests.proof.records import Listing


def listed(index: list[Listing]) -> list[dict[str, int]]:
    """The changes by topic (without the prefix) of each commit and chunk."""
    found = []
    for one in index:
        names = [topic.partition(".")[2] for _, topic in one.content["tables"]]
        for _, _, numbers, *_ in one.content["commits"]:
            found.append({names[at]: count for at, count in zip(numbers[::2], numbers[1::2], strict=True)})
    return found


def states(index: list[Listing]) -> list[tuple[Any, ...]]:
    """(first, state, tables, rows) of each snapshot state in the index."""
    every = [state for one in index for state in one.content["snapshots"]]
    return [(one["first"], one["state"], sorted(one["tables"]), one["rows"]) for one in every]


def test_each_commit_is_listed_with_what_it_wrote_and_where(shop: Shop) -> None:
    shop.configure(
        topic_routing=[{"topic_regex": r".*\.public\.lines", "topic_replacement": f"{shop.prefix}.crm.lines"}],
        message_prefix_include_list=["app"],
    )
    shop.capture.start()
    shop.drain()
    shop.sql(
        "INSERT INTO log VALUES (1, 'a'), (2, 'b'), (3, 'c')",
        "UPDATE log SET what = 'd' WHERE id = 2",
        "UPDATE log SET id = -1 WHERE id = 1",
        "DELETE FROM log WHERE id = 3",
        "SELECT pg_logical_emit_message(true, 'app', 'no table')",
        "TRUNCATE lines",
    )
    shop.sql("SELECT pg_logical_emit_message(true, 'app', 'no table, nothing to list')")
    shop.sql("INSERT INTO lines VALUES (1, 1, 'x')")
    shop.drain()
    assert shop.capture.stop() == 0
    index = shop.index()
    assert listed(index) == [{"public.log": 3 + 1 + 2 + 1, "crm.lines": 1}, {"crm.lines": 1}]
    rows = {"public.orders": 300, "public.lines": 300, "public.log": 0}
    names = sorted(TABLES)
    assert states(index) == [
        (True, "running", names, {}),
        (True, "completed", names, rows),
    ]
    begins = next(one.content for one in index if one.content["snapshots"])
    named = dict(begins["tables"])  # so that a reader has the topics before the first commit
    assert named.keys() == set(TABLES)
    assert named["public.lines"] == f"{shop.prefix}.crm.lines"
    assert index[-1].content["end"] == shop.position()["end_lsn"]


def test_what_is_skipped_is_not_counted(shop: Shop) -> None:
    shop.configure(skipped_operations=["d", "t"])
    shop.capture.start()
    shop.drain()
    shop.sql(
        "INSERT INTO log VALUES (1, 'a'), (2, 'b')",
        "UPDATE log SET id = 3 WHERE id = 1",
        "DELETE FROM log WHERE id = 2",
        "TRUNCATE lines",
    )
    shop.sql("DELETE FROM log")
    shop.drain()
    assert shop.capture.stop() == 0
    assert listed(shop.index()) == [{"public.log": 2 + 1}]


def test_an_idle_shops_index_goes_on(shop: Shop) -> None:
    shop.capture.start()
    shop.drain()
    before = len(shop.index())
    shop.until(lambda: len(shop.index()) >= before + 2)
    assert shop.capture.stop() == 0
    last, *beats, _stop = [one.content for one in shop.index()[before - 1 :]]
    assert [one["commits"] for one in beats] == [[] for _ in beats]
    assert last["end"] < beats[0]["end"] < beats[1]["end"]
    assert 0 < beats[0]["beat_us"] < beats[1]["beat_us"]
    shop.prove()


def test_chunks_are_listed_in_their_turn_and_the_snapshot_with_its_rows(shop: Shop) -> None:
    shop.configure(incremental_snapshot_chunk_size=100)
    shop.capture.start()
    shop.drain()
    shop.signal("snapshot", "public.orders")
    shop.signal("snapshot", "public.lines", "--where", "order_id <= 50")
    shop.until(lambda: not shop.position()["demand"]["requests"])
    assert shop.capture.stop() == 0
    index = shop.index()
    assert listed(index) == [{"public.orders": 100}] * 3 + [{"public.lines": 50}]
    asked = [one for one in states(index) if not one[0]]
    whole, part = ("public.orders",), ()
    assert asked == [
        (False, "running", [*whole], {}),
        *([(False, "running", [*part], {})] if asked[1][1] == "running" else []),
        (False, "completed", [*whole], {"public.orders": 300}),
        *([(False, "running", [*part], {})] if asked[1][1] != "running" else []),
        (False, "completed", [*part], {"public.lines": 50}),
    ]
    shop.prove()


def test_a_table_that_is_parked_or_new_is_named(shop: Shop) -> None:
    shop.configure(oversized_record="park")
    shop.capture.start()
    shop.drain()
    shop.sql("CREATE TABLE late (id int PRIMARY KEY)", "INSERT INTO late VALUES (1)")
    shop.sql("ALTER PUBLICATION tap ADD TABLE late")
    shop.sql("INSERT INTO late VALUES (2)", "INSERT INTO log VALUES (1, 'a')")
    shop.drain()
    shop.sql("INSERT INTO log VALUES (2, repeat('x', 2000000))", "INSERT INTO orders VALUES (9999, 'a neighbour', 1)")
    shop.drain()
    shop.sql("INSERT INTO log VALUES (3, 'not written')")
    shop.drain()
    shop.sql("UPDATE log SET what = 'small'")
    shop.signal("snapshot", "public.log")
    shop.until(lambda: not shop.position()["parked"] and not shop.position()["demand"]["requests"])
    shop.sql("INSERT INTO log VALUES (4, 'written')")
    shop.drain()
    assert shop.capture.stop() == 0
    index = shop.index()
    assert [one.content["begun"] for one in index if one.content["begun"]] == [["public.late"]]
    (first, *_), (last, *_) = parked_from_to(index)
    assert listed(index[:first]) == [{"public.late": 1, "public.log": 1}]
    assert {"public.orders": 1} in listed(index[first : last + 1])
    assert listed(index[last + 1 :])[-1] == {"public.log": 1}
    shop.prove_content()


def parked_from_to(index: list[Listing]) -> tuple[list[int], list[int]]:
    """The records that name the parked table, which must be consecutive: the first of them and the last."""
    places = [number for number, one in enumerate(index) if one.content["parked"]]
    assert {name for number in places for name in index[number].content["parked"]} == {"public.log"}
    assert places == list(range(places[0], places[-1] + 1))
    return places, places[::-1]


def test_a_second_connector_on_one_prefix_is_refused(shop: Shop) -> None:
    shop.capture.start()
    shop.drain()
    other = f"{shop.prefix}-other"
    shop.configure(name=other, slot_name=f"{shop.prefix}_other")
    for command in ("run", "check", "adopt"):
        more = ["--from-debezium", "--connector", "x"] if command == "adopt" else []
        done = run("capture", command, *more, config=shop.config)
        assert done.returncode in (1, 78), done.stdout + done.stderr
        said = " ".join((done.stdout + done.stderr).split())
        if command != "adopt":
            assert f"topic_prefix {shop.prefix} is in use: there is a position of connector {shop.prefix}" in said, said
    shop.sql("INSERT INTO log VALUES (1, 'the first one goes on')")
    shop.configure(name=shop.prefix, slot_name=shop.prefix)
    shop.drain()
    assert shop.capture.stop() == 0
    shop.prove()
    done = run("capture", "drop", "--yes", config=shop.config)
    assert f"the position of {shop.prefix} in topic ordertap.{shop.prefix}.position" in done.stdout, done.stderr
    shop.configure(name=other, slot_name=f"{shop.prefix}_other")
    shop.capture.start()
    shop.until_said("snapshot completed", times=2)


def as_before_the_index(shop: Shop) -> bytes:
    """Puts the position where earlier versions have it, in their form. They have no index."""
    cluster = Cluster(shop.bootstrap_servers, {})
    topics = [f"ordertap.{shop.prefix}.{name}" for name in ("position", "commits")]
    content = json.loads(cluster.last_values(topics[0])[shop.prefix.encode()])
    del content["chain"]
    value = json.dumps(content).encode()
    former = f"{shop.prefix}.position"
    cluster.create_topics({former: Making(1, 1, {"cleanup.policy": "compact"})})
    for future in cluster.admin.delete_topics(topics).values():
        future.result()
    deadline = time.monotonic() + PATIENCE
    while cluster.partitions().keys() & set(topics):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    producer = TransactionalProducer(cluster, f"{shop.prefix}-earlier")
    producer.begin_transaction()
    producer.produce([(former, 0, shop.prefix.encode(), value, [])])
    producer.commit(10)
    return value


def test_the_position_moves_once_and_a_crash_in_between_loses_nothing(shop: Shop) -> None:
    shop.capture.start()
    shop.drain()
    shop.sql("INSERT INTO log VALUES (1, 'before')")
    shop.drain()
    assert shop.capture.stop() == 0
    value = as_before_the_index(shop)
    cluster, former, key = Cluster(shop.bootstrap_servers, {}), f"{shop.prefix}.position", shop.prefix.encode()
    shop.sql("INSERT INTO log VALUES (2, 'meanwhile')")
    assert "the next start continues from" in run("capture", "check", config=shop.config).stdout

    for point, is_there in (("before-COMMIT:1", False), ("after-COMMIT:1", True)):
        victim = shop.copy(point.partition(":")[0], "tests.faults.broken", ("-X", f"fault={point}"))
        victim.start()
        assert victim.wait(PATIENCE) == -9, victim.tail()
        left = cluster.last_values(former, settled=False)[key]
        assert (left != value) == is_moved(left) == is_there
        assert bool(shop.position(settled=False)) == is_there
    with pytest.raises(DataError, match="moved_to, which this version does not know"):
        parse_position(left)  # as an earlier capture does

    shop.capture.start()
    shop.sql("INSERT INTO log VALUES (3, 'after')")
    shop.drain()
    assert shop.capture.stop() == 0
    assert cluster.last_values(former)[key] == left, "it moves once"
    index = shop.index()
    assert [one.content["serial"] for one in index] == list(range(1, len(index) + 1))
    assert listed(index) == [{"public.log": 1}, {"public.log": 1}]
    shop.prove()


def test_a_table_that_was_published_while_capture_was_away_begins_and_an_empty_one_does_not(shop: Shop) -> None:
    """public.log was copied when it was empty. What the killed run had noted but not written is noted again."""
    shop.capture.start()
    shop.drain()
    assert shop.capture.stop() == 0
    shop.sql("CREATE TABLE late (id int PRIMARY KEY)", "INSERT INTO late VALUES (1)")
    shop.sql("ALTER PUBLICATION tap ADD TABLE late", "INSERT INTO log VALUES (1, 'the first')")
    shop.sql("INSERT INTO late VALUES (2)")
    victim = shop.copy("victim", "tests.faults.broken", ("-X", "fault=before-commit:1"))
    victim.start()
    assert victim.wait(PATIENCE) == -9, victim.tail()
    assert [one.content["begun"] for one in shop.index() if one.content["begun"]] == []
    shop.capture.start()
    shop.drain()
    shop.sql("INSERT INTO late VALUES (3)")
    shop.drain()
    shop.capture.kill()
    shop.capture.start()
    shop.sql("INSERT INTO late VALUES (4)")
    shop.drain()
    assert shop.capture.stop() == 0
    assert [one.content["begun"] for one in shop.index() if one.content["begun"]] == [["public.late"]]
