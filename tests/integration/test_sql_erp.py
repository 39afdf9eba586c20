"""The worker with an ERP's database: unreadable rows, and states that the ERP does not have."""

import pytest
from structlog.testing import capture_logs

from sink.apply.rules import Rules
from sink.apply.worker import Worker
from sink.database import Connection
from sink.documents.profile import load_profile
from sink.documents.refs import DocumentRef
from sink.erp.contract import StopError
from sink.erp.kinds import Milestone
from sink.erp.sql.adapter import SqlErp
from sink.planning.policy import Policy
from tests.fix_erp import ORDER, UNITS, change, drain, held, make_worker, mark, run


def test_an_order_that_cannot_be_read_is_held_and_the_next_one_goes(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make_worker(middle, erp, profile_path)
    mark(middle)
    drain(worker)
    run(erp_url, "UPDATE orders SET placed_at = '12026-01-01'")  # a clerk's slip, which no Python date can have
    change(middle, "UPDATE orders SET gross = 9.90")
    change(middle, "INSERT INTO orders VALUES (2, 'S-2', '7', '2026-01-02T10:00Z', 'open', 'A', 2, 11.90)")
    second = DocumentRef("sales_order", "2")
    monkeypatch.setitem(UNITS, second, "sales_order:2")
    mark(middle, ORDER, second)
    drain(worker)
    assert [reason.partition(":")[0] for reason in held(middle)] == ["the ERP's rows of it cannot be read"]
    assert run(erp_url, "SELECT shop_number, gross::text FROM orders ORDER BY id") == [
        ("S-1", "11.90"),
        ("S-2", "11.90"),
    ]


def test_a_later_goal_that_the_erp_has_no_state_for_holds_nothing(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    mark(middle)
    drain(make_worker(middle, erp, profile_path))
    rules = Rules("shop", Policy("shop", goal=Milestone.PROCESSING), apply=True, settle_seconds=0)
    worker = Worker(middle, load_profile(profile_path), erp, rules, "w2")
    for _ in range(2):
        mark(middle)
        drain(worker)
        assert held(middle) == []
    assert run(erp_url, "SELECT status, revision FROM orders") == [("confirmed", 2)], "it came as far as it can, once"
    change(middle, "UPDATE orders SET status = 'cancelled'")
    mark(middle)
    drain(worker)
    assert run(erp_url, "SELECT status FROM orders") == [("cancelled",)]


def test_what_the_erps_columns_lack_is_told_at_the_start_and_once(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    run(erp_url, "ALTER TABLE customers ALTER COLUMN email SET NOT NULL")
    worker = make_worker(middle, erp, profile_path)
    with capture_logs() as logs:
        worker.step()
        worker.check()
    told = [one for one in logs if one["event"] == "the ERP can be used, but"]
    assert ["customers.email must have a value" in one["found"] for one in told] == [True]
    run(erp_url, "ALTER TABLE orders ALTER COLUMN gross TYPE real")
    with pytest.raises(StopError, match=r"orders\.gross is REAL"):
        make_worker(middle, erp, profile_path).step()
