"""A shop, two workers on one middle layer, and an ERP, with time that passes without waiting."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final

import pytest

import sink.database
from sink.apply.rules import Rules
from sink.apply.worker import Worker
from sink.database import Connection, connect, transaction
from sink.documents.profile import Profile
from sink.erp.contract import RetryError
from sink.erp.kinds import BY_HAND, ErpRecord, ErpRef, Fields, Milestone
from sink.planning.policy import Policy
from tests.stateful.erp import SETTLES, Desk, Paper
from tests.stateful.shop import Shop
from tests.stateful.target import DeskClerk
from tests.stateful.unruly import UnrulyErp, Weather

LEASE: Final = 60.0
RULES: Final = Rules(
    "shop", Policy("shop"), apply=True, settle_seconds=0, recheck_seconds=60, lease_seconds=LEASE, batch=3
)
SHARED: Final = ErpRef("customer", f"{BY_HAND}web")
LONG: Final = LEASE + SETTLES + 1
_ROUNDS: Final = 40


class KilledError(BaseException):
    """The process dies here: nothing of ours may catch this."""


@dataclass
class Fate:
    """What happens to a worker at one of its next moments: before, in and after each of its transactions and calls.

    In a transaction it can die but not freeze, because its locks would block the others.
    """

    left: int = 0
    dies: bool = True
    meanwhile: Callable[[], None] = lambda: None

    def moment(self, connection: Connection, inside: bool = False) -> None:
        if not self.left or (inside and not self.dies):
            return
        self.left -= 1
        if self.left:
            return
        if self.dies:
            connection.close()
            raise KilledError
        self.meanwhile()


_FATES: dict[int, tuple[Connection, Fate]] = {}


@contextmanager
def _watched(connection: Connection, isolation: str = "READ COMMITTED") -> Iterator[Any]:
    found = _FATES.get(id(connection))
    fate = found[1] if found else Fate()
    fate.moment(connection)
    with transaction(connection, isolation) as cursor:
        yield cursor
        fate.moment(connection, inside=True)
    fate.moment(connection)


def watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes all transactions of workers call their moments."""
    for name, module in [*sys.modules.items()]:
        if name.startswith("sink.apply") and hasattr(module, "transaction"):
            monkeypatch.setattr(module, "transaction", _watched)
    monkeypatch.setattr(sink.database, "transaction", _watched)


class Process:
    """A sink with one worker."""

    def __init__(self, world: World, number: int) -> None:
        self.connection = connect(world.url, "ordertap_shop")
        self.fate = Fate()
        _FATES[id(self.connection)] = (self.connection, self.fate)
        erp = UnrulyErp(world.desk, world.weather, lambda _: self.fate.moment(self.connection))
        self.worker = Worker(self.connection, world.profile, erp, world.rules, f"w{number}")
        self.busy = False

    def close(self) -> None:
        del _FATES[id(self.connection)]
        self.connection.close()


@dataclass
class World:
    """`url`: an empty middle layer."""

    url: str
    profile: Profile
    desk: Desk = field(default_factory=Desk)
    weather: Weather = field(default_factory=Weather)
    rules: Rules = RULES

    def __post_init__(self) -> None:
        self.connection = connect(self.url, "ordertap_shop")
        self.shop = Shop(self.connection)
        self.clerk = DeskClerk(self.desk)
        self._names = 0
        self.processes = [self._new(), self._new()]

    def _new(self) -> Process:
        self._names += 1
        return Process(self, self._names)

    def shares_an_account(self) -> None:
        """All buyers share one account from the start, which the ERP already has."""
        fields: Fields = {"number": "WEB", "name": "Web shop"}
        self.desk.papers[SHARED] = Paper(ErpRecord("customer", fields), Milestone.CONFIRMED, self.desk.next_serial())
        self.rules = replace(RULES, customers="collective", collective_account="WEB")
        for process in self.processes:
            process.close()
        self.processes = [self._new(), self._new()]

    def close(self) -> None:
        for process in self.processes:
            process.close()
        self.connection.close()

    def works(self, number: int, steps: int = 1) -> bool:
        """A worker does so many steps unless it is frozen. Returns whether there was something to do."""
        process = self.processes[number]
        if process.busy:
            return False
        outages, process.busy, did = self.weather.outages, True, False
        try:
            for _ in range(steps):
                if not process.worker.step():
                    break
                did = True
        except KilledError:
            process.close()
            self.processes[number] = self._new()
        except RetryError:
            assert self.weather.outages > outages, "it takes one document's trouble for everybody's"
        finally:
            process.busy = False
        return did

    def passes(self, seconds: float) -> None:
        """Lets time pass for the middle layer and the ERP."""
        self.desk.ahead += timedelta(seconds=seconds)
        with transaction(self.connection) as cursor:
            for table, columns in (("unit", ("deadline", "due_at")), ("document", ("next_try", "marked_at"))):
                changes = ", ".join(f"{name} = {name} - make_interval(secs => {seconds})" for name in columns)
                cursor.execute(f"UPDATE {table} SET {changes}")

    def rests(self) -> None:
        """Ends the ERP's faults, and lets the sink finish what it can do by itself."""
        self.weather.clears()
        for process in self.processes:
            process.fate.left = 0
        for _ in range(_ROUNDS):
            self.passes(400.0)
            busy = [self.works(number, 30) for number in (0, 1)]
            if not any(busy) or not self.unrest():
                return
        raise AssertionError(f"it never comes to rest: {self.unrest()}")

    def unrest(self) -> list[tuple[Any, ...]]:
        """Documents that the sink still has work for."""
        with transaction(self.connection) as cursor:
            cursor.execute(
                "SELECT type, key, state, reason FROM document WHERE intent IS NOT NULL OR seen < marked"
                " OR state IN ('due', 'settling', 'retry', 'planned') ORDER BY type, key"
            )
            return cursor.fetchall()
