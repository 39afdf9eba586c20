"""The sink's side of `./tests/bench erp`: a staged shop with equal orders, and workers as processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

import psycopg2
from psycopg2 import sql

from deploy.embedded import die_with_parent
from schemas.model.change import Stamp
from schemas.model.lsn import LSN
from sink import wiring
from sink.apply.worker import Worker
from sink.commands.options import expect_many_objects
from sink.database import Connection, connect, transaction
from sink.layer import migrate
from sink.ledger import marks
from sink.settings import SinkSettings
from sink.staging import snapshots
from sink.staging.assembly import LAST
from sink.staging.position import Position, save_position
from tests.benchmarks.apply_shop import ApplyShop
from tests.programs import ROOT

SHOP: Final = "bench"
_WORK: Final = "from tests.benchmarks.erp_sink import work; work()"
_A_MOMENT: Final = 0.05
_OPEN: Final = "SELECT type, state, reason FROM ordertap_bench.document WHERE state <> 'done' OR seen < marked"
_DUE: Final = "SELECT count(*) FROM unit WHERE due_at IS NOT NULL OR owner IS NOT NULL"


class BenchOrder(NamedTuple):
    """One order with its buyer, as in the shop. lines: key, SKU, name, quantity, rate, net, tax."""

    number: int
    shown: str
    buyer: str
    name: str
    email: str
    street: str
    postcode: str
    city: str
    country: str
    placed_at: datetime
    net: Decimal
    tax: Decimal
    lines: Sequence[tuple[str, str, str, Decimal, Decimal, Decimal, Decimal]]


class StagedShop:
    """A middle layer whose copy of the shop is written directly, without capture and Kafka."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._connection = connect(dsn, f"ordertap_{SHOP}")
        migrate(self._connection, SHOP)
        with transaction(self._connection) as cursor:
            cursor.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(SHOP)))
        self.shop = ApplyShop(f"{dsn}?options=-csearch_path%3D{SHOP}")
        with transaction(self._connection) as cursor:
            snapshots.accept(cursor, "the benchmark")
            save_position(cursor, Position(Stamp(1, LSN(1_000), LAST), "steady"), None)

    def close(self) -> None:
        self._connection.close()

    def place(self, count: int) -> tuple[int, int]:
        """Places new orders. Returns the keys of the first and the last."""
        first = self.shop.newest + 1
        self.shop.place(count)
        return first, self.shop.newest

    def orders(self, first: int, last: int) -> list[BenchOrder]:
        """The orders in the shop."""
        lines: dict[int, list[Any]] = {}
        for order, *line in self._rows(
            "SELECT order_id, id::text, sku, name, quantity::numeric, tax_rate, gross - tax, tax FROM order_lines"
            f" WHERE order_id BETWEEN {first} AND {last} UNION ALL SELECT id, 'shipping', 'SHIPPING-19', 'shipping', 1,"
            " shipping_tax_rate, shipping_gross - shipping_tax, shipping_tax FROM orders"
            f" WHERE id BETWEEN {first} AND {last}"
        ):
            lines.setdefault(order, []).append(tuple(line))
        heads = self._rows(
            "SELECT o.id, o.number, c.id::text, c.name, c.email, a.street, a.postcode, a.city, a.country, o.placed_at,"
            " o.net, o.tax FROM orders o JOIN customers c ON c.id = o.customer_id JOIN order_addresses a"
            f" ON a.order_id = o.id AND a.kind = 'billing' WHERE o.id BETWEEN {first} AND {last} ORDER BY o.id"
        )
        return [BenchOrder._make((*head, lines[head[0]])) for head in heads]

    def prices(self) -> list[tuple[str, Decimal]]:
        """SKU and price of the products that were added."""
        return [(sku, price) for sku, price in self._rows("SELECT sku, price FROM products WHERE sku LIKE 'B-%'")]

    def mark_orders(self, first: int, last: int) -> None:
        """Marks orders and their buyers, as staging does after commits."""
        self._mark(
            "SELECT type, n::text AS key, type || ':' || n AS unit"
            f" FROM generate_series({first}, {last}) n, unnest(ARRAY['sales_order', 'customer']) type"
        )

    def mark_prices(self) -> None:
        """Marks the prices of all products that were added."""
        self._mark(
            f"SELECT 'price' AS type, id::text AS key, 'price:' || id AS unit FROM {SHOP}.products WHERE sku LIKE 'B-%'"
        )

    def check_done(self) -> None:
        """RuntimeError if something has not reached the ERP."""
        if left := self._rows(_OPEN):
            raise RuntimeError(f"{len(left)} documents are not done: {left[0]}")

    def _mark(self, touched: str) -> None:
        with transaction(self._connection) as cursor:
            marks.mark(cursor, sql.SQL(touched))

    def _rows(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(psycopg2.connect(f"{self.dsn}?options=-csearch_path%3D{SHOP}")) as connection:
            cursor = connection.cursor()
            cursor.execute(statement)
            return cursor.fetchall()


class Replicas:
    """Processes with one worker each for one ERP, started and ready."""

    def __init__(self, count: int, settings: dict[str, Any]) -> None:
        self._processes = [self._start(settings) for _ in range(count)]
        for process in self._processes:
            self._hear(process, "ready")

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    def seconds(self) -> float:
        """Seconds until nothing is due for any of them."""
        began = time.perf_counter()
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in self._processes:
            self._hear(process, "done")
        return time.perf_counter() - began

    def close(self) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)

    @staticmethod
    def _start(settings: dict[str, Any]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", _WORK],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent(),
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(json.dumps(settings) + "\n")
        process.stdin.flush()
        return process

    @staticmethod
    def _hear(process: subprocess.Popen[str], word: str) -> None:
        """Waits for a word in the process's log."""
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            if line.strip() == word:
                return
            said.append(line)
        raise RuntimeError(f"a worker ended: {''.join(said[-20:])}")


def work() -> None:
    """Runs such a process: the first line has settings, and each further line starts work on everything due."""
    expect_many_objects()  # as `sink run` does
    settings = SinkSettings.model_validate(json.loads(sys.stdin.readline()))
    with (
        closing(connect(settings.database_url.get_secret_value(), f"ordertap_{SHOP}")) as connection,
        closing(wiring.erp(settings)) as erp,
    ):
        worker = Worker(connection, wiring.profile(settings), erp, wiring.rules(settings), f"process {os.getpid()}")
        worker.step()
        print("ready", flush=True)
        for _ in sys.stdin:
            while worker.step() or _due(connection):
                pass
            print("done", flush=True)


def _due(connection: Connection) -> bool:
    """Whether something is due, for us or another process: an order whose buyer another has now is due in a moment."""
    with transaction(connection) as cursor:
        cursor.execute(_DUE)
        (due,) = cursor.fetchone() or (0,)
    time.sleep(_A_MOMENT if due else 0.0)
    return bool(due)
