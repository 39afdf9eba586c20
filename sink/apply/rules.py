"""The settings that applying goes by, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from schemas.model.errors import OrdertapError
from sink.documents.refs import DocumentRef
from sink.ledger.accounts import AccountPolicy
from sink.ledger.documents import Entry
from sink.ledger.outcomes import Outcome, State
from sink.planning.brake import Brake
from sink.planning.decisions import disputed_to_json
from sink.planning.policy import Hold, Policy

_LONGER: Final = 10
"""A document waits so many times longer for one that is itself held or waits: that one wakes it when it arrives."""


class NotPlannedError(OrdertapError):
    """Nothing may be planned or sent now."""


@dataclass(frozen=True)
class Rules:
    """Times are in seconds. `batch`: units leased together. `start_at`: orders placed before it stay out of the ERP,
    with their returns and refunds."""

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
        """Held. What waits for the ERP's master data is looked at again, since no event tells when they change."""
        again = self.recheck_seconds if hold.cause == "master data" else None
        disputed = disputed_to_json(hold.disputed)
        return Outcome.held(hold.reason, hold.next_step, hold.cause, again, hold.check, disputed)

    def waits(self, ref: DocumentRef, state: State | None) -> Outcome:
        """Waits for a document that the ERP does not have. `state`: that document's; None: the ledger does not have
        it."""
        rest = self.recheck_seconds * (_LONGER if state in (State.HELD, State.WAITS) else 1)
        return Outcome.waits(ref, state, rest)

    def settling(self, hold: Hold, one: Entry) -> Outcome:
        """Settling until `settle_seconds` have passed since the mark, or since the document first failed this check: a
        shop may change it more often. Then held. A document that this check already holds stays held: another mark must
        not take it out of the lists, nor end a person's right to decide.

        At the latest it is looked at when its time has passed. Twice that time shows that nobody looked (applying was
        paused, or the ERP away): what the shop has changed meanwhile may have fixed it for a while."""
        is_same = one.check == hold.check
        so_far = one.settled_for if is_same and one.settled_for < 2 * self.settle_seconds else 0.0
        left = self.settle_seconds - max(one.age, so_far)
        if left <= 0 or (is_same and one.state is State.HELD):
            return self.held(hold)
        return Outcome.settling(hold.reason, hold.next_step, left, hold.check, still=so_far > 0)
