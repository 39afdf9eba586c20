"""A small shop: its orders in memory, and the same as staged rows, from which its profile builds documents."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from psycopg2 import sql

from schemas.model.change import Stamp
from schemas.model.lsn import LSN
from sink.database import Connection, names_of, transaction
from sink.documents.refs import DocumentRef
from sink.ledger import marks, moves
from sink.staging import gaps
from sink.staging.assembly import LAST
from sink.staging.gaps import TableGap
from sink.staging.position import Position, save_position

D = Decimal
TABLES = """
CREATE TABLE customers (id int, name text);
CREATE TABLE orders (id int, number text, customer int, status text, ready bool, street text, off numeric,
                     paid numeric, currency text);
CREATE TABLE lines (order_id int, no int, sku text, quantity numeric, gross numeric, rate numeric);
CREATE TABLE returns (id int, order_id int, no int, quantity numeric);
CREATE TABLE refunds (id int, order_id int, gross numeric);
CREATE TABLE prices (sku text, amount numeric);
"""
_NET = "round({0} / (1 + {1} / 100), 2) AS net, {0} - round({0} / (1 + {1} / 100), 2) AS tax, {0} AS gross"
LINES = "public.lines"
_OF_ORDERS = "FROM orders WHERE id::text = ANY (%(keys)s)"
PROFILE = {
    "profile.yaml": """
tables: [public.customers, public.orders, public.lines, public.returns, public.refunds, public.prices]
documents:
  customer: {model: Customer, key: customers.id, touched_by: {customers: id}}
  sales_order: {model: SalesOrder, key: orders.id, order: orders.id, touched_by: {orders: id, lines: order_id}}
  return_order: {model: ReturnOrder, key: returns.id, order: returns.order_id, touched_by: {returns: id}}
  refund: {model: Refund, key: refunds.id, order: refunds.order_id, touched_by: {refunds: id}}
  price: {model: Price, key: prices.sku, touched_by: {prices: sku}}
""",
    "customer.sql": "SELECT id::text AS key, 'registered' AS kind, name FROM customers WHERE id::text = ANY (%(keys)s)",
    "sales_order.sql": "SELECT id::text AS key, number, customer, '2026-01-01T10:00Z'::timestamptz AS placed_at,"
    " currency, status, true AS tax_included, ready, s.net, s.tax, s.gross + off AS gross FROM orders,"
    " LATERAL (SELECT sum(net) AS net, sum(tax) AS tax, sum(gross) AS gross FROM"
    f" (SELECT {_NET.format('gross', 'rate')} FROM lines WHERE order_id = id) AS l) AS s"
    " WHERE id::text = ANY (%(keys)s)",
    "sales_order.lines.sql": "SELECT order_id::text AS parent, no::text AS key, sku, quantity,"
    f" gross / quantity AS unit_price, rate AS tax_rate, {_NET.format('gross', 'rate')} FROM lines"
    " WHERE order_id::text = ANY (%(keys)s)",
    "sales_order.payments.sql": f"SELECT id::text AS parent, 'p' AS key, 'card' AS means, paid AS amount {_OF_ORDERS}",
    "sales_order.addresses.sql": f"SELECT id::text AS parent, 'shipping' AS kind, street {_OF_ORDERS}",
    "return_order.sql": "SELECT id::text AS key, 'R-' || id AS number, order_id AS \"order\","
    " '2026-01-05T10:00Z'::timestamptz AS returned_at FROM returns WHERE id::text = ANY (%(keys)s)",
    "return_order.lines.sql": "SELECT id::text AS parent, 'r' AS key, no AS order_line, quantity FROM returns"
    " WHERE id::text = ANY (%(keys)s)",
    "refund.sql": "SELECT id::text AS key, 'F-' || id AS number, order_id AS \"order\", coalesce((SELECT currency"
    " FROM orders AS o WHERE o.id = order_id), 'EUR') AS currency,"
    " '2026-01-06T10:00Z'::timestamptz AS refunded_at, gross FROM refunds WHERE id::text = ANY (%(keys)s)",
    "refund.components.sql": "SELECT id::text AS parent, 'c' AS key, 'goodwill' AS kind, 19 AS tax_rate,"
    f" {_NET.format('gross', '19')} FROM refunds WHERE id::text = ANY (%(keys)s)",
    "price.sql": "SELECT sku AS key, sku, 'retail' AS price_list, 'EUR' AS currency, amount, true AS tax_included"
    " FROM prices WHERE sku = ANY (%(keys)s)",
}


def rate(sku: str) -> int:
    """The two tax rates, in percent."""
    return 7 if sku == "B" else 19


@dataclass
class Bought:
    """An order in the shop. `lines`: number → (SKU, quantity, unit price). `off`: by how much its total is wrong."""

    number: str
    customer: int
    lines: dict[int, tuple[str, int, Decimal]]
    status: str = "open"
    ready: bool = True
    street: str = "High Street 1"
    off: Decimal = Decimal(0)
    paid: Decimal = Decimal(0)
    currency: str = "EUR"

    @property
    def head(self) -> tuple[Any, ...]:
        """Its row without the key."""
        return (self.number, self.customer, self.status, self.ready, self.street, self.off, self.paid, self.currency)

    @property
    def gross(self) -> Decimal:
        return sum((quantity * price for _, quantity, price in self.lines.values()), D(0))

    def edit_line(self, line: int, what: str) -> None:
        sku, quantity, price = self.lines[line]
        match what:
            case "quantity":
                self.lines[line] = (sku, quantity % 4 + 1, price)
            case "price":
                self.lines[line] = (sku, quantity, price + 1)
            case "new line":
                self.lines[max(self.lines) + 1] = ("B", 1, D("2.38"))
            case "line gone" if len(self.lines) > 1:
                del self.lines[line]
            case "unknown item":
                self.lines[line] = ("NEW", quantity, price)
            case "known item":
                self.lines[line] = ("A", quantity, price)

    def edit_head(self, what: str) -> None:
        match what:
            case "street":
                self.street += "a"
            case "pays":
                self.paid = self.gross
            case "wrong sum":
                self.off = D("0.01")
            case "fixed":
                self.off = D(0)


@dataclass
class Shop:
    """The shop's data. Each method is one commit, which the copy then has."""

    connection: Connection
    customers: dict[int, str] = field(default_factory=dict)
    orders: dict[int, Bought] = field(default_factory=dict)
    returns: dict[int, tuple[int, int, int]] = field(default_factory=dict)  # order, its line, quantity
    refunds: dict[int, tuple[int, Decimal]] = field(default_factory=dict)
    prices: dict[str, Decimal] = field(default_factory=dict)
    seen: set[DocumentRef] = field(default_factory=set)
    lsn: int = 1_000

    def customer(self, number: int, name: str) -> None:
        self.customers[number] = name
        self._commit("customers", "id", number, [(number, name)], [DocumentRef("customer", str(number))])

    def order(self, number: int) -> None:
        """Writes an order of `orders` with its lines, or deletes it."""
        bought = self.orders.get(number)
        lines = [] if bought is None else bought.lines.items()
        rows = [(number, no, sku, quantity, quantity * price, rate(sku)) for no, (sku, quantity, price) in lines]
        head = [] if bought is None else [(number, *bought.head)]
        self._commit("lines", "order_id", number, rows, [])
        self._commit("orders", "id", number, head, [DocumentRef("sales_order", str(number))])

    def rename(self, old: int, new: int, logged: bool) -> None:
        """Changes an order's key with everything that refers to it, in one commit; or deletes the order and writes it
        anew, so that the log has no change of key."""
        self.orders[new] = self.orders.pop(old)
        self.returns = {key: (new if of == old else of, *rest) for key, (of, *rest) in self.returns.items()}
        self.refunds = {key: (new if of == old else of, gross) for key, (of, gross) in self.refunds.items()}
        ref = DocumentRef("sales_order", str(new))
        of_it = [("return_order", self.returns), ("refund", self.refunds)]
        with self._committed() as cursor:
            with names_of(cursor, "shop"):
                cursor.execute("UPDATE orders SET id = %s WHERE id = %s", (new, old))
                for table in ("lines", "returns", "refunds"):
                    cursor.execute(f"UPDATE {table} SET order_id = %s WHERE order_id = %s", (new, old))
            if logged:
                moves.note(cursor, {ref: str(old)})
            for one in (ref, DocumentRef("sales_order", str(old))):
                self._touch(cursor, one, f"sales_order:{one.key}")
            for name, rows in of_it:
                for key in [key for key, row in rows.items() if row[0] == new]:
                    self._touch(cursor, DocumentRef(name, str(key)), f"sales_order:{new}")

    def give_back(self, number: int, back: tuple[int, int, int] | None) -> None:
        """Writes a return: new, changed, or moved to another order. None: deletes it."""
        unit = back or self.returns[number]
        self.returns.pop(number) if back is None else self.returns.update({number: back})
        rows = [] if back is None else [(number, *back)]
        ref = DocumentRef("return_order", str(number))
        self._commit("returns", "id", number, rows, [ref], f"sales_order:{unit[0]}")

    def refund(self, number: int, money: tuple[int, Decimal] | None) -> None:
        unit = money or self.refunds[number]
        self.refunds.pop(number) if money is None else self.refunds.update({number: money})
        rows = [] if money is None else [(number, *money)]
        self._commit("refunds", "id", number, rows, [DocumentRef("refund", str(number))], f"sales_order:{unit[0]}")

    def price(self, sku: str, amount: Decimal | None) -> None:
        self.prices.pop(sku, None) if amount is None else self.prices.update({sku: amount})
        rows = [] if amount is None else [(sku, amount)]
        self._commit("prices", "sku", sku, rows, [DocumentRef("price", sku)])

    def lose_lines(self) -> None:
        """Opens a gap in the lines."""
        with transaction(self.connection) as cursor:
            gaps.open_gap(cursor, TableGap(LINES, "lost", Stamp(1, LSN(self.lsn), LAST), "some rows never came"))

    def read_lines_again(self) -> None:
        """Closes the gap, and marks all orders."""
        with transaction(self.connection) as cursor:
            gaps.close_gap(cursor, LINES, "lost")
        self.mark_all()

    def mark_all(self) -> None:
        """Marks everything, as after a reset of the offsets."""
        with transaction(self.connection) as cursor:
            every = sql.SQL("SELECT type, key, unit FROM document")
            marks.mark(cursor, every)

    def _commit(
        self,
        table: str,
        key: str,
        value: Any,
        rows: Collection[tuple[Any, ...]],
        refs: list[DocumentRef],
        unit: str = "",
    ) -> None:
        """Replaces the rows of one key, marks what they touch, and advances the copy."""
        with self._committed() as cursor:
            with names_of(cursor, "shop"):
                cursor.execute(f"DELETE FROM {table} WHERE {key} = %s", (value,))
                for row in rows:
                    cursor.execute(f"INSERT INTO {table} VALUES ({', '.join(['%s'] * len(row))})", row)
            for ref in refs:
                self._touch(cursor, ref, unit or f"{ref.type}:{ref.key}")

    @contextmanager
    def _committed(self) -> Iterator[Any]:
        """A commit of the shop, which advances the copy."""
        self.lsn += 10
        with transaction(self.connection) as cursor:
            yield cursor
            save_position(cursor, Position(Stamp(1, LSN(self.lsn), LAST), "steady"), None)

    def _touch(self, cursor: Any, ref: DocumentRef, unit: str) -> None:
        self.seen.add(ref)
        mark(cursor, ref, unit)


def mark(cursor: Any, ref: DocumentRef, unit: str) -> None:
    """Marks documents as staging does."""
    row = sql.SQL(", ").join(map(sql.Literal, (*ref, unit)))
    marks.mark(cursor, sql.SQL("SELECT * FROM (VALUES ({})) AS t (type, key, unit)").format(row))


def write_profile(folder: Path) -> str:
    """The profile's folder."""
    for name, text in PROFILE.items():
        (folder / name).write_text(text)
    return f"{folder}/"
