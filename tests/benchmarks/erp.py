"""`./tests/bench erp`: whole orders and prices into a real Tryton, compared with a hand-written batch script.

The script runs first, with its best batch size. It keeps the sink's promises: it looks what is there, makes buyers and
drafts to the cent, reads back and compares, presses each button with the stamps that it has read, and reads again. Then
the sink's adapter brings equal orders to `processing` on the same Tryton, with one worker process and with two. Prices
are made and then changed three times, by the same process, and unchanged orders are looked at. The script's last run
comes after the sink's, because Tryton slows down as it fills. Orders are staged beforehand: capture and Kafka are not
measured.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final

from deploy.embedded import Postgres
from deploy.tryton import provision
from deploy.tryton.items import make_items
from deploy.tryton.screen import Screen
from deploy.tryton.server import Tryton
from tests.benchmarks.backlog import SETTINGS
from tests.benchmarks.erp_script import Script
from tests.benchmarks.erp_sink import SHOP, Replicas, StagedShop
from tests.benchmarks.usage import cpu, cpu_with_children
from tests.faults.histories_erp import RealTryton

_BATCHES: Final = (20, 40)
_PRICE_BATCH: Final = 200  # as the sink takes them; the script does not get faster by 100
_ROUNDS: Final = 3  # of changed prices
LOOKED_AT: Final = 1_000
_PATIENCE: Final = 300.0


def main() -> int:
    """Runs the benchmark and prints its last line."""
    text, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="bench erp", description=text, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--orders", type=int, default=120, help="of each run")
    parser.add_argument("--prices", type=int, default=2_000, help="that are made and then changed")
    parser.add_argument("--postgres", type=int, default=16, help="major version of the server")
    options = parser.parse_args()
    if options.orders < 20 or options.prices < 20:
        parser.error("--orders and --prices must be at least 20")
    with tempfile.TemporaryDirectory(prefix="ordertap-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        settings = {**SETTINGS, "autovacuum": "on"}
        with (
            Postgres(folder / "postgres", options.postgres, settings) as server,
            Tryton(folder / "tryton", server, print, workers=2, threads=1) as tryton,
        ):
            print(Bench(server, tryton, options.orders, options.prices).run())
    return 0


class Bench:
    """One Tryton, to which both write."""

    def __init__(self, server: Postgres, tryton: Tryton, orders: int, prices: int) -> None:
        self._server, self._tryton, self._orders = server, tryton, orders
        RealTryton(tryton, SHOP)  # makes the sample shop's items
        self._shop = StagedShop(server.create_database("middle"))
        self._admin = Screen(tryton.url, tryton.database, provision.ADMIN, provision.ADMIN_PASSWORD)
        skus = self._shop.shop.add_products(prices)
        make_items(self._admin, [(sku, sku, 19) for sku in skus])
        self._settings = self._sink()

    def _sink(self) -> dict[str, Any]:
        tryton = self._tryton
        erp = {
            "kind": "tryton", "url": tryton.url, "database": tryton.database, "user": tryton.user,
            "password": tryton.password, "web_shop": provision.SHOP, "payment_term": provision.PAYMENT_TERM,
            "settles_seconds": tryton.settles_within, "orders": {"goal": "processing"}, "time_zone": "UTC",
            "timeout_seconds": _PATIENCE,  # on a busy machine a call for forty orders takes longer than usual
        }  # fmt: skip
        return {
            "shop": SHOP, "profile": "sample", "topic_prefix": SHOP, "bootstrap_servers": "none:9092",
            "schema_registry_url": "file:///none", "database_url": self._shop.dsn, "erp": erp, "mode": "apply",
            "prices_owner": "shop", "lease_seconds": _PATIENCE + 60, "brake_orders": 1_000_000,
            "brake_prices": 1_000_000,
        }  # fmt: skip

    def run(self) -> str:
        """Runs everything. Returns the last line."""
        with closing(self._shop):
            self._warm()
            trials = {batch: self._script(f"hand{batch}", batch) for batch in _BATCHES}
            best = max(trials, key=lambda batch: trials[batch])
            one, two = self._by_sink(1), self._by_sink(2)
            again = self._script("again", best)
            hand = (trials[best] + again) / 2
            by_batch = ", ".join(f"{rate:.2f} by {batch}" for batch, rate in trials.items())
            print(f"  script: {by_batch}; after the sink {again:.2f} by {best} orders/s")
            ratio = f"{one / hand:.2f} of the script"
            print(f"  sink: one process {one:.2f} orders/s, {ratio}; two {two:.2f}, {two / one:.2f} of one")
            self._prices()
            self._look()
        return f"erp: tryton {one / hand:.2f} of a hand-written batch script"

    def _warm(self) -> None:
        """Brings one order, so that what Tryton and its database cache of a first order is there for all."""
        self._script("warm", 20, 20)
        self._server.psql("ANALYZE", self._tryton.database)

    def _script(self, tag: str, batch: int, count: int = 0) -> float:
        """Orders per second by the script."""
        tryton = self._tryton
        count = count or self._orders
        script = Script(tryton.port, tryton.database, tryton.user, tryton.password, tag)
        orders = self._shop.orders(*self._shop.place(count))
        return count / self._timed(f"script by {batch}", count, lambda: script.orders(orders, batch))

    def _by_sink(self, processes: int) -> float:
        """Orders per second by the sink."""
        first, last = self._shop.place(self._orders)
        with closing(Replicas(processes, self._settings)) as replicas:
            self._shop.mark_orders(first, last)
            took = self._timed(f"sink by {processes}", self._orders, replicas.seconds, replicas.pids)
        self._shop.check_done()
        ours = [["web_id", "like", f"{SHOP}/order/%"], ["state", "=", "processing"]]
        there = self._admin("sale.sale", "search_count", ours)
        if there < self._orders * processes:
            raise RuntimeError(f"{there} orders are in processing")
        return self._orders / took

    def _prices(self) -> None:
        """Makes prices and changes them by one process, which goes on as a sink does; then changes them by two."""
        with closing(Replicas(1, self._settings)) as one:
            self._priced("made", one)
            self._priced("changed", one, _ROUNDS)
        with closing(Replicas(2, self._settings)) as two:
            self._priced("changed by two", two, _ROUNDS)
        self._shop.check_done()

    def _priced(self, what: str, replicas: Replicas, rounds: int = 1) -> None:
        """Prices by the script and then by the sink, in several rounds, because a round takes only seconds."""
        tryton = self._tryton
        script = Script(tryton.port, tryton.database, tryton.user, tryton.password, "hand")
        done, hand, sink = 0, 0.0, 0.0
        for _ in range(rounds):
            if what != "made":
                self._shop.shop.raise_prices()
            prices = self._shop.prices()
            by_hand = partial(script.prices, prices, _PRICE_BATCH)
            hand += self._timed(f"script, prices {what}", len(prices), by_hand)
            self._shop.mark_prices()
            done += len(prices)
            sink += self._timed(f"sink, prices {what}", len(prices), replicas.seconds, replicas.pids)
        rates = f"script {done / hand:.0f}/s, sink {done / sink:.0f}/s"
        print(f"  prices {what}: {rates}, {hand / sink:.2f} of the script")

    def _look(self) -> None:
        """Looks at unchanged orders: all that the sink brought, as often as it takes for a thousand."""
        last = self._shop.shop.newest - self._orders  # the script has made the newer ones
        first, looked, took = last - 2 * self._orders + 1, 0, 0.0
        with closing(Replicas(1, self._settings)) as replicas:
            while looked < LOOKED_AT:
                self._shop.mark_orders(first, last)
                took += replicas.seconds()
                looked += last - first + 1
        print(f"  a look at {LOOKED_AT} unchanged orders and their buyers: {took * LOOKED_AT / looked:.1f} s")

    def _timed(self, what: str, count: int, does: Callable[[], object], pids: list[int] | None = None) -> float:
        """Seconds; prints rate and CPU."""
        before = self._used(pids)
        began = time.perf_counter()
        does()
        took = time.perf_counter() - began
        used = zip(self._used(pids), before, strict=True)
        ours, tryton, database = (1000 * (now - then) / count for now, then in used)
        print(
            f"  {what}: {count / took:.2f}/s in {took:.1f} s; CPU each: ours {ours:.2f} ms, Tryton {tryton:.2f},"
            f" databases {database:.2f}",
            flush=True,
        )
        return took

    def _used(self, pids: list[int] | None) -> tuple[float, float, float]:
        """CPU seconds of the callers (this process, if none is named), of Tryton, and of PostgreSQL."""
        assert self._server.process is not None
        assert self._tryton.process is not None
        ours = time.process_time() if pids is None else sum(cpu(pid) for pid in pids)
        return ours, cpu_with_children(self._tryton.process.pid), cpu_with_children(self._server.process.pid)


if __name__ == "__main__":
    sys.exit(main())
