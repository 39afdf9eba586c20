"""The ERP is away for two days, and the shop's orders wait for it."""

from __future__ import annotations

from pathlib import Path

from deploy.embedded import Kafka, Postgres
from tests.faults.outage import Outage

ORDERS = 200


def test_orders_wait_for_an_erp_that_is_away_for_two_days_and_are_drained_oldest_first(
    postgres: Postgres, kafka: Kafka, prefix: str, tmp_path: Path
) -> None:
    outage = Outage(tmp_path, postgres, kafka, prefix, batch=5, patient=False)
    result = outage.run(ORDERS)
    assert result.wrong == [], f"{result}\n{outage.sink.tail()}"
    assert "Traceback" not in outage.sink.log.read_text()
