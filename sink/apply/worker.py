"""Leases a batch of units, plans their documents and has the ERP do the steps."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import structlog

from schemas.model.errors import SettingsError
from sink.apply.buyers import Buyers, before
from sink.apply.desired import Desired, Known, Wanted
from sink.apply.moves import Moves
from sink.apply.rules import NotPlannedError, Rules
from sink.apply.sending import Sending, Task
from sink.database import Connection, Cursor, NotNowError, transaction
from sink.documents.profile import Profile
from sink.documents.records import to_json
from sink.documents.refs import DocumentRef
from sink.erp.commands import commands
from sink.erp.contract import Erp, Found, HoldError, Observed, RetryError, Step, StopError
from sink.erp.kinds import KINDS, ErpRef, Kind, Milestone
from sink.ledger import accounts, binding, control, documents, leases, marks, moves
from sink.ledger.control import Control
from sink.ledger.documents import Entry
from sink.ledger.leases import Lease, LeaseLostError
from sink.ledger.outcomes import Outcome, State
from sink.planning.adoption import Target, as_target
from sink.planning.caps import as_planned, with_step
from sink.planning.decisions import Decisions
from sink.planning.planner import DoneByHand, Plan, Standpoint, can_be_divided, plan, taken_back
from sink.planning.policy import Check, Hold
from sink.staging.position import note_acted, why_not_planned

log = structlog.get_logger()
_ROUNDS: Final = 5
_TOGETHER: Final[Sequence[Collection[Kind]]] = ({"customer", "order"}, {"return", "refund"}, {"price"})
"""What is planned and sent together. Returns come after orders: each is measured against its order as the ERP shows
it."""
_ALL_ALIKE: Final = 20
"""Orders go before prices and customers, but one batch in so many takes what has waited longest, so that nothing
starves."""


class Worker:
    """One applying thread: its own connection to the middle layer, the ERP shared."""

    def __init__(self, connection: Connection, profile: Profile, erp: Erp, rules: Rules, owner: str) -> None:
        self._connection = connection
        self._profile = profile
        self._erp = erp
        self._owner = owner
        self._sending = Sending(connection, erp, rules)
        self._go_by(rules)
        self._bound = False
        self._as_planned: dict[ErpRef, Found] = {}  # orders of a batch, where nothing is sent
        self._names = {*profile.documents}
        self._former: set[str] = set()  # names that the profile does not have any more
        self._prices = [rule.name for rule in profile.of_model("Price")]
        self._customers = [rule.name for rule in profile.of_model("Customer")]
        self._leased = 0
        self.control = Control()
        """Paused, live or stopped by the brake, as read at the last step."""

    def step(self) -> bool:
        """Leases the units that have waited longest and works on them. False: none is due, or nothing may be planned.

        Raises RetryError or StopError if the ERP as a whole cannot be used; the units stay due. An error that concerns
        one document, even an unexpected one, is written to that document and not raised.
        """
        if not self._bound:
            self.check()
        self._leased += 1
        with transaction(self._connection) as cursor:
            self.control = control.read(cursor)
            if self.control.live and not self._rules.apply:
                self._go_live(cursor)
            if self.control.paused or not leases.any_due(cursor):
                return False
            if why_not_planned(cursor, self._rules.require_snapshot):
                return False  # before leasing: a first snapshot takes hours, and each lease is a write
            leased = self._lease(cursor)
        if not leased:
            return False
        away = False
        try:
            self._units(leased)
        except (RetryError, StopError):
            away = True
            raise
        except LeaseLostError as error:
            log.warning("another worker has taken over", reason=error.message)
            return True
        except (NotPlannedError, NotNowError):
            return False
        finally:
            if not self._connection.closed:
                with transaction(self._connection) as cursor:
                    leases.release(cursor, leased, in_turn=away)
        return True

    def _go_by(self, rules: Rules) -> None:
        self._rules = rules
        self._desired = Desired(self._connection, self._profile, self._erp, rules)
        self._buyers = Buyers(self._connection, self._desired, self._sending, self._owner)
        self._moves = Moves(self._connection, self._desired, self._sending, rules, self._owner)

    def _go_live(self, cursor: Cursor) -> None:
        """A person has let the shop send, and nobody plans any more (`_look`). Each worker marks the planned documents
        again when it hears of it."""
        self._go_by(replace(self._rules, apply=True))
        marks.resume(cursor)
        log.info("documents are sent to the ERP from now on", by=str(self.control.live))

    def _lease(self, cursor: Cursor) -> list[Lease]:
        """Orders first. Buyers only fill the batch: most come with their orders and need no look of their own. A buyer
        who is due together with an order is leased with it, or another worker would take the buyer."""
        wanted = self._owner, self._sending.lease_seconds, self._rules.batch
        if self._leased % _ALL_ALIKE == 0:
            return leases.lease(cursor, *wanted)
        prices = self._sending.abilities.prices or 0
        return leases.lease(cursor, *wanted, later=self._prices, filling=self._customers, most_later=prices)

    def check(self) -> None:
        """Checks that the ERP can be used and is the one that this middle layer is bound to; the first check binds it.
        Then prepares the ledger for these rules and this profile. StopError if the ERP cannot be used."""
        try:
            checked = self._erp.check()
            self._sending.abilities = checked.abilities
            with transaction(self._connection) as cursor:
                binding.bind(cursor, "erp", checked.identity, "the ERP")
                self._former = documents.types(cursor) - self._names
                accounts.begin_at(cursor, self._rules.account_from)
                moves.forget_others(cursor)
                if self._rules.apply:
                    marks.resume(cursor)
        except (SettingsError, HoldError) as error:
            raise StopError(error.message, error.hint) from None
        for one in () if self._bound else checked.advice:
            log.warning("the ERP can be used, but", found=one.message, next=one.hint)
        self._bound = True

    def _units(self, leased: list[Lease], resolve: bool = True) -> None:
        """Works on all units together. If that fails for a reason that is not the ERP's as a whole, it tries each unit
        by itself, then each document.

        `resolve`: ask the ERP about steps in doubt. Their sender's lease has ended; a call of our own may still be on
        its way.
        """
        try:
            self._together(leased, resolve)
        except Exception as error:
            if self._sending.concerns_all(error):
                raise
            log.warning("looks at documents one by one", units=len(leased), error=type(error).__name__)
            if len(leased) > 1:
                self._each_unit(leased)
            else:
                self._each_document(leased)

    def _each_unit(self, leased: list[Lease]) -> None:
        """Each unit by itself. `leased` gets the leases of buyers who joined, so that they are released as well."""
        for one in list(leased):
            alone = [one]
            try:
                self._units(alone, resolve=False)
            finally:
                leased += [other for other in alone if other != one]

    def _each_document(self, leased: list[Lease]) -> None:
        """Each document of a unit by itself. One that still fails is held or retried, and the others go on."""
        ours = self._of_the_profile(leased, self._read(leased))
        for one in sorted(ours, key=lambda one: KINDS.index(self._kind(one))):
            try:
                self._together(leased, resolve=False, alone=one.ref)
            except Exception as error:
                if self._sending.concerns_all(error):
                    raise
                with transaction(self._connection) as cursor:
                    documents.write(cursor, leased, [(one, self._sending.failure(one, error))])

    def _together(self, leased: list[Lease], resolve: bool, alone: DocumentRef | None = None) -> None:
        """First the steps in doubt, then buyers and orders, then returns and refunds, then prices.

        `alone`: only this document; its buyer does not join it.
        """
        self._as_planned = {}
        entries = self._of_the_profile(leased, self._read(leased))
        if resolve:
            self._resolve(leased, entries)
        entries = self._moves.hand_over(leased, entries)
        looked_at = [one for one in entries if alone in (None, one.ref)]
        built = dict(self._desired.build([one.ref for one in looked_at]))
        self._say_place(looked_at)
        if alone is None:
            joined, elsewhere = self._buyers.join(leased, entries, built)
            built |= self._desired.build([one.ref for one in joined]) if joined else {}
            self._say_place(joined)
            entries = looked_at = self._buyers.give_back(leased, entries, built, elsewhere) + joined
        waits = self._moves.follow(leased, entries, {one.ref: built[one.ref] for one in looked_at})
        looked_at = self._waiting(leased, looked_at, waits)
        looked_at.sort(key=lambda one: KINDS.index(self._kind(one)))
        for kinds in _TOGETHER:
            ones = [one for one in looked_at if self._kind(one) in kinds]
            for _ in range(_ROUNDS):
                # While a step of a unit is in doubt, nothing else of the unit is sent.
                blocked = {one.unit for one in entries if one.intent}
                ones = self._look(leased, [one for one in ones if one.unit not in blocked], built)
                if not ones:
                    break

    def _say_place(self, ones: Iterable[Entry]) -> None:
        """Notes where the copy stood when the documents were built, for the history."""
        for one in ones:
            one.place = self._desired.place

    def _waiting(
        self, leased: Sequence[Lease], ones: Sequence[Entry], waits: Mapping[DocumentRef, Outcome]
    ) -> list[Entry]:
        """Writes the outcomes of those that wait, and returns the others."""
        if waits:
            with transaction(self._connection) as cursor:
                documents.write(cursor, leased, [(one, waits[one.ref]) for one in ones if one.ref in waits])
        return [one for one in ones if one.ref not in waits]

    def _kind(self, one: Entry) -> Kind:
        return self._desired.kind(one.ref)

    def _read(self, leased: Sequence[Lease]) -> list[Entry]:
        with transaction(self._connection) as cursor:
            found = documents.entries(cursor, [one.unit for one in leased])
        return sorted(found, key=lambda one: (len(one.ref.key), one.ref))

    def _of_the_profile(self, leased: Sequence[Lease], entries: Sequence[Entry]) -> list[Entry]:
        """Returns the documents to work on. Holds those whose type the profile no longer has, and leaves out ignored
        ones."""
        reason = "the profile no longer has a document of this name"
        hold = Hold(reason, "give it the name again, then `sink retry`", check=Check.NAME)
        watched = [one for one in entries if one.state is not State.IGNORED]
        resting = [(one, self._rules.held(hold)) for one in watched if one.ref.type not in self._names]
        resting += [(one, Outcome.ignored()) for one in entries if one.state is State.IGNORED and one.dirty]
        if resting:
            with transaction(self._connection) as cursor:
                documents.write(cursor, leased, resting)
        return [one for one in watched if one.ref.type in self._names]

    def _resolve(self, leased: Sequence[Lease], entries: Iterable[Entry]) -> None:
        self._sending.resolve(leased, [(one, self._desired.in_erp(one)) for one in entries if one.intent])

    def _look(self, leased: Sequence[Lease], ones: Sequence[Entry], built: Mapping[DocumentRef, Known]) -> list[Entry]:
        """Plans the documents and sends their next steps. Returns those that need another round."""
        if not ones:
            return []
        outcomes: list[tuple[Entry, Outcome]] = []
        wanted = self._desired.wanted(ones, built)
        self._use_up(ones)
        tasks: list[Task] = []
        followed: set[DocumentRef] = set()  # whose plan has another step after this one
        refused_before = {one.ref for one in ones if one.check == Check.REFUSED}
        capped: list[Entry] = []
        planned = self._planned(ones, wanted)
        changing = {one.unit for one, found in planned if not isinstance(found, Outcome)} if self._rules.apply else ()
        for want, (one, found) in zip(wanted, planned, strict=True):
            if isinstance(found, Outcome) and one.unit in changing and found.state is State.HELD:
                capped.append(one)  # another return of the order goes first, and may make room for it
            elif isinstance(found, Outcome):
                outcomes.append((one, found))
            elif not self._rules.apply:
                outcomes.append((one, _only_planned(one, found)))
            else:
                tasks.append(Task.planned(one, found, want.after if isinstance(want, Wanted) else None))
                followed |= {one.ref} if len(found) > 1 else set()
        if outcomes:
            with transaction(self._connection) as cursor:
                if not self._rules.apply and control.is_live(cursor):
                    raise NotPlannedError("the shop has gone live", "the next look sends it")
                documents.write(cursor, leased, outcomes)
                if any(outcome.by_hand for _, outcome in outcomes):
                    note_acted(cursor)
        self._sending.send(leased, tasks)
        # A cancellation goes even if the ERP has refused the change before it. So do payment and addresses if it has
        # refused them together with other changes.
        refused = {task.one.ref: task for task in tasks if task.one.check == Check.REFUSED}
        divided = {ref for ref, task in refused.items() if can_be_divided(task.step, task.one.written)}
        going = refused.keys() & (followed | divided - refused_before)
        going |= {task.one.ref for task in tasks if task.one.state is State.DONE and not task.last}
        return [one for one in ones if one.ref in going and one.intent is None] + capped

    def _use_up(self, ones: Sequence[Entry]) -> None:
        """Deletes decisions about versions that the shop no longer has, before anything else is sent."""
        for one in (one for one in ones if one.decisions):
            said = Decisions.from_json(one.decisions)
            if (left := said.about(one.version)) != said:
                with transaction(self._connection) as cursor:  # one lock at a time, so that no deadlock is possible
                    documents.use_up(cursor, one, left.to_json())

    def _planned(
        self, ones: Sequence[Entry], wanted: Sequence[Wanted | Outcome]
    ) -> list[tuple[Entry, list[Step] | Outcome]]:
        """The steps of each document, or its outcome. Each planned step counts for the documents after it."""
        refs = [self._desired.in_erp(one) for one in ones]
        # A ledger restored from a backup may not know of a document that the ERP has. We look if the ledger has sent
        # something, or if the shop wants nothing; otherwise the create finds out.
        known = [
            ref
            for one, ref, want in zip(ones, refs, wanted, strict=True)
            if isinstance(want, Wanted) and (one.applied or one.revision or one.linked or want.nothing)
        ]
        targets = {one.ref: ErpRef(self._kind(one), one.linked) for one in ones if one.linked and not one.applied}
        becoming = {targets[one.ref]: ref for one, ref in zip(ones, refs, strict=True) if one.ref in targets}
        observed = self._erp.observe([*known, *targets.values()])
        others = self._renamed([one for one in ones if one.external is None])
        orders: dict[ErpRef, Found] = {}
        found: dict[DocumentRef, list[Step] | Outcome] = {}
        for one, ref, want in zip(ones, refs, wanted, strict=True):
            buyer = before(want)
            if buyer and isinstance(came_to := found.get(buyer), Outcome):
                found[one.ref] = self._rules.waits(buyer, came_to.state)
                continue
            if isinstance(want, Outcome):
                found[one.ref] = want
                continue
            if one.decisions and Decisions.from_json(one.decisions).keeps(one.version):
                found[one.ref] = _no_step(want)
                continue
            order = self._order_of(want, orders)
            other = others.get(one.ref)
            target = as_target(targets[one.ref], observed, becoming) if one.ref in targets else None
            steps = _named_anew(other) if other else self._plan(one, ref, want, observed.get(ref), order, target)
            found[one.ref] = self._come_to(one, want, steps)
            if not self._rules.apply and ref.kind == "order" and isinstance(steps, list) and steps:
                self._as_planned[ref] = as_planned(ref, steps, observed.get(ref))
            if order is not None and isinstance(steps, list) and steps:
                orders[order.ref] = with_step(order, steps[0])
        return [(one, found[one.ref]) for one in ones]

    def _order_of(self, want: Wanted, with_steps: Mapping[ErpRef, Found]) -> Found | None:
        """The order that a return or refund is measured against, with what is already planned for it."""
        ref = want.record.fields.get("order") if want.record else None
        if not isinstance(ref, ErpRef):
            return want.order
        return with_steps.get(ref) or self._as_planned.get(ref) or want.order

    def _plan(
        self, one: Entry, ref: ErpRef, want: Wanted, seen: Observed | None, order: Found | None, target: Target | None
    ) -> Plan:
        said = Decisions.from_json(one.decisions)
        ledger = Standpoint(
            one.written, Milestone(one.reached) if one.reached else None, one.revision, said.fields,
            said.passes(one.version) if said.released else frozenset(), one.check == Check.REFUSED,
            target, said.overrules(one.version) if said.overruled else (),
        )  # fmt: skip
        if want.taken_back:
            return taken_back(ref, ledger, seen, self._rules.policy)
        return plan(ref, want.record, ledger, seen, self._rules.policy, order)

    def _come_to(self, one: Entry, want: Wanted, found: Plan) -> list[Step] | Outcome:
        """Turns a plan into steps or an outcome."""
        if isinstance(found, Hold):
            return self._rules.settling(found, one) if want.taken_back else self._rules.held(found)
        if isinstance(found, DoneByHand):
            seen = found.found
            if seen is None:
                return Outcome.done_by_hand(to_json(found.record))
            key = self._desired.in_erp(one).external
            return Outcome.known_again(to_json(found.record), key, seen.reference, seen.milestone or "")
        return found or _no_step(want)

    def _renamed(self, ones: Sequence[Entry]) -> dict[DocumentRef, DocumentRef]:
        """Documents that the ERP has under a type that the profile no longer has, so that they are not made twice."""
        if not ones or not self._former:
            return {}
        found: dict[DocumentRef, DocumentRef] = {}
        with transaction(self._connection) as cursor:
            for kind in {self._kind(one) for one in ones}:
                refs = [one.ref for one in ones if self._kind(one) == kind]
                others = documents.in_erp_under(cursor, self._former, kind, [ref.key for ref in refs])
                found |= {ref: others[ref.key] for ref in refs if ref.key in others}
        return found


def _only_planned(one: Entry, steps: Sequence[Step]) -> Outcome:
    told = list(commands(one.written, steps))
    rest = "; the rest waits for a person" if steps[0].noted else ""
    return Outcome.planned(", ".join(f"{step.verb} {step.kind}" for step in told) + rest, told)


def _no_step(want: Wanted) -> Outcome:
    """The outcome of a document that needs no step."""
    if want.taken_back:
        return Outcome.not_ready()
    return Outcome.gone() if want.record is None else Outcome.done()


def _named_anew(other: DocumentRef) -> Hold:
    reason = f"the ERP has it as {other}: was the document renamed in the profile?"
    return Hold(reason, "give it the old name again, then `sink retry`", check=Check.NAME)
