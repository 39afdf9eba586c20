"""The SQL that finds touched documents, as text; tests/integration/test_touches.py runs it."""

from pathlib import Path
from typing import Any

import pytest
from psycopg2 import sql

from schemas.model.change import Stamp
from schemas.model.lsn import LSN
from sink.documents.profile import Profile, load_profile
from sink.staging.schema import Column, StagedTable
from sink.staging.touches import all_rows, before_and_after, expressions, one, selects

PROFILE = """
tables: {public.orders: {id: bigint, buyer: text}, public.lines: {id: bigint, order_id: bigint}}
documents:
  customer: {model: Customer, key: orders.buyer, touched_by: {orders: "lower(buyer) -- as typed"}}
  sales_order:
    model: SalesOrder
    key: orders.id
    touched_by: {orders: id, lines: [order_id, SELECT o.id FROM changed c JOIN orders o ON o.id = -c.order_id]}
"""
COLUMNS = {"id": Column("bigint"), "order_id": Column("bigint")}
LINES = StagedTable("public.lines", ("id",), COLUMNS, 1, Stamp(1, LSN(1), 1), "ordertap_shop")
STAGED = '"ordertap_shop"."public.lines"'
RELATIONS = {"public.orders": sql.SQL("TABLE o"), "public.lines": sql.SQL("TABLE l"), "public.more": sql.SQL("TABLE m")}


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    (tmp_path / "profile.yaml").write_text(PROFILE)
    for name in ("customer", "sales_order"):
        (tmp_path / f"{name}.sql").write_text("SELECT 1 AS key")
    return load_profile(str(tmp_path))


def text(made: Any) -> str:
    """The text psycopg2 would write; psycopg2 itself needs a connection for that."""
    if isinstance(made, sql.Composed):
        return "".join(map(text, made.seq))
    if isinstance(made, sql.Identifier):
        return ".".join(f'"{name}"' for name in made.strings)
    return repr(made.wrapped) if isinstance(made, sql.Literal) else str(made.string)


def test_all_expressions_are_one_statement_that_reads_each_table_once(profile: Profile) -> None:
    assert text(expressions(profile, RELATIONS)) == (
        "SELECT DISTINCT type, key FROM ("
        "SELECT d.type, d.key FROM (TABLE o) AS changed CROSS JOIN LATERAL"
        " (VALUES ('customer', (lower(buyer) -- as typed\n)::text), ('sales_order', (id\n)::text)) AS d (type, key)"
        " UNION ALL SELECT d.type, d.key FROM (TABLE l) AS changed CROSS JOIN LATERAL"
        " (VALUES ('sales_order', (order_id\n)::text)) AS d (type, key)"
        ") AS touched WHERE key IS NOT NULL"
    )


def test_a_select_has_its_changed_rows_before_it(profile: Profile) -> None:
    select = (
        "(WITH changed AS (TABLE l) SELECT 'sales_order' AS type, d.key::text AS key FROM (SELECT NULL AS key WHERE"
        " false UNION ALL (SELECT o.id FROM changed c JOIN orders o ON o.id = -c.order_id\n)) AS d)"
    )
    assert text(selects(profile, RELATIONS)) == (
        f"SELECT DISTINCT type, key FROM ({select}) AS touched WHERE key IS NOT NULL"
    )
    rule = profile.documents["sales_order"]
    assert text(one(rule, rule.touched_by[2], RELATIONS["public.lines"])) == select


def test_tables_that_touch_nothing_make_no_statement(profile: Profile) -> None:
    others = {"public.more": RELATIONS["public.more"]}
    assert expressions(profile, others) is selects(profile, others) is None
    assert selects(profile, {"public.orders": RELATIONS["public.orders"]}) is None


def test_relations() -> None:
    assert text(all_rows(LINES)) == f'SELECT "t"."id", "t"."order_id" FROM {STAGED} AS t'
    staged = f'LATERAL (SELECT * FROM {STAGED} AS s WHERE s."id" = n."id" OFFSET 0) AS t'
    before = f'SELECT "t"."id", "t"."order_id" FROM "new" AS n CROSS JOIN {staged}'
    new = sql.Identifier("new")
    assert text(before_and_after(LINES, new, ["id"], live=False)) == before
    assert text(before_and_after(LINES, new, ["id"])) == (
        f'{before} UNION ALL SELECT "n"."id", "t"."order_id" FROM "new" AS n LEFT JOIN {staged} ON true'
    )
    assert text(before_and_after(LINES, new, ["id", "order_id"])) == (
        f'{before} UNION ALL SELECT "n"."id", "n"."order_id" FROM "new" AS n'
    )
