"""`capture` with a fault at a named point: `python -X fault=POINT:N -m tests.faults.broken run …`.

Points: `before-` or `after-` and one of `_CALLS`: the process kills itself there at the n-th call since streaming
began, or, for names in capitals, since the process started. `halt-`: it stops after the call until it gets SIGCONT.
`clock`: from the n-th second of streaming on, the clock of the process jumps a day ahead and back.
`watched`: nothing breaks, but the process ends with exit code UNSAFE_READ before a read in which psycopg2 could
acknowledge by itself what is not durable; n is ignored.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from capture.__main__ import main
from capture.kafka.producer import TransactionalProducer
from capture.kafka.writer import Writer
from capture.postgres.replication import Replication
from capture.stream import Stream

_CALLS: dict[str, tuple[type, str]] = {
    "produce": (TransactionalProducer, "produce"),
    "commit": (TransactionalProducer, "commit"),
    "feedback": (Replication, "confirm"),
    "SLOT": (Replication, "create_slot"),
    "COMMIT": (TransactionalProducer, "commit"),
}
UNSAFE_READ = 90
_DAY_NS = 86_400 * 10**9
_streaming = False


def _note_start() -> None:
    """Counts calls only from the start of the stream: the snapshot makes calls of its own."""
    start = Replication.start

    def noted(*arguments: Any, **named: Any) -> None:
        global _streaming
        start(*arguments, **named)
        _streaming = True

    Replication.start = noted  # type: ignore[method-assign]


def _kill_at(point: str, number: int) -> None:
    when, _, name = point.partition("-")
    owner, attribute = _CALLS[name]
    function: Callable[..., Any] = getattr(owner, attribute)
    calls = itertools.count(1)

    def deadly(*arguments: Any, **named: Any) -> Any:
        last = (_streaming or name.isupper()) and next(calls) == number
        if last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **named)
        if last:
            os.kill(os.getpid(), signal.SIGSTOP if when == "halt" else signal.SIGKILL)
        return result

    setattr(owner, attribute, deadly)


def _jump_clock(seconds: int) -> None:
    """time.time and time.time_ns jump a day ahead and back every second. Monotonic clocks do not, as in a kernel."""
    real, began = time.time_ns, time.monotonic()

    def jumping() -> int:
        lived = int(time.monotonic() - began)
        return real() + (0 if lived < seconds else _DAY_NS if lived % 2 else -_DAY_NS)

    time.time_ns = jumping
    time.time = lambda: jumping() / 1e9


def _watch_reads() -> None:
    """Tracks what psycopg2 does by itself: on a keepalive it acknowledges everything if the LSN confirmed last is at or
    above the data_start of the message read last. Parts of an unfinished transaction may wait: what the server counts
    as sent ends before its commit."""
    make = Stream.__init__

    def made(self: Stream, replication: Replication, writer: Writer, *rest: Any) -> None:
        make(self, replication, writer, *rest)
        read, confirm = replication.read, replication.confirm
        confirmed = start = 0

        def watched() -> Any:
            nonlocal start
            if writer.pending and self._position.end_lsn > writer.durable.end_lsn and confirmed >= start:
                os._exit(UNSAFE_READ)
            message = read()
            start = start if message is None else message.data_start
            return message

        def noted(lsn: Any, *more: Any, **named: Any) -> None:
            nonlocal confirmed
            confirmed = int(lsn)
            confirm(lsn, *more, **named)

        replication.read, replication.confirm = watched, noted  # type: ignore[method-assign]

    Stream.__init__ = made  # type: ignore[method-assign]


if __name__ == "__main__":
    point, _, number = str(sys._xoptions["fault"]).partition(":")
    _note_start()
    if point == "clock":
        _jump_clock(int(number))
    elif point == "watched":
        _watch_reads()
    else:
        _kill_at(point, int(number))
    main()
