"""The circuit breaker before the ERP: after an outage one thread tries, the others rest."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import Enum

from sink.erp.contract import RetryError, SlowDownError, StopError

_SHORTEST_REST = 0.5
_LONGEST_REST = 60.0


class Turn(Enum):
    """What a thread may do."""

    WORK = "work"
    TRY = "try"  # ask the ERP whether it can be used; no other thread does meanwhile
    REST = "rest"


class Circuit:
    """One per process. While the ERP cannot be used, nothing is sent, and one thread at a time asks whether it is back.

    It asks even if no document is due, so the end of an outage is seen at once and not with the next order. After a
    stop it asks once a minute, so what a person has fixed is found without a restart.
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
        """After a rest, the first thread to ask gets TRY; the others rest until it has an answer."""
        with self._lock:
            if self.closed:
                return Turn.WORK
            if self._clock() < self._until:
                return Turn.REST
            self._until = self._clock() + _LONGEST_REST
            return Turn.TRY

    def recovered(self) -> None:
        """The ERP has answered: everyone works again."""
        with self._lock:
            self._rest, self._until, self.reason, self.stopped = _SHORTEST_REST, 0.0, "", ""

    def failed(self, error: RetryError) -> None:
        """The ERP cannot be used. The rest doubles each time, up to a minute, unless the error names its own."""
        with self._lock:
            rest = error.seconds if isinstance(error, SlowDownError) else self._rest
            self._until, self.reason = self._clock() + rest, error.message
            self._rest = min(_LONGEST_REST, self._rest * 2)

    def stop(self, error: StopError) -> None:
        """A person has to fix something first."""
        with self._lock:
            self.stopped = f"{error.message}; next: {error.hint} (looked at again every minute)"
            self._until = self._clock() + _LONGEST_REST
