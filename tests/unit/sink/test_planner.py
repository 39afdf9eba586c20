"""Each cell of the planner's table, and the rules around it."""

from dataclasses import replace
from decimal import Decimal

import pytest

from sink.erp import Milestone, Observed, Record
from sink.planner import SEND, TABLE, Hold, Policy, plan

LINE = {"sku": "A", "quantity": Decimal(3), "net": Decimal(10), "gross": Decimal(12)}
HEAD = {"number": "S-1", "gross": Decimal(12), "paid": Decimal(12), "shipping_city": "Bonn", "cancelled": False}
ORDER = Record("order", HEAD, {"line:1": LINE})
POLICY = Policy("shop")
CHANGES = {
    "change prices": replace(ORDER, lines={"line:1": {**LINE, "net": Decimal(9)}}),
    "change quantities": replace(ORDER, lines={"line:1": {**LINE, "quantity": Decimal(2)}}),
    "change addresses": replace(ORDER, fields={**HEAD, "shipping_city": "Ulm"}),
    "change payment": replace(ORDER, fields={**HEAD, "paid": Decimal(5)}),
    "change head": replace(ORDER, fields={**HEAD, "number": "S-2"}),
    "cancel": replace(ORDER, fields={**HEAD, "cancelled": True}),
}


def _seen(milestone: Milestone, record: Record = ORDER, returned: str = "0") -> Observed:
    return Observed(record, milestone, "1", 1, {"line:1": {"by hand": Decimal(returned)}})


@pytest.mark.parametrize("milestone", list(Milestone))
@pytest.mark.parametrize("change", CHANGES)
def test_each_cell_of_an_order(change: str, milestone: Milestone) -> None:
    result = plan(CHANGES[change], ORDER, _seen(milestone), POLICY)
    sends = TABLE[change][milestone] == SEND
    assert isinstance(result, Hold) is not sends
    if isinstance(result, list):
        assert [command.verb for command in result] == ["cancel" if change == "cancel" else "amend"]


def test_only_what_differs_by_value_is_sent() -> None:
    same = replace(ORDER, fields={**HEAD, "gross": Decimal("12.00")})
    assert plan(same, ORDER, _seen(Milestone.DRAFT), POLICY) == []
    result = plan(CHANGES["change prices"], ORDER, _seen(Milestone.DRAFT), POLICY)
    assert isinstance(result, list)
    assert result[0].set_lines == {"line:1": {"net": Decimal(9)}}
    assert result[0].fields == {}


def test_made_once_and_gone_in_the_erp_is_held() -> None:
    assert isinstance(plan(ORDER, ORDER, None, POLICY), Hold)


def test_deleted_in_the_shop_is_held() -> None:
    assert isinstance(plan(None, ORDER, _seen(Milestone.CONFIRMED), POLICY), Hold)
    assert plan(None, None, None, POLICY) == []


@pytest.mark.parametrize(("quantity", "back", "held"), [("1", "2", False), ("2", "2", True), ("4", "0", True)])
def test_a_return_is_capped_by_sold_less_what_the_erp_has_back(quantity: str, back: str, held: bool) -> None:
    goods = Record("return", {"number": "R"}, {"1": {"order_line": "line:1", "quantity": Decimal(quantity)}})
    result = plan(goods, None, None, POLICY, _seen(Milestone.DELIVERED, returned=back))
    assert isinstance(result, Hold) is held


def test_a_refund_is_capped_by_what_was_paid() -> None:
    for gross, held in (("12", False), ("12.01", True)):
        refund = Record("refund", {"number": "G", "gross": Decimal(gross)})
        assert isinstance(plan(refund, None, None, POLICY, _seen(Milestone.PAID)), Hold) is held


def test_an_order_without_lines_is_never_made() -> None:
    assert isinstance(plan(replace(ORDER, lines={}), None, None, POLICY), Hold)
