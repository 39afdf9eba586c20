"""Every reason not to stream from a position, each with the repair; and the leads of the slot that are no loss."""

from typing import Any

import pytest

from capture.checks import NotOursError, check_position, check_timeline, repaired
from capture.position import Partial, Position
from capture.postgres.replication import Slot, System
from schemas.model.errors import SettingsError
from schemas.model.lsn import LSN

POSITION = Position(1, "42", 1, "tap", LSN(1000), LSN(990), "hash", stopped_lsn=LSN(1200))
SYSTEM = System("42", 1, LSN(5000))
SLOT = Slot("pgoutput", "shop", None, LSN(1200), "reserved", 10, None)


def check(position: Position = POSITION, system: System = SYSTEM, slot: Slot | None = SLOT) -> None:
    check_position(position, system, slot, "tap", "hash")


def test_streams_when_all_is_as_we_left_it() -> None:
    check()


def test_a_lead_of_the_slot_after_a_crash_is_no_loss() -> None:
    check(position=POSITION._replace(stopped_lsn=None), slot=SLOT._replace(confirmed_flush_lsn=LSN(4000)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"system": SYSTEM._replace(identifier="43")}, "another PostgreSQL cluster"),
        ({"system": SYSTEM._replace(lsn=LSN(999))}, "restored"),
        ({"slot": None}, "gone"),
        ({"slot": SLOT._replace(wal_status="lost")}, "invalidated"),
        ({"slot": SLOT._replace(confirmed_flush_lsn=LSN(1201))}, "moved"),
        ({"position": POSITION._replace(slot="before")}, "of slot before, but slot_name is tap"),
    ],
)
def test_stops_and_says_what_happened_and_how_to_repair(change: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says) as caught:
        check(**change)
    assert "capture repair --execute" in str(caught.value)


@pytest.mark.parametrize(
    ("reason", "setting"),
    [
        (None, "max_slot_wal_keep_size"),
        ("wal_removed", "max_slot_wal_keep_size"),
        ("idle_timeout", "idle_replication_slot_timeout"),
        ("wal_level_insufficient", "wal_level = logical"),
        ("rows_removed", "hot_standby_feedback"),
        ("of a later release", "the server's log"),
    ],
)
def test_a_lost_slot_names_the_setting_to_raise(reason: str | None, setting: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check(slot=SLOT._replace(wal_status="lost", invalidation_reason=reason))
    assert setting in caught.value.hint
    assert reason != "of a later release" or reason in caught.value.message


@pytest.mark.parametrize(("slot", "ours"), [(None, True), (SLOT, False)])
def test_a_slot_of_another_name_that_is_there_is_not_ours(slot: Slot | None, ours: bool) -> None:
    with pytest.raises(SettingsError) as caught:
        check(position=POSITION._replace(slot="before"), slot=slot)
    assert isinstance(caught.value, NotOursError) is not ours


def test_a_half_written_transaction_is_not_finished_with_other_settings() -> None:
    half = POSITION._replace(settings="other", partial=Partial(LSN(2000), 5, {}))
    with pytest.raises(SettingsError, match="other settings"):
        check(position=half)
    check(position=half._replace(partial=None))


HISTORY = "1\t0/7D0\tno recovery target specified\n\n2\t0/BB8\tbefore 2026\n"  # 2000, 3000


@pytest.mark.parametrize(("timeline", "end"), [(1, 2000), (2, 3000)])
def test_follows_a_promoted_standby_that_has_all_that_kafka_has(timeline: int, end: int) -> None:
    check_timeline(POSITION._replace(timeline=timeline, end_lsn=LSN(end)), SYSTEM._replace(timeline=3), HISTORY)


@pytest.mark.parametrize(("timeline", "end"), [(1, 2001), (2, 3001), (4, 1)])
def test_stops_when_the_promoted_standby_lost_what_kafka_has(timeline: int, end: int) -> None:
    position = POSITION._replace(timeline=timeline, end_lsn=LSN(end))
    with pytest.raises(SettingsError, match="timeline") as caught:
        check_timeline(position, SYSTEM._replace(timeline=3), HISTORY)
    assert "capture repair --execute" in str(caught.value)


def test_a_repair_raises_the_generation_and_asks_for_a_snapshot() -> None:
    new = repaired(POSITION, SYSTEM, "tap", "hash", first=1_000_000)
    assert new.generation == 2
    assert new.snapshot is not None
    assert new.snapshot.state == "making"


def test_a_repair_without_the_old_position_is_above_every_generation() -> None:
    first = repaired(None, SYSTEM, "tap", "hash", first=1_000_000)
    assert first.generation == 1_000_000
    assert repaired(first, SYSTEM, "tap", "hash", first=1_000_000).generation == 1_000_001
