"""`./tests/bench latency`: how long a shop's commit takes to reach a `read_committed` consumer, exactly once.

A writer process commits one row at a time at an even pace and notes when COMMIT came back; a consumer notes when it has
the row. Both use this machine's clock. `--curve` shows what linger_ms costs: latency beside the CPU of capture and of
the broker, under the same load and idle.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import psycopg2
from confluent_kafka import Consumer, TopicPartition

from deploy.embedded import Kafka, Postgres
from tests.benchmarks.backlog import DATABASE, PUBLICATION, SETTINGS, TABLE, prepare
from tests.benchmarks.usage import cpu
from tests.programs import ROOT, Program, write_settings

CURVE: Final = (0, 1, 2, 5, 10, 20, 50)
IDLE_SECONDS: Final = 5.0
JIT_SECONDS: Final = 30.0
WARM_SECONDS: Final = 3.0
_INSERT = """INSERT INTO order_lines (order_id, sku, name, quantity, unit_price, tax_rate, gross, note, changed_at)
    VALUES (1, 'SKU', 'A product with a name of usual length', 1, 19.99, 19, 19.99, repeat('note ', 16), now())
    RETURNING id"""


class Latency(NamedTuple):
    """Milliseconds. CPU in % of one core, of capture and of the broker, under the load and idle."""

    p50: float
    p95: float
    p99: float
    worst: float
    capture: float
    broker: float
    idle_capture: float
    idle_broker: float


def main() -> int:
    """Runs the benchmark and prints its last line; `--write` is the writer's process."""
    options = _options()
    if options.write:
        return _write(options.write, options.rate, options.seconds)
    with tempfile.TemporaryDirectory(prefix="ordertap-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        kafka = Kafka(folder / "kafka", measured=True)
        with Postgres(folder / "postgres", options.postgres, SETTINGS) as server, kafka:
            bench = Bench(folder, server, kafka)
            bench.run(None, options.rate, JIT_SECONDS)  # a broker that was just started is slow
            if options.curve:
                print("linger_ms    p50    p95    p99  worst ms | CPU % of capture, broker; idle: capture, broker")
                for linger in CURVE:
                    print(_row(linger, bench.run(linger, options.rate, options.seconds)), flush=True)
            default = bench.run(None, options.rate, options.seconds)
    print(_row("default", default))
    print(f"latency: p50 {default.p50:.1f} ms, p99 {default.p99:.1f} ms at {options.rate} transactions/s")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench latency", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rate", type=int, default=500, help="transactions per second")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--curve", action="store_true", help="also with other values of linger_ms")
    parser.add_argument("--postgres", type=int, default=16, help="major version of the server")
    parser.add_argument("--write", help=argparse.SUPPRESS)
    return parser.parse_args()


def _row(linger: int | str, found: Latency) -> str:
    times = " ".join(f"{value:6.1f}" for value in found[:4])
    return f"{linger:>9} {times}    | " + ", ".join(f"{value:5.1f}" for value in found[4:])


def _write(dsn: str, rate: int, seconds: float) -> int:
    """Commits at an even pace. Prints id and time of each commit."""
    connection = psycopg2.connect(dsn)
    committed = []
    begin = time.perf_counter()
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION synchronous_commit = on")  # else the server sends what it flushes now and then
        connection.commit()
        for number in range(int(rate * seconds)):
            time.sleep(max(0.0, begin + number / rate - time.perf_counter()))
            cursor.execute(_INSERT)
            row = cursor.fetchone()
            connection.commit()
            committed.append(f"{row[0] if row else 0} {time.time():.6f}")
    print("\n".join(committed))
    return 0


class Bench:
    """One shop and one Kafka; each run has a capture of its own."""

    def __init__(self, folder: Path, server: Postgres, kafka: Kafka) -> None:
        self._folder = folder
        self._server = server
        self._kafka = kafka
        self._dsn = prepare(server)
        self._number = 0

    def run(self, linger: int | None, rate: int, seconds: float) -> Latency:
        """Waits idle for a while, then runs the load; its first seconds are not counted."""
        with self._capture(linger) as (name, program):
            before = cpu(program.pid), cpu(self._kafka.process.pid)
            time.sleep(IDLE_SECONDS)
            idle = (
                _share(program.pid, before[0], IDLE_SECONDS),
                _share(self._kafka.process.pid, before[1], IDLE_SECONDS),
            )
            before = cpu(program.pid), cpu(self._kafka.process.pid)
            began = time.perf_counter()
            committed, arrived = self._measure(name, rate, seconds)
            spent = time.perf_counter() - began
            busy = _share(program.pid, before[0], spent), _share(self._kafka.process.pid, before[1], spent)
        if sorted(arrived) != sorted(committed):
            raise SystemExit(f"{len(committed)} rows were committed, {len(arrived)} arrived")
        counted = sorted(committed)[int(rate * WARM_SECONDS) :]
        took = sorted((arrived[row] - committed[row]) * 1000 for row in counted)
        p50, p95, p99 = (took[int(len(took) * share)] for share in (0.5, 0.95, 0.99))
        return Latency(p50, p95, p99, took[-1], *busy, *idle)

    def _measure(self, name: str, rate: int, seconds: float) -> tuple[dict[int, float], dict[int, float]]:
        """When each row was committed, and when it arrived, by id."""
        consumer = Consumer(
            {
                "bootstrap.servers": self._kafka.bootstrap_servers,
                "group.id": name,
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
            }
        )
        consumer.assign([TopicPartition(f"{name}.{TABLE}", 0, 0)])
        wanted = int(rate * seconds)
        command = [sys.executable, "-m", "tests.benchmarks.latency", "--write", self._dsn]
        command += ["--rate", str(rate), "--seconds", str(seconds)]
        arrived: list[tuple[bytes, float]] = []
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
            deadline = time.monotonic() + seconds + 60
            while len(arrived) < wanted and time.monotonic() < deadline:
                message = consumer.poll(1.0)
                if message is not None and not message.error():
                    arrived.append((message.key() or b"", time.time()))
            output, _ = writer.communicate(timeout=60)
        consumer.close()
        committed = {int(line.split()[0]): float(line.split()[1]) for line in output.splitlines()}
        return committed, {_id(key): at for key, at in arrived}

    @contextmanager
    def _capture(self, linger: int | None) -> Iterator[tuple[str, Program]]:
        self._number += 1
        name = f"latency{self._number}"
        settings: dict[str, Any] = {
            "name": name,
            "topic_prefix": name,
            "database_hostname": "127.0.0.1",
            "database_port": self._server.port,
            "database_user": "postgres",
            "database_password": "",
            "database_dbname": DATABASE,
            "slot_name": name,
            "publication_name": PUBLICATION,
            "table_include_list": [TABLE],
            "snapshot_mode": "no_data",
            "bootstrap_servers": self._kafka.bootstrap_servers,
            "schema_registry_url": (self._folder / "registry").as_uri(),
            "health_port": 0,
        }
        if linger is not None:
            settings["linger_ms"] = linger
        program = Program(
            "capture", write_settings(self._folder / f"{name}.yaml", capture=settings), self._folder / f"{name}.log"
        )
        program.start()
        try:
            deadline = time.monotonic() + 60
            while "streaming" not in program.log.read_text():
                if time.monotonic() > deadline or program.ended() is not None:
                    raise SystemExit(f"capture does not stream:\n{program.tail()}")
                time.sleep(0.1)
            time.sleep(1.0)
            yield name, program
        finally:
            program.stop()
            with psycopg2.connect(self._dsn) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT pg_drop_replication_slot(%s)", (name,))


def _id(key: bytes) -> int:
    """The only column of the key, an Avro long after the schema's id."""
    number = shift = 0
    for byte in key[5:]:
        number |= (byte & 127) << shift
        shift += 7
    return number >> 1


def _share(pid: int, before: float, seconds: float) -> float:
    return (cpu(pid) - before) / seconds * 100


if __name__ == "__main__":
    sys.exit(main())
