"""`./tests/fuzz`: a million broken inputs end in our own errors and in nothing else, and none takes long.

Real messages, lines, texts, records and headers are broken in one to four ways each (mutate.py). The inputs of a target
follow from the seed and its name, so a finding is found again by the same seed.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from deploy.embedded import Postgres
from tests.fuzzing.corpus import collect
from tests.fuzzing.targets import Broken, Target, targets

SLOW_SECONDS = 2.0
HANGING_SECONDS = 120.0  # for 64 inputs; then it ends with the place where it hangs
_MOST_SHOWN = 20


class Result(NamedTuple):
    """How many inputs went in, what was found, and the slowest input's seconds and target."""

    inputs: int
    findings: list[str]
    slowest: float
    slowest_target: str


def fuzz(every: list[Target], inputs: int, seed: int, progress: bool = False) -> Result:
    """Spreads the inputs evenly over the targets; every target gets at least one."""
    share = -(-inputs // len(every))
    findings: list[str] = []
    slowest, slowest_target, done, said = 0.0, "", 0, time.monotonic()
    for target in every:
        rng = random.Random(f"{seed} {target.name}")
        for number in range(min(share, max(1, inputs - done))):
            if number % 64 == 0:
                faulthandler.dump_traceback_later(HANGING_SECONDS, exit=True)
            data: bytes | None = None
            began = time.thread_time()
            try:
                data = target.run(rng)
            except Broken as broken:
                findings.append(f"{broken}: {type(broken.__cause__).__name__}: {broken.__cause__}")
            seconds = time.thread_time() - began
            if seconds > SLOW_SECONDS and data is not None:
                seconds = min(seconds, _once_more(target, data))
            if seconds > slowest:
                slowest, slowest_target = seconds, target.name
            if seconds > SLOW_SECONDS:
                findings.append(f"{target.name}: {seconds:.1f} s of CPU")
            done += 1
        if progress and time.monotonic() - said > 5:
            said = time.monotonic()
            print(f"{done:9} inputs, {len(findings)} findings, now {target.name}", flush=True)
    faulthandler.cancel_dump_traceback_later()
    return Result(done, findings, slowest, slowest_target)


def _once_more(target: Target, data: bytes) -> float:
    """Seconds of a slow input when it runs again: they tell whether the input or the machine was slow."""
    began = time.thread_time()
    with suppress(*target.errors):
        target.call(data)
    return time.thread_time() - began


def main() -> int:
    """Runs it and prints its last line."""
    parser = argparse.ArgumentParser(prog="fuzz", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--postgres", type=int, default=16, help="major version of the server that makes the originals")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ordertap-fuzz-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with Postgres(folder / "postgres", options.postgres) as server:
            corpus = collect(server.create_database)
        every = targets(corpus, folder / "registry")
        print(f"{len(every)} targets, {options.inputs} inputs, seed {options.seed}", flush=True)
        result = fuzz(every, options.inputs, options.seed, progress=True)
    seen: set[str] = set()
    for finding in result.findings:
        kind = finding.partition(":")[0] + finding.rpartition(":")[2]
        if kind not in seen and len(seen) < _MOST_SHOWN:
            seen.add(kind)
            print(finding)
    print(
        f"fuzz: {result.inputs} inputs, {len(result.findings)} findings, slowest {result.slowest * 1000:.0f} ms"
        f" ({result.slowest_target}), {time.monotonic() - began:.0f} s"
    )
    return 1 if result.findings else 0


if __name__ == "__main__":
    sys.exit(main())
