"""Health and lag, with a clock that the test sets."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from prometheus_client import REGISTRY

from capture import metrics as module
from capture.metrics import FAILS_AGAIN, Metrics, waiting


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Both clocks show `now`, in seconds."""
    fake = SimpleNamespace(now=1000.0)
    fake.monotonic = fake.time = lambda: fake.now
    monkeypatch.setattr(module, "time", fake)
    return fake


@pytest.fixture
def streaming(clock: SimpleNamespace) -> Metrics:
    """Metrics of a stream that has read one heartbeat."""
    made = Metrics(5.0)
    made.state = "streaming"
    made.restarted()
    beat(made, 1)
    made.durable(object(), 1)
    return made


def beat(metrics: Metrics, number: int) -> None:
    metrics.heartbeat_sent(number)
    metrics.heartbeat_back(number)


def test_a_loop_that_stands_still_is_dead_unless_it_waits_for_somebody(
    streaming: Metrics, clock: SimpleNamespace
) -> None:
    streaming.turned()
    clock.now += 59
    assert streaming.live()[0]
    clock.now += 2
    assert not streaming.live()[0]
    with waiting("PostgreSQL (connecting)"):
        clock.now += 500
        assert streaming.live() == (True, "waiting for PostgreSQL (connecting) for 500 s")
    assert not streaming.live()[0]


def test_ready_says_which_side_stands(streaming: Metrics, clock: SimpleNamespace) -> None:
    assert streaming.ready() == (True, "streaming, 0.0 s behind")
    streaming.heartbeat_sent(2)
    clock.now += 30
    assert streaming.ready() == (False, "no heartbeat has come through PostgreSQL's log for 30 s")
    streaming.heartbeat_back(2)
    assert streaming.ready() == (False, "Kafka has accepted nothing for 30 s")
    streaming.durable(object(), 2)
    assert streaming.ready()[0]


def test_catching_up_is_ready_and_says_how_far_behind(streaming: Metrics, clock: SimpleNamespace) -> None:
    streaming.heartbeat_sent(2)
    streaming.source_time(int((clock.now - 3600) * 1e6))
    streaming.turned()
    clock.now += 60
    streaming.durable(object(), 1)  # changes are written, but the heartbeat lies behind them
    assert streaming.ready() == (True, "streaming, 3600.0 s behind")
    beat(streaming, 3)
    streaming.durable(object(), 3)
    assert streaming.lag_seconds() == 0.0


def test_parked_tables_leadership_and_what_is_left_on_demand_are_metrics_and_words(streaming: Metrics) -> None:
    def value(name: str) -> float | None:
        return REGISTRY.get_sample_value(f"ordertap_capture_{name}")

    names = ("leading", "parked_tables", "on_demand_remaining_tables")
    streaming.on_demand = 3
    assert [value(name) for name in names] == [0, 0, 0]  # the leader says it
    streaming.leading = True
    assert streaming.ready() == (True, "streaming, 0.0 s behind; a snapshot on demand has 3 tables left")
    streaming.parked = ("public.a", "public.b")
    assert [value(name) for name in names] == [1, 2, 3]
    assert streaming.ready()[1].startswith("parked, not written: public.a, public.b;")


def heartbeat_age() -> float | None:
    return REGISTRY.get_sample_value("ordertap_capture_heartbeat_age_seconds")


def test_the_age_of_the_heartbeat_rises_from_the_start_through_starts_that_fail(clock: SimpleNamespace) -> None:
    made = Metrics(5.0)
    made.leads(True)
    clock.now += 40
    made.start_failed("the slot is in use", "stop the other reader")
    made.stands("streaming")
    made.restarted()
    clock.now += 40
    assert heartbeat_age() == 80
    beat(made, 1)
    made.durable(object(), 1)
    assert heartbeat_age() == 0


def test_a_standby_and_a_snapshot_have_no_heartbeat_to_wait_for(clock: SimpleNamespace) -> None:
    made = Metrics(5.0)
    made.stands("standby")
    clock.now += 5000
    made.stands("standby")
    assert heartbeat_age() == 0
    made.stands("starting")
    clock.now += 7
    assert heartbeat_age() == 7
    made.stands("snapshot")
    clock.now += 5000
    assert heartbeat_age() == 0
    with waiting("PostgreSQL (making the slot)"):
        clock.now += 90
        assert heartbeat_age() == 90
        assert not made.ready()[0]
    made.stands("streaming")
    made.restarted()
    assert heartbeat_age() == 0
    clock.now += 90
    assert heartbeat_age() == 90


def test_a_snapshot_that_fails_is_no_news_of_a_heartbeat(clock: SimpleNamespace) -> None:
    made = Metrics(5.0)
    for _ in range(3):
        made.stands("snapshot")
        clock.now += 50
        made.start_failed("Kafka is away", "wait")
        assert heartbeat_age() == clock.now - 1000


def test_what_is_under_way_is_the_lag(streaming: Metrics, clock: SimpleNamespace) -> None:
    streaming.heartbeat_sent(2)
    clock.now += 7
    assert streaming.lag_seconds() == 7.0
    streaming.restarted()
    assert streaming.lag_seconds() == 0.0


def test_a_start_that_fails_three_times_the_same_way_says_so_until_something_gets_through(streaming: Metrics) -> None:
    reasons = [f"reading slot a from 0/1A{number}F (process {number})" for number in range(3)]
    assert [streaming.start_failed(reason, "fix it") for reason in reasons] == [False, False, True]
    assert streaming.state.startswith("starting again: ")  # or SIGTERM would not be heard
    assert streaming.ready() == (False, streaming.state)
    assert "the same start has failed 3 times; next: fix it" in streaming.state
    assert not streaming.start_failed("Kafka is away", "wait")
    assert not streaming.start_failed("Kafka is away", "wait")
    beat(streaming, 2)
    streaming.durable(object(), 2)
    assert not streaming.start_failed("Kafka is away", "wait")
    assert "failed" not in streaming.state


def test_a_parked_table_hides_neither_starts_that_fail_nor_a_stream_that_stands(
    streaming: Metrics, clock: SimpleNamespace
) -> None:
    streaming.parks(("public.a",))
    streaming.heartbeat_sent(2)
    clock.now += 30
    assert streaming.ready() == (False, "no heartbeat has come through PostgreSQL's log for 30 s")
    for _ in range(3):
        streaming.start_failed("the slot is in use", "stop the other reader")
    ready, said = streaming.ready()
    assert not ready
    assert FAILS_AGAIN in said


@pytest.mark.parametrize(("state", "ready"), [("standby", True), ("snapshot", True), ("starting again: no", False)])
def test_states_without_a_stream(streaming: Metrics, state: str, ready: bool) -> None:
    streaming.state = state
    assert streaming.ready() == (ready, state)


def test_a_snapshot_that_waits_for_somebody_is_not_ready(streaming: Metrics, clock: SimpleNamespace) -> None:
    streaming.state = "snapshot"
    with waiting("PostgreSQL (making the slot)"):
        clock.now += 30
        assert streaming.ready() == (True, "snapshot")
        clock.now += 60
        assert streaming.ready() == (False, "snapshot; waiting for PostgreSQL (making the slot)")
    assert streaming.ready()[0]
