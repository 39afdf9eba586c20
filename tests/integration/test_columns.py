"""Defaults, generated and identity columns, and growing enums: the catalogue, the stream and our schemas agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fastavro
import pytest

from capture.postgres import pgoutput
from capture.postgres.catalogue import published_tables, table_facts
from deploy.embedded import Postgres
from schemas.types.kind import Schema
from schemas.types.type_table import Modes
from schemas.writing.codec import Codec, compile_codec
from tests.fix_postgres import AVAILABLE
from tests.integration.test_types import ORIGIN, open_database, start, stream
from tests.record_reader import row_reader

__all__ = ["open_database"]

LITERALS = {
    "boolean": "true",
    "smallint": "-7",
    "integer": "5",
    "bigint": "9223372036854775807",
    "real": "1.5",
    "double precision": "-2.5e-300",
    "numeric": "-1.50",
    "numeric(12,2)": "3",
    "numeric(5,-2)": "1200",
    "money": "'12.5'",
    "text": "E'it''s \\\\ a\\ttab'",
    "varchar(20)": "'x'",
    "char(6)": "'ab'",
    "bpchar": "'ab'",
    "bytea": "'\\x00ff'",
    "uuid": "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
    "json": "'{\"a\": 1}'",
    "jsonb": "'[]'",
    "date": "'2024-02-29'",
    "time": "'12:30'",
    "time(3)": "'12:30:00.5'",
    "timestamp": "'2024-02-29 12:30:00.25'",
    "timestamp(3)": "'infinity'",
    "timestamptz": "'2024-02-29 12:30:00+02'",
    "timetz": "'12:30:00+02'",
    "interval": "'1 day 02:00'",
    "bit(3)": "B'101'",
    "bit(1)": "B'1'",
    "bit varying(5)": "B'101'",
    "inet": "'10.0.0.1'",
    "int4range": "'[1,5)'",
    "mood": "'so, so'",
    "amounts": "1.5",
    "text[]": "'{}'",
    "integer[]": "'{}'",
}
ROUNDED = {
    "timestamp(0)": ("'2024-12-31 23:59:59.5'", "'1999-12-31 23:59:58.5'", "'2024-01-01 10:00:00.4'"),
    "timestamp(3)": ("'2024-01-01 10:00:00.1235'", "'2024-01-01 10:00:00.5996'", "'2024-01-01 10:00:00.12'"),
    "timestamp(5)": ("'2024-01-01 10:00:00.123455'",),
    "timestamptz(2)": ("'2024-01-01 10:00:00.456+02'", "'2024-01-01 10:00:00.999+00'"),
    "time(0)": ("'12:00:01.5'", "'23:59:59.5'"),
    "time(3)": ("'12:00:00.1239'",),
    "timetz(1)": ("'12:00:00.55+02'", "'12:00:00.04-03:30'"),
    "numeric(5,-2)": ("1234", "-1250", "1249.9", "49"),
    "numeric(12,2)": ("1.239", "1.235", "-1.235", "2.5"),
    "numeric(3,5)": ("0.001235",),
    "amounts": ("1.995",),
    "char(3)": ("'abc  '",),
    "timestamp(0)[]": ("'{2024-01-01 10:00:00}'",),
}
FUNCTIONS = {
    "bigint": "nextval('numbers')",
    "timestamptz": "now()",
    "date": "CURRENT_DATE",
    "text": "CURRENT_USER",
    "uuid": "gen_random_uuid()",
    "numeric(12,2)": "random()",
    "point": "point(1, 2)",
    "mood": "'sad'::text::mood",
    "varchar(9)": "true",
    "integer": "5.7",
    "timestamp(0)": "'0044-03-15 10:00:00.6 BC'",
    "timestamp(0)[]": "'{2024-01-01 10:00:00.6}'",
}
USER_TYPES = """
    CREATE TYPE mood AS ENUM ('sad', 'so, so');
    CREATE DOMAIN amount AS numeric(10,2) DEFAULT 7; CREATE DOMAIN amounts AS amount;
    CREATE SEQUENCE numbers;
"""


def compiled(connection: Any, *rows: str, modes: Modes | None = None) -> tuple[Codec, list[dict[str, Any]]]:
    """The codec of what was streamed last, and the rows of its inserts as our reader sees them."""
    with connection.cursor() as cursor:
        for row in rows:
            cursor.execute(row)
        relation, inserted = stream(cursor)
    codec = compile_codec("s.public.t", relation, table_facts(connection, relation), modes=modes or Modes())
    encoder, reader = codec.bind(None, 1), row_reader(codec.value_schema)
    prefix = ORIGIN.transaction(1, 1, 1, 1)
    cells = [pgoutput.decode_as(pgoutput.Insert, bytes(row.sent)).new for row in inserted]  # type: ignore[arg-type]
    read = [reader.row(reader.record(encoder.create(prefix, 1, each)[5:])["after"]) for each in cells]
    return codec, [row for row in read if row is not None]


def fields(codec: Codec) -> dict[str, Schema]:
    """The fields of the codec's row, by name."""
    return {field["name"]: field for field in codec.value_schema["fields"][0]["type"][1]["fields"]}


def filled_in(codec: Codec) -> dict[str, Any]:
    """What an Avro reader fills in for columns that an older writer did not know, as our reader sees it."""
    fastavro.parse_schema(codec.value_schema)
    row = {name: _avro_value(field) for name, field in fields(codec).items() if "default" in field}
    shown = row_reader(codec.value_schema).row({"id": 1} | row)
    assert shown is not None
    return shown


def _avro_value(field: Schema) -> Any:
    """The default's value. Source: Avro specification, "Complex Types", field default values."""
    avro = field["type"][0] if isinstance(field["type"], list) else field["type"]
    kind = avro if isinstance(avro, str) else avro["type"]
    value = field["default"]
    if kind == "record":
        return {part["name"]: _avro_value(part | {"default": value[part["name"]]}) for part in avro["fields"]}
    return value.encode("latin-1") if kind == "bytes" else value


@pytest.mark.parametrize("server", AVAILABLE, indirect=True)
@pytest.mark.parametrize("constraint", ["", "NOT NULL"])
@pytest.mark.parametrize(
    "modes",
    [Modes(), Modes("string", "isostring", "hex", "string"), Modes("double", "microseconds")],
    ids=["Debezium's defaults", "strings", "numbers"],
)
def test_a_literal_default_is_the_value_that_the_server_fills_in(
    open_database: Callable[[Postgres], Any], server: Postgres, constraint: str, modes: Modes
) -> None:
    connection = open_database(server)
    literals = [*LITERALS.items(), *((name, value) for name, values in ROUNDED.items() for value in values)]
    columns = ", ".join(f"c{n} {name} DEFAULT {value} {constraint}" for n, (name, value) in enumerate(literals))
    with connection.cursor() as cursor:
        start(cursor)
        cursor.execute(USER_TYPES)
        cursor.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns})")
    codec, (inserted,) = compiled(connection, "INSERT INTO t (id) VALUES (1)", modes=modes)
    records = {"numeric"} if modes.decimal_handling_mode == "precise" else set()
    shown = {f"c{n}" for n, (name, _) in enumerate(literals) if not (name.endswith("[]") or name in records)}
    without = {name for name, field in fields(codec).items() if "default" not in field}
    assert without == (fields(codec).keys() - shown if constraint else {"id"}), "Debezium writes none of these"
    filled = filled_in(codec)
    assert {name: filled[name] for name in shown} == {name: inserted[name] for name in shown}


@pytest.mark.parametrize("server", AVAILABLE, indirect=True)
def test_a_default_that_is_computed_is_zero_where_null_is_not_allowed(
    open_database: Callable[[Postgres], Any], server: Postgres
) -> None:
    connection = open_database(server)
    columns = ", ".join(
        f'"{name}" {name} DEFAULT {value} NOT NULL, "{name}?" {name} DEFAULT {value}'
        for name, value in FUNCTIONS.items()
    )
    with connection.cursor() as cursor:
        start(cursor)
        cursor.execute(USER_TYPES)
        cursor.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns})")
    codec, _ = compiled(connection, "INSERT INTO t (id) VALUES (1)")
    fastavro.parse_schema(codec.value_schema)
    shown = list(fields(codec).values())[1:]
    assert [field.get("default", "none") for field in shown[::2]] == [
        0, "1970-01-01T00:00:00.000000Z", 0, "", "00000000-0000-0000-0000-000000000000", "\x00",
        "none", "sad", "", 0, 0, "none",
    ]  # fmt: skip
    assert [field["default"] for field in shown[1::2]] == [None] * len(FUNCTIONS)


@pytest.mark.parametrize("server", [18], indirect=True)
def test_a_not_null_that_was_not_validated_leaves_room_for_the_nulls_of_older_rows(
    open_database: Callable[[Postgres], Any], server: Postgres
) -> None:
    connection = open_database(server)
    with connection.cursor() as cursor:
        start(cursor)
        cursor.execute("CREATE TABLE t (id int PRIMARY KEY, old int, kept int NOT NULL)")
        cursor.execute("ALTER TABLE t ADD CONSTRAINT later NOT NULL old NOT VALID")
    codec, _ = compiled(connection, "INSERT INTO t VALUES (1, 2, 3)")
    assert fields(codec)["old"]["type"] == ["null", "int"]
    assert fields(codec)["kept"]["type"] == "int"


@pytest.mark.parametrize("server", AVAILABLE, indirect=True)
def test_an_enum_value_added_later_travels_and_is_allowed_once_the_catalogue_is_read_again(
    open_database: Callable[[Postgres], Any], server: Postgres
) -> None:
    connection = open_database(server)
    with connection.cursor() as cursor:
        start(cursor)
        cursor.execute("CREATE TYPE mood AS ENUM ('sad', 'happy')")
        cursor.execute("CREATE TABLE t (id int PRIMARY KEY, v mood, w mood[])")
    before, _ = compiled(connection, "INSERT INTO t VALUES (1, 'sad', '{sad}')")
    after, (row,) = compiled(
        connection, "ALTER TYPE mood ADD VALUE 'ok' AFTER 'sad'", "INSERT INTO t VALUES (2, 'ok', '{ok}')"
    )
    encoder, reader = before.bind(None, 1), row_reader(before.value_schema)
    late = reader.row(reader.record(encoder.create(ORIGIN.snapshot(0, 0), 1, (b"2", b"ok", b"{ok}"))[5:])["after"])
    assert late == row == {"id": 2, "v": "ok", "w": ["ok"]}
    allowed = [codec_fields["v"]["type"][1]["connect.parameters"] for codec_fields in (fields(before), fields(after))]
    assert allowed == [{"allowed": "sad,happy"}, {"allowed": "sad,ok,happy"}]
    assert fields(after)["w"]["type"][1]["items"][1]["connect.parameters"] == {"allowed": "sad,ok,happy"}


@pytest.mark.parametrize(
    "later",
    [
        "ALTER TABLE t DROP COLUMN v, DROP COLUMN w",
        "ALTER TABLE t RENAME v TO x; ALTER TABLE t RENAME w TO v",
        "ALTER TABLE t ALTER v TYPE int USING 1, ALTER w TYPE amounts USING 1",
        "DROP TABLE t",
    ],
)
def test_what_a_column_was_made_of_stays_known_when_the_catalogue_is_ahead(
    open_database: Callable[[Postgres], Any], postgres: Postgres, later: str
) -> None:
    connection = open_database(postgres)
    with connection.cursor() as cursor:
        start(cursor)
        cursor.execute(USER_TYPES)
        cursor.execute("CREATE TABLE t (id int PRIMARY KEY, v amounts, w mood[])")
        cursor.execute("INSERT INTO t VALUES (1, 1.5, '{sad}')")
        relation, _ = stream(cursor)
        then = compile_codec("s.public.t", relation, table_facts(connection, relation))
        cursor.execute(later)
    now = compile_codec("s.public.t", relation, table_facts(connection, relation))
    assert fields(now) == fields(then)


def test_a_table_is_read_in_the_order_of_its_identity_index_and_keyed_in_that_of_the_log(
    open_database: Callable[[Postgres], Any], postgres: Postgres
) -> None:
    """Otherwise each chunk of a snapshot on demand would sort the whole table."""
    connection = open_database(postgres)
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE t (a int NOT NULL, b int NOT NULL, c int NOT NULL, UNIQUE (c, a) INCLUDE (b));"
            "ALTER TABLE t REPLICA IDENTITY USING INDEX t_c_a_b_key; CREATE PUBLICATION p FOR TABLE t"
        )
        [published] = published_tables(connection, "p")
        codec = compile_codec("s.public.t", published.relation, table_facts(connection, published.relation))
        assert (codec.own_key, codec.key_columns) == (("c", "a"), ("a", "b", "c"))  # as it flags them
        cursor.execute("DROP TABLE t")
        assert table_facts(connection, published.relation).primary_key is None


@pytest.mark.parametrize("server", AVAILABLE, indirect=True)
def test_identity_and_generated_columns_are_alike_in_snapshot_and_stream(
    open_database: Callable[[Postgres], Any], server: Postgres
) -> None:
    connection = open_database(server)
    with connection.cursor() as cursor:
        start(cursor)
        cursor.execute(
            "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
            " n bigint GENERATED BY DEFAULT AS IDENTITY, a int DEFAULT 2,"
            " double int GENERATED ALWAYS AS (a * 2) STORED)"
        )
        if server.version >= 18:
            cursor.execute("ALTER PUBLICATION types SET (publish_generated_columns = stored)")
        cursor.execute("INSERT INTO t DEFAULT VALUES")
        relation, _ = stream(cursor)
        (published,) = published_tables(connection, "types")
        assert published.relation == relation
        codec, (row,) = compiled(connection, "INSERT INTO t (a) VALUES (5)")
    assert row == {"id": 2, "n": 2, "a": 5} | ({"double": 10} if server.version >= 18 else {})
    shown = fields(codec)
    assert [shown[name]["type"] for name in ("id", "n")] == ["int", "long"]
    assert "default" not in shown["id"]
    assert "default" not in shown["n"]
    assert shown["a"]["default"] == 2
    assert server.version < 18 or shown["double"]["default"] is None
