"""Debezium's handling modes: to PostgreSQL, the records' values must be the values that it showed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from capture.postgres.catalogue import table_facts
from capture.snapshot.copytext import parse_copy_line
from deploy.embedded import Postgres
from schemas.types.type_table import Modes
from schemas.writing.codec import compile_codec
from tests.fix_postgres import AVAILABLE
from tests.integration.test_types import Row, copied, differing, fill, open_database, records, stream
from tests.integration.type_values import INTERVALS_WITH_MONTHS, TYPES, array_types

__all__ = ["open_database"]

EXACT: dict[str, tuple[Modes, dict[str, str]]] = {
    # mode → (modes, type → the type that it is staged as)
    "decimals as strings": (
        Modes(decimal_handling_mode="string"),
        {"numeric": "numeric", "numeric(12,2)": "numeric(12,2)", "numeric(5,-2)": "numeric",
         "numeric(3,5)": "numeric", "amounts": "numeric(10,2)", "money": "numeric", "numeric[]": "numeric[]"},
    ),
    "money with four digits": (Modes(money_fraction_digits=4), {"money": "numeric"}),
    "ISO strings": (
        Modes(time_precision_mode="isostring"),
        dict.fromkeys(("timestamp", "timestamp(0)", "timestamp(3)", "instant"), "timestamp")
        | {"date": "date", "time": "time", "time(3)": "time", "timestamp[]": "timestamp[]", "date[]": "date[]"},
    ),
    "microseconds": (
        Modes(time_precision_mode="microseconds"),
        {"time(3)": "time", "timestamp(0)": "timestamp", "timestamp": "timestamp", "date": "date"},
    ),
    "times in microseconds": (
        Modes(time_precision_mode="adaptive_time_microseconds"),
        {"time(3)": "time", "timestamp(3)": "timestamp(3)", "timestamp": "timestamp"},
    ),
    "milliseconds": (
        Modes(time_precision_mode="connect"),
        {"date": "date", "time(3)": "time(3)", "timestamp(3)": "timestamp(3)", "instant": "timestamp(3)"},
    ),
    "nanoseconds": (Modes(time_precision_mode="nanoseconds"), {"time": "time", "time(3)": "time", "date": "date"}),
    "base64": (Modes(binary_handling_mode="base64"), {"bytea": "bytea", "bytea[]": "bytea[]"}),
    "base64 for URLs": (Modes(binary_handling_mode="base64-url-safe"), {"bytea": "bytea", "bytea[]": "bytea[]"}),
    "hex": (Modes(binary_handling_mode="hex"), {"bytea": "bytea", "bytea[]": "bytea[]"}),
    "hstore as a map": (Modes(hstore_handling_mode="map"), {"text": "text", "hstore": "jsonb", "hstore[]": "jsonb[]"}),
    "intervals as strings": (
        Modes(interval_handling_mode="string"), {"interval": "interval", "interval day to second(3)": "interval"},
    ),
}  # fmt: skip


VALUES = TYPES | array_types()


@pytest.mark.parametrize("server", AVAILABLE, indirect=True)
@pytest.mark.parametrize("mode", EXACT)
def test_a_mode_is_read_back(open_database: Callable[[Postgres], Any], server: Postgres, mode: str) -> None:
    modes, expected = EXACT[mode]
    months = {"interval": INTERVALS_WITH_MONTHS} if modes.interval_handling_mode == "string" else {}
    if months and server.version < 17:
        months = {"interval": (INTERVALS_WITH_MONTHS[0][:-1], INTERVALS_WITH_MONTHS[1])}  # no infinite interval yet
    connection = open_database(server)
    with connection.cursor() as cursor:
        here = fill(cursor, {name: (VALUES | months)[name] for name in expected})
        relation, rows = stream(cursor)
        rows += [Row("snapshot", parse_copy_line(line[:-1])) for line in copied(cursor, relation)]
        codec = compile_codec("shop.public.t", relation, table_facts(connection, relation), modes=modes)
        reader, read = records(codec, rows)
        fields = dict(zip(here, codec.field_names[1:], strict=True))
        assert {name: reader.columns[field] for name, field in fields.items()} == {
            name: expected[name] for name in here
        }
        found = {
            name: differing(cursor, name, field, expected[name], read, exact="hstore" not in name)
            for name, field in fields.items()
        }
    assert {name: changed[:3] for name, changed in found.items() if changed} == {}


@pytest.mark.parametrize("name", ["numeric", "numeric(12,2)", "money"])
def test_a_number_as_a_double_is_the_nearest(
    open_database: Callable[[Postgres], Any], postgres: Postgres, name: str
) -> None:
    connection = open_database(postgres)
    with connection.cursor() as cursor:
        fill(cursor, {name: VALUES[name]})
        relation, rows = stream(cursor)
        codec = compile_codec("t", relation, None, modes=Modes(decimal_handling_mode="double"))
        reader, read = records(codec, rows)
        field = codec.field_names[1]
        assert reader.columns[field] == "double precision"
        cursor.execute(f'SELECT "{name}"::numeric::text FROM t ORDER BY id')
        shown = [text for (text,) in cursor.fetchall()]
    assert [repr(row[field]) for _, row in read] == [repr(None if text is None else float(text)) for text in shown]


def test_connect_cuts_off_what_is_below_a_millisecond(
    open_database: Callable[[Postgres], Any], postgres: Postgres
) -> None:
    connection = open_database(postgres)
    with connection.cursor() as cursor:
        fill(
            cursor,
            {"timestamp": (("1969-12-31 23:59:59.999999", "2024-01-01 00:00:00.123999"), VALUES["timestamp"][1])},
        )
        relation, rows = stream(cursor)
        _, read = records(compile_codec("t", relation, None, modes=Modes(time_precision_mode="connect")), rows)
        cursor.execute("SELECT date_trunc('milliseconds', timestamp) FROM t WHERE id IN (1, 2) ORDER BY id")
        assert [row["timestamp"] for _, row in read[1:3]] == [moment for (moment,) in cursor.fetchall()]
