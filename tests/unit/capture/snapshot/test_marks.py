"""What is said of a row's place in a snapshot is certain when it is said."""

import pytest

from capture.snapshot.marks import Marks, marks

FIRST, LAST = "first_in_data_collection", "last_in_data_collection"


@pytest.mark.parametrize(
    ("tables", "in_order", "expected"),
    [
        ([], True, []),
        ([0], True, [("first", "last")]),
        ([0, 1, 2], True, [("first", LAST), (FIRST, LAST), (FIRST, "last")]),
        ([0, 0, 0, 1], True, [("first", "true"), ("true", "true"), ("true", LAST), (FIRST, "last")]),
        ([0, 1, 1], True, [("first", LAST), (FIRST, "true"), ("true", "last")]),
        ([0, 1, 1, 2], False, [(FIRST, LAST), ("true", "true"), ("true", "true"), (FIRST, LAST)]),
        ([0, 0], False, [("true", "true"), ("true", "true")]),
    ],
)
def test_each_chunk_has_the_marks_of_its_first_row_and_its_last(
    tables: list[int], in_order: bool, expected: list[tuple[str, str]]
) -> None:
    assert marks(tables, in_order) == expected


@pytest.mark.parametrize(
    ("first", "last", "only"),
    [
        ("first", "last", "last"),
        ("first", LAST, "first"),
        (FIRST, LAST, LAST),
        ("true", LAST, LAST),
        (FIRST, "true", FIRST),
        ("true", "true", "true"),
    ],
)
def test_a_row_that_is_the_first_and_the_last_has_the_mark_that_debezium_gives_it(
    first: str, last: str, only: str
) -> None:
    assert Marks(first, last).only == only  # type: ignore[arg-type]
