"""A small staged shop, its profile, and the reference ERP, for tests of applying."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import psycopg2
import pytest
from psycopg2 import sql

from deploy.embedded import Postgres
from schemas.model.change import Stamp
from schemas.model.lsn import LSN
from sink.apply.rules import Rules
from sink.apply.worker import Worker
from sink.database import Connection, Cursor, connect, names_of, transaction
from sink.documents.profile import load_profile
from sink.documents.refs import DocumentRef
from sink.erp.contract import Erp, NotDone, RetryError, Step, StepResult
from sink.erp.sql.adapter import SqlErp
from sink.erp.sql.mapping import load_mapping
from sink.layer import migrate
from sink.ledger import listed, marks
from sink.ledger.listed import Listed
from sink.planning.policy import Policy
from sink.staging import snapshots
from sink.staging.assembly import LAST
from sink.staging.position import Position, save_position
from tests.programs import write_settings

ROOT = Path(__file__).parents[1]
ORDER, CUSTOMER = DocumentRef("sales_order", "1"), DocumentRef("customer", "7")
RETURN, REFUND, PRICE = DocumentRef("return_order", "5"), DocumentRef("refund", "6"), DocumentRef("price", "A")
UNITS = {
    ORDER: "sales_order:1",
    CUSTOMER: "customer:7",
    RETURN: "sales_order:1",
    REFUND: "sales_order:1",
    PRICE: "price:A",
}
Adapter = TypeVar("Adapter", bound=SqlErp)
BEHIND_ALL = 2**62  # a log position that no server reaches
TABLES = """
CREATE TABLE orders (id int, number text, customer text, placed_at timestamptz, status text, sku text, quantity numeric,
                     gross numeric);
CREATE TABLE returns (id int, order_id int, quantity numeric, refunded numeric);
CREATE TABLE prices (sku text, amount numeric);
INSERT INTO orders VALUES (1, 'S-1', '7', '2026-01-01T10:00Z', 'open', 'A', 2, 11.90)
"""
_NET = "round(gross / 1.19, 2) AS net, gross - round(gross / 1.19, 2) AS tax, gross"
_REFUNDED = "round(refunded / 1.19, 2) AS net, refunded - round(refunded / 1.19, 2) AS tax, refunded AS gross"
PROFILE = {
    "profile.yaml": """
tables: [public.orders, public.returns, public.prices]
documents:
  customer: {model: Customer, key: orders.customer, touched_by: {orders: customer}}
  sales_order: {model: SalesOrder, key: orders.id, order: orders.id, touched_by: {orders: id}}
  return_order: {model: ReturnOrder, key: returns.id, order: returns.order_id, touched_by: {returns: id}}
  refund: {model: Refund, key: returns.id, order: returns.order_id, touched_by: {returns: id + 1}}
  price: {model: Price, key: prices.sku, touched_by: {prices: sku}}
""",
    "customer.sql": "SELECT DISTINCT customer AS key, 'registered' AS kind, 'Ann' AS name FROM orders"
    " WHERE customer = ANY (%(keys)s)",
    "sales_order.sql": "SELECT id::text AS key, number, customer, placed_at, 'EUR' AS currency,"
    f" status, true AS tax_included, {_NET} FROM orders WHERE id::text = ANY (%(keys)s)",
    "sales_order.lines.sql": "SELECT id::text AS parent, 'l1' AS key, sku, quantity, gross / quantity AS unit_price,"
    f" 19 AS tax_rate, {_NET} FROM orders WHERE id::text = ANY (%(keys)s)",
    "sales_order.payments.sql": "SELECT id::text AS parent, 'p' AS key, 'card' AS means, gross AS amount FROM orders"
    " WHERE id::text = ANY (%(keys)s)",
    "return_order.sql": "SELECT id::text AS key, 'R-' || id AS number, order_id AS \"order\","
    " '2026-01-05T10:00Z'::timestamptz AS returned_at FROM returns WHERE id::text = ANY (%(keys)s)",
    "return_order.lines.sql": "SELECT id::text AS parent, 'r1' AS key, 'l1' AS order_line, quantity FROM returns"
    " WHERE id::text = ANY (%(keys)s)",
    "refund.sql": "SELECT (id + 1)::text AS key, 'F-' || id AS number, order_id AS \"order\", 'EUR' AS currency,"
    " '2026-01-06T10:00Z'::timestamptz AS refunded_at, refunded AS gross FROM returns"
    " WHERE (id + 1)::text = ANY (%(keys)s)",
    "refund.components.sql": "SELECT (id + 1)::text AS parent, 'c1' AS key, 'line' AS kind, 'l1' AS order_line,"
    f" 19 AS tax_rate, {_REFUNDED} FROM returns WHERE (id + 1)::text = ANY (%(keys)s)",
    "price.sql": "SELECT sku AS key, sku, 'retail' AS price_list, 'EUR' AS currency, amount, true AS tax_included,"
    " amount > 0 AS ready FROM prices WHERE sku = ANY (%(keys)s)",
}


@pytest.fixture
def erp_url(postgres: Postgres, new_database: Callable[[Postgres, str], str]) -> str:
    """The reference ERP's database, with one item."""
    url = new_database(postgres, "erp")
    run(url, (ROOT / "deploy/erp/schema.sql").read_text())
    run(url, "INSERT INTO company VALUES ('erp-1', 'Works'); INSERT INTO items VALUES ('A', 'a')")
    return url


@pytest.fixture
def erp(erp_url: str) -> Iterator[SqlErp]:
    """The reference ERP's adapter."""
    adapter = adapter_of(SqlErp, erp_url)
    yield adapter
    adapter.close()


def adapter_of(kind: type[Adapter], url: str) -> Adapter:
    """The reference ERP's adapter, or a subclass."""
    return kind(url, load_mapping(ROOT / "deploy/erp/mapping.yaml"))


class LosesReplies(SqlErp):
    """Does the calls, but loses the replies."""

    def apply(self, steps: Sequence[Step], not_after: datetime) -> Sequence[StepResult]:
        super().apply(steps, not_after)
        return [NotDone(RetryError("the reply was lost")) for _ in steps]


@pytest.fixture
def middle(database: str) -> Iterator[Connection]:
    """The middle layer, with one order staged."""
    connection = connect(database, "ordertap_shop")
    migrate(connection, "shop")
    with transaction(connection) as cursor:
        cursor.execute("CREATE SCHEMA shop")
        with names_of(cursor, "shop"):
            cursor.execute(TABLES)
        snapshots.accept(cursor, "the test")
        stand_at(cursor, 1_000)
    yield connection
    connection.close()


@pytest.fixture
def profile_path(tmp_path: Path) -> str:
    """The profile's folder."""
    for name, text in PROFILE.items():
        (tmp_path / name).write_text(text)
    return f"{tmp_path}/"


def run(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Runs one statement in a database."""
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def rows(middle: Connection, query: str) -> list[tuple[Any, ...]]:
    """Rows of the middle layer."""
    with transaction(middle) as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def sql_erp(url: str) -> dict[str, Any]:
    """The reference ERP's part of the settings."""
    return {"url": url, "mapping": str(ROOT / "deploy/erp/mapping.yaml")}


def write_sink_settings(folder: Path, profile: str, database: str, erp: dict[str, Any], **more: Any) -> Path:
    """Settings for commands that do not use Kafka."""
    sink = {
        "shop": "shop",
        "profile": profile,
        "topic_prefix": "shop",
        "bootstrap_servers": "127.0.0.1:1",
        "schema_registry_url": (folder / "registry").as_uri(),
        "database_url": database,
        "erp": erp,
        "prices_owner": "shop",
    }
    return write_settings(folder / "settings.yaml", sink=sink | more)


def make_worker(
    middle: Connection, erp: Erp, profile_path: str, owner: str = "w1", settle: float = 0, apply: bool = True
) -> Worker:
    """A worker. With `apply` False it only plans."""
    rules = Rules("shop", Policy("shop"), apply=apply, settle_seconds=settle)
    return Worker(middle, load_profile(profile_path), erp, rules, owner)


def in_erp(middle: Connection, erp: Erp, profile_path: str) -> Worker:
    """A worker that has already sent the order and its buyer."""
    worker = make_worker(middle, erp, profile_path)
    look(worker, middle)
    return worker


def look(worker: Worker, middle: Connection, *refs: DocumentRef) -> None:
    """Marks documents and has the worker look at them; without names: the order and its buyer."""
    mark(middle, *refs)
    drain(worker)


def stand_at(cursor: Cursor, lsn: int) -> None:
    """Sets the copy's position."""
    save_position(cursor, Position(Stamp(1, LSN(lsn), LAST), "steady"), None)


def mark(middle: Connection, *refs: DocumentRef) -> None:
    """Marks documents as staging does after a commit; without names: the order and its buyer."""
    with transaction(middle) as cursor:
        mark_in(cursor, *refs or (ORDER, CUSTOMER))


def mark_in(cursor: Cursor, *refs: DocumentRef) -> None:
    """The same within the caller's transaction."""
    rows = [
        sql.SQL("({}, {}, {})").format(*map(sql.Literal, (*ref, UNITS.get(ref, f"{ref.type}:{ref.key}"))))
        for ref in refs
    ]
    marks.mark(cursor, sql.SQL("SELECT * FROM (VALUES {}) AS t (type, key, unit)").format(sql.SQL(", ").join(rows)))


def drain(worker: Worker) -> None:
    """Has the worker work until nothing is due."""
    for _ in range(20):
        if not worker.step():
            return
    raise AssertionError("it never comes to rest")


def change(middle: Connection, statement: str) -> None:
    """Runs SQL on the staged rows."""
    with transaction(middle) as cursor, names_of(cursor, "shop"):
        cursor.execute(statement)


def held(middle: Connection) -> list[str]:
    """The reasons of held and waiting documents."""
    with transaction(middle) as cursor:
        return [one.reason or "" for one in waiting(cursor)]


def waiting(cursor: Cursor) -> list[Listed]:
    """Held and waiting documents, oldest first."""
    groups = [group for group in listed.held(cursor, "", 10_000) if group.cause != "retry"]
    return sorted((one for group in groups for one in group.first), key=lambda one: (one.since, one.ref))


def pass_deadlines(middle: Connection) -> None:
    """Lets the deadlines of lost calls and all rests pass."""
    with transaction(middle) as cursor:
        cursor.execute("UPDATE ordertap_shop.unit SET deadline = clock_timestamp() WHERE deadline IS NOT NULL")
        cursor.execute("UPDATE ordertap_shop.document SET next_try = clock_timestamp() WHERE next_try IS NOT NULL")
        cursor.execute("UPDATE ordertap_shop.unit SET due_at = clock_timestamp() WHERE due_at IS NOT NULL")
