"""An HTTP proxy before a JSON-RPC server. It does to single calls what networks do.

Only calls that write meet the next `Fault`. Reads pass, and so does opening or closing a wizard.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Collection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Literal, NamedTuple, Self

Fault = Literal["cut", "lost", "late", "twice", "again", "rest"]
"""`cut`: the call never arrives. `lost`: it is done, but the answer is lost. `late`: its sender gives up, and it
arrives when the test calls `settled`. `twice`: it arrives twice, and the second answer is returned. `again`: the same,
and the first answer is returned. `rest`: the answer is HTTP 429."""

REST: Final = "3"  # seconds, in the header Retry-After


class _Answer(NamedTuple):
    status: int
    content: bytes


class RpcProxy:
    """`faults` are used up from the front, one for each call that writes (None: it passes). `calls` are the methods of
    these calls in order. `on_call` is called before such a call is passed on, `on_done` before its answer is."""

    def __init__(self, server: str, reads: Collection[str]) -> None:
        self.faults: list[Fault | None] = []
        self.calls: list[str] = []
        self.on_call: Callable[[str], None] = _nothing
        self.on_done: Callable[[str], None] = _nothing
        self._may_arrive = threading.Event()
        self._host, self._reads = server.removeprefix("http://"), reads
        self._under_way: set[threading.Thread] = set()
        self._listens = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._listens.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._listens.server_address[1]}"
        threading.Thread(target=self._listens.serve_forever, name="rpc-proxy", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.settled()
        self._listens.shutdown()
        self._listens.server_close()

    def settled(self) -> None:
        """Lets late calls arrive, and waits until they have ended."""
        self._may_arrive.set()
        for thread in list(self._under_way):
            thread.join()
        self._may_arrive.clear()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answer = proxy._answer(self.path, body, dict(self.headers.items()))
                if answer is None:
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                if answer.status == 429:
                    self.send_header("Retry-After", REST)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            def log_message(self, *_: Any) -> None:
                """Keeps the server from logging."""

        return Handler

    def _answer(self, path: str, body: bytes, headers: dict[str, str]) -> _Answer | None:
        """The answer; None to drop the connection."""
        method = str(json.loads(body)["method"])
        name = method.rpartition(".")[2]
        if name in self._reads or (method.startswith("wizard.") and name != "execute"):
            return self._pass(path, body, headers)
        self.calls.append(method)
        self.on_call(method)
        answer = self._met(path, body, headers)
        self.on_done(method)
        return answer

    def _met(self, path: str, body: bytes, headers: dict[str, str]) -> _Answer | None:
        """The answer that the next fault leaves of it."""
        match self.faults.pop(0) if self.faults else None:
            case "cut":
                return None
            case "lost":
                self._pass(path, body, headers)
                return None
            case "late":
                thread = threading.Thread(target=self._later, args=(path, body, headers), name="late call")
                self._under_way.add(thread)
                thread.start()
                return None
            case "twice":
                self._pass(path, body, headers)
                return self._pass(path, body, headers)
            case "again":
                first = self._pass(path, body, headers)
                self._pass(path, body, headers)
                return first
            case "rest":
                return _Answer(429, b"")
        return self._pass(path, body, headers)

    def _later(self, path: str, body: bytes, headers: dict[str, str]) -> None:
        self._may_arrive.wait()
        self._pass(path, body, headers)
        self._under_way.discard(threading.current_thread())

    def _pass(self, path: str, body: bytes, headers: dict[str, str]) -> _Answer | None:
        headers = {name: value for name, value in headers.items() if name.lower() != "accept-encoding"}
        connection = http.client.HTTPConnection(self._host, timeout=60)
        try:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            return _Answer(response.status, response.read())
        except OSError:
            return None
        finally:
            connection.close()


def _nothing(_: str) -> None:
    """Does nothing."""
