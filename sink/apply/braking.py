"""Which steps the brake stops, because too many like them were sent recently."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog

from sink.database import Cursor
from sink.documents.records import to_json
from sink.erp.contract import Step
from sink.ledger import brake
from sink.ledger.brake import Back, Limit
from sink.ledger.documents import Entry
from sink.ledger.outcomes import Outcome
from sink.planning.brake import Brake, Mass, counted
from sink.planning.policy import Check

log = structlog.get_logger()
_NEXT: Final = "`sink brake` shows them; `sink release --mass --person NAME` releases them, or undo them in the shop"


def held_back(cursor: Cursor, limits: Brake, asked: Sequence[tuple[Entry, Step]]) -> list[tuple[Entry, Outcome]]:
    """The documents whose steps may not be sent, each with its outcome, which the caller writes.

    Call it in the transaction that writes the intents, before that locks units. A step with an intent was counted when
    the intent was written; one that a person has let pass is not counted.
    """
    counts: dict[Mass, list[tuple[Entry, Step]]] = {}
    new = [(kind, one, step) for one, step in asked if not one.intent and (kind := _counted(one, step, limits))]
    passed = brake.passed(cursor, [one.ref for _, one, _ in new])
    for kind, one, step in new:
        if one.ref not in passed:
            counts.setdefault(kind, []).append((one, step))
    outcomes: list[tuple[Entry, Outcome]] = []
    for kind in sorted(counts):
        passing, reason = brake.admit(cursor, kind, [one.ref for one, _ in counts[kind]], _limit(kind, limits))
        back = [(one, step) for one, step in counts[kind] if one.ref not in passing]
        if back:
            log.warning("the brake holds changes back", kind=kind, documents=len(back), reason=reason, next=_NEXT)
            brake.hold_back(
                cursor, [Back(one.ref, kind, one.marked, step.verb, to_json(step.want)) for one, step in back]
            )
        outcomes += [(one, Outcome.held(reason, _NEXT, "decision", None, Check.BRAKE)) for one, _ in back]
    return outcomes


def _counted(one: Entry, step: Step, limits: Brake) -> Mass | None:
    return counted(step, one.written if step.ref.kind == "price" else None, limits)  # only a price is compared


def _limit(kind: Mass, limits: Brake) -> Limit:
    if kind == "orders":
        return Limit("orders, returns and refunds were changed", limits.orders, limits.seconds)
    what = f"prices were changed by more than {limits.percent:g} %, or removed,"
    return Limit(what, limits.prices, limits.seconds, limits.share)
