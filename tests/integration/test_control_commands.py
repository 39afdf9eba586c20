"""The verbs that stop and start applying, from the command line: for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

from sink.database import Connection
from sink.erp.sql.adapter import SqlErp
from tests.fix_erp import drain, make_worker, mark, run, sql_erp, write_sink_settings
from tests.programs import run as run_program

ADA = ("--person", "Ada")


def test_each_verb_says_what_it_does_before_it_does_it(
    middle: Connection, erp: SqlErp, profile_path: str, database: str, erp_url: str, tmp_path: Path
) -> None:
    config = write_sink_settings(tmp_path, profile_path, database, sql_erp(erp_url), brake_orders=0)

    def says(*command: str, code: int = 0) -> str:
        ended = run_program("sink", *command, config=config)
        assert ended.returncode == code, ended.stdout + ended.stderr
        return ended.stdout if code == 0 else ended.stderr

    mark(middle)
    drain(make_worker(middle, erp, profile_path, apply=False))
    dry = json.loads(says("go-live", *ADA, "--json"))
    assert dry["executed"] is False
    planned = [(one["verb"], one["kind"], one["after"]) for one in dry["planned"]]
    assert planned == [("create", "customer", "0"), ("create", "order", "11.90")]
    assert says("go-live", *ADA).endswith("nothing was changed; --execute sends it\n")
    assert says("go-live", *ADA, "--execute").endswith("they are sent now, and everything after them\n")
    assert "the shop is live by Ada" in says("go-live", *ADA, code=78)
    assert "paused" in says("pause", *ADA, "--reason", "stocktaking")
    worker = make_worker(middle, erp, profile_path, apply=False)
    assert not worker.step()
    assert "it was paused by Ada" in says("resume", *ADA)
    drain(worker)
    assert run(erp_url, "SELECT count(*)::int FROM orders") == [(1,)]
    assert "orders: 0 changed" in says("brake")
    assert json.loads(says("brake", "--json"))["waiting"] == []
    assert "say what to release" in says("release", *ADA, code=78)
    assert "holds nothing back" in says("release", *ADA, "--mass", code=78)
    lines = Path(profile_path, "sales_order.lines.sql")
    lines.write_text(lines.read_text().replace("'l1' AS key,", "'l1' AS key, 'a name' AS name,"))
    found = json.loads(says("rebuild", *ADA, "--json"))
    assert (found["looked_at"], found["changes"][0]["documents"], found["marked"]) == (2, 1, 0)
    assert found["executed"] is False
    assert "1 are looked at again" in says("rebuild", *ADA, "--execute")
