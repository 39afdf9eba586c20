"""Ends the wait for a PostgreSQL server that has fallen silent.

The server's own limits end a statement, and TCP notices a peer that is gone. But libpq waits for ever if the server's
process is frozen, or if a proxy accepts everything and answers nothing. A worker would hang, and the sink would still
report itself healthy.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from typing import Any, Final

import sqlalchemy as sa

_LOOK: Final = 0.5
_GRACE: Final = 2.0  # the server's own limit comes first, because it says what happened


class Silence:
    """Watches the connections of an engine. A connection that was asked something has `seconds` to answer, and a bit.
    Then its socket is shut down, through a duplicate of its number that nothing else can take. The driver reads the end
    of the stream, and raises an error like any lost connection's."""

    def __init__(self, engine: sa.Engine, seconds: float) -> None:
        self._seconds = seconds + _GRACE
        self._sockets: dict[Any, socket.socket] = {}  # by the driver's connection
        self._until: dict[Any, float] = {}
        self._over = threading.Event()
        self._ping = engine.dialect.do_ping
        engine.dialect.do_ping = self._pinged  # type: ignore[method-assign,assignment]
        for event, function in (
            ("connect", self._connected),
            ("reset", lambda driver, *_: self._asked(driver)),
            ("checkin", lambda driver, *_: self._until.pop(driver, None)),
            ("close", self._closed),
        ):
            sa.event.listen(engine.pool, event, function)
        for event in ("before_cursor_execute", "commit", "rollback"):
            sa.event.listen(engine, event, self._asked_on)
        threading.Thread(target=self._watch, name="silence", daemon=True).start()

    def close(self) -> None:
        """Stops watching."""
        self._over.set()

    def _connected(self, driver: Any, _record: object) -> None:
        self._sockets[driver] = socket.socket(fileno=os.dup(driver.fileno()))

    def _closed(self, driver: Any, _record: object) -> None:
        self._until.pop(driver, None)
        if found := self._sockets.pop(driver, None):
            found.close()

    def _asked_on(self, connection: sa.Connection, *_: object) -> None:
        if not connection.invalidated:
            self._asked(connection.connection.dbapi_connection)

    def _asked(self, driver: Any) -> None:
        if driver in self._sockets:
            self._until[driver] = time.monotonic() + self._seconds

    def _pinged(self, driver: Any) -> bool:
        """The pool asks a connection whether it lives before it hands it out."""
        self._asked(driver)
        try:
            return self._ping(driver)
        finally:
            self._until.pop(driver, None)

    def _watch(self) -> None:
        while not self._over.wait(_LOOK):
            now = time.monotonic()
            for driver, until in self._until.copy().items():
                found = self._sockets.get(driver)
                if until < now and found is not None:
                    with suppress(OSError):  # it has just been closed
                        found.shutdown(socket.SHUT_RDWR)
