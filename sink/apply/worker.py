"""Takes a batch of shop orders with all their documents and makes the ERP agree with them, whatever dies on the way."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import structlog

from schemas.errors import SettingsError
from sink.apply.desired import Desired, NotPlannedError, Wanted
from sink.apply.rules import Rules
from sink.apply.sending import Sending, Task
from sink.database import Connection, transaction
from sink.documents.models import Built
from sink.documents.profile import Profile
from sink.documents.records import from_json
from sink.documents.refs import DocumentRef
from sink.erp.contract import Erp, Found, RetryError, Step, StopError
from sink.erp.kinds import KINDS, ErpRef, Milestone
from sink.ledger import binding, documents, leases, marks
from sink.ledger.documents import Entry
from sink.ledger.leases import Lease, LeaseLostError
from sink.ledger.outcomes import Outcome, State
from sink.planning.caps import with_step
from sink.planning.planner import Standpoint, plan
from sink.planning.policy import Hold

log = structlog.get_logger()
_ROUNDS: Final = 5
_PRICES_TOO: Final = 20
"""Orders go first, whatever waits longer; each twentieth batch is of what waits longest, so that prices come too."""


class Worker:
    """One applying thread: its own connection to the middle layer, the ERP shared."""

    def __init__(self, connection: Connection, profile: Profile, erp: Erp, rules: Rules, owner: str) -> None:
        self._connection = connection
        self._erp = erp
        self._rules = rules
        self._owner = owner
        self._desired = Desired(connection, profile, erp, rules)
        self._sending = Sending(connection, erp, rules)
        self._bound = False
        self._prices = [rule.name for rule in profile.of_model("Price")]
        self._leased = 0

    def step(self) -> bool:
        """Does what is to be done for the units that wait longest; False when none is due.

        RetryError and StopError come through where the ERP as a whole cannot be used; the units stay due. What
        concerns one document alone is kept with it, and does not.
        """
        if not self._bound:
            self.check()
        self._leased += 1
        later = () if self._leased % _PRICES_TOO == 0 else self._prices
        with transaction(self._connection) as cursor:
            held = leases.lease(cursor, self._owner, self._rules.lease_seconds, self._rules.batch, later)
        if not held:
            return False
        try:
            self._units(held)
        except LeaseLostError as error:
            log.warning("another worker has taken over", reason=error.message)
            return True
        except NotPlannedError:
            return False
        finally:
            if not self._connection.closed:
                with transaction(self._connection) as cursor:
                    leases.release(cursor, held)
        return True

    def check(self) -> None:
        """Whether the ERP can be used, and is ours: the first one that this middle layer wrote to is the only one."""
        checked = self._erp.check()
        self._sending.abilities = checked.abilities
        try:
            with transaction(self._connection) as cursor:
                binding.bind(cursor, "erp", checked.identity, "the ERP")
                if self._rules.apply:
                    marks.resume(cursor)
        except SettingsError as error:
            raise StopError(error.message, error.hint) from None
        self._bound = True

    def _units(self, held: list[Lease], late: bool = True) -> None:
        """All of them together; if a look at them fails and the ERP can be used, each by itself.

        `late`: what is under way was sent by someone whose time is over. What we sent ourselves may still arrive.
        """
        try:
            self._together(held, late)
        except RetryError as error:
            if self._sending.is_outage(error):
                raise
            if len(held) > 1:
                for one in list(held):
                    self._units([one], late=False)
                return
            # With a time to look again, so that others get their turn.
            outcomes = [(one, self._sending.failure(one, error)) for one in self._read(held)]
            with transaction(self._connection) as cursor:
                documents.write(cursor, held, outcomes)

    def _together(self, held: list[Lease], late: bool) -> None:
        """First what was sent and never answered, then each kind of document, those that others refer to first."""
        entries = self._read(held)
        if late:
            self._settle(held, entries)
        built = dict(self._desired.build([one.ref for one in entries]))
        joined = self._join_buyers(held, built)
        built |= self._desired.build([one.ref for one in joined]) if joined else {}
        entries += joined
        for kind in KINDS:
            ones = [one for one in entries if self._desired.kind(one.ref) == kind]
            for _ in range(_ROUNDS):
                # Nothing more for a unit while nobody knows whether a call for it was done.
                blocked = {one.unit for one in entries if one.intent}
                ones = self._look(held, [one for one in ones if one.unit not in blocked], built)
                if not ones:
                    break

    def _read(self, held: Sequence[Lease]) -> list[Entry]:
        with transaction(self._connection) as cursor:
            found = documents.entries(cursor, [one.unit for one in held])
        return sorted(found, key=lambda one: (len(one.ref.key), one.ref))

    def _settle(self, held: Sequence[Lease], entries: Iterable[Entry]) -> None:
        self._sending.settle(held, [(one, self._desired.in_erp(one)) for one in entries if one.intent])

    def _join_buyers(self, held: list[Lease], built: Mapping[DocumentRef, Built | Hold]) -> list[Entry]:
        """Buyers that are not in the ERP yet travel with their orders, if nobody else has them."""
        wanted = self._desired.buyers(built.values())
        with transaction(self._connection) as cursor:
            found = documents.entries_of(cursor, wanted)
            missing = [ref for ref, one in found.items() if one.applied is None]
            marks.need(cursor, sorted(missing))
        units = {found[ref].unit for ref in missing}.difference(one.unit for one in held)
        with transaction(self._connection) as cursor:
            taken = leases.take(cursor, self._owner, self._rules.lease_seconds, units)
        if not taken:
            return []
        held += taken
        joined = self._read(taken)
        self._settle(held, joined)
        return joined

    def _look(
        self, held: Sequence[Lease], ones: Sequence[Entry], built: Mapping[DocumentRef, Built | Hold]
    ) -> list[Entry]:
        """Has the ERP agree with documents of one kind; those that want another round."""
        if not ones:
            return []
        outcomes: list[tuple[Entry, Outcome]] = []
        planned = self._planned(ones, self._desired.wanted(ones, built))
        tasks: list[Task] = []
        again: list[Entry] = []
        for one, found in planned:
            if isinstance(found, Outcome):
                outcomes.append((one, found))
            elif not self._rules.apply:
                outcomes.append((one, Outcome.planned(", ".join(f"{step.verb} {step.ref.kind}" for step in found))))
            else:
                tasks.append(Task.planned(one, found[0]))
                again += [one] if len(found) > 1 else []
        with transaction(self._connection) as cursor:
            documents.write(cursor, held, outcomes)
        self._sending.send(held, tasks)
        return [one for one in again if one.intent is None and one.state is State.DONE]

    def _planned(
        self, ones: Sequence[Entry], wanted: Sequence[Wanted | Outcome]
    ) -> list[tuple[Entry, list[Step] | Outcome]]:
        """Steps for each document, or what else it comes to. Each planned step is seen by those after it."""
        refs = {one.ref: self._desired.in_erp(one) for one in ones}
        # A ledger from a backup may not know of a document that the ERP has; it knows that it sent something.
        known = [
            refs[one.ref]
            for one, want in zip(ones, wanted, strict=True)
            if not isinstance(want, Outcome) and (one.applied or one.revision)
        ]
        observed = self._erp.observe(known)
        others = self._taken([one for one in ones if one.external is None], refs)
        orders: dict[ErpRef, Found] = {}
        found: list[tuple[Entry, list[Step] | Outcome]] = []
        for one, want in zip(ones, wanted, strict=True):
            if isinstance(want, Outcome):
                found.append((one, want))
                continue
            ref = refs[one.ref]
            if ref.external in others:
                found.append((one, self._rules.held(_named_anew(others[ref.external]))))
                continue
            order = want.order and orders.get(want.order.ref, want.order)
            ledger = Standpoint(
                from_json(one.applied) if one.applied else None,
                Milestone(one.reached) if one.reached else None,
                one.revision,
            )
            steps = plan(ref, want.record, ledger, observed.get(ref), self._rules.policy, order)
            if isinstance(steps, Hold):
                found.append((one, self._rules.held(steps)))
            elif not steps:
                found.append((one, Outcome.gone() if want.record is None else Outcome.done()))
            else:
                found.append((one, steps))
                if order is not None:
                    orders[order.ref] = with_step(order, steps[0])
        return found

    def _taken(self, ones: Collection[Entry], refs: Mapping[DocumentRef, ErpRef]) -> dict[str, DocumentRef]:
        """Keys in the ERP that are about to be given, and are another document's."""
        if not ones:
            return {}
        with transaction(self._connection) as cursor:
            return documents.taken(cursor, [refs[one.ref].external for one in ones])


def _named_anew(other: DocumentRef) -> Hold:
    reason = f"{other} has its key in the ERP: was the document given another name in the profile?"
    return Hold(reason, "give it the old name again, or a `series` of its own, then `sink retry`")
