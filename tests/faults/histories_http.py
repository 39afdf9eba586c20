"""A proxy before an ERP that is called by JSON over HTTP. It loses answers to calls that were done."""

from __future__ import annotations

import http.client
import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

_READS: Final = ("read", "search", "search_read", "search_count", "get_preferences", "fields_get", "login", "logout")
_PASSED_ON: Final = ("Content-Type", "Authorization")
_SECONDS: Final = 120.0


class HttpProxy:
    """`url` is where it listens. `lost` counts the calls that the ERP did and whose answers were lost."""

    def __init__(self, server_port: int) -> None:
        self.lost = 0
        self._server_port = server_port
        self._lock = threading.Lock()
        self._loses = False
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                proxy.passes_on(self)

            def log_message(self, *_: Any) -> None:
                """Keeps the server from logging."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, name="http proxy", daemon=True).start()

    def close(self) -> None:
        """Stops the proxy."""
        self._server.shutdown()
        self._server.server_close()

    def lose_answer(self) -> None:
        """Loses the answer to the next call that writes and succeeds."""
        self._loses = True

    def calm(self) -> None:
        """Passes everything on from now on."""
        self._loses = False

    def passes_on(self, request: BaseHTTPRequestHandler) -> None:
        """Passes one call on, and its answer back."""
        body = request.rfile.read(int(request.headers["Content-Length"]))
        try:
            status, answer = self._asked(request, body)
        except (OSError, http.client.HTTPException):
            request.close_connection = True
            return
        if self._is_lost(body, answer):
            request.close_connection = True
            return
        with suppress(OSError):  # the client may have been killed meanwhile
            request.send_response(status)
            request.send_header("Content-Type", "application/json")
            request.send_header("Content-Length", str(len(answer)))
            request.end_headers()
            request.wfile.write(answer)

    def _asked(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._server_port, timeout=_SECONDS)
        try:
            headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
            connection.request("POST", request.path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _is_lost(self, body: bytes, answer: bytes) -> bool:
        with self._lock:
            if not self._loses or not _writes(body) or b'"error"' in answer[:200]:
                return False
            self._loses = False
            self.lost += 1
            return True


def _writes(body: bytes) -> bool:
    return str(json.loads(body)["method"]).rpartition(".")[2] not in _READS
