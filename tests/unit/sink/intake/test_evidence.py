"""Ranges of offsets: replays, gaps, gaps that are filled piece by piece, and where a partition starts."""

import pytest

from schemas.model.errors import SettingsError
from sink.intake.consumer import Committed, start_of
from sink.intake.evidence import SKIPPED, Gap, Partition, Range, Seen, after, without
from sink.intake.offsets import Effect, Offsets, move

PARTITION = Partition("shop.public.orders", "id", 2)


@pytest.mark.parametrize(
    ("read", "left"),
    [
        (Range(0, 5), [Range(10, 20)]),
        (Range(10, 20), []),
        (Range(12, 15), [Range(10, 12), Range(15, 20)]),
        (Range(5, 12), [Range(12, 20)]),
        (Range(18, 30), [Range(10, 18)]),
    ],
)
def test_what_is_left_of_a_range(read: Range, left: list[Range]) -> None:
    assert without(Range(10, 20), read) == left


def test_a_skip_is_a_gap_and_a_replay_in_it_is_none() -> None:
    seen = after(after(None, PARTITION, Range(0, 10)), PARTITION, Range(15, 20))
    assert seen == Seen(20, (Gap(PARTITION, Range(10, 15), SKIPPED),))
    assert after(seen, PARTITION, Range(8, 13)).gaps == (Gap(PARTITION, Range(13, 15), SKIPPED),)
    assert after(seen, PARTITION, Range(0, 20)) == Seen(20)


@pytest.mark.parametrize(
    ("committed", "seen", "low", "offset", "notice"),
    [
        (None, None, 0, 0, ""),
        (None, None, 7, 7, ""),
        (None, Seen(30), 0, 30, "expired"),
        (None, Seen(30), 40, 40, "leaves a gap"),
        (Committed(30, True), Seen(30), 0, 30, ""),
        (Committed(20, True), Seen(30), 0, 20, "reading again"),
        (Committed(20, True), Seen(30), 25, 25, "nothing is lost"),
        (Committed(50, True), Seen(30), 0, 30, "restored"),
        (Committed(50, False), Seen(30), 0, 50, "is a gap"),
        (Committed(50, True), None, 0, 0, "empty"),
        (Committed(50, False), None, 0, 50, "is a gap"),
        (Committed(900, False), Seen(30), 0, 100, "past the end"),
    ],
)
def test_where_a_partition_starts(
    committed: Committed | None, seen: Seen | None, low: int, offset: int, notice: str
) -> None:
    start = start_of(PARTITION, committed, seen, low, 100)
    assert start.offset == offset
    assert notice in start.notice
    assert bool(notice) == bool(start.notice)
    assert start.new is (committed is None and seen is None)


def test_a_topic_made_again_starts_at_its_beginning_whatever_is_committed() -> None:
    start = start_of(PARTITION, Committed(50, True), None, 0, 100, recreated=True)
    assert start.offset == 0
    assert "recreated" in start.notice


def test_records_that_kafka_lost_stop_the_sink() -> None:
    with pytest.raises(SettingsError, match="Kafka has lost records"):
        start_of(PARTITION, Committed(50, True), Seen(200), 0, 100)


@pytest.mark.parametrize(
    ("committed", "staged", "target", "effect", "count"),
    [
        (30, 30, 30, Effect.NOTHING, 0),
        (30, 30, 0, Effect.REPLAY, 30),
        (30, 30, 45, Effect.GAP, 15),
        (10, 30, 30, Effect.RESUME, 20),
        (None, None, 50, Effect.GAP, 50),
        (None, None, 0, Effect.RESUME, 50),
    ],
)
def test_the_effect_of_a_reset(
    committed: int | None, staged: int | None, target: int, effect: Effect, count: int
) -> None:
    found = move(Offsets(PARTITION, committed, 0, 50, staged), target)
    assert (found.effect, found.offsets) == (effect, count)
