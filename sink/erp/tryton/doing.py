"""Does steps on sales, many in one call where Tryton allows it.

Each call is one transaction of Tryton's. It carries the stamps of heads and lines that were read and compared just
before. After it, the sales are read again and compared with what they should be.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol, TypeAlias

from sink.erp.contract import (
    ConflictError,
    HoldError,
    HowFar,
    NotDone,
    RetryError,
    Step,
    StepResult,
    StopError,
    Verb,
    basis,
)
from sink.erp.kinds import ErpRef, Milestone, not_kept
from sink.erp.tryton import came_of, edits, reads, steps
from sink.erp.tryton.batches import Failure, together
from sink.erp.tryton.rpc import Rpc, WriteCalls, stamps_of
from sink.erp.tryton.steps import SALE, SLIP, Call, Sale

Values: TypeAlias = Mapping[str, Any]
Wanted: TypeAlias = dict[int, "Values | Failure"]

_MOST_CALLS: Final = 12
"""Calls for one step. A step that has not reached its goal by then is tried again later."""
_CANNOT: Final[Mapping[Verb, HoldError]] = {
    "adopt": HoldError(
        "Tryton gives no key of ours to what was typed in by hand",
        "`sink unlink`, and cancel it in Tryton, so that ours takes its place; or `sink ignore` ours",
    ),
}
_SHARED: Final = "give its lines the quantity 0 by an amendment in Tryton, then `sink accept document`"
_IN_BETWEEN: Final = "someone changed it in the ERP between two calls of ours"


class SaleKind(Protocol):
    """What differs between orders, returns and refunds."""

    def sales(self, refs: Collection[ErpRef]) -> dict[ErpRef, Sale]:
        """Sales as they are now; missing ones are left out."""
        ...

    def values(self, steps: Mapping[int, Step], there: Mapping[int, Sale], calls: WriteCalls) -> Wanted:
        """The values that each sale must have, its lines too, or why it cannot have them; by number."""
        ...

    def once(self, step: Step) -> Values:
        """Values that a sale gets when it is made, and keeps."""
        ...

    def target(self, goal: Milestone) -> str:
        """The sale's state at a milestone."""
        ...


class Doing:
    """The steps of one kind and one verb, by their place in the call (`number`)."""

    def __init__(self, rpc: Rpc, kind: SaleKind, calls: WriteCalls, web_shop: int, todo: Sequence[Step]) -> None:
        self._rpc = rpc
        self._kind = kind
        self._calls = calls
        self._web_shop = web_shop
        self._steps = dict(enumerate(todo))
        self._there: dict[int, Sale] = {}
        self._wanted: dict[int, Values] = {}
        self._begun: set[int] = set()
        self._last: dict[int, Call] = {}
        self._results: dict[int, StepResult] = {}

    def run(self, verb: Verb) -> list[StepResult]:
        """One result for each, in order."""
        if verb in _CANNOT:
            return [NotDone(_CANNOT[verb]) for _ in self._steps]
        self._read(self._steps)
        for number, step in self._steps.items():
            if (known := steps.known(step, self._there.get(number), self._kind.target(step.goal))) is not None:
                self._results[number] = known
        if verb in ("create", "amend") and (left := self._left()):
            for number, values in self._kind.values(left, self._there, self._calls).items():
                if isinstance(values, Mapping):
                    self._wanted[number] = values
                else:
                    self._results[number] = NotDone(values)
        if verb == "create":
            self._create({n: step for n, step in self._left().items() if n not in self._there})
        for _ in range(_MOST_CALLS):
            if not self._left():
                break
            self._go_on()
        late = RetryError("Tryton has not finished it yet")
        return [self._results.get(n) or NotDone(late, self._there[n].observed) for n in self._steps]

    def _left(self) -> dict[int, Step]:
        return {number: step for number, step in self._steps.items() if number not in self._results}

    def _read(self, some: Mapping[int, Step]) -> None:
        """Reads the sales of some steps again."""
        found = self._kind.sales([step.ref for step in some.values()]) if some else {}
        for number, step in some.items():
            self._there.pop(number, None)
            if step.ref in found:
                self._there[number] = found[step.ref]

    def _create(self, todo: Mapping[int, Step]) -> None:
        """Makes drafts, reads them back, and deletes those of which Tryton did not keep every value."""
        values = {number: self._new(step, self._wanted[number]) for number, step in todo.items()}

        def create(some: Mapping[int, Values]) -> None:
            self._calls.call(SALE, "create", [*some.values()])

        self._fail(self._without_ours(together(values, create, self._taken), {}))
        made = {number: step for number, step in todo.items() if number not in self._results}
        self._begun |= made.keys()
        self._read(made)
        for number, step in made.items():
            sale = self._there.get(number)
            if sale is None:
                self._results[number] = NotDone(ConflictError("it was deleted in the ERP right after it was created"))
            elif wrong := not_kept(step.want, sale.observed.record):
                self._results[number] = self._taken_back(sale, wrong)

    def _new(self, step: Step, values: Values) -> Values:
        lines = [edits.created(line) for line in values["lines"]]
        ours = {"web_shop": self._web_shop, "web_id": step.ref.external, "lines": [("create", lines)]}
        return {**values, **steps.commented(step, None), **self._kind.once(step), **ours}

    def _taken(self, some: Mapping[int, Values]) -> list[int]:
        """The steps whose key has been used meanwhile."""
        numbers = {values["web_id"]: number for number, values in some.items()}
        rows = self._rpc.among(SALE, "web_id", numbers, ["web_id"], ("web_shop", "=", self._web_shop))
        return [numbers[row["web_id"]] for row in rows]

    def _taken_back(self, sale: Sale, wrong: str) -> NotDone:
        error = _unkept(wrong)
        try:
            self._calls.call(SALE, "delete", [sale.row["id"]], stamps=reads.stamps([sale.row]))
        except (RetryError, HoldError, StopError):
            return NotDone(error, sale.observed)
        return NotDone(error)

    def _go_on(self) -> None:
        """Makes the next call of each step, one call for all steps that need the same."""
        groups: dict[tuple[str, str, int], dict[int, Call]] = {}
        before = {number: self._there[number] for number in self._left()}
        for number, step in self._left().items():
            try:
                target = self._kind.target(step.goal)
                last = self._last.get(number)
                call = steps.following(step, before[number], self._wanted.get(number), target, last)
            except HoldError as error:
                self._fail({number: error})
                continue
            if call is None:
                self._results[number] = _ended(step, before[number])
            else:
                alone = number if call.page else 0
                groups.setdefault((call.model, call.method, alone), {})[number] = call
        for some in groups.values():
            self._hold_shared(some)
            self._fail(self._without_ours(together(some, self._send, self._moved), before))
        sent = {number: call for some in groups.values() for number, call in some.items()}
        self._last |= sent
        going = {number: step for number, step in self._left().items() if number in sent}
        self._begun |= going.keys()
        self._read(going)
        for number in going:
            self._compare(number, before[number], sent[number])

    def _hold_shared(self, some: dict[int, Call]) -> None:
        """Takes out the calls that would cancel a shipment or invoice with lines of other sales."""
        if next(iter(some.values())).model not in came_of.MODELS:
            return
        shared = reads.shared(self._rpc, [self._there[number].row for number in some])
        for number in [*some]:
            if what := shared.get(self._there[number].row["id"]):
                del some[number]
                self._fail({number: HoldError(f"its {what} also has lines of other sales", _SHARED)})

    def _without_ours(self, errors: Mapping[int, Failure], before: Mapping[int, Sale]) -> dict[int, Failure]:
        """Drops conflicts with our own call: if a call arrives twice, Tryton refuses the second, and the sale is as we
        left it. before: sales as they were before the call; empty for a create."""
        self._read({number: self._steps[number] for number, one in errors.items() if isinstance(one, ConflictError)})
        return {
            number: error
            for number, error in errors.items()
            if not (isinstance(error, ConflictError) and self._is_ours(number, before.get(number)))
        }

    def _is_ours(self, number: int, before: Sale | None) -> bool:
        """Whether a sale has changed since `before`, and as this step changes it. A key that an earlier call of the
        step wrote proves nothing: a clerk's later edit would look like ours."""
        step, sale = self._steps[number], self._there.get(number)
        if sale is None or sale.observed.key > step.key:
            return False
        if before is not None and reads.same_stamps(before.row, sale.row):
            return False
        if sale.observed.key == step.key and step.verb in ("create", "amend"):
            return not not_kept(step.want, sale.observed.record)
        if before is None or step.verb == "create":
            return False
        call = replace(step, before=basis(before.observed))
        return steps.how_far(call, sale.observed, self._kind.target(step.goal)) in (HowFar.PARTLY, HowFar.DONE)

    def _send(self, some: Mapping[int, Call]) -> None:
        """Makes one call for all."""
        call, numbers = next(iter(some.values())), list(some)
        args = [arg for one in some.values() for arg in one.args]
        if call.method != "write":
            args = [*dict.fromkeys(args)]  # Tryton refuses a call that names a record twice
        if call.page:
            self._calls.wizard(call.model, call.method, call.page, SALE, args)
            return
        stamps = reads.stamps(self._there[number].row for number in numbers)
        if call.model == SLIP:
            stamps |= stamps_of(SLIP, [slip for n in numbers for slip in self._there[n].row["amendments."]])
        if call.model in came_of.MODELS:
            there = {name: one for n in numbers for name, one in came_of.open_(self._there[n].row).items()}
            stamps |= {name: one["_timestamp"] for name, one in there.items()}
        self._calls.call(call.model, call.method, *(args if call.method == "write" else [args]), stamps=stamps)

    def _moved(self, some: Mapping[int, Call]) -> Sequence[int]:
        return reads.moved(self._rpc, {number: self._there[number].row for number in some})

    def _compare(self, number: int, before: Sale, call: Call) -> None:
        """Finds what was changed besides our call."""
        sale = self._there.get(number)
        if sale is None:
            self._results[number] = NotDone(ConflictError("someone deleted it in the ERP"))
            return
        typed = call.leaves(before.observed.record) != call.leaves(sale.observed.record)
        begun = self._steps[number].verb == "amend" and came_of.may_not(before.row) != came_of.may_not(sale.row)
        if typed or begun:
            self._results[number] = NotDone(ConflictError(_IN_BETWEEN), sale.observed)

    def _fail(self, errors: Mapping[int, Failure]) -> None:
        """Records failures. The failed call changed nothing, but calls before it may have: the result shows the sale as
        read since. After a lost reply the sale is unknown."""
        for number, error in errors.items():
            unknown = isinstance(error, RetryError) and not isinstance(error, ConflictError)
            known = number in self._begun and number in self._there and not unknown
            self._results[number] = NotDone(error, self._there[number].observed if known else None)


def _ended(step: Step, sale: Sale) -> StepResult:
    """The result of a step that has nothing left to do."""
    wrong = not_kept(step.want, sale.observed.record) if step.verb in ("create", "amend") else ""
    return NotDone(_unkept(wrong), sale.observed) if wrong else sale.observed


def _unkept(wrong: str) -> HoldError:
    hint = "make the ERP accept the shop's value, or fix it in the shop, then `sink retry`"
    return HoldError(f"the ERP did not store it as sent: {wrong}", hint, "data")
