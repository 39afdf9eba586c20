"""SIGTERM while a start waits inside PostgreSQL's or Kafka's library: Python sees no signal until the library
returns."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Final

import structlog

log = structlog.get_logger("capture")

_PATIENCE: Final = 1.0  # seconds


def end_deaf_start(starting: Callable[[], bool]) -> None:
    """From now on, a signal to stop ends the process after a second if it is still `starting()`.

    A start holds nothing that must be closed properly: the next start ends what it leaves open, as after a crash. Call
    this in the main thread, once the signals have their handlers. A thread of its own calls `starting`.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)  # the C handler writes there at once
    threading.Thread(target=_listen, args=(reading, starting), name="stopping", daemon=True).start()


def _listen(reading: int, starting: Callable[[], bool]) -> None:
    while True:
        if os.read(reading, 1)[0] not in (signal.SIGTERM, signal.SIGINT):
            continue
        threading.Event().wait(_PATIENCE)
        if starting():
            log.warning("stopped while starting", next="start again: the next start can finish what was begun")
            os._exit(0)
