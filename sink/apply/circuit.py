"""When an ERP that cannot be used is left alone, and who asks whether it can be used again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import Enum

from sink.erp.contract import RetryError, SlowDownError, StopError

_SHORTEST_REST = 0.5
_LONGEST_REST = 60.0


class Turn(Enum):
    """What a thread may do now."""

    WORK = "work"
    TRY = "try"  # ask the ERP whether it can be used; nobody else does meanwhile
    REST = "rest"


class Circuit:
    """One per ERP: while it cannot be used nobody sends to it, and one thread at a time asks whether it can be again.

    It asks also when no document is due, so that an outage ends when it ends and not with the next order. A stop ends
    the same way, a minute apart: what a person has mended is found without a restart.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._until = 0.0
        self._rest = _SHORTEST_REST
        self.reason = ""
        self.stopped = ""

    @property
    def closed(self) -> bool:
        """Whether documents go to the ERP."""
        return not self.reason and not self.stopped

    def turn(self) -> Turn:
        """After a rest the first to ask tries, the others wait for what it finds."""
        with self._lock:
            if self.closed:
                return Turn.WORK
            if self._clock() < self._until:
                return Turn.REST
            self._until = self._clock() + _LONGEST_REST
            return Turn.TRY

    def recovered(self) -> None:
        """The ERP answered the one who tried."""
        with self._lock:
            self._rest, self._until, self.reason, self.stopped = _SHORTEST_REST, 0.0, "", ""

    def failed(self, error: RetryError) -> None:
        """The ERP cannot be used for a while, doubling."""
        with self._lock:
            rest = error.seconds if isinstance(error, SlowDownError) else self._rest
            self._until, self.reason = self._clock() + rest, error.message
            self._rest = min(_LONGEST_REST, self._rest * 2)

    def stop(self, error: StopError) -> None:
        """Nothing more until a person has mended it."""
        with self._lock:
            self.stopped = f"{error.message}; next: {error.hint} (looked at again every minute)"
            self._until = self._clock() + _LONGEST_REST
