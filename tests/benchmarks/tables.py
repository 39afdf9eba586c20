"""`./tests/bench tables`: a first start with thousands of tables, compared with what Kafka takes to make their topics.

Kafka's part is one call that makes as many topics, under other names, until the log of each topic is there: the broker
answers the call long before. A start is measured from its process's begin until its topics are made, its snapshot (of a
row in each table) begins, and it streams. CPU is capture's own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import TopicPartition

from capture.kafka.cluster import Cluster, Making
from deploy.embedded import Kafka, Postgres
from schemas.model.errors import UnavailableError
from tests.benchmarks.usage import cpu_with_children
from tests.programs import Program
from tests.shop import Shop, open_shop, said

PATIENCE = 1200.0
_MAKE = """
    DO $$ BEGIN FOR n IN {first}..{last} LOOP
        EXECUTE format('CREATE TABLE many_%s (id int PRIMARY KEY, note text)', n);
        EXECUTE format('INSERT INTO many_%s VALUES (1, NULL)', n);
    END LOOP; END $$"""
_AT_ONCE = 250  # a transaction has no room for more locks


class Start(NamedTuple):
    """Seconds from the process's begin until its topics are made, its snapshot begins, and it streams; its CPU."""

    topics: float
    snapshot: float
    streaming: float
    cpu: float

    def __str__(self) -> str:
        parts = f"topics {self.topics:.1f}, snapshot begins {self.snapshot:.1f}, streaming {self.streaming:.1f} s"
        return f"{parts}, {self.cpu:.1f} s CPU"


def main() -> int:
    """Runs the benchmark and prints its lines."""
    parser = argparse.ArgumentParser(prog="bench tables", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--tables", type=int, default=2000)
    parser.add_argument("--postgres", type=int, default=16, help="major version of the server")
    parser.add_argument("--profile", type=Path, help="write cProfile's figures of the first start there (slows it)")
    options = parser.parse_args()
    if not sys.platform.startswith("linux"):
        print("bench: reads /proc, so it runs on Linux only")
        return 2
    with tempfile.TemporaryDirectory(prefix="ordertap-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        settings = {"fsync": "off"}
        kafka = Kafka(folder / "kafka", measured=True)
        with Postgres(folder / "postgres", options.postgres, settings) as server, kafka:
            calls = _topics(kafka, options.tables)
            print(f"Kafka: {options.tables} topics in one call: {calls:.1f} s", flush=True)
            dsn = server.create_database("many")
            schema = "CREATE PUBLICATION tap FOR ALL TABLES"
            more = {"topic_creation_default_partitions": 1}
            with open_shop(server, kafka, dsn, "bench", folder, more, schema) as shop:
                for first in range(1, options.tables + 1, _AT_ONCE):
                    shop.sql(_MAKE.format(first=first, last=min(first + _AT_ONCE - 1, options.tables)))
                profile = ("-m", "cProfile", "-o", str(options.profile)) if options.profile else ()
                start = _start(shop, shop.copy("capture", python_options=profile))
                again = _start(shop, shop.capture)
            print(f"first start: {start}, {start.streaming / calls:.2f} of Kafka's one call")
            print(f"second start: {again}")
    return 0


def _start(shop: Shop, program: Program) -> Start:
    told = len(said(program))
    began = time.monotonic()
    program.start()
    seen: dict[str, float] = {}

    def saw(*texts: str) -> Callable[[], bool]:
        def met() -> bool:
            log = said(program)[told:]
            for text in texts:
                if text in log:
                    seen.setdefault(text, time.monotonic() - began)
            return texts[-1] in log

        return met

    shop.until(saw("making topics", "making the slot", "snapshot begins", "] streaming "), program, PATIENCE)
    used = cpu_with_children(program.pid)
    assert program.stop(60) == 0, program.tail()
    streaming = seen["] streaming "]
    return Start(seen.get("making the slot", 0.0), seen.get("snapshot begins", 0.0), streaming, used)


def _topics(kafka: Kafka, count: int) -> float:
    cluster = Cluster(kafka.bootstrap_servers, {})
    topics = {f"other.public.many_{number}": Making(1, 1, {}) for number in range(count)}
    began = time.monotonic()
    cluster.create_topics(topics)
    while time.monotonic() < began + PATIENCE:
        with suppress(UnavailableError):  # a topic whose log is not there yet has no end
            cluster.ends([TopicPartition(topic, 0) for topic in topics])
            return time.monotonic() - began
    raise UnavailableError(f"{count} topics were not made in {PATIENCE:.0f} s", "look at the broker's log")


if __name__ == "__main__":
    sys.exit(main())
