"""When a start takes a snapshot."""

import pytest

from capture.checks import NotOursError
from capture.position import InitialSnapshot, Position, parse_position
from capture.snapshot.chunks import page_ranges
from capture.snapshot.modes import Mode, Step, next_step, unfinished, with_rest
from schemas.model.errors import SettingsError
from schemas.model.lsn import LSN

DONE = Position(1, "7", 1, "tap", LSN(9), LSN(9), "hash", snapshot=InitialSnapshot("a", "completed"))
BEGUN = DONE._replace(snapshot=InitialSnapshot("a", "running", {"public.orders": 3}, 2))
GONE = SettingsError("the slot is gone")


@pytest.mark.parametrize(
    ("mode", "position", "problem", "taken", "step"),
    [
        *((mode, None, None, False, "snapshot") for mode in ("initial", "initial_only", "no_data", "when_needed")),
        *((mode, BEGUN, GONE, False, "snapshot") for mode in ("initial", "initial_only", "when_needed", "always")),
        ("initial", DONE, None, False, "stream"),
        ("no_data", DONE, None, False, "stream"),
        ("initial_only", DONE, None, False, "end"),
        ("initial_only", DONE, GONE, False, "end"),
        ("when_needed", DONE, None, False, "stream"),
        ("when_needed", DONE, GONE, True, "snapshot"),
        ("always", DONE, None, False, "snapshot"),
        ("always", DONE, None, True, "stream"),  # the same process starts again after an error: no second copy
        ("always", DONE, GONE, True, "snapshot"),
    ],
)
def test_what_a_start_does(
    mode: Mode, position: Position | None, problem: SettingsError | None, taken: bool, step: Step
) -> None:
    assert next_step(mode, position, problem, taken) == step


@pytest.mark.parametrize("mode", ["initial", "no_data"])
def test_a_loss_stops_where_no_new_snapshot_was_asked_for(mode: Mode) -> None:
    with pytest.raises(SettingsError, match="the slot is gone"):
        next_step(mode, DONE, GONE, False)


@pytest.mark.parametrize("mode", ["initial", "initial_only", "no_data", "when_needed", "always"])
@pytest.mark.parametrize("position", [None, DONE, BEGUN])
def test_no_snapshot_drops_another_readers_slot(mode: Mode, position: Position | None) -> None:
    with pytest.raises(NotOursError, match="another's"):
        next_step(mode, position, NotOursError("another's"), False)


def test_the_tables_that_are_done_are_kept_with_the_position() -> None:
    assert parse_position(BEGUN.dump()) == BEGUN


def test_ranges_of_pages_leave_no_page_out_and_end_open() -> None:
    assert page_ranges(0, 10) == [(0, None)]
    assert page_ranges(10, 10) == [(0, None)]
    assert page_ranges(25, 10) == [(0, 10), (10, 20), (20, None)]


def test_a_snapshot_that_a_crash_ended_goes_on_with_the_tables_that_it_had_left() -> None:
    keyed = {"public.orders": True, "public.lines": True}
    rest = with_rest(BEGUN, None, keyed)
    assert rest is not None
    assert rest.snapshot is not None
    assert not unfinished(rest)
    (request,) = rest.demand.requests
    assert request.tables == (("public.lines", None),)
    assert request.first == ("a", {"public.orders": 3})
    assert parse_position(rest.dump()) == rest


@pytest.mark.parametrize("why", ["no key", "slot lost", "slot not made"])
def test_otherwise_it_begins_again(why: str) -> None:
    keyed = {"public.orders": True, "public.lines": why != "no key"}
    problem = SettingsError("slot is gone") if why == "slot lost" else None
    position = BEGUN._replace(snapshot=InitialSnapshot("a", "making")) if why == "slot not made" else BEGUN
    assert with_rest(position, problem, keyed) is None
