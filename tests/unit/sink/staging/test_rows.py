"""The rules of a staged row and of a whole commit, without a database."""

import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from schemas.change import Stamp
from schemas.lsn import LSN
from sink.staging.inbox import HALVES, is_complete, ordinals
from sink.staging.rows import NEW_HALF, OLD_HALF, WHOLE, RowChange, StagedRow, identity, text, widen

COLUMNS = {"id": "bigint", "a": "text", "b": "text"}


def change(lsn: int, op: str, ordinal: int = 1, half: int = WHOLE, table: str = "public.t", **values: Any) -> RowChange:
    stamp = Stamp(1, LSN(lsn), ordinal)
    return RowChange(table, op, stamp, half, "7:1", None, None, {"id": 1}, {"id": 1, **values}, COLUMNS)


def after(*changes: RowChange) -> tuple[dict[str, Any], bool, set[str]]:
    row = StagedRow({"id": 1})
    for one in changes:
        row.apply(one)
    return row.values, row.deleted, row.unseen


def test_any_order_of_arrival_ends_in_the_same_row() -> None:
    """Also with a TOAST value that the later updates do not send: an older change fills it, the newest of them wins."""
    history = [change(1, "c", a="1", b="x"), change(2, "u", a="2", b="y"), change(3, "u", a="3"), change(4, "u", a="4")]
    for order in itertools.permutations(history):
        values, deleted, unseen = after(*order)
        assert (values["a"], values["b"], deleted, unseen) == ("4", "y", False, set()), [c.stamp for c in order]


def test_a_delete_wins_over_what_is_older_and_loses_to_what_is_newer() -> None:
    create, delete, again = change(1, "c", a="1", b="x"), change(2, "d"), change(3, "c", a="3", b=None)
    assert after(delete, create)[1]
    assert after(create, delete, again) == ({"id": 1, "a": "3", "b": None}, False, set())
    assert after(again, delete, create)[:2] == ({"id": 1, "a": "3", "b": None}, False)


def test_nothing_of_a_deleted_row_shows_through_the_next_one() -> None:
    values, _, unseen = after(change(1, "c", a="1", b="x"), change(2, "d"), change(4, "u", a="4"))
    assert (values["b"], unseen) == (None, {"b"})


def test_ordinals_are_counted_once_and_halves_as_one() -> None:
    seen = [change(1, "c", 1), change(1, "c", 1), change(1, "u", 2), change(1, "d", 3, OLD_HALF)]
    assert ordinals(seen, None) == {"public.t": 2}
    assert ordinals([*seen, change(1, "c", 3, NEW_HALF)], {"public.t": 3}) == {"public.t": 3}


def test_by_the_index_of_commits_each_half_counts() -> None:
    seen = [change(1, "c", 1), change(1, "c", 1), change(1, "d", 3, OLD_HALF)]
    size = {HALVES: 0, "public.t": 3}
    assert ordinals(seen, size) == {"public.t": 2}
    assert not is_complete(ordinals(seen, size), size, frozenset({"public.t"}))
    assert is_complete(ordinals([*seen, change(1, "c", 3, NEW_HALF)], size), size, frozenset({"public.t"}))


def test_complete_looks_at_the_staged_tables_only() -> None:
    staged = frozenset({"public.t"})
    assert is_complete({"public.t": 2}, {"public.t": 2, "public.other": 9}, staged)
    assert not is_complete({"public.t": 1}, {"public.t": 2}, staged)
    assert not is_complete({"public.t": 1}, None, staged)
    assert is_complete({}, {"public.other": 9}, staged)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, "true"),
        (Decimal("1E+3"), "1000"),
        (Decimal("-Infinity"), "-Infinity"),
        (datetime(2026, 1, 2, 3, 4, 5, 6, UTC), "2026-01-02 03:04:05.000006+00:00"),
        (timedelta(days=-1, microseconds=7), "-1 days 0.000007 seconds"),
        (b"\x00\xff", "\\x00ff"),
        ([1, None, "a"], ["1", None, "a"]),
    ],
)
def test_text_is_what_postgresql_reads(value: Any, expected: Any) -> None:
    assert text(value) == expected


def test_equal_keys_are_one_row() -> None:
    assert identity({"a": Decimal("1.0"), "b": 7}) == identity({"a": Decimal("1.00"), "b": "7"})


@pytest.mark.parametrize(
    ("old", "new", "wide"),
    [
        ("integer", "bigint", "bigint"),
        ("bigint", "smallint", "bigint"),
        ("numeric(12,2)", "numeric(14,3)", "numeric"),
        ("numeric", "integer", "numeric"),
        ("timestamp(3)", "timestamp", "timestamp"),
        ("uuid", "bigint", "text"),
    ],
)
def test_types_only_widen(old: str, new: str, wide: str) -> None:
    assert (widen(old, new), widen(new, old)) == (wide, wide)
