"""What the ERP's user may not do, if the database can tell without trying, as PostgreSQL can. Nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import sqlalchemy as sa

from sink.erp.kinds import KINDS
from sink.erp.sql.connections import ErpDatabase
from sink.erp.sql.mapping import Mapped

_OF_COLUMNS: Final = (
    "SELECT DISTINCT wanted.name FROM unnest(CAST(:names AS text[]), CAST(:columns AS text[])) AS wanted (name, col)"
    " WHERE NOT has_column_privilege(:table, wanted.col, wanted.name) ORDER BY wanted.name"
)
_OF_ROWS: Final = "SELECT has_table_privilege(:table, 'DELETE')"
# An identity needs no right of its own; a serial is a default that reads a sequence.
_OF_SEQUENCE: Final = (
    "SELECT pg_get_serial_sequence(:table, attname) FROM pg_attribute JOIN pg_attrdef ON adrelid = attrelid"
    " AND adnum = attnum WHERE attrelid = CAST(:table AS regclass) AND attname = :column AND attidentity = ''"
    " AND NOT has_sequence_privilege(pg_get_serial_sequence(:table, attname), 'USAGE')"
)


class Needed(NamedTuple):
    """What is done to a table: the columns that are read and written, and whether rows are inserted and deleted."""

    table: str
    read: set[str]
    written: set[str]
    added: set[str]
    id: str = ""
    deleted: bool = False


class Lacking(NamedTuple):
    """Rights that the user does not have on a table, or a sequence of it."""

    on: str
    rights: list[str]
    user: str

    @property
    def fix(self) -> str:
        """The GRANT statement."""
        return f"GRANT {', '.join(self.rights)} ON {self.on} TO {self.user}"

    @property
    def said(self) -> str:
        """For people."""
        return f"the user {self.user} may not {', '.join(self.rights)} {self.on}"


def lacking(database: ErpDatabase) -> list[Lacking]:
    """The missing rights; none if the database cannot be asked."""
    if database.dialect != "postgresql":
        return []
    found = []
    with database.connection() as connection:
        user = connection.exec_driver_sql("SELECT quote_ident(current_user)").scalar_one()
        for needed in _needed(database.mapping):
            table = database.quoted(needed.table)
            if rights := _without(connection, table, needed):
                found.append(Lacking(table, rights, user))
            query = sa.text(_OF_SEQUENCE)
            for name in connection.execute(query, {"table": table, "column": needed.id}).scalars():
                found.append(Lacking(f"SEQUENCE {name}", ["USAGE"], user))
    return found


def _needed(mapping: Mapped) -> Iterator[Needed]:
    yield Needed(mapping.identity.table, {mapping.identity.column}, set(), set())
    yield Needed(mapping.items.table, {mapping.items.sku}, set(), set())
    for kind in KINDS:
        head = mapping.of(kind)
        yield Needed(head.table, head.columns, head.written - {head.key}, head.written, head.id)
        if rows := head.lines:
            changed = rows.written - {rows.key, rows.parent}
            yield Needed(rows.table, rows.columns, changed, rows.written, rows.id, deleted=True)


def _without(connection: sa.Connection, table: str, needed: Needed) -> list[str]:
    """The rights that are missing. A right on a column counts like one on the whole table."""
    wanted = [(name, column) for name, some in (("SELECT", needed.read), ("INSERT", needed.added),
                                                ("UPDATE", needed.written)) for column in sorted(some)]  # fmt: skip
    given = {"table": table, "names": [name for name, _ in wanted], "columns": [column for _, column in wanted]}
    found = list(connection.execute(sa.text(_OF_COLUMNS), given).scalars())
    if needed.deleted and not connection.execute(sa.text(_OF_ROWS), {"table": table}).scalar():
        found.append("DELETE")
    return found
