"""Where a document stands, and what one look at it came to. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


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
    IGNORED = "ignored"
    GONE = "gone"


class Standing(NamedTuple):
    """What the ledger says of a document; `dirty`: it was marked since it was looked at."""

    state: State
    incarnation: int
    needed: bool
    dirty: bool
    marked: int
