"""Values of each type, made by hypothesis: the server prints them for stream and snapshot, both ways give the same
bytes, and to the server, what our reader makes of them is the same value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from capture.postgres import pgoutput
from capture.postgres.catalogue import table_facts
from deploy.embedded import Postgres
from schemas.types.type_table import SESSION_SETTINGS, Modes
from schemas.writing.codec import compile_codec
from tests.integration.test_type_modes import EXACT
from tests.integration.test_types import (
    EXTENSION_TYPES,
    ORIGIN,
    copied,
    differing,
    insert,
    known,
    make_table,
    prepare,
    stream,
    written,
)
from tests.integration.type_values import INTERVALS_WITH_MONTHS, TYPES, array_types
from tests.record_reader import row_reader

VALUES = TYPES | array_types()
MODES = {(mode, name): modes for mode, (modes, types) in EXACT.items() for name in types}


@pytest.fixture(scope="module")
def types_database(postgres: Postgres) -> Iterator[Any]:
    """A database with all of our types, in a session whose text is capture's."""
    options = " ".join(f"-c {name}={value}" for name, value in SESSION_SETTINGS.items())
    connection = psycopg2.connect(postgres.create_database("type_oracle"), options=options)
    connection.autocommit = True
    with connection.cursor() as cursor:
        prepare(cursor)
        yield connection
        cursor.execute("SELECT pg_drop_replication_slot('types')")
    connection.close()


@pytest.mark.parametrize(
    ("mode", "name"), [*((None, name) for name in VALUES), *MODES], ids=lambda part: part or "default"
)
def test_a_value_comes_back_by_stream_and_snapshot_alike(types_database: Any, mode: str | None, name: str) -> None:
    modes, staged = (Modes(), None) if mode is None else (MODES[mode, name], EXACT[mode][1][name])
    edges, values = VALUES[name]
    if name == "interval" and modes.interval_handling_mode == "string":
        edges, values = INTERVALS_WITH_MONTHS[0][:-1], INTERVALS_WITH_MONTHS[1]  # no infinite interval before 17
    with types_database.cursor() as cursor:
        if not known(cursor, name, VALUES[name]):
            assert name.removesuffix("[]") in (*EXTENSION_TYPES, "xml")
            return
        make_table(cursor, [name])
        cursor.execute("INSERT INTO t VALUES (0)")
        relation, _ = stream(cursor)
        codec = compile_codec("shop.public.t", relation, table_facts(types_database, relation), modes=modes)
        encoder, reader, prefix = codec.bind(1, 2), row_reader(codec.value_schema), ORIGIN.snapshot(0, 0)
        field = str(codec.field_names[1])

        @settings(
            max_examples=10,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )
        @example([None, *edges])
        @given(st.lists(st.none() | values, min_size=1, max_size=40))
        def comes_back(texts: list[str | None]) -> None:
            insert(cursor, [name], [(text,) for text in texts])
            messages = [bytes(row.sent) for row in stream(cursor).rows]  # type: ignore[arg-type]
            streamed = [encoder.record(message, prefix, 1, "r") for message in messages]
            cells = [pgoutput.decode_as(pgoutput.Insert, message).new for message in messages]
            assert streamed == [(encoder.key(row), encoder.read(prefix, 1, row)) for row in cells]
            assert streamed == written(encoder, copied(cursor, relation))
            read = [("both", reader.row(reader.record(value[5:])["after"]) or {}) for _, value in streamed]
            exact = mode is not None and "hstore" not in name
            assert differing(cursor, name, field, staged or reader.columns[field], read, exact) == []

        comes_back()
