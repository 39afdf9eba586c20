"""What an ERP must be able to do. An adapter is one folder here that passes tests/erp_contract/.

The sink observes documents, plans steps from what it saw, writes down what it is about to do, and has the steps
applied. Whatever is lost on the way, it asks for the progress of a step before it does anything else with its document.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Literal, NamedTuple, Protocol

from pydantic import SecretStr

from schemas.model.errors import ExitCode, OrdertapError
from sink.erp.kinds import ErpRecord, ErpRef, Fields, Kind, Milestone, Sums

Cause = Literal["data", "master data", "decision"]
"""What a held document waits for: the shop's data, the ERP's master data, or a person's decision."""

Verb = Literal["create", "adopt", "amend", "advance", "cancel", "remove"]
"""`create` makes a document. `adopt` gives our keys to one that was typed in by hand, and changes nothing else. `amend`
gives it the fields and parts of the step, `advance` takes it to a later milestone, `cancel` says what it does, and
`remove` ends a price. No verb deletes a document, and none opens a cancelled one again."""

Change = Literal[
    "change prices", "change quantities", "add lines", "change addresses", "change payment", "change head", "cancel",
    "reopen", "advance", "return goods", "refund money", "change return", "change refund", "change customer",
    "change price list", "remove price",
]  # fmt: skip
"""What the shop may want done to a document that is in the ERP: the rows of the planner's table."""


class Moved(NamedTuple):
    """What became of a line. Quantities; None: this ERP does not say.

    `returned`: by the return's external key, or `hand:` and the ERP's own key of it; without cancelled returns.
    """

    returned: Mapping[str, Decimal] = {}
    delivered: Decimal | None = None
    invoiced: Decimal | None = None


@dataclass(frozen=True)
class Observed:
    """A document as the ERP has it now. Its record has only those fields and parts that this ERP gives back exactly."""

    record: ErpRecord
    milestone: Milestone | None  # None: nothing may be planned on it, and `problem` says why
    reference: str  # the ERP's own number of it, for people; it may change, so nothing refers to it
    stamp: str  # another one after every change of what `record` has, lines included, and of the state
    key: int = 0  # of the last step that was done to it
    state: str = ""  # the ERP's own word
    problem: str = ""
    may_not: Mapping[Change, str] = field(default_factory=dict)
    """What it cannot take now though the planner's table says that it can, and why, in words."""
    rates: Mapping[Decimal, Sums] = field(default_factory=dict)
    """As the ERP adds up, by tax rate in percent; empty where it does not say."""
    paid: Decimal | None = None  # None where it does not say
    moved: Mapping[str, Moved] = field(default_factory=dict)
    """Of an order: by the key of its line."""
    refunded: Mapping[str, Decimal] = field(default_factory=dict)
    """Of an order: money given back, by the external key of the refund, or `hand:` and the ERP's own key of it."""


class Basis(NamedTuple):
    """The state that a step was planned on. The step does not touch a document that has changed since."""

    milestone: Milestone
    stamp: str


def basis(observed: Observed | None) -> Basis | None:
    """The basis for a step, taken from a document as it was seen."""
    return Basis(observed.milestone, observed.stamp) if observed and observed.milestone else None


class TypedIn(NamedTuple):
    """What an `adopt` gives our keys to: a document by its `hand:` key, and those of its children that we recognise:
    the ERP's own key (`hand:7`) → ours."""

    document: str
    children: Mapping[str, str]


@dataclass(frozen=True)
class Step:
    """What is to be done to one document. `want` is the whole document as it must be afterwards.

    before: None for a create, else as it was observed; of an `adopt` as it was without our keys, and `want` is that
    document with them. goal: the milestone to reach at least, or to stay at. key: of this step among those of the
    document, rising; the ERP keeps that of the last one, written with the step's content; calls that change no content
    may write none. A step may take several calls, each a transaction of the ERP's own. It is idempotent: given again
    after it was done it changes nothing; after a part of it, it goes on (see StepProgress).

    noted: for the ledger alone, where a part of what the shop wants waits for a person: `want` has there what the ERP
    has, and `noted` what was written before, by which the next look finds it held again.
    """

    ref: ErpRef
    verb: Verb
    want: ErpRecord
    before: Basis | None
    goal: Milestone
    key: int
    adopts: TypedIn | None = None
    noted: ErpRecord | None = None

    @property
    def written(self) -> ErpRecord:
        """What counts as written once the step is done."""
        return self.want if self.noted is None else self.noted


class NotDone(NamedTuple):
    """Why a step was not done. `reached`: the document as it was read after that, where a part was done all the same:
    its `want` may be in it, and only its milestone is short of the goal. None: nothing was changed; with a
    RetryError: the outcome is not known. It is never the state before."""

    error: RetryError | HoldError | StopError
    reached: Observed | None = None


StepResult = Observed | NotDone
"""A step that was done, with its document read back. Returned goods and sums by tax rate need not be in it."""


class HowFar(Enum):
    """What became of a step whose result was lost."""

    NOT_DONE = "not done"
    PARTLY = "partly done"
    DONE = "done"
    UNCLEAR = "unclear"  # a person must look


class StepProgress(NamedTuple):
    """How far a step came, and its document as it is now, if it exists. One that is PARTLY done can go on as
    `replace(step, before=basis(observed))` under the same key, since the step itself has changed what it was planned
    on. A create or advance that is PARTLY done, or an amend whose key is there, has written its content. Someone may
    have changed that since, so the sink does not go on with such a step, but plans the rest anew."""

    how_far: HowFar
    observed: Observed | None = None


class Advice(NamedTuple):
    """What may go wrong with this ERP, and the remedy. Applying goes on."""

    message: str
    hint: str


class Sells(NamedTuple):
    """What the shop's documents refer to in the ERP, as far as the copy of the shop is there: its price lists, by
    whether their prices include tax, and its tax rates in percent."""

    skus: Collection[str] = ()
    price_lists: Mapping[str, bool] = {}
    rates: Collection[Decimal] = ()


class Lack(NamedTuple):
    """Master data that the shop's documents refer to and the ERP does not have. `make` makes it and nothing else, and
    raises as `check` does; None: a person makes it, as the hint says."""

    message: str
    hint: str
    make: Callable[[], None] | None = None


class LogIn(NamedTuple):
    """Credentials of an ERP user other than the configured one."""

    user: str
    password: SecretStr


class ErpSetup(Protocol):
    """What `sink init` asks of an ERP. Not every adapter has one."""

    def lacks(self) -> Sequence[Lack]:
        """What is to be made, in the order in which it can be; nothing is changed. Errors as of `check`."""
        ...

    def close(self) -> None:
        """Gives back what it holds open."""
        ...


@dataclass(frozen=True)
class Abilities:
    """batch: how many steps of a verb one call takes best. prices: how many of prices, whatever the verb, where that is
    another number. settles_within: seconds in which a call that has reached the server may still take effect (lock and
    statement time-outs, times the server's own repeats); not the client's time-out."""

    batch: Mapping[Verb, int]
    settles_within: float = 0.0
    prices: int | None = None

    def most(self, kind: Kind, verb: Verb) -> int:
        """Steps of one call."""
        return self.prices if self.prices and kind == "price" else self.batch.get(verb, 1)


@dataclass(frozen=True)
class Checked:
    """identity: of this ERP's data; a restored copy or another installation has another one. version: for people."""

    identity: str
    version: str
    abilities: Abilities
    advice: Sequence[Advice] = ()


class Found(NamedTuple):
    """A document of the ERP; one that was typed in by hand has `hand:` and the ERP's own key of it, which names it
    among those of its kind, as its external key. The adapter observes it by that as long as it has no key of ours, and
    links may lead to it."""

    ref: ErpRef
    observed: Observed


class Page(NamedTuple):
    """Some documents, and where the next page begins; None after the last page."""

    found: Sequence[Found]
    next: str | None


class KeyPage(NamedTuple):
    """The names of some documents, and where the next page begins; None after the last page."""

    refs: Sequence[ErpRef]
    next: str | None


class Erp(Protocol):
    """One ERP. Calls are synchronous, end within the time limit given at construction, and may come from many threads.

    Every record that a step makes (head, child) carries its external key in the ERP, unique there, so that nothing is
    made twice whatever was lost on the way. Fields that are not in an ErpRecord belong to the ERP and are never
    written. All but `apply` raise RetryError where the ERP cannot be reached, StopError where it refuses us, and never
    HoldError: what is wrong with the data of one document is said of that document.
    """

    def check(self) -> Checked:
        """Whether it can be used; StopError also where tables, the right to read them or modules are missing, or where
        what it keeps would not come back as it was sent. What would hold some documents only is advice."""
        ...

    def clock(self) -> datetime:
        """The time of the clock that `not_after` is compared with; has a zone."""
        ...

    def observe(self, refs: Collection[ErpRef]) -> Mapping[ErpRef, Observed]:
        """The documents as they are now; those that the ERP does not have are left out. One that cannot be read as a
        document of its kind is there with a `problem` and harms no other; so it is in `find` and `page`."""
        ...

    def find(self, kind: Kind, fields: Fields) -> Sequence[Found]:
        """Documents whose fields have these values, by whomever they were made, at most a hundred: for adopting what
        was typed in, linking, and matching customers, whose e-mail is the same in capitals and small letters.
        `reference` is a field of each kind here: the ERP's own number. SettingsError for a field that this ERP does not
        keep."""
        ...

    def unknown_items(self, skus: Collection[str]) -> set[str]:
        """Those of the SKUs that the ERP's item master does not have, among them what it cannot even look for."""
        ...

    def progress(self, steps: Sequence[Step]) -> Sequence[StepProgress]:
        """What became of steps whose results were lost, one for each, in order. It is asked before anything else is
        done to their documents, and not before `settles_within` past the `not_after` of the call."""
        ...

    def apply(self, steps: Sequence[Step], not_after: datetime) -> Sequence[StepResult]:
        """Does the steps, one result for each, in order; a document is in one call once. It raises nothing of ours.

        One bad step never fails the others, but for those that refer to its document. Each first write is a
        compare-and-set on the step's `before`. After `not_after`, by the clock of `clock`, nothing is begun any
        more; what was begun takes effect within `settles_within` or, where the adapter's page says so, later.

        After its last call a step's document is read as a whole, in one moment, and compared with `want`, the keys of
        its children included. If the ERP has stored something else (rounded, cut, other totals), the step is held
        before the document goes beyond a draft; where the ERP can take it back, nothing of it is left. Errors:

        - RetryError: nothing is known of this step's outcome.
        - ConflictError: nothing was changed, since the document is not as it was when the step was planned, or the time
          is over; or someone else changed it between two calls of the step (`reached`). A refusal is looked at again
          before it is called one: ERPs refuse what another has changed meanwhile, and a create that finds its own key,
          in many words. A step of several calls reads what it needs, and refuses before its first write.
        - HoldError: the ERP refused it. StopError: it refuses us.
        """
        ...

    def page(self, kinds: Collection[Kind], after: str, limit: int) -> Page:
        """All documents of these kinds by pages, ours and those typed in by hand, in an order of the ERP's own.
        `after`: "" for the first page, else the `next` of the page before. A document that exists throughout
        the paging is returned exactly once."""
        ...

    def keys(self, kinds: Collection[Kind], after: str, limit: int) -> KeyPage:
        """What `page` would give, by name only: for finding surplus documents among a million."""
        ...

    def close(self) -> None:
        """Closes what it holds open."""
        ...


class RetryError(OrdertapError):
    """Try the same again later. The outcome of the call is not known."""

    exit_code = ExitCode.UNAVAILABLE

    def __init__(self, message: str, hint: str = "check erp.url, and that the ERP runs and can be reached") -> None:
        super().__init__(message, hint)


class ConflictError(RetryError):
    """The document changed meanwhile. This step did nothing, and is planned anew. The ERP itself works."""


class SlowDownError(RetryError):
    """The ERP asks for a rest of so many seconds."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class HoldError(OrdertapError):
    """This document alone waits for a person."""

    exit_code = ExitCode.CONFIG

    def __init__(self, message: str, hint: str, cause: Cause = "decision") -> None:
        super().__init__(message, hint)
        self.cause: Cause = cause


class StopError(OrdertapError):
    """Nothing more goes to this ERP until a person has put it right: credentials, another ERP, missing tables."""

    exit_code = ExitCode.CONFIG
