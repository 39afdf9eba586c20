"""How far a snapshot is, in figures and on a terminal."""

import logging
import os
import re
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TextIO

import pytest
from prometheus_client import REGISTRY

from capture.snapshot import progress as progress_module
from capture.snapshot.progress import Progress


def left() -> tuple[float | None, float | None]:
    rows, tables = "ordertap_capture_snapshot_remaining_rows", "ordertap_capture_snapshot_remaining_tables"
    return REGISTRY.get_sample_value(rows), REGISTRY.get_sample_value(tables)


def test_what_remains_is_known_as_far_as_the_planner_knows() -> None:
    with Progress({"a": 100, "b": 10, "c": None}) as progress:
        assert left() == (-1, 3)
        progress.table_done("c")
        progress.copied("a", 60)
        assert left() == (50, 2)
        progress.copied("a", 90)  # more than the planner thought
        assert left() == (10, 2)
        progress.table_done("a")
        assert progress.figures()["rows"] == 150
    assert left() == (0, 0)


def test_what_is_copied_tells_more_than_the_guess() -> None:
    with Progress({"a": 100_000, "b": None}) as progress:
        progress.copied("b", 10, 0.5)
        progress.copied("a", 100, 0.1)
        assert progress.rows_left() == 910


def everything(terminal: int) -> str:
    """All that was written until the other side was closed; each read returns what one write wrote."""
    parts = []
    with os.fdopen(terminal, "rb", buffering=0) as ours, suppress(OSError):  # Linux: EIO at the end
        while part := ours.read(100_000):
            parts.append(part)
    return b"".join(parts).decode()


@contextmanager
def opened() -> Iterator[tuple[TextIO, Future[str]]]:
    """A terminal, and all of its output once it is closed. It is read meanwhile, because a full terminal blocks."""
    ours, theirs = os.openpty()
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(everything, ours)
        with os.fdopen(theirs, "w") as terminal:
            yield terminal, written


class Clock:
    """A monotonic clock that stands at `now`."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


def shown(monkeypatch: pytest.MonkeyPatch, expected: dict[str, int | None], seconds: float, columns: int = 80) -> str:
    """The terminal's output when 250 rows of table a, and all of table b, were copied in this time."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    clock = Clock()
    with opened() as (terminal, written), monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        patch.setattr(progress_module, "time", clock)
        with Progress(expected) as progress:
            clock.now += seconds
            progress.copied("a", 250)
            progress.table_done("b")
            progress._bar.refresh()  # type: ignore[union-attr]
    return re.sub(r"\x1b\[\??[0-9;]*[a-zA-Z]", "", written.result())


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    line = shown(monkeypatch, {"a": 1_000_000, "b": 0}, 2.0)
    assert "0 of 2 tables, 0 rows\r" in re.sub(r" +\r", "\r", line)
    assert "1 of 2 tables, 250 rows, 125 rows/s, 2:13:18 left" in line


def test_a_bar_says_nothing_of_what_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    line = shown(monkeypatch, {"a": 1000, "b": 0, "c": None}, 2.0)
    assert "1 of 3 tables, 250 rows, 125 rows/s" in line
    assert "left" not in line
    assert "?" not in line


def test_a_long_log_line_is_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    log = logging.getLogger()
    said = "\x1b[1mtable copied\x1b[0m table=public.a_table_with_a_long_name at=16/B374D848 rows=[1, 2] :smile:"
    with opened() as (terminal, written), monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        patch.setattr(log, "handlers", [logging.StreamHandler(terminal)])
        with Progress({"a": 1000}):
            log.warning(said)
            log.warning("")
    assert f"{said}\r\n" in written.result()


def test_log_lines_stand_above_the_bar_and_not_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    log = logging.getLogger()
    with opened() as (terminal, written), monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        output = logging.StreamHandler(terminal)
        patch.setattr(log, "handlers", [output])
        with Progress({"a": 1000}):
            log.warning("said")
        log.warning("later")
        assert output.stream is terminal
    shown = written.result()
    before = shown.split("said")[0]
    assert "snapshot" in before
    assert before.rpartition("\r")[2] == "\x1b[2K"  # the bar's line is wiped before the log's goes there
    assert "later\r\n" in shown
