"""Buyers of the sample shop, their baskets, and the orders that they place."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from deploy.shop.catalogue import Product
from deploy.shop.money import to_cents
from deploy.shop.order import Line, add_discount, add_line, write_shipping, write_totals

PEOPLE = (
    "Anna Weber",
    "Jonas Keller",
    "Mia Brandt",
    "Paul Krüger",
    "Lena O'Hara",
    "Émile Zoller",
    "Nora Lind",
    "Tim Roth",
)
COMPANIES = ("Holzbau Nord GmbH", "Müller & Söhne KG", "Atelier Zwölf", "Stadtwerke Süd AG")
PLACES = (
    ("Hauptstr. 1", "20095", "Hamburg", "DE"),
    ("Lindenweg 7", "50667", "Köln", "DE"),
    ("Markt 3", "1010", "Wien", "AT"),
)
NOTES = (None, None, None, "please ring twice", "a gift — no invoice in the box\tthanks \\o/", "x" * 3000)
SHIPPING = Decimal("4.90")
FREE_SHIPPING_FROM = Decimal(60)


class Checkout:
    """Places orders. Buyers come again only after their first order was committed (`committed`)."""

    def __init__(self, chance: random.Random) -> None:
        self._random = chance
        self._regulars: list[int] = []
        self._new: list[int] = []

    def committed(self) -> None:
        """Called after a commit: its buyers may come again."""
        self._regulars += self._new
        self._new.clear()

    def rolled_back(self) -> None:
        """Called after a rollback: buyers since the last commit do not exist."""
        self._new.clear()

    def gone(self, customer: int) -> None:
        """The buyer is no longer a customer and does not come again."""
        self._regulars = [one for one in self._regulars if one != customer]
        self._new = [one for one in self._new if one != customer]

    def place(self, cursor: Any) -> int:
        """Places an order and returns its id. Order, lines, discounts, addresses and totals are one transaction, which
        the caller ends."""
        customer = self._customer(cursor)
        lines = self._lines(cursor)
        discount = self._coupon(lines)
        cursor.execute(
            "INSERT INTO orders (customer_id, net, tax, gross, note, meta) VALUES (%s, 0, 0, 0, %s, %s) RETURNING id",
            (customer, self._random.choice(NOTES), json.dumps({"device": self._random.choice(["phone", "desk"])})),
        )
        order = int(cursor.fetchone()[0])
        for line in lines:
            add_line(cursor, order, line)
        add_discount(cursor, order, lines, discount)
        cursor.execute(
            "INSERT INTO order_addresses SELECT %s, kind, name, company, street, postcode, city, country"
            " FROM addresses WHERE customer_id = %s",
            (order, customer),
        )
        goods = sum((line.gross for line in lines), Decimal(0)) - discount
        write_shipping(cursor, order, SHIPPING if goods < FREE_SHIPPING_FROM else Decimal(0))
        write_totals(cursor, order)
        return order

    def one_line(self, cursor: Any) -> Line:
        """A random line."""
        return self._line(self._random.choice(_products(cursor)))

    def move_house(self, cursor: Any) -> str | None:
        """Changes a buyer's addresses. Orders keep theirs."""
        if not self._regulars:
            return None
        cursor.execute(
            "UPDATE addresses SET street = %s, postcode = %s, city = %s, country = %s WHERE customer_id = %s",
            (*self._random.choice(PLACES), self._random.choice(self._regulars)),
        )
        return "a customer moved house"

    def _customer(self, cursor: Any) -> int:
        """A buyer; half of the time one who has bought before."""
        if self._regulars and self._random.random() < 0.5:
            return self._random.choice(self._regulars)
        kind = self._random.choices(("registered", "guest", "company"), (5, 3, 2))[0]
        name = self._random.choice(PEOPLE)
        company = self._random.choice(COMPANIES) if kind == "company" else None
        tax_id = f"DE{self._random.randint(10**8, 10**9 - 1)}" if company else None
        # The number in the e-mail comes from the database, so that no two runs make the same one.
        cursor.execute("SELECT nextval(pg_get_serial_sequence('customers', 'id'))")
        customer = int(cursor.fetchone()[0])
        cursor.execute(
            "INSERT INTO customers (id, kind, name, email, company, tax_id) OVERRIDING SYSTEM VALUE"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            (customer, kind, name, f"{kind}.{customer}@example.com", company, tax_id),
        )
        for address in ("billing", "shipping"):
            cursor.execute(
                "INSERT INTO addresses (customer_id, kind, name, company, street, postcode, city, country)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
                (customer, address, name, company, *self._random.choice(PLACES)),
            )
        self._new.append(customer)
        return customer

    def _lines(self, cursor: Any) -> list[Line]:
        kinds = self._random.choice((1, 1, 2, 2, 3, 5))
        return [self._line(product) for product in self._random.sample(_products(cursor), kinds)]

    def _line(self, product: Product) -> Line:
        quantity = self._random.choice((1, 1, 1, 2, 3, 7))
        off = self._random.choice((0, 0, 0, 5, 15))
        return Line(product, quantity, product.price, to_cents(product.price * quantity * off / 100))

    def _coupon(self, lines: Sequence[Line]) -> Decimal:
        """The discount on the whole order, tax included; at most half of a cheap basket."""
        goods = sum((line.gross for line in lines), Decimal(0))
        none = Decimal(0)
        return to_cents(self._random.choice((none, none, none, min(Decimal(10), goods / 2), goods / 10)))


def _products(cursor: Any) -> list[Product]:
    cursor.execute("SELECT id, sku, name, price, tax_rate FROM products WHERE active ORDER BY id")
    return [Product(*row) for row in cursor.fetchall()]
