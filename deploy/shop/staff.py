"""Staff of the sample shop: payments, edits, discounts, returns, prices. Each method does one thing and says what."""

from __future__ import annotations

import random
from decimal import ROUND_DOWN, Decimal
from typing import Any

from deploy.shop.catalogue import PRODUCTS
from deploy.shop.money import CENT, to_cents
from deploy.shop.order import (
    Left,
    Line,
    add_line,
    reprice_line,
    returnable,
    settle_difference,
    write_status,
    write_totals,
)

MEANS = ("card", "paypal", "bank transfer", "invoice")
REASONS = ("does not fit", "damaged", "changed my mind", "wrong item")


class Staff:
    """Everything runs in the caller's transaction."""

    def __init__(self, chance: random.Random) -> None:
        self._random = chance
        self._normal_price: dict[int, Decimal] = {}

    def pay(self, cursor: Any, order: int) -> str:
        """The buyer pays the whole order."""
        cursor.execute(
            "INSERT INTO payments (order_id, means, amount, reference) SELECT id, %s, gross, %s FROM orders"
            " WHERE id = %s RETURNING amount, means",
            (self._random.choice(MEANS), f"tx-{self._random.randrange(16**8):08x}", order),
        )
        amount, means = cursor.fetchone()
        return f"order {write_status(cursor, order, 'paid')} was paid: {amount} EUR by {means}"

    def edit(self, cursor: Any, order: int, other: Line) -> str:
        """Changes an order before it ships: a line less, a piece more, or another line. The difference is paid."""
        cursor.execute(
            "SELECT id, (SELECT count(*) FROM order_discounts d WHERE d.order_id = l.order_id) FROM order_lines l"
            " WHERE order_id = %s ORDER BY id",
            (order,),
        )
        lines = cursor.fetchall()
        line, discounts = self._random.choice(lines)
        if len(lines) > 1 and not discounts and self._random.random() < 0.4:
            cursor.execute("DELETE FROM order_lines WHERE id = %s", (line,))
            said = "lost a line"
        elif self._random.random() < 0.5:
            reprice_line(cursor, line, more=1)
            said = "got one piece more"
        else:
            add_line(cursor, order, other)
            said = "got another line"
        write_totals(cursor, order)
        settle_difference(cursor, order)
        return f"order {_number(cursor, order)} {said} before it shipped"

    def discount(self, cursor: Any, order: int) -> str:
        """A temporary discount on an open order, which changes the prices of its lines."""
        percent = self._random.choice((5, 10, 20))
        cursor.execute("SELECT id FROM order_lines WHERE order_id = %s ORDER BY id", (order,))
        for (line,) in cursor.fetchall():
            reprice_line(cursor, line, percent_off=percent)
        cursor.execute("DELETE FROM order_discounts WHERE order_id = %s", (order,))
        write_totals(cursor, order)
        settle_difference(cursor, order)
        return f"order {write_status(cursor, order, 'discounted')} got {percent} % off"

    def request_return(self, cursor: Any, order: int) -> tuple[int, str] | None:
        """A buyer announces a return. Returns its id; None if nothing is left to return."""
        left = returnable(cursor, order)
        if not left:
            return None
        cursor.execute("INSERT INTO returns (order_id) VALUES (%s) RETURNING id", (order,))
        return_id = int(cursor.fetchone()[0])
        for one in self._random.sample(left, self._random.randint(1, min(2, len(left)))):
            self._return_line(cursor, return_id, one)
        number = write_status(cursor, order, "return_requested")
        return return_id, f"part of order {number} is to come back"

    def _return_line(self, cursor: Any, return_id: int, left: Left) -> None:
        quantity = self._random.randint(1, left.quantity)
        # The last piece takes the remainder, so that pieces returned one by one add up to the line's amount.
        money = left.money if quantity == left.quantity else left.money * quantity / left.quantity
        cursor.execute(
            "INSERT INTO return_lines (return_id, order_line_id, quantity, reason, refund_amount)"
            " VALUES (%s, %s, %s, %s, %s)",
            (return_id, left.line, quantity, self._random.choice(REASONS), money.quantize(CENT, ROUND_DOWN)),
        )

    def receive_return(self, cursor: Any, return_id: int) -> str:
        """The goods of a return arrive in the warehouse."""
        cursor.execute(
            "UPDATE returns SET status = 'received', received_at = now() WHERE id = %s RETURNING order_id,"
            " EXISTS (SELECT FROM returns x WHERE x.order_id = returns.order_id AND x.status = 'requested'"
            " AND x.id <> returns.id)",
            (return_id,),
        )
        order, more = cursor.fetchone()
        number = write_status(cursor, order, "return_requested" if more else "returned")
        return f"part of order {number} came back"

    def refund(self, cursor: Any, return_id: int) -> str:
        """Refunds a return; sometimes, at most once per order, the shipping, too."""
        shipping_too = self._random.random() < 0.3
        cursor.execute(
            "UPDATE returns r SET status = 'refunded', refunded_at = now(), shipping_refund = CASE WHEN %s THEN"
            " o.shipping_gross - (SELECT sum(x.shipping_refund) FROM returns x WHERE x.order_id = o.id) ELSE 0 END"
            " FROM orders o WHERE o.id = r.order_id AND r.id = %s RETURNING o.number, r.shipping_refund +"
            " (SELECT sum(l.refund_amount) FROM return_lines l WHERE l.return_id = r.id)",
            (shipping_too, return_id),
        )
        number, money = cursor.fetchone()
        return f"{money} EUR of order {number} were refunded"

    def change_price(self, cursor: Any) -> str:
        """Changes a list price, or changes it back."""
        if self._normal_price and self._random.random() < 0.5:
            product = self._random.choice(sorted(self._normal_price))
            new, again = self._normal_price.pop(product), " again"
        else:
            product, _, price = self._any_product(cursor)
            self._normal_price.setdefault(product, price)
            new, again = to_cents(price * self._random.choice((95, 103, 110)) / 100), ""
        cursor.execute(
            "UPDATE products SET price = %s, updated_at = now() WHERE id = %s RETURNING sku",
            (new, product),
        )
        return f"{cursor.fetchone()[0]} costs {new} EUR now{again}"

    def temporary_price(self, cursor: Any) -> str:
        """Sets a price for a week from tomorrow."""
        product, sku, price = self._any_product(cursor)
        new = to_cents(price * 4 / 5)
        cursor.execute(
            "INSERT INTO product_prices (product_id, price, valid_from, valid_until) VALUES (%s, %s,"
            " date_trunc('day', now()) + interval '1 day', date_trunc('day', now()) + interval '8 days')",
            (product, new),
        )
        return f"{sku} will cost {new} EUR for a week"

    def _any_product(self, cursor: Any) -> tuple[int, str, Decimal]:
        cursor.execute(
            "SELECT id, sku, price FROM products ORDER BY id OFFSET %s LIMIT 1",
            (self._random.randrange(len(PRODUCTS)),),
        )
        product, sku, price = cursor.fetchone()
        return int(product), str(sku), price


def _number(cursor: Any, order: int) -> str:
    cursor.execute("SELECT number FROM orders WHERE id = %s", (order,))
    return str(cursor.fetchone()[0])
