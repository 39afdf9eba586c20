"""A row's layout in Avro, and the careful way to write it: cell by cell, with the name of a column that fails."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

from schemas.model.change import UNCHANGED, Cell, Cells
from schemas.model.errors import DataError
from schemas.types.encoders import FAILURES, NotedError, UnrepresentableError
from schemas.types.type_table import Kind
from schemas.writing.envelope import Field


class WidenError(Exception):
    """A NULL in a column that the catalogue calls NOT NULL. Compile again with the column as `nullable`, then repeat
    the row."""

    def __init__(self, column: str) -> None:
        super().__init__(column)
        self.column = column


@dataclass(frozen=True, slots=True)
class ColumnCodec:
    """One column: its kind, and the Avro bytes of its union's branches (`null`: None if NULL is not allowed). A
    `skipped` column is in the log's rows and in no record; its `encode` returns nothing. `default`: the bytes of the
    column's default, if the schema has it. `notes` collects notes on its values: (column, what)."""

    name: str
    field: Field
    kind: Kind
    present: bytes
    null: bytes | None
    skipped: bool = False
    default: bytes | None = None
    notes: set[tuple[str, str]] = dataclasses.field(default_factory=set, compare=False)

    def encode(self, cell: Cell) -> bytes:
        """Encodes one cell with every check. WidenError or DataError with the column's name."""
        if self.skipped:
            return b""
        if cell is UNCHANGED:
            return self.unsent()
        if cell is None:
            if self.null is None:
                raise WidenError(self.name)
            return self.null
        try:
            return self.present + self.kind.encode(cell)
        except NotedError as noted:
            return self._noted(cell, noted)
        except FAILURES as error:
            reason = str(error) if isinstance(error, UnrepresentableError) else "not a text of its type"
            hint = "capture this column as text (columns_as_text) or leave it out of the publication"
            raise DataError(f'column "{self.name}": {reason} ({len(cell)} bytes)', hint) from None

    def _noted(self, cell: bytes, noted: NotedError) -> bytes:
        self.notes.add((self.name, noted.what))
        made = None if self.kind.lenient is None else self.kind.lenient(cell)
        if made is not None:
            return self.present + made
        if self.null is None:
            raise WidenError(self.name)
        return self.null

    def unsent(self) -> bytes:
        """Stands in the record for a value that the log does not carry; the header names the column."""
        if self.kind.unavailable is not None:
            return self.present + self.kind.unavailable
        return self.zero() if self.null is None else self.null

    def unknown(self) -> bytes:
        """Stands for the column in an old row of which only the key was sent."""
        if self.default is not None:
            return self.present + self.default
        return self.zero() if self.null is None else self.null

    def zero(self) -> bytes:
        """Stands for "no value" in a field that allows no null."""
        return self.present + self.kind.encode(self.kind.zero)


class RowLayout(NamedTuple):
    """The columns of a table in order, and which of them are the key (indexes, in the key's order). `identity`: the
    columns of an old row of which only a part was sent (pgoutput's K)."""

    columns: tuple[ColumnCodec, ...]
    key: tuple[int, ...]
    identity: tuple[int, ...]

    def careful(self, cells: Cells) -> bytes:
        """The row cell by cell: slow, accepts UNCHANGED, and names the column that fails."""
        self._check(cells)
        return b"".join(column.encode(cell) for column, cell in zip(self.columns, cells, strict=True))

    def careful_key(self, cells: Cells) -> bytes:
        """The key cell by cell."""
        self._check(cells)
        return b"".join(self.columns[index].encode(cells[index]) for index in self.key)

    def key_only(self, cells: Cells) -> bytes:
        """An old row of which only the identity was sent. The other columns have their default, as in Debezium, else
        null, or zero if null is not allowed."""
        self._check(cells)
        parts = []
        for index, column in enumerate(self.columns):
            if not column.skipped:
                sent = index in self.identity
                parts.append(column.encode(cells[index]) if sent else column.unknown())
        return b"".join(parts)

    def _check(self, cells: Cells) -> None:
        if len(cells) != len(self.columns):
            raise DataError(f"a row of {len(cells)} values in a relation of {len(self.columns)} columns")
