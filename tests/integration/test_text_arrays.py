"""Texts that a statement gets as one value: the server reads the same as from a list."""

import pytest
import sqlalchemy as sa

from sink.database import OF_THESE, Connection, TextArray, these, transaction
from sink.erp.sql.reads import look_up

ODD = ["17", "", "NULL", "a,b", "{}", 'in "quotes"', "back\\slash", "it's", " blank ", "Köln €", "%s", "two\nlines"]


def test_any_text_comes_as_it_was(middle: Connection) -> None:
    with transaction(middle) as cursor:
        cursor.execute("SELECT %s, %s = %s", (TextArray(ODD), TextArray(ODD), ODD))
        assert cursor.fetchone() == (ODD, True)


def test_no_text_is_an_empty_array(middle: Connection) -> None:
    with transaction(middle) as cursor:
        cursor.execute("SELECT cardinality(%s), 'a' = ANY(%s)", (TextArray([]), TextArray([])))
        assert cursor.fetchone() == (0, False)


def test_documents_are_found_by_type_and_key_together(middle: Connection) -> None:
    """Not by the type of one and the key of another."""
    with transaction(middle) as cursor:
        every = "(VALUES ('order', '1'), ('order', '2'), ('price', '1'), ('price', 'a,\"b\"')) AS document (type, key)"
        wanted = [("order", "2"), ("price", "1"), ("price", 'a,"b"')]
        cursor.execute(f"SELECT type, key FROM {every} WHERE {OF_THESE} ORDER BY 1, 2", these(wanted))
        assert cursor.fetchall() == wanted


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("plain", ODD),
        ("short", [one for one in ODD if len(one) <= 5]),
        ("whole", [7, 40_000]),
        ("small", [7, 40_000]),  # the second is more than the column holds: it is missing, and there is no error
    ],
)
def test_rows_of_the_erp_are_found_by_any_value(database: str, column: str, values: list[object]) -> None:
    """A value that a column could not hold is like any other value that is not there."""
    engine = sa.create_engine(database.replace("postgresql://", "postgresql+psycopg2://"))
    table = sa.Table(
        "odd",
        sa.MetaData(),
        sa.Column("plain", sa.TEXT),
        sa.Column("short", sa.VARCHAR(5)),
        sa.Column("whole", sa.INTEGER),
        sa.Column("small", sa.SMALLINT),
    )
    try:
        with engine.connect() as connection:
            table.create(connection)
            there = [one for one in values if not (column == "small" and one == 40_000)]
            connection.execute(sa.insert(table), [{column: one} for one in there])
            absent = ["not here, and too long"] if isinstance(values[0], str) else [-1, 2**40]
            found = look_up(connection, table, (column,), column, column, [*values, *absent])
            assert sorted(row[column] for row in found) == sorted(there)
            connection.rollback()
    finally:
        engine.dispose()
