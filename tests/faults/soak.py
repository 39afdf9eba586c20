"""`./tests/soak`: the crash test for as long as you like, with a progress line and one last line that says it all."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from deploy.embedded import Kafka, Postgres
from tests.faults.day import Day


def main() -> int:
    """Exit code 0 only when nothing is lost, double or out of order and the money agrees; 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="soak", description=(__doc__ or "").partition(": ")[2])
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--postgres", type=int, default=16, help="major version of the server")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"soak: seed {options.seed}, {options.minutes:g} minutes", flush=True)
    try:
        with tempfile.TemporaryDirectory(prefix="ordertap-soak-") as name:
            return _soak(Path(name), options)
    except KeyboardInterrupt:
        print(f"\nsoak: stopped; nothing is proved (seed {options.seed})")
        return 130


def _soak(folder: Path, options: argparse.Namespace) -> int:
    folder.chmod(0o755)
    settings = {"fsync": "off", "synchronous_commit": "off", "max_connections": "200"}
    with Postgres(folder / "postgres", options.postgres, settings) as server, Kafka(folder / "kafka") as kafka:
        day = Day(folder, server, kafka, "soak", options.seed)
        result = day.run(options.minutes * 60, _say)
    print()
    for finding in (*result.verdict.findings[:40], *result.erp[:40]):
        print(f"{finding.kind}: {finding.text}")
    if result.held:
        print(result.held)
    print(result)
    return 0 if result.sound else 1


def _say(text: str) -> None:
    """One line that is written over on a terminal, line by line elsewhere."""
    print(f"\r\033[K{text}" if sys.stdout.isatty() else text, end="" if sys.stdout.isatty() else "\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
