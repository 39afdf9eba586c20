"""`./tests/bench sink`: how fast and how frugal the sink stages a backlog, beside a bare COPY and upsert of its rows.

Four rows per commit in three tables of three partitions, two thirds of them inserts, about 200 bytes each; every row
marks its order. capture makes the backlog and ends; then one `sink run` stages it beside Kafka and PostgreSQL. The
clock runs from the first rows that are visible until the last are, and only rows between the two are counted. Appliers
do not compete: at the ERP's address nobody answers, so they rest, and staging goes on.

With an option one other figure: `--replay` (all offsets reset to the earliest by Kafka's own tool; until what was
written after the reset is visible), `--large` (one commit of a million rows, from its record in the index of commits
until it is visible), `--latency` (from the shop's commit until it is visible, at an even pace).
"""

from __future__ import annotations

import argparse
import bisect
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import psycopg2
from confluent_kafka import Consumer, ConsumerGroupState, TopicPartition
from confluent_kafka.admin import AdminClient

from deploy.embedded import Kafka, Postgres
from schemas.model.commits import IndexRecord, index_topic, parse_index
from tests.benchmarks.backlog import SETTINGS
from tests.benchmarks.sink_shop import PLACED, PUBLICATION, ROWS, BenchShop, write_profile
from tests.benchmarks.upsert import BareUpsert
from tests.benchmarks.usage import cpu, cpu_with_children, peak_megabytes
from tests.faults.day import position
from tests.offsets import reset_offsets
from tests.programs import ROOT, Program, write_settings

NAME: Final = "bench"
NO_ERP: Final = "postgresql://nobody@127.0.0.1:1/none"
PATIENCE: Final = 900.0
BACKLOG_ROWS: Final = 240_000
MANY_ROWS: Final = 1_000_000
MARKERS: Final = 100  # orders, so that each partition has some
WARM_SECONDS: Final = 3.0
_LOOK: Final = 0.01
_SHORT_LOOK: Final = 0.001


class Staged(NamedTuple):
    """Rows from the first look to the last, and what they took; `memory` is the highest of the process."""

    rows: int
    seconds: float
    ours: float
    postgres: float
    memory: float

    def __str__(self) -> str:
        ours, theirs = (1e6 * spent / self.rows for spent in (self.ours, self.postgres))
        speed = f"{self.rows} rows in {self.seconds:.1f} s, {self.rows / self.seconds:.0f} rows/s"
        return f"{speed}; CPU per row: sink {ours:.1f} µs, PostgreSQL {theirs:.1f} µs; {self.memory:.0f} MB"


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
            bench = Bench(folder, server, kafka)
            try:
                print(options.measure(bench, options))
            finally:
                bench.stop()
    return 0


def _options() -> argparse.Namespace:
    text, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="bench sink", description=text, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    chosen = parser.add_mutually_exclusive_group()
    for name, measure, told in (
        ("replay", replay, "records/s of a replay, and how many documents it marks"),
        ("large", large, "seconds until one large commit is visible"),
        ("latency", latency, "milliseconds from commit to visible"),
    ):
        chosen.add_argument(f"--{name}", dest="measure", action="store_const", const=measure, help=told)
    sizes = f"of the backlog ({BACKLOG_ROWS}), of the replay or of the large commit ({MANY_ROWS})"
    parser.add_argument("--rows", type=int, help=f"how many: {sizes}")
    parser.add_argument("--rate", type=int, default=50, help="commits per second of --latency")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long --latency is measured")
    parser.add_argument("--postgres", type=int, default=16, help="major version of the server")
    parser.set_defaults(measure=throughput)
    options = parser.parse_args()
    options.rows = options.rows or (BACKLOG_ROWS if options.measure is throughput else MANY_ROWS)
    if options.rows < 3 * ROWS:
        parser.error(f"--rows must be at least {3 * ROWS}")
    return options


class Bench:
    """Shop, middle layer and both programs, neither of them running. The first orders are staged already."""

    def __init__(self, folder: Path, server: Postgres, kafka: Kafka) -> None:
        self.kafka = kafka
        self.server = server
        shop, self.middle = server.create_database("shop"), server.create_database("middle")
        self.shop = BenchShop(shop)
        registry = (folder / "registry").as_uri()
        common = {"topic_prefix": NAME, "bootstrap_servers": kafka.bootstrap_servers, "schema_registry_url": registry}
        source = {
            "name": NAME,
            "database_hostname": "127.0.0.1",
            "database_port": server.port,
            "database_user": "postgres",
            "database_password": "",
            "database_dbname": "shop",
            "slot_name": NAME,
            "publication_name": PUBLICATION,
            "snapshot_mode": "no_data",
            "topic_creation_default_partitions": 3,
            "health_port": 0,
        }
        target = {
            "shop": NAME,
            "profile": str(write_profile(folder / "profile")),
            "database_url": self.middle,
            "erp": {"kind": "sql", "url": NO_ERP, "mapping": str(ROOT / "deploy/erp/mapping.yaml")},
            "mode": "plan",
            "prices_owner": "shop",
            "workers": 1,
            "health_port": 0,
        }
        config = write_settings(folder / "settings.yaml", capture=common | source, sink=common | target)
        self.capture = Program("capture", config, folder / "capture.log")
        self.sink = Program("sink", config, folder / "sink.log")
        self._begin()

    def stop(self) -> None:
        """Ends both programs."""
        self.sink.stop()
        self.capture.stop()

    def _begin(self) -> None:
        self.capture.start()
        wait_until(lambda: "streaming" in self.capture.log.read_text(), self.capture)
        end = self.shop.place_first()
        self.drained(end)
        self.sink.start()
        with self.place() as place:
            wait_until(lambda: place.is_at(end), self.sink)
        self.stop()

    def drained(self, end: int) -> None:
        """Waits until Kafka has everything up to there."""
        wait_until(lambda: position(self.kafka.bootstrap_servers, NAME) >= end, self.capture)

    def backlog(self, rows: int) -> int:
        """Writes a backlog, and lets capture bring it to Kafka. Returns where it ends."""
        end = self.shop.load(rows)
        self.capture.start()
        self.drained(end)
        self.capture.stop()
        self.server.psql("CHECKPOINT")
        return end

    def stage(self, end: int) -> Staged:
        """Runs the sink until the copy is there."""
        last = self.shop.revision()
        before = self._revision()
        self.sink.start()
        with self.place() as place:
            began = self._use()
            wait_until(lambda: place.moved() or place.is_at(end), self.sink, _LOOK)
            first = self._use()
            seen = self._revision()
            if (last - seen) * 2 < last - before:  # in one step, or in very large ones
                print("  most of it became visible at once: the clock runs from the start of the process", flush=True)
                first, seen = began, before
            wait_until(lambda: place.is_at(end), self.sink, _LOOK)
        now = self._use()
        seconds, ours, postgres = (there - here for there, here in zip(now, first, strict=True))
        return Staged((last - seen) * ROWS, seconds, ours, postgres, peak_megabytes(self.sink.pid))

    def _use(self) -> tuple[float, float, float]:
        """The time, CPU of the sink and CPU of PostgreSQL so far."""
        assert self.server.process is not None
        return time.perf_counter(), cpu(self.sink.pid), cpu_with_children(self.server.process.pid)

    def _revision(self) -> int:
        """The number of the last visible commit."""
        return int(self.ask(f"SELECT max(revision) FROM {NAME}.orders"))

    def ask(self, statement: str) -> str:
        """One value from the middle layer."""
        with closing(psycopg2.connect(self.middle)) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            row = cursor.fetchone()
        return str(row[0]) if row else ""

    @contextmanager
    def place(self) -> Iterator[Place]:
        """The copy's place."""
        with closing(psycopg2.connect(self.middle)) as connection:
            connection.autocommit = True
            yield Place(connection)

    def index(self) -> Consumer:
        """A reader of the index of commits, from its beginning."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.kafka.bootstrap_servers,
                "group.id": "bench-index",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 5,
            }
        )
        consumer.assign([TopicPartition(index_topic(NAME), 0, 0)])
        return consumer


class Place:
    """The table `copy` of the ledger, read through one connection."""

    def __init__(self, connection: psycopg2.extensions.connection) -> None:
        self._cursor = connection.cursor()
        self._first = self.now()

    def now(self) -> tuple[int, int]:
        """LSN and ordinal; zeros before there are any."""
        try:
            self._cursor.execute("SELECT lsn, ordinal FROM ordertap_bench.copy")
        except (psycopg2.errors.UndefinedTable, psycopg2.errors.InvalidSchemaName):
            return 0, 0
        row = self._cursor.fetchone()
        return (int(row[0]), int(row[1])) if row else (0, 0)

    def is_at(self, end: int) -> bool:
        """Whether all commits after this end of the log, as `BenchShop` returns it, are in the copy."""
        return self.now() > (end, 0)

    def is_steady(self) -> bool:
        """Whether the copy is the shop as of one commit: the first snapshot is completely staged."""
        if self.now() == (0, 0):
            return False
        self._cursor.execute("SELECT state = 'steady' FROM ordertap_bench.copy")
        return self._cursor.fetchone() == (True,)

    def moved(self) -> bool:
        """Whether the copy has moved since this object was made."""
        return self.now() != self._first


def throughput(bench: Bench, options: argparse.Namespace) -> str:
    """Runs the sink between two runs of the bare upsert, since speed drifts on shared machines."""
    bare = BareUpsert(bench.shop.dsn, bench.middle)
    end = bench.backlog(options.rows)
    print(f"backlog: {bare.take_rows()} rows in {ROWS} a commit", flush=True)
    before = bare.rows_per_second()
    print(f"  bare COPY and upsert: {before:.0f} rows/s", flush=True)
    staged = bench.stage(end)
    print(f"  sink: {staged}", flush=True)
    bench.stop()
    after = bare.rows_per_second()
    print(f"  bare COPY and upsert: {after:.0f} rows/s", flush=True)
    looked_at = bench.ask("SELECT count(*) FROM ordertap_bench.document WHERE seen > 0")
    print(f"  documents marked: {bench.ask('SELECT count(*) FROM ordertap_bench.document')}, looked at: {looked_at}")
    speed = staged.rows / staged.seconds
    share = speed / ((before + after) / 2)
    used = f"{1e6 * staged.ours / staged.rows:.1f} µs CPU per row, {staged.memory:.0f} MB"
    return f"sink: {speed:.0f} rows/s staged, {share:.2f} of bare COPY and upsert, {used}"


def replay(bench: Bench, options: argparse.Namespace) -> str:
    """Reads all records once more. Orders placed after the reset come after them in each partition; when those are
    visible, everything is read. The clock starts when the group is complete, so Python's start does not count."""
    staged = bench.stage(bench.backlog(options.rows))
    print(f"  staged first: {staged}", flush=True)
    bench.sink.stop()
    newest = bench.shop.newest()
    reset_offsets(bench.kafka, f"ordertap-{NAME}", "--to-earliest")
    end = bench.backlog(MARKERS * ROWS)
    marks = f"SELECT coalesce(sum(marked), 0) FROM ordertap_bench.document WHERE key::bigint <= {newest - PLACED}"
    before = int(bench.ask(marks))
    records = bench.shop.revision() * ROWS
    bench.sink.start()
    admin = AdminClient({"bootstrap.servers": bench.kafka.bootstrap_servers})
    with bench.place() as place:
        wait_until(lambda: _is_whole(admin, f"ordertap-{NAME}"), bench.sink, _LOOK)
        began, spent = time.perf_counter(), cpu(bench.sink.pid)
        wait_until(lambda: place.is_at(end), bench.sink, _LOOK)
    seconds, spent = time.perf_counter() - began, cpu(bench.sink.pid) - spent
    memory = peak_megabytes(bench.sink.pid)
    print(f"  {records} records in {seconds:.1f} s, {1e6 * spent / records:.1f} µs CPU each, {memory:.0f} MB")
    return f"sink replay: {records / seconds:.0f} records/s, documents marked = {int(bench.ask(marks)) - before}"


def large(bench: Bench, options: argparse.Namespace) -> str:
    """Both programs run while the shop commits."""
    bench.capture.start()
    bench.sink.start()
    with bench.place() as place, closing(bench.index()) as index:
        end = bench.shop.place_at_once(options.rows)
        committed = time.monotonic()
        wait_until(
            lambda: any(commit.lsn >= end for record in read(index) for commit in record.commits), bench.capture, 0
        )
        named = time.monotonic()
        print(f"  {options.rows} rows, in Kafka {named - committed:.1f} s after the shop's commit", flush=True)
        wait_until(lambda: place.is_at(end), bench.sink, _LOOK)
    seconds, memory = time.monotonic() - named, peak_megabytes(bench.sink.pid)
    return f"sink large: {options.rows} rows visible {seconds:.1f} s after their index record, {memory:.0f} MB"


def latency(bench: Bench, options: argparse.Namespace) -> str:
    """The index has the shop's time of each commit; a look at the copy every millisecond or two tells when it was
    there. All clocks are this machine's."""
    bench.capture.start()
    bench.sink.start()
    ends: list[int] = []
    seen: list[tuple[int, float]] = []

    def write() -> None:
        bench.shop.pace(options.rate, options.seconds + WARM_SECONDS)
        ends.append(bench.shop.place_at_once(ROWS))

    with bench.place() as place:
        first = bench.shop.place_at_once(ROWS)
        wait_until(lambda: place.is_at(first), bench.sink)
        first = bench.shop.log_end()
        threading.Thread(target=write, daemon=True).start()
        deadline = time.monotonic() + options.seconds + PATIENCE
        while not ends or seen[-1][0] < ends[0]:
            lsn, ordinal = place.now()
            seen.append((lsn if ordinal else lsn - 1, time.time()))
            if time.monotonic() > deadline:
                raise SystemExit(f"the copy does not come to the end:\n{bench.sink.tail()}")
            time.sleep(_SHORT_LOOK)
    took = sorted(_took(bench, first, ends[0], seen))
    p50, p99 = (1000 * took[int(len(took) * share)] for share in (0.5, 0.99))
    print(f"  {len(took)} commits, a look every {_between(seen):.1f} ms, worst {1000 * took[-1]:.1f} ms")
    return f"sink latency: p50 {p50:.1f} ms, p99 {p99:.1f} ms at {options.rate} commits/s"


def _took(bench: Bench, first: int, end: int, seen: list[tuple[int, float]]) -> list[float]:
    """Seconds that each commit between two places of the log took; those of the first seconds are not counted."""
    commits: list[tuple[int, float]] = []
    with closing(bench.index()) as index:
        while not commits or commits[-1][0] < end:
            commits += [(one.lsn, one.ts_us / 1e6) for record in read(index) for one in record.commits]
    counted = [(lsn, at) for lsn, at in commits if first < lsn < end]
    places = [lsn for lsn, _ in seen]
    warm = counted[0][1] + WARM_SECONDS
    return [seen[bisect.bisect_left(places, lsn)][1] - at for lsn, at in counted if at > warm]


def _between(seen: list[tuple[int, float]]) -> float:
    return 1000 * (seen[-1][1] - seen[0][1]) / len(seen)


def read(index: Consumer) -> list[IndexRecord]:
    """New records of the index of commits."""
    return [parse_index(each.value() or b"") for each in index.consume(500, timeout=0.01) if not each.error()]


def _is_whole(admin: AdminClient, group: str) -> bool:
    """Whether a member has joined the group."""
    found = admin.describe_consumer_groups([group])[group].result()
    return bool(found.state == ConsumerGroupState.STABLE and found.members)


def _named(index: Consumer, end: int, program: Program) -> None:
    """Waits until the index of commits names a commit after this end of the log."""
    wait_until(lambda: any(commit.lsn >= end for record in read(index) for commit in record.commits), program, 0)


def wait_until(met: Callable[[], bool], program: Program, step: float = 0.1) -> None:
    """Checks every `step` seconds. SystemExit with the end of the program's log if it ends, or if it takes too long."""
    deadline = time.monotonic() + PATIENCE
    while not met():
        if program.ended() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{program.name} does not come to it:\n{program.tail()}")
        time.sleep(step)


if __name__ == "__main__":
    sys.exit(main())
