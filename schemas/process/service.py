"""What both processes share at run time: logs, the health and metrics server, the stop signal."""

from __future__ import annotations

import http.client
import json
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from types import FrameType, TracebackType
from typing import Any, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, make_wsgi_app

from schemas.model.errors import SettingsError

Probe = Callable[[], tuple[bool, str]]
"""(whether it is so, the reason in words)."""


def configure_logs(level: str = "info", json: bool = False) -> None:
    """Sends the logs of this process and its libraries to stderr: for people, or as one JSON object per line.

    A terminal shows the time of day, and the next step on a line of its own. In a file the time is UTC, and each entry
    is one line. SettingsError for a wrong level.
    """
    levels = logging.getLevelNamesMapping()
    if level.upper() not in levels:
        raise SettingsError(f"{level!r} is not a log level", "use debug, info, warning or error")
    screen = not json and sys.stderr.isatty()
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if screen else "iso", utc=not screen),
        structlog.processors.StackInfoRenderer(),
    ]
    shown: list[structlog.types.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()] if json else [_ForPeople(screen)]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    output = logging.StreamHandler(sys.stderr)
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    output.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[remove, *shown]))
    logging.basicConfig(level=levels[level.upper()], handlers=[output], force=True)
    for chatty in ("httpx", "httpx2", "httpcore", "httpcore2"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, levels[level.upper()]))


class _ForPeople:
    """Shows what happened, where and why; on a terminal, the next step below it, as errors do."""

    def __init__(self, screen: bool) -> None:
        self._screen = screen
        self._line = structlog.dev.ConsoleRenderer(
            colors=screen,
            sort_keys=False,
            exception_formatter=structlog.dev.plain_traceback,  # the default one shows variables, which may be rows
        )

    def __call__(self, logger: Any, method: str, entry: structlog.types.EventDict) -> str:
        step = entry.pop("next", None) if self._screen else None
        line = self._line(logger, method, entry)
        return f"{line}\n  next: {step}" if step else line


def stop_event() -> threading.Event:
    """An event that SIGTERM and SIGINT set. A second signal ends the process as usual. Only for the main thread."""
    event = threading.Event()

    def stop(number: int, _frame: FrameType | None) -> None:
        event.set()
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    return event


def reread_event() -> threading.Event:
    """An event that SIGHUP sets, if the platform has it. Only for the main thread."""
    event = threading.Event()
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda _number, _frame: event.set())
    return event


class _QuietRequests(WSGIRequestHandler):
    timeout = 5  # seconds: a silent client does not hold the server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's name
        """Does not log: probes come every few seconds."""


def port_taken(host: str, port: int) -> tuple[str, bool]:
    """Why a health server cannot have the port on this machine ("" if it can), and whether one of ours has it."""
    try:
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as WSGIServer does
            tried.bind((host, port))
    except OSError as error:
        return error.strerror or str(error), _answers(host, port)
    return "", False


def ask_ready(host: str, port: int) -> tuple[bool, str] | None:
    """Whether the health server there says that it is ready, and why; None if none of ours answers, or port is 0."""
    told = _asked(host, port, "/health/ready") if port else None
    return None if told is None else (bool(told["healthy"]), str(told["reason"]))


def _answers(host: str, port: int) -> bool:
    return _asked(host, port, "/health/live") is not None


def _asked(host: str, port: int, path: str) -> dict[str, Any] | None:
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", path)
        told = json.loads(connection.getresponse().read(10_000))
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return told if isinstance(told, dict) and {"healthy", "reason"} <= told.keys() else None


class HealthServer:
    """Serves `/metrics` (Prometheus), `/health/live` and `/health/ready` (200 or 503, JSON) from a thread of its own.

    Port 0 takes a free one, see `port`. SettingsError if the port is taken. The server's thread calls the probes, so
    they only look.
    """

    def __init__(self, host: str, port: int, live: Probe, ready: Probe, registry: CollectorRegistry = REGISTRY) -> None:
        self._probes = {"/health/live": live, "/health/ready": ready}
        self._metrics = make_wsgi_app(registry)
        try:
            self._server = make_server(host, port, self._answer, WSGIServer, _QuietRequests)
        except OSError as error:
            raise SettingsError(
                f"health server: port {port} of {host} cannot be opened: {error.strerror}",
                "set health_port to a free one",
            ) from None
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), name="health", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"].rstrip("/")
        if path == "/metrics":
            return self._metrics(environ, start_response)  # type: ignore[no-any-return]
        probe = self._probes.get(path)
        if probe is None:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"/metrics, /health/live, /health/ready\n"]
        healthy, reason = probe()
        body = json.dumps({"healthy": healthy, "reason": reason}, ensure_ascii=False).encode()
        status = "200 OK" if healthy else "503 Service Unavailable"
        start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]
