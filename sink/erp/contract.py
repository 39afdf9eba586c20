"""What an ERP must be able to do. An adapter is one folder here that passes tests/integration/test_erp_contract.py."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from typing import Literal, NamedTuple, Protocol

from schemas.errors import ExitCode, OrdertapError
from sink.erp.kinds import ErpRecord, Fields, Kind, Milestone

Cause = Literal["data", "master data", "decision"]
"""What a held document waits for: the shop's data, the ERP's master data, or a person's decision."""


@dataclass(frozen=True)
class Observed:
    """The ERP's own view of a document. `returned`: per order line what the ERP shows as come back, also by hand;
    `refunded`: what the ERP shows as given back of the order, per key of the refund."""

    record: ErpRecord
    milestone: Milestone
    reference: str
    revision: int
    returned: Mapping[str, Mapping[str, Decimal]] = field(default_factory=dict)
    refunded: Mapping[str, Decimal] = field(default_factory=dict)


@dataclass(frozen=True)
class Command:
    """One step in the ERP. `record` is the whole document as it shall be after it."""

    verb: Literal["create", "amend", "cancel", "remove"]
    record: ErpRecord
    fields: Fields = field(default_factory=dict)  # amend: those of the head that change
    set_lines: Mapping[str, Fields] = field(default_factory=dict)  # amend: new lines, and fields of lines that change
    remove_lines: tuple[str, ...] = ()
    expected: Milestone | None = None  # the state that the plan was made for; another one is a conflict


class Key(NamedTuple):
    """The idempotency key: `external` is kept, unique, in the ERP's record; `revision` counts commands to it."""

    external: str
    revision: int


class Probe(Enum):
    """What a repeat needs to know."""

    DONE = "done"
    NOT_DONE = "not done"
    UNCLEAR = "unclear"


class Applied(NamedTuple):
    """The ERP's own number of the document."""

    reference: str


@dataclass(frozen=True)
class Figures:
    """The ERP's own documents of a kind with our key, by external key, for the comparison of money."""

    records: Mapping[str, Observed]
    foreign: int = 0  # documents without a key of ours: typed in by hand


class Erp(Protocol):
    """One ERP. Calls are synchronous, end within the time limit given at construction, and may come from many threads.

    Every record that a command makes (head, each line) carries a key of its own in the ERP, unique there, so that
    nothing is made twice whatever was lost on the way. A command is done as a whole or not at all. A command whose
    revision is not higher than the record's changes nothing: a late write of an older state is harmless.
    Fields that are not in a ErpRecord belong to the ERP and are never written.
    """

    def check(self) -> str:
        """The identity of this ERP's data (a restored copy or another installation has another one); StopError when
        credentials or tables are wrong, RetryError when it cannot be reached."""
        ...

    def probe(self, kind: Kind, verb: str, key: Key) -> Probe:
        """Whether a command was done whose reply may be lost. Asked before any repeat."""
        ...

    def observe(self, kind: Kind, external: str) -> Observed | None:
        """The document as the ERP has it now, None when it has none."""
        ...

    def unknown_items(self, skus: Collection[str]) -> set[str]:
        """Those of the SKUs that the ERP's item master does not have."""
        ...

    def apply(self, command: Command, key: Key) -> Applied:
        """Does the command, once. RetryError: nothing is known about the outcome; ConflictError: nothing was changed,
        since the document is not as it was when the command was planned; HoldError: the ERP refused it."""
        ...

    def figures(self, kind: Kind, prefix: str) -> Figures:
        """All documents of a kind whose external key starts with the prefix."""
        ...

    def close(self) -> None:
        """Gives back what it holds open."""
        ...


class RetryError(OrdertapError):
    """The same again later. The outcome of the call is not known."""

    exit_code = ExitCode.UNAVAILABLE

    def __init__(self, message: str, hint: str = "check erp.url, and that the ERP runs and can be reached") -> None:
        super().__init__(message, hint)


class ConflictError(RetryError):
    """The document moved meanwhile: this call changed nothing, and is planned anew. The ERP itself can be used."""


class SlowDownError(RetryError):
    """The ERP asks for a rest of so many seconds."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class HoldError(OrdertapError):
    """This document alone waits for a person. Nothing was changed in the ERP."""

    exit_code = ExitCode.CONFIG

    def __init__(self, message: str, hint: str, cause: Cause = "decision") -> None:
        super().__init__(message, hint)
        self.cause: Cause = cause


class StopError(OrdertapError):
    """Nothing more goes to this ERP until a person has mended it: credentials, another ERP, missing tables."""

    exit_code = ExitCode.CONFIG
