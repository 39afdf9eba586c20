"""`./tests/bench capture`: how fast and how frugally capture drains a backlog, compared with PostgreSQL's
pg_recvlogical.

Three backlogs: small transactions, larger ones, and small ones of 16 clients that interleave (on request a fourth, one
transaction of a million rows). The last line has the worst of each figure. If the compiled row path was built, capture
runs both ways, and the last line's first figures are the compiled way's. Every reader has a slot of its own, made
before the load, so that all read the same log. They take turns, and medians are compared. The clock runs from when the
slot is in use until the last change is committed in Kafka (for pg_recvlogical: written to /dev/null), so Python's start
does not count. CPU is the capture process's in the same time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
from confluent_kafka import Consumer, TopicPartition

from deploy.embedded import Kafka, Postgres
from schemas.writing.compiled import rowpath
from tests.benchmarks.backlog import (
    DATABASE,
    PUBLICATION,
    SETTINGS,
    TABLE,
    USUAL,
    WORKLOADS,
    Backlog,
    Workload,
    load,
    prepare,
)
from tests.benchmarks.usage import cpu, peak_megabytes
from tests.programs import Program, write_settings

DRAIN_SECONDS = 600.0
WAYS = ("plain Python",) if rowpath() is None else ("compiled", "plain Python")
"""How rows are encoded."""


class Drain(NamedTuple):
    """One reader's run: rows per second, CPU in µs per row (while draining, and with its start), peak memory in MB."""

    rows_per_second: float
    cpu: float = 0.0
    cpu_with_start: float = 0.0
    megabytes: float = 0.0

    def __str__(self) -> str:
        cpu = f"{self.cpu:.1f} µs CPU per row ({self.cpu_with_start:.1f} with its start)"
        return f"{self.rows_per_second:8.0f} rows/s, {cpu}, {self.megabytes:.1f} MB"


class Result(NamedTuple):
    """Medians of the ratio to pg_recvlogical and of the CPU in µs per row, the highest memory in MB."""

    ratio: float
    cpu: float
    megabytes: float

    def __str__(self) -> str:
        return f"{self.ratio:.2f} of pg_recvlogical, {self.cpu:.1f} µs CPU per row, {self.megabytes:.1f} MB"


def main() -> int:
    """Runs the benchmark and prints its last line."""
    options = _options()
    if not sys.platform.startswith("linux"):
        print("bench: reads /proc, so it runs on Linux only")
        return 2
    with tempfile.TemporaryDirectory(prefix="ordertap-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        kafka = Kafka(folder / "kafka", measured=True)
        with Postgres(folder / "postgres", options.postgres, SETTINGS) as server, kafka:
            bench = Bench(folder, server, kafka.bootstrap_servers)
            chosen = WORKLOADS[:USUAL] if options.workload is None else [WORKLOADS[options.workload - 1]]
            results = [_results(*bench.run(workload, options)) for workload in chosen]
    print("capture: " + "; ".join(f"{way}: {_worst([result[way] for result in results])}" for way in WAYS))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench capture", description=(__doc__ or "").split("\n\n")[0])
    names = ", ".join(f"{number} {workload.name}" for number, workload in enumerate(WORKLOADS, 1))
    parser.add_argument("--workload", type=int, choices=range(1, len(WORKLOADS) + 1), help=f"only one: {names}")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--postgres", type=int, default=16, help="major version of the server")
    parser.add_argument("--profile", type=Path, help="write cProfile's figures of capture there (slows it down)")
    options = parser.parse_args(sys.argv[1:])
    if options.repeats < 1:
        parser.error("--repeats must be at least 1")
    return options


def _results(ours: dict[str, list[Drain]], theirs: list[Drain]) -> dict[str, Result]:
    """Results by the way rows are encoded; printed for each workload."""
    results = {}
    for way, drains in ours.items():
        ratios = [a.rows_per_second / b.rows_per_second for a, b in zip(drains, theirs, strict=True)]
        cpu = statistics.median(drain.cpu for drain in drains)
        results[way] = Result(statistics.median(ratios), cpu, max(drain.megabytes for drain in drains))
        print(f"  {way}: {results[way]}", flush=True)
    return results


def _worst(results: list[Result]) -> Result:
    ratios, cpu, megabytes = zip(*results, strict=True)
    return Result(min(ratios), max(cpu), max(megabytes))


class Bench:
    """The readers and what they read."""

    def __init__(self, folder: Path, server: Postgres, bootstrap_servers: str) -> None:
        self._folder = folder
        self._server = server
        self._bootstrap_servers = bootstrap_servers
        self._dsn = prepare(server)
        self._runs = count(step=100)

    def run(self, workload: Workload, options: argparse.Namespace) -> tuple[dict[str, list[Drain]], list[Drain]]:
        """Makes slots, loads, then lets all readers run in turn. The slots are dropped at the end."""
        start = next(self._runs)
        turns = [range(first, first + len(WAYS)) for first in range(start, start + 50, len(WAYS))][: options.repeats]
        configs = {number: self._begin_capture(number) for numbers in turns for number in numbers}
        for number, *_ in turns:
            self._query("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", f"recvlogical_{number}")
        backlog = load(self._dsn, workload)
        size = f"{backlog.wal_bytes / 1e6:.0f} MB of log"
        said = f"{workload.name}: {backlog.rows} row changes in {backlog.transactions}, {workload.clients} clients"
        print(f"{said}, {size}", flush=True)
        ours: dict[str, list[Drain]] = {way: [] for way in WAYS}
        theirs = []
        for numbers in turns:
            theirs.append(self._recvlogical(numbers[0], backlog))
            print(f"  pg_recvlogical: {theirs[-1].rows_per_second:8.0f} rows/s", flush=True)
            for number, way in zip(numbers, WAYS, strict=True):
                ours[way].append(self._capture(number, configs[number], backlog, way, options.profile))
                print(f"  {way + ':':15} {ours[way][-1]}", flush=True)
        self._query("SELECT count(pg_drop_replication_slot(slot_name)) FROM pg_replication_slots")
        return ours, theirs

    def _begin_capture(self, number: int) -> Path:
        """Runs capture until it has its slot and its position in Kafka."""
        settings = {
            "name": f"bench{number}",
            "topic_prefix": f"bench{number}",
            "database_hostname": "127.0.0.1",
            "database_port": self._server.port,
            "database_user": "postgres",
            "database_password": "",
            "database_dbname": DATABASE,
            "slot_name": f"capture_{number}",
            "publication_name": PUBLICATION,
            "table_include_list": [TABLE],
            "snapshot_mode": "no_data",
            "bootstrap_servers": self._bootstrap_servers,
            "schema_registry_url": (self._folder / "registry").as_uri(),
            "health_port": 0,
        }
        config = write_settings(self._folder / f"capture-{number}.yaml", capture=settings)
        program = Program("capture", config, self._folder / f"capture-{number}.log")
        program.start()
        try:
            self._in_use(f"capture_{number}", program)
            with _position(self._bootstrap_servers, f"bench{number}") as consumer:
                _await_position(consumer, 0, program)
        finally:
            program.stop()
        return config

    def _recvlogical(self, number: int, backlog: Backlog) -> Drain:
        slot = f"recvlogical_{number}"
        end = f"{backlog.end_lsn >> 32:X}/{backlog.end_lsn & 0xFFFFFFFF:X}"
        options = ["-o", "proto_version=1", "-o", f"publication_names={PUBLICATION}", "--endpos", end, "--no-loop"]
        command = [str(self._server.bin / "pg_recvlogical"), "-d", self._dsn, "-S", slot, "--start", "-f", "/dev/null"]
        with subprocess.Popen([*command, *options]) as reader:
            started = self._in_use(slot)
            if reader.wait(DRAIN_SECONDS):
                raise SystemExit(f"pg_recvlogical ended with {reader.returncode}")
            seconds = time.perf_counter() - started
        return Drain(backlog.rows / seconds)

    def _capture(self, number: int, config: Path, backlog: Backlog, way: str, profile: Path | None) -> Drain:
        options = ("-m", "cProfile", "-o", f"{profile}-{way.split()[0]}") if profile else ()
        log, pure = self._folder / f"capture-{number}.log", way != "compiled"
        program = Program("capture", config, log, options, pure_python=pure)
        with _position(self._bootstrap_servers, f"bench{number}") as consumer:
            program.start()
            try:
                started = self._in_use(f"capture_{number}", program)
                before = cpu(program.pid)
                _await_position(consumer, backlog.end_lsn, program)
                seconds = time.perf_counter() - started
                spent, memory = cpu(program.pid), peak_megabytes(program.pid)
            finally:
                program.stop()
        self._check_count(f"bench{number}", backlog.rows)
        per_row = 1e6 / backlog.rows
        return Drain(backlog.rows / seconds, (spent - before) * per_row, spent * per_row, memory)

    def _in_use(self, slot: str, program: Program | None = None) -> float:
        """Waits until a walsender serves the slot, and returns that time."""
        deadline = time.monotonic() + 60
        while not self._query("SELECT active FROM pg_replication_slots WHERE slot_name = %s", slot):
            if time.monotonic() > deadline or (program and program.ended() is not None):
                raise SystemExit(f"nobody reads slot {slot}\n{program.tail() if program else ''}")
            time.sleep(0.002)
        return time.perf_counter()

    def _check_count(self, prefix: str, rows: int) -> None:
        """Counts what a consumer sees: a fast reader that loses rows proves nothing."""
        consumer = Consumer(_reading(self._bootstrap_servers, prefix))
        consumer.assign([TopicPartition(f"{prefix}.{TABLE}", 0, 0)])
        seen = 0
        while seen < rows and (messages := consumer.consume(10_000, timeout=10)):
            seen += len(messages)
        consumer.close()
        if seen != rows:
            raise SystemExit(f"{prefix}.{TABLE} has {seen} records, not {rows}")

    def _query(self, statement: str, *values: object) -> Any:
        if not hasattr(self, "_connection"):
            self._connection = psycopg2.connect(self._dsn)
            self._connection.autocommit = True
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values)
            row = cursor.fetchone()
            return row[0] if row else None


def _reading(bootstrap_servers: str, prefix: str) -> dict[str, str | int | float | bool | None]:
    return {
        "bootstrap.servers": bootstrap_servers,
        "group.id": f"{prefix}-bench",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "fetch.wait.max.ms": 5,
    }


@contextmanager
def _position(bootstrap_servers: str, prefix: str) -> Iterator[Consumer]:
    consumer = Consumer(_reading(bootstrap_servers, prefix))
    consumer.assign([TopicPartition(f"ordertap.{prefix}.position", 0, 0)])
    yield consumer
    consumer.close()


def _await_position(consumer: Consumer, end_lsn: int, program: Program) -> None:
    """Waits until the committed position in Kafka has passed the backlog's last commit."""
    deadline = time.monotonic() + DRAIN_SECONDS
    while True:
        for message in consumer.consume(1000, timeout=0.02):
            content = {} if message.error() else json.loads(message.value() or b"{}")
            if isinstance(content, dict) and content.get("last_commit_lsn", 0) >= end_lsn:
                return
        if program.ended() is not None or time.monotonic() > deadline:
            raise SystemExit(f"capture did not drain the backlog:\n{program.tail()}")


if __name__ == "__main__":
    sys.exit(main())
