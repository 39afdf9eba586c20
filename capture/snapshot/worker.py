"""A worker process of the snapshot: `python -m capture.snapshot.worker FD`, started only by capture.snapshot.workers.

It ends when its parent is gone, because the socket that brings its chunks is closed then.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from capture.snapshot.copying import Copier
from capture.snapshot.locks import reader_at
from capture.snapshot.workers import Begin, Done, Failed, Ready, Setup
from schemas.model.errors import OrdertapError


def work(connection: Connection, inbox: SimpleQueue[Any]) -> None:
    """Takes a Setup, a Begin, then groups of chunks. Answers Ready, then Done or Failed. Ends when nobody listens."""
    with suppress(ConnectionError):  # the parent was killed
        try:
            _copy(connection, inbox)
        except OrdertapError as error:
            connection.send(Failed(error.message, error.hint, type(error)))


def _copy(connection: Connection, inbox: SimpleQueue[Any]) -> None:
    setup: Setup = inbox.get()
    producer = setup.producer()
    reader = reader_at(setup.server, setup.locks, setup.exported)
    connection.send(Ready())
    begin: Begin = inbox.get()
    copier = Copier(reader, producer, setup.timeout, begin.blueprints, begin.copied, lambda: None)
    while True:
        number, chunks = inbox.get()
        connection.send(Done(number, copier.copy(chunks)))


def _listen(connection: Connection, inbox: SimpleQueue[Any]) -> None:
    """Puts messages of the parent into the inbox. Ends the process at once when the parent is gone."""
    try:
        while True:
            inbox.put(connection.recv())
    except (EOFError, OSError):
        os._exit(1)


def main() -> None:
    """Ignores Ctrl-C and SIGTERM, which reach the whole group: the parent decides when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection = Connection(int(sys.argv[1]))
    inbox: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_listen, args=(connection, inbox), daemon=True).start()
    work(connection, inbox)


if __name__ == "__main__":
    main()
