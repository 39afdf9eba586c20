"""Orders from before `start_at`, with their returns and refunds, stay out of the ERP. They are counted, and are no
difference."""

from datetime import datetime

import pytest
from pydantic import ValidationError

from sink.apply.rules import Rules
from sink.apply.worker import Worker
from sink.database import Connection, transaction
from sink.documents.profile import load_profile
from sink.erp.sql.adapter import SqlErp
from sink.ledger import documents
from sink.operations import holds
from sink.planning.policy import Policy
from sink.reconcile.sides import reconcile
from sink.settings import SinkSettings
from tests.fix_erp import CUSTOMER, ORDER, REFUND, RETURN, change, drain, held, mark, run


def _worker(middle: Connection, erp: SqlErp, profile_path: str, start_at: str) -> Worker:
    start = datetime.fromisoformat(start_at)
    rules = Rules("shop", Policy("shop"), apply=True, settle_seconds=0, start_at=start)
    return Worker(middle, load_profile(profile_path), erp, rules, "w1")


def test_an_order_of_before_it_is_not_carried_over_with_what_comes_of_it(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    change(middle, "INSERT INTO returns VALUES (5, 1, 1, 5.95)")
    mark(middle, ORDER, CUSTOMER, RETURN, REFUND)
    drain(_worker(middle, erp, profile_path, "2026-01-01T11:30+01:00"))
    erp_has = "SELECT (SELECT count(*)::int FROM orders), (SELECT count(*)::int FROM customers)"
    assert (held(middle), run(erp_url, erp_has)) == ([], [(0, 0)])
    with transaction(middle) as cursor:
        counts = documents.counts(cursor)
    early = "before start_at"
    assert counts == {
        ("customer", "done"): 1, ("sales_order", early): 1, ("return_order", early): 1, ("refund", early): 1
    }  # fmt: skip
    assert reconcile(middle, None, "shop", load_profile(profile_path), erp, collective=False).agrees

    # The date is moved, and everything is looked at again.
    earlier = _worker(middle, erp, profile_path, "2026-01-01T10:30+01:00")
    assert holds.retry_everything(middle, execute=True) == 4
    drain(earlier)
    assert (held(middle), run(erp_url, erp_has)) == ([], [(1, 1)])

    # Documents that the ERP has are kept up to date, whatever the date.
    change(middle, "UPDATE orders SET status = 'cancelled'; DELETE FROM returns")
    mark(middle, ORDER)
    drain(_worker(middle, erp, profile_path, "2026-06-01T00:00Z"))
    assert run(erp_url, "SELECT status FROM orders") == [("cancelled",)]


def test_it_has_a_time_zone() -> None:
    settings = {
        "profile": "sample", "topic_prefix": "shop", "bootstrap_servers": "b", "schema_registry_url": "r",
        "database_url": "d", "prices_owner": "shop", "erp": {"url": "e", "mapping": "m"},
    }  # fmt: skip
    with pytest.raises(ValidationError, match="start_at"):
        SinkSettings.model_validate({**settings, "start_at": "2026-12-01T00:00:00"})
    assert SinkSettings.model_validate({**settings, "start_at": "2026-12-01T00:00:00+01:00"}).start_at is not None
