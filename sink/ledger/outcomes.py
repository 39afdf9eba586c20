"""A document's state, and the outcome of a look at it. Pure."""

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
    """The values of the column `state`, in the order in which lists show them."""

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
    """What reconcile needs to know of a document. `external`: its key in the ERP, if it has one; `dirty`: marked since
    the last look, or its time may have come; `sending`: it has an intent. `marked` counts marks, `revision` steps.
    `decisions`: see `planning.decisions`; `paid`: of an order, as the ERP was told; `account`: the one that a customer
    shares; `written`: as far as we know, the ERP got it."""

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
    written: bool = False

    @property
    def pending(self) -> bool:
        """Whether the sink still has something to do about it."""
        return self.dirty or self.sending or self.state in (State.DUE, State.SETTLING, State.RETRY)


@dataclass(frozen=True, slots=True)
class Intent:
    """A step that is about to be sent: committed before the ERP is called. While it is there, the step is in doubt.

    `record` is the whole document as it should be, `revision` the step's key; `before` and `stamp` are the milestone
    and the ERP's stamp of the version that the step was planned on, empty for a create; `generation` and `lsn` are
    where the copy stood. `adopts`: for an adopt, what in the ERP gets our keys (the document, and its children by the
    ERP's keys). `noted`: what counts as written, if that is not `record`.
    """

    verb: Verb
    record: dict[str, Any]
    revision: int
    marked: int
    fingerprint: str | None
    goal: str = Milestone.CONFIRMED  # intents of an earlier release lack this field and those below
    before: str = ""
    stamp: str = ""
    generation: int = 0
    lsn: int = 0
    adopts: dict[str, Any] | None = None
    noted: dict[str, Any] | None = None

    @property
    def written(self) -> dict[str, Any]:
        """What counts as written once the step is done."""
        return self.noted or self.record

    def to_json(self) -> dict[str, Any]:
        """For the column `intent`."""
        return {name: getattr(self, name) for name in self.__slots__}


def why_not_ready(until: datetime | None) -> str:
    """Why a document is not ready, in words. `until`: the time before which it is not."""
    if until is None:
        return "the shop has not finished it"
    return f"the shop may add to it until {until.astimezone():%Y-%m-%d %H:%M %Z}"


_SEE_IT: Final = ("", "see `sink show {ref}`")
_WAITS: Final[Mapping[State | None, tuple[str, str]]] = {
    None: (", whose rows have not arrived", "correct what refers to {ref} in the shop, or add it there"),
    State.GONE: (", which the shop has deleted", "correct what refers to {ref} in the shop, or restore it there"),
    State.NOT_READY: (", which is not ready", "see `sink show {ref}`"),
    State.IGNORED: (", which a person ignores", "`sink ignore --undo {ref} --person NAME` to send it"),
    State.HELD: _SEE_IT,
    State.WAITS: _SEE_IT,
}
"""State of the document waited for → why it does not come, and what a person can do."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a look at a document. Made by the constructors below, written by `ledger.documents.write`.

    `again`: seconds until the next look; None: not before the next mark or retry. `waits_for`: the document whose
    arrival in the ERP brings another look. `sent`: the step that the ERP has done, with its number `reference` and the
    milestone `reached`; also set if only a later call of the step failed. `command`: that step, or the one that failed,
    for people. `more`: more is to be done for this mark, so the document stays due, even if this worker dies.
    `by_hand`: what counts as written because a person has done it in the ERP. `commands`: what would be sent. `check`:
    the one that a held or settling document did not pass, with the fields that a person may accept in `disputed`.
    `account`: the ERP's key of the account that a customer shares from now on, described for people in `told`.
    `external`: the ERP's key of a document that the ledger had forgotten. `still`: it has been settling for this check.
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
    still: bool = False

    @classmethod
    def done(cls) -> Self:
        """Shop and ERP agree."""
        return cls(State.DONE)

    @classmethod
    def done_by_hand(cls, record: dict[str, Any]) -> Self:
        """A person has done in the ERP what the shop wants, or a part of it. Another look finds the rest."""
        return cls(State.DONE, more=True, by_hand=record)

    @classmethod
    def known_again(cls, record: dict[str, Any], external: str, reference: str, reached: str) -> Self:
        """The ERP has it under this key, and the ledger had forgotten. Another look finds what differs."""
        told = "the ledger did not know of it"
        return replace(cls.done_by_hand(record), external=external, reference=reference, reached=reached, told=told)

    @classmethod
    def shares(cls, account: str, told: str = "") -> Self:
        """The customer's orders are booked to an account that is not theirs alone. The ERP gets none of their data."""
        return cls(State.DONE, account=account, told=told)

    @classmethod
    def unneeded(cls, order: DocumentRef) -> Self:
        """Its order was cancelled before the ERP got it. If the shop opens that order again, this document follows."""
        return cls(State.DONE, waits_for=order)

    @classmethod
    def gone(cls) -> Self:
        """The shop has deleted it, and the ERP needs nothing."""
        return cls(State.GONE)

    @classmethod
    def not_ready(cls, until: datetime | None = None, again: float | None = None) -> Self:
        """The shop has not finished it, or its time has not come. `until`: when it comes, with another look after
        `again` seconds."""
        return cls(State.NOT_READY, why_not_ready(until), again=again)

    @classmethod
    def early(cls) -> Self:
        """Its order was placed before `start_at`."""
        return cls(State.EARLY, "its order was placed before start_at")

    @classmethod
    def waits(cls, ref: DocumentRef, state: State | None, again: float) -> Self:
        """It depends on a document that is not in the ERP. `state`: that document's; None: the ledger does not have
        it."""
        why, next_step = _WAITS.get(state, ("", "no action needed: that one is on its way"))
        return cls(State.WAITS, f"waits for {ref}{why}", next_step.format(ref=ref), "waits", ref, again)

    @classmethod
    def settling(cls, reason: str, next_step: str, again: float, check: str | None = None, still: bool = False) -> Self:
        """Something is missing that may be on its way."""
        return cls(State.SETTLING, reason, next_step, again=again, check=check, still=still)

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
        """A person wants nothing done about it, whatever the shop does."""
        return cls(
            State.IGNORED,
            "a person ignores it",
            "`sink ignore --undo TYPE KEY --person NAME` to send it after all",
        )

    @classmethod
    def retry(cls, reason: str, again: float, attempts: int, next_step: str = "the sink tries again by itself") -> Self:
        """The ERP could not do it now."""
        return cls(State.RETRY, reason, next_step, again=again, attempts=attempts)

    @classmethod
    def planned(cls, steps: str, commands: Sequence[Command] = ()) -> Self:
        """In `mode: plan`: what would be sent."""
        return cls(
            State.PLANNED,
            f"would {steps}",
            "`sink go-live --person NAME` if the plan is what you want",
            commands=commands,
        )

    @classmethod
    def applied(cls, sent: Intent, reference: str, command: Command | None = None, more: bool = False) -> Self:
        """The ERP has done the step. `more`: it was not the last one of the plan, or nobody knows whether it was."""
        state = State.GONE if sent.verb == "remove" else State.DONE
        return cls(state, sent=sent, reference=reference, reached=sent.goal, command=command, more=more)

    @classmethod
    def set_back(cls, reached: str) -> Self:
        """A lost step may have taken the document back to an earlier milestone. Another look takes it on again."""
        return cls(State.DUE, reached=reached, more=True)

    def having(self, sent: Intent, reference: str, reached: str, command: Command) -> Self:
        """This outcome, for a step that the ERP has done in part."""
        return replace(self, sent=sent, reference=reference, reached=reached, command=command)
