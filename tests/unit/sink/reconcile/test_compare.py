"""What a difference counts as."""

from datetime import UTC, datetime

import pytest

from sink.documents.refs import DocumentRef
from sink.erp.contract import Found, Observed
from sink.erp.kinds import ErpRecord, ErpRef, Milestone
from sink.ledger.outcomes import Standing, State
from sink.reconcile.compare import in_erp_only


@pytest.mark.parametrize(("written", "result"), [(True, "ignored"), (False, "in the ERP only")])
def test_what_the_shop_deleted_is_kept_in_the_erp_only_if_the_ledger_knows_of_it(written: bool, result: str) -> None:
    """The create of a refund failed, the shop deleted the refund, and then the call took effect after all."""
    refund, marked_at = ErpRef("refund", "shop/refund/6/1"), datetime(2026, 1, 1, tzinfo=UTC)
    gone = Standing(State.GONE, "sales_order:1", refund.external, False, False, False, 2, marked_at, 1, written=written)
    there = Observed(ErpRecord("refund", {}), Milestone.DRAFT, "F-6", "stamp")
    found = in_erp_only(Found(refund, there), DocumentRef("refund", "6"), gone, changed=False)
    assert found is not None
    assert found.result == result
