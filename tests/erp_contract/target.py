"""What the contract suite needs of an ERP: a Target, and a Clerk who works in it. A new adapter adds both."""

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
    """The process ends here: nothing of ours may catch it."""


class Can(NamedTuple):
    """What one ERP can and another cannot; the suite asks, and expects of each what it says.

    adopts: kinds of which a document that was typed in can be given our keys. at_once: a step is one transaction, of
    which nothing is left when it comes too late. narrows: cells of the planner's table (cells.py) that it refuses,
    by name, and what it says then.
    """

    adopts: Collection[Kind] = ("customer", "order", "return", "refund")
    at_once: bool = True
    narrows: Mapping[str, str] = {}


class Clerk(Protocol):
    """A person at the ERP's own screens. `key` is a line's key in the record."""

    def edits(self, ref: ErpRef, field: str, value: Value, key: str | None = None) -> None:
        """Writes another value over one of ours, in the head or a line."""
        ...

    def edits_own(self, ref: ErpRef) -> None:
        """Writes a field that belongs to the ERP and that no shop knows."""
        ...

    def adds_line(self, order: ErpRef) -> None: ...

    def drops_line(self, order: ErpRef, key: str) -> None: ...

    def sets(self, ref: ErpRef, milestone: Milestone) -> None:
        """Delivers, invoices, cancels, …: the document has come to that."""
        ...

    def sets_unknown(self, ref: ErpRef) -> None:
        """Brings it into a state that the adapter was not told of."""
        ...

    def deletes(self, ref: ErpRef) -> None: ...

    def takes_back(self, order: ErpRef, key: str, quantity: Decimal) -> None: ...

    def gives_back(self, order: ErpRef, gross: Decimal) -> None: ...

    def forgets(self, ref: ErpRef) -> ErpRef:
        """Has a document as if it had been typed in: it and its lines have no key of ours. What it is known by now."""
        ...

    def types_in(self, number: str) -> None:
        """A customer who never was in the shop."""
        ...


class Target(Protocol):
    """A running ERP with the items A and B and nothing else in it."""

    clerk: Clerk
    can: Can

    def adapter(self, timeout: float = 20.0) -> Erp:
        """Another process's; closed by the suite."""
        ...

    def content(self) -> Mapping[str, Any]:
        """All that is in it, to be compared."""
        ...

    def hooked(self, hook: Hook) -> AbstractContextManager[None]:
        """Has the hook called before and after each call of a step that writes, by any adapter."""
        ...

    def blocked(self, ref: ErpRef) -> AbstractContextManager[None]:
        """Meanwhile nobody can write the document, and who tries waits. At its end, what waited in the ERP has given
        up."""
        ...

    def lacking(self) -> AbstractContextManager[str]:
        """Meanwhile the ERP lacks something that the adapter needs; what its error has to name."""
        ...

    def copied(self) -> None:
        """Makes it another installation's data."""
        ...
