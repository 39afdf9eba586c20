"""`capture repair`: a new generation, a new slot and a new snapshot, after a loss or a restore."""

from __future__ import annotations

from collections.abc import Iterator

from capture.checks import repaired
from capture.commands.proposal import Proposal
from capture.kafka.producer import TransactionalProducer
from capture.plan import Plan
from capture.postgres import catalogue
from capture.postgres.replication import Replication, slot_state
from capture.snapshot.initial import cost
from capture.snapshot.modes import unfinished
from schemas.model.errors import SettingsError


class Repair(Proposal):
    """The position that makes the next start begin anew."""

    def __init__(self, plan: Plan, now: int) -> None:
        """`now` in seconds since 1970. SettingsError while a capture runs."""
        self._now = now
        super().__init__(plan)

    def _look(self) -> None:
        plan = self._plan
        if not self._leadership.acquire():
            raise SettingsError("capture is running: it holds the leadership", "stop it, then repair")
        self._old = old = plan.position()
        self._slot = slot_state(self._leadership.connection, plan.options.slot)
        self._problem: SettingsError | None = None
        replication = Replication(plan.server)
        try:
            system = replication.identify()
            if old is not None and not unfinished(old):
                self._problem = plan.problem(old, system, self._slot, replication.history)
        finally:
            replication.close()
        self._new = repaired(old, system, plan.options.slot, plan.settings_hash, first=self._now)

    def lines(self) -> Iterator[str]:
        plan = self._plan
        if self._old is None:
            lost = "" if self._slot else ", and no slot: if capture has never run, there is nothing to repair"
            yield f"topic {plan.topics.position} has no position of {plan.name}{lost}"
        elif unfinished(self._old):
            yield "a snapshot is not complete: `capture run` finishes it, there is nothing to repair"
        elif self._problem is not None:
            yield self._problem.message
        else:
            yield f"slot and position match: nothing to repair if `capture run` continues from {self._old.end_lsn}"
            yield (
                f'if it ends with `publication "{plan.publication}" does not exist` and that is there, it was dropped '
                "and made again: the log of the time between cannot be read, a new snapshot brings what changed then"
            )
        every = catalogue.published_tables(self._leadership.connection, plan.publication)
        wanted = [one for one in every if plan.selection.table(one.relation.table)]
        read = cost(self._leadership.connection, wanted, plan.snapshot)
        yield f"generation {self._new.generation}: slot {plan.options.slot} is dropped, {read}"

    def execute(self) -> Iterator[str]:
        plan = self._plan
        plan.topics.create([])  # the lost topic may be the position's
        producer = TransactionalProducer(plan.cluster, plan.transactional_id)
        plan.position_writer(producer, self._old).write((), self._new)
        yield "done: start `capture run`"
