"""A day with every fault that sinks have to survive, while their copy is compared with the shop again and again.

Two sinks are at work, each behind a proxy that cuts, delays and swallows its calls to the ERP (`weather`). Besides the
sample shop there are tables that no document reads: with changes of every kind and of the schema (`workload`), and
`memos`, whose changes capture sometimes parks.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import psycopg2
import psycopg2.errors
import yaml

from deploy.embedded import Kafka, Postgres
from tests.faults.day import PUBLICATION, Day, Result
from tests.faults.weather import Weather
from tests.faults.workload import LETS_GO, SCHEMA, TABLES, Workload, prefill, touch
from tests.offsets import reset_offsets
from tests.programs import ROOT, Program, run, standing_still
from tests.proof.copy import CopyChecker, Watch
from tests.proof.history import History

PARKED: Final = "public.memos"
LARGE: Final = 10_000  # rows of a commit
REACH_CALL_SECONDS: Final = 10.0  # seconds for a sink to send something
DECIDE_SECONDS: Final = 30.0  # seconds for another to take over what was sent
REACH_SECONDS: Final = 60.0  # seconds for the copy to come to the shop's end, once the ERP is there
_MEMOS = """
CREATE TABLE memos (id bigint PRIMARY KEY, memo text);
INSERT INTO memos SELECT n, 'a' FROM generate_series(1, 9) n;
"""
_TOO_LARGE = 1_200_000  # bytes, for a record
_COPIED = (*(table for table in TABLES if table != "public.journal"), PARKED)  # the journal has no key


class WildDay(Day):
    """A day with more kinds of faults, and a watch over the copy. `faults`: counts; `freezes`: seconds for which a
    process is stopped, sometimes longer than any session lasts."""

    freezes: tuple[int, ...] = (1, 3, 3, 8, 25)
    holes: tuple[float, ...] = (1, 4, 12)  # seconds in which the network swallows everything
    copies = 2
    fewest_kills = 3
    fewest_stops = fewest_lost = 1
    fewest_kinds = 4  # kinds of faults
    fewest_prefixes = 10

    def __init__(self, folder: Path, server: Postgres, kafka: Kafka, prefix: str, seed: int) -> None:
        self._profile = folder / "profile"
        tables = _write_profile(self._profile)
        super().__init__(folder, server, kafka, prefix, seed)
        self.faults: Counter[str] = Counter()
        self.stops = 0
        self.weather = Weather(self.proxies, seed, self.holes)
        self.watch = Watch(CopyChecker(self.history, self.middle, tables, prefix, f"ordertap_{prefix}"))
        self._workload = Workload(self.shop, seed, writers=1, pause=0.2, ddl_pause=4)
        self._is_parked = False
        self._faults: list[tuple[float, Callable[[], None]]] = [
            (6, self.kill_one),
            (2, self.freeze),
            (2, self.leave_one_down),
            (2, self.stop_before_call),
            (1, self.reset),
            (2, self.snapshot),
            (2, self.change_schema),
            (1, self.commit_large),
            (1, self.truncate),
            (1.5, self.park),
        ]

    def run(self, seconds: float, say: Callable[[str], None] = lambda _: None) -> Result:
        """Runs the day. The result also has what the watch saw."""
        self.watch.start()
        self._workload.start()
        self.weather.start()
        try:
            return super().run(seconds, say)
        except RuntimeError as error:
            error.add_note("\n".join(map(str, self.watch.checker.findings[:40])))
            raise
        finally:
            self.weather.finish()
            self._workload.finish()
            self.watch.finish()

    def _make_shop_and_erp(self) -> None:
        super()._make_shop_and_erp()
        self._execute(self.shop, SCHEMA + _MEMOS)
        prefill(self.shop, 300)
        self.history = History(self.shop, PUBLICATION, f"history_{self.prefix}")
        self.history.create()

    def _capture(self) -> dict[str, object]:
        return super()._capture() | {"oversized_record": "park"}

    def _sink(self) -> dict[str, object]:
        return super()._sink() | {"profile": str(self._profile)}

    def _had_enough(self) -> bool:
        seen = self.watch.checker.checked >= self.fewest_prefixes
        lost = sum(proxy.lost for proxy in self.proxies) >= self.fewest_lost
        enough = lost and self.stops >= self.fewest_stops and len(self.faults) >= self.fewest_kinds
        return super()._had_enough() and enough and seen

    def _disturb(self) -> str:
        """The first faults are kills during the first snapshot. Then one that takes a while to arrange."""
        fault = self._chance.choices(*zip(*((f, weight) for weight, f in self._faults), strict=True))[0]
        if self.kills < 2:
            fault = self.kill_one
        elif self.stops < self.fewest_stops:
            fault = self.stop_before_call
        self.faults[fault.__name__] += 1
        with suppress(psycopg2.errors.DeadlockDetected):  # with the shop's own work
            fault()
        seen = f"{self.watch.checker.checked} prefixes, {self.watch.checker.torn} torn"
        return f", {seen}, {sum(proxy.cut for proxy in self.proxies)} cut calls, {fault.__name__}"

    def _settle(self, say: Callable[[str], None]) -> Result:
        """The copy has to reach the end, too."""
        self.weather.finish()
        self._workload.finish()
        while self._is_parked:
            self.park()
        touch(self.shop)
        self._execute(self.shop, "UPDATE customers SET name = name")  # each newest record has today's columns
        end = self._scalar(self.shop, "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint")
        result = super()._settle(say)
        self.watch.finish()
        checker = self.watch.checker
        say("the ERP agrees; waiting for the copy" if result.sound else "waiting for the copy")
        came = checker.reach(end, REACH_SECONDS)
        self.history.drop()
        # Changes of a parked table are not in Kafka: for it the copy's end is the proof.
        findings = tuple(one for one in result.verdict.findings if PARKED not in one.text)
        copy = tuple(map(str, checker.findings)) + (() if came else ("the copy does not come to the shop's end",))
        verdict = replace(result.verdict, findings=findings)
        seen = replace(result, prefixes=checker.checked, torn=checker.torn, copy=copy)
        return replace(seen, verdict=verdict, stops=self.stops)

    def freeze(self) -> None:
        """Freezes one of them."""
        with standing_still(self._chance.choice(self._programs)):
            time.sleep(self._chance.choice(self.freezes))

    def leave_one_down(self) -> None:
        """Stops or kills a sink, and the other one does all the work until it is started again."""
        sink = self._chance.choice(self.sinks)
        self._chance.choice((sink.kill, sink.stop))()
        time.sleep(self._chance.choice(self.freezes))
        sink.start()

    def stop_before_call(self) -> None:
        """Freezes a sink between intent and call. The other sink decides once the lease has ended; then the process and
        its call continue."""
        number = self._chance.randrange(self.copies)
        sink = self.sinks[number]
        with self.proxies[number].holding(lambda: self._intents(sink) > 0) as call:
            if call.reached.wait(REACH_CALL_SECONDS):
                with standing_still(sink):
                    deadline = time.monotonic() + DECIDE_SECONDS
                    while self._intents(sink) and time.monotonic() < deadline:
                        time.sleep(0.2)
                self.stops += time.monotonic() < deadline

    def _intents(self, sink: Program) -> int:
        """This process's intents, about which nobody else may decide."""
        ledger = f"ordertap_{self.prefix}"
        units = f"SELECT unit FROM {ledger}.unit WHERE owner LIKE '%:{sink.pid}:%'"
        return self._documents(f"intent IS NOT NULL AND unit IN ({units})")

    def reset(self) -> None:
        """Sets offsets back with Kafka's own tool, to the beginning or by some."""
        self.reset_offsets(*self._chance.choice((("--to-earliest",), ("--shift-by", "-300"))))

    def reset_to_earliest(self) -> None:
        self.reset_offsets("--to-earliest")

    def reset_offsets(self, *to: str) -> None:
        """Stop, reset, start."""
        for sink in self.sinks:
            sink.stop()
        reset_offsets(self._kafka, f"ordertap-{self.prefix}", *to)
        for sink in self.sinks:
            sink.start()

    def snapshot(self) -> None:
        """Has some table read again while everything runs."""
        self._signal(self._chance.choice(("public.orders", "public.order_lines", *_COPIED)))

    def change_schema(self) -> None:
        """Changes the schema of a sample table; `workload` does that to its own."""
        name = f"more_{sum(self.faults.values())}"
        statement = self._chance.choice(
            (
                f"ALTER TABLE customers ADD COLUMN {name} text NOT NULL DEFAULT 'made later'",
                f"ALTER TABLE customers ADD COLUMN {name} int",
                "ALTER TABLE order_lines ALTER COLUMN quantity TYPE bigint",
                "ALTER TABLE returns REPLICA IDENTITY FULL",
            )
        )
        done = False
        while not done:
            with (
                suppress(psycopg2.errors.LockNotAvailable),
                closing(psycopg2.connect(self.shop, options=LETS_GO)) as one,
            ):
                one.autocommit = True
                one.cursor().execute(statement)
                done = True

    def commit_large(self) -> None:
        """Inserts many rows in one commit; the next time deletes them."""
        rows = f"INSERT INTO parts SELECT -1000000 - n, 1, n FROM generate_series(1, {LARGE}) n"
        there = self._scalar(self.shop, "SELECT count(*) FROM parts WHERE item < -1000000 AND number = 1")
        self._execute(self.shop, "DELETE FROM parts WHERE item < -1000000 AND number = 1" if there else rows)

    def truncate(self) -> None:
        """Truncates a table."""
        self._execute(self.shop, f"TRUNCATE {self._chance.choice(('parts', 'notes'))}")

    def park(self) -> None:
        """Writes a row that is too large for Kafka, which parks its table. The next time deletes it and has the table
        read again."""
        if not self._is_parked:
            self._execute(self.shop, f"INSERT INTO memos VALUES (-1, repeat('x', {_TOO_LARGE}))")
            self._is_parked = True
        else:
            self._execute(self.shop, "DELETE FROM memos WHERE id < 0")
            self._is_parked = not self._signal(PARKED)
        self._execute(self.shop, "UPDATE memos SET memo = memo || 'a'; DELETE FROM memos WHERE length(memo) > 90")

    def _signal(self, table: str) -> bool:
        """False while capture has no slot yet: it then reads all tables by itself."""
        return run("capture", "signal", "snapshot", table, config=self.config).returncode == 0


def _write_profile(folder: Path) -> list[str]:
    """The sample's with more tables; all that are copied."""
    shutil.copytree(ROOT / "sink/profiles/sample", folder)
    content = yaml.safe_load((folder / "profile.yaml").read_text())
    content["tables"] |= dict.fromkeys(_COPIED)
    (folder / "profile.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return list(content["tables"])
