"""`./tests/bench snapshot`: how fast and how frugally a snapshot copies a table into Kafka.

The first one, or with `--on-demand` one that `capture signal snapshot` asks for. The clock runs from when the slot
exists (the snapshot's consistent point), or the signal is sent, until the position in Kafka says that the snapshot is
complete. CPU is that of all our processes from the start of the first, including Python's start, librdkafka's threads
and the workers. Memory is the sum of their peaks.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
from confluent_kafka import Consumer, TopicPartition

from deploy.embedded import Kafka, Postgres
from tests.benchmarks.backlog import DATABASE, PUBLICATION, SETTINGS, TABLE, prepare
from tests.benchmarks.usage import children, cpu_with_children, peak_megabytes
from tests.programs import Program, run, write_settings

PATIENCE = 300.0
_FILL = """
    INSERT INTO order_lines (order_id, sku, name, quantity, unit_price, tax_rate, gross, note, changed_at)
    SELECT n / 4, 'SKU-' || (n % 5000), 'A product with a name of usual length, ' || n % 4, 1, 19.99, 19, 19.99,
           repeat('note ', 16), clock_timestamp() FROM generate_series(1, {rows}) n;
    VACUUM ANALYZE order_lines;
"""


class Copy(NamedTuple):
    """One snapshot: rows per second, CPU in µs per row, peak memory in MB."""

    rows_per_second: float
    cpu: float
    megabytes: float

    def __str__(self) -> str:
        return f"{self.rows_per_second:.0f} rows/s, {self.cpu:.1f} µs CPU per row, {self.megabytes:.0f} MB"


def main() -> int:
    """Runs the benchmark and prints its last line."""
    parser = argparse.ArgumentParser(prog="bench snapshot", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--on-demand", action="store_true", help="by chunks between marks, while capture streams")
    parser.add_argument("--threads", type=int, help="snapshot_max_threads; else capture's default")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--postgres", type=int, default=16, help="major version of the server")
    parser.add_argument("--profile", type=Path, help="write cProfile's figures of capture there (slows it down)")
    options = parser.parse_args()
    if not sys.platform.startswith("linux"):
        print("bench: reads /proc, so it runs on Linux only")
        return 2
    with tempfile.TemporaryDirectory(prefix="ordertap-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        kafka = Kafka(folder / "kafka", measured=True)
        with Postgres(folder / "postgres", options.postgres, SETTINGS) as server, kafka:
            dsn = prepare(server)
            for statement in _FILL.format(rows=options.rows).split(";")[:-1]:
                server.psql(statement, DATABASE)
            copies = []
            for number in range(options.repeats):
                copies.append(_snapshot(folder, server, dsn, kafka.bootstrap_servers, number, options))
                print(f"run {number + 1}: {copies[-1]}", flush=True)
    print(f"snapshot: {Copy(*(statistics.median(values) for values in zip(*copies, strict=True)))}")
    return 0


def _snapshot(
    folder: Path, server: Postgres, dsn: str, bootstrap_servers: str, number: int, options: argparse.Namespace
) -> Copy:
    name = f"snapshot{number}"
    more = {} if options.threads is None else {"snapshot_max_threads": options.threads}
    if options.on_demand:
        more |= {"snapshot_mode": "no_data"}
    settings = {
        "name": name,
        "topic_prefix": name,
        "database_hostname": "127.0.0.1",
        "database_port": server.port,
        "database_user": "postgres",
        "database_password": "",
        "database_dbname": DATABASE,
        "slot_name": name,
        "publication_name": PUBLICATION,
        "table_include_list": [TABLE],
        "bootstrap_servers": bootstrap_servers,
        "schema_registry_url": (folder / "registry").as_uri(),
        "health_port": 0,
        **more,
    }
    python_options = ("-m", "cProfile", "-o", str(options.profile)) if options.profile else ()
    config = write_settings(folder / f"{name}.yaml", capture=settings)
    program = Program("capture", config, folder / f"{name}.log", python_options)
    program.start()
    try:
        _await_slot(dsn, name, program)
        started = time.perf_counter()
        if options.on_demand:
            run("capture", "signal", "snapshot", TABLE, config=config).check_returncode()
        memory = _await_completed(bootstrap_servers, name, program, _demand_met if options.on_demand else _first_made)
        seconds = time.perf_counter() - started
        spent = cpu_with_children(program.pid)
    finally:
        program.stop()
    _check_count(bootstrap_servers, name, options.rows)
    return Copy(options.rows / seconds, spent * 1e6 / options.rows, memory)


def _await_slot(dsn: str, name: str, program: Program) -> None:
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    deadline = time.monotonic() + 60
    with connection.cursor() as cursor:
        while True:
            cursor.execute(
                "SELECT FROM pg_replication_slots WHERE slot_name = %s AND confirmed_flush_lsn IS NOT NULL", [name]
            )
            if cursor.fetchone() is not None:
                break
            if time.monotonic() > deadline or program.ended() is not None:
                raise SystemExit(f"no slot {name}\n{program.tail()}")
            time.sleep(0.002)
    connection.close()


def _first_made(position: dict[str, Any]) -> bool:
    return bool(position["snapshot"]) and position["snapshot"]["state"] == "completed"


def _demand_met(position: dict[str, Any]) -> bool:
    return bool(position["demand"]) and not position["demand"]["requests"]


def _await_completed(
    bootstrap_servers: str, name: str, program: Program, completed: Callable[[dict[str, Any]], bool]
) -> float:
    """Waits until the position is `completed`. Returns the sum of the peaks of memory in MB."""
    peaks: dict[int, float] = {}
    consumer = _consumer(bootstrap_servers, name, f"ordertap.{name}.position")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and program.ended() is None:
        for message in consumer.consume(100, timeout=0.05):
            content = {} if message.error() else json.loads(message.value() or b"{}")
            if content and isinstance(content, dict) and completed(content):
                consumer.close()
                return sum(peaks.values())
        peaks.update({pid: peak_megabytes(pid) for pid in (program.pid, *children(program.pid))})
    raise SystemExit(f"the snapshot does not end:\n{program.tail()}")


def _check_count(bootstrap_servers: str, name: str, rows: int) -> None:
    """Counts what a consumer sees: a fast reader that loses rows proves nothing."""
    consumer = _consumer(bootstrap_servers, name, f"{name}.{TABLE}")
    count = 0
    while count < rows and (messages := consumer.consume(10_000, timeout=10)):
        count += len(messages)
    count += len(consumer.consume(1, timeout=0.5))
    consumer.close()
    if count != rows:
        raise SystemExit(f"{name}.{TABLE} has {count} records, not {rows}")


def _consumer(bootstrap_servers: str, name: str, topic: str) -> Consumer:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": f"{name}-bench",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 5,
        }
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    return consumer


if __name__ == "__main__":
    sys.exit(main())
