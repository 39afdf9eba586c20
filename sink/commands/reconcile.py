"""`sink reconcile`: do shop and ERP agree?"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from sink.reconcile.report import Report
from sink.reconcile.source import Say


@contextmanager
def progress(quiet: bool) -> Iterator[Say]:
    """How far it is, in one line on a person's terminal; elsewhere nothing."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # most commands can do without

    with Console(stderr=True).status("reads the shop") as line:
        yield line.update


def agreed(look: Callable[[], Report], wait: float) -> Report:
    """Looks until both agree, at most so many seconds; at least once."""
    until = time.monotonic() + wait
    report = look()
    while not report.agrees and time.monotonic() < until:
        time.sleep(0.5)
        report = look()
    return report


def lines(report: Report, as_json: bool) -> Iterable[str]:
    """For people, or for machines."""
    return [json.dumps(report.to_json())] if as_json else report.lines()
