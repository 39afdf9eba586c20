"""`./tests/soak --histories`: the lives of many orders, through capture, Kafka and sink into an ERP, under faults.

A history is the life of one order: bought, paid, edited, discounted, sent back in parts, refunded, cancelled, deleted,
its buyer merged with another, while prices go up and back. In a third of them a clerk edits, delivers, invoices or
credits in the ERP. Some dozens run side by side. Meanwhile capture and two sinks are killed, answers of the ERP to
calls that it did are lost, and offsets are set back to the earliest. At the end, what is held is tried again once. Then
shop and ERP are compared, document by document, by code that shares nothing with the sink.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final

from deploy.embedded import Kafka, Postgres
from deploy.shop.simulator import prepare
from tests.faults import histories_read
from tests.faults.day import PUBLICATION, position
from tests.faults.histories_clerk import HistoriesClerk
from tests.faults.histories_erp import HistoriesErp
from tests.faults.histories_plan import Act, Book, History, histories
from tests.faults.histories_proof import Sides, by_clerk, compare, compare_sums, pairs, touched
from tests.faults.histories_shop import HistoriesShop
from tests.offsets import reset_offsets
from tests.programs import Program, run, write_settings
from tests.proof.rules import Finding

AT_A_TIME: Final = 40
STUCK_SECONDS: Final = 240.0  # without any progress
COPIES: Final = 2  # of the sink
_CALM: Final = 3.0  # how long nothing may be due at the end
_NOT_AT_REST: Final = """
SELECT (SELECT count(*) FROM {0}.document
         WHERE seen < marked OR intent IS NOT NULL OR state IN ('due', 'retry', 'settling'))
     + (SELECT count(*) FROM {0}.unit WHERE deadline IS NOT NULL)
"""


@dataclass(frozen=True, slots=True)
class Played:
    """What a run came to."""

    erp: str
    count: int
    kills: int
    lost_replies: int
    resets: int
    held: int
    same: int  # documents of the shop that must equal the ERP's
    sums: int  # of a party at a rate, compared with the ERP's own
    moved: int  # orders of which a clerk delivered or invoiced goods, compared with each other
    findings: tuple[Finding, ...]
    difference: Decimal

    def __str__(self) -> str:
        lost, double = (sum(one.kind == kind for one in self.findings) for kind in ("lost", "double"))
        faults = f"{self.kills} kills, {self.lost_replies} lost replies"
        wrong = f"{lost} lost, {double} double, difference {self.difference:.2f}"
        return f"histories: {self.count} on {self.erp}, {faults}, {wrong}"


class Histories:
    """One run. `prefix` keeps its topics, databases and documents apart from others'."""

    def __init__(self, folder: Path, server: Postgres, kafka: Kafka, prefix: str, seed: int, erp: HistoriesErp) -> None:
        self.book = Book()
        self.kills = self.resets = 0
        self._chance = random.Random(f"{seed}/faults")
        self._server, self._kafka, self._prefix, self._seed, self._erp = server, kafka, prefix, seed, erp
        self._shop, self._middle = (server.create_database(f"{prefix}_{name}") for name in ("shop", "middle"))
        prepare(self._shop, lambda _: None)
        server.psql(f"CREATE PUBLICATION {PUBLICATION} FOR ALL TABLES", f"{prefix}_shop")
        self._common = {
            "topic_prefix": prefix,
            "bootstrap_servers": kafka.bootstrap_servers,
            "schema_registry_url": (folder / "registry").as_uri(),
            "health_port": 0,
        }
        self._proxies = [erp.proxy() for _ in range(COPIES)]
        self.capture = Program(
            "capture", write_settings(folder / "capture.yaml", capture=self._capture()), folder / "capture.log"
        )
        self.sinks = [self._sink(folder, number) for number in range(COPIES)]
        self._logged = dict.fromkeys(self.sinks, 0)

    def _capture(self) -> dict[str, object]:
        return self._common | {
            "name": self._prefix,
            "database_hostname": "127.0.0.1",
            "database_port": self._server.port,
            "database_user": "postgres",
            "database_dbname": f"{self._prefix}_shop",
            "slot_name": self._prefix,
            "publication_name": PUBLICATION,
            "heartbeat_interval_ms": 500,
            "topic_creation_default_partitions": 3,
        }

    def _sink(self, folder: Path, number: int) -> Program:
        settings = self._common | {
            "shop": self._prefix,
            "profile": "sample",
            "database_url": self._middle,
            "mode": "apply",
            "prices_owner": "shop",
            "settle_seconds": 2,
            "recheck_seconds": 2,
            "brake_orders": 1_000_000,  # months of a shop pass in minutes here
            "brake_prices": 1_000_000,
        }
        config = write_settings(
            folder / f"sink-{number}.yaml", sink=settings | self._erp.settings(self._proxies[number])
        )
        return Program("sink", config, folder / f"sink-{number}.log")

    def play(self, name: str, count: int, say: Callable[[str], None] = lambda _: None) -> Played:
        """Plays all histories to their end, and compares. name: the ERP's, for the last line."""
        programs = (self.capture, *self.sinks)
        with ExitStack() as stack:
            for proxy in self._proxies:
                stack.callback(proxy.close)
            for program in programs:
                program.start()
                stack.callback(program.stop, 10)
            self._live(histories(self._seed, count), stack, say)
            for proxy in self._proxies:
                proxy.calm()
            self._settle(say)
            say("comparing")
            return self._compared(name, count)

    def _live(self, every: list[History], stack: ExitStack, say: Callable[[str], None]) -> None:
        """Plays one act after the other, each of a randomly chosen living history. Faults come by the clock."""
        shop, clerk = HistoriesShop(self._shop, self._seed, self.book), self._erp.clerk(self.book)
        stack.callback(shop.close)
        stack.callback(clerk.close)
        waiting, living, chance = every[::-1], list[History](), random.Random(f"{self._seed}/order")
        faults, went, told = _Faults(self, len(every)), time.monotonic(), 0.0
        while waiting or living:
            while waiting and len(living) < AT_A_TIME:
                living.append(waiting.pop())
            one = chance.choice(living)
            if self._acts(one, one.left[0], shop, clerk):
                went = time.monotonic()
                one.left.pop(0)
            elif all(other.left[0].who == "clerk" for other in living):
                time.sleep(0.1)
            if not one.left:
                living.remove(one)
            ended = len(every) - len(waiting) - len(living)
            faults.come(ended)
            if time.monotonic() > told + 2:
                told = time.monotonic()
                say(f"{ended} of {len(every)} histories, {self.kills} kills, {self.lost_replies} lost replies")
            if time.monotonic() > went + STUCK_SECONDS:
                raise RuntimeError(f"the clerk waits for orders that do not come:\n{self._tails()}")
        faults.at_least()

    def _acts(self, history: History, act: Act, shop: HistoriesShop, clerk: HistoriesClerk) -> bool:
        """Whether the act is done. A clerk's act waits for its order. A cancelled one may never come, and one whose
        buyer was merged meanwhile may be held as a draft."""
        if act.who == "shop":
            shop.does(act.name, history)
            return True
        assert history.order is not None
        may_not_come = not {"cancel", "merge"}.isdisjoint(self.book.done[history.order])
        return clerk.does(act.name, history.order) or may_not_come

    @property
    def lease(self) -> float:
        """Seconds for which the work of a killed sink, or a document of a lost call, has to wait. If kills and losses
        came much faster, nothing would move."""
        return self._erp.lease

    @property
    def lost_replies(self) -> int:
        """How many calls the ERP did without any sink hearing the answer."""
        return sum(proxy.lost for proxy in self._proxies)

    def kill(self, *others: Program) -> None:
        """kill -9 of capture or a sink (or of one of `others`), and a start at once."""
        victim = self._chance.choice(others or (self.capture, *self.sinks))
        victim.kill()
        self._logged = {sink: sink.log.stat().st_size for sink in self.sinks}
        self.kills += 1
        victim.start()

    def went_through(self) -> bool:
        """Whether anything has reached the ERP since the last kill. Killing a sink before it works proves little, and
        doing so again and again keeps it from ever working."""
        return any(b"done in the ERP" in _since(sink.log, start) for sink, start in self._logged.items())

    def lose_answer(self) -> None:
        """Loses the answer to one of the next calls that write."""
        self._chance.choice(self._proxies).lose_answer()

    def reset(self) -> None:
        """Sets all offsets back to the beginning, with Kafka's own tool."""
        for sink in self.sinks:
            sink.stop()
        reset_offsets(self._kafka, f"ordertap-{self._prefix}", "--to-earliest")
        self.resets += 1
        for sink in self.sinks:
            sink.start()

    def check_alive(self) -> None:
        """RuntimeError if a program has ended by itself."""
        for program in (self.capture, *self.sinks):
            if program.ended() is not None:
                raise RuntimeError(f"{program.name} ended by itself:\n{program.tail(40)}")

    def _settle(self, say: Callable[[str], None]) -> None:
        """Waits until everything is in Kafka and nothing is due. Then tries again what is held, once, as people do."""
        ((target,),) = histories_read.rows(self._shop, "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint")
        self._until(lambda: position(self._kafka.bootstrap_servers, self._prefix) >= target, "capture has not all", say)
        self._until(self._is_at_rest, "the sink does not come to rest", say)
        done = run("sink", "retry", "--all", config=self.sinks[0].config)
        if done.returncode:
            raise RuntimeError(f"sink retry failed:\n{done.stdout}{done.stderr}")
        self._until(self._is_at_rest, "the sink does not come to rest", say)

    def _is_at_rest(self) -> bool:
        """Whether nothing is due, now and a while later."""
        if self._due():
            return False
        time.sleep(_CALM)
        return not self._due()

    def _due(self) -> int:
        ((count,),) = histories_read.rows(self._middle, _NOT_AT_REST.format(f"ordertap_{self._prefix}"))
        return int(count)

    def _until(self, met: Callable[[], bool], what: str, say: Callable[[str], None]) -> None:
        went, due = time.monotonic(), -1
        while not met():
            self.check_alive()
            if (now := self._due()) != due:
                went, due = time.monotonic(), now
            if time.monotonic() > went + STUCK_SECONDS:
                raise RuntimeError(f"{what}: {due} documents\n{self._tails()}")
            say(f"waiting until all is in the ERP: {due} documents are due")
            time.sleep(1)

    def _compared(self, name: str, count: int) -> Played:
        ledger = f"ordertap_{self._prefix}"
        sides = Sides(
            histories_read.of_shop(self._shop),
            self._erp.documents(),
            histories_read.held(self._middle, ledger),
            histories_read.made(self._middle, ledger),
        )
        found, difference = compare(sides, self.book)
        amounts, moved = 0, 0
        if (sums := self._erp.sums()) is not None:
            amounts, moved = len(pairs(sides, sums, self.book)), by_clerk(sums)
            for finding, money in compare_sums(sides, sums, self.book):
                found.append(finding)
                difference += abs(money)
        same = sum(not (doc.key in sides.held or touched(doc.order, sides, self.book)) for doc in sides.shop)
        return Played(
            name, count, self.kills, self.lost_replies, self.resets, len(sides.held), same, amounts, moved,
            tuple(found), difference,
        )  # fmt: skip

    def _tails(self) -> str:
        return "\n".join(f"{program.log.name}:\n{program.tail(20)}" for program in (self.capture, *self.sinks))


def _since(log: Path, start: int) -> bytes:
    with log.open("rb") as file:
        file.seek(start)
        return file.read()


class _Faults:
    """Faults by the clock, while histories go on. Offsets are set back half way, in a long run at each quarter."""

    def __init__(self, run_: Histories, histories_: int) -> None:
        self._run = run_
        self._chance = random.Random(f"{run_._seed}/times")
        parts = 4 if histories_ >= 400 else 2
        self._resets = [histories_ * part // parts for part in range(1, parts)]
        self._kill = time.monotonic() + 3  # within the first snapshot
        self._lose = time.monotonic()

    def come(self, ended: int) -> None:
        """Makes the faults that are due after this many ended histories."""
        now = time.monotonic()
        if self._kill <= now and (not self._run.kills or self._run.went_through()):
            self._run.check_alive()
            self._run.kill(*([] if self._run.kills else [self._run.capture]))
            self._kill = now + self._chance.uniform(0.4, 1.6) * self._run.lease
        if self._lose <= now:
            self._run.lose_answer()
            self._lose = now + self._chance.uniform(0.6, 1.8) * self._run.lease
        if self._resets and ended >= self._resets[0]:
            self._resets.pop(0)
            self._run.reset()

    def at_least(self) -> None:
        """Gives a short run one of each fault, too."""
        if self._resets:
            self._run.reset()
        self._run.kill(*self._run.sinks)
