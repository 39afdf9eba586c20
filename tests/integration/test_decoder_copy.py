"""COPY reads the decoder's lines as the values that INSERT writes from the slow reader."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from psycopg2 import sql
from psycopg2.extras import execute_values

from capture.postgres.catalogue import table_facts
from capture.snapshot.copytext import parse_copy_line
from deploy.embedded import Postgres
from schemas.model.relation import Column, Relation
from schemas.types.type_table import Modes
from schemas.writing.codec import Codec, compile_codec
from sink.intake.decoder import Decoder, compile_decoder
from sink.intake.jsonb import unfit
from tests.integration.test_types import ORIGIN, copied, fill, open_database
from tests.integration.type_values import INTERVALS_WITH_MONTHS, TYPES, array_types
from tests.postgres_text import text
from tests.record_reader import row_reader

__all__ = ["open_database"]

ALL: dict[str, Modes] = {
    "default": Modes(),
    "strings": Modes(
        decimal_handling_mode="string",
        time_precision_mode="isostring",
        binary_handling_mode="base64",
        interval_handling_mode="string",
        hstore_handling_mode="map",
    ),
    "doubles": Modes(
        decimal_handling_mode="double",
        time_precision_mode="connect",
        binary_handling_mode="hex",
        money_fraction_digits=4,
    ),
    "nanoseconds": Modes(time_precision_mode="nanoseconds", binary_handling_mode="base64-url-safe"),
    "microseconds": Modes(time_precision_mode="microseconds"),
}


@pytest.fixture
def cursor(open_database: Callable[[Postgres], Any], postgres: Postgres) -> Iterator[Any]:
    with open_database(postgres).cursor() as opened:
        yield opened


def fitting(types: dict[str, Any]) -> dict[str, Any]:
    """The types' values, without JSON that the decoder refuses, which has its own test."""
    kept = {name: (tuple(edge for edge in edges if not unfit(edge)), some) for name, (edges, some) in types.items()}
    kept["interval"] = (INTERVALS_WITH_MONTHS[0][:-1], kept["interval"][1])  # before PostgreSQL 17 none is infinite
    kept["json[]"] = (("{}", "{NULL}", '{"\\"a\\\\\\\\b\\"",null}'), kept["json[]"][1])
    return kept


def relation_of(cursor: Any) -> Relation:
    """The table as the log describes it."""
    cursor.execute(
        "SELECT attname, atttypid, atttypmod, attnum = 1 FROM pg_attribute"
        " WHERE attrelid = 't'::regclass AND attnum > 0 ORDER BY attnum"
    )
    columns = tuple(Column(*row) for row in cursor.fetchall())
    cursor.execute("SELECT 't'::regclass::oid")
    return Relation(cursor.fetchone()[0], "public", "t", "d", columns)


def make(cursor: Any, name: str, decoder: Decoder) -> None:
    """Makes a staged table: the decoder's columns, and one for the tail."""
    columns = [sql.SQL("{} {}").format(sql.Identifier(c), sql.SQL(kind)) for c, kind in decoder.columns.items()]
    cursor.execute(
        sql.SQL('CREATE TABLE {} ({}, "#lsn" bigint)').format(sql.Identifier(name), sql.SQL(", ").join(columns))
    )


def stage_by_copy(cursor: Any, name: str, decoder: Decoder, values: list[bytes]) -> None:
    make(cursor, name, decoder)
    lines = [decoder.line(value, 5, b"423384100") for value in values]
    content = io.BytesIO(b"".join(line for line in lines if isinstance(line, bytes)))
    cursor.copy_expert(sql.SQL("COPY {} FROM STDIN (NULL E'\\x02')").format(sql.Identifier(name)), content)


def stage_by_insert(cursor: Any, name: str, codec: Codec, decoder: Decoder, values: list[bytes]) -> None:
    make(cursor, name, decoder)
    reader = row_reader(codec.value_schema)
    rows = []
    for value in values:
        row = reader.row(reader.record(value[5:])["after"])
        assert row is not None
        rows.append([text(row[column]) for column in decoder.columns])
    template = "(" + ", ".join(f"%s::{kind}" for kind in decoder.columns.values()) + ")"
    execute_values(cursor, f"INSERT INTO {name} VALUES %s", rows, template, page_size=len(rows))


def shown(cursor: Any, name: str, column: str) -> list[Any]:
    cursor.execute(
        sql.SQL("SELECT {0}::text FROM {1} ORDER BY id").format(sql.Identifier(column), sql.Identifier(name))
    )
    return [text for (text,) in cursor.fetchall()]


@pytest.mark.parametrize("modes", ALL.values(), ids=ALL)
def test_copy_gives_what_insert_gives(cursor: Any, modes: Modes) -> None:
    here = fill(cursor, fitting(TYPES | array_types()))
    assert len(here) > 150
    relation = relation_of(cursor)
    codec = compile_codec("shop.public.t", relation, table_facts(cursor.connection, relation), modes=modes)
    encoder, prefix = codec.bind(1, 2), ORIGIN.snapshot(0, 0)
    values = [encoder.read(prefix, 1, parse_copy_line(line[:-1])) for line in copied(cursor, relation)]
    decoder = compile_decoder(codec.value_schema)
    stage_by_copy(cursor, "by_copy", decoder, values)
    stage_by_insert(cursor, "by_insert", codec, decoder, values)
    wrong = {}
    for name, column in zip(["id", *here], decoder.columns, strict=True):
        copy, insert = shown(cursor, "by_copy", column), shown(cursor, "by_insert", column)
        assert len(copy) == len(values)
        if copy != insert:
            wrong[name] = [pair for pair in zip(copy, insert, strict=True) if pair[0] != pair[1]][:3]
    assert wrong == {}


@pytest.mark.parametrize(
    "value", ["\\", "\t", "\n", "\r", "\r\n", "\x02", "\\.", "\\N", "\\x41", "\\002", "\x02\\", "", "NULL"]
)
def test_every_text_is_taken_as_it_is(cursor: Any, value: str) -> None:
    cursor.execute("CREATE TABLE t (id int PRIMARY KEY, v text, n text, b bytea)")
    relation = relation_of(cursor)
    codec = compile_codec("shop.public.t", relation, table_facts(cursor.connection, relation))
    record = codec.bind(1, 2).read(ORIGIN.snapshot(0, 0), 1, (b"1", value.encode(), None, b"\\x5c0209"))
    stage_by_copy(cursor, "staged", compile_decoder(codec.value_schema), [record])
    cursor.execute('SELECT id, v, n, b::text, "#lsn" FROM staged')
    assert cursor.fetchall() == [(1, value, None, "\\x5c0209", 423384100)]
