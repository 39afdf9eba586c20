"""`./tests/soak`: the crash tests for as long as you like, with a progress line and a last line with the result.

By default one simulated day, from shop to ERP. `capture`: rounds of capture alone under more kinds of faults, each with
a proof. `outage`: orders wait for an ERP that is away for two days. `--histories N`: the lives of N orders in the
reference ERP or a real Tryton, with a clerk at work there.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from deploy.embedded import Kafka, Postgres
from deploy.tryton.server import Tryton
from tests.faults import histories, rounds
from tests.faults.histories_erp import HistoriesErp, RealTryton, Reference
from tests.faults.outage import Outage
from tests.faults.wild import WildDay
from tests.proof.rules import Finding


def main() -> int:
    """Exit code 0 only if nothing is lost, double or out of order and the money agrees; 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="soak",
        description=(__doc__ or "").partition(": ")[2],
        epilog=(histories.__doc__ or "").replace("./tests/soak --histories", "--histories"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", nargs="?", choices=("all", "capture", "outage"), default="all")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--postgres", type=int, default=16, help="major version of the server")
    parser.add_argument("--round", type=float, default=60.0, help="seconds of faults in a round of `capture`")
    parser.add_argument("--orders", type=int, default=20_000, help="that wait in an `outage`")
    parser.add_argument("--histories", type=int, metavar="N", help="play the lives of N orders, and nothing else")
    parser.add_argument("--erp", choices=("sql", "tryton"), default="sql", help="that --histories end in")
    options = parser.parse_args()
    if options.histories is not None:
        if options.what != "all" or options.histories < 1:
            parser.error("--histories takes a number above 0, and goes with neither `capture` nor `outage`")
        options.what = "histories"
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    lengths = {"outage": f"{options.orders} orders", "histories": f"{options.histories} histories on {options.erp}"}
    print(f"soak: seed {options.seed}, {lengths.get(options.what, f'{options.minutes:g} minutes')}", flush=True)
    try:
        folder = Path(tempfile.mkdtemp(prefix="ordertap-soak-"))
        folder.chmod(0o755)  # the server runs under another account
        does = {"capture": _capture, "outage": _outage, "all": _day, "histories": _histories}
        code = does[options.what](folder, options)
    except KeyboardInterrupt:
        print(f"\nsoak: stopped; nothing is proved (seed {options.seed})")
        code = 130
    if code == 1:
        print(f"logs and data stay for a look: {folder}")
    else:
        shutil.rmtree(folder)
    return code


def _day(folder: Path, options: argparse.Namespace) -> int:
    settings = {"fsync": "off", "synchronous_commit": "off", "max_connections": "200"}
    with Postgres(folder / "postgres", options.postgres, settings) as server, Kafka(folder / "kafka") as kafka:
        day = WildDay(folder, server, kafka, "soak", options.seed)
        result = day.run(options.minutes * 60, _say)
    print()
    for finding in (*_some(result.verdict.findings), *_some(result.erp)):
        print(f"{finding.kind}: {finding.text}")
    for text in result.copy[:40]:
        print(text)
    if result.held:
        print(result.held)
    faults = day.faults + day.weather.faults
    print(f"faults: {', '.join(f'{count} {name}' for name, count in faults.most_common())}")
    print(result)
    return 0 if result.sound else 1


def _outage(folder: Path, options: argparse.Namespace) -> int:
    settings = {"fsync": "off", "max_connections": "100", "max_wal_size": "2GB"}
    with Postgres(folder / "postgres", options.postgres, settings) as server, Kafka(folder / "kafka") as kafka:
        result = Outage(folder, server, kafka, "outage", batch=50, patient=True).run(options.orders, _say)
    print("\n" + "\n".join([*result.wrong, str(result)]))
    return 1 if result.wrong else 0


def _histories(folder: Path, options: argparse.Namespace) -> int:
    settings = {"fsync": "off", "synchronous_commit": "off", "max_connections": "200"}
    with Postgres(folder / "postgres", options.postgres, settings) as server, Kafka(folder / "kafka") as kafka:
        if options.erp == "sql":
            played = _played(folder, options, server, kafka, Reference(server, "soak"))
        else:
            with Tryton(folder / "tryton", server, _say, workers=2) as tryton:
                played = _played(folder, options, server, kafka, RealTryton(tryton, "soak"))
    print()
    for finding in _some(played.findings):
        print(f"{finding.kind}: {finding.text}")
    resets, held = f"{played.resets} resets of offsets", f"{played.held} held by what clerk or shop did"
    own = f"{played.sums} of the ERP's own sums, goods of {played.moved} orders"
    print(f"{resets}, compared: {played.same} documents, {own}; {held}, {len(played.findings)} findings")
    print(played)
    return 1 if played.findings or played.difference else 0


def _played(
    folder: Path, options: argparse.Namespace, server: Postgres, kafka: Kafka, erp: HistoriesErp
) -> histories.Played:
    run = histories.Histories(folder, server, kafka, "soak", options.seed, erp)
    return run.play(options.erp, options.histories, _say)


def _capture(folder: Path, options: argparse.Namespace) -> int:
    """Runs rounds until the time is over or one fails."""
    ends = time.monotonic() + options.minutes * 60
    faults: Counter[str] = Counter()
    changes = number = 0
    bad: Counter[str] = Counter()
    with (
        Postgres(folder / "postgres", options.postgres, rounds.POSTGRES) as server,
        Kafka(folder / "kafka", rounds.KAFKA) as kafka,
    ):
        while not bad and (number == 0 or time.monotonic() < ends):
            number += 1
            name = f"round{number}"
            seconds = min(options.round, options.minutes * 60)
            say = partial(_say, name)
            result = rounds.play(server, kafka, folder / name, name, f"{options.seed}/{number}", seconds, say)
            faults += result.faults
            changes += result.verdict.changes
            bad = _told(name, result)
    kinds = ", ".join(f"{count} {name}" for name, count in faults.most_common())
    print(f"\nfaults: {kinds}")
    told = ", ".join(f"{bad[kind]} {kind}" for kind in ("lost", "double", "out of order", "wrong"))
    kills = faults["kill"] + 2 * faults["kill_both"]
    print(f"soak capture: {changes} changes, {faults.total()} faults, {kills} kills in {number} rounds, {told}")
    return 1 if bad else 0


def _told(name: str, result: rounds.Result) -> Counter[str]:
    """Prints the result of a round, with counts of findings."""
    _say(name, f"{result.verdict.changes} changes, {result.faults.total()} faults")
    print(flush=True)
    for finding in _some(result.verdict.findings):
        print(f"{finding.kind}: {finding.text}")
    if result.trouble:
        print(f"wrong: {result.trouble}")
    bad = Counter(finding.kind for finding in result.verdict.findings)
    if not result.sound:
        bad["wrong"] += bool(result.trouble or not result.verdict.findings)
    return bad


def _some(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Prints the first findings of each kind."""
    seen: Counter[str] = Counter()
    for finding in findings:
        seen[finding.kind] += 1
        if seen[finding.kind] <= 15:
            yield finding


def _say(*words: str) -> None:
    """A progress line: overwritten on a terminal, line by line elsewhere."""
    text = ": ".join(words)
    print(f"\r\033[K{text}" if sys.stdout.isatty() else text, end="" if sys.stdout.isatty() else "\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
