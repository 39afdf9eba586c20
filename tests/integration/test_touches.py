"""Which documents changed rows touch, on a real server: as staging asks, and for rows that are not written yet."""

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from psycopg2 import sql

from schemas.model.change import Stamp
from schemas.model.errors import DataError, SettingsError
from schemas.model.lsn import LSN
from sink.database import Cursor, connect, names_of, transaction
from sink.documents.profile import Profile, load_profile
from sink.documents.refs import DocumentRef
from sink.reconcile.sides import readable
from sink.staging import own_rows, touches
from sink.staging.gaps import TableGap
from sink.staging.schema import StagedTable
from tests.integration.stager_feed import LINES, ORDERS, Piece, line, order
from tests.integration.written_rows import Written, key_change, unchanged
from tests.keys import all_keys

TABLES = """
tables:
  public.orders: {id: bigint, status: text}
  public.order_lines: {id: bigint, order_id: bigint, sku: text}
documents:
"""
ORDER = """
  sales_order:
    model: SalesOrder
    key: orders.id
    touched_by: {orders: id, order_lines: order_id}
"""
PRICE = """
  price:
    model: Price
    key: order_lines.id
    touched_by:
      order_lines: id
      orders: SELECT l.id FROM changed c JOIN order_lines l ON l.order_id = c.id  -- 100 % of them
"""


def make_shop(url: str, folder: Path, documents: str) -> Written:
    head = "SELECT id AS key FROM orders WHERE id::text = ANY(%(keys)s)"
    names = [row.strip(" :") for row in documents.splitlines() if row.startswith("  ") and row[2] != " "]
    heads = {f"{name}.sql": head for name in names}
    return Written(folder, "", "shop", url, profile_text=TABLES + documents, heads=heads)


def marks(shop: Written) -> set[str]:
    """What was marked since the last call."""
    found = {f"{type_} {key}" for type_, key in shop.rows("DELETE FROM ordertap_shop.document RETURNING type, key")}
    shop.rows("DELETE FROM ordertap_shop.unit RETURNING unit")
    return found


def test_a_select_joins_other_tables_before_and_after(database: str, tmp_path: Path) -> None:
    shop = make_shop(database, tmp_path, ORDER + PRICE)
    shop.stage(line(1, 100))
    assert marks(shop) == {"sales_order 17", "price 1"}
    shop.stage(order(17, 200))  # comes after the line that is joined to it
    assert marks(shop) == {"sales_order 17", "price 1"}
    shop.stage(line(1, 300, of=18, op="u"))
    assert marks(shop) == {"sales_order 17", "sales_order 18", "price 1"}
    shop.stage(order(17, 400, status="sent", op="u"))
    assert marks(shop) == {"sales_order 17"}
    # One commit moves the line back and deletes its order: the two were joined neither before nor after.
    shop.stage(line(1, 500, 1, op="u"), order(17, 500, 2, op="d"))
    assert marks(shop) == {"sales_order 17", "sales_order 18", "price 1"}


def test_a_select_that_joins_a_row_with_a_value_that_never_came_touches_all_the_same(
    database: str, tmp_path: Path
) -> None:
    shop = make_shop(database, tmp_path, ORDER + PRICE)
    shop.stage(line(1, 100, op="u", headers=unchanged("sku")))
    marks(shop)
    shop.stage(order(17, 200))
    assert marks(shop) == {"sales_order 17", "price 1"}
    assert shop.rows("SELECT count(*) FROM ordertap_shop.parked") == [(0,)]


def test_a_delete_touches_by_the_row_as_it_was(database: str, tmp_path: Path) -> None:
    shop = make_shop(database, tmp_path, ORDER + PRICE)
    shop.stage(line(1, 100))
    marks(shop)
    shop.stage(line(1, 200, op="d"))
    assert marks(shop) == {"sales_order 17", "price 1"}


def test_a_key_change_touches_under_both_keys(database: str, tmp_path: Path) -> None:
    shop = make_shop(database, tmp_path, ORDER)
    shop.stage(order(17, 100))
    marks(shop)
    shop.stage(*key_change(order(17, 200), order(18, 200)))
    assert marks(shop) == {"sales_order 17", "sales_order 18"}


def noted(number: int, at: int, note: str | None, op: str = "c") -> Piece:
    return order(number, at, op=op, row={"note": note})


def test_null_touches_nothing_and_several_expressions_touch_several(database: str, tmp_path: Path) -> None:
    guest = """
  customer:
    model: Customer
    key: orders.id
    touched_by:
      orders: [id, "CASE WHEN note IS NOT NULL THEN 'guest:' || lower(btrim(note)) END"]
"""
    shop = make_shop(database, tmp_path, guest)
    shop.stage(noted(17, 100, None))
    assert marks(shop) == {"customer 17"}
    shop.stage(noted(17, 200, " Ann@x.example", "u"))
    assert marks(shop) == {"customer 17", "customer guest:ann@x.example"}


def another(folder: Path, documents: str) -> Profile:
    """A profile with the documents sales_order and price."""
    (folder / "profile.yaml").write_text(TABLES + documents)
    for name in ("sales_order", "price"):
        (folder / f"{name}.sql").write_text("SELECT 1 AS key")
    return load_profile(str(folder))


@contextmanager
def staging(shop: Written) -> Iterator[Cursor]:
    """A transaction like the staging's."""
    with transaction(shop.connection) as cursor, names_of(cursor, "shop", unseen="show"):
        yield cursor


def whole(shop: Written, cursor: Cursor, *names: str) -> dict[str, sql.Composable]:
    """All rows of staged tables."""
    return {name: touches.all_rows(shop.staged(cursor, name)) for name in names}


def some(table: StagedTable, ids: Iterable[int]) -> sql.Composable:
    """The rows with these ids."""
    return sql.SQL("{} WHERE id = ANY ({})").format(touches.all_rows(table), sql.Literal(list(ids)))


def test_a_batch_of_many_rows_of_which_few_are_staged(database: str, tmp_path: Path) -> None:
    shop = make_shop(database, tmp_path, ORDER)
    for number in (1, 10_050):
        shop.stage(line(number, number, of=number))
    with staging(shop) as cursor:
        cursor.execute("CREATE TEMPORARY TABLE new ON COMMIT DROP AS SELECT generate_series(1, 10050)::bigint AS id")
        gone = touches.before_and_after(shop.staged(cursor, LINES), sql.Identifier("new"), ["id"], live=False)
        found = touches.find(cursor, shop.profile, {LINES: gone})
    assert found == {DocumentRef("sales_order", "1"), DocumentRef("sales_order", "10050")}


def test_rows_that_are_not_written_yet_touch_as_they_are_and_as_they_will_be(database: str, tmp_path: Path) -> None:
    shop = make_shop(database, tmp_path, ORDER + PRICE)
    for number, order_id in ((1, 11), (2, 12), (3, 13)):
        shop.stage(line(number, number, of=order_id))
    shop.stage(order(12, 50))
    with staging(shop) as cursor:
        profile, lines, orders = shop.profile, shop.staged(cursor, LINES), shop.staged(cursor, ORDERS)
        cursor.execute("CREATE TEMPORARY TABLE new_lines (id bigint, order_id bigint) ON COMMIT DROP")
        cursor.execute("INSERT INTO new_lines VALUES (1, 21), (4, 14)")
        cursor.execute("CREATE TEMPORARY TABLE gone_lines (id bigint) ON COMMIT DROP")
        cursor.execute("INSERT INTO gone_lines VALUES (2)")
        cursor.execute("CREATE TEMPORARY TABLE new_orders (id bigint) ON COMMIT DROP")  # its status was not sent
        cursor.execute("INSERT INTO new_orders VALUES (12)")
        new = touches.before_and_after(lines, sql.Identifier("new_lines"), ["id", "order_id"])
        gone = touches.before_and_after(lines, sql.Identifier("gone_lines"), ["id"], live=False)
        relations = {
            LINES: sql.SQL("{} UNION ALL {}").format(new, gone),
            ORDERS: touches.before_and_after(orders, sql.Identifier("new_orders"), ["id"]),
        }
        by_expression = touches.expressions(profile, relations)
        assert by_expression is not None
        cursor.execute(by_expression)
        found = {f"{type_} {key}" for type_, key in cursor.fetchall()}
        assert found == {f"sales_order {n}" for n in (11, 12, 14, 21)} | {f"price {n}" for n in (1, 2, 4)}
        by_select = touches.selects(profile, relations)
        assert by_select is not None
        cursor.execute(by_select)
        assert cursor.fetchall() == [("price", "2")]
        cursor.execute(sql.SQL("SELECT DISTINCT id, status FROM ({}) AS c").format(relations[ORDERS]))
        assert cursor.fetchall() == [(12, "paid")]


def test_a_cast_that_fails_for_one_row_says_where_and_the_row_can_be_found(database: str, tmp_path: Path) -> None:
    shop = make_shop(database, tmp_path, ORDER)
    shop.stage(*(noted(n, n, "secret" if n == 3 else str(n)) for n in range(1, 6)))
    profile = another(
        tmp_path, ORDER + "  price: {model: Price, key: orders.id, touched_by: {orders: 100 / note::int}}"
    )
    with staging(shop) as cursor:
        orders = shop.staged(cursor, ORDERS)
        with pytest.raises(DataError) as failed:
            touches.find(cursor, profile, {ORDERS: touches.all_rows(orders)})
        assert "documents.price.touched_by.public.orders" in failed.value.message
        assert "InvalidTextRepresentation" in failed.value.message
        assert "secret" not in str(failed.value)
        bad = []
        for number in range(1, 6):  # the transaction goes on
            try:
                touches.find(cursor, profile, {ORDERS: some(orders, [number])})
            except DataError:
                bad.append(number)
        assert bad == [3]
        assert DocumentRef("price", "100") in touches.find(cursor, profile, {ORDERS: some(orders, [1, 2])})


@pytest.mark.parametrize(
    ("touch", "reason"),
    [
        ("nothing", 'column "nothing" does not exist'),
        ("max(id)", "aggregate functions are not allowed"),
        ("SELECT c.id, c.status FROM changed c", "each UNION query must have the same number of columns"),
        ("SELECT l.nothing FROM changed c JOIN order_lines l ON true", "column l.nothing does not exist"),
        ("id) (", "syntax error"),
    ],
)
def test_sql_that_does_not_run_is_the_profiles_mistake(database: str, tmp_path: Path, touch: str, reason: str) -> None:
    shop = make_shop(database, tmp_path, ORDER)
    shop.stage(order(17, 100))
    price = f"  price: {{model: Price, key: orders.id, touched_by: {{orders: [id, '{touch}']}}}}"
    profile = another(tmp_path, ORDER + price)
    with staging(shop) as cursor, pytest.raises(SettingsError) as wrong:
        touches.find(cursor, profile, whole(shop, cursor, ORDERS))
    assert f"{tmp_path}/profile.yaml: documents.price.touched_by.public.orders: {reason}" in wrong.value.message


def test_a_check_runs_the_sql_on_the_shop_itself(database: str, tmp_path: Path) -> None:
    with closing(connect(database, "public")) as shop:
        with transaction(shop) as cursor:
            cursor.execute("CREATE TABLE orders (id int PRIMARY KEY, note text)")
        readable(shop, another(tmp_path, ORDER.replace(", order_lines: order_id", "")))
        documents = ORDER.replace(
            "order_lines: order_id", "order_lines: SELECT o.number FROM changed JOIN orders o ON true"
        )
        with transaction(shop) as cursor:
            cursor.execute("CREATE TABLE order_lines (id int PRIMARY KEY)")
        with pytest.raises(SettingsError, match=r"sales_order\.touched_by\.public\.order_lines: column o\.number"):
            readable(shop, another(tmp_path, documents))


def test_a_subquery_with_two_rows_is_the_datas_mistake(database: str, tmp_path: Path) -> None:
    price = PRICE.replace(
        "SELECT l.id FROM changed c JOIN order_lines l ON l.order_id = c.id",
        "SELECT (SELECT l.id FROM order_lines l WHERE l.order_id = c.id) FROM changed c",
    )
    shop = make_shop(database, tmp_path, ORDER + price)
    shop.stage(line(1, 100))
    shop.stage(order(17, 150))
    shop.stage(line(2, 200))
    with staging(shop) as cursor, pytest.raises(DataError, match="CardinalityViolation"):
        touches.find(cursor, shop.profile, whole(shop, cursor, ORDERS))


def test_all_keys_are_the_expressions_over_whole_tables(database: str, tmp_path: Path) -> None:
    shop = make_shop(database, tmp_path, ORDER + PRICE)
    shop.stage(line(1, 100))
    shop.stage(line(2, 200, of=18))
    shop.stage(line(2, 300, op="d"))
    shop.stage(order(19, 400))
    marks(shop)
    with staging(shop) as cursor:
        assert all_keys(cursor, shop.profile, "sales_order") == ["17", "19"]
        assert all_keys(cursor, shop.profile, "price") == ["1"]
    with transaction(shop.connection) as cursor:
        shop.copy.touch_all(cursor, [LINES, ORDERS, "public.never_staged"])
        shop.copy.mark(cursor)
    assert marks(shop) == {"sales_order 17", "sales_order 18", "sales_order 19", "price 1", "price 2"}


GROUPED = """
  sales_order:
    model: SalesOrder
    key: orders.id
    touched_by: {orders: "'all ' || status"}
  return_order:
    model: ReturnOrder
    key: order_lines.id
    order: SELECT 'all ' || o.status FROM changed c JOIN orders o ON o.id = c.order_id
    touched_by:
      order_lines: id
      orders: SELECT l.id FROM changed c JOIN order_lines l ON l.order_id = c.id
"""
UNITS = "SELECT type, key, unit FROM ordertap_shop.document WHERE unit <> type || ':' || key"


def test_a_return_is_in_the_unit_of_an_order_that_is_made_of_several_rows(database: str, tmp_path: Path) -> None:
    shop = make_shop(database, tmp_path, GROUPED)
    shop.stage(line(1, 100))
    assert shop.rows("SELECT unit FROM ordertap_shop.document") == [("sales_order:1",)], "its order has not come"
    shop.stage(order(17, 200), order(18, 200, 2))
    assert shop.rows(UNITS) == [("return_order", "1", "sales_order:all paid")]
    shop.stage(order(17, 300, status="sent", op="u"))
    assert shop.rows(UNITS) == [("return_order", "1", "sales_order:all sent")]
    assert marks(shop) >= {"sales_order all paid", "sales_order all sent"}
    shop.stage(line(1, 400, op="u"))
    shop.stage(order(17, 500, op="d"), line(1, 500, 2, op="d"))
    assert shop.rows(UNITS) == [("return_order", "1", "sales_order:all sent")], "where its order was"
    shop.stage(*key_change(order(18, 600), order(19, 600)))
    assert shop.rows("SELECT * FROM ordertap_shop.key_change") == [], "the order has the same key as before"
    with staging(shop) as cursor:
        listed = all_keys(cursor, shop.profile, "sales_order")
    assert listed == ["all paid"]


def test_an_order_of_several_rows_is_in_doubt_while_one_may_be_missing(database: str, tmp_path: Path) -> None:
    """The rows that are there may all be newer than the gap."""
    gap = TableGap(ORDERS, "lost", Stamp(1, LSN(200), 0), "a row")
    for number, documents in enumerate((ORDER, GROUPED)):
        (folder := tmp_path / str(number)).mkdir()
        shop = make_shop(database, folder, documents)
        shop.stage(order(17, 300 + number))
        ref = DocumentRef("sales_order", "all paid" if documents == GROUPED else "17")
        with transaction(shop.connection) as cursor:
            found = own_rows.doubtful(cursor, shop.profile, [ref], [gap])
            assert found == ({ref} if documents == GROUPED else set())
            assert own_rows.doubtful(cursor, shop.profile, [ref], []) == set()


def test_a_select_of_an_order_that_does_not_run_is_the_profiles_mistake(database: str, tmp_path: Path) -> None:
    shop = make_shop(database, tmp_path, GROUPED.replace("SELECT 'all ' || o.status", "SELECT o.nothing"))
    with pytest.raises(SettingsError, match=r"return_order\.order: column o\.nothing does not exist"):
        shop.stage(line(1, 100))
    with pytest.raises(SettingsError, match=r"return_order\.order: column o\.nothing"), staging(shop) as cursor:
        touches.try_orders(cursor, shop.profile)
