"""deploy/environment.sh, with a pip that waits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SCRIPT = Path(__file__).parents[3] / "deploy" / "environment.sh"
READ = ("pyproject.toml", "tests/constraints.txt", "deploy/hatch_build.py", "schemas/writing/rowpath.pyx")
PYTHON = """#!/bin/sh
[ "$3" = install ] || exit 0
trap 'exit 1' INT  # as pip does
touch installing
while :; do sleep 0.05; done
"""


def test_who_stops_the_installation_is_not_told_that_it_failed(tmp_path: Path) -> None:
    for name in (*READ, ".venv/bin/python"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(PYTHON)
    (tmp_path / ".venv/bin/python").chmod(0o755)
    started = subprocess.Popen(
        ["bash", "-c", f"set -euo pipefail; . {SCRIPT}; make_environment embedded; echo went on"],
        cwd=tmp_path,
        env=os.environ | {"PYTHON": sys.executable},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "installing").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(started.pid, signal.SIGINT)  # as a terminal does
    said, complained = started.communicate(timeout=60)
    assert (started.returncode, "went on" in said) == (130, False)
    assert complained == "stopped; the next start goes on\n"
