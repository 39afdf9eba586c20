"""What commands with a dry run share: they look, say what they would change, and change it if told to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Self

from capture.plan import Plan
from capture.postgres.replication import Leadership


class Proposal(ABC):
    """What a command would change. As a context manager it holds the leadership, so that no capture starts meanwhile. A
    subclass sets what its look needs, then calls this constructor, which raises the look's errors."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._leadership = Leadership(plan.server, plan.options.slot)
        try:
            self._look()
        except BaseException:
            self._leadership.close()
            raise

    @abstractmethod
    def _look(self) -> None:
        """Takes the leadership and notes how things are. SettingsError while a capture runs."""

    @abstractmethod
    def lines(self) -> Iterator[str]:
        """What is there and what would be done, for people."""

    @abstractmethod
    def execute(self) -> Iterator[str]:
        """Does it, and says each thing that it has done."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Gives the leadership up."""
        self._leadership.close()
