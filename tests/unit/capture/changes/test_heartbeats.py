"""Numbers of heartbeats: a gap must mean that somebody moved the slot, so what the server lost must leave none."""

from capture.changes.heartbeats import Beats
from schemas.model.lsn import LSN


def test_numbers_count_what_is_in_the_log_for_good() -> None:
    beats = Beats("run")
    numbers = []
    for written in (100, 200, 300):
        numbers.append(beats.next(flushed=LSN(written)))
        beats.wrote(LSN(written))
    assert numbers == [1, 2, 3]


def test_one_that_was_not_written_or_not_flushed_or_whose_stream_ended_has_its_number_again() -> None:
    beats = Beats("run")
    assert beats.next(LSN(0)) == 1
    assert beats.next(LSN(500)) == 1, "writing it failed"
    beats.wrote(LSN(600))
    assert beats.next(LSN(599)) == 1, "a crash may have lost it"
