"""The generated code of decoders: straight-line Python for one schema, without a loop over its columns.

Like schemas.writing.rowcode, the other way round: names never get into the source, only templates and numbers. Source:
Avro specification, "Binary Encoding".
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from enum import Enum
from typing import Any, Final, NamedTuple

from schemas.model.errors import DataError
from sink.intake import copy_text
from sink.intake.copy_text import FAILURES, NULL, Read


class Form(Enum):
    """How the bytes of a column are read; all but OTHER are straight-line."""

    BOOLEAN = "boolean"
    INTEGER = "int or long that is its own text"
    NUMBER = "int or long, read and shown by `show`"
    FOUR = "four bytes, looked up in `show`"
    EIGHT = "eight bytes, looked up in `show`"
    TEXT = "string that is its own text"
    JSON = "string, JSON that jsonb may refuse"
    ZONED = "string, a timestamp that PostgreSQL reads as it is but for years beyond four digits"
    SIZED = "string or bytes, through `show`"
    REMEMBERED = "bytes, looked up in `show`: a number"
    OTHER = "of any type, NULL too, read and shown by `show`"


class Column(NamedTuple):
    """How one column is read.

    `present` and `null` are the bytes of a union's branches, None where there is no union of null and a type. `show`
    makes the text: a function or a table, or, of the message and a place, the text and where the value ends. `step`
    reads the value of an OTHER without making its text. `ready` says that the text is escaped for COPY already.
    """

    form: Form
    show: Any
    present: int | None = None
    null: int | None = None
    step: Read | None = None
    ready: bool = False


class Tools(NamedTuple):
    """What the code calls for an unusual row.

    `careful` escapes values one by one, `refuse(column, text)` raises for JSON that jsonb cannot hold, `broken(message,
    error)` makes the DataError of bytes that do not fit.
    """

    careful: Callable[[Sequence[bytes]], bytes]
    refuse: Callable[[int, bytes], None]
    broken: Callable[[bytes, Exception], DataError]


_SIZES: Final = tuple(tuple(n // 2 + 1 + o if n % 2 == 0 else None for n in range(128)) for o in (0, 1))
"""First byte of a length → how far the end of the content is; None where it is negative. The second one is for a place
one byte before, that of the union's branch."""

_SPACE: Final = {
    "NULL": NULL,
    "SIZES0": _SIZES[0],
    "SIZES1": _SIZES[1],
    "INTEGERS": copy_text.INTEGERS,
    "BOOLEANS": copy_text.BOOLEANS,
    "long": copy_text.long,
    "span": copy_text.span,
    "lower_exponent": copy_text.LOWER_EXPONENT,
    "upper_exponent": copy_text.UPPER_EXPONENT,
    "join": b"\t".join,
    "concatenate": b"".join,
    "FAILURES": FAILURES,
    "DataError": DataError,
}


def row_source(columns: Sequence[Column], skipped: Collection[int], before: tuple[int, int], connector: bytes) -> str:
    """`line(b, i, tail)` of an envelope: see decoder.Decoder. `skipped` are the columns to show as NULL.

    `before` are the branches of `before` and `after` (present, null); `connector` begins what comes after the first
    string of `source`, if that is known.
    """
    present, null = before
    lines = [
        "old = m = b[i]; i += 1",
        f"if m == {present}:",
        *_indent([code for index, column in enumerate(columns) for code in _step(index, column)] or ["pass"]),
        f"elif m != {null}: raise ValueError",
        "m = b[i]; i += 1",
        f"if m == {null}:",
        *_indent(_source_follows(connector)),
        f"    return None if old == {present} else NEITHER",
        f"if m != {present}: raise ValueError",
        *_row(columns, skipped),
        *_source_follows(connector),
        *_checked(columns, skipped),
        "return b'%b\\t%b\\n' % (t, tail)",
    ]
    return _function("b, i, tail", lines)


def key_source(columns: Sequence[Column]) -> str:
    """`line(b, i)` of a key: see decoder.KeyDecoder."""
    ends = "if i != len(b): raise ValueError"
    return _function("b, i", [*_row(columns, ()), ends, *_checked(columns, ()), "return t"])


def compiled(source: str, columns: Sequence[Column], tools: Tools, **more: Any) -> Any:
    """The function `line` of a source."""
    space: dict[str, Any] = {**_SPACE, **tools._asdict(), **more}
    for index, column in enumerate(columns):
        space |= {f"show{index}": column.show, f"step{index}": column.step}
    exec(compile(source, "<line>", "exec"), space)  # noqa: S102  made of our own templates and numbers, no names
    return space["line"]


def _function(arguments: str, lines: Sequence[str]) -> str:
    caught = [
        "    except DataError:",
        "        raise",
        "    except FAILURES as error:",
        "        raise broken(b, error) from None",
    ]
    return "\n".join([f"def line({arguments}):", "    try:", *_indent(lines, 8), *caught]) + "\n"


def _row(columns: Sequence[Column], skipped: Collection[int]) -> list[str]:
    """Lines that read the columns: v0, v1 … are their texts, `nulls` counts NULLs among those that may be unusual."""
    lines = ["nulls = 0"]
    for index, column in enumerate(columns):
        if index in skipped:
            lines += [*_step(index, column), f"v{index} = NULL"]
        else:
            lines += _read(index, column)
    return lines


def _checked(columns: Sequence[Column], skipped: Collection[int]) -> list[str]:
    """Lines that make `t` of the texts: one look each for what COPY would take for something else."""
    values = "".join(f"v{index}, " for index in range(len(columns)))
    suspects = [f"v{index}" for index, column in enumerate(columns) if _suspect(column) and index not in skipped]
    if not suspects:
        return [f"t = join(({values}))"]
    return [
        f"t = {suspects[0]}" if len(suspects) == 1 else f"t = concatenate(({', '.join(suspects)}))",
        "unusual = 92 in t or 9 in t or 10 in t or 13 in t or 0 in t or 2 in t and t.count(2) != nulls",
        f"t = careful(({values})) if unusual else join(({values}))",
    ]


def _suspect(column: Column) -> bool:
    """Whether a text may hold what COPY takes for something else."""
    return column.form not in _HARMLESS and not column.ready


def _source_follows(connector: bytes) -> list[str]:
    """Lines that look whether `source` begins here: with its first string, inside the message, and a known second."""
    lines = ["i += SIZES0[b[i]]"]
    if connector:
        return [*lines, f"if not b.startswith({connector!r}, i): raise ValueError"]
    return [*lines, "if i >= len(b): raise ValueError"]


def _read(index: int, column: Column) -> list[str]:
    if column.form is Form.OTHER:
        return [f"v{index}, i = show{index}(b, i)", f"if v{index} is NULL: nulls += 1"]
    if column.null is None:
        return _value(index, column, 0)
    return [
        "m = b[i]",
        f"if m == {column.present}:",
        *_indent(_value(index, column, 1)),
        f"elif m == {column.null}: v{index} = NULL; i += 1" + ("; nulls += 1" if _suspect(column) else ""),
        "else: raise ValueError",
    ]


def _value(index: int, column: Column, by: int) -> list[str]:
    """Lines that read a value that begins `by` bytes from here."""
    here, behind, value = f"i + {by}" if by else "i", f"i + {by + 1}", f"v{index}"
    if column.form is Form.BOOLEAN:
        return [f"{value} = BOOLEANS[b[{here}]]; i += {by + 1}"]
    if column.form is Form.INTEGER:
        return [
            f"n = b[{here}]",
            f"if n < 128: {value} = INTEGERS[n]; i += {by + 1}",
            "else:",
            f"    m = b[{behind}]",
            f"    if m < 128: {value} = INTEGERS[n & 127 | m << 7]; i += {by + 2}",
            f"    elif b[{behind} + 1] < 128:",
            f"        n = n & 127 | (m & 127) << 7 | b[{behind} + 1] << 14; i += {by + 3}",
            f"        {value} = b'%d' % (n >> 1 ^ -(n & 1))",
            f"    else: n, i = long(b, {here}); {value} = b'%d' % n",
        ]
    if column.form is Form.NUMBER:
        return [f"{value}, i = show{index}(b, {here})"]
    if column.form in _FIXED:
        size = _FIXED[column.form]
        return [f"{value} = show{index}[b[{here}:i + {by + size}]]; i += {by + size}"]
    opening, closing = _SHOWN.get(column.form, ("", ""))
    opening = opening.replace("#", str(index))
    return [
        f"n = b[{here}]",
        f"if n < 128: j = i + SIZES{by}[n]; {value} = {opening}b[{behind}:j]{closing}; i = j",
        f"else: n, i = span(b, {here}); {value} = {opening}b[n:i]{closing}",
        *(line.replace("#", str(index)) for line in _AFTER.get(column.form, ())),
    ]


_HARMLESS: Final = (Form.BOOLEAN, Form.INTEGER, Form.NUMBER, Form.FOUR, Form.EIGHT, Form.REMEMBERED)
_FIXED: Final = {Form.FOUR: 4, Form.EIGHT: 8}
_SHOWN: Final = {Form.SIZED: ("show#(", ")"), Form.REMEMBERED: ("show#[", "]")}
_AFTER: Final = {
    # A backslash, an exponent of five digits, or very many digits: all that jsonb may refuse has one of them.
    Form.JSON: (
        "if 92 in v# or lower_exponent(v#) or 69 in v# and upper_exponent(v#) or len(v#) > 9999: refuse(#, v#)",
    ),
    Form.ZONED: ("if v#[4] != 45 or v# < b'0001': v# = show#(v#)",),
}


def _step(index: int, column: Column) -> list[str]:
    """Lines that step over a column."""
    if column.form is Form.OTHER:
        return [f"i = step{index}(b, i)[1]"]
    if column.null is None:
        return _step_value(column)
    return [
        "m = b[i]; i += 1",
        f"if m == {column.present}:",
        *_indent(_step_value(column)),
        f"elif m != {column.null}: raise ValueError",
    ]


def _step_value(column: Column) -> list[str]:
    if column.form is Form.BOOLEAN:
        return ["i += 1"]
    if column.form in (Form.INTEGER, Form.NUMBER):
        return ["while b[i] > 127: i += 1", "i += 1"]
    if column.form in _FIXED:
        return [f"i += {_FIXED[column.form]}"]
    return ["n = b[i]", "if n < 128: i += SIZES0[n]", "else: i = span(b, i)[1]"]


def _indent(lines: Sequence[str], by: int = 4) -> list[str]:
    return [" " * by + line for line in lines]
