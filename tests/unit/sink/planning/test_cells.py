"""The planner's table, cell by cell, in an accountant's words; on ERPs: tests/erp_contract/test_cells.py."""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

import pytest

from sink.erp.contract import Found, Moved, Observed
from sink.erp.kinds import ErpRecord, ErpRef, Milestone
from sink.planning.planner import DoneByHand, Standpoint, plan
from sink.planning.policy import Hold, Policy
from tests.erp_contract.cells import CELLS, EXCHANGED, EXCHANGES, ORDER, Cell
from tests.erp_contract.records import REF, SALE


def _seen(record: ErpRecord, milestone: Milestone) -> Observed:
    """The document as an ERP shows it, where the state tells whether it is cancelled."""
    fields = {name: value for name, value in record.fields.items() if name != "cancelled"}
    paid = fields.get("paid")
    return Observed(
        replace(record, fields=fields), milestone, "1", "stamp", 1, paid=paid if isinstance(paid, Decimal) else None
    )


def _order(cell: Cell) -> Found:
    """The order of a cell as the ERP shows it, with its returns and refunds."""
    moved: dict[str, dict[str, Decimal]] = {}
    refunded: dict[str, Decimal] = {}
    for ref, record in cell.beside:
        if ref.kind == "refund":
            refunded[ref.external] = _number(record.fields, "gross")
        for row in record.parts.get("line", {}).values():
            sold = row["order_line"]
            assert isinstance(sold, ErpRef)
            moved.setdefault(ORDER.part_and_key(sold.external)[1], {})[ref.external] = _number(row, "quantity")
    seen = _seen(cell.sold, cell.order)
    return Found(ORDER, replace(seen, moved={key: Moved(by) for key, by in moved.items()}, refunded=refunded))


def _number(fields: Mapping[str, object], name: str) -> Decimal:
    value = fields[name]
    assert isinstance(value, Decimal)
    return value


@pytest.mark.parametrize("cell", [pytest.param(one, id=one.name) for one in CELLS])
def test_a_cell_of_the_planners_table(cell: Cell) -> None:
    order = None if cell.ref.kind == "order" else _order(cell)
    seen = _seen(cell.was, cell.at) if cell.was else None
    found = plan(cell.ref, cell.wants, Standpoint(cell.was, key=1), seen, cell.policy, order)
    if cell.reason:
        assert isinstance(found, Hold), found
        assert cell.reason in found.reason
        assert found.next_step
        return
    if isinstance(found, DoneByHand):
        assert (cell.verbs, found.record) == ((), cell.wants)
        return
    assert isinstance(found, list), found
    assert [step.verb for step in found] == list(cell.verbs)
    if cell.wants:
        assert found[-1].want == cell.wants


@pytest.mark.parametrize("at", EXCHANGES)
def test_an_exchange(at: Milestone) -> None:
    """The order is sent first."""
    sold = SALE
    for wants, was, reason in zip(EXCHANGED, (SALE, None), EXCHANGES[at], strict=True):
        order, seen = Found(ORDER, _seen(sold, at)), _seen(was, at) if was else None
        found = plan(REF[wants.kind], wants, Standpoint(was, key=1), seen, Policy("shop"), order)
        if reason:
            assert isinstance(found, Hold)
            assert reason in found.reason
            continue
        assert isinstance(found, list)
        assert [step.want for step in found] == [wants]
        sold = wants if wants.kind == "order" else sold


def test_no_cell_is_there_twice() -> None:
    assert len({one.name for one in CELLS}) == len(CELLS)
