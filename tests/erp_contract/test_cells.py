"""The planner's table on each ERP. Possible steps are done, and read back as the shop has them.

All cells of a group are documents of one ERP. Their steps are sent together, like a batch of the sink.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import pytest

from sink.erp.contract import Found, HoldError, NotDone, Observed, Step, StepResult, basis
from sink.erp.kinds import ErpRecord, ErpRef, Fields, Milestone, not_kept
from sink.planning.planner import Plan, Standpoint, plan
from sink.planning.policy import Hold
from tests.erp_contract.cells import EXCHANGED, EXCHANGES, GROUPS, OPEN, ORDER, Cell
from tests.erp_contract.records import REF, SALE, Sink, create
from tests.erp_contract.target import Target


@dataclass
class _Tried:
    """A cell with keys of its own. `became`: why it was held, or "done"."""

    cell: Cell
    number: int
    applied: ErpRecord | None = None
    seen: Observed | None = None
    verbs: tuple[str, ...] = ()
    became: str = ""

    @property
    def ref(self) -> ErpRef:
        return ErpRef(self.cell.ref.kind, f"shop/{self.cell.ref.kind}/{self.number}/1")

    @property
    def order(self) -> ErpRef:
        return ErpRef("order", f"shop/order/{self.number}/1")

    def own(self, record: ErpRecord | None) -> ErpRecord | None:
        """The cell's record, with links to its own order."""
        if record is None:
            return None
        parts = {part: {key: self._of(row) for key, row in rows.items()} for part, rows in record.parts.items()}
        return replace(record, fields=self._of(record.fields), parts=parts)

    def _of(self, fields: Fields) -> Fields:
        return {
            name: ErpRef(value.kind, value.external.replace(ORDER.external, self.order.external, 1))
            if isinstance(value, ErpRef)
            else value
            for name, value in fields.items()
        }

    def plan(self, found: Mapping[ErpRef, Observed]) -> Plan:
        order = None if self.ref.kind == "order" else Found(self.order, found[self.order])
        self.seen = found.get(self.ref)
        ledger = Standpoint(self.applied, key=1)
        return plan(self.ref, self.own(self.cell.wants), ledger, self.seen, self.cell.policy, order)


def _made(target: Target, sink: Sink, wanted: Iterable[tuple[ErpRef, ErpRecord | None, Milestone]]) -> None:
    """Makes documents, and lets the clerk take them to their milestones: the premise of each cell."""
    there = [(ref, record, at) for ref, record, at in wanted if record]
    steps = [
        replace(create(_shown(one), ref), goal=at if at in OPEN else create(one, ref).goal) for ref, one, at in there
    ]
    for result in sink.apply(*steps):
        assert isinstance(result, Observed), result
    set_by_clerk = {ref: at for ref, _, at in there if at not in OPEN}
    for ref, at in set_by_clerk.items():
        target.clerk.sets(ref, at)
    assert {ref: seen.milestone for ref, seen in sink.erp.observe([*set_by_clerk]).items()} == set_by_clerk


def _shown(record: ErpRecord) -> ErpRecord:
    """The record before it was cancelled."""
    cancelled = {"cancelled": False} if record.fields.get("cancelled") else {}
    return replace(record, fields={**record.fields, **cancelled})


def _set_up(target: Target, sink: Sink, tried: Sequence[_Tried]) -> None:
    sink.seed("customer")
    orders, of_orders = ([one for one in tried if (one.ref.kind == "order") is alone] for alone in (True, False))
    _made(target, sink, [(one.order, one.own(one.cell.sold), one.cell.order) for one in of_orders])
    _made(target, sink, [(one.ref, one.own(one.cell.was), one.cell.at) for one in orders])
    for one in tried:
        beside = enumerate(one.cell.beside)
        _made(target, sink, [
            (ErpRef(ref.kind, f"shop/{ref.kind}/{one.number}b{n}/1"), one.own(record), Milestone.CONFIRMED)
            for n, (ref, record) in beside
        ])  # fmt: skip
    _made(target, sink, [(one.ref, one.own(one.cell.was), one.cell.at) for one in of_orders])
    for one in tried:
        one.applied = one.own(one.cell.was)


def _round(sink: Sink, tried: Sequence[_Tried]) -> list[_Tried]:
    """Plans all cells after one look, and applies their first steps in one call. Returns those that need more."""
    found = sink.erp.observe([ref for one in tried for ref in (one.ref, one.order)])
    steps: dict[int, Step] = {}
    for one in tried:
        planned = one.plan(found)
        if isinstance(planned, list) and planned:
            steps[one.number] = planned[0]
        else:
            one.became = f"held: {planned.reason}; {planned.next_step}" if isinstance(planned, Hold) else "done"
    going = [one for one in tried if one.number in steps]
    for one, result in zip(going, sink.apply(*steps.values()), strict=True):
        one.verbs += (steps[one.number].verb,)
        if isinstance(result, Observed):
            one.applied = steps[one.number].written
        else:
            one.became = _refused(sink, one, result)
    return [one for one in going if not one.became]


def _refused(sink: Sink, one: _Tried, result: StepResult) -> str:
    """Why the ERP refused it, which must be before the first write."""
    assert isinstance(result, NotDone)
    now = sink.erp.observe([one.ref]).get(one.ref)
    if not isinstance(result.error, HoldError) or (now and now.record) != (one.seen and one.seen.record):
        return f"broken: {result}"
    if basis(now) != basis(one.seen):
        return f"half done: {result}"
    return f"held: {result.error.message}; {result.error.hint}"


def _wrong(sink: Sink, one: _Tried, narrows: Mapping[str, str]) -> str:
    """How the outcome differs from the cell; "" if it does not."""
    if reason := one.cell.reason or narrows.get(one.cell.name):
        _, _, way_out = one.became.partition("; ")
        if not (one.became.startswith("held") and reason in one.became and way_out):
            return f"not held: {one.became}"
        return "" if one.cell.reason else _paid(sink, one)
    if one.became != "done" or one.verbs != one.cell.verbs:
        return f"{' '.join(one.verbs)} {one.became}"
    seen, wants = sink.see(one.ref), one.own(one.cell.wants)
    if (seen.milestone is Milestone.CANCELLED) != ("cancel" in one.verbs or one.cell.at is Milestone.CANCELLED):
        return f"it is {seen.milestone}"
    return not_kept(wants, seen.record) if wants else ""


def _paid(sink: Sink, one: _Tried) -> str:
    """What the ERP says was paid, if it is not what the shop says: what it cannot change must not keep that back."""
    assert one.cell.wants
    wants, has = one.cell.wants.fields["paid"], sink.see(one.ref).record.fields["paid"]
    return "" if wants == has else f"paid: {has}"


@pytest.mark.parametrize("group", GROUPS)
def test_the_planners_table(target: Target, sink: Sink, group: str) -> None:
    tried = [_Tried(cell, number) for number, cell in enumerate(GROUPS[group], 1)]
    _set_up(target, sink, tried)
    going: list[_Tried] = tried
    for _ in range(4):
        going = _round(sink, going) if going else []
    wrong = {one.cell.name: said for one in tried if (said := _wrong(sink, one, target.can.narrows))}
    assert wrong == {}


@pytest.mark.parametrize("at", EXCHANGES)
def test_an_exchange(target: Target, sink: Sink, at: Milestone) -> None:
    sink.seed("customer")
    _made(target, sink, [(ORDER, SALE, at)])
    for wants, was, reason in zip(EXCHANGED, (SALE, None), EXCHANGES[at], strict=True):
        ref = REF[wants.kind]
        if reason:
            assert reason in sink.held(ref, wants, was)
        else:
            sink.done(sink.planned(ref, wants, was))
            assert not_kept(wants, sink.see(ref).record) == ""


def test_narrowed_cells_are_cells(target: Target) -> None:
    cells = {cell.name for some in GROUPS.values() for cell in some if not cell.reason}
    assert {*target.can.narrows} <= cells
