"""The shop's log: every row change with its commit LSN and ordinal, through a slot of the proof's own."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg2

_OPS = {b"I": "c", b"U": "u", b"D": "d"}


class Logged(NamedTuple):
    """One change in the log. `xid`: the source transaction."""

    commit_lsn: int
    ordinal: int
    xid: int
    table: str
    op: str


@dataclass
class Witness:
    """A slot that is made before capture's and read once, at the end."""

    dsn: str
    publication: str
    slot: str = "proof"

    def create(self) -> None:
        """Makes the slot. Nothing escapes it from here on."""
        self._query("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (self.slot,))

    def read(self) -> list[Logged]:
        """All changes since `create`, in the log's order."""
        rows = self._query(
            "SELECT data FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL, 'proto_version', '1', "
            "'publication_names', %s, 'messages', 'true')",
            (self.slot, self.publication),
        )
        return decode([bytes(row[0]) for row in rows])

    def drop(self) -> None:
        """Drops the slot, which frees the log."""
        self._query("SELECT pg_drop_replication_slot(%s)", (self.slot,))

    def _query(self, statement: str, values: tuple[object, ...]) -> list[Any]:
        connection = psycopg2.connect(self.dsn)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement, values)
                return cursor.fetchall()
        finally:
            connection.close()


def decode(messages: list[bytes]) -> list[Logged]:
    """Decodes messages. Ordinals count rows, truncated tables and transactional messages of a transaction from 1, as
    capture must. Source: PostgreSQL manual, "Logical Replication Message Formats"."""
    tables: dict[int, str] = {}
    found: list[Logged] = []
    commit_lsn = xid = ordinal = 0
    for message in messages:
        kind = message[:1]
        if kind == b"B":
            commit_lsn, _, xid = struct.unpack_from(">QqI", message, 1)
            ordinal = 0
        elif kind == b"R":
            schema, name = message[5:].split(b"\0", 2)[:2]
            tables[struct.unpack_from(">I", message, 1)[0]] = f"{schema.decode()}.{name.decode()}"
        elif kind in _OPS:
            ordinal += 1
            table = tables[struct.unpack_from(">I", message, 1)[0]]
            found.append(Logged(commit_lsn, ordinal, xid, table, _OPS[kind]))
        elif kind == b"T":
            (count,) = struct.unpack_from(">I", message, 1)
            for oid in struct.unpack_from(f">{count}I", message, 6):
                ordinal += 1
                found.append(Logged(commit_lsn, ordinal, xid, tables[oid], "t"))
        elif kind == b"M" and message[1] & 1:
            ordinal += 1
    return found
