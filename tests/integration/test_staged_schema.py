"""Staged tables follow the shop's schema on a real PostgreSQL: no table is rewritten under a reader, no unseen value is
read, and no table stops another."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import structlog

from schemas.model.errors import DataError, UnavailableError
from sink.database import Connection, connect, names_of, reading, transaction
from sink.documents.build import UNSEEN, Invalid, build
from sink.documents.models import Price
from sink.documents.profile import load_profile
from sink.staging import row_io
from sink.staging.schema import Catalogue, SchemaBlockedError, stored_name
from tests.integration.staged_rows import COLUMNS, ORDERS, Copy, Row, key_change, stamp
from tests.keys import all_keys

ONE: Row = {"id": 1, "status": "new", "total": "19.90", "note": "x"}
TWO: Row = ONE | {"id": 2}
RENAMED = {"remark" if name == "note" else name: kind for name, kind in COLUMNS.items()}
WITHOUT = {name: kind for name, kind in COLUMNS.items() if name != "note"}
WITH = {**COLUMNS, "extra": "text"}


@pytest.fixture
def copy(database: str) -> Copy:
    return Copy(database)


def row(columns: Any, number: int = 1, **values: object) -> Row:
    """A row of these columns with something in each."""
    some = {"bigint": number, "integer": number, "smallint": number, "numeric(12,2)": "19.90"}
    return {name: some.get(kind, "x") for name, kind in columns.items()} | {"id": number} | values


def unseen(copy: Copy, columns: str, where: str = "true") -> str:
    """What reading these columns raises, as PostgreSQL says it; empty: nothing."""
    try:
        copy.rows(f"SELECT {columns} FROM shop.orders WHERE {where}")
    except psycopg2.DatabaseError as error:
        if error.pgcode != UNSEEN:
            raise
        return f"{error.diag.message_primary}; {error.diag.message_hint}"
    return ""


@contextmanager
def holding(copy: Copy, statement: str) -> Iterator[Connection]:
    """Another session that has run a statement, and does not end its transaction."""
    with closing(psycopg2.connect(copy.url, application_name="a report")) as other:
        with other.cursor() as cursor:
            cursor.execute(statement)
        yield other


# -- making and altering


def test_types_are_staged_without_their_limits(copy: Copy) -> None:
    columns = {
        "id": "bigint",
        "a": "numeric(12,2)",
        "b": "timestamp(3)",
        "c": "time(3)",
        "d": "numeric(5,0)[]",
        "e": "bit(9)",
    }
    table = copy.fit(columns, stamp(1))
    assert {name: column.type for name, column in table.columns.items()} == {
        "id": "bigint", "a": "numeric", "b": "timestamp", "c": "time", "d": "numeric[]", "e": "varbit",
    }  # fmt: skip
    assert copy.rows(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = 'shop.orders'::regclass ORDER BY attnum"
    ) == [
        ("id", "bigint"),
        ("a", "numeric"),
        ("b", "timestamp without time zone"),
        ("c", "time without time zone"),
        ("d", "numeric[]"),
        ("e", "bit varying"),
    ]


def test_what_fits_costs_no_query(copy: Copy) -> None:
    copy.fit(COLUMNS, stamp(1))
    assert copy.catalogue.fit(None, ORDERS, COLUMNS, ["id"], stamp(2)) is copy.table()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["_deleted", "_generation", "deleted", "t", "o", "u", "n", "excluded", "missing", "name", "w", "version"]
)
def test_s1_no_column_of_the_shop_meets_one_of_ours(copy: Copy, name: str) -> None:
    columns = {"id": "bigint", name: "text", "note": "text"}
    first = {"id": 1, name: "first", "note": "n"}
    copy.put((first, stamp(100)), columns=columns)
    copy.put((first | {name: "second"}, stamp(200)), columns=columns, sent=["id", name], snapshot="s1")
    assert copy.shown(f'id, "{name}", note') == [(1, "second", "n")]
    copy.put((first | {"id": 2}, stamp(300)), columns=columns, sent=["id", "note"])
    copy.delete(({"id": 1}, stamp(300)))
    with transaction(copy.connection) as cursor:
        assert row_io.take_over(cursor, copy.table(), [key_change(1, 2, stamp(300))])
    assert copy.shown(f'id, "{name}", note') == [(2, "second", "n")]


def test_another_process_knows_what_one_has_made(copy: Copy) -> None:
    copy.put((ONE, stamp(100)))
    copy.put((row(RENAMED), stamp(200)), columns=RENAMED)
    copy.truncate(stamp(300))
    with transaction(copy.connection) as cursor:
        other = Catalogue("shop", {}).loaded(cursor)
    assert other[ORDERS] == copy.table()


def test_what_was_rolled_back_is_not_known(copy: Copy) -> None:
    with transaction(copy.connection) as cursor:
        copy.catalogue.fit(cursor, ORDERS, COLUMNS, ["id"], stamp(1))
        cursor.execute("ROLLBACK; BEGIN")
    copy.catalogue.forget()
    copy.put((ONE, stamp(100)))
    assert copy.shown("id") == [(1,)]


@pytest.mark.parametrize("key", [(), ("id", "status"), ("status",)])
def test_a_key_that_changed_is_said_and_the_transaction_goes_on(copy: Copy, key: tuple[str, ...]) -> None:
    copy.put((ONE, stamp(100)))
    with transaction(copy.connection) as cursor:
        with pytest.raises(DataError, match=r"public\.orders: .* key") as caught:
            copy.catalogue.fit(cursor, ORDERS, dict(COLUMNS), key, stamp(200))
        assert caught.value.hint
        copy.catalogue.fit(cursor, "public.other", COLUMNS, ["id"], stamp(200))


def test_where_the_key_changed_the_hint_makes_the_staged_table_anew(copy: Copy) -> None:
    copy.put((ONE, stamp(100)))
    copy.key = ("id", "status")
    with pytest.raises(DataError, match=r"public\.orders: .* key") as caught:
        copy.fit(COLUMNS, stamp(200))
    assert "`capture signal snapshot public.orders`" in caught.value.hint
    drop = re.search("`(DROP TABLE .*)`, which", caught.value.hint)
    assert drop is not None
    copy.run(drop[1])
    again = Copy(copy.url, key=copy.key)  # `sink run`, started again
    with transaction(again.connection) as cursor:
        again.catalogue.declare(cursor, ORDERS, COLUMNS)
    assert again.shown("id") == []
    assert again.rows("SELECT table_name, cause FROM table_gap") == [(ORDERS, "begun without a copy")]
    again.put((ONE, stamp(200)), (ONE | {"status": "paid"}, stamp(200, 2)))
    assert sorted(again.shown("id, status")) == [(1, "new"), (1, "paid")]
    assert again.table().key == ("id", "status")


def test_a_key_of_another_type_is_said(copy: Copy) -> None:
    copy.put((ONE, stamp(100)))
    with pytest.raises(DataError, match=r"public\.orders: the key's column id is now uuid, staged as bigint"):
        copy.fit(COLUMNS | {"id": "uuid"}, stamp(200))


def test_s8_a_table_that_postgresql_refuses_is_named_and_the_others_go_on(copy: Copy) -> None:
    many = {"id": "bigint"} | {f"c{n}": "text" for n in range(1600)}
    with transaction(copy.connection) as cursor:
        with pytest.raises(DataError, match=r"public\.wide: .*1600 columns") as caught:
            copy.catalogue.fit(cursor, "public.wide", many, ["id"], stamp(100))
        assert "snapshot public.wide" in caught.value.hint
        copy.catalogue.fit(cursor, ORDERS, COLUMNS, ["id"], stamp(100))
    copy.put((ONE, stamp(100)))
    many = {"id": "bigint"} | {f"c{n}": "text" for n in range(1580)}
    copy.fit(many, stamp(100), "public.wide")
    with pytest.raises(DataError, match=r"public\.wide: .*1600 columns"):
        copy.fit({"id": "bigint"} | {f"d{n}": "text" for n in range(30)}, stamp(200), "public.wide")
    assert copy.table("public.wide").schema == stamp(100)  # nothing of it happened
    assert copy.shown("id") == [(1,)]


def test_a_long_name_is_staged_under_one_that_postgresql_does_not_cut(copy: Copy) -> None:
    one, other = (f"public.{'ä' * 28}{end}" for end in ("abcd1", "abcd2"))
    assert len({stored_name(one), stored_name(other)}) == 2
    assert max(len(stored_name(name).encode()) for name in (one, other)) <= 63


# -- a person's views


def test_s3_a_persons_view_survives_a_new_column_and_the_first_row(database: str) -> None:
    copy = Copy(database, {ORDERS: frozenset({"id"})})
    with transaction(copy.connection) as cursor:
        copy.catalogue.declare(cursor, ORDERS, {"note": "text", "id": "bigint", "total": "numeric(12,2)"})
    copy.run("CREATE VIEW public.report AS SELECT * FROM shop.orders")
    with pytest.raises(psycopg2.Error):  # the premise: its columns stand in the way of a view made anew
        copy.run("DROP VIEW shop.orders")
    copy.put((ONE, stamp(100)))
    copy.put((row(WITH, 2), stamp(200)), columns=WITH)
    copy.put((row(WITHOUT, 3), stamp(300)), columns=WITHOUT)
    assert copy.rows("SELECT id FROM public.report ORDER BY id") == [(1,), (2,), (3,)]
    assert copy.rows("SELECT attname FROM pg_attribute WHERE attrelid = 'shop.orders'::regclass ORDER BY attnum") == [
        (name,) for name in ("note", "id", "total", "status", "extra")
    ]


def test_a_persons_view_in_the_way_of_another_type_parks_that_table_alone(copy: Copy) -> None:
    copy.put((ONE, stamp(100)))
    copy.run("CREATE VIEW public.report AS SELECT id FROM shop.orders")
    changed = COLUMNS | {"note": "integer"}
    with transaction(copy.connection) as cursor:
        with pytest.raises(
            DataError, match=r"public\.orders: .*view public\.report depends on view shop\.orders"
        ) as caught:
            copy.catalogue.fit(cursor, ORDERS, changed, ["id"], stamp(200))
        assert "drop" in caught.value.hint
        copy.catalogue.fit(cursor, "public.other", COLUMNS, ["id"], stamp(200))
    assert copy.rows("SELECT id FROM public.report") == [(1,)]
    copy.run("DROP VIEW public.report")
    copy.put((row(changed, 2), stamp(300)), columns=changed)
    assert copy.rows("SELECT id, note FROM shop.orders WHERE id = 2") == [(2, 2)]


def test_who_may_read_a_view_may_read_it_after_another_type(copy: Copy) -> None:
    copy.put((ONE, stamp(100)), columns=COLUMNS | {"id": "integer"})
    role = f"Report of {copy.connection.info.dbname}"
    copy.run(f'CREATE ROLE "{role}"; GRANT SELECT ON shop.orders TO "{role}", PUBLIC')
    copy.put((row(COLUMNS, 2), stamp(200)))
    for who in (role, "public"):
        assert copy.rows("SELECT has_table_privilege(%s, 'shop.orders', 'SELECT')", who) == [(True,)]
    assert copy.rows("SELECT has_table_privilege(%s, 'shop.orders', 'UPDATE')", role) == [(False,)]
    copy.run(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')


# -- what was never seen


def test_f3_a_column_added_with_a_default_is_unseen_in_older_rows(copy: Copy) -> None:
    copy.put((ONE, stamp(100)), (TWO, stamp(100, 2)))
    copy.put((row(WITH, 2, extra="default"), stamp(200)), columns=WITH)
    assert copy.rows('SELECT extra FROM ordertap_shop."public.orders" WHERE id = 1') == [(None,)]  # no NULL of the shop
    assert unseen(copy, "*") == "public.orders.extra was never seen; `capture signal snapshot public.orders`"
    assert unseen(copy, "*", "id = 2") == ""  # a row that is not asked for raises nothing
    copy.put((row(WITH, 1, extra="default"), stamp(300, 0)), columns=WITH, snapshot="s1")
    assert copy.shown("id, extra") == [(1, "default"), (2, "default")]


def test_f3_a_renamed_column_is_said_loudly_and_never_read_again(database: str) -> None:
    copy = Copy(database, {ORDERS: frozenset({"id", "note"})})
    copy.put((ONE, stamp(100)))
    with structlog.testing.capture_logs() as logs:
        copy.put((row(RENAMED, 2), stamp(200)), (row(RENAMED, 3), stamp(201)), columns=RENAMED)
        copy.put((row(RENAMED, 4), stamp(300)), columns=RENAMED)
    assert [(one["log_level"], one["table"], one["column"]) for one in logs] == [("error", ORDERS, "note")]
    said = unseen(copy, "note", "id = 2")
    assert said == "public.orders.note is no longer in the shop; change the profile, which reads it"
    assert unseen(copy, "note", "id = 1") == said
    with structlog.testing.capture_logs() as logs, transaction(copy.connection) as cursor:
        Catalogue("shop", {ORDERS: frozenset({"note"})}).declare(cursor, ORDERS, COLUMNS)
    assert [one["column"] for one in logs] == ["note"]  # and again by each process that starts


def test_f3_a_dropped_column_that_nobody_reads_holds_nothing(database: str) -> None:
    copy = Copy(database, {ORDERS: frozenset({"id", "status"})})
    copy.put((ONE, stamp(100)))
    with structlog.testing.capture_logs() as logs:
        copy.put((row(WITHOUT, 2), stamp(200)), columns=WITHOUT)
    assert logs == []
    assert copy.shown("id, status") == [(1, "new"), (2, "x")]


def test_a_column_that_comes_back_is_unseen_in_the_rows_between(copy: Copy) -> None:
    copy.put((ONE, stamp(100)), (TWO, stamp(100, 2)))
    copy.put((row(WITHOUT, 2), stamp(200)), (row(WITHOUT, 3), stamp(201)), columns=WITHOUT)
    copy.put((row(COLUMNS, 4), stamp(300)))
    assert unseen(copy, "note", "id = 4") == ""
    for number in (1, 2, 3):
        assert "note was never seen" in unseen(copy, "note", f"id = {number}")


def test_f3_another_type_takes_no_value_over(copy: Copy) -> None:
    text, number = COLUMNS | {"note": "text"}, COLUMNS | {"note": "integer"}
    copy.put((row(text, 1, note="12"), stamp(100)), columns=text)
    copy.put((row(number, 2, note=34), stamp(200)), columns=number)
    assert copy.rows("SELECT note FROM shop.orders WHERE id = 2") == [(34,)]
    assert "note was never seen" in unseen(copy, "note", "id = 1")
    copy.put((row(text, 3, note="late"), stamp(150)), columns=text)  # written with the older schema: it does not fit
    assert "note was never seen" in unseen(copy, "note", "id = 3")
    copy.put((row(text, 2, note="late"), stamp(150)), columns=text)
    assert copy.rows("SELECT note FROM shop.orders WHERE id = 2") == [(34,)]


@pytest.mark.parametrize(
    ("narrow", "wide", "value", "read"),
    [
        ("smallint", "bigint", 7, "7"),
        ("integer", "bigint", 7, "7"),
        ("real", "double precision", 0.5, "0.5"),
        ("date", "timestamp(3)", "2026-11-29", "2026-11-29 00:00:00"),
        ("numeric(6,2)", "numeric(12,4)", "1.50", "1.50"),
        ("timestamp(3)", "timestamp", "2026-11-29 01:02:03.004", "2026-11-29 01:02:03.004"),
    ],
)
def test_a_wider_type_keeps_what_is_there(copy: Copy, narrow: str, wide: str, value: object, read: str) -> None:
    before, after = COLUMNS | {"note": narrow}, COLUMNS | {"note": wide}
    copy.put((row(before, 1, note=value), stamp(100)), columns=before)
    copy.put((row(after, 2, note=value), stamp(200)), columns=after)
    copy.put((row(before, 3, note=value), stamp(150)), columns=before)  # late, of the older schema
    assert copy.shown("id, note::text") == [(1, read), (2, read), (3, read)]


@pytest.mark.parametrize(
    ("wide", "narrow", "value", "read"),
    [
        ("double precision", "real", 0.5, "0.5"),
        ("timestamp", "date", "2026-11-29", "2026-11-29"),
    ],
)
def test_a_narrower_type_takes_no_value_over_that_the_shop_has_rounded(
    copy: Copy, narrow: str, wide: str, value: object, read: str
) -> None:
    before, after = COLUMNS | {"note": wide}, COLUMNS | {"note": narrow}
    copy.put((row(before, 1, note=value), stamp(100)), columns=before)
    copy.put((row(after, 2, note=value), stamp(200)), columns=after)
    assert copy.rows("SELECT note::text FROM shop.orders WHERE id = 2") == [(read,)]
    assert "note was never seen" in unseen(copy, "note", "id = 1")
    copy.put((row(before, 3, note=value), stamp(150)), columns=before)  # late, of the older schema
    assert "note was never seen" in unseen(copy, "note", "id = 3")
    copy.catalogue.forget()
    copy.put((row(after, 4, note=value), stamp(300)), columns=after)
    assert copy.rows("SELECT note::text FROM shop.orders WHERE id = 2") == [(read,)]


def test_a_narrower_integer_keeps_what_is_there(copy: Copy) -> None:
    """What does not fit, PostgreSQL refuses in the shop."""
    before, after = COLUMNS | {"note": "bigint"}, COLUMNS | {"note": "integer"}
    copy.put((row(before, 1, note=7), stamp(100)), columns=before)
    copy.put((row(after, 2, note=8), stamp(200)), columns=after)
    assert copy.shown("id, note::text") == [(1, "7"), (2, "8")]


def test_a_key_gets_a_wider_type(copy: Copy) -> None:
    copy.put((ONE, stamp(100)), columns=COLUMNS | {"id": "integer"})
    copy.put((row(COLUMNS, 5_000_000_000), stamp(200)))
    assert copy.shown("id") == [(1,), (5_000_000_000,)]


@pytest.mark.parametrize("restart", [False, True])
def test_a_record_of_an_older_schema_takes_no_column_away(copy: Copy, restart: bool) -> None:
    copy.put((row(WITH, 1), stamp(200)), columns=WITH)
    if restart:
        copy.catalogue.forget()
    copy.put((row(COLUMNS, 2), stamp(100)), columns=COLUMNS)
    assert unseen(copy, "id, extra", "id = 1") == ""
    assert "extra was never seen" in unseen(copy, "extra", "id = 2")
    copy.put((row(COLUMNS, 3), stamp(300)), columns=COLUMNS)  # the same object, and newer now: dropped in the shop
    assert "extra is no longer in the shop" in unseen(copy, "extra", "id = 1")


def test_a_column_of_an_older_schema_that_is_first_seen_late_is_gone(copy: Copy) -> None:
    copy.put((row(WITHOUT, 1), stamp(200)), columns=WITHOUT)
    copy.put((row(COLUMNS, 2), stamp(100)), columns=COLUMNS)
    assert "note is no longer in the shop" in unseen(copy, "note")
    copy.put((row(COLUMNS, 3), stamp(300)), columns=COLUMNS)
    assert unseen(copy, "note", "id = 3") == ""
    assert "note was never seen" in unseen(copy, "note", "id = 1")


def test_records_out_of_order_do_not_make_seen_values_unseen(copy: Copy) -> None:
    """Read again from the beginning, partitions run apart: the first record that has a column is not its oldest."""
    copy.put((row(COLUMNS, 1), stamp(100)))
    copy.put((row(WITH, 2), stamp(500)), columns=WITH)
    copy.put((row(WITH, 3), stamp(300)), columns=WITH)
    assert unseen(copy, "extra", "id IN (2, 3)") == ""
    assert "extra" in unseen(copy, "extra", "id = 1")


def test_a_row_that_keeps_an_unseen_value_is_still_unseen(copy: Copy) -> None:
    """An update that does not send the column makes the row newer, not its value known."""
    copy.put((row(COLUMNS, 1), stamp(100)))
    copy.put((row(WITH, 2), stamp(200)), columns=WITH)
    copy.put((row(WITH, 1), stamp(300)), columns=WITH, sent=list(COLUMNS))
    assert "extra was never seen" in unseen(copy, "extra", "id = 1")
    copy.put((row(WITH, 1), stamp(400)), columns=WITH, sent=["id", "extra"])
    assert unseen(copy, "*", "id = 1") == ""


def test_only_columns_that_the_profile_reads_raise(database: str) -> None:
    copy = Copy(database, {ORDERS: frozenset({"id", "status"})})
    sent = [name for name in COLUMNS if name not in ("note", "status")]
    copy.put((row(COLUMNS, 1), stamp(100)), sent=[*sent, "status"])
    copy.put((row(COLUMNS, 2), stamp(100)), sent=sent)
    assert unseen(copy, "id", "id = 1") == ""
    assert unseen(copy, "id", "id = 2").startswith("public.orders.status was never seen;")


def test_a_profile_that_reads_more_gets_its_view_at_the_start(database: str) -> None:
    copy = Copy(database, {ORDERS: frozenset({"id"})})
    copy.put((ONE, stamp(100)), sent=["id", "status", "total"])
    assert unseen(copy, "note") == ""
    copy.catalogue = Catalogue("shop", {ORDERS: frozenset({"id", "note"})})
    with transaction(copy.connection) as cursor:
        copy.catalogue.declare(cursor, ORDERS, {"id": "bigint", "note": "text"})
    assert "note was never seen" in unseen(copy, "note")
    with (
        holding(copy, "LOCK TABLE ordertap_shop.schema_gate IN ACCESS SHARE MODE"),
        transaction(copy.connection) as cursor,
    ):
        copy.catalogue.declare(cursor, ORDERS, {"id": "bigint", "note": "text"})  # nothing to do: it waits for nobody


def test_a_declared_table_is_empty_until_its_first_row(copy: Copy) -> None:
    with transaction(copy.connection) as cursor:
        copy.catalogue.declare(cursor, ORDERS, {"id": "integer", "more": "text"})
    assert copy.rows("SELECT more FROM shop.orders") == []
    with (
        holding(copy, "LOCK TABLE ordertap_shop.schema_gate IN ACCESS SHARE MODE"),
        transaction(copy.connection) as cursor,
    ):
        copy.catalogue.declare(cursor, ORDERS, {"id": "integer", "more": "text"})
    copy.put((ONE, stamp(100)))
    assert copy.shown("id, status, total::text, note") == [(1, "new", "19.90", "x")]
    with pytest.raises(psycopg2.errors.UndefinedColumn):  # the shop has no such column: no NULL stands for it
        copy.rows("SELECT more FROM shop.orders")


def test_conditions_of_a_query_come_before_ours_and_use_indexes(copy: Copy) -> None:
    columns = {"id": "bigint", "order_id": "bigint", "note": "text"}
    heads = {"id": "bigint", "sku": "text"}
    copy.catalogue = Catalogue("shop", {"public.lines": None, "public.heads": None})
    rows = [({"id": n, "order_id": n // 3, "note": "x"}, stamp(100, n)) for n in range(1, 6001)]
    copy.put(*rows, columns=columns, sent=["id", "order_id"], name="public.lines")
    copy.put(*[({"id": n, "sku": "x"}, stamp(1, n)) for n in range(2000)], columns=heads, name="public.heads")
    wider = {**columns, "more": "text"}
    copy.put(*[(one | {"more": "x"}, stamp(200, n)) for n, (one, _) in enumerate(rows[:300])], columns=wider,
             name="public.lines")  # fmt: skip
    copy.run('CREATE INDEX ON ordertap_shop."public.lines" (order_id); ANALYZE')
    joined = "SELECT l.note, l.more FROM shop.heads AS h JOIN shop.lines AS l ON l.order_id = h.id WHERE h.id = ANY"
    for query in ("SELECT note, more FROM shop.lines WHERE order_id = ANY", joined):
        plan = "\n".join(line for (line,) in copy.rows(f"EXPLAIN {query} (%s)", [7, 8]))
        assert "lines_order_id_idx" in plan
        assert "Seq Scan" not in plan
        assert len(copy.rows(f"{query} (%s)", [7, 8])) == 6
        with pytest.raises(psycopg2.DatabaseError) as caught:
            copy.rows(f"{query} (%s)", [7, 1900])
        assert caught.value.pgcode == UNSEEN


# -- documents


def test_a_document_that_reads_an_unseen_value_is_held_alone(copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "profile.yaml").write_text(
        "tables: [public.orders]\ndocuments:\n  price: {model: Price, key: orders.id, touched_by: {orders: id}}\n"
    )
    fields = (
        "id AS key, status AS sku, 'EUR' AS currency, total AS amount, 'retail' AS price_list, true AS tax_included"
    )
    (tmp_path / "price.sql").write_text(f"SELECT {fields} FROM orders WHERE id::text = ANY(%(keys)s)")
    profile = load_profile(str(tmp_path))
    rule = profile.documents["price"]
    copy.put((ONE, stamp(100)), (TWO, stamp(100, 2)))
    copy.put((row(COLUMNS, 3), stamp(200)), sent=["id", "note", "status"])
    with reading(copy.connection) as cursor, names_of(cursor, "shop"):
        built = build(cursor, rule, ["1", "2", "3"])
        assert all_keys(cursor, profile, "price") == ["1", "2", "3"]
    assert built["3"] == Invalid("public.orders.total was never seen", "`capture signal snapshot public.orders`")
    assert isinstance(built["1"], Price)
    assert isinstance(built["2"], Price)


# -- locks


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("LOCK TABLE ordertap_shop.schema_gate IN ACCESS SHARE MODE", r"ordertap_shop\.schema_gate"),
        ("SELECT FROM shop.orders", r"(ordertap_shop\.\"public\.orders\"|shop\.orders)"),
    ],
)
def test_who_holds_a_lock_is_named_and_it_is_tried_again(copy: Copy, statement: str, named: str) -> None:
    copy.put((ONE, stamp(100)))
    with holding(copy, statement) as other:
        pid = other.info.backend_pid
        with transaction(copy.connection) as cursor:
            cursor.execute("SET LOCAL lock_timeout = '7s'")
            with pytest.raises(SchemaBlockedError) as caught:
                copy.catalogue.fit(cursor, ORDERS, WITH, ["id"], stamp(200))
            cursor.execute("SHOW lock_timeout")
            assert cursor.fetchone() == ("7s",)
        assert isinstance(caught.value, UnavailableError)
        caught.match(rf"public\.orders: .*process {pid} \(a report, user \w+\) holds a lock on {named}.* since 20\d\d-")
        assert f"pg_terminate_backend({pid})" in caught.value.hint
    with transaction(copy.connection) as cursor:
        cursor.execute("SET LOCAL lock_timeout = '7s'")
        copy.catalogue.fit(cursor, ORDERS, WITH, ["id"], stamp(200))
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == ("7s",)
    assert "extra" in copy.table().columns


def retype(copy: Copy) -> None:
    wide = COLUMNS | {"id": "bigint"}
    copy.put((row(wide, 2), stamp(200)), columns=wide)


def in_background(act: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=act)
    thread.start()
    return thread


def waits(copy: Copy, thread: threading.Thread) -> None:
    """Until somebody waits for the gate."""
    with closing(connect(copy.url, "ordertap_shop")) as other, other.cursor() as cursor:
        until = time.monotonic() + 30
        while time.monotonic() < until and thread.is_alive():
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone() != (0,):
                return
            time.sleep(0.01)
    raise AssertionError("nobody waits")


@pytest.fixture
def narrow(copy: Copy) -> Copy:
    copy.put((ONE, stamp(100)), columns=COLUMNS | {"id": "integer"})
    return copy


def test_f1_the_premise_a_snapshot_older_than_a_rewrite_reads_an_empty_table(narrow: Copy) -> None:
    with (
        closing(connect(narrow.url, "ordertap_shop")) as other,
        transaction(other, "REPEATABLE READ READ ONLY") as reader,
    ):
        reader.execute("SELECT 1")  # no gate, and a snapshot
        retype(narrow)
        reader.execute("SELECT id FROM shop.orders")
        assert reader.fetchall() == []


def test_f1_a_reader_that_came_first_reads_on_while_a_type_changes(narrow: Copy) -> None:
    with closing(connect(narrow.url, "ordertap_shop")) as other:
        with reading(other) as reader, names_of(reader, "shop"):
            changing = in_background(lambda: retype(narrow))
            waits(narrow, changing)
            reader.execute("SELECT id FROM shop.orders")
            assert reader.fetchall() == [(1,)]
        changing.join()
    assert narrow.shown("id") == [(1,), (2,)]


def test_f1_a_reader_that_comes_while_a_type_changes_waits_for_the_new_table(narrow: Copy) -> None:
    seen: list[list[tuple[Any, ...]]] = []

    def read() -> None:
        with closing(connect(narrow.url, "ordertap_shop")) as other, reading(other) as reader, names_of(reader, "shop"):
            reader.execute("SELECT id FROM shop.orders ORDER BY id")
            seen.append(reader.fetchall())

    with transaction(narrow.connection) as cursor:
        narrow.catalogue.fit(cursor, ORDERS, COLUMNS, ["id"], stamp(200))
        waiting = in_background(read)
        waits(narrow, waiting)
    waiting.join()
    assert seen == [[(1,)]]
