"""What a real server sends: messages of pgoutput of every kind, lines of COPY, texts of every type."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import psycopg2
from psycopg2 import sql

from capture.postgres import pgoutput
from capture.postgres.catalogue import table_facts
from schemas.model.relation import Relation, TableFacts
from schemas.types.type_table import SESSION_SETTINGS
from tests.integration.test_types import copied, fill
from tests.integration.type_values import TYPES, array_types

_SOME = (
    "boolean", "integer", "bigint", "double precision", "numeric", "numeric(12,2)", "text", "bytea", "uuid", "jsonb",
    "date", "time", "timestamp", "timestamptz", "interval", "bit(11)", "mood", "point", "integer[]", "text[]",
)  # fmt: skip
_ROWS = 12


class Corpus(NamedTuple):
    """`messages` are of a table with columns of common types, `lines` of the same; `texts` by type."""

    relation: Relation
    facts: TableFacts
    messages: list[bytes]
    lines: list[bytes]
    types: Relation
    type_facts: TableFacts
    texts: dict[str, list[bytes]]


def collect(new_database: Callable[[str], str]) -> Corpus:
    """Makes two databases with `new_database` (from a name to an address), fills them, and reads what the server
    sends."""
    some = {name: (TYPES | array_types())[name] for name in _SOME}
    relation, facts, messages, lines, _ = _read(new_database("fuzz_some"), some, _changes)
    every = TYPES | array_types()
    types, type_facts, _, _, texts = _read(new_database("fuzz_every"), every, lambda _: None)
    return Corpus(relation, facts, messages, lines, types, type_facts, texts)


def _changes(cursor: Any) -> None:
    cursor.execute("ALTER TABLE t ALTER COLUMN text SET STORAGE EXTERNAL")
    cursor.execute("UPDATE t SET text = repeat('x', 9000) WHERE id = 1; UPDATE t SET integer = 5 WHERE id = 1")
    cursor.execute("UPDATE t SET id = id + 1000 WHERE id < 5; DELETE FROM t WHERE id = 5")
    cursor.execute("ALTER TABLE t REPLICA IDENTITY FULL")
    cursor.execute("UPDATE t SET integer = 7; DELETE FROM t WHERE id = 6")
    cursor.execute("SELECT pg_logical_emit_message(true, 'p', 'content'), pg_logical_emit_message(false, 'q', '')")
    cursor.execute("ALTER TABLE t ADD COLUMN more text DEFAULT 'x'; ALTER TABLE t DROP COLUMN more")
    cursor.execute("TRUNCATE t")


def _read(dsn: str, types: dict[str, Any], change: Callable[[Any], None]) -> tuple[Any, ...]:
    options = " ".join(f"-c {name}={value}" for name, value in SESSION_SETTINGS.items())
    connection = psycopg2.connect(dsn, options=options)
    connection.autocommit = True
    with connection.cursor() as cursor:
        here = fill(cursor, types)
        cursor.execute("DELETE FROM t WHERE id >= %s", [_ROWS])
        columns = [sql.Identifier(name) for name in here]
        cursor.execute(sql.SQL("SELECT {} FROM t").format(sql.SQL(", ").join(map(_as_text, columns))))
        shown = list(zip(*cursor.fetchall(), strict=True))
        texts = {
            name: [text.encode() for text in column if text is not None]
            for name, column in zip(here, shown, strict=True)
        }
        cursor.execute(
            "SELECT data FROM pg_logical_slot_peek_binary_changes('types', NULL, NULL,"
            " 'proto_version', '1', 'publication_names', 'types') WHERE get_byte(data, 0) = ascii('R')"
        )
        relation = pgoutput.decode_as(Relation, bytes(cursor.fetchone()[0]))
        facts = table_facts(connection, relation)
        lines = copied(cursor, relation)
        change(cursor)
        cursor.execute(
            "SELECT data FROM pg_logical_slot_get_binary_changes('types', NULL, NULL,"
            " 'proto_version', '1', 'publication_names', 'types', 'messages', 'true')"
        )
        messages = [bytes(data) for (data,) in cursor.fetchall()]
        cursor.execute("SELECT pg_drop_replication_slot('types')")
    connection.close()
    random.Random(0).shuffle(messages)
    return relation, facts, messages, lines, texts


def _as_text(column: sql.Identifier) -> sql.Composed:
    return sql.SQL("{}::text").format(column)
