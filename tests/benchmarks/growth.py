"""`./tests/bench growth`: what grows with the number of orders, at 10,000, 100,000 and a million of them.

It renders a batch of 50 orders with their buyers, returns and refunds from the staged rows; runs `sink status`, which
counts all documents by type and state; and runs `sink reconcile` as its own process, which has to find that both sides
agree. The state is made in SQL: a buyer, three lines and a payment for each order, and every tenth with a return and a
refund.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from deploy.embedded import Postgres
from schemas.process.service import configure_logs
from sink.apply.desired import Desired
from sink.database import connect, schema_of
from sink.documents.profile import load_profile
from sink.documents.refs import DocumentRef
from sink.operations.status import status
from tests.benchmarks.backlog import SETTINGS
from tests.benchmarks.growth_state import RETURNED, SHOP, GrowthState, an_erp, make, rules
from tests.benchmarks.usage import cpu_with_children
from tests.programs import ROOT, write_settings

SIZES: Final = (10_000, 100_000, 1_000_000)
BATCH: Final = 50
_TIMES: Final = 21
_WARM: Final = 3


def main() -> int:
    """Runs the benchmark and prints a line for each size."""
    options = _options()
    if not sys.platform.startswith("linux"):
        print("bench: takes memory from wait4, in KiB as Linux gives it")
        return 2
    with tempfile.TemporaryDirectory(prefix="ordertap-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        configure_logs("warning")
        with Postgres(folder / "postgres", options.postgres, {**SETTINGS, "shared_buffers": "512MB"}) as server:
            for orders in options.orders:
                began = time.perf_counter()
                state = make(server, orders)
                print(f"  {orders:,} orders made in {time.perf_counter() - began:.0f} s", flush=True)
                print(_measured(state, folder, server), flush=True)
                for database in (state.middle, state.erp):
                    server.psql(f"DROP DATABASE {database.rpartition('/')[2]} WITH (FORCE)")
    return 0


def _options() -> argparse.Namespace:
    text, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="bench growth", description=text, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--orders", type=int, nargs="+", default=SIZES, help="one size or several")
    parser.add_argument("--postgres", type=int, default=16, help="major version of the server")
    options = parser.parse_args()
    if min(options.orders) < 1_000:
        parser.error("--orders must be at least 1000")
    return options


def _measured(state: GrowthState, folder: Path, server: Postgres) -> str:
    with closing(connect(state.middle, schema_of(SHOP))) as connection, closing(an_erp(state)) as erp:
        desired = Desired(connection, load_profile("sample"), erp, rules())
        chance = random.Random(state.orders)
        render = _milliseconds(lambda: desired.build(_batch(chance, state.orders)))
        asked = _milliseconds(lambda: status(connection, True))
    compared = _reconcile(state, folder, server)
    return (
        f"growth: render {BATCH} orders {render:.1f} ms, status {asked:.1f} ms,"
        f" reconcile {compared.seconds:.1f} s and {compared.megabytes:.0f} MB at {state.orders} orders"
    )


def _batch(chance: random.Random, orders: int) -> list[DocumentRef]:
    """All documents of 50 orders."""
    found = []
    for number in chance.sample(range(1, orders + 1), BATCH):
        found += [DocumentRef("customer", f"{number}"), DocumentRef("sales_order", f"{number}")]
        if number % RETURNED == 0:
            found += [DocumentRef("return_order", f"{number}"), DocumentRef("refund", f"{number}")]
    return found


def _milliseconds(work: Callable[[], object]) -> float:
    """The median; the first runs are not counted."""
    took = []
    for number in range(_WARM + _TIMES):
        began = time.perf_counter()
        work()
        if number >= _WARM:
            took.append(time.perf_counter() - began)
    return 1000 * median(took)


class _Reconciled(NamedTuple):
    seconds: float
    megabytes: float


def _reconcile(state: GrowthState, folder: Path, server: Postgres) -> _Reconciled:
    """Runs the command as a person does. Returns its time and its peak memory. SystemExit if it finds a difference."""
    config = {
        "shop": SHOP,
        "topic_prefix": SHOP,
        "bootstrap_servers": "127.0.0.1:1",  # not asked
        "schema_registry_url": (folder / "registry").as_uri(),
        "profile": "sample",
        "database_url": state.middle,
        "erp": {"kind": "sql", "url": state.erp, "mapping": str(ROOT / "deploy/erp/mapping.yaml")},
        "prices_owner": "shop",
    }
    written = write_settings(folder / f"{state.orders}.yaml", sink=config)
    output = folder / "reconcile.json"
    assert server.process is not None
    began, of_server = time.perf_counter(), cpu_with_children(server.process.pid)
    with output.open("wb") as out:
        command = [sys.executable, "-m", "sink", "reconcile", "--json", "--config", str(written)]
        started = subprocess.Popen(command, cwd=ROOT, stdout=out)
        _, ended, used = os.wait4(started.pid, 0)
    seconds = time.perf_counter() - began
    started.returncode = os.waitstatus_to_exitcode(ended)
    found = json.loads(output.read_text() or "{}")
    if started.returncode or found["agreed"]["order"] != state.orders:
        raise SystemExit(f"reconcile does not agree: {json.dumps(found)[:2000]}")
    of_server = cpu_with_children(server.process.pid) - of_server
    print(f"  reconcile: {used.ru_utime + used.ru_stime:.1f} s of CPU, PostgreSQL {of_server:.1f} s", flush=True)
    return _Reconciled(seconds, used.ru_maxrss / 1024)


if __name__ == "__main__":
    sys.exit(main())
