"""What to do in the ERP: desired against applied against what the ERP shows. Pure, and ruled by a table.

The table is for an accountant to read: a row per change that the shop can make, a column per state that the ERP's
document can be in. `send` makes the change in the ERP; a sentence holds it and says why, until a person has made it
there. An adapter may narrow a cell for a document that it shows (`may_not`), never widen one.

What is held keeps nothing else: the rest goes at once. Fields that mean something only together are one group, and a
group goes as a whole or not at all (`together`): all that adds up to an order's total, what was paid, each address. So
whatever goes, the ERP's document adds up, and no payment waits for a price. This holds whether the table refuses a
change, a person has changed the field in the ERP, rows are gone in the shop, or a return or refund is more than was
sold or paid. A document that is held as such (deleted, taken back, not to be read, of a closed order) gets nothing.

What else the shop changed is written before `cancel`, so that a cancelled order shows the shop's last figures; those of
an order that the ERP cannot cancel wait with its cancellation. An order that was cancelled before the ERP was told of
it gets no document.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, NamedTuple, TypeAlias

from sink.erp.contract import Change, Found, Observed, Step, Verb, basis
from sink.erp.kinds import ErpRecord, ErpRef, Milestone
from sink.planning.absence import Present, with_absent
from sink.planning.adoption import Target, adopt
from sink.planning.caps import cap
from sink.planning.changes import changes, done_by_hand, edited_in_erp, groups_of, of_groups, together
from sink.planning.decisions import agreed, with_overruled
from sink.planning.placeholder import as_booked
from sink.planning.policy import Check, Disputed, Hold, Policy
from sink.planning.together import FIGURES, as_in_erp, group_of, with_groups

SEND: Final = "send"
POSTED: Final = (
    "the ERP has invoiced it, and posted documents are not changed: credit it or invoice the difference there"
)
SHIPPED: Final = "goods have left: correct it by a return or a further delivery"
CLOSED: Final = "its accounting period is closed: book it in an open one"
UNDONE: Final = "it is cancelled in the ERP"

_SETTLE: Final = "settle it in the ERP, then `sink retry`; or, where the ERP is right as it is, `sink accept document`"
_SETTLE_ORDER: Final = "settle it in the ERP, then `sink retry`"
_COLUMNS: Final = tuple(Milestone)
_Row = tuple[str, ...]

#                         draft  confirmed  processing  part delivered  delivered  invoiced  paid    closed  cancelled
_ORDER: Final[Mapping[Change, _Row]] = {
    "change prices":      (SEND, SEND,      SEND,       SEND,           SEND,      POSTED,   POSTED, CLOSED, UNDONE),
    "change quantities":  (SEND, SEND,      SEND,       SHIPPED,        SHIPPED,   POSTED,   POSTED, CLOSED, UNDONE),
    "add lines":          (SEND, SEND,      SEND,       SHIPPED,        SHIPPED,   POSTED,   POSTED, CLOSED, UNDONE),
    "change addresses":   (SEND, SEND,      SEND,       SHIPPED,        SHIPPED,   POSTED,   POSTED, CLOSED, UNDONE),
    "change payment":     (SEND, SEND,      SEND,       SEND,           SEND,      SEND,     SEND,   CLOSED, UNDONE),
    "change head":        (SEND, SEND,      SEND,       SHIPPED,        SHIPPED,   POSTED,   POSTED, CLOSED, UNDONE),
    "cancel":             (SEND, SEND,      SEND,       SHIPPED,        SHIPPED,   POSTED,   POSTED, CLOSED, SEND),
    "reopen":             (UNDONE,) * 9,
    "return goods":       (SEND, SEND,      SEND,       SEND,           SEND,      SEND,     SEND,   CLOSED, UNDONE),
    "refund money":       (SEND, SEND,      SEND,       SEND,           SEND,      SEND,     SEND,   CLOSED, SEND),
}  # fmt: skip
_OTHER: Final[Mapping[Change, _Row]] = {
    "advance":            (SEND,) * 7 + (CLOSED, UNDONE),
    "change return":      (SEND, SEND,      SEND,       SHIPPED,        SHIPPED,   POSTED,   POSTED, CLOSED, UNDONE),
    "change refund":      (SEND, POSTED,    POSTED,     POSTED,         POSTED,    POSTED,   POSTED, CLOSED, UNDONE),
    "change customer":    (SEND,) * 7 + (CLOSED, UNDONE),
    "change price list":  (SEND,) * 7 + (CLOSED, UNDONE),
    "remove price":       (SEND,) * 7 + (CLOSED, SEND),
}  # fmt: skip

TABLE: Final[Mapping[Change, Mapping[Milestone, str]]] = {
    change: dict(zip(_COLUMNS, cells, strict=True)) for change, cells in {**_ORDER, **_OTHER}.items()
}


class Standpoint(NamedTuple):
    """What the ledger knows of a document: what was written last (None before the first create), how far we took it
    (None where an earlier release did), and the key of the last step. `accepted`, `released`, `overruled`: what a
    person has said; `refused`: the ERP would not do the last step. `linked`: the ERP's document that a person has named
    for one that was never written."""

    applied: ErpRecord | None = None
    reached: Milestone | None = None
    key: int = 0
    accepted: tuple[Disputed, ...] = ()
    released: frozenset[str] = frozenset()
    refused: bool = False
    linked: Target | None = None
    overruled: tuple[Disputed, ...] = ()


class DoneByHand(NamedTuple):
    """A person has done in the ERP what the shop wants. Nothing is sent; `record` is what counts as written from now
    on, and what it leaves to be done is planned on it. `found`: the ERP's document, where the ledger has forgotten that
    it was made, as one from a back-up has."""

    record: ErpRecord
    found: Observed | None = None


Plan: TypeAlias = list[Step] | DoneByHand | Hold


def plan(
    ref: ErpRef,
    desired: ErpRecord | None,
    ledger: Standpoint,
    observed: Observed | None,
    policy: Policy,
    order: Found | None = None,
) -> Plan:
    """The steps that make the ERP's document what the shop wants, or why a person must look.

    desired: None when the shop has it no more. observed: what the ERP shows now. order: for returns and refunds, what
    the ERP shows of their order. Of several steps the second is planned anew once the first was done.
    """
    if observed is not None and observed.milestone is None:
        return Hold(observed.problem, "settle it in the ERP, then `sink retry`", check=Check.UNREADABLE)
    if desired is None and Check.DELETED in ledger.released and observed:
        return _deleted_too(ref, ledger.applied or observed.record, ledger, observed)
    if desired is None:
        return _deleted(ref, ledger, observed, policy)
    if desired.kind == "price" and policy.prices_owner == "erp":
        return []
    if ledger.applied is None and ledger.linked and observed is None:
        return adopt(ref, desired, ledger.linked, ledger.key)
    capped = _capped(ref, desired, order, ledger)
    if ledger.applied is None:
        return _known_again(desired, observed, ledger) if observed else capped or _create(ref, desired, policy, ledger)
    if observed is None:
        return Hold(
            "it was made in the ERP and is no longer there; it is not made a second time",
            "restore it in the ERP, then `sink retry`",
            check=Check.LOST,
        )
    present = with_absent(desired, ledger.applied, as_in_erp(ledger.applied, observed), policy.absent)
    return _changed(ref, present, ledger, observed, policy, capped)


def _changed(
    ref: ErpRef, present: Present, ledger: Standpoint, observed: Observed, policy: Policy, capped: Hold | None
) -> Plan:
    """Of a document that is in the ERP."""
    desired, applied = agreed(present.desired, ledger.applied or present.desired, observed, ledger.accepted)
    applied = with_overruled(applied, observed, ledger.overruled)
    if _refused("change quantities", observed):
        desired = as_booked(desired, applied, as_in_erp(applied, observed), policy.placeholder)
    held, there = _held(desired, applied, observed, capped), as_in_erp(applied, observed)
    # What the ERP has already needs no step, nor a look of the brake at it; what it does not show may have to be sent.
    as_wanted = held.hold.check != Check.CHANGED if held.hold else not changes(desired, there)
    if as_wanted and (done := done_by_hand(desired, applied, observed)):
        return DoneByHand(done)
    hold = held.hold or present.hold
    goes, noted = (with_groups(desired, held.groups, stays) for stays in (there, applied))
    left, steps = changes(noted, applied), _Steps(ref, observed, ledger)
    if not left:
        return hold or _advance(steps, desired, ledger, observed, policy)
    if "cancel" not in left:
        goal = _left_to_reach(desired, ledger, observed, policy)
        return [steps.make("amend", goes, goal, noted if hold else None)]
    if ledger.refused:
        # Cancelled is cancelled, and its money is zero on both sides, whatever figures the ERP's order shows last. What
        # it refused once it may refuse again, and that would keep the cancellation.
        return [steps.make("cancel", _with(there, cancelled=True), Milestone.CANCELLED)]
    # What else changed comes first: the ERP's cancelled order shows the shop's last figures.
    open_still, noted = _with(goes, cancelled=False), _with(noted, cancelled=False)
    amend = [] if left == {"cancel"} else [steps.make("amend", open_still, None, noted if hold else None)]
    return [*amend, steps.make("cancel", goes, Milestone.CANCELLED)]


class _Held(NamedTuple):
    """Why something of a change is held, and the groups of fields that stay as the ERP has them by it."""

    hold: Hold | None
    groups: set[str]


def _held(desired: ErpRecord, applied: ErpRecord, observed: Observed, capped: Hold | None) -> _Held:
    """The first reason: a person's edit, then by the table's order; with all fields of its groups that differ."""
    wanted = changes(desired, applied)
    edited = edited_in_erp(desired, applied, observed)
    theirs = {group_of(desired.kind, one.part, one.name) for one in edited.disputed} if edited else set()
    refused = {change: hold for change in TABLE if change in wanted and (hold := _refused(change, observed))}
    ours = groups_of(refused, desired, applied)
    if "cancel" in refused:
        ours.add(FIGURES)
    if capped and wanted:
        over = groups_of(wanted, desired, applied)
        over = over & {FIGURES} if capped.check is Check.CAP else over
    else:
        over = set()
    groups = theirs | ours | over
    if edited:
        more = of_groups(desired, applied, observed, theirs)
        return _Held(edited._replace(disputed=together(edited.disputed, more)), groups)
    if refused:
        first = next(iter(refused.values()))
        return _Held(first._replace(disputed=of_groups(desired, applied, observed, ours)), groups)
    return _Held(capped if over else None, groups)


def _with(record: ErpRecord, cancelled: bool) -> ErpRecord:
    return replace(record, fields={**record.fields, "cancelled": cancelled})


class _Steps:
    """Makes steps on what was observed, with rising keys."""

    def __init__(self, ref: ErpRef, observed: Observed | None, ledger: Standpoint) -> None:
        self._ref = ref
        # A ledger from a backup counts from an older step; the ERP would take the next ones for done already.
        self._key = max(ledger.key, observed.key if observed else 0)
        self._before = basis(observed)

    def make(self, verb: Verb, want: ErpRecord, goal: Milestone | None = None, noted: ErpRecord | None = None) -> Step:
        self._key += 1
        stays = self._before.milestone if self._before else Milestone.DRAFT
        return Step(self._ref, verb, want, self._before, goal or stays, self._key, noted=noted)


def _known_again(desired: ErpRecord, observed: Observed, ledger: Standpoint) -> DoneByHand | Hold:
    """Of a document that the ERP has under its key and that the ledger, one from a back-up, has forgotten. Where it is
    as the shop wants it there is nothing to do; of another a person says that it is this one."""
    if desired.kind == "customer":  # the ERP's orders are booked to the number that it has
        desired = replace(desired, fields={**desired.fields, "number": observed.record.fields.get("number")})
    there, over = as_in_erp(desired, observed), observed.milestone is Milestone.CANCELLED
    alike = not changes(desired, there) and over is bool(desired.fields.get("cancelled"))
    if alike or Check.STRANGER in ledger.released:
        return DoneByHand(there, observed)
    return Hold(
        "the ERP has a document with this key that the ledger knows nothing of, and it is not as the shop has it",
        "was the ledger restored from a back-up? Compare both; if it is another one, take it out of the ERP, then"
        " `sink retry`",
        check=Check.STRANGER,
    )


def _create(ref: ErpRef, desired: ErpRecord, policy: Policy, ledger: Standpoint) -> list[Step] | Hold:
    if desired.fields.get("cancelled"):
        return []
    if desired.kind in ("order", "return") and not desired.parts.get("line"):
        return Hold(f"the {desired.kind} has no lines", "mend it in the shop", "data", Check.NO_LINES)
    return [_Steps(ref, None, ledger).make("create", desired, policy.goal_of(desired.kind))]


def _advance(
    steps: _Steps, desired: ErpRecord, ledger: Standpoint, observed: Observed, policy: Policy
) -> list[Step] | Hold:
    """On to the goal, where we did not come so far yet."""
    goal = _left_to_reach(desired, ledger, observed, policy)
    if goal is None:
        return []
    return _refused("advance", observed) or [steps.make("advance", desired, goal)]


def _left_to_reach(desired: ErpRecord, ledger: Standpoint, observed: Observed, policy: Policy) -> Milestone | None:
    """The goal, if an earlier step did not come so far. What a person set back stays there."""
    goal = policy.goal_of(desired.kind)
    if ledger.reached is None or not ledger.reached.before(goal):
        return None
    return goal if observed.milestone and observed.milestone.before(goal) else None


def _deleted(ref: ErpRef, ledger: Standpoint, observed: Observed | None, policy: Policy) -> list[Step] | Hold:
    """A delete in the shop is not by itself a cancellation: a shop purges old orders too."""
    if observed is None or _is_over(observed):
        return []
    applied = ledger.applied or observed.record  # a ledger from a back-up has forgotten it
    if applied.kind == "price" and policy.prices_owner == "erp":
        return []
    becomes = policy.absent.of(applied.kind)
    if becomes == "keep":
        return []
    if becomes == "remove":
        return _removal(ref, applied, ledger, observed)
    if becomes == "cancel_if_draft" and observed.milestone is Milestone.DRAFT:
        _, known = agreed(applied, applied, observed, ledger.accepted)
        known = with_overruled(known, observed, ledger.overruled)
        cancel = _Steps(ref, observed, ledger).make("cancel", _with(known, cancelled=True), Milestone.CANCELLED)
        return edited_in_erp(known, known, observed) or _refused("cancel", observed) or [cancel]
    return Hold(
        f"the {applied.kind} was deleted in the shop; the ERP has it still",
        f"cancel it in the ERP if it is void, then `sink retry`; absent.{applied.kind}s: keep asks for none of them",
        check=Check.DELETED,
    )


def _deleted_too(ref: ErpRef, applied: ErpRecord, ledger: Standpoint, observed: Observed) -> list[Step] | Hold:
    """What the shop has deleted, by a person's word."""
    if _is_over(observed):
        return []
    if applied.kind == "price":
        return _removal(ref, applied, ledger, observed)
    steps = _Steps(ref, observed, ledger)
    return _refused("cancel", observed) or [steps.make("cancel", _with(applied, cancelled=True), Milestone.CANCELLED)]


def _removal(ref: ErpRef, applied: ErpRecord, ledger: Standpoint, observed: Observed) -> list[Step] | Hold:
    removal = _Steps(ref, observed, ledger).make("remove", applied, Milestone.CANCELLED)
    return _refused("remove price", observed) or [removal]


def taken_back(ref: ErpRef, ledger: Standpoint, observed: Observed | None, policy: Policy) -> list[Step] | Hold:
    """Of a document that the ERP was given, and that is not ready any more in the shop. A price is over then."""
    applied = ledger.applied
    if applied is None or applied.kind == "customer" or observed is None or _is_over(observed):
        return []
    if applied.kind == "price":
        return [] if policy.prices_owner == "erp" else _removal(ref, applied, ledger, observed)
    return Hold(
        "the shop has taken it back to a state that is not ready; the ERP has it still",
        "cancel it in the ERP, or make it ready in the shop, then `sink retry`",
        check=Check.TAKEN_BACK,
    )


def _is_over(observed: Observed | None) -> bool:
    return observed is None or observed.milestone is Milestone.CANCELLED


def _capped(ref: ErpRef, desired: ErpRecord, order: Found | None, ledger: Standpoint) -> Hold | None:
    if desired.kind not in ("return", "refund") or order is None:
        return None
    if order.observed.milestone is None:
        return Hold(f"its order: {order.observed.problem}", _SETTLE_ORDER, check=Check.UNREADABLE)
    change: Change = "return goods" if desired.kind == "return" else "refund money"
    if refused := _refused(change, order.observed, "its order: "):
        return refused if ledger.applied else refused._replace(next_step=_SETTLE_ORDER)
    return None if Check.CAP in ledger.released else cap(ref, desired, order)


def _refused(change: Change, observed: Observed, whose: str = "") -> Hold | None:
    cell = TABLE[change][observed.milestone] if observed.milestone else observed.problem
    if cell == SEND:
        cell = observed.may_not.get(change, SEND)
    check = Check.ITS_ORDER if whose else Check.POSTED
    return None if cell == SEND else Hold(f"{whose}{change}, but {cell}", _SETTLE, check=check)
