"""Values of PostgreSQL are in our records what they are in Debezium's, digit by digit."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest

from capture.postgres import pgoutput
from capture.postgres.catalogue import table_facts
from capture.snapshot.copytext import parse_copy_line
from deploy.embedded import Postgres
from schemas.codec import Codec, SourceOrigin, compile_codec
from schemas.settings import PURE_PYTHON
from schemas.type_modes import Modes
from schemas.type_table import DEFAULT_MODES, SESSION_SETTINGS
from tests.integration.test_types import Row, copied, start, stream
from tests.record_reader import row_reader


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
        """Of all ways, which must be the same; as fastavro reads them."""
        prefix = SourceOrigin("shop", "test", "0").snapshot(0, 0)
        ways: list[list[bytes]] = []
        for pure in ("0", "1"):
            self._patch.setenv(PURE_PYTHON, pure)
            encoder = self.codec.bind(1, 2)
            ways.append([encoder.record(row.sent, prefix, 1, "c")[1] for row in self.inserted if isinstance(row, Row)])
            cells = [pgoutput.decode_as(pgoutput.Insert, row.sent).new for row in self.inserted]  # type: ignore[arg-type]
            ways.append([encoder.create(prefix, 1, row) for row in cells])
            ways.append([encoder.create(prefix, 1, parse_copy_line(line[:-1])) for line in self.lines])
        assert all(way == ways[0] for way in ways)
        reader = row_reader(self.codec.value_schema)
        return [reader.record(value[5:])["after"] for value in ways[0]]


def test_a_timestamptz_has_the_digits_of_its_precision(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Source: Debezium's ZonedTimestamp, which shows exactly so many digits; a precision of 0 shows none."""
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
