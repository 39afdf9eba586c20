"""The database's thread. It does one job after another, while the calling thread reads on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Generic, ParamSpec, Self, TypeVar

from schemas.model.errors import OrdertapError

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")


class NotStartedError(OrdertapError):
    """A job was not started because the one before it failed."""


class SerialExecutor(Generic[T]):
    """Does jobs in order. After a failure it starts none of those behind it. Errors are raised by `result`."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "database")
        self._pending: deque[Future[T]] = deque()
        self._went_wrong = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Waits for the job in flight, which has the connection until then."""
        self._thread.shutdown(wait=True)

    @property
    def pending(self) -> int:
        """Jobs whose result was not taken yet, the one in flight included."""
        return len(self._pending)

    def submit(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> None:
        """Queues a job. Its arguments must not be changed afterwards."""
        self._pending.append(self._thread.submit(self._begin, partial(work, *arguments, **named)))

    def _begin(self, work: Callable[[], T]) -> T:
        if self._went_wrong:
            raise NotStartedError("the job before it failed", "it is read again")
        try:
            return work()
        except BaseException:
            self._went_wrong = True
            raise

    def result(self, wait_for_it: bool = False) -> T | None:
        """Takes the result of the first job, if it has ended; None otherwise."""
        if not self._pending or not (wait_for_it or self._pending[0].done()):
            return None
        return self._pending.popleft().result()

    def discard(self) -> None:
        """Waits for the job in flight, and drops all results and errors. Whatever failed is read again, and fails again
        if it has to."""
        wait(self._pending)
        self._pending.clear()
        self._went_wrong = False

    def run(self, work: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        """Runs a job after those in the queue, and waits for it."""
        return self._thread.submit(work, *arguments, **named).result()
