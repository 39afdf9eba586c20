"""Runs capture and sink as processes, with settings in a file and output in a log."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from deploy.embedded import die_with_parent
from schemas.process.settings import PURE_PYTHON

ROOT = Path(__file__).parent.parent


@contextmanager
def standing_still(process: Any) -> Iterator[None]:
    """Stops a process (anything with a pid) for the block. It continues even if the block raises, since other tests
    need it."""
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


def write_settings(path: Path, **parts: dict[str, Any]) -> Path:
    """Writes the parts `capture` and `sink` as a settings file."""
    path.write_text(yaml.safe_dump(parts, sort_keys=False))
    return path


def run(program: str, *arguments: str, config: Path, seconds: float = 150.0) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end: `run("sink", "offsets", "show", config=…)`. Output and errors are text."""
    command = [sys.executable, "-m", program, *arguments, "--config", str(config)]
    return subprocess.run(
        command, cwd=ROOT, env=_environment(), capture_output=True, text=True, timeout=seconds, check=False
    )


class Program:
    """`capture run` or `sink run`, to be started, killed and started again. All output goes to one log."""

    def __init__(
        self, name: str, config: Path, log: Path, python_options: Sequence[str] = (), pure_python: bool = False
    ) -> None:
        self.name = name
        self.python_options = python_options
        self._pure_python = pure_python
        self.config = config
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it. It ends with this process at the latest."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self.python_options, "-m", self.name, "run", "--config", str(self.config)],
                cwd=ROOT,
                env=_environment() | ({PURE_PYTHON: "1"} if self._pure_python else {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )

    @property
    def pid(self) -> int:
        """The pid of the running process."""
        assert self._process is not None
        return self._process.pid

    def ended(self) -> int | None:
        """The exit code if the process has ended, else None."""
        return None if self._process is None else self._process.poll()

    def wait(self, seconds: float) -> int:
        """Waits for its end. Returns the exit code; TimeoutExpired if it does not end."""
        assert self._process is not None
        return self._process.wait(seconds)

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL, 10)

    def stop(self, seconds: float = 30) -> int | None:
        """Stops it as a container would. Returns the exit code; -9 if it had to be killed."""
        return self._end(signal.SIGTERM, seconds)

    def _end(self, how: signal.Signals, seconds: float) -> int | None:
        if self._process is None:
            return None
        process, self._process = self._process, None
        if process.poll() is None:
            process.send_signal(how)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def tail(self, lines: int = 15) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""


def _environment() -> dict[str, str]:
    """Our environment without the caller's ORDERTAP_ settings, except ORDERTAP_PURE_PYTHON."""
    return {
        name: value for name, value in os.environ.items() if name == PURE_PYTHON or not name.startswith("ORDERTAP_")
    }


def http_get(port: int, path: str) -> tuple[int, str]:
    """Status and text from an HTTP server on this machine; 0 and nothing while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""
