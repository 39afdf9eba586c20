"""Sends steps to the ERP so that each is done once: intents are committed, then the call goes out, then outcomes are
written."""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, TypeGuard

import structlog

from schemas.model.errors import OrdertapError
from schemas.process.backoff import backoff
from sink.apply.braking import held_back
from sink.apply.rules import NotPlannedError, Rules
from sink.database import Connection, Cursor, transaction
from sink.documents.records import from_json, to_json
from sink.documents.refs import DocumentRef
from sink.erp.commands import Command, command
from sink.erp.contract import (
    Abilities,
    Basis,
    ConflictError,
    Erp,
    HoldError,
    HowFar,
    NotDone,
    Observed,
    RetryError,
    SlowDownError,
    Step,
    StepProgress,
    StepResult,
    StopError,
    TypedIn,
    basis,
)
from sink.erp.kinds import ErpRef, Milestone, not_kept
from sink.ledger import control, documents, leases
from sink.ledger.documents import Entry
from sink.ledger.leases import Lease
from sink.ledger.outcomes import Intent, Outcome
from sink.planning.policy import Check, Hold
from sink.staging.position import note_acted

log = structlog.get_logger()
_LONGEST_BACKOFF: Final = 300.0
_A_TENTH: Final = 0.1
"""The share of a lease after which it is renewed and the ERP's clock is read again."""


@dataclass(frozen=True)
class Task:
    """A step for a document, and the intent that the ledger keeps of it. `last`: no step follows. It is False if that
    is not known: for a step that another worker planned, after an adopt, and if a part of the change is held. `after`:
    the new buyer that it refers to, who is sent first. `begun`: an earlier call has written the step's content."""

    one: Entry
    step: Step
    intent: Intent
    last: bool = False
    after: Entry | None = None
    begun: bool = False

    @classmethod
    def planned(cls, one: Entry, steps: Sequence[Step], after: Entry | None = None) -> Task:
        """The first step of a new plan."""
        step = steps[0]
        milestone, stamp = step.before or ("", "")
        place = one.place or (0, 0)
        adopts = step.adopts._asdict() if step.adopts else None
        intent = Intent(
            step.verb,
            to_json(step.want),
            step.key,
            one.marked,
            one.identity,
            step.goal,
            milestone,
            stamp,
            *place,
            adopts,
            to_json(step.noted) if step.noted else None,
        )
        last = len(steps) == 1 and step.verb != "adopt" and step.noted is None
        return cls(one, step, intent, last, after)

    @property
    def failed_before(self) -> bool:
        """Whether the document or its buyer has failed before."""
        return bool(self.one.attempts or (self.after and self.after.attempts))

    def command(self) -> Command:
        """The step as people read it. Ask before the outcome is written: it shows what the ERP had until then."""
        return command(self.step.verb, self.step.goal, self.one.written, self.step.written)

    def done(self, reference: str, more: bool) -> Outcome:
        """The ERP has done it. What a person has set back there stays also after a change: how far we took it once
        counts."""
        outcome = Outcome.applied(self.intent, reference, self.command(), more)
        was = Milestone(self.one.reached) if self.one.reached else self.step.goal
        stays = was is not Milestone.CANCELLED and self.step.goal.before(was)
        return replace(outcome, reached=was) if stays else outcome

    def has_content(self, seen: Observed) -> bool:
        """Whether a step that was done in part has written all its content, even if the ERP keeps something else."""
        return self.step.verb in ("create", "advance") or (self.step.verb == "amend" and seen.key == self.step.key)

    def is_written(self, seen: Observed, goal: Milestone) -> bool:
        """Whether a step that was done in part counts as written, because a new plan takes the document on to `goal`.

        No plan does so if the milestone is already the goal's, for which the ERP may have two states, or if a person
        had taken the document further than `goal`. Then only the step itself can go on.
        """
        reached = seen.milestone
        short = reached is None or (reached.before(goal) and reached.before(self.step.goal))
        return self.has_content(seen) and (short or bool(not_kept(self.step.want, seen.record)))

    def is_set_back(self, seen: Observed | None, goal: Milestone) -> bool:
        """Whether the step may have reopened the document before it wrote anything, and a new plan takes the document
        on to `goal`. If a person had taken it further than `goal`, no plan does; only the step itself can go on."""
        before = self.step.before
        if seen is None or seen.milestone is None or before is None or self.has_content(seen):
            return False
        return seen.milestone.before(before.milestone) and seen.milestone.before(goal)

    def half_done(self, seen: Observed) -> Outcome:
        """The ERP has the content of the step and went no further. It counts as written, whatever is in the document:
        the next look compares it, and plans the rest from the shop as it is then. Only how far we took it counts, not
        how far a person has gone on since, or that one has cancelled it: set back again, it goes on to its goal."""
        ours = self.step.before.milestone if self.step.before else Milestone.DRAFT
        reached = seen.milestone if seen.milestone and seen.milestone.before(ours) else ours
        return replace(self.done(seen.reference, more=True), reached=reached)

    def told(self, outcome: Outcome) -> Outcome:
        """An outcome other than done, with the step as people read it."""
        return replace(outcome, command=self.command())

    def going_on(self, seen: Observed | None) -> Task:
        """The rest of a step that was done in part, based on the document as it is now."""
        before = basis(seen) or self.step.before
        milestone, stamp = before or ("", "")
        intent = replace(self.intent, before=milestone, stamp=stamp)
        begun = seen is not None and self.has_content(seen)
        return Task(self.one, replace(self.step, before=before), intent, begun=begun)


class Sending:
    """Sends for one worker. Each of its transactions proves the leases. `abilities`: what the adapter said at the last
    check."""

    def __init__(self, connection: Connection, erp: Erp, rules: Rules) -> None:
        self._connection = connection
        self._erp = erp
        self._rules = rules
        self._read: tuple[float, datetime] | None = None  # when the ERP's clock was read, and its time
        self.abilities = Abilities({})

    @property
    def lease_seconds(self) -> float:
        """Length of a lease. A call, and its effects in the ERP afterwards, end within it."""
        return self._rules.lease_seconds + self.abilities.settles_within

    def resolve(self, leased: Sequence[Lease], in_doubt: Sequence[tuple[Entry, ErpRef]]) -> None:
        """Asks the ERP about steps in doubt, before anything else is done to their documents. Writes those that were
        done, forgets those that were not, completes those done in part, and holds those that the ERP cannot tell.

        A step that has written its content, or has only reopened the order, is not taken on to its milestone: if the
        shop has cancelled the order meanwhile, a draft is cancelled more easily than a confirmed order; and a person
        may have edited the draft.
        """
        tasks = [Task(one, _step(one.intent, ref), one.intent) for one, ref in in_doubt if one.intent]
        if not tasks:
            return
        of: dict[HowFar, list[tuple[Task, Observed | None]]] = {answer: [] for answer in HowFar}
        for task, (answer, observed) in self._answers(leased, tasks):
            of[answer].append((task, observed))
        outcomes = [(task.one, self._unclear(task, seen)) for task, seen in of[HowFar.UNCLEAR]]
        for task, seen in of[HowFar.DONE]:
            reference = seen.reference if seen else ""
            outcomes.append((task.one, task.done(reference, more=True)))
        outcomes += [(task.one, task.half_done(seen)) for task, seen in of[HowFar.PARTLY] if self._written(seen, task)]
        back = [(task, seen) for task, seen in of[HowFar.NOT_DONE] + of[HowFar.PARTLY] if self._set_back(seen, task)]
        outcomes += [(task.one, Outcome.set_back(seen.milestone or "")) for task, seen in back]
        with transaction(self._connection) as cursor:
            documents.write(cursor, leased, outcomes)
        self._intend(leased, [task for task, _ in of[HowFar.NOT_DONE] + back], under_way=False)
        self.send(leased, [task.going_on(seen) for task, seen in of[HowFar.PARTLY] if task.one.intent])

    def _answers(self, leased: Sequence[Lease], tasks: Sequence[Task]) -> list[tuple[Task, StepProgress]]:
        """What became of each step. If the ERP fails to answer for one step, that document alone gets the failure and
        is left out."""
        try:
            return list(zip(tasks, self._erp.progress([task.step for task in tasks]), strict=True))
        except Exception as error:
            if isinstance(error, RetryError) or self.concerns_all(error):
                raise
            if len(tasks) > 1:
                return [answer for task in tasks for answer in self._answers(leased, [task])]
            with transaction(self._connection) as cursor:
                documents.write(cursor, leased, [(tasks[0].one, tasks[0].told(self.failure(tasks[0].one, error)))])
            return []

    def send(self, leased: Sequence[Lease], tasks: Sequence[Task]) -> None:
        """Sends steps, as many per call as the adapter takes best, and writes their outcomes. Then raises RetryError or
        StopError if the ERP as a whole cannot be used."""
        for verb in dict.fromkeys(task.step.verb for task in tasks):
            alike = [task for task in tasks if task.step.verb == verb]
            # A step that has failed before goes alone: it may be what made the others fail.
            first, again = ([task for task in alike if task.failed_before is failed] for failed in (False, True))
            most = min(self.abilities.most(task.step.ref.kind, verb) for task in alike)
            for start in range(0, len(first), most):
                self._call(leased, first[start : start + most])
            for task in again:
                self._call(leased, [task])

    def _call(self, leased: Sequence[Lease], tasks: Sequence[Task]) -> None:
        # The clock is read before the leases are proved, so the call's deadline on the ERP's clock is not after their
        # end. An older reading is safe, too: the call only has less time.
        read = self._clock_lately()
        left = self._intend(leased, tasks, under_way=True)
        not_after = read + timedelta(seconds=left - self.abilities.settles_within)
        # Leaves out tasks that the brake stops, or that were marked meanwhile.
        tasks = [task for task in tasks if task.one.intent]
        if not tasks:
            return
        results = self._applied(tasks, not_after)
        if any(isinstance(result, NotDone) for result in results):
            self._read = None  # it may have missed its deadline because the ERP's clock was set
        for_all = self._for_all(results)
        come_to: dict[DocumentRef, Outcome] = {}
        for task, result in zip(tasks, results, strict=True):
            lacks = _is_unchanged(result) and self._lacks(task.after, come_to)
            come_to[task.one.ref] = lacks or self._outcome(task, result, for_all)
        # One whose content is in the ERP stays in doubt, also if this call did nothing.
        ended = [task for task, result in zip(tasks, results, strict=True) if _is_unchanged(result)]
        unchanged = [task for task in ended if not task.begun]
        with transaction(self._connection) as cursor:
            documents.write(cursor, leased, [(task.one, come_to[task.one.ref]) for task in tasks])
            documents.intend(cursor, [(task.one, None, task.step.ref.external) for task in unchanged])
        for task in unchanged:
            task.one.intent = None
        _tell_done(tasks, results)
        if for_all is not None:
            raise for_all

    def _applied(self, tasks: Sequence[Task], not_after: datetime) -> Sequence[StepResult]:
        """An adapter returns its errors. If it raises one, all steps are in doubt."""
        try:
            return self._erp.apply([task.step for task in tasks], not_after)
        except Exception as error:
            if self.concerns_all(error):
                raise
            _tell(error, [task.one for task in tasks])
            lost = RetryError(f"the ERP adapter failed: {type(error).__name__}", "see the sink's log")
            return [NotDone(lost) for _ in tasks]

    def failure(self, one: Entry, error: Exception, outage: bool = False) -> Outcome:
        """The outcome of a document for an error. An outage is not the document's fault: the document stays due, and no
        attempt is counted."""
        if isinstance(error, HoldError):
            return self._rules.held(Hold(error.message, error.hint, error.cause, Check.REFUSED))
        if not isinstance(error, RetryError | StopError):
            return self._rules.held(_unexpected(one, error))
        if outage and isinstance(error, RetryError):
            return Outcome.retry(error.message, 0.0, one.attempts)
        again, attempts = _backoff(one)
        return Outcome.retry(error.message, again, attempts, error.hint)

    def concerns_all(self, error: Exception) -> bool:
        """Whether no single document can have caused the error."""
        if isinstance(error, RetryError):
            return self.is_outage(error)
        return isinstance(error, OrdertapError) and not isinstance(error, HoldError)

    def is_outage(self, error: RetryError) -> bool:
        """Whether the ERP is away for all: it then does not even tell the time."""
        if isinstance(error, ConflictError | SlowDownError):
            return isinstance(error, SlowDownError)
        try:
            self._clock()
        except RetryError:
            return True
        return False

    def _clock(self) -> datetime:
        """The ERP's time. No document is part of this call, so a refusal becomes a StopError."""
        try:
            return self._erp.clock()
        except HoldError as error:
            raise StopError(error.message, error.hint) from None

    def _clock_lately(self) -> datetime:
        """The ERP's time, read at most a tenth of a lease ago."""
        now = time.monotonic()
        if self._read is None or now - self._read[0] > _A_TENTH * self._rules.lease_seconds:
            self._read = now, self._clock()
        return self._read[1]

    def _intend(self, leased: Sequence[Lease], tasks: Sequence[Task], under_way: bool) -> float:
        """Writes the intents, or deletes them. Returns the seconds left of the leases."""
        if not tasks:
            return 0.0
        whole = self.lease_seconds
        with transaction(self._connection) as cursor:
            back = self._held_back(cursor, tasks) if under_way else []
            waits = {one.ref for one, _ in back}
            tasks = [task for task in tasks if task.one.ref not in waits]
            rows = [(task.one, task.intent if under_way else None, task.step.ref.external) for task in tasks]
            left = leases.renew(cursor, leased, whole, whole - _A_TENTH * self._rules.lease_seconds)
            documents.write(cursor, leased, back)
            written = documents.intend(cursor, rows)
            if under_way:
                note_acted(cursor)
        for one, intent, external in (row for row in rows if row[0].ref in written):
            one.intent, one.external = intent, external
            one.revision = intent.revision if intent else one.revision
        return left

    def _held_back(self, cursor: Cursor, tasks: Sequence[Task]) -> list[tuple[Entry, Outcome]]:
        """The documents that the brake stops. NotPlannedError if a person has paused applying."""
        if control.is_paused(cursor):
            raise NotPlannedError("applying is paused", "`sink resume --person NAME` to continue")
        return held_back(cursor, self._rules.brake, [(task.one, task.step) for task in tasks])

    def _for_all(self, results: Sequence[StepResult]) -> RetryError | StopError | None:
        """The error that concerns all steps, if a result has one."""
        errors = [result.error for result in results if isinstance(result, NotDone)]
        stop = next((error for error in errors if isinstance(error, StopError)), None)
        away = [error for error in errors if isinstance(error, RetryError) and not isinstance(error, ConflictError)]
        return stop or (away[0] if away and self.is_outage(away[0]) else None)

    def _lacks(self, buyer: Entry | None, come_to: Mapping[DocumentRef, Outcome]) -> Outcome | None:
        """The outcome of a document that was refused because its buyer, sent before it, did not arrive."""
        if buyer is None or buyer.applied:
            return None
        outcome = come_to.get(buyer.ref)
        if outcome and outcome.sent:
            return None
        return self._rules.waits(buyer.ref, outcome.state if outcome else buyer.state)

    def _outcome(self, task: Task, result: StepResult, for_all: RetryError | StopError | None) -> Outcome:
        if isinstance(result, Observed):
            return task.done(result.reference, more=not task.last)
        outcome = task.told(self.failure(task.one, result.error, isinstance(for_all, RetryError)))
        seen = result.reached
        if seen is None:
            return outcome
        reached = seen.milestone or ""
        # A draft that the ERP could not take back is ours, whatever is in it: the next look compares it.
        if self._written(seen, task):
            return outcome.having(task.intent, seen.reference, reached, task.command())
        return replace(outcome, reached=reached)  # in doubt: the next look asks the ERP how far it came

    def _written(self, seen: Observed | None, task: Task) -> TypeGuard[Observed]:
        return seen is not None and task.is_written(seen, self._rules.policy.goal_of(task.step.ref.kind))

    def _set_back(self, seen: Observed | None, task: Task) -> TypeGuard[Observed]:
        return task.is_set_back(seen, self._rules.policy.goal_of(task.step.ref.kind))

    def _unclear(self, task: Task, seen: Observed | None) -> Outcome:
        """The intent stays, so the ERP is asked again with each lease, without a person's word."""
        why = f": {seen.problem}" if seen and seen.problem else ""
        reason = f"the ERP cannot say whether the step was done ({task.step.verb}){why}"
        step = "make its document in the ERP readable; the sink asks again by itself"
        return task.told(self._rules.held(Hold(reason, step, check=Check.UNCLEAR)))


def _step(intent: Intent, ref: ErpRef) -> Step:
    """The step of an intent."""
    before = Basis(Milestone(intent.before), intent.stamp) if intent.before else None
    adopts = TypedIn(**intent.adopts) if intent.adopts else None
    noted = from_json(intent.noted) if intent.noted else None
    want, goal = from_json(intent.record), Milestone(intent.goal)
    return Step(ref, intent.verb, want, before, goal, intent.revision, adopts, noted)


def _unexpected(one: Entry, error: Exception) -> Hold:
    _tell(error, [one])
    step = "correct it in the shop, or upgrade to a release that can read it, then `sink retry`"
    return Hold(f"unexpected error in the sink: {type(error).__name__}", step, "data", Check.FAILED)


def _tell(error: Exception, ones: Iterable[Entry]) -> None:
    """Logs class and place of an unexpected error, but not its message, which may show a row's values."""
    *_, (place, line) = traceback.walk_tb(error.__traceback__)
    at = f"{place.f_globals.get('__name__')}.{place.f_code.co_qualname}, line {line}"
    log.error("an unexpected error", documents=[str(one.ref) for one in ones], error=type(error).__name__, at=at)


def _tell_done(tasks: Sequence[Task], results: Sequence[StepResult]) -> None:
    """One log line per call; the history has each document."""
    done = [str(task.one.ref) for task, result in zip(tasks, results, strict=True) if isinstance(result, Observed)]
    if done:
        log.info("done in the ERP", verb=tasks[0].step.verb, documents=len(done), first=done[0], last=done[-1])


def _is_unchanged(result: StepResult) -> bool:
    """Whether the ERP refused the step and changed nothing."""
    return (
        isinstance(result, NotDone) and result.reached is None and isinstance(result.error, HoldError | ConflictError)
    )


def _backoff(one: Entry) -> tuple[float, int]:
    """Seconds until the next attempt, doubling with jitter, and the number of attempts so far."""
    attempts = one.attempts + 1
    return backoff(attempts, 1.0, _LONGEST_BACKOFF) * random.uniform(0.5, 1.5), attempts  # noqa: S311  jitter
