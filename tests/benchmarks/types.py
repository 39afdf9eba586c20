"""`./tests/bench types`: what decoding and encoding costs in CPU by type, and for a mixed row of 20 columns.

The row's messages are pgoutput's, from a real server; each goes through the generated code that the stream uses
(message to key and value), through that of the snapshot (line of COPY to key and value), and through the general
decoder alone. A type's share is the difference between a row of ten such columns and a row of none, by ten. The values
of a column differ from row to row, so that nothing is remembered that a shop would not repeat.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2

from capture.postgres import pgoutput
from capture.postgres.catalogue import table_facts
from capture.snapshot.copytext import Frame, Outlet, line_writer, parse_copy_line
from deploy.embedded import Postgres
from schemas.model.change import Cells
from schemas.model.relation import Relation
from schemas.types.type_table import SESSION_SETTINGS
from schemas.writing.codec import Encoder, SourceOrigin, compile_codec

PREFIX = SourceOrigin("shop", "bench", "0").transaction(7, 1, 1, 1)
COLUMNS: dict[str, str] = {
    # type → an expression of the row's number n
    "bigint": "n::bigint * 1000003",
    "integer": "n",
    "smallint": "n % 3000",
    "boolean": "n % 2 = 0",
    "numeric(12,2)": "n * 1.37",
    "numeric": "n * 1.00037",
    "double precision": "n / 7.0",
    "real": "n / 3.0",
    "text": "'item number ' || n",
    "varchar(40)": "'SKU-' || n",
    "char(8)": "n::text",
    "uuid": "md5(n::text)::uuid",
    "timestamptz": "timestamptz '2026-01-01 00:00:00.123456+00' + n * interval '1.37 s'",
    "timestamp": "timestamp '2026-01-01 00:00:00.123456' + n * interval '1.37 s'",
    "date": "date '2024-01-01' + (n % 900)",
    "time": "time '00:00' + n * interval '1.000001 s'",
    "jsonb": "jsonb_build_object('id', n, 'name', 'item ' || n)",
    "bytea": "decode(md5(n::text), 'hex')",
    "interval": "n * interval '1 hour 1.5 s'",
    "text[]": "ARRAY['a' || n, NULL, 'c,d']",
}
OTHERS: dict[str, str] = {
    "integer[]": "ARRAY[n, n + 1, n + 2]",
    "inet": "inet '10.0.0.0' + n",
    "money": "n * 1.37",
    "bit(11)": "(n % 2000)::bit(11)",
    "point": "point(n / 7.0, n)",
    "timetz": "timetz '00:00+02' + n * interval '1.000001 s'",
    "int4range": "int4range(n, n + 5)",
    "mood": "CASE n % 2 WHEN 0 THEN 'sad' ELSE 'happy' END::mood",
}
_WIDE = 10


class Sent(NamedTuple):
    """A table's rows as the server sends them, and the encoder for them."""

    encoder: Encoder
    messages: list[bytes]
    lines: list[bytes]


class Cost(NamedTuple):
    """µs of CPU per row: decoding alone, a message to key and value, a line of COPY to key and value."""

    decode: float
    stream: float
    copy: float


def main() -> int:
    """Prints the table and the last line."""
    parser = argparse.ArgumentParser(prog="bench types", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=5, help="the least of them counts")
    parser.add_argument("--postgres", type=int, default=16, help="major version of the server")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ordertap-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with Postgres(folder / "postgres", options.postgres) as server:
            _run(server, options.rows, options.repeats)
    return 0


def _run(server: Postgres, rows: int, repeats: int) -> None:
    options = " ".join(f"-c {name}={value}" for name, value in SESSION_SETTINGS.items())
    connection = psycopg2.connect(server.create_database("bench"), options=options)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE PUBLICATION types FOR ALL TABLES")
        cursor.execute("SELECT pg_create_logical_replication_slot('types', 'pgoutput')")
    none = measure(send(connection, [], rows), repeats)
    print(f"{'µs of CPU':18}{'decode':>9}{'stream':>9}{'copy':>9}")
    _show("the row's frame", none)
    for name, expression in (COLUMNS | OTHERS).items():
        wide = measure(send(connection, [(name, expression)] * _WIDE, rows), repeats)
        _show(name, Cost(*((many - few) / _WIDE for many, few in zip(wide, none, strict=True))))
    mixed = measure(send(connection, list(COLUMNS.items()), rows), repeats)
    _show("mixed row", mixed)
    connection.close()
    print(
        f"types: a row of {len(COLUMNS)} columns takes {mixed.stream:.1f} µs from message to record,"
        f" {mixed.copy:.1f} µs from a line of COPY; decoding alone {mixed.decode:.1f} µs"
    )


def _show(name: str, cost: Cost) -> None:
    print(f"{name:18}" + "".join(f"{part:9.2f}" for part in cost), flush=True)


def send(connection: Any, columns: Sequence[tuple[str, str]], rows: int) -> Sent:
    """Makes a table of these columns and reads its rows back through pgoutput and COPY."""
    declared = "".join(f", c{index} {name} NOT NULL" for index, (name, _) in enumerate(columns))
    values = "".join(f", ({expression})::{name}" for name, expression in columns)
    lines: list[bytes] = []
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS t; CREATE TABLE t (id bigint PRIMARY KEY{declared})")
        cursor.execute(f"INSERT INTO t SELECT n{values} FROM generate_series(1, {int(rows)}) n")
        cursor.execute(
            "SELECT data FROM pg_logical_slot_get_binary_changes('types', NULL, NULL,"
            " 'proto_version', '1', 'publication_names', 'types')"
        )
        messages = [bytes(data) for (data,) in cursor.fetchall()]
        cursor.copy_expert("COPY t TO STDOUT", _Lines(lines.append))
    relation = next(pgoutput.decode_as(Relation, message) for message in messages if message[:1] == b"R")
    encoder = compile_codec("shop.public.t", relation, table_facts(connection, relation)).bind(1, 2)
    return Sent(encoder, [message for message in messages if message[:1] == b"I"], lines)


class _Lines(NamedTuple):
    """Takes what copy_expert writes: each call is a line."""

    write: Callable[[bytes], None]


def measure(sent: Sent, repeats: int) -> Cost:
    """The minimum of the repeats for each way."""
    record, tail, encoder = sent.encoder.record, "c", sent.encoder

    def careful(cells: Cells) -> tuple[bytes | None, bytes]:
        return encoder.key(cells), encoder.row(cells)

    def produce(*_: object) -> None:
        return None

    outlet = Outlet(produce, produce, "t", 0, [], lambda: None)
    write = line_writer(encoder.codec.layout, Frame(*encoder.read_frame(PREFIX, 1)), careful, outlet).write
    assert parse_copy_line(sent.lines[0][:-1])[0] == b"1"
    return Cost(
        _least(pgoutput.decode, sent.messages, repeats),
        _least(lambda message: record(message, PREFIX, 1, tail), sent.messages, repeats),
        _least(write, sent.lines, repeats),
    )


def _least(call: Callable[[bytes], object], inputs: list[bytes], repeats: int) -> float:
    spans = []
    for _ in range(repeats):
        began = time.thread_time()
        for each in inputs:
            call(each)
        spans.append((time.thread_time() - began) / len(inputs) * 1e6)
    return min(spans)


if __name__ == "__main__":
    sys.exit(main())
