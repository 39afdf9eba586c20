"""What the settings decide for applying."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from schemas.model.errors import OrdertapError
from sink.documents.refs import DocumentRef
from sink.ledger.accounts import AccountPolicy
from sink.ledger.outcomes import Outcome, State
from sink.planning.brake import Brake
from sink.planning.decisions import disputed_to_json
from sink.planning.policy import Hold, Policy

_LONGER: Final = 10
"""So many times as long rests what waits for a document that itself waits for a person, and wakes it when it comes."""


class NotPlannedError(OrdertapError):
    """Nothing may be planned or sent now."""


@dataclass(frozen=True)
class Rules:
    """As settings say it. Times in seconds. `batch`: how many units, such as orders, go together. `start_at`: orders
    placed before it, and what comes of them, are not the ERP's business."""

    shop: str
    policy: Policy
    apply: bool
    customers: AccountPolicy = "account_per_buyer"
    collective_account: str = ""
    account_prefix: str = "shop-"
    account_from: int = 100_001
    settle_seconds: float = 30.0
    recheck_seconds: float = 60.0
    lease_seconds: float = 60.0
    require_snapshot: bool = True
    batch: int = 50
    brake: Brake = field(default_factory=Brake)
    start_at: datetime | None = None

    def held(self, hold: Hold) -> Outcome:
        """Held; the ERP's master data are looked at again, since nothing tells us when they change."""
        again = self.recheck_seconds if hold.cause == "master data" else None
        disputed = disputed_to_json(hold.disputed)
        return Outcome.held(hold.reason, hold.next_step, hold.cause, again, hold.check, disputed)

    def waits(self, ref: DocumentRef, state: State | None) -> Outcome:
        """It waits for another document, which the ERP does not have, and which stands at `state`."""
        rest = self.recheck_seconds * (_LONGER if state in (State.HELD, State.WAITS) else 1)
        return Outcome.waits(ref, state, rest)

    def settling(self, hold: Hold, age: float) -> Outcome:
        """Held, once it is older than what may still be on its way to us; `age`: since it was marked."""
        left = self.settle_seconds - age
        return Outcome.settling(hold.reason, hold.next_step, left) if left > 0 else self.held(hold)
