"""PostgreSQL is the oracle for every type: it shows the values, through snapshot and stream, and what our reader makes
of the records must be the same values to PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import cycle, islice
from typing import Any, NamedTuple

import psycopg2
import pytest
from psycopg2 import sql
from psycopg2.extras import execute_values

from capture.postgres import pgoutput
from capture.postgres.catalogue import published_tables, table_facts
from capture.snapshot.copytext import Frame, Outlet, line_writer, parse_copy_line
from deploy.embedded import Postgres
from schemas.model.change import Cells
from schemas.model.relation import Column, ColumnFacts, Relation
from schemas.types.type_table import SESSION_SETTINGS, kind_of
from schemas.writing.codec import Codec, Encoder, SourceOrigin, compile_codec
from tests.fix_postgres import AVAILABLE
from tests.integration.type_values import EXTENSIONS, SETUP, TYPES, Values, array_types
from tests.record_reader import RowReader, row_reader

ROWS = 1 + max(len(edges) for edges, _ in TYPES.values())
"""NULL and the edge cases of a type."""
ORIGIN = SourceOrigin("shop", "test", "0")


class Row(NamedTuple):
    """A row as the server sent it: cells of COPY, or a message of pgoutput."""

    path: str
    sent: Cells | bytes


@pytest.fixture
def open_database(new_database: Callable[[Postgres, str], str]) -> Iterator[Callable[[Postgres], Any]]:
    """Opens a fresh database in a session whose text is capture's."""
    opened = []

    def connect(server: Postgres) -> Any:
        options = " ".join(f"-c {name}={value}" for name, value in SESSION_SETTINGS.items())
        connection = psycopg2.connect(new_database(server, "types"), options=options)
        connection.autocommit = True
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")
        connection.close()


class Streamed(NamedTuple):
    """What pgoutput sent: the last description of the table, and its rows."""

    relation: Relation
    rows: list[Row]


def stream(cursor: Any) -> Streamed:
    """What pgoutput has sent about the only table since the last call."""
    cursor.execute(
        "SELECT data FROM pg_logical_slot_get_binary_changes('types', NULL, NULL,"
        " 'proto_version', '1', 'publication_names', 'types')"
    )
    messages = [bytes(data) for (data,) in cursor.fetchall()]
    relations = [decoded for decoded in map(pgoutput.decode, messages) if isinstance(decoded, Relation)]
    return Streamed(relations[-1], [Row("stream", message) for message in messages if message[:1] == b"I"])


def start(cursor: Any) -> None:
    """Makes publication and slot."""
    cursor.execute("CREATE PUBLICATION types FOR ALL TABLES")
    cursor.execute("SELECT pg_create_logical_replication_slot('types', 'pgoutput')")


class _Lines:
    """Collects COPY's lines."""

    def __init__(self) -> None:
        self.content = b""

    def write(self, data: bytes) -> None:
        self.content += data


def copied(cursor: Any, relation: Relation) -> list[bytes]:
    """The lines by which the snapshot reads the table's rows."""
    lines = _Lines()
    columns = sql.SQL(", ").join(sql.Identifier(column.name) for column in relation.columns)
    query = sql.SQL("COPY (SELECT {} FROM {} ORDER BY id) TO STDOUT").format(columns, sql.Identifier(relation.name))
    cursor.copy_expert(query, lines)
    return [line + b"\n" for line in lines.content.split(b"\n")[:-1]]


def records(codec: Codec, rows: Sequence[Row]) -> tuple[RowReader, list[tuple[str, dict[str, Any]]]]:
    """The reader, and what it makes of the rows' records."""
    encoder, reader = codec.bind(1, 2), row_reader(codec.value_schema)
    prefix = ORIGIN.snapshot(0, 0)
    read = []
    for path, sent in rows:
        if isinstance(sent, bytes):
            cells = pgoutput.decode_as(pgoutput.Insert, sent).new
            value = encoder.create(prefix, 1, cells)
            assert encoder.record(sent, prefix, 1, "c") == (encoder.key(cells), value)
        else:
            value = encoder.read(prefix, 1, sent)
        after = reader.row(reader.record(value[5:])["after"])
        assert after is not None
        read.append((path, after))
    return reader, read


def back(value: Any) -> Any:
    """A value as text for the server, so that the driver's own conversions play no part."""
    if isinstance(value, list):
        return [back(item) for item in value]
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    return value if value is None or isinstance(value, str) else str(value)


def prepare(cursor: Any) -> None:
    """Makes the types, and starts streaming."""
    cursor.execute("SELECT name FROM pg_available_extensions WHERE name = ANY(%s)", [list(EXTENSIONS)])
    for (name,) in cursor.fetchall():
        cursor.execute(f"CREATE EXTENSION {name}")
        if name in DOMAINS:
            cursor.execute(f"CREATE DOMAIN {DOMAINS[name]} AS {name}")
    cursor.execute(SETUP)
    start(cursor)


def known(cursor: Any, name: str, values: Values) -> bool:
    """Whether this server has the type."""
    try:
        cursor.execute(f"SELECT %s::{name}", [values[0][-1]])
    except (psycopg2.errors.UndefinedObject, psycopg2.errors.FeatureNotSupported):  # a server without libxml
        return False
    return True


def make_table(cursor: Any, types: Sequence[str]) -> None:
    """A table `t` with a column of each type, named after it."""
    columns = ", ".join(f"{sql.Identifier(name).as_string(cursor)} {name}" for name in types)
    cursor.execute(f"DROP TABLE IF EXISTS t; CREATE TABLE t (id int PRIMARY KEY, {columns})")


def fill(cursor: Any, types: Mapping[str, Values]) -> list[str]:
    """Fills a table with the edge cases of each type that this server has. Returns those types."""
    prepare(cursor)
    here = [name for name in types if known(cursor, name, types[name])]
    make_table(cursor, here)
    values = [islice(cycle((None, *types[name][0])), ROWS) for name in here]
    insert(cursor, here, list(zip(*values, strict=True)))
    return here


def insert(cursor: Any, types: Sequence[str], rows: Sequence[Sequence[str | None]]) -> None:
    """Makes these rows the table's only ones."""
    template = f"(%s, {', '.join('%s::' + name for name in types)})"
    numbered = [(number, *row) for number, row in enumerate(rows)]
    execute_values(cursor, "TRUNCATE t; INSERT INTO t VALUES %s", numbered, template, page_size=len(rows))


INTERNAL = {
    "aclitem",
    "gtsvector",
    "pg_brin_bloom_summary",
    "pg_brin_minmax_multi_summary",
    "pg_dependencies",
    "pg_mcv_list",
    "pg_ndistinct",
    "pg_node_tree",
}
"""Types of PostgreSQL's own catalogue that travel as text, which the log says."""

WITHOUT_A_ROW = {"pair", "nested", "vector", "cube", "tags"}
"""The same for our types: composites, other extensions' types, and an array of a domain over an array."""

DOMAINS = {"citext": "emails", "hstore": "labels", "ltree": "paths"}
EXTENSION_TYPES = ("citext", "hstore", "ltree", "isbn", "vector(3)", "cube", *DOMAINS.values())
SAME = {
    "interval": "{back}::interval = {own}",  # a day and 24 hours are one length in µs
    "interval day to second(3)": "{back}::interval = {own}",
    "interval[]": "{back}::interval[] = {own}",
    "interval day to second(3)[]": "{back}::interval[] = {own}",
    "bit(1)": "{back}::int::text = {own}::text",
    "box[]": "{back}::box[]::text = {own}::text",  # its arrays have another delimiter than text's
    "bit(1)[]": "{back}::int[]::text = {own}::text",
    "hstore": "{back}::text::jsonb = hstore_to_jsonb({own})",
    "hstore[]": "{back}::jsonb[]::text[] = (SELECT array_agg(hstore_to_jsonb(e)) FROM unnest({own}) e)::text[]"
                " OR cardinality({own}) = 0",
}  # fmt: skip
SAME |= {"labels": SAME["hstore"], "labels[]": SAME["hstore[]"]}
"""How a value that came back is compared if its text may differ."""


def differing(
    cursor: Any, name: str, field: str, staged: str, read: list[tuple[str, dict[str, Any]]], exact: bool = False
) -> list[Any]:
    """The values that the server finds changed: (path, its text, what came back). `exact`: without SAME."""
    staged = staged.replace("jsonb", "text")  # json has no order and no equality, and may hold what jsonb refuses
    rows = [(row["id"], path, back(row[field])) for path, row in read]
    own = f"t.{sql.Identifier(name).as_string(cursor)}"
    # Bounds of arrays are not kept: the elements are compared, and NULL with NULL.
    plain = f"array(SELECT unnest({own}))" if staged.endswith("[]") else own
    by_text = "({back})::text::" + name + "::text = {own}::text"
    same = (by_text if exact else SAME.get(name, by_text)).format(back="back.v", own=plain)
    query = (
        f"SELECT back.path, {own}::text, back.v::text FROM t JOIN (VALUES %s) back (id, path, v) USING (id)"
        f" WHERE CASE WHEN {own}::text IS NULL THEN back.v IS NOT NULL ELSE ({same}) IS NOT TRUE END"
    )
    found: list[Any] = execute_values(cursor, query, rows, f"(%s, %s, %s::{staged})", page_size=len(rows), fetch=True)
    return found


@pytest.mark.parametrize("server", AVAILABLE, indirect=True)
@pytest.mark.parametrize("types", [TYPES, array_types()], ids=["scalars", "arrays"])
def test_every_value_of_every_type_comes_back(
    open_database: Callable[[Postgres], Any], server: Postgres, types: dict[str, Values]
) -> None:
    connection = open_database(server)
    with connection.cursor() as cursor:
        here = fill(cursor, types)
        absent = {name.removesuffix("[]") for name in types} - {name.removesuffix("[]") for name in here}
        assert absent <= {*EXTENSION_TYPES, "xml"}
        relation, rows = stream(cursor)
        (published,) = published_tables(connection, "types")
        assert published.relation == relation
        rows += [Row("snapshot", parse_copy_line(line[:-1])) for line in copied(cursor, relation)]
        assert len(rows) == 2 * ROWS
        codec = compile_codec("shop.public.t", relation, table_facts(connection, relation))
        assert {type_name.removeprefix("_") for _, type_name in codec.unknown_types} <= WITHOUT_A_ROW
        reader, read = records(codec, rows)
        changed = {}
        for name, field in zip(here, codec.field_names[1:], strict=True):
            if found := differing(cursor, name, field, reader.columns[field], read):
                changed[name] = (reader.columns[field], found[:3])
        assert changed == {}


def written(encoder: Encoder, lines: list[bytes]) -> list[tuple[bytes | None, bytes]]:
    """The keys and values that the snapshot's generated code makes from lines."""
    produced: list[tuple[bytes | None, bytes]] = []
    prefix = ORIGIN.snapshot(0, 0)

    def careful(cells: Cells) -> tuple[bytes | None, bytes]:
        return encoder.key(cells), encoder.row(cells)

    def produce(_topic: str, value: bytes, key: bytes | None, *_: object) -> None:
        produced.append((key, value))

    outlet = Outlet(produce, produce, "t", 0, [], lambda: None)
    write = line_writer(encoder.codec.layout, Frame(*encoder.read_frame(prefix, 1)), careful, outlet).write
    for line in lines:
        write(line)
    return produced


def one_column(connection: Any, declared: str, *values: str) -> tuple[RowReader, list[Any]]:
    """A table with a column `v`: its reader, and its values as they come back through the stream."""
    with connection.cursor() as cursor:
        start(cursor)
        cursor.execute(f"CREATE TABLE t (id int PRIMARY KEY, v {declared})")
        execute_values(cursor, "INSERT INTO t VALUES %s", list(enumerate(values)))
        relation, inserted = stream(cursor)
    codec = compile_codec("shop.public.t", relation, table_facts(connection, relation))
    reader, read = records(codec, inserted)
    return reader, [row["v"] for _, row in read]


@pytest.mark.parametrize(
    ("declared", "value", "type_name", "came_back"),
    [
        ("int[]", "{{1,NULL},{3,4}}", "integer[]", [1, None, 3, 4]),
        ("int[]", "[2:3][-1:0]={{1,2},{3,4}}", "integer[]", [1, 2, 3, 4]),
        ("text[]", '{{{"a,{b}\\\\"},{NULL}}}', "text[]", ["a,{b}\\", None]),
        ("int[][]", "{{1,NULL},{3,4}}", "text", "{{1,NULL},{3,4}}"),
        ("int[][]", "{1}", "text", "{1}"),
        ("grid", "{{1,2},{3,4}}", "text", "{{1,2},{3,4}}"),
        ("box[]", "{(1,1),(0,0);(2,2),(1,1)}", "text[]", ["(1,1),(0,0)", "(2,2),(1,1)"]),
        ("interval", "178000000 years", "interval", None),
    ],
)
def test_what_an_avro_type_cannot_hold_stops_nothing(
    open_database: Callable[[Postgres], Any],
    postgres: Postgres,
    declared: str,
    value: str,
    type_name: str,
    came_back: Any,
) -> None:
    connection = open_database(postgres)
    with connection.cursor() as cursor:
        cursor.execute("CREATE DOMAIN matrix AS int[][]; CREATE DOMAIN grid AS matrix")
    reader, (read,) = one_column(connection, declared, value)
    assert reader.columns["v"] == type_name
    assert read == (came_back or timedelta(microseconds=2**63 - 2))


@pytest.mark.parametrize("server", AVAILABLE, indirect=True)
def test_every_built_in_type_has_a_row(open_database: Callable[[Postgres], Any], server: Postgres) -> None:
    with open_database(server).cursor() as cursor:
        cursor.execute(
            "SELECT t.typname, t.oid FROM pg_type t LEFT JOIN pg_type e ON e.typarray = t.oid"
            " WHERE t.oid < 10000 AND t.typtype IN ('b', 'r', 'm') AND coalesce(e.typtype, '') NOT IN ('c', 'p')"
        )
        types = cursor.fetchall()
    without = {name.removeprefix("_") for name, oid in types if not kind_of(Column("v", oid), ColumnFacts()).known}
    assert without == INTERNAL
