"""The position record: what it holds survives, what is not ours is refused."""

import json

import pytest

from capture.position import (
    Chain,
    Heartbeat,
    InitialSnapshot,
    Partial,
    Position,
    accounted_key,
    dump_accounted,
    first_position,
    is_accounted_key,
    is_moved,
    moved,
    parse_accounted,
    parse_position,
)
from schemas.model.change import Stamp
from schemas.model.errors import DataError
from schemas.model.lsn import LSN

PLAIN = Position(2, "7400000000000000001", 1, "ordertap", LSN(0x1_0000_0000), LSN(0xFFFF_FFF0), "abc")
FULL = PLAIN._replace(
    partial=Partial(LSN(9), 70_000, {"public.orders": 69_999}, {("public.orders", "shop.public.orders"): 70_001}),
    snapshot=InitialSnapshot("a-b", "completed"),
    heartbeat=Heartbeat("run", 12, 1_700_000_000_000, LSN(0xFFFF_FFF8)),
    stopped_lsn=LSN(0),
    chain=Chain(12, LSN(0x1_0000_0000)),
)


@pytest.mark.parametrize("position", [PLAIN, FULL], ids=["plain", "full"])
def test_comes_back_as_it_was(position: Position) -> None:
    assert parse_position(position.dump()) == position


def test_an_operator_can_read_it() -> None:
    shown = json.loads(FULL.dump())
    assert shown["end_lsn"] == 0x1_0000_0000
    assert shown["partial"] == {
        "commit_lsn": 9,
        "ordinal": 70_000,
        "size": {"public.orders": 69_999},
        "counts": [["public.orders", "shop.public.orders", 70_001]],
    }
    assert shown["chain"] == {"serial": 12, "end": 0x1_0000_0000}


def test_one_of_before_the_index_is_understood() -> None:
    content = json.loads(FULL.dump())
    del content["chain"], content["partial"]["counts"]
    found = parse_position(json.dumps(content).encode())
    assert FULL.partial is not None
    assert found == FULL._replace(chain=None, partial=FULL.partial._replace(counts=None))


@pytest.mark.parametrize("position", [PLAIN, FULL], ids=["plain", "full"])
def test_what_is_left_where_it_was_before_is_refused_by_name(position: Position) -> None:
    """Earlier captures refuse any field that they do not know."""
    left = moved(position.dump(), "ordertap.shop.position")
    with pytest.raises(DataError, match="moved_to, which this version does not know"):
        parse_position(left)
    assert is_moved(left)
    assert not is_moved(position.dump())
    assert not is_moved(b"\xff")


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
        (Stamp(0, LSN(10**6), 5), True),  # from before a repair
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


def test_the_tables_that_are_accounted_for_come_back_under_a_key_that_is_no_connectors() -> None:
    tables = frozenset({"public.größe", "public.b"})
    assert parse_accounted(dump_accounted(tables)) == tables
    assert is_accounted_key(accounted_key(b"shop"))
    assert not is_accounted_key(b"shop")


@pytest.mark.parametrize("value", [b"", b"5", b"null", b"\xff"])
def test_what_is_no_list_of_tables_is_refused(value: bytes) -> None:
    with pytest.raises(DataError, match="the record of tables beside the position"):
        parse_accounted(value)
