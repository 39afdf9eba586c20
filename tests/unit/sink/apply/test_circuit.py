"""The circuit breaker: when the ERP is left alone, who tries it again, and that an outage ends by itself."""

import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn, cast

import pytest

from schemas.model.errors import UnavailableError
from sink.apply.circuit import Circuit, Turn
from sink.erp.contract import RetryError, SlowDownError, StopError
from sink.ledger.control import Control
from sink.pipeline import Parts, Sink

STOP = StopError("the ERP has no table orders", "correct the mapping")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def circuit(clock: Clock) -> Circuit:
    return Circuit(clock)


def test_all_work_while_nothing_failed(circuit: Circuit) -> None:
    assert {circuit.turn() for _ in range(3)} == {Turn.WORK}


def test_after_a_rest_one_tries_and_the_others_wait(circuit: Circuit, clock: Clock) -> None:
    circuit.failed(RetryError("away"))
    assert circuit.turn() is Turn.REST
    clock.now += 0.5
    assert [circuit.turn() for _ in range(3)] == [Turn.TRY, Turn.REST, Turn.REST]
    circuit.recovered()
    assert circuit.turn() is Turn.WORK
    assert circuit.reason == ""


def test_rests_double_up_to_a_minute_and_start_anew(circuit: Circuit, clock: Clock) -> None:
    rests = []
    for _ in range(10):
        circuit.failed(RetryError("away"))
        began = clock.now
        while circuit.turn() is not Turn.TRY:
            clock.now += 0.5
        rests.append(clock.now - began)
    assert rests == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    circuit.recovered()
    circuit.failed(RetryError("away"))
    clock.now += 0.5
    assert circuit.turn() is Turn.TRY


def test_one_that_tries_and_dies_does_not_block_for_ever(circuit: Circuit, clock: Clock) -> None:
    circuit.failed(RetryError("away"))
    clock.now += 0.5
    assert circuit.turn() is Turn.TRY
    clock.now += 60
    assert circuit.turn() is Turn.TRY


def test_the_erp_says_how_long_to_rest(circuit: Circuit, clock: Clock) -> None:
    circuit.failed(SlowDownError("too fast", 7))
    clock.now += 6.9
    assert circuit.turn() is Turn.REST
    clock.now += 0.1
    assert circuit.turn() is Turn.TRY


def test_a_stop_says_what_to_fix_and_is_looked_at_every_minute(circuit: Circuit, clock: Clock) -> None:
    circuit.stop(STOP)
    assert "next: correct the mapping" in circuit.stopped
    clock.now += 59
    assert circuit.turn() is Turn.REST
    clock.now += 1
    assert circuit.turn() is Turn.TRY
    circuit.stop(STOP)
    assert circuit.turn() is Turn.REST
    clock.now += 60
    assert circuit.turn() is Turn.TRY
    circuit.recovered()
    assert (circuit.turn(), circuit.stopped) == (Turn.WORK, "")


class Erp:
    """The ERP as a worker finds it: an error, or nothing to do."""

    error: Exception | None = None
    checks = 0
    control = Control()

    def step(self) -> bool:
        if self.error:
            raise self.error
        return False

    def check(self) -> None:
        self.checks += 1
        if self.error:
            raise self.error


class Nothing:
    def close(self) -> None: ...

    def cursor(self) -> NoReturn:
        raise UnavailableError("no middle layer", "start it")


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("error", [RetryError("away"), STOP])
def test_a_running_sink_recovers_without_any_work_waiting(circuit: Circuit, clock: Clock, error: Exception) -> None:
    """One of two workers fails: a second failure that comes when the first is over would begin another rest."""
    erps, stop, nothing = (Erp(), Erp()), threading.Event(), cast(Any, Nothing())
    worker: Any = lambda connection, number: erps[number]  # noqa: E731
    parts = Parts(lambda: nothing, nothing, nothing, worker, lambda stop: None, 2, True, lambda connection: None)
    sink = Sink(parts, stop, circuit)
    thread = threading.Thread(target=sink.run)
    thread.start()
    try:
        erps[0].error = error
        _until(lambda: bool(circuit.reason or circuit.stopped))
        erps[0].error = None
        with circuit._lock:  # who says why has also looked at the clock
            clock.now += 60
        _until(lambda: not circuit.reason and not circuit.stopped)
        assert sum(erp.checks for erp in erps) == 1
    finally:
        stop.set()
        thread.join()
