"""Tryton as an ERP: which file handles which kind of document, and in which order the steps of a call are done."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Final, Protocol, get_args

from sink.erp.apart import apart, unreadable
from sink.erp.contract import (
    Abilities,
    Checked,
    Found,
    HoldError,
    HowFar,
    KeyPage,
    NotDone,
    Observed,
    Page,
    RetryError,
    Step,
    StepProgress,
    StepResult,
    StopError,
    Verb,
)
from sink.erp.kinds import BY_HAND, KINDS, ErpRef, Fields, Kind
from sink.erp.tryton import check
from sink.erp.tryton.catalogue import MasterData
from sink.erp.tryton.customers import Customers
from sink.erp.tryton.errors import RefusalError, hidden
from sink.erp.tryton.orders import Orders
from sink.erp.tryton.prices import Prices
from sink.erp.tryton.refunds import Refunds
from sink.erp.tryton.returns import Returns
from sink.erp.tryton.rpc import Rpc, WriteCalls, now
from sink.erp.tryton.settings import TrytonSettings

_BATCH: Final = 40
_UNREAD: Final = HoldError("open it there, and Tryton says why", "fix it there, then `sink retry`")
"""Shown instead of Tryton's words. They may name a person, and we cannot blank out the document's personal values
because we could not read it."""
_NOBODYS: Final = "-"
"""A key that no shop makes."""
_PRICES: Final = 200
_BATCHES: Final[Mapping[Verb, int]] = {"create": 40, "advance": 20, "amend": 20, "cancel": 10}


class Documents(Protocol):
    """The documents of one kind."""

    def read(self, refs: Collection[ErpRef]) -> Mapping[ErpRef, Observed]:
        """The documents as they are now, by our key; documents that people typed in, by `hand:` and Tryton's id."""
        ...

    def do(self, verb: Verb, steps: Sequence[Step], calls: WriteCalls) -> Sequence[StepResult]:
        """Does steps of one verb. One result each, in order. A RetryError or StopError applies to all of them."""
        ...

    def how_far(self, step: Step, seen: Observed | None) -> HowFar:
        """How far a step came, judged by the document as it is now."""
        ...

    def find(self, fields: Fields) -> Sequence[int]:
        """Tryton's ids of the documents with these fields, rising, at most 100."""
        ...

    def found(self, ids: Sequence[int]) -> Sequence[Found]:
        """Documents by Tryton's ids, in their order."""
        ...

    def keys(self, after: int, limit: int) -> tuple[Sequence[tuple[int, ErpRef]], int | None]:
        """Ids above `after`, rising, each with its key; then where the next page begins, None on the last page."""
        ...


class TrytonErp:
    """The adapter. A step takes one or more calls to Tryton. Each call is one transaction of Tryton's and serves many
    documents. `calls`: how many threads may call at a time."""

    def __init__(self, settings: TrytonSettings, calls: int = 8) -> None:
        self._settings = settings
        self._rpc = Rpc(
            settings.url,
            settings.database,
            settings.user,
            settings.password.get_secret_value(),
            settings.company,
            settings.timeout_seconds,
            calls,
        )
        self._master = MasterData(self._rpc, settings)
        self._of: Mapping[Kind, Documents] = {
            "customer": Customers(self._rpc, self._master),
            "order": Orders(self._rpc, self._master),
            "return": Returns(self._rpc, self._master),
            "refund": Refunds(self._rpc, self._master),
            "price": Prices(self._rpc, self._master),
        }

    def close(self) -> None:
        """Logs out."""
        self._rpc.close()

    def check(self) -> Checked:
        """Looks up version, modules, rights and master data anew."""
        self._master.forget()
        with self._of_no_document():
            found = check.look(self._rpc, self._master)
        abilities = Abilities(
            {verb: _BATCHES.get(verb, _BATCH) for verb in get_args(Verb)},
            check.settles_within(self._settings),
            _PRICES,
        )
        return Checked(found.identity, found.version, abilities, found.advice)

    def clock(self) -> datetime:
        """This machine's clock, once Tryton has answered: Tryton itself checks no deadline."""
        with self._of_no_document():
            self._rpc.call("res.user", "get_preferences", True)
        return now()

    def observe(self, refs: Collection[ErpRef]) -> Mapping[ErpRef, Observed]:
        """The documents as they are now, kind by kind, with one or two calls each."""
        found: dict[ErpRef, Observed] = {}
        for kind in KINDS:
            for some in apart([ref for ref in refs if ref.kind == kind], self._of[kind].read, self._unread):
                found |= some
        return found

    def find(self, kind: Kind, fields: Fields) -> Sequence[Found]:
        """The documents that have these values in Tryton's own fields."""
        with self._of_no_document():
            ids = self._of[kind].find(fields)
        return self._found(kind, ids)

    def unknown_items(self, skus: Collection[str]) -> set[str]:
        """The SKUs that are the code of no salable product, and were not a minute ago either."""
        with self._of_no_document():
            return {*skus} - self._master.salable(skus)

    def progress(self, steps: Sequence[Step]) -> Sequence[StepProgress]:
        """How far each step came, judged by the documents as they are now."""
        seen = self.observe([step.ref for step in steps])
        with self._of_no_document():
            return [self._progress(step, seen.get(step.ref)) for step in steps]

    def apply(self, steps: Sequence[Step], not_after: datetime) -> Sequence[StepResult]:
        """Does the steps kind by kind, so that a document comes after those it refers to, and within a kind verb by
        verb."""
        try:
            calls = WriteCalls(self._rpc, not_after)
        except (RetryError, StopError) as error:
            return [NotDone(error) for _ in steps]
        results: dict[int, StepResult] = {}
        for kind in KINDS:
            of_kind = {number: step for number, step in enumerate(steps) if step.ref.kind == kind}
            for verb in dict.fromkeys(step.verb for step in of_kind.values()):
                some = {number: step for number, step in of_kind.items() if step.verb == verb}
                results |= zip(some, self._do(kind, verb, list(some.values()), calls), strict=True)
        return [results[number] for number in range(len(steps))]

    def page(self, kinds: Collection[Kind], after: str, limit: int) -> Page:
        """The documents of one kind after the other, each by Tryton's own ids. A page has documents of one kind."""
        kind, ids, following = self._heads(kinds, after, limit)
        return Page(self._found(kind, [one for one, _ in ids]), following)

    def keys(self, kinds: Collection[Kind], after: str, limit: int) -> KeyPage:
        """The same pages, with the keys alone."""
        _, ids, following = self._heads(kinds, after, limit)
        return KeyPage([ref for _, ref in ids], following)

    def _heads(
        self, kinds: Collection[Kind], after: str, limit: int
    ) -> tuple[Kind, Sequence[tuple[int, ErpRef]], str | None]:
        """The kind of a page, its ids and keys, and where the next page begins."""
        wanted = [kind for kind in KINDS if kind in kinds]
        name, _, last = after.partition(":")
        kind = next((one for one in wanted if one == name), wanted[0])
        with self._of_no_document():
            ids, rest = self._of[kind].keys(int(last or 0), limit)
        if rest is not None:
            return kind, ids, f"{kind}:{rest}"
        following = wanted[wanted.index(kind) + 1 :]
        return kind, ids, f"{following[0]}:" if following else None

    def _found(self, kind: Kind, ids: Sequence[int]) -> list[Found]:
        """Documents by Tryton's ids, in their order."""

        def alone(one: int, _: HoldError) -> list[Found]:
            with self._of_no_document():
                heads, _rest = self._of[kind].keys(one - 1, 1)
            ref = dict(heads).get(one, ErpRef(kind, f"{BY_HAND}{one}"))
            return [Found(ref, unreadable(kind, _UNREAD))]

        return [found for some in apart(ids, self._of[kind].found, alone) for found in some]

    def _unread(self, ref: ErpRef, _: HoldError) -> Mapping[ErpRef, Observed]:
        """Stands for a document that Tryton fails to read. If Tryton fails to read a key that nobody has, too, the
        failure is not the document's: StopError."""
        with self._of_no_document():
            self._of[ref.kind].read([ErpRef(ref.kind, _NOBODYS)])
        return {ref: unreadable(ref.kind, _UNREAD)}

    def _progress(self, step: Step, seen: Observed | None) -> StepProgress:
        if seen is not None and not seen.stamp:  # it is there, but neither it nor its last step can be read
            return StepProgress(HowFar.UNCLEAR, seen)
        return StepProgress(self._of[step.ref.kind].how_far(step, seen), seen)

    def _do(self, kind: Kind, verb: Verb, steps: Sequence[Step], calls: WriteCalls) -> Sequence[StepResult]:
        sent = calls.sent
        try:
            results = self._of[kind].do(verb, steps, calls)
        except HoldError as error:
            if calls.sent != sent:  # the read after a write failed: nobody knows what became of any of them
                results = [NotDone(RetryError("the result cannot be read back right now")) for _ in steps]
            elif len(steps) > 1:
                half = len(steps) // 2
                return [*self._do(kind, verb, steps[:half], calls), *self._do(kind, verb, steps[half:], calls)]
            else:
                results = [NotDone(error)]
        except (RetryError, StopError) as error:
            results = [NotDone(error) for _ in steps]
        return [_impersonal(step, result) for step, result in zip(steps, self._of_all(results), strict=True)]

    def _of_all(self, results: Sequence[StepResult]) -> Sequence[StepResult]:
        """If the user lacks a permission, each document would be refused alike: the results say so, and hold none of
        them."""
        refused = [result for result in results if isinstance(result, NotDone)]
        refused = [result for result in refused if isinstance(result.error, RefusalError)]
        if not refused or (lacks := self._lacking()) is None:
            return results
        return [NotDone(lacks, result.reached) if result in refused else result for result in results]

    @contextmanager
    def _of_no_document(self) -> Iterator[None]:
        """For reads that concern no single document: if Tryton refuses one, everything stops. The StopError names what
        the user lacks, else it has Tryton's words."""
        try:
            yield
        except HoldError as error:
            lacks = self._lacking() if isinstance(error, RefusalError) else None
            raise lacks or StopError(error.message, error.hint) from None

    def _lacking(self) -> StopError | None:
        """The error that names what the user lacks. None if it lacks nothing, or if Tryton cannot be asked now."""
        try:
            return check.lacking(self._rpc)
        except StopError as error:
            return error
        except (RetryError, HoldError):
            return None


def _impersonal(step: Step, result: StepResult) -> StepResult:
    """A refusal without personal values: Tryton's messages name records by what people call them."""
    if isinstance(result, NotDone) and isinstance(result.error, HoldError):
        return NotDone(hidden(result.error, step.want), result.reached)
    return result
