"""Staged tables made and filled by hand, for tests of their schema and of the SQL of a batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from schemas.model.change import Stamp
from schemas.model.lsn import LSN
from sink.database import Connection, connect, transaction
from sink.layer import migrate
from sink.staging import row_io
from sink.staging.batch import KeyChange
from sink.staging.schema import Catalogue, StagedTable

ORDERS = "public.orders"
COLUMNS: Mapping[str, str] = {"id": "bigint", "status": "text", "total": "numeric(12,2)", "note": "text"}

Row = Mapping[str, object]


def stamp(lsn: int, ordinal: int = 1, generation: int = 1) -> Stamp:
    return Stamp(generation, LSN(lsn), ordinal)


def lines(columns: Iterable[str], rows: Iterable[tuple[Row, Stamp]]) -> bytes:
    """COPY's text of rows that need no escapes."""
    listed = [[row[name] for name in columns] + [int(part) for part in at] for row, at in rows]
    return b"".join(
        "\t".join(row_io.NULL if value is None else str(value) for value in line).encode() + b"\n" for line in listed
    )


def key_change(old: int, new: int, at: Stamp) -> KeyChange:
    return KeyChange(ORDERS, (at.generation, int(at.commit_lsn), at.ordinal), {"id": str(old)}, {"id": str(new)})


class Copy:
    """A middle layer with staged tables, and their catalogue."""

    def __init__(
        self, url: str, reads: Mapping[str, frozenset[str] | None] | None = None, key: Sequence[str] = ("id",)
    ) -> None:
        self.url = url
        self.connection: Connection = connect(url, "ordertap_shop")
        migrate(self.connection, "shop")
        self.key = key
        self.catalogue = Catalogue("shop", {ORDERS: None} if reads is None else reads)

    def fit(self, columns: Mapping[str, str], at: Stamp, name: str = ORDERS) -> StagedTable:
        with transaction(self.connection) as cursor:
            return self.catalogue.fit(cursor, name, columns, self.key, at)

    def put(
        self,
        *rows: tuple[Row, Stamp],
        columns: Mapping[str, str] = COLUMNS,
        sent: Iterable[str] | None = None,
        snapshot: str | None = None,
        distinct: bool = False,
        name: str = ORDERS,
    ) -> int:
        """Writes rows of one set of columns and of sent columns as one batch. Returns how many were written."""
        sent = list(columns if sent is None else sent)
        with transaction(self.connection) as cursor:
            table = self.catalogue.fit(cursor, name, columns, self.key, max(at for _, at in rows))
            types = {column: columns[column] for column in sent}
            temp = row_io.new_table(cursor, table, types)
            row_io.copy_in(cursor, temp, lines(types, rows))
            return row_io.upsert(cursor, table, temp, sent, snapshot, distinct)

    def delete(self, *keys: tuple[Row, Stamp], name: str = ORDERS) -> int:
        with transaction(self.connection) as cursor:
            table = self.table(name)
            temp = row_io.new_table(cursor, table, {k: table.columns[k].type for k in table.key}, "delete")
            row_io.copy_in(cursor, temp, lines(table.key, keys))
            return row_io.delete(cursor, table, temp)

    def truncate(self, at: Stamp, name: str = ORDERS) -> int:
        with transaction(self.connection) as cursor:
            return row_io.truncate(cursor, self.catalogue, name, at)

    def vanish(self, at: Stamp, snapshot: str) -> int:
        with transaction(self.connection) as cursor:
            return row_io.vanish(cursor, self.table(), at, snapshot)

    def table(self, name: str = ORDERS) -> StagedTable:
        with self.connection.cursor() as cursor:
            return self.catalogue.loaded(cursor)[name]

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(query, values or None)
            return cursor.fetchall()

    def run(self, statement: str) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(statement)

    def shown(self, columns: str = "id, status, total, note") -> list[tuple[Any, ...]]:
        """The orders as a profile's SQL sees them."""
        return self.rows(f"SELECT {columns} FROM shop.orders ORDER BY id")

    def shown_rows(self, columns: str) -> list[tuple[Any, ...]]:
        """The same for a table without id."""
        return self.rows(f"SELECT {columns} FROM shop.orders")
