"""The minimum that any copy of a shop costs: COPY into a temporary table and one INSERT … ON CONFLICT, without marks.

The rows are those of the backlog, in the order of the shop's log.
"""

from __future__ import annotations

import io
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing

import psycopg2
from psycopg2 import sql

from tests.benchmarks.sink_shop import COLUMNS, PUBLICATION, TABLES
from tests.proof.history import Message

_BATCH = 5_000
_SLOT = "bench_rows"


class BareUpsert:
    """Made before the backlog: a slot that keeps its rows, and tables in a schema of their own with the rows from
    before."""

    def __init__(self, shop: str, middle: str) -> None:
        self._shop = shop
        self._middle = middle
        self._batches: list[tuple[str, str]] = []
        self._before = {table: self._copy_out(table) for table in TABLES}
        self._run(shop, f"SELECT pg_create_logical_replication_slot('{_SLOT}', 'pgoutput')")
        self._run(middle, f"CREATE SCHEMA bare; SET search_path = bare; {COLUMNS}")

    def take_rows(self) -> int:
        """Reads the backlog's rows from the log and lets it go. Returns how many."""
        lines: dict[str, list[str]] = defaultdict(list)
        count = 0
        for table, line in _logged(self._shop):
            count += 1
            lines[table].append(line)
            if len(lines[table]) == _BATCH:
                self._batches.append((table, "".join(lines.pop(table))))
        self._batches += [(table, "".join(rest)) for table, rest in lines.items()]
        self._run(self._shop, f"SELECT pg_drop_replication_slot('{_SLOT}')")
        return count

    def rows_per_second(self) -> float:
        """One run, starting from the tables as they were before the backlog."""
        with closing(psycopg2.connect(self._middle)) as connection, connection.cursor() as cursor:
            cursor.execute("SET search_path = bare")
            for table, text in self._before.items():
                cursor.execute(f"TRUNCATE {table}")
                cursor.copy_expert(f"COPY {table} FROM STDIN", io.StringIO(text))
                cursor.execute(f"CREATE TEMPORARY TABLE new_{table} (LIKE {table}) ON COMMIT DELETE ROWS")
            connection.commit()
            statements = {table: _upsert(cursor, table) for table in TABLES}
            rows = 0
            began = time.perf_counter()
            for table, text in self._batches:
                cursor.copy_expert(f"COPY new_{table} FROM STDIN", io.StringIO(text))
                cursor.execute(statements[table])
                rows += cursor.rowcount
                connection.commit()
            return rows / (time.perf_counter() - began)

    def _copy_out(self, table: str) -> str:
        out = io.StringIO()
        with closing(psycopg2.connect(self._shop)) as connection, connection.cursor() as cursor:
            cursor.copy_expert(f"COPY {table} TO STDOUT", out)
        return out.getvalue()

    @staticmethod
    def _run(dsn: str, statement: str) -> None:
        with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(statement)


def _upsert(cursor: psycopg2.extensions.cursor, table: str) -> sql.Composed:
    cursor.execute(f"SELECT * FROM {table} LIMIT 0")
    names = [column[0] for column in cursor.description or ()]
    changes = sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in names[1:])
    return sql.SQL("INSERT INTO {} SELECT * FROM {} ON CONFLICT (id) DO UPDATE SET {}").format(
        sql.Identifier(table), sql.Identifier(f"new_{table}"), changes
    )


def _logged(dsn: str) -> Iterator[tuple[str, str]]:
    """Table and COPY line of each inserted or updated row. The benchmark's values need no escapes."""
    names: dict[int, str] = {}
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor("rows") as cursor:
        cursor.itersize = 10_000
        cursor.execute(
            "SELECT data FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL, 'proto_version', '1',"
            " 'publication_names', %s)",
            (_SLOT, PUBLICATION),
        )
        for (data,) in cursor:
            message = Message(bytes(data))
            if message.kind == b"R":
                oid, name, _ = message.relation()
                names[oid] = name.rpartition(".")[2]
            elif message.kind in (b"I", b"U"):
                table = names[message.oid()]
                yield table, "\t".join(dict(message.tuples())[b"N"]) + "\n"
