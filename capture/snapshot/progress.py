"""The progress of a snapshot: metrics, a bar on a terminal, and log lines everywhere else."""

from __future__ import annotations

import io
import logging
import sys
import time
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Final, TextIO

import structlog

from capture.metrics import SNAPSHOT_ROWS, SNAPSHOT_ROWS_LEFT, SNAPSHOT_TABLES_LEFT

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

log = structlog.get_logger("capture")

_SAY_EVERY: Final = 5.0


class Progress:
    """A context for one snapshot. Rows are estimates until a table is done; None if unknown."""

    def __init__(self, expected: dict[str, int | None]) -> None:
        """`expected`: all tables."""
        self._expected = dict(expected)
        self._rows = dict.fromkeys(expected, 0)
        self._copied = 0
        self._left = dict(expected)
        # Sums, because adding up thousands of tables for each of them takes long.
        self._unknown = sum(rows is None for rows in expected.values())
        self._known = sum(rows or 0 for rows in expected.values())
        self._done: set[str] = set()
        self._began = self._said = time.monotonic()
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Progress:
        self._publish()
        if sys.stderr.isatty():
            self._bar = _bar()
            self._task = self._bar.add_task("snapshot", total=self._total(), told=self._told())
            plain = sys.stderr
            self._bar.start()
            self._above = _Above(self._bar.console)
            _move_log(plain, self._above)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            _move_log(self._above, sys.stderr)
        SNAPSHOT_ROWS_LEFT.set(0)
        SNAPSHOT_TABLES_LEFT.set(0)

    def copied(self, table: str, rows: int, part: float = 0.0) -> None:
        """Notes rows of a table that are durable. `part`: how much of the table is done, which is better than the
        estimate (0: unknown)."""
        self._rows[table] += rows
        self._copied += rows
        if part and self._rows[table]:
            self._expected[table] = round(self._rows[table] / part)
        expected = self._expected[table]
        self._leave(table, None if expected is None else max(0, expected - self._rows[table]))
        SNAPSHOT_ROWS.labels(table).inc(rows)
        self._publish()
        if self._bar is None and time.monotonic() - self._said > _SAY_EVERY:
            self._said = time.monotonic()
            log.info("snapshot continues", **self.figures())

    def table_done(self, table: str) -> None:
        """Notes that all of a table is durable."""
        self._done.add(table)
        self._leave(table, 0)
        self._publish()
        log.info("table copied", table=table, rows=self._rows[table])

    def figures(self) -> dict[str, int | str]:
        """Rows so far, rows per second, and what remains."""
        left = self.rows_left()
        return {
            "rows": self._copied,
            "rows_per_second": round(self._copied / max(0.001, time.monotonic() - self._began)),
            "rows_left": "unknown" if left is None else left,
            "tables_left": len(self._expected) - len(self._done),
        }

    def rows_left(self) -> int | None:
        """About how many rows are still to come; None if that is unknown for an unfinished table."""
        return None if self._unknown else self._known

    def _leave(self, table: str, rows: int | None) -> None:
        """Notes how many rows of a table are still to come."""
        before, self._left[table] = self._left[table], rows
        self._unknown += (rows is None) - (before is None)
        self._known += (rows or 0) - (before or 0)

    @property
    def rows(self) -> dict[str, int]:
        """Rows by table."""
        return dict(self._rows)

    def _told(self) -> str:
        """What a person wants to know, as far as it is known."""
        rows, passed, left = self._copied, time.monotonic() - self._began, self.rows_left()
        told = [f"{len(self._done)} of {len(self._expected)} tables", f"{rows:,} rows"]
        if rows and passed > 0:
            told.append(f"{rows / passed:,.0f} rows/s")
            told += [] if left is None else [f"{timedelta(seconds=round(left * passed / rows))} left"]
        return ", ".join(told)

    def _total(self) -> int | None:
        left = self.rows_left()
        return None if left is None else self._copied + left

    def _publish(self) -> None:
        left = self.rows_left()
        SNAPSHOT_ROWS_LEFT.set(-1 if left is None else left)
        SNAPSHOT_TABLES_LEFT.set(len(self._expected) - len(self._done))
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._copied, total=self._total(), told=self._told())


class _Above(io.TextIOBase):
    """Puts log lines above the bar unchanged: rich would break what goes to its stderr at the terminal's width."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def write(self, text: str) -> int:
        from rich.text import Text

        self._console.print(Text.from_ansi(text.removesuffix("\n")), soft_wrap=True)
        return len(text)


def _move_log(old: TextIO | _Above, new: TextIO | _Above) -> None:
    """Sends log lines of one stream to the other."""
    for output in logging.getLogger().handlers:
        if isinstance(output, logging.StreamHandler) and output.stream is old:
            output.setStream(new)


def _bar() -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=12), TextColumn("{task.fields[told]}"))
    return Progress(*columns, console=Console(stderr=True), transient=True)
