"""`./tests/bench apply`: how soon an order is in the ERP, and how many per second, compared with a hand-written insert.

Orders with a new buyer, three lines and a payment, as the sample shop writes them; the ERP is the reference ERP.
Latency is from the shop's commit until the order can be read in the ERP, with capture and one `sink run` at work.
Throughput is of orders that are staged when the clock starts and confirmed in the ERP when it stops, by one process and
by two. The hand-written insert writes the same rows into another database, with one transaction per order and one per
hundred. CPU is that of the sink and of PostgreSQL, which has the middle layer and the ERP.

`--prices`: the whole price list changes in one commit, and an order is placed right after it. `--snapshot`: the shop
has this many orders when capture and the sink start; planning begins once the first snapshot is completely staged.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Final

import psycopg2

from deploy.embedded import Kafka, Postgres
from tests.benchmarks.apply_shop import PUBLICATION, ApplyErp, ApplyShop
from tests.benchmarks.backlog import SETTINGS
from tests.benchmarks.sink import NAME, NO_ERP, Place, wait_until
from tests.benchmarks.usage import cpu, cpu_with_children
from tests.faults.day import position
from tests.programs import ROOT, Program, write_settings

ORDERS: Final = 3_000
WARM: Final = 200  # orders that are not counted: statements are compiled and caches filled with them
WARM_SECONDS: Final = 3.0
_LOOK: Final = 0.005
_COUNT: Final = 0.2  # counting the orders costs CPU of the server, which is what we measure
_BEHIND: Final = 2_000  # rows of the ERP that are read again, since two workers commit out of order


def main() -> int:
    """Runs the benchmark and prints its last line."""
    options = _options()
    if not sys.platform.startswith("linux"):
        print("bench: reads /proc, so it runs on Linux only")
        return 2
    with tempfile.TemporaryDirectory(prefix="ordertap-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        settings = {**SETTINGS, "autovacuum": "on"}  # the ledger is updated all the time, and lives by it
        kafka = Kafka(folder / "kafka", measured=True)
        with Postgres(folder / "postgres", options.postgres, settings) as server, kafka:
            bench = Bench(folder, server, kafka)
            try:
                print(bench.run(options))
            finally:
                bench.stop()
    return 0


def _options() -> argparse.Namespace:
    text, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="bench apply", description=text, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--orders", type=int, default=ORDERS, help="of each throughput run")
    parser.add_argument("--prices", type=int, nargs="?", const=10_000, help="an order after so many prices")
    parser.add_argument("--snapshot", type=int, nargs="?", const=20_000, help="a first snapshot of so many orders")
    parser.add_argument("--rate", type=int, default=50, help="orders per second while latency is measured")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long it is measured")
    parser.add_argument("--postgres", type=int, default=16, help="major version of the server")
    options = parser.parse_args()
    if options.orders < WARM:
        parser.error(f"--orders must be at least {WARM}")
    return options


class Bench:
    """Shop, middle layer, two ERPs (the sink's and the hand-written insert's) and the programs."""

    def __init__(self, folder: Path, server: Postgres, kafka: Kafka) -> None:
        self._server = server
        self._kafka = kafka
        shop, self._middle = server.create_database("shop"), server.create_database("middle")
        self._shop = ApplyShop(shop)
        self._erp = ApplyErp(server.create_database("erp"), shop)
        self._by_hand = ApplyErp(server.create_database("by_hand"), shop)
        common = {
            "topic_prefix": NAME,
            "bootstrap_servers": kafka.bootstrap_servers,
            "schema_registry_url": (folder / "registry").as_uri(),
            "health_port": 0,
        }
        source = {
            "name": NAME,
            "database_hostname": "127.0.0.1",
            "database_port": server.port,
            "database_user": "postgres",
            "database_password": "",
            "database_dbname": "shop",
            "slot_name": NAME,
            "publication_name": PUBLICATION,
            "topic_creation_default_partitions": 3,
        }
        self._capture = Program(
            "capture", write_settings(folder / "capture.yaml", capture=common | source), folder / "capture.log"
        )
        self._sinks = [self._sink(folder, f"sink-{number}", common, self._erp.dsn) for number in (1, 2)]
        self._stages = self._sink(folder, "stages", common, NO_ERP)
        self._confirmed = self._erp.confirmed()

    def run(self, options: argparse.Namespace) -> str:
        """Runs what was asked for. Returns the last line."""
        if options.prices:
            return self._after_prices(options.prices)
        return self._after_snapshot(options.snapshot) if options.snapshot else self._both(options)

    def _after_prices(self, prices: int) -> str:
        sink = self._sinks[0]
        self._erp.add_items(self._shop.add_products(prices))
        self._capture.start()
        sink.start()
        self._shop.place(WARM)
        wait_until(lambda: self._confirmed() > WARM and self._erp.prices() >= prices, sink)
        self._warm()
        dear = self._shop.raise_prices()
        began = time.perf_counter()
        self._shop.place(1)
        wait_until(lambda: self._confirmed() > WARM + 1, sink, _LOOK)
        order = time.perf_counter() - began
        wait_until(lambda: self._erp.prices(dear) >= prices, sink, _COUNT)
        took = time.perf_counter() - began
        return (
            f"apply: after {prices} prices in one commit an order is in the ERP in {order:.2f} s, they in {took:.1f} s"
        )

    def _after_snapshot(self, orders: int) -> str:
        sink = self._sinks[0]
        self._shop.place(orders, a_commit=1_000)
        self._capture.start()
        sink.start()
        with closing(psycopg2.connect(self._middle)) as connection:
            connection.autocommit = True
            place = Place(connection)
            wait_until(place.is_steady, sink, _LOOK)
        began = time.perf_counter()
        wait_until(lambda: self._confirmed() > 0, sink, _LOOK)
        first = time.perf_counter() - began
        wait_until(lambda: self._confirmed() > orders, sink, _COUNT)
        took = time.perf_counter() - began
        return (
            f"apply: of {orders} orders in a snapshot the first is in the ERP {first:.1f} s after it, all {took:.0f} s"
        )

    def _both(self, options: argparse.Namespace) -> str:
        """Measures latency, then throughput between two runs of the hand-written insert, since speed drifts."""
        self._capture.start()
        p50, p99 = self._latency(options.rate, options.seconds)
        self._warm()
        documents = self._erp.documents(options.orders)
        before = self._by_hand.write_by_hand(documents, 1)
        hundred = self._by_hand.write_by_hand(documents, 100)
        one = self._throughput(1, options.orders)
        after = self._by_hand.write_by_hand(documents, 1)
        two = self._throughput(2, options.orders)
        hand = (before + after) / 2
        print(f"  by hand: {hand:.0f} orders/s with a transaction each, {hundred:.0f} with one per hundred")
        print(f"  two processes: {two / one:.2f} of one; one: {one / hundred:.2f} of a hundred by hand")
        figures = f"{one:.0f} orders/s, {one / hand:.2f} of hand-written inserts"
        return f"apply: p50 {p50:.2f} s, p99 {p99:.2f} s at {options.rate} orders/s; {figures}"

    def stop(self) -> None:
        """Ends all programs."""
        for program in (*self._sinks, self._stages, self._capture):
            program.stop()

    def _sink(self, folder: Path, name: str, common: dict[str, object], erp: str) -> Program:
        target = {
            "shop": NAME,
            "profile": "sample",
            "database_url": self._middle,
            "erp": {"kind": "sql", "url": erp, "mapping": str(ROOT / "deploy/erp/mapping.yaml")},
            "mode": "apply",
            "prices_owner": "shop",
            "brake_prices": 1_000_000,  # a list that doubles is what it is for
        }
        return Program("sink", write_settings(folder / f"{name}.yaml", sink=common | target), folder / f"{name}.log")

    def _latency(self, rate: int, seconds: float) -> tuple[float, float]:
        """50th and 99th percentile in seconds; the first seconds are not counted."""
        sink = self._sinks[0]
        sink.start()
        self._shop.place(WARM)
        wait_until(lambda: self._confirmed() >= WARM + 1, sink)
        committed: dict[int, float] = {}
        writer = threading.Thread(
            target=lambda: committed.update(self._shop.pace(rate, seconds + WARM_SECONDS)), daemon=True
        )
        first = self._shop.newest
        seen: dict[int, float] = {}
        with closing(psycopg2.connect(self._erp.dsn)) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            writer.start()
            newest = 0
            while writer.is_alive() or len(seen) < len(committed):
                cursor.execute("SELECT id, external_key FROM orders WHERE id > %s", (newest - _BEHIND,))
                now = time.time()
                for number, key in cursor.fetchall():
                    newest = max(newest, number)
                    order = int(key.split("/")[2])
                    if order > first:
                        seen.setdefault(order, now)
                if sink.ended() is not None:
                    raise SystemExit(f"the sink ended:\n{sink.tail()}")
                time.sleep(_LOOK)
        sink.stop()
        warm = first + int(rate * WARM_SECONDS)
        took = sorted(seen[order] - at for order, at in committed.items() if order > warm)
        p50, p99 = (took[int(len(took) * share)] for share in (0.5, 0.99))
        print(f"  {len(took)} orders one by one: p50 {p50:.3f} s, p99 {p99:.3f} s, worst {took[-1]:.3f} s", flush=True)
        return p50, p99

    def _warm(self) -> None:
        """Runs ANALYZE, as after a day, so that PostgreSQL does not plan for empty tables."""
        for database in ("middle", "erp", "by_hand"):
            self._server.psql("ANALYZE", database)

    def _throughput(self, processes: int, orders: int) -> float:
        """Confirmed orders per second, out of those that wait when the processes start."""
        before = self._confirmed()
        end = self._shop.place(orders)
        self._staged(end)
        sinks = self._sinks[:processes]
        for sink in sinks:
            sink.start()
        for sink in sinks:
            wait_until(lambda: self._confirmed() >= before + WARM, sink, _COUNT)
        began, first, used = time.perf_counter(), self._confirmed(), self._used(sinks)
        wait_until(lambda: self._confirmed() >= before + orders, sinks[0], _COUNT)
        seconds, counted = time.perf_counter() - began, before + orders - first
        ours, theirs = (1000 * (now - then) / counted for now, then in zip(self._used(sinks), used, strict=True))
        for sink in sinks:
            sink.stop()
        spent = f"CPU per order {ours + theirs:.2f} ms: sink {ours:.2f}, both databases {theirs:.2f}"
        print(f"  {processes} at work: {counted / seconds:.0f} orders/s; {spent}", flush=True)
        return counted / seconds

    def _staged(self, end: int) -> None:
        """Waits until the copy has everything, with an ERP that does not answer."""
        wait_until(lambda: position(self._kafka.bootstrap_servers, NAME) >= end, self._capture)
        self._stages.start()
        with closing(psycopg2.connect(self._middle)) as connection:
            connection.autocommit = True
            place = Place(connection)
            wait_until(lambda: place.is_at(end), self._stages)
        self._stages.stop()
        self._server.psql("CHECKPOINT")

    def _used(self, sinks: list[Program]) -> tuple[float, float]:
        """CPU seconds of the sinks, and of PostgreSQL."""
        assert self._server.process is not None
        return sum(cpu(sink.pid) for sink in sinks), cpu_with_children(self._server.process.pid)


if __name__ == "__main__":
    sys.exit(main())
