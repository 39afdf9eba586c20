"""Makes records straight from lines of COPY's text format, by code generated for each table. Pure.

Source: PostgreSQL manual, COPY, "Text Format"; "Message Formats": each CopyData of the server is one row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from schemas.model.change import Cells
from schemas.types import encoders
from schemas.types.kind import STRING_CODE
from schemas.writing.layout import RowLayout
from schemas.writing.rowcode import compiled

_ESCAPES: Final = {
    ord("b"): b"\b", ord("f"): b"\f", ord("n"): b"\n", ord("r"): b"\r", ord("t"): b"\t", ord("v"): b"\v",
}  # fmt: skip
_NULL: Final = b"\\N"


class Frame(NamedTuple):
    """What all records of a table in a snapshot have in common, as bytes. `key`: None for a table without one."""

    key: bytes | None
    before_row: bytes
    after_row: bytes


class Outlet(NamedTuple):
    """Where records go. `produce` takes topic, value, key, partition, two Nones, a 0 and headers (confluent-kafka's
    order), and raises BufferError if its queue is full: then `patiently` takes the first four and the headers. `pause`
    is called after each `pause_bytes` of values."""

    produce: Callable[..., object]
    patiently: Callable[..., object]
    topic: str
    partition: int
    headers: Any
    pause: Callable[[], object]
    pause_bytes: int = 1_000_000


Careful = Callable[[Cells], tuple[bytes | None, bytes]]
"""Key and row by the careful way: with escapes and NULLs, and errors that name the column."""


class LineWriter(NamedTuple):
    """`write` takes one line of COPY. `rows`: how many it took. `ends_with`: sets the `after_row` from then on."""

    write: Callable[[bytes], None]
    rows: Callable[[], int]
    ends_with: Callable[[bytes], None]


class MarkedLines:
    """Writes lines whose first and last have another `after_row` than the rest, so one line is always held back.
    finish() writes it."""

    def __init__(self, writer: LineWriter, usual: bytes, first: bytes, last: bytes, only: bytes) -> None:
        """`only`: for a line that is both first and last."""
        self._writer = writer
        self._usual, self._last, self._only = usual, last, only
        self._held: bytes | None = None
        self._put: Callable[[bytes], None] = self._put_first
        writer.ends_with(first)

    def write(self, line: bytes) -> None:
        """Takes one line."""
        held, self._held = self._held, line
        if held is not None:
            self._put(held)

    def _put_first(self, line: bytes) -> None:
        self._writer.write(line)
        self._writer.ends_with(self._usual)
        self._put = self._writer.write

    def finish(self) -> None:
        """Writes the line that was held back, if any."""
        if self._held is not None:
            self._writer.ends_with(self._last if self._writer.rows() else self._only)
            self._writer.write(self._held)


def line_writer(layout: RowLayout, frame: Frame, careful: Careful, outlet: Outlet) -> LineWriter:
    """Compiles the way of a table's lines into Kafka. The cost of a line decides how long a snapshot takes.

    Lines without a backslash (no NULL, no escape) go the fast way. What fails there goes the careful way.
    """
    space: dict[str, Any] = {name: value for name, value in vars(encoders).items() if not name.startswith("_")}
    space |= {f"encode{index}": column.kind.encode for index, column in enumerate(layout.columns)}
    space |= frame._asdict() | outlet._asdict()

    def careful_line(line: bytes) -> tuple[bytes | None, bytes]:
        return careful(parse_copy_line(line[:-1]) if layout.columns else ())

    space |= {"join": b"".join, "careful_line": careful_line}
    exec(compiled(_source(layout, frame.key is not None), "<copy>"), space)  # noqa: S102  our own templates
    return LineWriter(space["write"], space["written"], space["ends_with"])


def _source(layout: RowLayout, keyed: bool) -> str:
    cells = "".join(f"c{index}, " for index in range(len(layout.columns)))
    last = f"c{len(layout.columns) - 1}"
    shorten = f"{last} = {last}[:-1]" if layout.columns else "pass"
    row = [item for index in range(len(layout.columns)) for item in _items(layout, index, keyed)]
    parts = "".join(f"                {part},\n" for part in ("before_row", *row, "after_row"))
    keys = "".join(f"            k{index} = {_column(layout, index)}\n" for index in layout.key) if keyed else ""
    key = " + ".join(["key", *(f"k{index}" for index in layout.key)]) if keyed else "None"
    return f"""
rows = size = 0
def write(line):
    global rows, size
    if b"\\\\" in line{"" if layout.columns else " or True"}:
        record_key, row = careful_line(line)
        value = before_row + row + after_row
    else:
        try:
            {cells or "()"} = line.split(b"\\t")
            {shorten}
{keys}            record_key = {key}
            value = join((
{parts}            ))
        except FAILURES:
            record_key, row = careful_line(line)
            value = before_row + row + after_row
    try:
        produce(topic, value, record_key, partition, None, None, 0, headers)
    except BufferError:
        patiently(topic, value, record_key, partition, headers)
    rows += 1
    size += len(value)
    if size >= pause_bytes:
        size = 0
        pause()
def written():
    return rows
def ends_with(after):
    global after_row
    after_row = after
"""


def _items(layout: RowLayout, index: int, keyed: bool) -> list[str]:
    """Expressions for the parts of a row that a column makes; none if it is left out."""
    if layout.columns[index].skipped:
        return []
    if keyed and index in layout.key:
        return [f"k{index}"]
    column = layout.columns[index]
    present = [repr(column.present)] if column.present else []
    if column.kind.code == STRING_CODE:
        return [*present, f"LENGTHS[len(c{index})]", f"c{index}"]
    return [*present, _code(layout, index)]


def _column(layout: RowLayout, index: int) -> str:
    present = layout.columns[index].present
    return f"{present!r} + {_code(layout, index)}" if present else _code(layout, index)


def _code(layout: RowLayout, index: int) -> str:
    code = layout.columns[index].kind.code
    return code.replace("{encode}", f"encode{index}").replace("{0}", f"c{index}")


def parse_copy_line(line: bytes) -> tuple[bytes | None, ...]:
    """The cells of one line of COPY's text format, without its newline."""
    cells = line.split(b"\t")
    escapes = line.count(b"\\")
    if not escapes:
        return tuple(cells)
    if escapes == line.count(_NULL):  # NULLs alone: the backslash of a text is written as two
        return tuple([None if cell == _NULL else cell for cell in cells])
    return tuple([None if cell == _NULL else _unescape(cell) for cell in cells])


def _unescape(cell: bytes) -> bytes:
    if b"\\" not in cell:
        return cell
    first, *rest = cell.split(b"\\")
    parts = [first]
    pieces = iter(rest)
    for piece in pieces:
        if piece:
            parts += [_ESCAPES.get(piece[0], piece[:1]), piece[1:]]
        else:  # an escaped backslash: what follows stands for itself
            parts += [b"\\", next(pieces, b"")]
    return b"".join(parts)
