"""The position record: what it holds survives, what is not ours is refused."""

import json

import pytest

from capture.kafka.position import Heartbeat, Partial, Position, SnapshotState, first_position, parse_position
from schemas.change import Stamp
from schemas.errors import DataError
from schemas.lsn import LSN

PLAIN = Position(2, "7400000000000000001", 1, "ordertap", LSN(0x1_0000_0000), LSN(0xFFFF_FFF0), "abc")
FULL = PLAIN._replace(
    partial=Partial(LSN(9), 70_000, {"public.orders": 69_999}),
    snapshot=SnapshotState("a-b", "completed"),
    heartbeat=Heartbeat("run", 12, 1_700_000_000_000, LSN(0xFFFF_FFF8)),
    stopped_lsn=LSN(0),
)


@pytest.mark.parametrize("position", [PLAIN, FULL], ids=["plain", "full"])
def test_comes_back_as_it_was(position: Position) -> None:
    assert parse_position(position.dump()) == position


def test_an_operator_can_read_it() -> None:
    shown = json.loads(FULL.dump())
    assert shown["end_lsn"] == 0x1_0000_0000
    assert shown["partial"] == {"commit_lsn": 9, "ordinal": 70_000, "size": {"public.orders": 69_999}}


@pytest.mark.parametrize(
    "value",
    [b"", b"{}", b"[]", b"null", b"\xff", FULL.dump()[:-1], FULL.dump().replace(b'"slot"', b'"other"')],
    ids=["empty", "object", "list", "null", "not UTF-8", "cut", "other field"],
)
def test_what_is_not_ours_is_refused(value: bytes) -> None:
    with pytest.raises(DataError):
        parse_position(value)


def test_what_a_newer_version_wrote_is_told_from_what_is_not_ours() -> None:
    with pytest.raises(DataError, match="epoch, which this version does not know"):
        parse_position(json.dumps({**json.loads(FULL.dump()), "epoch": 1}).encode())


@pytest.mark.parametrize(
    ("stamp", "covered"),
    [
        (Stamp(0, LSN(10**6), 5), True),  # of before a repair
        (Stamp(2, LSN(1), 1), False),
        (Stamp(1, LSN(99), 7), True),
        (Stamp(1, LSN(100), 0), True),  # a message, or a chunk's mark, that the position reaches
        (Stamp(1, LSN(100), 1), False),  # the transaction behind it begins where the last one ends
        (Stamp(1, LSN(300), 4), True),
        (Stamp(1, LSN(300), 5), False),
    ],
)
def test_what_a_position_covers(stamp: Stamp, covered: bool) -> None:
    position = first_position(1, "7", 1, "slot", LSN(100), "hash")._replace(partial=Partial(LSN(300), 4, {}))
    assert position.covers(stamp) is covered
