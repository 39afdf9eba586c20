"""The thread that has the database: it does one thing after another, while the thread that asks for them reads on."""

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
    """Something was not begun, because what stood before it in the line went wrong."""


class SerialExecutor(Generic[T]):
    """What is handed over is done in its order; once one thing goes wrong, nothing behind it is begun. The error is
    raised where the outcome is asked for."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "database")
        self._pending: deque[Future[T]] = deque()
        self._went_wrong = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Waits until what is in flight has ended: the connection is the thread's until then."""
        self._thread.shutdown(wait=True)

    @property
    def pending(self) -> int:
        """How many outcomes were not asked for yet, that of what is in flight among them."""
        return len(self._pending)

    def submit(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> None:
        """Puts something in the line. What it is given must not change any more."""
        self._pending.append(self._thread.submit(self._begin, partial(work, *arguments, **named)))

    def _begin(self, work: Callable[[], T]) -> T:
        if self._went_wrong:
            raise NotStartedError("what stood before it went wrong", "it is read again")
        try:
            return work()
        except BaseException:
            self._went_wrong = True
            raise

    def result(self, wait_for_it: bool = False) -> T | None:
        """What the first thing in the line gave, if it has ended, which then leaves the line."""
        if not self._pending or not (wait_for_it or self._pending[0].done()):
            return None
        return self._pending.popleft().result()

    def discard(self) -> None:
        """Waits until what is in flight has ended, and asks for no outcome: what was read counts no more, or what went
        wrong in it goes wrong again."""
        wait(self._pending)
        self._pending.clear()
        self._went_wrong = False

    def run(self, work: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        """Does something there after all that is in the line, and waits for it."""
        return self._thread.submit(work, *arguments, **named).result()
