"""A short run of ./tests/fuzz, and the proof that it finds what it looks for."""

import re
import time
from collections.abc import Callable
from pathlib import Path

from deploy.embedded import Postgres
from tests.fuzzing import fuzz
from tests.fuzzing.corpus import collect
from tests.fuzzing.targets import Target, targets


def test_broken_inputs_end_in_our_own_errors(
    postgres: Postgres, new_database: Callable[[Postgres, str], str], tmp_path: Path
) -> None:
    every = targets(collect(lambda name: new_database(postgres, name)), tmp_path / "registry")
    names = {target.name for target in every}
    assert {"a message of pgoutput", "numeric[], encoded", "a record's Avro", "a line of COPY into a record"} <= names
    result = fuzz.fuzz(every, inputs=len(every) * 20, seed=7)
    assert result.inputs == len(every) * 20
    assert result.findings == []


def test_another_error_and_a_slow_input_are_findings() -> None:
    def slow(_: bytes) -> None:
        began = time.thread_time()
        while time.thread_time() < began + fuzz.SLOW_SECONDS + 0.1:
            pass

    wrong = Target("reads a byte", [b"ab"], lambda data: data[50])
    assert "IndexError" in fuzz.fuzz([wrong], 1, 1).findings[0]
    [finding] = fuzz.fuzz([Target("slow", [b"ab"], slow)], 1, 1).findings
    assert re.fullmatch(r"slow: \d+\.\d s of CPU", finding)


def test_an_input_that_was_slow_once_is_no_finding() -> None:
    """The machine was slow."""
    calls: list[bytes] = []

    def slow_at_first(data: bytes) -> None:
        calls.append(data)
        began = time.thread_time()
        while len(calls) == 1 and time.thread_time() < began + fuzz.SLOW_SECONDS + 0.1:
            pass

    assert fuzz.fuzz([Target("slow", [b"ab"], slow_at_first)], 1, 1).findings == []
    assert len(calls) == 2
    assert calls[0] == calls[1]
