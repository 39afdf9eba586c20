"""The thread that has the database: it does one thing at a time, while the thread that asks for it goes on reading."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, ParamSpec, Self, TypeVar

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")


class Desk(Generic[T]):
    """At most one thing is in flight. Its errors are raised where its outcome is asked for."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "database")
        self._in_flight: Future[T] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Waits until what is in flight has ended: the connection is the thread's until then."""
        self._thread.shutdown(wait=True)

    @property
    def free(self) -> bool:
        """Whether nothing is in flight, and no outcome waits to be asked for."""
        return self._in_flight is None

    def hand_over(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> None:
        """Begins something, while the desk is free. What it is given must not change any more."""
        assert self.free  # noqa: S101  a second one would be staged before anybody knows how the first one ended
        self._in_flight = self._thread.submit(work, *arguments, **named)

    def outcome(self, until_done: bool = False) -> T | None:
        """What was handed over gave, if it has ended; None while it has not, and when nothing was."""
        job = self._in_flight
        if job is None or not (until_done or job.done()):
            return None
        wait([job])
        self._in_flight = None
        return job.result()

    def discard(self) -> None:
        """Waits until what is in flight has ended, and asks for no outcome: what was read counts no more, or what went
        wrong in it goes wrong again."""
        if self._in_flight is not None:
            wait([self._in_flight])
            self._in_flight = None

    def call(self, work: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        """Does something there after what is in flight, and waits for it."""
        return self._thread.submit(work, *arguments, **named).result()
