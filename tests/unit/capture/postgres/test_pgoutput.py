"""pgoutput messages: built from the manual's description, decoded, and cut at every byte."""

import struct

import pytest

from capture.postgres import pgoutput
from capture.postgres.pgoutput import POSTGRES_EPOCH_US, ProtocolError, decode
from schemas.model.change import UNCHANGED
from schemas.model.lsn import LSN
from schemas.model.relation import Column, Relation


def cell(value: bytes) -> bytes:
    return b"t" + struct.pack(">I", len(value)) + value


def row(*cells: bytes) -> bytes:
    return struct.pack(">H", len(cells)) + b"".join(cells)


FULL_ROW = row(cell(b"7"), b"n", b"u", cell(b""))
CELLS = (b"7", None, UNCHANGED, b"")
GOLDEN = {
    "begin": (
        b"B" + struct.pack(">QqI", 0x1_0000_0010, 5, 700),
        pgoutput.Begin(LSN(0x1_0000_0010), POSTGRES_EPOCH_US + 5, 700),
    ),
    "commit": (
        b"C\0" + struct.pack(">QQq", 16, 32, 5),
        pgoutput.Commit(LSN(16), LSN(32), POSTGRES_EPOCH_US + 5),
    ),
    "origin": (b"O" + struct.pack(">Q", 9) + b"elsewhere\0", pgoutput.Origin(LSN(9), "elsewhere")),
    "type": (b"Y" + struct.pack(">I", 99) + b"public\0mood\0", pgoutput.Type(99, "public", "mood")),
    "relation": (
        b"R" + struct.pack(">I", 5) + b"public\0orders\0d" + struct.pack(">H", 2)
        + b"\x01id\0" + struct.pack(">Ii", 20, -1) + b"\x00total\0" + struct.pack(">Ii", 1700, 786438),
        Relation(5, "public", "orders", "d", (Column("id", 20, -1, True), Column("total", 1700, 786438, False))),
    ),
    "insert": (b"I" + struct.pack(">I", 5) + b"N" + FULL_ROW, pgoutput.Insert(5, CELLS)),
    "update": (b"U" + struct.pack(">I", 5) + b"N" + FULL_ROW, pgoutput.Update(5, None, None, CELLS)),
    "update with old key": (
        b"U" + struct.pack(">I", 5) + b"K" + row(cell(b"6"), b"n") + b"N" + FULL_ROW,
        pgoutput.Update(5, b"K", (b"6", None), CELLS),
    ),
    "update with old row": (
        b"U" + struct.pack(">I", 5) + b"O" + row(cell(b"6"), cell(b"x")) + b"N" + FULL_ROW,
        pgoutput.Update(5, b"O", (b"6", b"x"), CELLS),
    ),
    "delete by key": (b"D" + struct.pack(">I", 5) + b"K" + FULL_ROW, pgoutput.Delete(5, b"K", CELLS)),
    "delete of a row": (b"D" + struct.pack(">I", 5) + b"O" + FULL_ROW, pgoutput.Delete(5, b"O", CELLS)),
    "truncate": (b"T" + struct.pack(">IBII", 2, 1, 5, 6), pgoutput.Truncate((5, 6))),
    "message": (
        b"M\x01" + struct.pack(">Q", 77) + b"shop\0" + struct.pack(">I", 3) + b"abc",
        pgoutput.LogicalMessage(True, LSN(77), "shop", b"abc"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_decodes(name: str) -> None:
    payload, expected = GOLDEN[name]
    assert decode(payload) == expected


@pytest.mark.parametrize("name", GOLDEN)
def test_every_cut_is_a_protocol_error(name: str) -> None:
    payload, _ = GOLDEN[name]
    for end in range(len(payload)):
        with pytest.raises(ProtocolError):
            decode(payload[:end])


@pytest.mark.parametrize("name", GOLDEN)
def test_a_byte_too_many_is_a_protocol_error(name: str) -> None:
    payload, _ = GOLDEN[name]
    with pytest.raises(ProtocolError):
        decode(payload + b"x")


@pytest.mark.parametrize("name", GOLDEN)
def test_flipped_bytes_never_raise_anything_else(name: str) -> None:
    payload, _ = GOLDEN[name]
    for at in range(len(payload)):
        broken = bytearray(payload)
        broken[at] ^= 0xFF
        try:
            decode(bytes(broken))
        except ProtocolError:
            continue


def test_a_name_that_is_no_utf_8_is_shown_by_its_bytes() -> None:
    """In a database of SQL_ASCII: anybody may write a message with such a prefix, and no start would pass it by."""
    decoded = decode(b"M\x00" + struct.pack(">Q", 77) + b"K\xe4se\0" + struct.pack(">I", 3) + b"abc")
    assert decoded == pgoutput.LogicalMessage(False, LSN(77), "K\\xe4se", b"abc")


def test_null_unchanged_and_empty_are_three_things() -> None:
    decoded = decode(GOLDEN["insert"][0])
    assert isinstance(decoded, pgoutput.Insert)
    assert decoded.new[1] is None
    assert decoded.new[2] is UNCHANGED
    assert decoded.new[3] == b""


def test_an_error_never_shows_row_values() -> None:
    payload = b"I" + struct.pack(">I", 5) + b"N" + row(cell(b"secret street 5"), b"?")
    with pytest.raises(ProtocolError) as caught:
        decode(payload)
    assert "secret" not in str(caught.value)
