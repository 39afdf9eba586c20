"""`sink run` as threads: one staging loop, and workers that apply."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import structlog

from schemas.model.errors import UnavailableError
from schemas.process.command_line import own_version
from sink.apply.circuit import Circuit, Turn
from sink.apply.worker import Worker
from sink.database import Connection, transaction
from sink.erp.contract import RetryError, StopError
from sink.intake.consumer import ShopConsumer
from sink.ledger import listed
from sink.ledger.control import Control
from sink.metrics import APPLYING, BRAKED, COPY_AGE, GAP_TABLES, HELD, LEADING, PAUSED
from sink.planning.brake import MASSES
from sink.staging import gaps, leadership
from sink.staging.stager import LookUp, Stager

log = structlog.get_logger()

_IDLE = 0.02  # seconds; asking takes 0.1 ms
_STANDS_BY = 1.0
_COUNTS_EVERY = 15.0  # seconds; Prometheus asks about as often
_REMEMBERED = 5.0  # seconds; a reason that keeps a process from staging may come and go


def count_waiting(connection: Connection) -> None:
    """Counts what waits and the tables with a gap, for Prometheus. Cheap: neither reads what is done."""
    with transaction(connection) as cursor:
        waiting = listed.waiting(cursor)
        tables = {gap.table for gap in gaps.table_gaps(cursor)}
    for cause in listed.CAUSES:
        HELD.labels(cause).set(waiting.get(cause, 0))
    GAP_TABLES.set(len(tables))


@dataclass
class Parts:
    """The parts of a running sink, made by `wiring`."""

    connect: Callable[[], Connection]
    consumer: Callable[[LookUp], ShopConsumer]
    stager: Stager
    worker: Callable[[Connection, int], Worker]
    indexes: Callable[[threading.Event], None]
    workers: int
    applies: bool
    count: Callable[[Connection], None] = count_waiting


class Sink:
    """A running sink. `run` ends when `stop` is set, or with the first error that waiting does not cure."""

    def __init__(
        self,
        parts: Parts,
        stop: threading.Event,
        circuit: Circuit | None = None,
        reread: threading.Event | None = None,
    ) -> None:
        self._parts = parts
        self._stop = stop
        self._reread = reread or threading.Event()
        self._circuit = circuit or Circuit()
        self._control = Control()
        APPLYING.set_function(lambda: self._circuit.closed and self._control.paused is None)
        self._failure: BaseException | None = None
        self._turned = time.monotonic()
        self._blocked = "it starts"
        self._blocked_at = -_REMEMBERED
        self._leads = False

    def live(self) -> tuple[bool, str]:
        """Liveness: whether the loop turns, whatever Kafka, database and ERP do."""
        age = time.monotonic() - self._turned
        return age < 120, f"the loop turned {age:.0f} s ago"

    def ready(self) -> tuple[bool, str]:
        """Readiness: whether this process does its part, and which, or what keeps it from it. A standby is ready.

        How far the copy is and what is held is not part of this: see `sink status`.
        """
        if reason := self._blocked or self._circuit.stopped or self._circuit.reason:
            return False, reason
        return True, f"{'staging' if self._leads else 'standing by to stage'} and {self._applying()}"

    def _applying(self) -> str:
        """What applying does. A pause or the brake is no failure."""
        control = self._control
        if control.paused:
            return f"paused {control.paused}"
        applying = "applying" if self._parts.applies or control.live else "planning (mode is plan, nothing is sent)"
        return "; ".join((applying, *control.stopped.values()))

    def run(self) -> None:
        """Stages in this thread, applies in others."""
        mode = "apply" if self._parts.applies else "plan"
        log.info("starting", version=own_version(), mode=mode, workers=self._parts.workers)
        threads = [
            threading.Thread(target=self._guard, args=(number,), name=f"apply-{number}")
            for number in range(self._parts.workers)
        ]
        for thread in threads:
            thread.start()
        # A daemon thread: at the end it may be building a large index, which the server finishes or the next start
        # builds again.
        threading.Thread(target=self._parts.indexes, args=(self._stop,), name="indexes", daemon=True).start()
        try:
            while not self._stop.is_set():
                self._turned = time.monotonic()
                try:
                    self._stage()
                except UnavailableError as error:
                    self._turn(error.message)
                    log.warning("staging waits", reason=error.message)
                    self._stop.wait(2.0)
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
        if self._failure is not None:
            raise self._failure

    def _stage(self) -> None:
        """Stands by until this process leads, then stages."""
        with closing(self._parts.connect()) as connection:
            while not leadership.lead(connection):
                COPY_AGE.stands_by()
                self._turn("")
                if self._stop.wait(_STANDS_BY):
                    return
            log.info("this process stages")
            LEADING.set(1)
            self._leads = True
            try:
                self._parts.stager.run(connection, self._parts.consumer, self._stop.is_set, self._turn)
            finally:
                LEADING.set(0)
                self._leads = False

    def _turn(self, blocked: str) -> None:
        """Notes that the loop has turned. `blocked`: what keeps it from staging, "" for nothing."""
        self._turned = time.monotonic()
        if self._reread.is_set():
            self._reread.clear()
            log.warning(
                "settings are read at the start only", next="restart the sink: SIGTERM ends it between two calls"
            )
        if blocked:
            self._blocked, self._blocked_at = blocked, self._turned
        elif self._turned - self._blocked_at > _REMEMBERED:
            self._blocked = ""

    def _note(self, control: Control) -> None:
        """Notes pause, go-live and the brake."""
        self._control = control
        PAUSED.set(control.paused is not None)
        for kind in MASSES:
            BRAKED.labels(kind).set(kind in control.stopped)

    def _guard(self, number: int) -> None:
        """A thread's error ends the process; the main thread reports it."""
        try:
            while not self._stop.is_set():
                try:
                    self._work(number)
                except UnavailableError as error:
                    log.warning("applying waits", reason=error.message)
                    self._stop.wait(2.0)
        except BaseException as error:  # noqa: BLE001  raised again by run()
            self._failure = error
            self._stop.set()

    def _work(self, number: int) -> None:
        with closing(self._parts.connect()) as connection:
            worker = self._parts.worker(connection, number)
            counts_at = time.monotonic() if number == 0 else float("inf")  # one thread is enough
            while not self._stop.is_set():
                if time.monotonic() >= counts_at:
                    self._parts.count(connection)
                    counts_at = time.monotonic() + _COUNTS_EVERY
                if not self._act(worker):
                    self._stop.wait(_IDLE)

    def _act(self, worker: Worker) -> bool:
        """Does one step. Returns whether there may be more to do."""
        turn = self._circuit.turn()
        if turn is Turn.REST:
            return False
        try:
            if turn is Turn.WORK:
                found = worker.step()
                self._note(worker.control)
                return found
            worker.check()
        except RetryError as error:
            self._circuit.failed(error)
            log.warning("the ERP cannot be used now", reason=error.message, next=error.hint)
            return False
        except StopError as error:
            self._circuit.stop(error)
            log.warning("applying stops, staging continues", reason=error.message, next=error.hint)
            return False
        self._circuit.recovered()
        log.info("the ERP can be used again")
        return True
