"""How far a step took its document that was done in part, whatever people have done to the document since."""

from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sink.apply.sending import Task
from sink.documents.records import to_json
from sink.erp.contract import Basis, Observed, Step
from sink.erp.kinds import ErpRecord, ErpRef, Milestone
from sink.ledger.outcomes import Intent

DRAFT, CONFIRMED, PROCESSING, CANCELLED = (
    Milestone.DRAFT, Milestone.CONFIRMED, Milestone.PROCESSING, Milestone.CANCELLED,
)  # fmt: skip
ORDER = ErpRecord("order", {"gross": Decimal(1), "currency": "EUR"})


@pytest.mark.parametrize(
    ("before", "seen", "reached"),
    [
        (None, DRAFT, DRAFT),
        (None, PROCESSING, DRAFT),
        (None, CANCELLED, DRAFT),
        (CONFIRMED, DRAFT, DRAFT),
        (CONFIRMED, CONFIRMED, CONFIRMED),
        (CONFIRMED, CANCELLED, CONFIRMED),
    ],
)
def test_only_how_far_we_took_it_counts(before: Milestone | None, seen: Milestone, reached: Milestone) -> None:
    """Clerks took drafts of creates in doubt further, or cancelled them, and later undid it. The drafts then stayed for
    good, since a document that a person sets back is left there."""
    verb, basis = ("amend", Basis(before, "stamp")) if before else ("create", None)
    step = Step(ErpRef("order", "shop/order/1/1"), cast(Any, verb), ORDER, basis, PROCESSING, 1)
    intent = Intent(step.verb, to_json(ORDER), 1, 1, None, step.goal)
    one = SimpleNamespace(reached=None, written=replace(ORDER) if before else None)
    outcome = Task(cast(Any, one), step, intent).half_done(Observed(ORDER, seen, "1", "stamp"))
    assert (outcome.reached, outcome.more) == (reached, True)
