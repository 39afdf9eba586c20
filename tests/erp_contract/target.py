"""What the contract suite needs from an ERP: a Target, and a Clerk who works in it. A new adapter adds both."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from decimal import Decimal
from typing import Any, Literal, NamedTuple, Protocol

from sink.erp.contract import Erp
from sink.erp.kinds import ErpRef, Kind, Milestone, Value

Moment = Literal["before", "after"]
Hook = Callable[[Moment], None]


class Killed(BaseException):
    """The process ends here, so nothing of ours may catch it."""


class Can(NamedTuple):
    """What one ERP can do and another cannot; the suite expects it to do just that. adopts: kinds of which a typed-in
    document can be given our keys. at_once: a step is one transaction, which leaves nothing behind if it comes too
    late. narrows: cells of the planner's table (cells.py) that it refuses, by name, each with what it says."""

    adopts: Collection[Kind] = ("customer", "order", "return", "refund")
    at_once: bool = True
    narrows: Mapping[str, str] = {}


class Clerk(Protocol):
    """A person at the ERP's own screens. `key`: a line's key in the record."""

    def edits(self, ref: ErpRef, field: str, value: Value, key: str | None = None) -> None:
        """Overwrites a field of ours, in the head or in a line."""
        ...

    def edits_own(self, ref: ErpRef) -> None:
        """Writes a field that belongs to the ERP and that no shop knows."""
        ...

    def adds_line(self, order: ErpRef) -> None: ...

    def drops_line(self, order: ErpRef, key: str) -> None: ...

    def sets(self, ref: ErpRef, milestone: Milestone) -> None:
        """Delivers, invoices, cancels, …, until the document is at the milestone."""
        ...

    def sets_unknown(self, ref: ErpRef) -> None:
        """Puts the document into a state that the adapter does not know."""
        ...

    def deletes(self, ref: ErpRef) -> None: ...

    def takes_back(self, order: ErpRef, key: str, quantity: Decimal) -> None: ...

    def gives_back(self, order: ErpRef, gross: Decimal) -> None: ...

    def forgets(self, ref: ErpRef) -> ErpRef:
        """Takes our keys off a document and its lines, as if people had typed it in. Returns what it is known by
        now."""
        ...

    def types_in(self, number: str) -> None:
        """Adds a customer who was never in the shop."""
        ...


class Target(Protocol):
    """A running ERP with the items A and B and nothing else."""

    clerk: Clerk
    can: Can

    def adapter(self, timeout: float = 20.0) -> Erp:
        """An adapter as of another process; the suite closes it."""
        ...

    def content(self) -> Mapping[str, Any]:
        """Everything in the ERP, for comparison."""
        ...

    def hooked(self, hook: Hook) -> AbstractContextManager[None]:
        """Calls the hook before and after each writing call of a step, by any adapter."""
        ...

    def blocked(self, ref: ErpRef) -> AbstractContextManager[None]:
        """Locks the document meanwhile: whoever writes it waits. At the end, calls that waited in the ERP have given
        up."""
        ...

    def lacking(self) -> AbstractContextManager[str]:
        """Takes away something that the adapter needs. Yields what the error has to name."""
        ...

    def copied(self) -> None:
        """Makes the ERP another installation."""
        ...
