"""Random faults of every kind, also during the initial snapshot: each change is in Kafka exactly once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.embedded import Kafka, Postgres
from tests.faults import rounds
from tests.shop import open_shop


@pytest.fixture
def own_parts(parts_folder: Path, prefix: str) -> Iterator[tuple[Postgres, Kafka]]:
    """A server and a broker that may be killed."""
    with (
        Postgres(parts_folder / f"{prefix}-postgres", settings=rounds.POSTGRES) as server,
        Kafka(parts_folder / f"{prefix}-kafka", rounds.KAFKA) as kafka,
    ):
        yield server, kafka


def test_a_round_of_faults(own_parts: tuple[Postgres, Kafka], prefix: str, tmp_path: Path) -> None:
    """A short `./tests/soak capture`."""
    result = rounds.play(*own_parts, tmp_path / "round", prefix, "1/1", 25, print)
    assert not result.trouble, result.trouble
    assert not result.verdict.findings, str(result.verdict)
    assert result.verdict.changes > 500


def test_large_transactions_stream_through_kills(
    postgres: Postgres, kafka: Kafka, database: str, prefix: str, tmp_path: Path
) -> None:
    small = {"max_batch_size": 300, "topic_creation_default_partitions": 3}
    with open_shop(postgres, kafka, database, prefix, tmp_path, small) as shop:
        shop.capture.start()
        shop.drain()
        shop.sql(
            "INSERT INTO orders SELECT n, 'order', 1 FROM generate_series(1, 30000) n",
            "UPDATE orders SET total = 2 WHERE id % 3 = 0",
            "INSERT INTO lines VALUES (1, 'the last of a large transaction')",
        )
        shop.sql("TRUNCATE orders, lines")
        for seconds in (0.9, 1.2, 1.5):
            time.sleep(seconds)
            shop.capture.kill()
            shop.capture.start()
        shop.drain()
        shop.capture.stop()
        shop.prove()
        shop.drop_slots()
