"""Writes the parts of an order so that its totals are exact after every change."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from deploy.shop.catalogue import Product
from deploy.shop.money import allocate, tax_in, to_cents

STANDARD_RATE = Decimal(19)


class Line(NamedTuple):
    """A line's money, tax included; `discount` on the whole line."""

    product: Product
    quantity: int
    unit_price: Decimal
    discount: Decimal

    @property
    def gross(self) -> Decimal:
        return self.quantity * self.unit_price - self.discount


class Left(NamedTuple):
    """What is left of a sold line: pieces that the buyer still has, and what was paid for them and not refunded."""

    line: int
    quantity: int
    money: Decimal


def add_line(cursor: Any, order: int, line: Line) -> None:
    """Writes a line. The caller writes the totals."""
    product = line.product
    cursor.execute(
        "INSERT INTO order_lines"
        " (order_id, product_id, sku, name, quantity, unit_price, discount, tax_rate, gross, tax)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (order, product.id, product.sku, product.name, line.quantity, line.unit_price, line.discount,
         product.tax_rate, line.gross, tax_in(line.gross, product.tax_rate)),
    )  # fmt: skip


def add_discount(cursor: Any, order: int, lines: Sequence[Line], amount: Decimal) -> None:
    """Writes a discount, one row per tax rate, by the rates' shares."""
    if not amount:
        return
    rates = sorted({line.product.tax_rate for line in lines})
    weights = [sum((x.gross for x in lines if x.product.tax_rate == rate), Decimal(0)) for rate in rates]
    for rate, gross in zip(rates, allocate(amount, weights), strict=True):
        cursor.execute(
            "INSERT INTO order_discounts (order_id, code, name, tax_rate, gross, tax)"
            " VALUES (%s, 'WELCOME10', 'Welcome', %s, %s, %s)",
            (order, rate, gross, tax_in(gross, rate)),
        )


def reprice_line(cursor: Any, line: int, more: int = 0, percent_off: int | None = None) -> None:
    """Changes a line: `more` pieces, or a lower unit price in place of the line's own discount."""
    cursor.execute("SELECT quantity, unit_price, discount, tax_rate FROM order_lines WHERE id = %s", (line,))
    quantity, unit_price, discount, rate = cursor.fetchone()
    if percent_off is not None:
        unit_price, discount = to_cents(unit_price * (100 - percent_off) / 100), Decimal(0)
    gross = (quantity + more) * unit_price - discount
    cursor.execute(
        "UPDATE order_lines SET quantity = %s, unit_price = %s, discount = %s, gross = %s, tax = %s WHERE id = %s",
        (quantity + more, unit_price, discount, gross, tax_in(gross, rate), line),
    )


def write_shipping(cursor: Any, order: int, gross: Decimal) -> None:
    """Writes the shipping charge, tax included."""
    cursor.execute(
        "UPDATE orders SET shipping_gross = %s, shipping_tax = %s WHERE id = %s",
        (gross, tax_in(gross, STANDARD_RATE), order),
    )


def write_totals(cursor: Any, order: int) -> None:
    """Writes the order's totals from its parts."""
    cursor.execute(
        "UPDATE orders o SET gross = p.gross + o.shipping_gross, tax = p.tax + o.shipping_tax,"
        " net = p.gross + o.shipping_gross - p.tax - o.shipping_tax, updated_at = now() FROM ("
        " SELECT sum(gross) AS gross, sum(tax) AS tax FROM ("
        " SELECT gross, tax FROM order_lines WHERE order_id = %(order)s UNION ALL"
        " SELECT -gross, -tax FROM order_discounts WHERE order_id = %(order)s) parts) p WHERE o.id = %(order)s",
        {"order": order},
    )


def settle_difference(cursor: Any, order: int) -> None:
    """Pays the difference to what is owed, so that a later refund is covered."""
    cursor.execute(
        "INSERT INTO payments (order_id, means, amount) SELECT id, 'card', owed FROM ("
        " SELECT id, gross - (SELECT coalesce(sum(amount), 0) FROM payments WHERE order_id = o.id) AS owed"
        " FROM orders o WHERE id = %s) o WHERE owed <> 0",
        (order,),
    )


def write_status(cursor: Any, order: int, status: str) -> str:
    """Sets the status, and returns the order's number."""
    cursor.execute("UPDATE orders SET status = %s, updated_at = now() WHERE id = %s RETURNING number", (status, order))
    return str(cursor.fetchone()[0])


def returnable(cursor: Any, order: int) -> list[Left]:
    """The lines that can still be returned. Refunds for them never exceed what was paid for them."""
    cursor.execute("SELECT tax_rate, sum(gross) FROM order_discounts WHERE order_id = %s GROUP BY tax_rate", (order,))
    discounts: dict[Decimal, Decimal] = dict(cursor.fetchall())
    cursor.execute(
        "SELECT l.id, l.quantity, l.gross, l.tax_rate, coalesce(sum(b.quantity), 0)::int,"
        " coalesce(sum(b.refund_amount), 0) FROM order_lines l LEFT JOIN return_lines b ON b.order_line_id = l.id"
        " WHERE l.order_id = %s GROUP BY l.id ORDER BY l.id",
        (order,),
    )
    rows = cursor.fetchall()
    left = []
    for rate in sorted({row[3] for row in rows}):
        lines = [row for row in rows if row[3] == rate]
        shares = allocate(discounts.get(rate, Decimal(0)), [row[2] for row in lines])
        for (line, quantity, gross, _, back, refunded), share in zip(lines, shares, strict=True):
            if quantity > back:
                left.append(Left(line, quantity - back, gross - share - refunded))
    return left
