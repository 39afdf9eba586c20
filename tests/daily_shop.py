"""The sample shop's tables in the middle layer, and what its buyers do, for one ERP order per buyer and day."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg2 import sql

from schemas.model.change import Stamp
from schemas.model.lsn import LSN
from sink.database import Connection, connect, names_of, transaction
from sink.documents.build import build
from sink.documents.models import Built
from sink.documents.profile import load_profile
from sink.documents.refs import DocumentRef
from sink.layer import migrate
from sink.ledger import marks
from sink.staging import snapshots
from sink.staging.assembly import LAST
from sink.staging.position import Position, save_position
from tests.fix_erp import ROOT
from tests.keys import all_keys

PROFILE = "sample_daily"
DAY = "2026-01-15"
_ORDER = """
INSERT INTO orders (id, number, customer_id, status, net, tax, gross, placed_at, shipping_gross, shipping_tax)
OVERRIDING SYSTEM VALUE SELECT %(id)s, 'S' || %(id)s, %(buyer)s, %(status)s, 5 * %(pieces)s + 1,
    0.95 * %(pieces)s + 0.19, 5.95 * %(pieces)s + 1.19, %(at)s, 1.19, 0.19;
INSERT INTO order_lines (id, order_id, product_id, sku, name, quantity, unit_price, tax_rate, gross, tax)
OVERRIDING SYSTEM VALUE SELECT 10 * %(id)s, %(id)s, 1, 'A', 'Bolt', %(pieces)s, 5.95, 19, 5.95 * %(pieces)s,
    0.95 * %(pieces)s;
INSERT INTO order_addresses SELECT %(id)s, kind, 'Ann', NULL, 'Main Street 1', '10115', 'Berlin', 'DE'
    FROM unnest(ARRAY['billing', 'shipping']) AS kind;
"""
_PAID = "INSERT INTO payments (order_id, means, amount) SELECT id, 'card', gross FROM orders WHERE id = %(id)s"


def of_day(buyer: int = 7, day: str = DAY) -> DocumentRef:
    """The ERP's order of a buyer and a day."""
    return DocumentRef("sales_order", f"{buyer}:{day}")


@dataclass
class DailyShop:
    """The middle layer with the shop's rows. Tables are written as staging would, and marked by the tests."""

    middle: Connection

    def sql(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        """Runs SQL on the shop's rows."""
        with transaction(self.middle) as cursor, names_of(cursor, "shop"):
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def order(
        self, number: int, at: str = f"{DAY}T10:00Z", buyer: int = 7, pieces: int = 2, status: str = "paid"
    ) -> None:
        """An order with one line, whose id is ten times the order's, and shipping for 1.19."""
        paid = _PAID if status != "pending" else ""
        self.sql(_ORDER + paid, id=number, at=at, buyer=buyer, pieces=pieces, status=status)

    def comes_back(self, number: int, line: int, pieces: int = 1) -> None:
        """Pieces of a line came back, and were refunded."""
        self.sql(
            "INSERT INTO returns (id, order_id, status, received_at, refunded_at) OVERRIDING SYSTEM VALUE"
            " SELECT %(id)s, order_id, 'refunded', now(), now() FROM order_lines WHERE id = %(line)s;"
            " INSERT INTO return_lines (return_id, order_line_id, quantity, reason, refund_amount)"
            " VALUES (%(id)s, %(line)s, %(pieces)s, 'damaged', 5.95 * %(pieces)s)",
            id=number, line=line, pieces=pieces,
        )  # fmt: skip

    def copied(self, until: str) -> None:
        """The copy has everything up to a time."""
        at = datetime.fromisoformat(until)
        with transaction(self.middle) as cursor:
            save_position(cursor, Position(Stamp(1, LSN(1_000), LAST), "steady"), int(at.timestamp() * 1e6))

    def mark(self, *refs: DocumentRef, unit: DocumentRef | None = None) -> None:
        """Marks documents, each in a unit of its own, or all in that of `unit`."""
        values = [sql.SQL("({}, {}, {})").format(*map(sql.Literal, (*ref, f"{(unit or ref).type}:{(unit or ref).key}")))
                  for ref in refs]  # fmt: skip
        with transaction(self.middle) as cursor:
            given = sql.SQL("SELECT * FROM (VALUES {}) AS t (type, key, unit)").format(sql.SQL(", ").join(values))
            marks.mark(cursor, given)

    def built(self, as_of: datetime | None = None, name: str = "sales_order") -> dict[str, Built]:
        """All documents of a kind."""
        profile = load_profile(PROFILE)
        with transaction(self.middle, "REPEATABLE READ READ ONLY") as cursor, names_of(cursor, "shop"):
            keys = all_keys(cursor, profile, name)
            return build(cursor, profile.documents[name], keys, as_of)


@contextmanager
def open_daily_shop(database: str) -> Iterator[DailyShop]:
    """A shop with the buyers 7 and 8 and the item A."""
    with closing(connect(database, "ordertap_shop")) as middle:
        migrate(middle, "shop")
        with transaction(middle) as cursor:
            cursor.execute("CREATE SCHEMA shop")
            snapshots.accept(cursor, "the test")
        shop = DailyShop(middle)
        shop.sql((ROOT / "deploy/shop/schema.sql").read_text().replace("%", "%%"))
        shop.sql(
            "INSERT INTO customers (id, kind, name, email) OVERRIDING SYSTEM VALUE"
            " VALUES (7, 'registered', 'Ann', 'ann@x.example'), (8, 'registered', 'Bob', 'bob@x.example');"
            " INSERT INTO products (id, sku, name, price, tax_rate) OVERRIDING SYSTEM VALUE"
            " VALUES (1, 'A', 'Bolt', 5.95, 19)"
        )
        shop.copied(f"{DAY}T12:00Z")
        yield shop
