"""The next call of a step on a sale, and how far a step came: both read off the sale as it is. Pure.

So a step that was interrupted continues where it stopped. Its key is written with its content. In processing, the
amendment has the key first; a write to the sale follows. The buttons that move a sale on write no key: its state tells
how far they came.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from sink.erp.contract import ConflictError, HoldError, HowFar, NotDone, Observed, Step, StepResult
from sink.erp.kinds import ErpRecord, Milestone, not_kept
from sink.erp.tryton import came_of, edits, sales
from sink.erp.tryton.edits import Edit
from sink.erp.tryton.sales import SaleStamp

Row = Mapping[str, Any]

SALE: Final = "sale.sale"
SLIP: Final = "sale.amendment"
_ON: Final = {"draft": "quote", "quotation": "confirm", "confirmed": "process"}
"""The button that moves a sale on from a state."""
_UNTOUCHED: Final = frozenset({*_ON.values(), "draft"})
"""Buttons that change nothing that the shop owns."""
_GONE: Final = HoldError("it is no longer in the ERP", "restore it there, then `sink retry`")


@dataclass(frozen=True)
class Sale:
    """A sale as Tryton has it, and as the planner sees it. `lines`: an order's sold lines, by our keys."""

    row: Row
    observed: Observed
    lines: Mapping[str, Row] = field(default_factory=dict)


class Call(NamedTuple):
    """The next call for one sale. Calls of the same model and method are sent as one: their `args` are joined, as ids
    for a button or values for a create. `page`: for a wizard, which takes one sale at a time."""

    model: str
    method: str
    args: tuple[Any, ...]
    page: Mapping[str, Any] | None = None

    def leaves(self, record: ErpRecord) -> str:
        """A digest of what the call must leave as it is: all that the shop owns, or what a slip does not change. "" for
        other writes: their outcome is compared with what is wanted."""
        if self.method in _UNTOUCHED:
            return sales.content(record)
        slips = self.model == SLIP or (self.method == "write" and "amendments" in self.args[1])
        return sales.beside_slips(record) if slips else ""


def known(step: Step, sale: Sale | None, target: str) -> StepResult | None:
    """The result if it is known without a call; None if the step must be started or continued."""
    if sale is None:
        return None if step.verb == "create" else NotDone(_GONE)
    seen = sale.observed
    kept = seen.key == step.key and not not_kept(step.want, seen.record)
    if step.verb == "create":
        return None if kept else NotDone(ConflictError(f"the {step.ref.kind} was made meanwhile"))
    if seen.key > step.key:
        return NotDone(ConflictError("a later step was done already"))
    if step.verb == "amend" and kept:
        return None
    if _is_done(step, seen, target):
        return seen
    if step.before is None or step.before.stamp != seen.stamp:
        return NotDone(ConflictError("it changed in the ERP meanwhile"))
    return None


def following(step: Step, sale: Sale, values: Row | None, target: str, last: Call | None = None) -> Call | None:
    """The next call; None if nothing is left to do. values: what an amend must write. last: this step's call before.
    HoldError if Tryton cannot do it."""
    if step.verb == "cancel":
        return _cancelling(sale, last)
    if step.verb == "amend" and values and (change := edits.edit({**values, **commented(step, sale.row)}, sale.row)):
        return _changing(step, sale.row, change)
    if _rank(sale.row["state"]) < _rank(target):
        return _button(_ON[sale.row["state"]], sale.row)
    return None


def commented(step: Step, row: Row | None) -> dict[str, str]:
    """The comment with our line in it, beside what people may have typed between two calls of ours."""
    text = row["comment"] if row else None
    return {"comment": sales.comment(step.ref.kind, text, step.want.fields, step.key)}


def how_far(step: Step, seen: Observed | None, target: str) -> HowFar:
    """How far a step in doubt came."""
    if seen is None:
        return HowFar.NOT_DONE
    if seen.milestone is None:
        return HowFar.UNCLEAR
    cancelled = seen.milestone is Milestone.CANCELLED
    there = cancelled if step.verb == "cancel" else cancelled or _at(seen, target)
    if seen.key > step.key or (there and _written(step, seen)):
        return HowFar.DONE
    if step.verb == "create" or (step.verb == "amend" and seen.key == step.key):
        return HowFar.PARTLY
    if step.before is None or step.before.stamp == seen.stamp:
        return HowFar.NOT_DONE
    begun = _may_have_begun(step, sales.standing(step.before.stamp), sales.standing(seen.stamp))
    return HowFar.PARTLY if begun else HowFar.NOT_DONE


def _may_have_begun(step: Step, was: SaleStamp, now: SaleStamp) -> bool:
    """Whether the sale is in a state that this step passes through. If somebody else brought it there, the step
    continues all the same: it would be planned like this again. Changed content is ours if our own slip was the last to
    be validated since, and what no slip changes is as it was."""
    if step.verb == "amend" and now.amended_by == step.key != was.amended_by and was.beside in ("", now.beside):
        return True
    if was.content != now.content:
        return False
    if step.verb == "advance":
        return now.state in sales.STATES and _rank(now.state) > _rank(was.state)
    reopened = now.state == "draft" != was.state
    if step.verb == "amend":
        return reopened or now.slips > was.slips
    return reopened or "exception" in (now.invoice, now.shipment)


def _is_done(step: Step, seen: Observed, target: str) -> bool:
    """Whether a step that writes no content is done."""
    cancelled = seen.milestone is Milestone.CANCELLED
    return cancelled if step.verb == "cancel" else step.verb == "advance" and not cancelled and _at(seen, target)


def _at(seen: Observed, target: str) -> bool:
    return _rank(seen.state) >= _rank(target)


def _written(step: Step, seen: Observed) -> bool:
    return step.verb in ("advance", "cancel") or seen.key == step.key


def _changing(step: Step, row: Row, change: Edit) -> Call:
    state = row["state"]
    if state == "draft":
        return Call(SALE, "write", ([row["id"]], edits.as_write(change, row)))
    if state not in ("quotation", "confirmed", "processing", "done"):
        raise HoldError("it is cancelled in the ERP", "open it again there, then `sink retry`")
    if state in ("quotation", "confirmed"):
        return _notes(change, row) if edits.is_notes(change) else _button("draft", row)
    change = edits.in_processing(change, row)
    slip = edits.as_slip(change, row)
    if not slip:
        return _notes(change, row)
    mark = sales.slip_of(step.key)
    for one in row["amendments."]:
        if (one["description"], one["state"]) == (mark, "draft"):
            return Call(SLIP, "validate_amendment", (one["id"],))
    # Written through the sale, which has its stamp: else a call that arrives twice would make a second slip.
    made = {"description": mark, "lines": [("create", slip)]}
    over = [("delete", ids)] if (ids := sales.own_open_slips(row)) else []
    return Call(SALE, "write", ([row["id"]], {"amendments": [*over, ("create", [made])]}))


def _notes(change: Edit, row: Row) -> Call:
    return Call(SALE, "write", ([row["id"]], edits.as_notes(change)))


def _button(name: str, row: Row) -> Call:
    return Call(SALE, name, (row["id"],))


def _cancelling(sale: Sale, last: Call | None) -> Call | None:
    """In processing: first cancels what the sale led to, then answers the two questions that Tryton asks about it. If
    Tryton works by its queue, the sale may not show yet what was done: then Tryton is asked to look at it now."""
    row, state = sale.row, sale.row["state"]
    if sale.observed.milestone is Milestone.CANCELLED:
        return None
    if state in ("draft", "quotation"):
        return _button("cancel", row)
    if state == "confirmed":
        return _button("draft", row)
    _refuse_cancel(row)
    call = _cancelling_one(row) or _asking(row)
    answered = call is not None and call == last and call.page is not None
    if answered or (call is None and _is_behind(row)):
        call = _button("process", row)
    if call is None or call == last:
        raise HoldError("Tryton cannot take it back", "cancel it in Tryton by hand, then `sink retry`")
    return call


def _cancelling_one(row: Row) -> Call | None:
    """The next cancel call: shipments, which are cancelled once all their moves are, then returns of goods, then
    invoices."""
    there = [name.partition(",") for name in came_of.shipments(row)]
    for model in (came_of.SHIPMENT, came_of.TAKEN_BACK):
        if ids := sorted(int(id_) for of, _, id_ in there if of == model):
            return Call(model, "cancel", tuple(ids))
    open_ = sorted(id_ for id_, one in came_of.invoices(row).items() if one["state"] != "cancelled")
    return Call(came_of.INVOICE, "cancel", tuple(open_)) if open_ else None


def _asking(row: Row) -> Call | None:
    """The answer to the next question of Tryton's."""
    if row["shipment_state"] == "exception":
        ids = [move["id"] for move in came_of.moves(row) if move["state"] == "cancelled"]
        return _asked(row, "shipment", "moves", ids)
    if row["invoice_state"] == "exception":
        return _asked(row, "invoice", "invoices", sorted(came_of.invoices(row)))
    return None


def _is_behind(row: Row) -> bool:
    """Whether Tryton's queue has not looked at the sale since all that came of it was cancelled."""
    open_ = any(move["state"] != "cancelled" for move in came_of.moves(row))
    return not open_ and (row["shipment_state"] != "none" or row["invoice_state"] not in ("none", "paid"))


def _refuse_cancel(row: Row) -> None:
    """Refuses before the first write: half a cancellation would be worse than none."""
    if came_of.gone(row):
        raise HoldError("goods have left", "take them back by a return, then `sink retry`")
    if came_of.posted(row):
        raise HoldError("its invoice is posted", "credit it in Tryton, then `sink retry`")
    if reason := came_of.may_not(row).get("cancel"):
        raise HoldError(reason, edits.BY_A_PERSON)


def _asked(row: Row, what: str, name: str, ids: list[int]) -> Call:
    """Answers a question of Tryton's: what was cancelled is not made again."""
    page = {"ask": {f"ignore_{name}": ids, f"recreate_{name}": [], f"domain_{name}": ids}}
    return Call(f"sale.handle.{what}.exception", "handle", (row["id"],), page)


def _rank(state: str) -> int:
    """The place of a state in the order of states; a cancelled sale comes after all others."""
    return sales.STATES.index(state) if state in sales.STATES else len(sales.STATES)
