"""The invariant of acknowledging, against a model of what psycopg2 does on a keepalive."""

from hypothesis import given
from hypothesis import strategies as st

from capture.postgres.acknowledge import Acknowledger
from schemas.model.lsn import LSN


def test_reads_freely_while_nothing_whole_is_pending() -> None:
    assert Acknowledger(confirmed=LSN(100)).may_read(pending=False, last_start=50)


def test_does_not_read_over_something_whole_that_is_pending() -> None:
    acknowledger = Acknowledger(confirmed=LSN(100))
    assert not acknowledger.may_read(pending=True, last_start=100)
    assert acknowledger.may_read(pending=True, last_start=101)


def test_a_relation_message_has_no_lsn_and_stops_reading_before_the_first_confirmation_too() -> None:
    assert not Acknowledger().may_read(pending=True, last_start=0)


def test_confirms_once_an_interval_and_less_often_while_pending() -> None:
    acknowledger = Acknowledger(interval=1.0)
    assert acknowledger.due(10.0, pending=False, durable=LSN(5))
    acknowledger.told(10.0, LSN(5))
    assert not acknowledger.due(10.9, pending=False, durable=LSN(6))
    assert acknowledger.due(11.0, pending=False, durable=LSN(6))
    assert not acknowledger.due(11.0, pending=True, durable=LSN(6))
    assert acknowledger.due(15.0, pending=True, durable=LSN(6))
    assert not acknowledger.due(15.0, pending=False, durable=LSN(5)), "nothing new to say"


messages = st.lists(
    st.tuples(st.sampled_from(["row", "relation", "end", "durable", "tick", "keepalive"]), st.integers(1, 60))
)


@given(messages)
def test_a_keepalive_never_acknowledges_what_is_not_durable(events: list[tuple[str, int]]) -> None:
    """psycopg2: on a keepalive, flush := wal_end when confirmed >= data_start of the last message."""
    acknowledger = Acknowledger(interval=0.0, busy_interval=0.0)
    flushed = durable = whole = wal_end = last_start = 0
    ends: list[int] = []
    for kind, step in events:
        pending = whole > durable
        if kind == "durable":
            durable = whole
        elif kind == "tick":
            if acknowledger.due(1.0, pending, LSN(durable)):
                acknowledger.told(1.0, LSN(durable))
                flushed = max(flushed, durable)
        elif acknowledger.may_read(pending, last_start):
            if kind == "keepalive":
                wal_end += step
                if acknowledger.confirmed >= last_start:
                    flushed = wal_end
            elif kind == "row":  # of a transaction that began long ago
                last_start = max(1, wal_end - step)
            elif kind == "relation":
                last_start = 0
            else:
                wal_end += step
                whole = last_start = wal_end
                ends.append(whole)
        assert not [end for end in ends if durable < end <= flushed]
