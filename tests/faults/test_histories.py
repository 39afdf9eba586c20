"""Lives of orders with a clerk beside them, through the real chain into both ERPs. Nothing is lost, double, or of
another amount."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.embedded import Kafka, Postgres
from deploy.tryton.server import Tryton
from tests.faults.histories import Histories, Played
from tests.faults.histories_erp import HistoriesErp, RealTryton, Reference

ON_SQL, ON_TRYTON = 30, 6
SEED, SEED_ON_TRYTON = 7, 58  # of which the clerk delivers, invoices, edits and credits in six lives


def _play(
    folder: Path, server: Postgres, kafka: Kafka, prefix: str, erp: HistoriesErp, count: int, seed: int = SEED
) -> Played:
    played = Histories(folder, server, kafka, prefix, seed, erp).play(type(erp).__name__, count)
    assert not played.findings, "\n".join([str(played), *map(str, played.findings)])
    assert played.difference == 0
    assert (played.kills >= 2, played.lost_replies >= 1, played.resets >= 1) == (True, True, True), played
    assert played.same > count, "what is held proves little"
    return played


def test_histories_on_the_reference_erp(postgres: Postgres, kafka: Kafka, prefix: str, tmp_path: Path) -> None:
    _play(tmp_path, postgres, kafka, prefix, Reference(postgres, prefix), ON_SQL)


@pytest.mark.usefixtures("tryton_environment")
def test_histories_on_a_real_tryton(postgres: Postgres, kafka: Kafka, prefix: str, tmp_path: Path) -> None:
    """It has a Tryton of its own, because its sums cover everything in it."""
    with Tryton(tmp_path / "tryton", postgres, lambda _: None, database=f"{prefix}_tryton") as server:
        played = _play(tmp_path, postgres, kafka, prefix, RealTryton(server, prefix), ON_TRYTON, SEED_ON_TRYTON)
    assert (played.sums >= ON_TRYTON // 2, played.moved >= 2) == (True, True), played
