"""The worker on real PostgreSQL: sample shop's tables as staged, the reference ERP."""

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest

from deploy.embedded import Postgres
from sink import ledger
from sink.database import Connection, connect, migrate, transaction
from sink.erp import Command, Done, Key, RetryError
from sink.erp.sql import SqlErp, load_mapping
from sink.ledger import DocumentRef
from sink.planner import Policy
from sink.profile import load_profile
from sink.reconcile import reconcile
from sink.worker import Rules, Worker

ROOT = Path(__file__).parents[2]
ORDER = DocumentRef("sales_order", "1")


@pytest.fixture
def erp_url(postgres: Postgres, new_database: Callable[[Postgres, str], str]) -> str:
    url = new_database(postgres, "erp")
    _run(url, (ROOT / "deploy/erp/schema.sql").read_text())
    _run(url, "INSERT INTO company VALUES ('erp-1', 'Works'); INSERT INTO items VALUES ('A', 'a')")
    return url


@pytest.fixture
def erp(erp_url: str) -> Iterator[SqlErp]:
    adapter = SqlErp(erp_url, load_mapping(ROOT / "deploy/erp/mapping.yaml"))
    yield adapter
    adapter.close()


@pytest.fixture
def middle(database: str) -> Iterator[Connection]:
    connection = connect(database)
    migrate(connection)
    with transaction(connection) as cursor:
        cursor.execute("CREATE SCHEMA shop; SET LOCAL search_path = shop")
        cursor.execute(TABLES)
    yield connection
    connection.close()


TABLES = """
CREATE TABLE orders (id int, number text, customer text, placed_at timestamptz, status text, sku text, quantity numeric,
                     gross numeric);
INSERT INTO orders VALUES (1, 'S-1', '7', '2026-01-01T10:00Z', 'open', 'A', 2, 11.90)
"""
PROFILE = {
    "profile.yaml": """
tables: [public.orders]
documents:
  customer: {model: Customer, key: orders.customer, touched_by: [orders.customer]}
  sales_order: {model: SalesOrder, key: orders.id, order: orders.id, touched_by: [orders.id]}
""",
    "customer.sql": "SELECT DISTINCT customer AS key, 'registered' AS kind, 'Ann' AS name FROM orders"
    " WHERE customer = ANY (%(keys)s)",
    "sales_order.sql": "SELECT id::text AS key, number, customer, placed_at, 'EUR' AS currency,"
    " status, true AS tax_included,"
    " round(gross / 1.19, 2) AS net, gross - round(gross / 1.19, 2) AS tax, gross"
    " FROM orders WHERE id::text = ANY (%(keys)s)",
    "sales_order.lines.sql": "SELECT id::text AS parent, 'l1' AS key, sku, quantity, gross / quantity AS unit_price,"
    " 19 AS tax_rate, round(gross / 1.19, 2) AS net, gross - round(gross / 1.19, 2) AS tax, gross"
    " FROM orders WHERE id::text = ANY (%(keys)s)",
}


def _run(url: str, statement: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def _folder(path: Path) -> str:
    for name, text in PROFILE.items():
        (path / name).write_text(text)
    return f"{path}/"


def _worker(middle: Connection, erp: SqlErp, folder: Path) -> Worker:
    rules = Rules("shop", Policy("shop"), apply=True, settle_seconds=0)
    return Worker(middle, load_profile(_folder(folder)), erp, rules, "w1")


def _mark(middle: Connection) -> None:
    with transaction(middle) as cursor:
        ledger.mark(cursor, {ORDER: "sales_order:1", DocumentRef("customer", "7"): "customer:7"})


def _drain(worker: Worker) -> None:
    for _ in range(20):
        if not worker.step():
            return
    raise AssertionError("it never comes to rest")


def _change(middle: Connection, statement: str) -> None:
    with transaction(middle) as cursor:
        cursor.execute(f"UPDATE shop.orders SET {statement}")


def _held(middle: Connection) -> list[str]:
    with transaction(middle) as cursor:
        return [one.reason or "" for one in ledger.held(cursor)]


def test_order_and_customer_arrive_once_and_agree(
    middle: Connection, erp: SqlErp, erp_url: str, tmp_path: Path
) -> None:
    worker = _worker(middle, erp, tmp_path)
    for _ in range(2):
        _mark(middle)
        _drain(worker)
    assert _run(erp_url, "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM order_lines)") == [(1, 1)]
    report = reconcile(middle, None, "shop", load_profile(f"{tmp_path}/"), erp, collective=False)
    assert report.summary() == "agree: 1 orders, 0 returns, 0 prices, difference 0.00"


def test_price_change_amends_and_cancel_cancels(middle: Connection, erp: SqlErp, erp_url: str, tmp_path: Path) -> None:
    worker = _worker(middle, erp, tmp_path)
    for statement in ("gross = gross", "gross = 9.90", "status = 'cancelled'"):
        _change(middle, statement)
        _mark(middle)
        _drain(worker)
    assert _run(erp_url, "SELECT gross::text, status FROM orders") == [("9.90", "cancelled")]


def test_unknown_sku_is_held_until_the_item_is_there(
    middle: Connection, erp: SqlErp, erp_url: str, tmp_path: Path
) -> None:
    worker = _worker(middle, erp, tmp_path)
    _change(middle, "sku = 'NEW'")
    _mark(middle)
    _drain(worker)
    assert _held(middle) == ["the ERP has no item NEW"]
    assert _run(erp_url, "SELECT count(*) FROM orders") == [(0,)]
    _run(erp_url, "INSERT INTO items VALUES ('NEW', 'n')")
    with transaction(middle) as cursor:
        ledger.retry(cursor, None)
    _drain(worker)
    assert _held(middle) == []
    assert _run(erp_url, "SELECT count(*) FROM orders") == [(1,)]


def test_edit_by_hand_is_held_and_not_overwritten(
    middle: Connection, erp: SqlErp, erp_url: str, tmp_path: Path
) -> None:
    worker = _worker(middle, erp, tmp_path)
    _mark(middle)
    _drain(worker)
    _run(erp_url, "UPDATE orders SET gross = 1")
    _change(middle, "gross = 9.90")
    _mark(middle)
    _drain(worker)
    assert "changed in the ERP: gross" in _held(middle)[0]
    assert _run(erp_url, "SELECT gross::text FROM orders") == [("1.00",)]


def test_a_lost_reply_makes_no_second_document(middle: Connection, erp: SqlErp, erp_url: str, tmp_path: Path) -> None:
    class LosesReplies(SqlErp):
        def apply(self, command: Command, key: Key) -> Done:
            super().apply(command, key)
            raise RetryError("the reply was lost")

    lossy = LosesReplies(erp_url, load_mapping(ROOT / "deploy/erp/mapping.yaml"))
    _mark(middle)
    worker = _worker(middle, lossy, tmp_path)
    for _ in range(3):
        with transaction(middle) as cursor:
            ledger.retry(cursor, None)
        try:
            worker.step()
        except RetryError:
            continue
    lossy.close()
    with transaction(middle) as cursor:
        ledger.retry(cursor, None)
    _drain(_worker(middle, erp, tmp_path))
    assert _run(erp_url, "SELECT count(*) FROM customers") == [(1,)]
    assert _run(erp_url, "SELECT count(*) FROM orders") == [(1,)]
