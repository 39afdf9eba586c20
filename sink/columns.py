"""Text in columns, for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


def in_columns(names: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Lines with a heading. Columns are as wide as their content, numbers are right-aligned, None is `-`."""
    cells = [list(names), *([("-" if cell is None else str(cell)) for cell in row] for row in rows)]
    right = [all(row[i].lstrip("-").isdigit() or row[i] == "-" for row in cells[1:]) for i in range(len(names))]
    widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
    for row in cells:
        padded = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True))
        yield "  ".join(padded).rstrip()
