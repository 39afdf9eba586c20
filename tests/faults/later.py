"""`sink` whose circuit breaker has a clock that is ahead: `python -X later=FILE -m tests.faults.later run …`.

The file has the seconds by which it is ahead, so that a test of an outage of days need not wait for days.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from sink import pipeline
from sink.__main__ import main
from sink.apply.circuit import Circuit

if __name__ == "__main__":
    ahead = Path(str(sys._xoptions["later"]))
    clock = lambda: time.monotonic() + float(ahead.read_text())  # noqa: E731
    pipeline.Circuit = lambda: Circuit(clock)  # type: ignore[assignment,misc]
    main()
