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
    "change prices", "change tax rates", "add charges", "change quantities", "add lines", "change addresses",
    "change payment", "change number", "change head", "cancel", "reopen", "advance", "return goods", "refund money",
    "change return", "change refund", "change customer", "change price list", "remove price",
]  # fmt: skip
"""What the shop may want done to a document that is in the ERP: the rows of the planner's table."""


class Moved(NamedTuple):
    """What became of a line, in quantities; None if this ERP does not tell. `returned`: by the return's external key,
    or `hand:` and the ERP's own key; cancelled returns are left out."""

    returned: Mapping[str, Decimal] = {}
    delivered: Decimal | None = None
    invoiced: Decimal | None = None


@dataclass(frozen=True)
class Observed:
    """A document as the ERP has it now. Its record has only those fields and parts that this ERP gives back exactly."""

    record: ErpRecord
    milestone: Milestone | None  # None: nothing may be planned on it, and `problem` says why
    reference: str  # the ERP's own number of it, for people; it may change, so nothing refers to it
    stamp: str  # changes with every change of `record`, lines included, and of the state
    key: int = 0  # the key of the last step that was done to it
    state: str = ""  # the ERP's own word
    problem: str = ""
    may_not: Mapping[Change, str] = field(default_factory=dict)
    """Changes that it cannot take now although the planner's table says so, each with the reason in words."""
    rates: Mapping[Decimal, Sums] = field(default_factory=dict)
    """The ERP's own sums by tax rate in percent; empty if it has none."""
    paid: Decimal | None = None  # None if the ERP does not say
    moved: Mapping[str, Moved] = field(default_factory=dict)
    """For an order: what became of each line, by the line's key."""
    refunded: Mapping[str, Decimal] = field(default_factory=dict)
    """For an order: money given back, by the refund's external key, or `hand:` and the ERP's own key."""


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

    before: None for a create, else the state that was observed; for an `adopt`, the document without our keys, while
    `want` has them. goal: the milestone to reach at least, or to stay at. key: this step's number among the document's
    steps, rising. The ERP keeps the key of the last step, written with the step's content; calls that change no content
    may write none. A step may take several calls, each one transaction of the ERP's. It is idempotent: given again
    after it was done, it changes nothing; given again after a part of it, it continues (see StepProgress).

    noted: only for the ledger, and only if a part of what the shop wants waits for a person. In that part `want` has
    what the ERP has, and `noted` what was written before, so that the next look holds it again.
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
    """Why a step was not done. `reached`: the document as read after the failure, if a part of the step was done: it
    may have all of `want` and only lack the milestone. None: nothing was changed, or, with a RetryError, the outcome is
    unknown. It is never the state before the step."""

    error: RetryError | HoldError | StopError
    reached: Observed | None = None


StepResult = Observed | NotDone
"""A step that was done, with its document read back. Returned goods and sums by tax rate need not be in it."""


class HowFar(Enum):
    """What became of a step whose result was lost."""

    NOT_DONE = "not done"
    PARTLY = "partly done"
    DONE = "done"
    UNCLEAR = "unclear"  # its document cannot be read; the sink asks again


class StepProgress(NamedTuple):
    """How far a step came, and its document as it is now, if it exists.

    A step that is PARTLY done can continue as `replace(step, before=basis(observed))` under the same key, since it has
    itself changed what it was planned on. A create or advance that is PARTLY done, or an amend whose key is there, has
    written its content. Someone may have changed that since, so the sink plans the rest of such a step anew. So it does
    if the document is at an earlier milestone than the step was planned on, since the step may have reopened it.
    """

    how_far: HowFar
    observed: Observed | None = None


class Advice(NamedTuple):
    """What may go wrong with this ERP, and the remedy. Applying goes on."""

    message: str
    hint: str


class Sells(NamedTuple):
    """What the shop's documents refer to in the ERP, as far as the copy of the shop tells. price_lists: name → whether
    its prices include tax. rates: in percent. decimals: SKU → the most decimals of a quantity that it is sold in; SKUs
    that are sold in whole units are left out."""

    skus: Collection[str] = ()
    price_lists: Mapping[str, bool] = {}
    rates: Collection[Decimal] = ()
    decimals: Mapping[str, int] = {}


class Lack(NamedTuple):
    """Master data that the shop's documents refer to and the ERP does not have. `make` makes just that, and raises the
    same errors as `check`. None: a person makes it, as the hint says."""

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
        """What has to be made, in an order in which it can be made. Changes nothing. Errors as in `check`."""
        ...

    def close(self) -> None:
        """Closes what is open."""
        ...


@dataclass(frozen=True)
class Abilities:
    """batch: how many steps of a verb one call should have. prices: the same for prices of any verb, if it differs.
    settles_within: seconds in which a call that has reached the server may still take effect (lock and statement
    time-outs, times the server's own repeats). The client's time-out does not count."""

    batch: Mapping[Verb, int]
    settles_within: float = 0.0
    prices: int | None = None

    def most(self, kind: Kind, verb: Verb) -> int:
        """How many steps one call should have."""
        return self.prices if self.prices and kind == "price" else self.batch.get(verb, 1)


@dataclass(frozen=True)
class Checked:
    """identity: names this ERP's data; a restored copy or another installation has another identity. version: for
    people."""

    identity: str
    version: str
    abilities: Abilities
    advice: Sequence[Advice] = ()


class Found(NamedTuple):
    """A document of the ERP. If people typed it in, its external key is `hand:` and the ERP's own key, unique among
    documents of its kind. The adapter observes it under that key until it has one of ours, and links may refer to
    it."""

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
    made twice whatever gets lost on the way. Fields that are not in an ErpRecord belong to the ERP and are never
    written. All methods but `apply` raise RetryError if the ERP cannot be reached and StopError if it refuses us. They
    never raise HoldError: a problem with one document's data is reported with that document. `find` raises
    SettingsError for a field that the ERP does not keep.
    """

    def check(self) -> Checked:
        """Checks that the ERP can be used. StopError if tables, modules or the right to read them are missing, or if
        values would not come back as they were sent. What would hold only some documents is advice."""
        ...

    def clock(self) -> datetime:
        """The time of the clock that `not_after` is compared with, with a time zone."""
        ...

    def observe(self, refs: Collection[ErpRef]) -> Mapping[ErpRef, Observed]:
        """The documents as they are now; missing ones are left out. A document that cannot be read as one of its kind
        is returned with a `problem`, and harms no other. The same holds for `find` and `page`."""
        ...

    def find(self, kind: Kind, fields: Fields) -> Sequence[Found]:
        """Documents whose fields have these values, whoever made them, at most 100. Used to adopt and link typed-in
        documents, and to match customers; e-mail addresses match in any case. `reference` is a field of each kind here:
        the ERP's own number. SettingsError for a field that this ERP does not keep."""
        ...

    def unknown_items(self, skus: Collection[str]) -> set[str]:
        """The SKUs that the ERP's item master does not have, including texts that it cannot even look up."""
        ...

    def progress(self, steps: Sequence[Step]) -> Sequence[StepProgress]:
        """How far steps in doubt came, one result each, in order. The sink asks before it does anything else to their
        documents, and not until `settles_within` has passed after the `not_after` of the call."""
        ...

    def apply(self, steps: Sequence[Step], not_after: datetime) -> Sequence[StepResult]:
        """Does the steps. One result each, in order. A document is in a call once. Raises none of our errors.

        One bad step never fails the others, except steps that refer to its document. Each first write is a
        compare-and-set on the step's `before`. After `not_after`, by the clock of `clock`, nothing is begun any
        more; what was begun takes effect within `settles_within` or, if the adapter's page says so, later.

        After its last call, a step's document is read as a whole, in one moment, and compared with `want`, including
        the keys of its children. If the ERP has stored something else (rounded, cut, other totals), the step is held
        before the document goes beyond a draft; if the ERP can take it back, nothing of it is left. Errors:

        - RetryError: the outcome of this step is unknown.
        - ConflictError: nothing was changed, because the document is not as it was when the step was planned, or the
          deadline has passed; or someone else changed it between two calls of the step (`reached`). ERPs have many
          words for "somebody changed it" and "that key exists", so look at the document again before you call a
          refusal one. A step of several calls reads what it needs, and refuses before its first write.
        - HoldError: the ERP refused the step. StopError: it refuses us.
        """
        ...

    def page(self, kinds: Collection[Kind], after: str, limit: int) -> Page:
        """All documents of these kinds in pages, ours and those typed in, in the ERP's own order. `after`: "" for the
        first page, else the `next` of the page before. A document that exists throughout is returned exactly once."""
        ...

    def keys(self, kinds: Collection[Kind], after: str, limit: int) -> KeyPage:
        """The same pages with the keys alone, to find surplus documents among a million."""
        ...

    def close(self) -> None:
        """Closes what is open."""
        ...


class RetryError(OrdertapError):
    """Try again later. The outcome of the call is unknown."""

    exit_code = ExitCode.UNAVAILABLE

    def __init__(self, message: str, hint: str = "check erp.url, and that the ERP runs and can be reached") -> None:
        super().__init__(message, hint)


class ConflictError(RetryError):
    """The document changed meanwhile, or the deadline has passed. The step is planned anew. `NotDone.reached` has what
    it did, if anything. The ERP itself works."""


class SlowDownError(RetryError):
    """The ERP asks for a rest of `seconds`."""

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
