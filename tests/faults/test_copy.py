"""The sink's copy is the shop as of one commit at every moment, whatever happens."""

from __future__ import annotations

from pathlib import Path

from deploy.embedded import Kafka, Postgres
from tests.faults.wild import WildDay

SECONDS = 20.0
SEED = 11


def test_the_copy_is_always_the_shop_as_of_one_commit(
    postgres: Postgres, kafka: Kafka, prefix: str, tmp_path: Path
) -> None:
    day = WildDay(tmp_path, postgres, kafka, prefix, SEED)
    day.freezes, day.weather.holes = (1, 3), (1, 3)
    result = day.run(SECONDS)
    assert result.torn == 0, "\n".join(result.copy[:40])
    assert result.sound, f"{result}\n{result.verdict}\n{result.copy[:40]}\n{result.erp[:40]}\n{result.held}"
    assert result.prefixes >= day.fewest_prefixes
    assert len(day.faults) >= day.fewest_kinds
    assert result.stops >= day.fewest_stops
    assert sum(proxy.lost for proxy in day.proxies) >= day.fewest_lost
    for program in (day.capture, *day.sinks):
        assert "Traceback" not in program.log.read_text()
