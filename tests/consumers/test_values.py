"""PostgreSQL's values in our records are the same as in Debezium's, digit by digit."""

import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import avro.schema
import psycopg2
import pytest

from capture.changes.tables import Tables
from capture.changes.versions import Versions
from capture.postgres import pgoutput
from capture.postgres.catalogue import table_facts
from capture.selection import Lists, Selection
from capture.snapshot.copytext import parse_copy_line
from deploy.embedded import Postgres
from schemas.process.settings import PURE_PYTHON
from schemas.types.encoders import FAILURES
from schemas.types.type_modes import Modes
from schemas.types.type_table import DEFAULT_MODES, SESSION_SETTINGS
from schemas.writing.codec import Codec, SourceOrigin, compile_codec
from schemas.writing.column_rules import ColumnRules
from schemas.writing.envelope import topic_name
from tests.integration.test_types import copied, start, stream
from tests.record_reader import row_reader
from tests.unit.schemas.examples import PREFIX


@pytest.fixture
def database(new_database: Callable[[Postgres, str], str], postgres: Postgres) -> Iterator[Any]:
    """A cursor whose text is capture's, in a fresh database with a publication and a slot."""
    options = " ".join(f"-c {name}={value}" for name, value in SESSION_SETTINGS.items())
    connection = psycopg2.connect(new_database(postgres, "consumers"), options=options)
    connection.autocommit = True
    with connection.cursor() as cursor:
        start(cursor)
        yield cursor
        cursor.execute("SELECT pg_drop_replication_slot('types')")
    connection.close()


class Read:
    """The table `t` as it comes through the stream and the snapshot, compiled and plain."""

    def __init__(self, cursor: Any, monkeypatch: pytest.MonkeyPatch, modes: Modes = DEFAULT_MODES) -> None:
        self.relation, self.inserted = stream(cursor)
        self.facts = table_facts(cursor.connection, self.relation)
        self.lines = copied(cursor, self.relation)
        self._patch = monkeypatch
        self.codec: Codec = compile_codec("shop.public.t", self.relation, self.facts, modes=modes)

    def rows(self) -> list[dict[str, Any]]:
        """The rows as fastavro reads them; every way of encoding must give the same."""
        prefix = SourceOrigin("shop", "test", "0").snapshot(0, 0)
        ways: list[list[bytes]] = []
        for pure in ("0", "1"):
            self._patch.setenv(PURE_PYTHON, pure)
            encoder = self.codec.bind(1, 2)
            cells = [pgoutput.decode_as(pgoutput.Insert, row.sent).new for row in self.inserted]  # type: ignore[arg-type]
            ways.append([encoder.create(prefix, 1, row) for row in cells])
            ways.append([])
            for row, careful in zip(self.inserted, ways[-2], strict=True):
                try:
                    ways[-1].append(encoder.record(row.sent, prefix, 1, "c")[1])
                except FAILURES:  # as capture does with an unusual row
                    ways[-1].append(careful)
            ways.append([encoder.create(prefix, 1, parse_copy_line(line[:-1])) for line in self.lines])
        assert all(way == ways[0] for way in ways)
        reader = row_reader(self.codec.value_schema)
        return [reader.record(value[5:])["after"] for value in ways[0]]


def test_a_timestamptz_has_the_digits_of_its_precision(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Source: Debezium's ZonedTimestamp, which shows exactly this many digits; a precision of 0 shows none."""
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, full_ timestamptz, none timestamptz(0), three timestamptz(3),"
        " a timestamptz[]);"
        "INSERT INTO t SELECT n, at, at, at, ARRAY[at, NULL] FROM (VALUES"
        " (1, timestamptz '2026-11-30 10:34:56.12+00'), (2, '2026-11-30 10:34:00Z'), (3, '0044-03-15 10:00:00.5Z BC'),"
        " (4, '10000-01-01 00:00:00Z')) v (n, at)"
    )
    shown = [(row["full_"], row["none"], row["three"]) for row in Read(database, monkeypatch).rows()]
    assert shown == [
        ("2026-11-30T10:34:56.120000Z", "2026-11-30T10:34:56Z", "2026-11-30T10:34:56.120Z"),
        ("2026-11-30T10:34:00.000000Z", "2026-11-30T10:34:00Z", "2026-11-30T10:34:00.000Z"),
        ("-0043-03-15T10:00:00.500000Z", "-0043-03-15T10:00:00Z", "-0043-03-15T10:00:00.500Z"),
        ("+10000-01-01T00:00:00.000000Z", "+10000-01-01T00:00:00Z", "+10000-01-01T00:00:00.000Z"),
    ]


def test_an_array_has_no_default(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Avro allows none with an element, because null comes first in the union of elements. Debezium writes none
    either."""
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, tags text[] NOT NULL DEFAULT '{}', more int[] DEFAULT '{1,2}');"
        "INSERT INTO t VALUES (1); INSERT INTO t VALUES (2, '{a}', NULL)"
    )
    read = Read(database, monkeypatch)
    fields = {field["name"]: field for field in read.codec.value_schema["fields"][0]["type"][1]["fields"]}
    assert avro.schema.parse(json.dumps(read.codec.value_schema)).name == "Envelope"
    assert fields["tags"] == {"name": "tags", "type": {"type": "array", "items": ["null", "string"]}}
    more = {"type": "array", "items": ["null", "int"]}
    assert fields["more"] == {"name": "more", "type": ["null", more], "default": None}
    assert read.rows() == [
        {"id": 1, "tags": [], "more": [1, 2]},
        {"id": 2, "tags": ["a"], "more": None},
    ]


NULLS = Modes(special_numbers="null")


def test_special_numbers_are_null_unless_they_are_wanted_exactly(
    database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debezium's sinks end with an error at a decimal that is not a number. A key keeps it, because null would not
    identify rows."""
    database.execute(
        "CREATE TABLE t (id numeric(5,1) PRIMARY KEY, fixed numeric(12,2), any_ numeric, a numeric[], d float8);"
        "INSERT INTO t VALUES (1, 1, 1, '{1,NaN,NULL}', 1), ('NaN', 'NaN', 'Infinity', '{-Infinity}', 'NaN')"
    )
    read = Read(database, monkeypatch, NULLS)
    usual, special = read.rows()
    assert (usual["fixed"], usual["any_"], special["fixed"], special["any_"]) == (
        b"d", {"scale": 0, "value": b"\x01"}, None, None,
    )  # fmt: skip
    assert (usual["a"], special["a"]) == ([{"scale": 0, "value": b"\x01"}, None, None], [None])
    assert special["id"] == (10**5).to_bytes(3, "big")
    assert math.isnan(special["d"])
    assert {column for column, _ in read.codec.notes} == {"fixed", "any_", "a"}
    exact = compile_codec("shop.public.t", read.relation, read.facts)
    assert exact.value_schema == read.codec.value_schema


def test_a_delete_by_key_shows_defaults_where_debezium_does(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, state text DEFAULT 'new', n int NOT NULL DEFAULT 7, note text,"
        " made timestamptz NOT NULL DEFAULT now(), tags text[] DEFAULT '{a}'); INSERT INTO t VALUES (1)"
    )
    read = Read(database, monkeypatch)
    gone = read.codec.bind(1, 2).delete(PREFIX, 1, (b"1", *[None] * 5), key_only=True)
    assert row_reader(read.codec.value_schema).record(gone[5:])["before"] == {
        "id": 1, "state": "new", "n": 7, "note": None, "made": "1970-01-01T00:00:00.000000Z", "tags": None,
    }  # fmt: skip


def test_a_label_that_an_enum_got_later_is_allowed_from_its_first_row_on(
    database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute("CREATE TYPE mood AS ENUM ('sad', 'ok')")
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, m mood, all_ mood[]); INSERT INTO t VALUES (1, 'ok', '{sad}')"
    )
    read = Read(database, monkeypatch)
    versions = Versions(
        partial(topic_name, "shop"), frozenset(), partial(table_facts, database.connection), lambda *_: 1,
        lambda _: None, lambda _: 1,
    )  # fmt: skip
    table = Tables(Selection(Lists()), True, versions).relation(read.relation)
    assert table is not None

    def written(number: int) -> tuple[Any, Any, list[str]]:
        (row,) = stream(database).rows
        value = table.insert(row.sent, PREFIX, number, b"1:1:1")[0][3]
        after = row_reader(table.encoder.codec.value_schema).record(value[5:])["after"]
        field = table.encoder.codec.value_schema["fields"][0]["type"][1]["fields"][1]
        return after["m"], after["all_"], field["type"][1]["connect.parameters"]["allowed"].split(",")

    database.execute("ALTER TYPE mood ADD VALUE 'happy'")
    database.execute("INSERT INTO t VALUES (2, 'happy', '{happy,NULL}')")
    assert written(2) == ("happy", ["happy", None], ["sad", "ok", "happy"])
    database.execute("INSERT INTO t VALUES (3, 'sad', NULL)")
    late = stream(database).rows[0]
    database.execute("ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'")
    table = Tables(Selection(Lists()), True, versions).relation(read.relation)
    assert table is not None
    value = table.insert(late.sent, PREFIX, 3, b"1:1:1")[0][3]  # the catalogue has forgotten this name
    assert row_reader(table.encoder.codec.value_schema).record(value[5:])["after"]["m"] == "sad"


def test_a_tsvector_has_debeziums_name(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, words tsvector); INSERT INTO t VALUES (1, 'a:1 b:2')")
    read = Read(database, monkeypatch)
    field = read.codec.value_schema["fields"][0]["type"][1]["fields"][1]
    assert field["type"][1] == {"type": "string", "connect.version": 1, "connect.name": "io.debezium.data.TsVector"}
    assert read.rows() == [{"id": 1, "words": "'a':1 'b':2"}]


def test_bits_are_debeziums_and_as_short(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Source: Debezium's PostgresValueConverter.convertBits, and what its own tests expect of B'00' and B'1000000'."""
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, b bit(11)); INSERT INTO t VALUES"
        " (1, B'00000000101'), (2, B'00000000000'), (3, B'10000000000'), (4, NULL)"
    )
    read = Read(database, monkeypatch)
    (field,) = (one for one in read.codec.value_schema["fields"][0]["type"][1]["fields"] if one["name"] == "b")
    assert field["type"][1]["connect.name"] == "io.debezium.data.Bits"
    assert field["type"][1]["connect.parameters"] == {"length": "11"}
    assert [row["b"] for row in read.rows()] == [b"\x05", b"", b"\x00\x04", None]
    assert row_reader(read.codec.value_schema).row({"id": 1, "b": b"\x05"}) == {"id": 1, "b": "00000000101"}


def test_bit_varying_is_a_text_and_keeps_its_length(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debezium's Bits could not tell these apart: they have only the number, in as few bytes as possible."""
    texts = ["0001", "01", "1", "", "0", "000"]
    database.execute("CREATE TABLE t (id int PRIMARY KEY, b bit varying(12))")
    for number, text in enumerate(texts):
        database.execute("INSERT INTO t VALUES (%s, %s)", [number, text])
    assert [row["b"] for row in Read(database, monkeypatch).rows()] == texts


def test_geometric_types_other_than_point_are_texts(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {
        "box": "(1,1),(0,0)", "circle": "<(0,0),1>", "line": "{1,-1,0}", "lseg": "[(0,0),(1,1)]",
        "path": "((0,0),(1,1))", "polygon": "((0,0),(1,1),(1,0))",
    }  # fmt: skip
    database.execute(f"CREATE TABLE t (id int PRIMARY KEY, {', '.join(f'{name}_ {name}' for name in row)})")
    database.execute("INSERT INTO t VALUES (1, %s, %s, %s, %s, %s, %s)", [*row.values()])
    assert Read(database, monkeypatch).rows() == [{"id": 1, **{f"{name}_": text for name, text in row.items()}}]


def test_an_array_of_two_dimensions_has_all_of_its_elements(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, a int[]); INSERT INTO t VALUES (1, '{{1,2},{3,NULL}}')")
    assert Read(database, monkeypatch).rows() == [{"id": 1, "a": [1, 2, 3, None]}]


def test_the_schema_says_what_a_column_is_in_postgresql(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lengths and scales are pgjdbc's, which Debezium asks: TypeInfoCache.getPrecision and getScale."""
    database.execute("CREATE DOMAIN price AS numeric(12,2); CREATE TYPE mood AS ENUM ('sad', 'ok')")
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v varchar(20), t text DEFAULT 'x', n numeric(10,3), price price,"
        " any_ numeric, other numeric, at timestamptz(3) NOT NULL, tags text[], mood mood, plain int);"
        "INSERT INTO t VALUES (1, 'a', NULL, 1, 2, 3, 4, '2026-11-30 10:00:00Z', '{a}', 'ok', 5)"
    )
    read = Read(database, monkeypatch)
    typed = frozenset(column.name for column in read.relation.columns) - {"plain"}
    codec = compile_codec("shop.public.t", read.relation, read.facts, rules=ColumnRules(typed=typed))

    def said(column: dict[str, Any]) -> tuple[str, ...]:
        branches = column["type"] if isinstance(column["type"], list) else [column["type"]]
        avro = next(branch for branch in branches if branch != "null")
        parameters = {} if isinstance(avro, str) else avro["connect.parameters"]
        return tuple(
            parameters.get(f"__debezium.source.column.{part}", "") for part in ("type", "length", "scale", "name")
        )

    unlimited = str(2**31 - 1)
    fields = {field["name"]: field for field in codec.value_schema["fields"][0]["type"][1]["fields"]}
    assert {name: said(field) for name, field in fields.items()} == {
        "id": ("INT4", "10", "0", "id"), "v": ("VARCHAR", "20", "0", "v"), "t": ("TEXT", unlimited, "0", "t"),
        "n": ("NUMERIC", "10", "3", "n"), "price": ("NUMERIC", "12", "2", "price"),
        "any_": ("NUMERIC", "131089", "0", ""), "other": ("", "", "", ""), "at": ("TIMESTAMPTZ", "32", "3", "at"),
        "tags": ("_TEXT", unlimited, "0", "tags"), "mood": ("MOOD", unlimited, "0", "mood"), "plain": ("", "", "", ""),
    }  # fmt: skip
    assert fields["n"]["type"][1]["connect.parameters"]["scale"] == "3"
    assert codec.key_schema == read.codec.key_schema
    assert avro.schema.parse(json.dumps(codec.value_schema)).name == "Envelope"
    usual, with_types = read.rows(), row_reader(codec.value_schema)
    ours = [
        with_types.record(codec.bind(1, 2).read(PREFIX, 1, parse_copy_line(line[:-1]))[5:])["after"]
        for line in read.lines
    ]
    assert ours == usual
    assert [with_types.row(row) for row in ours] == [row_reader(read.codec.value_schema).row(row) for row in usual]


def test_comments_are_in_the_schema_where_they_are_wanted(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a');"
        "COMMENT ON COLUMN t.v IS 'in words'; COMMENT ON COLUMN t.id IS 'of the shop'"
    )
    read = Read(database, monkeypatch)
    rules = ColumnRules(commented=True)
    commented = compile_codec("shop.public.t", read.relation, read.facts, rules=rules).value_schema
    docs = [
        [field.get("doc") for field in schema["fields"][0]["type"][1]["fields"]]
        for schema in (read.codec.value_schema, commented)
    ]
    assert docs == [[None, None], ["of the shop", "in words"]]
