"""What both processes share at run time, by its effects: HTTP answers, log lines, signals."""

import json
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import structlog
from prometheus_client import CollectorRegistry, Counter

from schemas.model.errors import SettingsError
from schemas.process.service import HealthServer, configure_logs, port_taken, stop_event
from tests.programs import http_get


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before
    structlog.reset_defaults()


PATIENCE = 30.0  # seconds: a connection gives up within 5, and the machine may stand still


def get(port: int, path: str) -> tuple[int, str]:
    """An answer, asked for until there is one."""
    deadline = time.monotonic() + PATIENCE
    while not (answer := http_get(port, path))[0] and time.monotonic() < deadline:
        pass
    return answer


def taken_by_ours(port: int) -> bool:
    """Whether a health server is found on a port, looked for until it is."""
    deadline = time.monotonic() + PATIENCE
    while (found := port_taken("127.0.0.1", port)) != ("Address already in use", True):
        if time.monotonic() > deadline:
            raise AssertionError(found)
    return True


def test_health_and_metrics() -> None:
    registry = CollectorRegistry()
    Counter("rows", "Rows read.", registry=registry).inc(3)
    ready = [(False, "snapshot: 3 of 10 tables")]
    with HealthServer("127.0.0.1", 0, lambda: (True, "running"), lambda: ready[0], registry) as server:
        assert get(server.port, "/health/live") == (200, '{"healthy": true, "reason": "running"}')
        status, body = get(server.port, "/health/ready")
        assert (status, json.loads(body)["reason"]) == (503, "snapshot: 3 of 10 tables")
        ready[0] = (True, "streaming")
        assert get(server.port, "/health/ready/")[0] == 200
        status, body = get(server.port, "/metrics")
        assert status == 200
        assert "rows_total 3.0" in body
        assert get(server.port, "/")[0] == 404
        with pytest.raises(SettingsError, match=f"port {server.port} of 127.0.0.1 cannot be opened"):
            HealthServer("127.0.0.1", server.port, lambda: (True, ""), lambda: (True, ""), registry)
        assert taken_by_ours(server.port)
    assert port_taken("127.0.0.1", server.port) == ("", False)
    assert not any(thread.name == "health" for thread in threading.enumerate())


def test_a_port_of_somebody_else_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        thread = threading.Thread(target=lambda: other.accept()[0].close())  # not an HTTP answer
        thread.start()
        assert port_taken("127.0.0.1", port) == ("Address already in use", False)
        thread.join()
    reason, ours = port_taken("192.0.2.1", port)  # an address that no machine has
    assert reason
    assert not ours


def test_json_logs_are_one_object_a_line_libraries_included(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", json=True)
    structlog.get_logger("capture").info("batch done", rows=3)
    logging.getLogger("library").warning("broker %s away", "b1")
    structlog.get_logger("capture").debug("not shown")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line["level"], line["logger"]) for line in lines] == [
        ("batch done", "info", "capture"),
        ("broker b1 away", "warning", "library"),
    ]
    assert lines[0]["rows"] == 3
    assert lines[0]["timestamp"].endswith("Z")


def test_console_logs_are_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("debug")
    structlog.get_logger("capture").debug("batch done", rows=3)
    shown = capsys.readouterr().err
    assert "batch done" in shown
    assert "rows=3" in shown


def test_on_a_screen_the_next_step_has_a_line_of_its_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    configure_logs()
    structlog.get_logger("capture").warning("table is parked", table="public.orders", next="capture status")
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().err)
    assert re.match(r"\d\d:\d\d:\d\d \[warning *\] table is parked +\[capture\] table=public.orders\n", shown)
    assert shown.endswith("\n  next: capture status\n")


def test_in_a_file_an_entry_is_one_line_and_its_time_is_utc(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs()
    structlog.get_logger("capture").warning("table is parked", table="public.orders", next="capture status")
    shown = capsys.readouterr().err
    assert re.fullmatch(r"\S+T\S+Z .* table=public.orders next='capture status'\n", shown)


def test_a_level_that_is_none() -> None:
    with pytest.raises(SettingsError, match="'loud' is not a log level"):
        configure_logs("loud")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_sets_the_event_and_a_second_one_acts_as_usual(number: signal.Signals) -> None:
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        event = stop_event()
        assert not event.is_set()
        os.kill(os.getpid(), number)
        assert event.wait(5)
        assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)
    finally:
        for n, action in before.items():
            signal.signal(n, action)
