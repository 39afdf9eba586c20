"""How far a snapshot is, in figures and on a terminal."""

import logging
import os
import sys
from contextlib import suppress

import pytest
from prometheus_client import REGISTRY

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


def everything(terminal: int) -> str:
    """What was written until the other side was closed; one read has what one write wrote."""
    parts = []
    with os.fdopen(terminal, "rb", buffering=0) as ours, suppress(OSError):  # Linux: EIO at the end
        while part := ours.read(100_000):
            parts.append(part)
    return b"".join(parts).decode()


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        with Progress({"a": 1000}) as progress:
            progress.copied("a", 250)
            progress._bar.refresh()  # type: ignore[union-attr]
    shown = everything(ours)
    assert "250/1000" in shown
    assert "rows/s" in shown


def test_log_lines_stand_above_the_bar_and_not_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    log = logging.getLogger()
    with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        output = logging.StreamHandler(terminal)
        patch.setattr(log, "handlers", [output])
        with Progress({"a": 1000}):
            log.warning("said")
        log.warning("later")
        assert output.stream is terminal
    shown = everything(ours)
    before = shown.split("said")[0]
    assert "snapshot" in before
    assert before.rpartition("\r")[2] == "\x1b[2K"  # the bar's line is wiped before the log's goes there
    assert "later\r\n" in shown
