"""The SQL of a batch on a real PostgreSQL: the guard, values that were not sent, deletes, key changes, snapshots,
TRUNCATE."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.model.change import Stamp
from schemas.model.errors import DataError
from sink.database import transaction
from sink.staging import row_io
from tests.integration.staged_rows import COLUMNS, Copy, Row, key_change, lines, stamp

ONE: Row = {"id": 1, "status": "new", "total": "19.90", "note": "x"}
TWO: Row = ONE | {"id": 2}
SENT = [name for name in COLUMNS if name != "note"]


@pytest.fixture
def copy(database: str) -> Copy:
    return Copy(database)


def marks(copy: Copy, columns: str = '"#deleted"') -> dict[int, Any]:
    """One of our own columns by id."""
    return dict(copy.rows(f'SELECT id, {columns} FROM ordertap_shop."public.orders" ORDER BY id'))


def take_over(copy: Copy, old: int, new: int, at: Stamp) -> bool:
    with transaction(copy.connection) as cursor:
        return row_io.take_over(cursor, copy.table(), [key_change(old, new, at)])


# -- the guard


def test_newer_rows_win_and_older_ones_change_nothing(copy: Copy) -> None:
    assert copy.put((ONE, stamp(100)), (ONE | {"id": 2, "note": None}, stamp(100, 2))) == 2
    assert copy.put((ONE | {"status": "older"}, stamp(99, 9)), (ONE | {"id": 2, "status": "same"}, stamp(100, 2))) == 0
    assert copy.put((ONE | {"status": "newer"}, stamp(100, 2))) == 1
    assert copy.shown("id, status, note") == [(1, "newer", "x"), (2, "new", None)]
    assert copy.put((ONE | {"status": "repaired"}, stamp(1, 0, generation=2))) == 1
    assert copy.shown("id, status")[0] == (1, "repaired")


def test_log_positions_above_2_to_the_63_keep_their_order(copy: Copy) -> None:
    copy.put((ONE, stamp(2**64 - 2)))
    assert copy.put((ONE, stamp(2**63 + 1))) == 0
    assert copy.put((ONE, stamp(2**64 - 1))) == 1


def test_a_deleted_row_stays_marked_and_an_older_one_that_comes_late_does_not_live(copy: Copy) -> None:
    copy.put((ONE, stamp(100)))
    assert copy.delete(({"id": 1}, stamp(200)), ({"id": 2}, stamp(200))) == 2
    assert copy.put((TWO, stamp(150))) == 0
    assert copy.delete(({"id": 1}, stamp(150))) == 0
    assert copy.shown() == []
    assert marks(copy, '(status, "#deleted")::text') == {1: "(new,t)", 2: "(,t)"}
    assert copy.put((TWO, stamp(201))) == 1
    assert copy.shown("id, status") == [(2, "new")]


def test_s4_keys_that_are_equal_and_differ_as_text_are_one_row(database: str) -> None:
    copy, columns = Copy(database), {"id": "numeric(10,2)", "status": "text"}
    both = [({"id": "5.00", "status": "first"}, stamp(100)), ({"id": "5", "status": "second"}, stamp(100, 2))]
    with pytest.raises(DataError, match=r"public\.orders: .*CardinalityViolation"):  # the premise
        copy.put(*both, columns=columns)
    copy.catalogue.forget()
    copy.put(*both, columns=columns, distinct=True)
    assert copy.shown("status") == [("second",)]
    copy.put(({"id": "5.0", "status": "third"}, stamp(200)), columns=columns)
    assert copy.shown("status") == [("third",)]
    assert copy.delete(({"id": "5"}, stamp(300)), ({"id": "5.000"}, stamp(301))) == 1
    assert copy.shown("status") == []


@pytest.mark.parametrize("delete_first", [False, True])
def test_s4_a_key_that_changes_to_an_equal_one_stays(database: str, delete_first: bool) -> None:
    copy, columns = Copy(database), {"id": "numeric", "status": "text"}
    copy.put(({"id": "5", "status": "old"}, stamp(100)), columns=columns)
    for delete in (delete_first, not delete_first):
        if delete:
            copy.delete(({"id": "5"}, stamp(200)))
        else:
            copy.put(({"id": "5.00", "status": "new"}, stamp(200)), columns=columns)
    assert copy.shown("status") == [("new",)]


def test_a_key_of_two_columns(database: str) -> None:
    copy, columns = Copy(database, key=("a", "b")), {"b": "text", "value": "text", "a": "integer"}
    rows = [({"a": a, "b": b, "value": "x"}, stamp(100, n)) for n, (a, b) in enumerate([(1, "x"), (1, "y"), (2, "x")])]
    assert copy.put(*rows, columns=columns) == 3
    assert copy.put(*rows, ({"a": 1, "b": "y", "value": "z"}, stamp(101)), columns=columns, distinct=True) == 1
    copy.delete(({"a": 1, "b": "x"}, stamp(200)))
    assert sorted(copy.shown_rows("a, b, value")) == [(1, "y", "z"), (2, "x", "x")]


# -- what was not sent


def test_unchanged_columns_keep_their_values(copy: Copy) -> None:
    copy.put((ONE, stamp(100)))
    copy.put((ONE | {"status": "paid"}, stamp(200)), sent=SENT)
    assert copy.shown("status, note") == [("paid", "x")]
    assert marks(copy, '"#unseen"') == {1: None}


def test_what_was_never_sent_is_unseen_until_it_is(copy: Copy) -> None:
    copy.put((ONE, stamp(100)), sent=["id", "status"])
    assert marks(copy, '"#unseen"') == {1: ["total", "note"]}
    copy.put((ONE, stamp(200)), sent=["id", "note"])
    assert marks(copy, '"#unseen"') == {1: ["total"]}
    assert copy.put((ONE, stamp(150))) == 0  # an older record fills nothing
    assert marks(copy, '"#unseen"') == {1: ["total"]}
    copy.put((ONE, stamp(300)), sent=["id", "status", "total"])
    assert marks(copy, '"#unseen"') == {1: None}
    assert copy.shown("status, total::text, note") == [("new", "19.90", "x")]


def test_nothing_of_a_deleted_row_shows_through(copy: Copy) -> None:
    copy.put((ONE, stamp(100)))
    copy.delete(({"id": 1}, stamp(200)))
    copy.put((ONE | {"status": "again"}, stamp(300)), sent=SENT)
    assert copy.rows('SELECT status, note, "#unseen" FROM ordertap_shop."public.orders"') == [("again", None, ["note"])]


@pytest.mark.parametrize("delete_first", [False, True])
def test_a_key_change_takes_over_what_was_not_sent(copy: Copy, delete_first: bool) -> None:
    copy.put((ONE, stamp(100)))
    if delete_first:
        copy.delete(({"id": 1}, stamp(200)))
    copy.put((TWO | {"status": "moved"}, stamp(200)), sent=SENT)
    if not delete_first:
        assert not take_over(copy, 1, 2, stamp(200))  # the old row may change before it is deleted
        copy.put((ONE | {"note": "last"}, stamp(150)))
        copy.delete(({"id": 1}, stamp(200)))
    assert take_over(copy, 1, 2, stamp(200))
    assert not take_over(copy, 1, 2, stamp(200))
    assert copy.shown("id, status, note") == [(2, "moved", "x" if delete_first else "last")]


def test_a_key_change_takes_nothing_from_another_row(copy: Copy) -> None:
    copy.put((ONE | {"note": "later"}, stamp(300)))  # the key is used again
    copy.put((TWO, stamp(200)), sent=SENT)
    assert not take_over(copy, 1, 2, stamp(200))
    copy.delete(({"id": 3}, stamp(150)))  # the row under the old key was gone before
    assert not take_over(copy, 3, 2, stamp(200))
    assert not take_over(copy, 4, 2, stamp(200))  # was never here
    copy.put((ONE | {"id": 5}, stamp(100)))
    copy.put((TWO | {"note": "sent"}, stamp(250)))
    copy.delete(({"id": 5}, stamp(200)))
    assert not take_over(copy, 5, 2, stamp(200))  # a newer row is there already
    assert copy.shown("id, note") == [(1, "later"), (2, "sent")]


def test_a_key_change_takes_no_unseen_value_over(copy: Copy) -> None:
    """Neither one that the old row lacks, nor the NULLs of an old row that was never here."""
    copy.put((ONE, stamp(100)), sent=["id", "status", "total"])
    copy.delete(({"id": 3}, stamp(200)), ({"id": 1}, stamp(200)))
    copy.put((TWO, stamp(200)), sent=["id", "status"])
    assert take_over(copy, 1, 2, stamp(200))
    assert marks(copy, '"#unseen"')[2] == ["note"]
    copy.put((ONE | {"id": 4}, stamp(200)), sent=SENT)
    take_over(copy, 3, 4, stamp(200))
    assert marks(copy, '"#unseen"')[4] == ["note"]


# -- snapshots and TRUNCATE


def test_a_snapshot_is_noted_where_a_newer_row_wins_and_what_it_lacks_vanishes(copy: Copy) -> None:
    copy.put((ONE, stamp(100)), (TWO, stamp(100, 2)), (ONE | {"id": 3}, stamp(500)), (ONE | {"id": 4}, stamp(600)))
    copy.delete(({"id": 5}, stamp(100)))
    brought = [(ONE | {"status": "read"}, stamp(300, 0)), (ONE | {"id": 3, "status": "read"}, stamp(300, 0))]
    assert copy.put(*brought, snapshot="s1") == 1
    assert marks(copy, '"#snapshot"') == {1: "s1", 2: None, 3: "s1", 4: None, 5: None}
    assert copy.vanish(stamp(550, 0), "s1") == 1
    assert copy.shown("id, status") == [(1, "read"), (3, "new"), (4, "new")]
    copy.put((ONE | {"status": "later"}, stamp(700)))
    assert marks(copy, '"#snapshot"')[1] == "s1"  # the last that brought the row
    assert copy.put((TWO, stamp(550, 0)), snapshot="s1") == 1  # its own row, late
    assert copy.shown("id")[1] == (2,)


def test_a_truncate_marks_older_rows_and_those_that_come_later(copy: Copy) -> None:
    assert copy.truncate(stamp(50)) == 0  # nothing is staged
    copy.put((ONE, stamp(100)), (TWO, stamp(300)))
    assert copy.truncate(stamp(200)) == 1
    assert copy.truncate(stamp(150)) == 0
    assert copy.put((ONE | {"id": 3}, stamp(150)), (ONE | {"id": 4}, stamp(200, 2))) == 2
    copy.catalogue.forget()  # the guard outlives the process
    assert copy.put((ONE | {"id": 5}, stamp(199, 9))) == 1
    assert marks(copy) == {1: True, 2: False, 3: True, 4: False, 5: True}
    assert copy.put((ONE | {"id": 5}, stamp(250))) == 1
    assert copy.shown("id") == [(2,), (4,), (5,)]


# -- temporary tables


def test_a_batch_leaves_no_rows_for_the_next_one(copy: Copy) -> None:
    copy.put((ONE, stamp(100)))
    copy.put((TWO, stamp(200)))
    assert copy.rows("SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND relkind = 'r'") == [(1,)]
    with transaction(copy.connection) as cursor:
        table = copy.table()
        temp = row_io.new_table(cursor, table, COLUMNS)
        assert row_io.new_table(cursor, table, COLUMNS, "snapshot") != temp
        row_io.copy_in(cursor, temp, lines(COLUMNS, [(TWO, stamp(300))]))
        assert row_io.upsert(cursor, table, temp, COLUMNS, None, False) == 1
        assert row_io.new_table(cursor, table, COLUMNS) == temp
        assert row_io.upsert(cursor, table, temp, COLUMNS, None, False) == 0


@pytest.mark.parametrize("size", [10, 3000])
def test_a_temporary_table_stays_small(copy: Copy, size: int) -> None:
    """Nothing vacuums it, and a session lives for months."""
    for at in range(1, 1 + 30_000 // size // 5):
        copy.put(*[(ONE | {"id": n}, stamp(at, n)) for n in range(size)])
    sizes = copy.rows("SELECT sum(pg_relation_size(oid)) FROM pg_class WHERE relpersistence = 't' AND relkind = 'r'")
    assert sizes[0][0] < 600_000


def test_a_batch_that_is_rolled_back_leaves_nothing(copy: Copy) -> None:
    copy.fit(COLUMNS, stamp(1))
    with transaction(copy.connection) as cursor:
        temp = row_io.new_table(cursor, copy.table(), COLUMNS)
        row_io.copy_in(cursor, temp, lines(COLUMNS, [(ONE, stamp(100))]))
        cursor.execute("ROLLBACK; BEGIN")
    copy.put((TWO, stamp(200)))
    assert copy.shown("id") == [(2,)]


def test_null_and_text_that_looks_like_it(copy: Copy) -> None:
    copy.put((ONE | {"note": None, "status": ""}, stamp(100)), (TWO | {"note": "NULL", "status": "\\\\N"}, stamp(100)))
    assert copy.shown("status, note") == [("", None), ("\\N", "NULL")]


@pytest.mark.parametrize(
    ("columns", "bad", "said"),
    [
        (
            {"id": "bigint", "n": "integer"},
            {"n": "secret"},
            r"public\.orders\.n: .*Representation \(22P02\)",
        ),
        ({"id": "text"} | {f"c{n}": "text" for n in range(900)}, {}, r"public\.orders: .*ProgramLimitExceeded"),
        ({"id": "text"}, {"id": "".join(map(chr, range(0x4E00, 0x5E00)))}, r"public\.orders: .*ProgramLimitExceeded"),
    ],
)
def test_a_row_that_postgresql_does_not_take_is_no_outage(
    copy: Copy, columns: dict[str, str], bad: dict[str, str], said: str
) -> None:
    """A value of another type, or too long a row or key: the caller parks it, and goes on."""
    row = dict.fromkeys(columns, "1" if len(columns) < 9 else "x" * 30)
    with pytest.raises(DataError, match=said) as caught:
        copy.put((row | bad, stamp(100)), columns=columns)
    assert "secret" not in str(caught.value)
    copy.catalogue.forget()
    copy.put((dict.fromkeys(columns, 1), stamp(200)), columns=columns)


# -- any order, any batches


class Change(NamedTuple):
    """A change of a row, or a TRUNCATE (`kind` t)."""

    kind: str  # c: all columns, u: without the note, d, t
    id: int
    at: Stamp


@dataclass
class Known:
    """The expected content of a row."""

    at: Stamp
    live: bool
    status: str
    note: str | None = None
    unseen: tuple[str, ...] | None = None


def model(changes: Sequence[Change]) -> dict[int, Known]:
    """The live rows after these changes, in the order of their stamps."""
    rows: dict[int, Known] = {}
    for change in sorted(set(changes), key=lambda one: one.at):
        text = str(change.at)
        old = rows.get(change.id)
        if change.kind == "t":
            rows.clear()
        elif change.kind == "d":
            rows.pop(change.id, None)
        elif change.kind == "c" or old is None:
            sent = change.kind == "c"
            rows[change.id] = Known(change.at, True, text, text if sent else None, None if sent else ("note",))
        else:
            rows[change.id] = Known(change.at, True, text, old.note, old.unseen)
    return rows


def apply(copy: Copy, name: str, batch: Sequence[Change]) -> None:
    """Writes a batch, by stamps, in as few statements as its kinds allow."""
    columns: Mapping[str, str] = {"id": "bigint", "status": "text", "note": "text"}
    runs: list[list[Change]] = []
    for change in sorted(set(batch), key=lambda one: one.at):
        last = runs[-1] if runs else []
        again = change.kind == "u" and change.id in {one.id for one in last}
        if last and last[0].kind == change.kind and not again:
            last.append(change)
        else:
            runs.append([change])
    for run in runs:
        rows = [({"id": one.id, "status": str(one.at), "note": str(one.at)}, one.at) for one in run]
        if run[0].kind == "t":
            copy.truncate(run[-1].at, name)
        elif run[0].kind == "d":
            copy.delete(*[({"id": one.id}, one.at) for one in run], name=name)
        else:
            sent = columns if run[0].kind == "c" else ["id", "status"]
            copy.put(*rows, columns=columns, sent=sent, distinct=True, name=name)


def staged(copy: Copy, name: str) -> dict[int, Known]:
    stamps = '"#generation"::int, "#lsn"::int, "#ordinal"::int'
    query = f'SELECT id, status, note, "#unseen", {stamps} FROM ordertap_shop."{name}" WHERE NOT "#deleted"'
    return {
        row[0]: Known(stamp(row[5], row[6], row[4]), True, row[1], row[2], None if row[3] is None else tuple(row[3]))
        for row in copy.rows(query)
    }


@pytest.fixture(scope="module")
def shared(postgres: Any) -> Copy:
    """One middle layer for all examples, each with a table of its own."""
    return Copy(postgres.create_database("row_io_examples"))


_names = (f"public.t{number}" for number in itertools.count())
STAMPS = st.builds(stamp, st.integers(1, 9), st.integers(1, 3), st.integers(1, 2))


def changes(kinds: str) -> st.SearchStrategy[list[Change]]:
    one = st.builds(Change, st.sampled_from(kinds), st.integers(1, 3), STAMPS)
    return st.lists(one, min_size=1, max_size=9, unique_by=lambda change: change.at)


def batches(data: st.DataObject, delivered: Sequence[Change]) -> list[Sequence[Change]]:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(delivered)))) | {0, len(delivered)})
    return [delivered[start:end] for start, end in itertools.pairwise(cuts)]


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(changes("cdt"), st.data())
def test_whole_rows_in_any_order_and_any_batches_make_the_same_table(
    shared: Copy, sequence: list[Change], data: st.DataObject
) -> None:
    first = Change("c", 9, stamp(1, 1))  # makes the table: a TRUNCATE before it has nothing to guard
    sequence = [change for change in sequence if change.at != first.at]
    for delivered in (sequence, data.draw(st.permutations(sequence))):
        name = next(_names)
        apply(shared, name, [first])
        for batch in batches(data, delivered) if delivered else []:
            apply(shared, name, batch)
        assert staged(shared, name) == model([first, *sequence])


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(changes("ccuuudt"), st.data())
def test_changes_in_commit_order_with_replays_and_in_any_batches_make_the_same_table(
    shared: Copy, sequence: list[Change], data: st.DataObject
) -> None:
    first = Change("c", 9, stamp(0, 1))
    ordered = sorted(sequence, key=lambda change: change.at)
    again = data.draw(st.integers(0, len(ordered)))
    replayed = [*ordered[:again], *ordered[data.draw(st.integers(0, again)) :]]
    for delivered in (ordered, replayed):
        name = next(_names)
        apply(shared, name, [first])
        for batch in batches(data, delivered):
            apply(shared, name, batch)
        assert staged(shared, name) == model([first, *ordered])
