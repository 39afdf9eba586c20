"""What ends `capture run`, and what it starts again after: with sessions that end as a test wants them to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from capture import pipeline
from capture.kafka.errors import FencedError
from capture.metrics import Metrics
from capture.pipeline import Capture
from capture.plan import Plan, plan_of
from capture.postgres.replication import SlotInUseError
from capture.session import Lifetime
from capture.settings import Settings
from capture.snapshot.initial import StoppedError
from schemas.model.errors import OrdertapError, SettingsError, UnavailableError

SETTINGS = {"topic_prefix": "shop", "database_dbname": "shop", "bootstrap_servers": "127.0.0.1:1"}


class Play:
    """Sessions that end with these errors in turn; None ends without one. After the last, capture is told to stop."""

    def __init__(self, started: bool, *ends: Exception | None) -> None:
        self.started = started
        self.ends = list(ends)
        self.sleeps: list[float] = []
        self.free = True
        self.held = True
        self.asked: list[str] = []
        self.waits: Callable[[Capture], object] = lambda _: None
        self.capture: Capture | None = None

    def stopping(self) -> bool:
        return not self.ends

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        assert self.capture is not None
        self.waits(self.capture)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return plan_of(Settings.model_validate({**SETTINGS, "schema_registry_url": (tmp_path / "registry").as_uri()}))


def run(play: Play, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    class Leadership:
        def __init__(self, server: Any, _slot: str) -> None:
            play.asked.append(server.host)

        def acquire(self) -> bool:
            return play.free

        def held(self) -> bool:
            return play.held

        def close(self) -> None: ...

    class Session:
        def __init__(self, _plan: Plan, _leadership: Leadership, lifetime: Lifetime, *_: Any) -> None:
            self.lifetime = lifetime

        def run(self) -> None:
            self.lifetime.started = self.lifetime.started or play.started
            if (error := play.ends.pop(0)) is not None:
                raise error

    monkeypatch.setattr(pipeline, "Leadership", Leadership)
    monkeypatch.setattr(pipeline, "Session", Session)
    play.capture = Capture(plan, Metrics(1.0), play.stopping, play.sleep)
    play.capture.run()


PASSING = (
    UnavailableError("Kafka is away", "wait"),
    FencedError("fenced", "wait"),
    SlotInUseError("the slot is in use", "wait"),
)


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
def test_what_passes_is_followed_by_another_start(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, error: OrdertapError
) -> None:
    play = Play(True, error, error, None)
    run(play, plan, monkeypatch)
    assert play.ends == []
    assert len(play.sleeps) == 2
    assert 0.5 <= play.sleeps[0] <= 1.5  # and a random second at the most, each time
    assert 1.0 <= play.sleeps[1] <= 2.0


def test_a_first_start_does_not_insist(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    error = UnavailableError("Kafka is away", "wait")
    with pytest.raises(UnavailableError, match="Kafka is away"):
        run(Play(False, error, None), plan, monkeypatch)


def test_a_first_start_waits_for_a_slot_that_a_dead_reader_still_has_but_not_for_ever(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = SlotInUseError("the slot is in use", "wait")
    play = Play(False, error, None)
    run(play, plan, monkeypatch)
    assert len(play.sleeps) == 1
    monkeypatch.setattr(pipeline, "_SLOT_PATIENCE", 0.0)
    with pytest.raises(SlotInUseError):
        run(Play(False, error, None), plan, monkeypatch)


@pytest.mark.parametrize("started", [False, True])
def test_what_does_not_pass_ends_it(plan: Plan, monkeypatch: pytest.MonkeyPatch, started: bool) -> None:
    with pytest.raises(SettingsError, match="the slot is gone"):
        run(Play(started, SettingsError("the slot is gone", "repair"), None), plan, monkeypatch)


def test_asked_to_stop_in_a_snapshot_it_ends(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    play = Play(True, StoppedError(), None)
    run(play, plan, monkeypatch)
    assert play.ends == [None]


def test_a_fence_by_ourselves_is_told_from_one_by_another_copy(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    play = Play(True, FencedError("epoch", "wait"), None)
    run(play, plan, monkeypatch)
    assert "the broker gave up our transaction" in capsys.readouterr().out
    play = Play(True, FencedError("epoch", "wait"), None)
    play.held = False
    run(play, plan, monkeypatch)
    assert "the broker gave up our transaction" not in capsys.readouterr().out


def test_a_standby_asks_the_server_that_a_reread_names(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    play = Play(True, None)
    play.free = False
    other = plan._replace(server=plan.server._replace(host="other"))

    def reread(capture: Capture) -> None:
        capture.reread(other)
        play.free = play.asked[-1] == "other"

    play.waits = reread
    run(play, plan, monkeypatch)
    assert play.asked == ["localhost", "other"]
    assert play.ends == []
