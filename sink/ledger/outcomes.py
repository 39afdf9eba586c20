"""Where a document stands, and what one look at it came to. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, NamedTuple, Self

from sink.documents.refs import DocumentRef
from sink.erp.commands import Command
from sink.erp.contract import Verb
from sink.erp.kinds import Milestone


class State(StrEnum):
    """As the column `state` has it, in the order in which people are shown them."""

    DONE = "done"
    DUE = "due"
    SETTLING = "settling"
    RETRY = "retry"
    WAITS = "waits"
    HELD = "held"
    PLANNED = "planned"
    NOT_READY = "not ready"
    EARLY = "before start_at"
    IGNORED = "ignored"
    GONE = "gone"


class Standing(NamedTuple):
    """What the ledger says of a document. `external`: its key in the ERP, if it was given one; `dirty`: it was marked
    since it was looked at; `sending`: a step of it is under way. `marked` counts its marks, `revision` its steps;
    `decisions`: what a person said of it; `paid`: of an order, as the ERP was told; `account`: which one a
    customer shares."""

    state: State
    unit: str
    external: str | None
    needed: bool
    dirty: bool
    sending: bool
    marked: int
    marked_at: datetime
    revision: int
    decisions: dict[str, Any] | None = None
    paid: Decimal | None = None
    account: str | None = None

    @property
    def moving(self) -> bool:
        """Whether the sink has still to do something about it by itself."""
        return self.dirty or self.sending or self.state in (State.DUE, State.SETTLING, State.RETRY)


@dataclass(frozen=True, slots=True)
class Intent:
    """The step under way: written before the ERP is called, and asked for should its result be lost.

    `record` is the whole document as it shall be, `revision` the step's key; `before` and `stamp` are the milestone and
    the stamp of what it was planned on, empty for a create; `generation` and `lsn` where the copy stood then; `adopts`,
    of an adopt, what of the ERP gets our keys (document, and children by the ERP's own). `noted`: what counts as
    written by it, where that is not `record`.
    """

    verb: Verb
    record: dict[str, Any]
    revision: int
    marked: int
    fingerprint: str | None
    goal: str = Milestone.CONFIRMED  # those from here on are not in the intents of an earlier release
    before: str = ""
    stamp: str = ""
    generation: int = 0
    lsn: int = 0
    adopts: dict[str, Any] | None = None
    noted: dict[str, Any] | None = None

    @property
    def written(self) -> dict[str, Any]:
        """What counts as written once it was done."""
        return self.noted or self.record

    def to_json(self) -> dict[str, Any]:
        """As the ledger keeps it."""
        return {name: getattr(self, name) for name in self.__slots__}


_SEE_HELD: Final = ("", "see `sink show {ref}`")
_WAITS: Final[Mapping[State | None, tuple[str, str]]] = {
    None: (", of which no row has come", "correct what refers to {ref} in the shop, or bring it there"),
    State.GONE: (", which the shop has deleted", "correct what refers to {ref} in the shop, or bring it back there"),
    State.NOT_READY: (", which the shop has not finished", "finish {ref} in the shop"),
    State.IGNORED: (", which a person ignores", "`sink ignore --undo {ref} --person NAME` if it shall come"),
    State.HELD: _SEE_HELD,
    State.WAITS: _SEE_HELD,
}
"""By the state of what is waited for: why it does not come, and what a person does about it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a look at a document came to. The constructors say which there are; `ledger.documents.write` keeps it.

    `again`: seconds until it is looked at by itself; None: not before the next mark or retry. `waits_for`: the
    document whose arrival in the ERP is a reason to look again. `sent`: what the ERP has done, under its number
    `reference`, and how far it took it (`reached`); also where a later call of the same step failed. `command`: that
    step, or the one that failed, for people. `more`: the mark is not acted on as a whole, so that the document stays
    due, whatever becomes of the one who has it now. `by_hand`: what counts as written, since a person has done it in
    the ERP. `commands`: what would be sent. `check`: the name of what a held one did not pass, and `disputed` the
    fields that a person may accept. `account`: the ERP's key of the one that a customer shares from now on, and in
    `told` which it is, for people. `external`: the ERP's key of a document that the ledger had forgotten.
    """

    state: State
    reason: str | None = None
    next_step: str | None = None
    cause: str | None = None
    waits_for: DocumentRef | None = None
    again: float | None = None
    attempts: int = 0
    sent: Intent | None = None
    reference: str = ""
    reached: str = ""
    more: bool = False
    by_hand: dict[str, Any] | None = None
    command: Command | None = None
    commands: Sequence[Command] = ()
    check: str | None = None
    disputed: Sequence[dict[str, Any]] = ()
    account: str = ""
    told: str = ""
    external: str = ""

    @classmethod
    def done(cls) -> Self:
        """Shop and ERP agree."""
        return cls(State.DONE)

    @classmethod
    def done_by_hand(cls, record: dict[str, Any]) -> Self:
        """A person has done in the ERP what the shop wants, or a part of it: another look finds what is left."""
        return cls(State.DONE, more=True, by_hand=record)

    @classmethod
    def known_again(cls, record: dict[str, Any], external: str, reference: str, reached: str) -> Self:
        """The ERP has it under this key, and the ledger had forgotten that: another look finds what is left."""
        told = "the ledger did not know of it"
        return replace(cls.done_by_hand(record), external=external, reference=reference, reached=reached, told=told)

    @classmethod
    def shares(cls, account: str, told: str = "") -> Self:
        """A customer's orders are booked to an account that is not his alone; the ERP gets nothing of him."""
        return cls(State.DONE, account=account, told=told)

    @classmethod
    def unneeded(cls, order: DocumentRef) -> Self:
        """Its order was cancelled before the ERP heard of it. Should the shop open that again, this one follows."""
        return cls(State.DONE, waits_for=order)

    @classmethod
    def gone(cls) -> Self:
        """The shop has it no more, and the ERP needs nothing."""
        return cls(State.GONE)

    @classmethod
    def not_ready(cls) -> Self:
        """Nothing is to be sent yet."""
        return cls(State.NOT_READY, "the shop has not finished it")

    @classmethod
    def early(cls) -> Self:
        """Its order was placed before the day from which on orders are carried over."""
        return cls(State.EARLY, "its order was placed before start_at")

    @classmethod
    def waits(cls, ref: DocumentRef, state: State | None, again: float) -> Self:
        """It depends on another document that is not in the ERP yet, which stands at `state`; None: nobody has heard of
        that one."""
        why, next_step = _WAITS.get(state, ("", "nothing is to be done: that one is on its way"))
        return cls(State.WAITS, f"waits for {ref}{why}", next_step.format(ref=ref), "waits", ref, again)

    @classmethod
    def settling(cls, reason: str, next_step: str, again: float) -> Self:
        """It may mend itself: what is missing can be on its way."""
        return cls(State.SETTLING, reason, next_step, again=again)

    @classmethod
    def held(
        cls,
        reason: str,
        next_step: str,
        cause: str,
        again: float | None,
        check: str | None = None,
        disputed: Sequence[dict[str, Any]] = (),
    ) -> Self:
        """It waits for a person."""
        return cls(State.HELD, reason, next_step, cause, again=again, check=check, disputed=disputed)

    @classmethod
    def ignored(cls) -> Self:
        """A person wants nothing done about it, whatever the shop makes of it."""
        return cls(
            State.IGNORED,
            "a person ignores it",
            "`sink ignore --undo TYPE KEY --person NAME` if it shall come all the same",
        )

    @classmethod
    def retry(cls, reason: str, again: float, attempts: int, next_step: str = "the sink tries again by itself") -> Self:
        """The ERP could not do it now."""
        return cls(State.RETRY, reason, next_step, again=again, attempts=attempts)

    @classmethod
    def planned(cls, steps: str, commands: Sequence[Command] = ()) -> Self:
        """What would be sent, were it not for the mode."""
        return cls(
            State.PLANNED,
            f"would {steps}",
            "`sink go-live --person NAME` when the plan is what you want",
            commands=commands,
        )

    @classmethod
    def applied(cls, sent: Intent, reference: str, command: Command | None = None, more: bool = False) -> Self:
        """The ERP has done it; `more`: it was not the last step of what was planned, or nobody knows whether it was."""
        state = State.GONE if sent.verb == "remove" else State.DONE
        return cls(state, sent=sent, reference=reference, reached=sent.goal, command=command, more=more)

    def having(self, sent: Intent, reference: str, reached: str, command: Command) -> Self:
        """This outcome, of a step of which the ERP has a part all the same."""
        return replace(self, sent=sent, reference=reference, reached=reached, command=command)
