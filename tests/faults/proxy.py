"""A TCP proxy in front of a PostgreSQL server, which does to calls what networks do.

It knows two messages of the protocol: the BEGIN of a transaction that writes, and the COMMIT that the sink sends with a
check of the server's clock. A client waits for each reply, so each of these messages arrives in a piece of its own
(PostgreSQL manual, "Message Formats": `Q`, a length, the text, a zero byte).
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Self

_PIECE: Final = 65536


@dataclass
class Held:
    """A call on its way. `reached` is set when its BEGIN reaches the proxy, which passes it on after `goes_on`.
    `is_call` tells it from other transactions that may write, such as the driver's first one."""

    is_call: Callable[[], bool]
    reached: threading.Event = field(default_factory=threading.Event)
    goes_on: threading.Event = field(default_factory=threading.Event)


@dataclass(eq=False)
class _Link:
    client: socket.socket
    server: socket.socket
    asked: bool = False  # not answered yet
    loses_answer: bool = False

    def end(self) -> None:
        for one in (self.client, self.server):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


class Proxy:
    """Passes bytes in both directions until told otherwise. One per client, so that its connections are known.

    `port`: where it listens; `delay`: seconds per piece; `refuses`: accepts no connections. `cut` counts calls whose
    connection it ended before the reply, `lost` those of them that were committed.
    """

    def __init__(self, server_port: int) -> None:
        self.delay = 0.0
        self.refuses = False
        self.cut = self.lost = 0
        self._server_port = server_port
        self._links: set[_Link] = set()
        self._passes = threading.Event()
        self._passes.set()
        self._loses = self._then_refuses = False
        self._held: Held | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, name=f"proxy-{self.port}", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def url(self, dsn: str) -> str:
        """The URL of a database through the proxy."""
        return dsn.replace(f":{self._server_port}/", f":{self.port}/")

    def close(self) -> None:
        """Stops the proxy."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.calm()
        self.end_all()

    def end_all(self) -> int:
        """Ends all connections. Returns how many waited for a reply."""
        cut = 0
        for link in self._links.copy():
            cut += link.asked
            link.end()
        self.cut += cut
        return cut

    def lose_answer(self, then_refuse: bool = False) -> None:
        """Loses the reply to the next COMMIT: the connection ends when the server has replied. `then_refuse`:
        afterwards nothing passes."""
        self._loses, self._then_refuses = True, then_refuse

    @contextmanager
    def hole(self) -> Iterator[None]:
        """Nothing passes for the block, and no connection ends. What was sent arrives afterwards."""
        self._passes.clear()
        try:
            yield
        finally:
            self._passes.set()

    @contextmanager
    def away(self) -> Iterator[None]:
        """The server cannot be reached for the block."""
        self.refuses = True
        self.end_all()
        try:
            yield
        finally:
            self.refuses = False

    @contextmanager
    def holding(self, is_call: Callable[[], bool]) -> Iterator[Held]:
        """Holds the next call that writes before it reaches the server, at the latest until the end of the block.
        `is_call` is asked at each BEGIN whether it is one, since only the ledger knows."""
        held = self._held = Held(is_call)
        try:
            yield held
        finally:
            self._held = None
            held.goes_on.set()

    def calm(self) -> None:
        """From now on everything passes at once."""
        self.delay, self._loses, self.refuses = 0.0, False, False
        self._passes.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), name=f"link-{self.port}", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            if self.refuses:
                return
            with socket.create_connection(("127.0.0.1", self._server_port)) as server:
                link = _Link(client, server)
                self._links.add(link)
                try:
                    while self._turn(link):
                        pass
                finally:
                    self._links.discard(link)

    def _turn(self, link: _Link) -> bool:
        """Passes on what has come. False if a side has ended the connection, or we do."""
        for source in select.select([link.client, link.server], [], [])[0]:
            piece = source.recv(_PIECE)
            if not piece:
                return False
            time.sleep(self.delay)
            self._passes.wait()
            if source is link.client:
                self._asks(link, piece)
                link.server.sendall(piece)
            elif link.loses_answer:
                self.lost, self.cut = self.lost + 1, self.cut + 1
                if self._then_refuses:
                    self.refuses = True
                    self.end_all()
                return False
            else:
                link.asked = False
                link.client.sendall(piece)
        return True

    def _asks(self, link: _Link, piece: bytes) -> None:
        """Holds a call, or arranges that its reply is lost."""
        link.asked = True
        held = self._held
        if held is not None and _begins(piece) and held.is_call():
            self._held = None
            held.reached.set()
            held.goes_on.wait()
        elif self._loses and piece.endswith(b"; COMMIT; BEGIN\0"):
            self._loses = False
            link.loses_answer = True


def _begins(piece: bytes) -> bool:
    """Whether a transaction begins that may write; reading ones are REPEATABLE READ."""
    return piece[:1] == b"Q" and piece[5:10] == b"BEGIN" and b"REPEATABLE READ" not in piece
