"""COPY's text format, as PostgreSQL writes it."""

import pytest

from capture.snapshot import parse_copy_line


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
