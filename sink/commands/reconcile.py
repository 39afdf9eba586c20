"""`sink reconcile`: do shop and ERP agree?"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable

from sink.reconcile.report import Report


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
