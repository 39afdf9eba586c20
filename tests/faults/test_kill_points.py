"""kill -9 at each point where capture could lose or double something, and a clock that jumps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.embedded import Kafka, Postgres
from tests.shop import PATIENCE, Shop, open_shop, said

POINTS = (
    "before-produce:1",
    "after-produce:7",
    "before-commit:3",
    "after-commit:3",
    "before-feedback:1",
    "after-feedback:1",
)
_SNAPSHOT_COMMITS = 8  # of two tables


@pytest.fixture
def shop(postgres: Postgres, kafka: Kafka, database: str, prefix: str, tmp_path: Path) -> Iterator[Shop]:
    more = {"max_batch_size": 80}
    with open_shop(postgres, kafka, database, prefix, tmp_path, more) as made:
        yield made
        made.drop_slots()


def test_killed_at_each_named_point(shop: Shop) -> None:
    """One shop goes through all points, so that each start follows a different kind of death."""
    shop.capture.start()
    shop.drain()
    assert shop.capture.stop() == 0
    for number, point in enumerate(POINTS):
        first = 1 + number * 100
        victim = shop.copy(point.partition(":")[0], "tests.faults.broken", ("-X", f"fault={point}"))
        victim.start()
        shop.order(first, first + 60)
        assert victim.wait(PATIENCE) == -9, victim.tail()
        shop.order(first + 61, first + 70)
    shop.capture.start()
    shop.drain()
    shop.prove()


def test_killed_inside_a_large_transaction(shop: Shop) -> None:
    """Its rows stream through in parts: after some of them are durable, between them, and before its end."""
    shop.capture.start()
    shop.drain()
    assert shop.capture.stop() == 0
    shop.sql(
        "INSERT INTO orders SELECT n, 'large', 1 FROM generate_series(1, 450) n",
        "UPDATE orders SET total = 2 WHERE id BETWEEN 1 AND 450",
        "DELETE FROM orders WHERE id BETWEEN 400 AND 450",
    )
    shop.order(1001, 1010)
    parts = []
    for point in ("after-commit:2", "before-commit:2", "after-produce:5"):
        victim = shop.copy(f"large-{point.partition(':')[0]}", "tests.faults.broken", ("-X", f"fault={point}"))
        victim.start()
        assert victim.wait(PATIENCE) == -9, victim.tail()
        parts.append((shop.position(settled=False)["partial"] or {}).get("ordinal", 0))
    assert parts == sorted(parts)
    assert parts[0] > 0, "never died inside"
    shop.capture.start()
    shop.drain()
    shop.prove()


def test_killed_in_each_phase_of_a_snapshot(shop: Shop) -> None:
    """Its commits where one process does it all: intent, beginning, of each table a chunk and its end, the end, and the
    stream's first position."""
    shop.configure(snapshot_max_threads=1)
    points = [
        "before-SLOT:1",
        "after-SLOT:1",
        *(f"before-COMMIT:{number}" for number in range(1, _SNAPSHOT_COMMITS + 1)),
    ]
    for number, point in enumerate(points):
        shop.configure(snapshot_mode="always")
        victim = shop.copy(point.partition(":")[0], "tests.faults.broken", ("-X", f"fault={point}"))
        victim.start()
        assert victim.wait(PATIENCE) == -9, victim.tail()
        shop.order(1 + number * 10, 5 + number * 10)
        shop.sql(f"DELETE FROM orders WHERE id = {-1 - number}", f"UPDATE orders SET total = {number} WHERE id < -40")
        shop.configure(snapshot_mode="initial")
        shop.capture.start()
        shop.drain()
        shop.until(lambda: not (shop.position().get("demand") or {}).get("requests"))
        shop.prove_content()
        assert shop.capture.stop() == 0
    assert "snapshot completed" in said(victim), "the last point was not the end of a snapshot"


def test_a_killed_initial_only_is_not_complete_until_all_is_read(shop: Shop) -> None:
    """One table is done at the kill. The others could be read while streaming, but this mode does not stream."""
    shop.configure(snapshot_mode="initial_only", snapshot_max_threads=1)
    victim = shop.copy("initial-only", "tests.faults.broken", ("-X", "fault=before-COMMIT:6"))
    victim.start()
    assert victim.wait(PATIENCE) == -9, victim.tail()
    assert len(shop.position()["snapshot"]["tables_done"]) == 1
    shop.capture.start()
    assert shop.capture.wait(PATIENCE) == 0
    assert shop.position()["snapshot"]["state"] == "completed"
    assert "snapshot completed" in said(shop.capture)
    shop.configure(snapshot_mode="initial")
    shop.order(1, 5)
    shop.capture.start()
    shop.drain()
    shop.prove()


def test_a_clock_that_jumps_changes_nothing(shop: Shop) -> None:
    jumping = shop.copy("clock", "tests.faults.broken", ("-X", "fault=clock:2"))
    jumping.start()
    shop.drain(jumping)
    for number in range(4):
        shop.order(1 + number * 20, 20 + number * 20)
        shop.drain(jumping)
    jumping.kill()
    shop.capture.start()
    shop.order(200, 210)
    shop.drain()
    shop.prove()
