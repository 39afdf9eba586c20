"""Records and transactions of an unusual size."""

from __future__ import annotations

from typing import Any

import yaml

from tests.fix_capture import PATIENCE, TABLES, Shop
from tests.programs import run, write_settings
from tests.proof.records import changes
from tests.proof.verdict import judge


def settings(shop: Shop, **more: Any) -> None:
    content = yaml.safe_load(shop.config.read_text())
    write_settings(shop.config, capture=content["capture"] | more)


def test_a_record_over_the_limit_stops_all_or_parks_its_table_and_is_never_dropped(shop: Shop) -> None:
    settings(shop, kafka={"message.max.bytes": 20_000})
    shop.capture.start()
    shop.drain()
    shop.sql(
        "INSERT INTO log VALUES (1, 'before')",
        "INSERT INTO orders VALUES (1000, 'beside', 1)",
        "INSERT INTO log VALUES (2, repeat('secret', 5000))",
        "INSERT INTO orders VALUES (1001, 'behind', 1)",
    )
    assert shop.capture.wait(PATIENCE) != 0
    said = shop.capture.tail()
    assert "table public.log: the change 1:" in said
    assert "message.max.bytes is 20000; nothing is lost" in said
    assert "Traceback" not in said
    assert "secret" not in said
    settings(shop, oversized_record="park")
    shop.capture.start()
    shop.drain()
    shop.sql("INSERT INTO log VALUES (3, 'parked too')", "INSERT INTO lines VALUES (1, 99, 'flows')")
    shop.drain()
    assert shop.position()["parked"] == ["public.log"]
    verdict = judge(shop.witness, shop.bootstrap_servers, shop.registry, shop.prefix, TABLES)
    assert {finding.text.split()[:2][0] for finding in verdict.findings} == {"public.log"}, str(verdict)
    assert [each.key for each in changes(shop.records(), shop.prefix)["public.log"]] == ['{"id": 1}']
    assert shop.capture.stop() == 0
    settings(shop, kafka={})
    shop.capture.start()
    shop.drain()
    assert run("capture", "signal", "snapshot", "public.log", config=shop.config).returncode == 0
    shop.until(lambda: len(changes(shop.records(), shop.prefix)["public.log"]) == 4)
    assert shop.position()["parked"] == []
    shop.sql("UPDATE log SET what = 'goes on' WHERE id = 1")
    shop.drain()
    assert changes(shop.records(), shop.prefix)["public.log"][-1].op in ("r", "u")
