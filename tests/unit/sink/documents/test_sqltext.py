"""Tables and columns in a text of SQL, found without a parser."""

import pytest

from sink.documents.sqltext import Column, is_select, joined_columns, key_columns, named, spoken


@pytest.mark.parametrize(
    ("sql", "left"),
    [
        ("a -- orders\nb", "a \nb"),
        ("a 'it''s -- orders' b", "a b"),
        (r"a E'\' orders' b", "a b"),
        ("a /* orders\n */ b", "a b"),
    ],
)
def test_comments_and_literals_are_not_spoken(sql: str, left: str) -> None:
    assert " ".join(spoken(sql).split()) == " ".join(left.split())


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1", True),
        ("-- why\n with x AS (SELECT 1) SELECT", True),
        ("selected", False),
        ("'SELECT' || id", False),
    ],
)
def test_a_query_begins_with_select_or_with(sql: str, expected: bool) -> None:
    assert is_select(sql) is expected


def test_names_are_whole_words() -> None:
    assert named('FROM "Orders" JOIN public.order_lines', ["orders", "order_lines", "lines", "order"]) == {
        "orders",
        "order_lines",
    }


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("FROM order_lines WHERE order_id = ANY (%(keys)s::bigint[])", Column("order_lines", "order_id")),
        ("FROM returns r JOIN orders o ON o.id = r.x WHERE r.id=ANY(%(keys)s)", Column("returns", "id")),
        ("FROM public.returns AS r, x WHERE r.id = ANY (%(keys)s)", Column("returns", "id")),
        ("FROM order_lines WHERE x AND order_lines.id = ANY (%(keys)s)", Column("order_lines", "id")),
        ("FROM a e WHERE e.id = ANY (%(keys)s)) SELECT x FROM b e", Column("a", "id")),
        ("FROM (SELECT 1) c WHERE c.id = ANY (%(keys)s)", Column(None, "id")),
        ("FROM a JOIN b USING (x) WHERE id = ANY (%(keys)s)", Column(None, "id")),
    ],
)
def test_the_column_that_is_compared_with_the_keys(sql: str, expected: Column) -> None:
    assert list(key_columns(sql)) == [expected]


@pytest.mark.parametrize("left", ["id::text", "a.id::text", "lower(id)"])
def test_a_column_in_an_expression_is_not_looked_up_by_an_index_on_it(left: str) -> None:
    assert list(key_columns(f"FROM a WHERE {left} = ANY (%(keys)s)")) == []


@pytest.mark.parametrize("condition", ["t.product_id = c.id", "c.id = t.product_id"])
def test_the_columns_by_which_changed_rows_are_joined(condition: str) -> None:
    sql = f"SELECT t.id FROM changed c JOIN product_prices t ON {condition} JOIN x ON x.id = t.x_id"
    assert set(joined_columns(sql)) == {Column("product_prices", "product_id"), Column("changed", "id")}
