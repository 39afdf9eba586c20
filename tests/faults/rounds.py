"""Rounds of capture alone under faults: a new shop, a snapshot, changes at full speed, random faults, the proof.

Each round starts afresh, so that a long run covers the first snapshot as often as the stream, with different settings,
and does not grow. The seed decides settings, changes and faults, but not their timing.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from deploy.embedded import Kafka, Postgres
from schemas.model.errors import ExitCode, UnavailableError
from tests.faults.workload import SCHEMA, TABLES, Workload, prefill, touch
from tests.programs import Program, run
from tests.proof.verdict import Verdict
from tests.shop import Shop, open_shop, said

STALL_SECONDS: Final = 120.0  # seconds without progress, on a busy machine
DRAIN_SECONDS: Final = 1200.0
KAFKA: Final = {"transaction.abort.timed.out.transaction.cleanup.interval.ms": "300"}
POSTGRES: Final = {"fsync": "off", "max_connections": "100", "max_wal_size": "2GB"}


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a round. `trouble`: what capture should not have done, "" if nothing."""

    verdict: Verdict
    faults: Counter[str]
    trouble: str

    @property
    def sound(self) -> bool:
        """Whether every promise was kept."""
        return not self.verdict.findings and not self.trouble and self.verdict.changes > 0


class Round:
    """One shop with two capture processes, one of which leads."""

    def __init__(self, shop: Shop, chance: random.Random, say: Callable[[str], None]) -> None:
        self.shop = shop
        self.faults: Counter[str] = Counter()
        self._chance = chance
        self._say = say
        self._copies = [shop.capture, shop.copy("second")]
        self._faults: list[tuple[float, Callable[[], None]]] = [
            (5, self.kill),
            (2, self.kill_both),
            (1, self.stop),
            (2, self.zombie),
            (1, self.cut_walsender),
            (1, self.cut_clients),
            (1, self.freeze_broker),
            (0.5, self.kill_broker),
            (0.7, self.restart_shop),
            (0.7, self.crash_shop),
            (1.5, self.snapshot),
        ]

    def run(self, seconds: float, workload: Workload) -> str:
        """Runs changes and faults for so many seconds, then waits until Kafka has everything. Returns what capture did
        wrong, if anything."""
        for copy in self._copies:
            copy.start()
        workload.start()
        ends = time.monotonic() + seconds
        try:
            while (left := ends - time.monotonic()) > 0:
                time.sleep(min(left, self._chance.uniform(0.3, 4)))
                fault = self._chance.choices(*zip(*((f, weight) for weight, f in self._faults), strict=True))[0]
                self._say(f"{sum(self.faults.values())} faults, {left:.0f} s left: {fault.__name__}")
                self.faults[fault.__name__] += 1
                fault()
                self._revive()
        finally:
            workload.finish()
        touch(self.shop.dsn)
        return self._drained() or self._wrong()

    def _drained(self) -> str:
        """Waits until Kafka has everything, and stops all processes. Returns why that fails, if it does."""
        try:
            return self._waited(self.shop.log_end())
        finally:
            for copy in self._copies:
                copy.stop()

    def _waited(self, end: int) -> str:
        moved, before = time.monotonic(), None
        deadline = moved + DRAIN_SECONDS
        while not self._reached(end):
            now = self._position(before)
            if now != before:
                moved, before = time.monotonic(), now
            self._say(f"{sum(self.faults.values())} faults, waiting until all is in Kafka")
            self._revive()
            if time.monotonic() > min(deadline, moved + STALL_SECONDS) or self._wrong():
                return (
                    self._wrong() or f"not all in Kafka, and nothing or too little comes:\n{self._copies[0].tail(40)}"
                )
            time.sleep(2)
        return ""

    def _position(self, last: dict[str, Any] | None) -> dict[str, Any] | None:
        try:
            return self.shop.position(settled=False)
        except UnavailableError:  # the broker was just started
            return last

    def _reached(self, end: int) -> bool:
        """A transaction that stays open longer than any time-out is the broker's fault: it is reported, and the broker
        is restarted, as an operator would. A second time is a failure."""
        try:
            return self.shop.reached(end)
        except UnavailableError as error:
            if "an open transaction hides its end" not in error.message:
                return False
            if self.faults["stuck_broker"]:
                raise
            self.faults["stuck_broker"] += 1
            logs = [f"{copy.log.name}:\n{copy.tail()}" for copy in self._copies]
            broker = self.shop.kafka.log.read_text().splitlines()[-15:]
            self._say("\n".join([error.message, *logs, "the broker, which is restarted now:", *broker]))
            self.shop.kafka.stop()
            self.shop.kafka.start()
            return False

    def _wrong(self) -> str:
        for copy in self._copies:
            if "Traceback" in said(copy):
                return f"a stack trace:\n{said(copy).partition('Traceback')[2][:4000]}"
            if copy.ended() not in (None, 0, -signal.SIGKILL, ExitCode.UNAVAILABLE):
                return f"capture ended with {copy.ended()}:\n{copy.tail(40)}"
        return ""

    def _revive(self) -> None:
        """Restarts a process that did not reach broker or shop at its start, as a container's restart policy would."""
        for copy in self._copies:
            if copy.ended() == ExitCode.UNAVAILABLE:
                copy.start()

    def _one(self) -> Program:
        return self._chance.choice(self._copies)

    def kill(self) -> None:
        """kill -9 of one process, leader or not."""
        copy = self._one()
        copy.kill()
        time.sleep(self._chance.choice((0, 0.5, 2)))
        copy.start()

    def kill_both(self) -> None:
        """kill -9 of all processes: nobody is left to take over."""
        for copy in self._copies:
            copy.kill()
        for copy in self._copies:
            copy.start()

    def stop(self) -> None:
        """Stops and starts a process, as a container would."""
        copy = self._one()
        copy.stop()
        copy.start()

    def zombie(self) -> None:
        """Freezes a process, cuts its connections, and wakes it when another may lead."""
        copy = self._one()
        os.kill(copy.pid, signal.SIGSTOP)
        try:
            self.shop.end_backends("walsender")
            self.shop.end_backends("client backend")
            time.sleep(self._chance.uniform(0.5, 4))
        finally:
            os.kill(copy.pid, signal.SIGCONT)

    def cut_walsender(self) -> None:
        """Cuts the connection that streams."""
        self.shop.end_backends("walsender")

    def cut_clients(self) -> None:
        """Cuts the other connections: the lock of the leadership, catalogue and chunks."""
        self.shop.end_backends("client backend")

    def freeze_broker(self) -> None:
        """Freezes the broker for a while, sometimes for a minute."""
        assert self.shop.kafka.process is not None
        os.kill(self.shop.kafka.process.pid, signal.SIGSTOP)
        time.sleep(self._chance.uniform(0.5, 8) if self._chance.random() < 0.9 else 60)
        os.kill(self.shop.kafka.process.pid, signal.SIGCONT)

    def kill_broker(self) -> None:
        """kill -9 of the broker, and a start."""
        self.shop.kafka.kill()
        self.shop.kafka.start()

    def restart_shop(self) -> None:
        """pg_ctl restart -m fast."""
        self.shop.server.stop()
        self.shop.server.start()

    def crash_shop(self) -> None:
        """pg_ctl stop -m immediate, and the recovery."""
        process = self.shop.server.process
        assert process is not None
        process.send_signal(signal.SIGQUIT)
        process.wait()
        self.shop.server.start()

    def snapshot(self) -> None:
        """Asks for a new snapshot of one table while streaming."""
        run("capture", "signal", "snapshot", self._chance.choice(TABLES[:3]), config=self.shop.config)


def play(
    server: Postgres, kafka: Kafka, folder: Path, name: str, seed: str, seconds: float, say: Callable[[str], None]
) -> Result:
    """Runs one round of so many seconds. `name`: of its database, topics and slot."""
    chance = random.Random(seed)
    folder.mkdir()
    dsn = server.create_database(name)
    with open_shop(server, kafka, dsn, name, folder, _settings(chance), SCHEMA, TABLES) as shop:
        prefill(dsn, chance.choice((100, 3000, 20000)))
        workload = Workload(dsn, seed, writers=3, pause=chance.choice((0.0, 0.002, 0.01)), ddl_pause=3)
        game = Round(shop, chance, say)
        trouble = game.run(seconds, workload)
        say("reading the topics back")
        result = Result(shop.verdict(), game.faults, trouble)
        shop.drop_slots()
    server.psql(f'DROP DATABASE "{name}" WITH (FORCE)')
    return result


def _settings(chance: random.Random) -> dict[str, Any]:
    """Random sizes and modes, which run different code."""
    return {
        "topic_creation_default_partitions": chance.choice((1, 3)),
        "max_batch_size": chance.choice((100, 1000, 5000)),
        "linger_ms": chance.choice((0, 5, 50)),
        "snapshot_max_threads": chance.choice((1, 2)),
        "incremental_snapshot_chunk_size": chance.choice((200, 500, 2048)),
        "provide_transaction_metadata": chance.choice((False, True)),
        "stall_seconds": chance.choice((3, 10)),
        "kafka": {"transaction.timeout.ms": chance.choice(("3000", "10000", "60000"))},
    }
