"""A worker of the snapshot whose parent is gone."""

from __future__ import annotations

from multiprocessing import Pipe
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest

from capture.snapshot.worker import work
from schemas.model.errors import UnavailableError


def failing() -> SimpleNamespace:
    """A Setup that leads to an answer at once."""

    def producer() -> None:
        raise UnavailableError("Kafka is away")

    return SimpleNamespace(producer=producer)


@pytest.mark.parametrize("listens", [True, False])
def test_it_says_why_it_fails_and_ends_in_silence_when_nobody_listens(listens: bool) -> None:
    ours, theirs = Pipe()
    inbox: SimpleQueue[Any] = SimpleQueue()
    inbox.put(failing())
    if not listens:
        ours.close()
    work(theirs, inbox)
    if listens:
        assert "Kafka is away" in ours.recv().message
