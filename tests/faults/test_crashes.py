"""A simulated day with kill -9 of capture and sink at random moments: shop and ERP agree to the cent at its end."""

from __future__ import annotations

from pathlib import Path

import yaml

from deploy.embedded import Kafka, Postgres
from tests.faults.day import Day
from tests.programs import run

SECONDS = 30.0
SEED = 7


def test_day_of_kills_ends_in_agreement(postgres: Postgres, kafka: Kafka, prefix: str, tmp_path: Path) -> None:
    day = Day(tmp_path, postgres, kafka, prefix, SEED)
    result = day.run(SECONDS)
    assert result.sound, f"{result}\n{result.verdict}\n{result.erp[:40]}\n{result.held}"
    assert result.kills > 5
    for program in (day.capture, day.sink):
        assert "Traceback" not in program.log.read_text()
    agreed = run("sink", "reconcile", config=_of_the_copy(day.config))
    assert agreed.returncode == 0, agreed.stdout + agreed.stderr
    assert "difference 0.00" in agreed.stdout


def _of_the_copy(config: Path) -> Path:
    """Settings without the shop: capture has ended, so the copy no longer follows."""
    settings = yaml.safe_load(config.read_text("utf-8"))
    del settings["sink"]["shop_url"]
    alone = config.with_name("alone.yaml")
    alone.write_text(yaml.safe_dump(settings), "utf-8")
    return alone
