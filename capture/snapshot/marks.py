"""The `source.snapshot` of rows in a first snapshot, in Debezium's words. Pure.

A mark is given only if it is certain when the row is written: no row waits for another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

Mark: TypeAlias = Literal["last", "first", "last_in_data_collection", "first_in_data_collection", "true"]
_STRONGEST_FIRST: Final[Sequence[Mark]] = (
    "last", "first", "last_in_data_collection", "first_in_data_collection", "true",
)  # fmt: skip


class Marks(NamedTuple):
    """The marks of a chunk's first and last row. The rows between have `true`."""

    first: Mark = "true"
    last: Mark = "true"

    @property
    def only(self) -> Mark:
        """The mark of a row that is both first and last."""
        return min(self, key=_STRONGEST_FIRST.index)


NO_MARKS: Final = Marks()


def marks(tables: Sequence[int], in_order: bool) -> list[Marks]:
    """The marks of each chunk. `tables`: the number of each chunk's table. `in_order`: chunks are read one after the
    other.

    If not, a table with several chunks has no marks, because any of its rows may be written first; and no row is the
    first or the last of all. Debezium does the same with several threads.
    """
    made = []
    for at, table in enumerate(tables):
        begins, ends = table not in tables[at - 1 : at], table not in tables[at + 1 : at + 2]
        if not in_order and not (begins and ends):
            made.append(NO_MARKS)
            continue
        first: Mark = "first_in_data_collection" if begins else "true"
        last: Mark = "last_in_data_collection" if ends else "true"
        if in_order:
            first, last = "first" if at == 0 else first, "last" if at == len(tables) - 1 else last
        made.append(Marks(first, last))
    return made
