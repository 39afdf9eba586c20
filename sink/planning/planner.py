"""Plans steps from three versions of a document: what the shop wants (desired), what the ERP was given last (applied)
and what the ERP shows (observed). Pure.

A table decides, which an accountant can read: one row per change that the shop can make, one column per state of the
ERP's document. `send` makes the change in the ERP. A sentence holds the change and says why, until a person has made it
there. An adapter may narrow a cell for a document (`may_not`), never widen it.

A hold keeps back only what it is about; the rest is sent at once. Fields that mean something only together form a
group, and a group is sent as a whole or not at all (`together`): all that adds up to an order's total, what was paid,
each address. So the ERP's document always adds up, and no payment waits for a price. This is the same whether the table
refuses a change, a person has changed the field in the ERP, rows are gone in the shop, or a return or refund exceeds
what was sold or paid. Some refusals are known only once the ERP has been asked: after one, payment and addresses are
sent first, and the rest by itself. A document that is held as a whole (deleted, taken back, unreadable, of a closed or
cancelled order) gets nothing.

Other changes are written before `cancel`, so that a cancelled order shows the shop's last figures. If the ERP cannot
cancel the order, its figures wait with the cancellation. An order that was cancelled before the ERP got it gets no
document.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, NamedTuple, TypeAlias

from sink.erp.contract import Change, Found, Observed, Step, Verb, basis
from sink.erp.kinds import ErpRecord, ErpRef, Kind, Milestone
from sink.planning.absence import Present, with_absent
from sink.planning.adoption import Target, adopt
from sink.planning.caps import cap
from sink.planning.changes import changes, done_by_hand, edited_in_erp, groups_of, of_groups, together
from sink.planning.decisions import agreed, with_overruled
from sink.planning.placeholder import as_booked
from sink.planning.policy import Check, Disputed, Hold, Policy
from sink.planning.together import FIGURES, after_others, as_in_erp, group_of, with_groups

SEND: Final = "send"
POSTED: Final = (
    "the ERP has invoiced it, and posted documents are not changed: credit it or invoice the difference there"
)
SHIPPED: Final = "goods have left: correct it with a return or a further delivery"
CLOSED: Final = "its accounting period is closed: book it in an open one"
UNDONE: Final = "it is cancelled in the ERP"

_BY_HAND: Final = (
    "do it by hand in the ERP, then `sink retry`; or, if the ERP is right as it is, `sink accept document`"
)
_CORRECT_ORDER: Final = "correct the order in the ERP, then `sink retry`"
_COLUMNS: Final = tuple(Milestone)
_Row = tuple[str, ...]

#                         draft  confirmed  processing  part delivered  delivered  invoiced  paid    closed  cancelled
_ORDER: Final[Mapping[Change, _Row]] = {
    "change prices":      (SEND, SEND,      SEND,       SEND,           SEND,      POSTED,   POSTED, CLOSED, UNDONE),
    "change tax rates":   (SEND, SEND,      SEND,       SEND,           SEND,      POSTED,   POSTED, CLOSED, UNDONE),
    "add charges":        (SEND, SEND,      SEND,       SEND,           SEND,      POSTED,   POSTED, CLOSED, UNDONE),
    "change quantities":  (SEND, SEND,      SEND,       SHIPPED,        SHIPPED,   POSTED,   POSTED, CLOSED, UNDONE),
    "add lines":          (SEND, SEND,      SEND,       SHIPPED,        SHIPPED,   POSTED,   POSTED, CLOSED, UNDONE),
    "change addresses":   (SEND, SEND,      SEND,       SHIPPED,        SHIPPED,   POSTED,   POSTED, CLOSED, UNDONE),
    "change payment":     (SEND, SEND,      SEND,       SEND,           SEND,      SEND,     SEND,   CLOSED, UNDONE),
    "change number":      (SEND, SEND,      SEND,       SHIPPED,        SHIPPED,   POSTED,   POSTED, CLOSED, UNDONE),
    "change head":        (SEND, SEND,      SEND,       SHIPPED,        SHIPPED,   POSTED,   POSTED, CLOSED, UNDONE),
    "cancel":             (SEND, SEND,      SEND,       SHIPPED,        SHIPPED,   POSTED,   POSTED, CLOSED, SEND),
    "reopen":             (UNDONE,) * 9,
    "return goods":       (SEND, SEND,      SEND,       SEND,           SEND,      SEND,     SEND,   CLOSED, UNDONE),
    "refund money":       (SEND, SEND,      SEND,       SEND,           SEND,      SEND,     SEND,   CLOSED, SEND),
}  # fmt: skip
_OTHER: Final[Mapping[Change, _Row]] = {
    "advance":            (SEND,) * 7 + (CLOSED, UNDONE),
    "change return":      (SEND, SEND,      SEND,       SHIPPED,        SHIPPED,   POSTED,   POSTED, CLOSED, UNDONE),
    "change refund":      (SEND, POSTED,    SEND,       POSTED,         POSTED,    POSTED,   POSTED, CLOSED, UNDONE),
    "change customer":    (SEND,) * 7 + (CLOSED, UNDONE),
    "change price list":  (SEND,) * 7 + (CLOSED, UNDONE),
    "remove price":       (SEND,) * 7 + (CLOSED, SEND),
}  # fmt: skip

# Why some cells are as they are:
# - "cancel" is sent although something came back or was refunded, since a cancelled order must not be delivered. The
#   return or credit note that is left behind is held instead (`_left_behind`), and a refund that comes later makes no
#   credit note (`_goal`).
# - "return goods" is sent for a draft: the shop has delivered, however far people have confirmed the order in the ERP.
#   The return moves nothing before somebody receives the goods. A hold would last too long: the ERP does not tell when
#   the order is confirmed.
# - "change refund" is sent in processing, where a refund is a draft credit note. A confirmed one may be posted.

TABLE: Final[Mapping[Change, Mapping[Milestone, str]]] = {
    change: dict(zip(_COLUMNS, cells, strict=True)) for change, cells in {**_ORDER, **_OTHER}.items()
}


class Standpoint(NamedTuple):
    """What the ledger knows of a document. `applied`: the record written last, None before the first create; `reached`:
    the milestone that we took it to, None if an earlier release did; `key`: that of the last step. `accepted`,
    `released`, `overruled`: a person's decisions; `refused`: the ERP refused the last step; `linked`: the ERP's
    document that a person has linked a not yet written one to."""

    applied: ErpRecord | None = None
    reached: Milestone | None = None
    key: int = 0
    accepted: tuple[Disputed, ...] = ()
    released: frozenset[str] = frozenset()
    refused: bool = False
    linked: Target | None = None
    overruled: tuple[Disputed, ...] = ()


class DoneByHand(NamedTuple):
    """A person has done in the ERP what the shop wants. Nothing is sent; from now on `record` counts as written, and
    the next plan is based on it. `found`: the ERP's document, if a restored ledger has forgotten it."""

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
    """The steps that make the ERP's document what the shop wants, or the hold.

    `desired`: None if the shop has deleted it. `observed`: what the ERP shows now. `order`: for a return or refund, its
    order in the ERP. If there are two steps, the second is planned again after the first.
    """
    if observed is not None and observed.milestone is None:
        return Hold(observed.problem, "correct it in the ERP, then `sink retry`", check=Check.UNREADABLE)
    if desired is None and Check.DELETED in ledger.released and observed:
        return _deleted_too(ref, ledger.applied or observed.record, ledger, observed)
    if desired is None:
        return _deleted(ref, ledger, observed, policy)
    if desired.kind == "price" and policy.prices_owner == "erp":
        return []
    if ledger.applied is None and ledger.linked and observed is None:
        return adopt(ref, desired, ledger.linked, ledger.key)
    capped, goal = _capped(ref, desired, order, ledger), _goal(desired.kind, policy, order)
    if ledger.applied is None:
        return _known_again(desired, observed, ledger) if observed else capped or _create(ref, desired, goal, ledger)
    if observed is None:
        return Hold(
            "it was made in the ERP and is no longer there; it is not made a second time",
            "restore it in the ERP, then `sink retry`",
            check=Check.LOST,
        )
    if behind := _left_behind(desired.kind, observed, policy, order):
        return behind
    present = with_absent(desired, ledger.applied, as_in_erp(ledger.applied, observed), policy.absent)
    return _changed(ref, present, ledger, observed, policy, capped, goal)


def _changed(
    ref: ErpRef,
    present: Present,
    ledger: Standpoint,
    observed: Observed,
    policy: Policy,
    capped: Hold | None,
    goal: Milestone,
) -> Plan:
    """Plans for a document that is in the ERP."""
    desired, applied = agreed(present.desired, ledger.applied or present.desired, observed, ledger.accepted)
    applied = with_overruled(applied, observed, ledger.overruled)
    if _refused("change quantities", observed):
        desired = as_booked(desired, applied, as_in_erp(applied, observed), policy.placeholder)
    held, there = _held(desired, applied, observed, capped), as_in_erp(applied, observed)
    # What the ERP already has needs no step, and the brake need not count it. Fields that the ERP does not give back
    # may have to be sent.
    as_wanted = held.hold.check != Check.CHANGED if held.hold else not changes(desired, there)
    if as_wanted and (done := done_by_hand(desired, applied, observed)):
        return DoneByHand(done)
    hold = held.hold or present.hold
    goes, noted = (with_groups(desired, held.groups, stays) for stays in (there, applied))
    left, steps = changes(noted, applied), _Steps(ref, observed, ledger)
    if not left:
        return hold or _advance(steps, desired, ledger, observed, goal)
    if "cancel" not in left:
        if ledger.refused and (later := after_others(groups_of(left, noted, applied))):
            goes, noted = with_groups(goes, later, there), with_groups(noted, later, applied)
            return [steps.make("amend", goes, None, noted)]
        left_to_reach = _left_to_reach(goal, ledger, observed)
        return [steps.make("amend", goes, left_to_reach, noted if hold else None)]
    if ledger.refused:
        # The ERP has refused the change before, and may refuse it again, which would block the cancellation. A
        # cancelled order comes to zero on both sides, whatever figures it shows.
        return [steps.make("cancel", _with(there, cancelled=True), Milestone.CANCELLED)]
    # Other changes come first, so that the cancelled order shows the shop's last figures.
    open_still, noted = _with(goes, cancelled=False), _with(noted, cancelled=False)
    amend = [] if left == {"cancel"} else [steps.make("amend", open_still, None, noted if hold else None)]
    return [*amend, steps.make("cancel", goes, Milestone.CANCELLED)]


def can_be_divided(step: Step, applied: ErpRecord | None) -> bool:
    """Whether a part of an amendment goes first once the ERP has refused the whole. `applied`: what was written before
    it."""
    if step.verb != "amend" or applied is None:
        return False
    return bool(after_others(groups_of(changes(step.written, applied), step.written, applied)))


class _Held(NamedTuple):
    """The hold on a part of a change, and the groups of fields that stay as the ERP has them."""

    hold: Hold | None
    groups: set[str]


def _held(desired: ErpRecord, applied: ErpRecord, observed: Observed, capped: Hold | None) -> _Held:
    """The first reason: a person's edit, then the table's rows in order. With all differing fields of its groups."""
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
    """Makes steps based on what was observed, with rising keys."""

    def __init__(self, ref: ErpRef, observed: Observed | None, ledger: Standpoint) -> None:
        self._ref = ref
        # A restored ledger counts from an older step, and the ERP would take the next keys for steps already done.
        self._key = max(ledger.key, observed.key if observed else 0)
        self._before = basis(observed)

    def make(self, verb: Verb, want: ErpRecord, goal: Milestone | None = None, noted: ErpRecord | None = None) -> Step:
        self._key += 1
        stays = self._before.milestone if self._before else Milestone.DRAFT
        return Step(self._ref, verb, want, self._before, goal or stays, self._key, noted=noted)


def _known_again(desired: ErpRecord, observed: Observed, ledger: Standpoint) -> DoneByHand | Hold:
    """The ERP has the document under its key, and a restored ledger has forgotten it. If it is as the shop wants it, it
    counts as written; otherwise a person has to say that it is this one."""
    if desired.kind == "customer":  # orders are booked to the number that the ERP has
        desired = replace(desired, fields={**desired.fields, "number": observed.record.fields.get("number")})
    there, over = as_in_erp(desired, observed), observed.milestone is Milestone.CANCELLED
    alike = not changes(desired, there) and over is bool(desired.fields.get("cancelled"))
    if alike or Check.STRANGER in ledger.released:
        return DoneByHand(there, observed)
    return Hold(
        "the ERP has a document with this key that the ledger knows nothing of, and it differs from the shop's",
        "was the ledger restored from a backup? Compare both; if it is another document, remove it from the ERP, then"
        " `sink retry`",
        check=Check.STRANGER,
    )


def _create(ref: ErpRef, desired: ErpRecord, goal: Milestone, ledger: Standpoint) -> list[Step] | Hold:
    if desired.fields.get("cancelled"):
        return []
    if desired.kind in ("order", "return") and not desired.parts.get("line"):
        return Hold(f"the {desired.kind} has no lines", "fix it in the shop", "data", Check.NO_LINES)
    return [_Steps(ref, None, ledger).make("create", desired, goal)]


def _goal(kind: Kind, policy: Policy, order: Found | None) -> Milestone:
    """The milestone that the document is taken to. While its order has no invoice, a refund has nothing to credit, and
    stays a draft until a later look. A cancelled order has none either."""
    at = order.observed.milestone if order else None
    without = at is None or at.before(Milestone.PROCESSING) or at is Milestone.CANCELLED
    return Milestone.DRAFT if kind == "refund" and without else policy.goal_of(kind)


def _left_behind(kind: Kind, observed: Observed, policy: Policy, order: Found | None) -> Hold | None:
    """The hold of a return or a credit note whose order has been cancelled since. A refund without a credit note only
    says that money went back, which is so."""
    if order is None or order.observed.milestone is not Milestone.CANCELLED or _is_over(observed):
        return None
    credited = Milestone.DRAFT is not policy.refund_goal and observed.milestone is not Milestone.DRAFT
    if kind == "refund" and not credited:
        return None
    void = "there is no invoice to credit" if kind == "refund" else "its goods never left"
    return Hold(
        f"its order: {UNDONE}, so {void}",
        f"cancel the {kind} there if it is void, and `sink accept document`",
        check=Check.ITS_ORDER,
    )


def _advance(
    steps: _Steps, desired: ErpRecord, ledger: Standpoint, observed: Observed, goal: Milestone
) -> list[Step] | Hold:
    """The step to the goal, if it is not reached yet."""
    if _left_to_reach(goal, ledger, observed) is None:
        return []
    return _refused("advance", observed) or [steps.make("advance", desired, goal)]


def _left_to_reach(goal: Milestone, ledger: Standpoint, observed: Observed) -> Milestone | None:
    """The goal, if our steps have not reached it. A document that a person has set back stays there."""
    if ledger.reached is None or not ledger.reached.before(goal):
        return None
    return goal if observed.milestone and observed.milestone.before(goal) else None


def _deleted(ref: ErpRef, ledger: Standpoint, observed: Observed | None, policy: Policy) -> list[Step] | Hold:
    """A delete in the shop is not a cancellation in itself: a shop also purges old orders."""
    if observed is None or _is_over(observed):
        return []
    applied = ledger.applied or observed.record  # a restored ledger has forgotten it
    if applied.kind == "price" and policy.prices_owner == "erp":
        return []
    becomes = policy.absent.of(applied.kind)
    if becomes == "keep":
        return []
    if becomes == "remove":
        return _removal(ref, applied, ledger, observed)
    begun = "change refund" in observed.may_not  # such as a credit note that a person has validated
    if becomes == "cancel_if_draft" and policy.is_draft(applied.kind, observed.milestone) and not begun:
        _, known = agreed(applied, applied, observed, ledger.accepted)
        known = with_overruled(known, observed, ledger.overruled)
        cancel = _Steps(ref, observed, ledger).make("cancel", _with(known, cancelled=True), Milestone.CANCELLED)
        return edited_in_erp(known, known, observed) or _refused("cancel", observed) or [cancel]
    return Hold(
        f"the {applied.kind} was deleted in the shop; the ERP still has it",
        f"cancel it in the ERP if it is void, then `sink retry`; with `absent.{applied.kind}s: keep` nobody is asked",
        check=Check.DELETED,
    )


def _deleted_too(ref: ErpRef, applied: ErpRecord, ledger: Standpoint, observed: Observed) -> list[Step] | Hold:
    """A person has released what the shop deleted: the ERP cancels it, too."""
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
    """Plans for a document that the ERP has and that the shop has set back to an unfinished state. A price is
    removed."""
    applied = ledger.applied
    if applied is None or applied.kind == "customer" or observed is None or _is_over(observed):
        return []
    if applied.kind == "price":
        return [] if policy.prices_owner == "erp" else _removal(ref, applied, ledger, observed)
    return Hold(
        "the shop has set it back to a state that is not ready; the ERP still has it",
        "cancel it in the ERP, or finish it in the shop, then `sink retry`",
        check=Check.TAKEN_BACK,
    )


def _is_over(observed: Observed | None) -> bool:
    return observed is None or observed.milestone is Milestone.CANCELLED


def _capped(ref: ErpRef, desired: ErpRecord, order: Found | None, ledger: Standpoint) -> Hold | None:
    if desired.kind not in ("return", "refund") or order is None:
        return None
    if order.observed.milestone is None:
        return Hold(f"its order: {order.observed.problem}", _CORRECT_ORDER, check=Check.UNREADABLE)
    change: Change = "return goods" if desired.kind == "return" else "refund money"
    if refused := _refused(change, order.observed, "its order: "):
        return refused if ledger.applied else refused._replace(next_step=_CORRECT_ORDER)
    return None if Check.CAP in ledger.released else cap(ref, desired, order)


def _refused(change: Change, observed: Observed, whose: str = "") -> Hold | None:
    cell = TABLE[change][observed.milestone] if observed.milestone else observed.problem
    if cell == SEND:
        cell = observed.may_not.get(change, SEND)
    check = Check.ITS_ORDER if whose else Check.POSTED
    return None if cell == SEND else Hold(f"{whose}{change}, but {cell}", _BY_HAND, check=check)
