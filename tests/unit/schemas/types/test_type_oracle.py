"""PostgreSQL is the oracle: what our reader gives for a value must be, to the server, that value."""

import io
from collections.abc import Iterator
from typing import Any

import fastavro
import psycopg2
import psycopg2.extensions
import pytest

from schemas.model.errors import DataError
from schemas.model.relation import Column, ColumnFacts, Relation, TableFacts
from schemas.types.type_table import SESSION_SETTINGS
from schemas.writing.codec import SourceOrigin, compile_codec
from tests.record_reader import row_reader

ORIGIN = SourceOrigin("shop", "test", "0")
EXTRA_TYPES = """
CREATE TYPE mood AS ENUM ('sad', 'so, so', 'happy "ß"');
CREATE DOMAIN amount AS numeric(10,2) CHECK (value > -1000);
CREATE DOMAIN amounts AS amount;
CREATE DOMAIN moods AS mood;
CREATE TYPE pair AS (a int, b text);
"""

CASES: dict[str, list[str]] = {
    "boolean": ["true", "false"],
    "smallint": ["-32768", "0", "32767"],
    "integer": ["-2147483648", "63", "64", "-64", "-65", "8191", "8192", "2147483647"],
    "bigint": ["-9223372036854775808", "9223372036854775807", "134217727", "134217728", "-134217729"],
    "oid": ["0", "4294967295"],
    "real": ["1.5", "0.1", "3.4028235e38", "1e-45", "NaN", "Infinity", "-Infinity"],
    "double precision": ["0.1", "1.7976931348623157e308", "5e-324", "-0", "NaN", "Infinity", "-Infinity"],
    "text": ["", "plain", 'a "quoted" \\ text', "äöü € 𝄞", "two\nlines\ttab", "NULL", "{}"],
    "varchar(12)": ["varchar"],
    "char(6)": ["ab"],
    '"char"': ["q"],
    "name": ["a_name"],
    "numeric(12,2)": ["0", "0.01", "-0.01", "1.27", "1.28", "-1.28", "-1.29", "9999999999.99", "-9999999999.99", "NaN"],
    "numeric(5,0)": ["0", "-99999", "12345", "NaN"],
    "numeric(38,10)": ["1234567890123456789012345678.0123456789", "-0.0000000001"],
    "numeric": ["0", "1.10", "-3", "1e400", "1e-300", "NaN", "Infinity", "-Infinity"],
    "numeric(5,-2)": ["12300", "-4500", "NaN"],
    "numeric(3,5)": ["0.00123", "-0.00999"],
    "money": ["0", "1234567.89", "-1234.56"],
    "date": ["2024-02-29", "1970-01-01", "0001-01-01", "0001-12-31 BC", "4713-01-01 BC", "9999-12-31", "10000-01-01",
             "5874897-12-31", "infinity", "-infinity"],
    "time": ["00:00:00", "23:59:59.999999", "24:00:00", "12:30:00.5"],
    "time(3)": ["12:34:56.789", "24:00:00"],
    "time with time zone": ["12:34:56.789123+02", "00:00:00-11:30", "10:00:00+00"],
    "timestamp": ["2024-02-29 12:34:56.789123", "1969-12-31 23:59:59.999999", "0044-03-15 12:00:00 BC",
                  "0001-01-01 00:00:00", "9999-12-31 23:59:59.999999", "12345-06-07 08:09:10.5",
                  "294246-12-31 23:59:59", "4714-11-24 00:00:00 BC", "infinity", "-infinity"],
    "timestamp(3)": ["2024-02-29 12:34:56.789", "1969-12-31 23:59:59.999", "0044-03-15 12:00:00 BC", "infinity",
                     "-infinity"],
    "timestamp(0)": ["2024-02-29 12:34:56"],
    "timestamptz": ["2024-02-29 12:34:56.789123+02", "2024-02-29 12:34:56+00", "0044-03-15 12:00:00+00 BC",
                    "0001-12-31 12:00:00.25+00 BC", "12345-06-07 08:09:10.5+00", "infinity", "-infinity"],
    "interval": ["0", "1 day 02:03:04.5", "-1 day -02:03:04.000001", "-00:00:01", "3 days -04:05:06", "100000000 days"],
    "json": ['{"a": 1,  "b":[1,2]}', "null"],
    "jsonb": ['{"ä": "€\\n"}', "[]"],
    "uuid": ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
    "bytea": ["", "\\x00ff10", "\\x5c78"],
    "inet": ["192.168.0.1/24", "::1"],
    "cidr": ["10.0.0.0/8"],
    "macaddr": ["08:00:2b:01:02:03"],
    "bit(1)": ["1", "0"],
    "bit(11)": ["00000000001", "10000000000", "01010101010"],
    "bit varying(12)": ["", "0010", "10"],
    "int4range": ["[1,5)", "empty"],
    "mood": ["sad", "so, so", 'happy "ß"'],
    "moods": ["sad"],
    "amount": ["12.3", "-999.99"],
    "amounts": ["12.34"],
    "pair": ['(1,"a b")'],
    "integer[]": ["{}", "{1,NULL,-3}"],
    "bigint[]": ["{9223372036854775807}"],
    "boolean[]": ["{t,f,NULL}"],
    "text[]": ["{}", '{a,"b c",NULL,"NULL","","q\\"x","back\\\\slash","{br,ace}"}'],
    "numeric(10,2)[]": ["{1.00,-2.50,NULL}"],
    "date[]": ["{2024-02-29,infinity}"],
    "timestamp[]": ['{"2024-02-29 12:34:56",NULL}'],
    "timestamptz[]": ['{"2024-02-29 12:34:56+02"}'],
    "uuid[]": ["{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}"],
    "mood[]": ['{"so, so",sad,"happy \\"ß\\""}'],
    "pair[]": ['{"(1,a)"}'],
}  # fmt: skip


SAME: dict[str, str] = {
    "json": "%s::jsonb::text = %s::jsonb::text",  # staged as jsonb: its blanks are not part of the value
    "interval": "%s::interval = %s::interval",  # 24 hours and a day are equal, and one length in Avro
    "bit(1)": "%s::boolean::int::text = %s",
}
"""How two values are compared where their texts may differ."""


@pytest.fixture
def connection(database: str) -> Iterator[Any]:
    options = " ".join(f"-c {name}={value}" for name, value in SESSION_SETTINGS.items() if name != "client_encoding")
    opened = psycopg2.connect(database, options=options, client_encoding="UTF8")
    opened.autocommit = True
    yield opened
    opened.close()


def facts_of(cursor: Any, oid: int) -> ColumnFacts:
    """A type in the catalogue: domains resolved to their base, enum labels of the type or its element."""
    cursor.execute(
        """
        WITH RECURSIVE chain AS (
            SELECT oid, typbasetype, typtypmod, typtype FROM pg_type WHERE oid = %(oid)s
            UNION ALL
            SELECT t.oid, t.typbasetype, CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE c.typtypmod END, t.typtype
            FROM chain c JOIN pg_type t ON t.oid = c.typbasetype WHERE c.typtype = 'd'
        ), base AS (SELECT oid, typtypmod FROM chain WHERE typtype <> 'd')
        SELECT t.typname, t.typtype, CASE WHEN t.typtype = 'd' THEN base.oid::int ELSE 0 END,
               CASE WHEN t.typtype = 'd' THEN base.typtypmod ELSE -1 END,
               CASE WHEN t.typcategory = 'A' THEN t.typelem::int ELSE 0 END,
               ARRAY(SELECT enumlabel::text FROM pg_enum
                     WHERE enumtypid IN (base.oid, t.typelem) ORDER BY enumsortorder)
        FROM pg_type t, base WHERE t.oid = %(oid)s
        """,
        {"oid": oid},
    )
    name, kind, base, typmod, element, labels = cursor.fetchone()
    return ColumnFacts(
        type_name=name, type_kind=kind, base_oid=base, base_typmod=typmod, element_oid=element, labels=tuple(labels)
    )


def shown_values(cursor: Any, sql_type: str) -> tuple[Column, list[bytes]]:
    """A table with the type's cases: the column as the log would describe it, and PostgreSQL's own text of each."""
    cursor.execute(f"CREATE TABLE t (i serial, v {sql_type})")
    cursor.executemany("INSERT INTO t (v) VALUES (%s)", [(value,) for value in CASES[sql_type]])
    return column_and_texts(cursor)


def column_and_texts(cursor: Any) -> tuple[Column, list[bytes]]:
    """The column v of the table t, and the server's text of each of its values."""
    cursor.execute("SELECT atttypid, atttypmod FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'v'")
    oid, typmod = cursor.fetchone()
    cursor.execute("SELECT v FROM t LIMIT 0")
    code = cursor.description[0].type_code
    raw = psycopg2.extensions.new_type((code,), "RAW", lambda value, _: value)
    psycopg2.extensions.register_type(raw, cursor)
    cursor.execute("SELECT v FROM t ORDER BY i")
    return Column("v", oid, typmod), [row[0].encode() for row in cursor.fetchall()]


def back(value: Any) -> Any:
    """A value as text that the server reads, so that the driver's own conversions have no part in the test."""
    if isinstance(value, list):
        return [back(item) for item in value]
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    if isinstance(value, float):
        return repr(value)
    return value if value is None or isinstance(value, str) else str(value)


@pytest.mark.parametrize("sql_type", CASES)
def test_a_value_comes_back_as_the_server_knows_it(connection: Any, sql_type: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(EXTRA_TYPES)
        column, texts = shown_values(cursor, sql_type)
        facts = TableFacts((), {"v": facts_of(cursor, column.type_oid)})
        codec = compile_codec("shop.public.t", Relation(1, "public", "t", "d", (column,)), facts)
        encoder = codec.bind(None, 1)
        prefix = ORIGIN.transaction(1, 1, 1, 1)
        reader = row_reader(codec.value_schema)
        assert codec.unknown_types == ((("v", sql_type.replace("pair[]", "_pair")),) if "pair" in sql_type else ())
        for text in texts:
            avro = encoder.create(prefix, 1, (text,))[5:]
            fastavro.schemaless_reader(io.BytesIO(avro), codec.value_schema, None)
            row = reader.row(reader.record(avro)["after"])
            assert row is not None
            value = row["v"]
            staged = reader.columns["v"]
            same = SAME.get(sql_type, f"(%s::{staged})::text::{sql_type}::text = %s::{sql_type}::text")
            cursor.execute(f"SELECT {same}", (back(value), text.decode()))
            assert cursor.fetchone()[0], f"{text!r} came back as {value!r} ({staged})"


RANDOM: dict[str, str] = {
    "bigint": "(random() * 2 - 1) * power(2, 62 * random())",
    "numeric(18,4)": "((random() * 2 - 1) * power(10, 13 * random()))::numeric",
    "numeric": "round(((random() * 2 - 1) * power(10, 20 * random()))::numeric, (random() * 15)::int)",
    "double precision": "(random() * 2 - 1) * power(10, 300 * (random() * 2 - 1))",
    "real": "(random() * 2 - 1) * power(10, 30 * (random() * 2 - 1))",
    "date": "date '4713-01-01 BC' + (random() * 5000000)::int",
    "timestamp": "timestamp '4713-01-01 BC' + random() * interval '100000 years' * random()",
    "timestamptz": "timestamptz '4713-01-01 BC' + random() * interval '100000 years' * random()",
    "time": "time '00:00' + random() * interval '1 day'",
    "interval": "make_interval(days => ((random() - 0.5) * 1e6)::int, secs => (random() - 0.5) * 1e6)",
    "bytea": "decode(md5(random()::text), 'hex')",
    "bit(64)": "((random() - 0.5) * power(2, 63))::bigint::bit(64)",
    "text[]": "ARRAY[chr((random() * 50000)::int + 1), NULL, md5(random()::text), chr((random() * 126)::int + 1)]",
}
"""Expressions for random values of types whose texts have many forms."""


@pytest.mark.parametrize("sql_type", RANDOM)
def test_random_values_come_back_as_the_server_knows_them(connection: Any, sql_type: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT setseed(0.25)")
        cursor.execute(
            f"CREATE TABLE t AS SELECT i, ({RANDOM[sql_type]})::{sql_type} AS v FROM generate_series(1, 500) i"
        )
        column, texts = column_and_texts(cursor)
        codec = compile_codec("shop.public.t", Relation(1, "public", "t", "d", (column,)), None)
        encoder, prefix, reader = codec.bind(None, 1), ORIGIN.transaction(1, 1, 1, 1), row_reader(codec.value_schema)
        values = []
        for text in texts:
            row = reader.row(reader.record(encoder.create(prefix, 1, (text,))[5:])["after"])
            assert row is not None
            values.append(back(row["v"]))
        cursor.execute(
            "CREATE TABLE back (i int, v text)" if sql_type != "text[]" else "CREATE TABLE back (i int, v text[])"
        )
        cursor.executemany("INSERT INTO back VALUES (%s, %s)", enumerate(values, 1))
        staged = reader.columns["v"]
        cursor.execute(
            f"SELECT t.v::text, back.v::text FROM t JOIN back USING (i) WHERE back.v::{staged} IS DISTINCT FROM t.v"
        )
        assert cursor.fetchall() == []


def test_the_months_of_an_interval_are_of_average_length(connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT '1 year 2 mons 3 days 04:05:06.789'::interval::text")
        text = cursor.fetchone()[0]
    codec = compile_codec("t", Relation(1, "public", "t", "d", (Column("v", 1186),)), None)
    avro = codec.bind(None, 1).create(ORIGIN.transaction(1, 1, 1, 1), 1, (text.encode(),))[5:]
    row = fastavro.schemaless_reader(io.BytesIO(avro), codec.value_schema, None)
    assert row["after"]["v"] == 37091106789000  # Debezium's own figure for this interval


def test_a_broken_text_is_refused_by_column_and_any_text_can_travel_as_text() -> None:
    relation = Relation(1, "public", "t", "d", (Column("v", 1007),))
    prefix = ORIGIN.transaction(1, 1, 1, 1)
    with pytest.raises(DataError, match=r'table public.t: column "v"') as failure:
        compile_codec("t", relation, None).bind(None, 1).create(prefix, 1, (b"{77,,8}",))
    assert "77" not in str(failure.value)
    assert "columns_as_text" in str(failure.value)
    codec = compile_codec("t", relation, None, text=frozenset({"v"}))
    avro = codec.bind(None, 1).create(prefix, 1, (b"{77,,8}",))[5:]
    assert row_reader(codec.value_schema).record(avro)["after"] == {"v": "{77,,8}"}
