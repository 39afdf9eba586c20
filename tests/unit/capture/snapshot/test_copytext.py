"""COPY's text format, as PostgreSQL writes it, and the records that its lines become."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capture.snapshot.copytext import Frame, MarkedLines, Outlet, line_writer, parse_copy_line
from schemas.model.change import Cells
from schemas.writing.codec import Encoder, WidenError, compile_codec
from schemas.writing.column_rules import Asterisks, ColumnRules, Hashed
from tests.unit.schemas.examples import LSN_OF_ROW, ORDERS, ORDERS_FACTS, ORIGIN, PREFIX, ROW, TOPIC

ENCODER = compile_codec(TOPIC, ORDERS, ORDERS_FACTS).bind(3, 4)
HEADERS = [("ordertap.stamp", b"1:2:0")]
HASH = Hashed("SHA-256", b"salt")


@pytest.mark.parametrize(
    ("line", "cells"),
    [
        (b"1\tx\t", (b"1", b"x", b"")),
        (b"\\N\t\\N", (None, None)),
        (b"a\\tb\tc\\nd", (b"a\tb", b"c\nd")),
        (b"\\\\N", (b"\\N",)),
        (b"\\\\\\\\t", (b"\\\\t",)),
        (b"\\\\\\t", (b"\\\t",)),
        (b"c:\\\\temp\\\\new", (b"c:\\temp\\new",)),
        (b"\\b\\f\\v\\r", (b"\b\f\v\r",)),
        (b"\\\\", (b"\\",)),
    ],
)
def test_cells(line: bytes, cells: tuple[bytes | None, ...]) -> None:
    assert parse_copy_line(line) == cells


def written(lines: list[bytes], encoder: Encoder = ENCODER, queue: int = 10**6) -> list[tuple[Any, ...]]:
    """What the compiled writer queues: (topic, value, key, partition, headers) of each line."""
    made: list[tuple[Any, ...]] = []

    def produce(topic: str, value: bytes, key: bytes, partition: int, *rest: Any) -> None:
        if len(made) >= queue:
            raise BufferError
        made.append((topic, value, key, partition, rest[-1]))

    def patiently(*record: Any) -> None:
        made.append(record)

    def careful(cells: Cells) -> tuple[bytes | None, bytes]:
        return encoder.key(cells), encoder.row(cells)

    outlet = Outlet(produce, patiently, TOPIC, -1, HEADERS, lambda: None)
    writer = line_writer(encoder.codec.layout, Frame(*encoder.read_frame(PREFIX, LSN_OF_ROW)), careful, outlet)
    for line in lines:
        writer.write(line)
    assert writer.rows() == len(made) == len(lines)
    return made


def copy_line(cells: Cells) -> bytes:
    r"""A line as the server writes it."""
    shown = [b"\\N" if cell is None else _escaped(bytes(cell)) for cell in cells]  # type: ignore[call-overload]
    return b"\t".join(shown) + b"\n"


def _escaped(cell: bytes) -> bytes:
    for plain, escape in ((b"\\", b"\\\\"), (b"\t", b"\\t"), (b"\n", b"\\n"), (b"\r", b"\\r")):
        cell = cell.replace(plain, escape)
    return cell


@given(note=st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0")), photo=st.none() | st.binary())
def test_a_line_becomes_the_record_that_the_codec_makes_of_its_cells(note: str | None, photo: bytes | None) -> None:
    shown = None if photo is None else b"\\x" + photo.hex().encode()
    row = (*ROW[:5], None if note is None else note.encode(), ROW[6], shown, ROW[8])
    wanted = (TOPIC, ENCODER.read(PREFIX, LSN_OF_ROW, row), ENCODER.key(row), -1, HEADERS)
    assert written([copy_line(row)]) == [wanted]


def test_a_full_queue_loses_no_line() -> None:
    row = (*ROW[:5], b"plain", ROW[6], None, ROW[8])
    made = written([copy_line(row)] * 3, queue=1)
    assert made[0] == made[1] == made[2]


def test_a_table_without_key_and_one_without_columns() -> None:
    keyless = compile_codec(TOPIC, replace(ORDERS, replica_identity="n"), None).bind(None, 4)
    row = tuple(b"1" if cell is None else cell for cell in ROW)
    assert written([copy_line(row)], keyless)[0][2] is None
    bare = compile_codec(TOPIC, replace(ORDERS, columns=()), None).bind(None, 4)
    assert written([b"\n"], bare)[0][1] == bare.read(PREFIX, LSN_OF_ROW, ())


def test_a_null_where_the_catalogue_allows_none_is_not_taken_for_a_text() -> None:
    with pytest.raises(WidenError):
        written([copy_line((*ROW[:2], None, *ROW[3:]))])


def test_columns_that_are_left_out_or_masked_are_so_in_a_snapshot() -> None:
    rules = ColumnRules(excluded=frozenset({"customer_id", "rate"}), masks={"status": Asterisks(3), "note": HASH})
    encoder = compile_codec(TOPIC, ORDERS, ORDERS_FACTS, rules=rules).bind(3, 4)
    for note in (b"secret", b"sec\tret", None):
        row = (*ROW[:5], note, *ROW[6:])
        ((_, value, *_),) = written([copy_line(row)], encoder)
        assert value == encoder.read(PREFIX, LSN_OF_ROW, row)
        assert b"sec" not in value
        assert ROW[2] not in value


@pytest.mark.parametrize(
    ("lines", "expected"),
    [(0, []), (1, ["only"]), (2, ["first", "last"]), (4, ["first", "usual", "usual", "last"])],
)
@pytest.mark.parametrize("note", [b"plain", b"with\tescapes", None])
def test_the_first_line_and_the_last_are_marked(lines: int, expected: list[str], note: bytes | None) -> None:
    ends = {mark: ENCODER.read_frame(ORIGIN.snapshot(0, 0, mark), LSN_OF_ROW)[2] for mark in {*expected, "usual"}}
    made: list[bytes] = []
    outlet = Outlet(lambda _, value, *rest: made.append(value), lambda *_: None, TOPIC, -1, HEADERS, lambda: None)
    frame = Frame(*ENCODER.read_frame(ORIGIN.snapshot(0, 0, "usual"), LSN_OF_ROW))
    writer = line_writer(ENCODER.codec.layout, frame, lambda cells: (ENCODER.key(cells), ENCODER.row(cells)), outlet)
    marked = MarkedLines(writer, *(ends.get(mark, b"") for mark in ("usual", "first", "last", "only")))
    row = (*ROW[:5], note, *ROW[6:])
    for number in range(lines):
        marked.write(copy_line(row))
        assert len(made) == number  # one waits
    marked.finish()
    assert made == [ENCODER.read(ORIGIN.snapshot(0, 0, mark), LSN_OF_ROW, row) for mark in expected]
    assert writer.rows() == lines
