"""Headers, positions and the wire format: what is built is what is read, and anything else is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.model import change
from schemas.model.change import Stamp, TransactionMark
from schemas.model.errors import DataError
from schemas.model.lsn import LSN
from schemas.registry import wire

positions = st.integers(0, 2**64 - 1).map(LSN)


@given(positions)
def test_an_lsn_is_shown_as_postgresql_does_and_read_back(lsn: LSN) -> None:
    assert LSN.parse(str(lsn)) == lsn


def test_an_lsn_looks_like_this() -> None:
    assert str(LSN(0x16B374D848)) == "16/B374D848"
    assert repr(LSN(1)) == "LSN(0/1)"


@pytest.mark.parametrize("text", ["", "16", "16/", "/1", "x/1", "1/2/3", "123456789/1", "-1/1", "1_0/1", " 1/1"])
def test_what_is_no_lsn_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="not a log position"):
        LSN.parse(text)


@given(st.integers(0, 2**31), positions, st.integers(0, 2**40))
def test_a_stamp_comes_back(generation: int, lsn: LSN, ordinal: int) -> None:
    stamp = Stamp(generation, lsn, ordinal)
    assert change.parse_stamp(change.stamp_header(stamp)) == stamp


def test_stamps_are_ordered_by_generation_then_commit_then_ordinal() -> None:
    stamps = [Stamp(1, LSN(5), 1), Stamp(0, LSN(1000), 0), Stamp(0, LSN(900), 2), Stamp(0, LSN(900), 1)]
    assert sorted(stamps) == [stamps[3], stamps[2], stamps[1], stamps[0]]


@pytest.mark.parametrize("value", [b"", b"1:2", b"1:2:3:4", b"a:2:3", b"1:0/2:3"])
def test_what_is_no_stamp_is_refused(value: bytes) -> None:
    with pytest.raises(DataError, match=r"ordertap\.stamp"):
        change.parse_stamp(value)


def test_the_transaction_header_is_plain_text() -> None:
    assert change.transaction_header(5, LSN(99)) == b"5:99"
    assert change.snapshot_header("s-1") == b"snapshot:s-1"


def test_the_transaction_header_comes_back() -> None:
    parse = change.parse_transaction
    assert parse(change.transaction_header(2**32 - 1, 2**64 - 1)).transaction_id == f"{2**32 - 1}:{2**64 - 1}"
    assert parse(change.transaction_header(5, 99)) == TransactionMark("5:99", None, None)
    assert parse(change.snapshot_header("s-1")) == TransactionMark(None, None, "s-1")


def test_the_transaction_header_of_before_the_index_is_understood() -> None:
    parse = change.parse_transaction
    assert parse(b'{"id":"5:99","size":{"a.b":2}}') == TransactionMark("5:99", {"a.b": 2}, None)
    assert parse(b'{"id":"5:99","size":null}') == TransactionMark("5:99", None, None)
    assert parse(b'{"snapshot":"s-1"}') == TransactionMark(None, None, "s-1")


@pytest.mark.parametrize("value", [b"", b"[]", b'{"size":3}', b"\xff", b"5", b"5:99:1", b"x:1", b"-5:99", b"{"])
def test_what_is_no_transaction_header_is_refused(value: bytes) -> None:
    with pytest.raises(DataError, match=r"ordertap\.transaction"):
        change.parse_transaction(value)


def test_unchanged_names_come_back() -> None:
    assert change.unchanged_header(["größe", "b"]) == '["größe","b"]'.encode()
    assert change.parse_unchanged(change.unchanged_header(["größe", "b"])) == {"größe", "b"}


@pytest.mark.parametrize("value", [b"", b"{}", b"[1]"])
def test_what_is_no_list_of_names_is_refused(value: bytes) -> None:
    with pytest.raises(DataError, match=r"ordertap\.unchanged"):
        change.parse_unchanged(value)


@given(st.integers(0, 2**32 - 1), st.binary())
def test_the_wire_format_comes_back(schema_id: int, avro: bytes) -> None:
    framed = wire.frame(schema_id, avro)
    assert framed[:5] == wire.prefix(schema_id)
    assert wire.parse(framed) == (schema_id, avro)


@pytest.mark.parametrize("payload", [b"", b"\x00\x00\x00\x01", b'{"id": 1}'])
def test_what_is_not_in_the_wire_format_is_refused(payload: bytes) -> None:
    with pytest.raises(DataError, match="not an Avro record"):
        wire.parse(payload)


@pytest.mark.parametrize("text", [b"1:2:-3", b"1:18446744073709551616:1", b"1:2:9223372036854775808"])
def test_a_stamp_beyond_the_log_is_refused(text: bytes) -> None:
    with pytest.raises(DataError, match="generation:lsn:ordinal"):
        change.parse_stamp(text)
