"""The ERP in memory with faults, one per call of `apply`, as a test asks for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple, get_args

from sink.erp.contract import (
    ConflictError,
    HoldError,
    HowFar,
    NotDone,
    Observed,
    RetryError,
    SlowDownError,
    Step,
    StepProgress,
    StepResult,
)
from sink.erp.kinds import ErpRef, Milestone
from tests.stateful.erp import SETTLES, Desk, ScriptedErp

Fault = Literal[
    "reply lost", "on its way", "in the server", "doubled", "doubled later", "refused", "conflict", "slow down",
    "away", "never came", "half", "half and refused", "cannot say",
]  # fmt: skip
FAULTS: Final = get_args(Fault)


class Late(NamedTuple):
    """A call whose caller no longer waits. `until`: the latest time at which it can take effect."""

    steps: Sequence[Step]
    until: datetime


class _HalvedError(Exception):
    """The connection broke between two calls of a step."""


@dataclass
class Weather:
    """The next faults, and calls still on their way. Shared by all adapters."""

    faults: deque[Fault] = field(default_factory=deque)
    late: list[Late] = field(default_factory=list)
    away: bool = False
    cannot_say: bool = False
    outages: int = 0  # calls that were answered with an outage

    def clears(self) -> None:
        """Ends all faults."""
        self.faults.clear()
        self.away = self.cannot_say = False

    def arrives(self, desk: Desk) -> None:
        """Delivers the oldest late call, which changes nothing after its deadline."""
        late = self.late.pop(0)
        ScriptedErp(desk).apply(late.steps, late.until)


class UnrulyErp(ScriptedErp):
    """The adapter of one process."""

    def __init__(self, desk: Desk, weather: Weather, moment: Callable[[str], None] = lambda _: None) -> None:
        super().__init__(desk, moment)
        self.weather = weather

    def clock(self) -> datetime:
        self._answers()
        return super().clock()

    def observe(self, refs: Collection[ErpRef]) -> Mapping[ErpRef, Observed]:
        self._answers()
        return super().observe(refs)

    def unknown_items(self, skus: Collection[str]) -> set[str]:
        self._answers()
        return super().unknown_items(skus)

    def progress(self, steps: Sequence[Step]) -> Sequence[StepProgress]:
        self._answers()
        if self.weather.cannot_say:
            self.weather.cannot_say = False
            return [StepProgress(HowFar.UNCLEAR)] * len(steps)
        return super().progress(steps)

    def apply(self, steps: Sequence[Step], not_after: datetime) -> Sequence[StepResult]:
        self.moment("call")
        if self.weather.away:
            return self._outage(steps)
        fault = self.weather.faults.popleft() if self.weather.faults else None
        results = self._with(fault, steps, not_after) if fault else super().apply(steps, not_after)
        self.moment("reply")
        return results

    def _with(self, fault: Fault, steps: Sequence[Step], not_after: datetime) -> Sequence[StepResult]:
        silence = [NotDone(RetryError("no reply came"))] * len(steps)
        match fault:
            case "reply lost" | "cannot say":
                super().apply(steps, not_after)
                self.weather.cannot_say = fault == "cannot say"
                return silence
            case "on its way" | "in the server":
                # The server checks the deadline when the call reaches it; its effect comes after that.
                settles = SETTLES if fault == "in the server" else 0.0
                self.weather.late.append(Late(steps, not_after + timedelta(seconds=settles)))
                return silence
            case "doubled":
                super().apply(steps, not_after)
                return super().apply(steps, not_after)
            case "doubled later":
                self.weather.late.append(Late(steps, not_after))
                return super().apply(steps, not_after)
            case "half" | "half and refused":
                return [self._half(step, not_after, fault == "half and refused") for step in steps]
        return self._nothing(fault, steps)

    def _nothing(self, fault: Fault, steps: Sequence[Step]) -> Sequence[StepResult]:
        """Faults that change nothing."""
        match fault:
            case "refused":
                error: RetryError | HoldError = HoldError("the buyer's credit is used up", "raise it")
            case "conflict":
                error = ConflictError("another was at it")
            case "slow down":
                self.weather.outages += 1
                error = SlowDownError("too many requests", 5.0)
            case "away":
                self.weather.away = True
                return self._outage(steps)
            case _:
                error = RetryError("it did not come through")
        return [NotDone(error)] * len(steps)

    def _half(self, step: Step, not_after: datetime, refuses: bool) -> StepResult:
        """Makes the first of a step's two calls. Then the reply is lost, or the second call is refused."""
        commits = 0

        def breaks(_: str) -> None:
            nonlocal commits
            commits += 1
            if commits == 5 and step.verb == "create" and step.ref.kind == "order":
                raise _HalvedError

        once = ScriptedErp(self.desk, breaks)
        try:
            (result,) = once.apply([step], not_after)
        except _HalvedError:
            if not refuses:
                return NotDone(RetryError("no reply came"))
            (draft,) = once.observe([step.ref]).values()
            return NotDone(HoldError("the buyer's credit is used up", "raise it"), draft)
        return result

    def _answers(self) -> None:
        if self.weather.away:
            self.weather.outages += 1
            raise RetryError("the ERP is away")

    def _outage(self, steps: Sequence[Step]) -> Sequence[StepResult]:
        self.weather.outages += 1
        return [NotDone(RetryError("the ERP is away"))] * len(steps)


LATER: Final = (Milestone.PROCESSING, Milestone.DELIVERED, Milestone.INVOICED, Milestone.CLOSED)
