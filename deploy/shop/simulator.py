"""Buyers and staff of the sample shop, the same for the same seed. `prepare` once, then `run`, or `step` by step.

From a shell: `python -m deploy.shop.simulator --database-url postgresql://… --prepare --orders 200 --seed 1`.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
import psycopg2.extensions

Connection = psycopg2.extensions.connection

CENT = Decimal("0.01")
PRODUCTS = (
    ("Steel bolt M8, box of 100", "12.90", 19),
    ("Brass hinge", "4.35", 19),
    ("Oak board 2 m", "23.50", 19),
    ("Wood glue 500 g", "7.99", 19),
    ("Workshop handbook", "29.95", 7),
    ("Linseed oil 1 l", "14.25", 19),
    ("Seed mix for birds", "5.49", 7),
    ("Japanese saw", "48.00", 19),
    ("Sandpaper set", "9.33", 19),
    ("Garden almanac", "17.77", 7),
    ("Folding rule", "6.01", 19),
    ("Vice 125 mm", "119.00", 19),
)
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
MEANS = ("card", "paypal", "bank transfer", "invoice")
REASONS = ("does not fit", "damaged", "changed my mind", "wrong item")
SHIPPING = Decimal("4.90")
STANDARD_RATE = Decimal(19)


class Product(NamedTuple):
    id: int
    sku: str
    name: str
    price: Decimal
    tax_rate: Decimal


class Line(NamedTuple):
    """A line's money, tax included; `tax` is what `gross` contains."""

    product: Product
    quantity: int
    unit_price: Decimal
    discount: Decimal

    @property
    def gross(self) -> Decimal:
        return self.quantity * self.unit_price - self.discount


def tax_in(gross: Decimal, rate: Decimal) -> Decimal:
    """The tax that an amount with tax contains, to the cent; `rate` in percent."""
    return (gross * rate / (100 + rate)).quantize(CENT, ROUND_HALF_UP)


def allocate(amount: Decimal, weights: Sequence[Decimal]) -> list[Decimal]:
    """Splits an amount by weights, exact to the cent, by largest remainder."""
    total = sum(weights, Decimal(0))
    exact = [amount * weight / total for weight in weights]
    shares = [share.quantize(CENT, "ROUND_DOWN") for share in exact]
    missing = int((amount - sum(shares, Decimal(0))) / CENT)
    for index in sorted(range(len(shares)), key=lambda i: exact[i] - shares[i], reverse=True)[:missing]:
        shares[index] += CENT
    return shares


def prepare(url: str, say: Callable[[str], None] = print) -> None:
    """Makes the shop's tables and its catalogue in an empty database."""
    say("making the sample shop's tables")
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute((Path(__file__).parent / "schema.sql").read_text("utf-8"))
        for number, (name, price, rate) in enumerate(PRODUCTS, 1):
            cursor.execute(
                "INSERT INTO products (sku, name, price, tax_rate, attributes) VALUES (%s, %s, %s, %s, %s)",
                (f"P-{number:04}", name, price, rate, json.dumps({"weight_g": number * 120})),
            )
    connection.close()


def skus(url: str) -> list[str]:
    """What the shop sells, for the ERP's item master."""
    connection = psycopg2.connect(url)
    with connection.cursor() as cursor:
        cursor.execute("SELECT sku FROM products ORDER BY sku")
        found = [sku for (sku,) in cursor.fetchall()]
    connection.close()
    return found


class Simulator:
    """A shop at work. `step` lets one thing happen and says in plain words what it was.

    Several may run on one database: each looks after the orders that it placed itself.
    """

    def __init__(self, url: str, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._seed = seed
        self._connections = [self._connect(url) for _ in range(3)]
        self._now = self._connections[0]
        self.orders = 0
        self._customers = 0
        self._pending: list[int] = []
        self._paid: list[int] = []
        self._shipped: list[int] = []
        self._normal_price: dict[int, Decimal] = {}
        self._actions: Sequence[tuple[int, Callable[[], str | None]]] = (
            (50, self._buy),
            (4, self._buy_at_once),
            (3, self._give_up),
            (16, self._pay),
            (16, self._ship),
            (6, self._edit),
            (5, self._discount_open_order),
            (9, self._return),
            (3, self._cancel),
            (3, self._change_price),
            (2, self._temporary_price),
            (2, self._move_house),
        )

    @staticmethod
    def _connect(url: str) -> Connection:
        connection = psycopg2.connect(url)
        connection.autocommit = False
        return connection

    def step(self) -> str:
        """One thing happens; returns it in plain words."""
        weights = [weight for weight, _ in self._actions]
        while True:
            (_, action) = self._random.choices(self._actions, weights)[0]
            said = action()
            self._now.commit()
            if said is not None:
                return said

    def run(self, orders: int, pause: float = 0.0, say: Callable[[str], None] | None = None) -> None:
        """Steps until `orders` orders are placed, then closes the day: every open order is paid or cancelled."""
        while self.orders < orders:
            said = self.step()
            if say:
                say(said)
            time.sleep(pause)
        for said in self.close_day():
            if say:
                say(said)

    def close_day(self) -> list[str]:
        """Lets staff decide what is still open, so that nothing waits for a payment."""
        said = []
        while self._pending:
            said.append(self._pay() if self._random.random() < 0.85 else self._cancel_unpaid())
            self._now.commit()
        return [text for text in said if text]

    # Buyers

    def _buy(self) -> str:
        self._place(self._now)
        return self._placed()

    def _buy_at_once(self) -> str:
        """Three buyers with open transactions, whose rows interleave in the log; they commit in another order."""
        for connection in self._connections:
            self._place(connection)
        for connection in self._random.sample(self._connections, len(self._connections)):
            connection.commit()
        return "three buyers ordered at the same moment"

    def _give_up(self) -> str:
        """A checkout that fails at the last step: the shop rolls it back."""
        self._place(self._connections[1])
        self._connections[1].rollback()
        self._pending.pop()
        self.orders -= 1
        return "a checkout failed and was rolled back"

    def _placed(self) -> str:
        (number, gross) = self._one("SELECT number, gross FROM orders WHERE id = %s", self._pending[-1])
        return f"order {number} was placed over {gross} EUR"

    def _place(self, connection: Connection) -> None:
        with connection.cursor() as cursor:
            customer = self._customer(cursor)
            lines = self._basket(cursor)
            discount = self._coupon(lines)
            cursor.execute(
                "INSERT INTO orders (customer_id, shipping_gross, shipping_tax, net, tax, gross, note, meta)"
                " VALUES (%s, 0, 0, 0, 0, 0, %s, %s) RETURNING id",
                (customer, self._note(), json.dumps({"device": self._random.choice(["phone", "desk"])})),
            )
            order = _only(cursor)
            for line in lines:
                self._add_line(cursor, order, line)
            self._add_discount(cursor, order, lines, discount)
            cursor.execute(
                "INSERT INTO order_addresses SELECT %s, kind, name, company, street, postcode, city, country"
                " FROM addresses WHERE customer_id = %s",
                (order, customer),
            )
            goods = sum((line.gross for line in lines), Decimal(0)) - discount
            self._total(cursor, order, SHIPPING if goods < 60 else Decimal(0))
        self._pending.append(order)
        self.orders += 1

    def _note(self) -> str | None:
        texts = (None, None, None, "please ring twice", "a gift — no invoice in the box\tthanks \\o/", "x" * 3000)
        return self._random.choice(texts)

    def _customer(self, cursor: Any) -> int:
        """A buyer: half of the time one who was here before."""
        if self._customers and self._random.random() < 0.5:
            number = self._random.randint(1, self._customers)
            cursor.execute(
                "SELECT id FROM customers WHERE email LIKE %s LIMIT 1", (f"%.{self._seed}.{number}@example.com",)
            )
            row = cursor.fetchone()
            if row:
                return int(row[0])
        self._customers += 1
        kind = self._random.choices(("registered", "guest", "company"), (5, 3, 2))[0]
        name = self._random.choice(PEOPLE)
        company = self._random.choice(COMPANIES) if kind == "company" else None
        tax_id = f"DE{self._random.randint(10**8, 10**9 - 1)}" if company else None
        email = f"{kind}.{self._seed}.{self._customers}@example.com"
        cursor.execute(
            "INSERT INTO customers (kind, name, email, company, tax_id) VALUES (%s, %s, %s, %s, %s) RETURNING id",
            (kind, name, email, company, tax_id),
        )
        customer = int(_only(cursor))
        for address in ("billing", "shipping"):
            cursor.execute(
                "INSERT INTO addresses (customer_id, kind, name, company, street, postcode, city, country)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
                (customer, address, name, company, *self._random.choice(PLACES)),
            )
        return customer

    def _basket(self, cursor: Any) -> list[Line]:
        cursor.execute("SELECT id, sku, name, price, tax_rate FROM products WHERE active ORDER BY id")
        products = [Product(*row) for row in cursor.fetchall()]
        return [
            self._line(product) for product in self._random.sample(products, self._random.choice((1, 1, 2, 2, 3, 5)))
        ]

    def _line(self, product: Product) -> Line:
        quantity = self._random.choice((1, 1, 1, 2, 3, 7))
        off = self._random.choice((0, 0, 0, 5, 15))
        discount = (product.price * quantity * off / 100).quantize(CENT, ROUND_HALF_UP)
        return Line(product, quantity, product.price, discount)

    def _coupon(self, lines: Sequence[Line]) -> Decimal:
        """The discount on the whole order, tax included."""
        goods = sum((line.gross for line in lines), Decimal(0))
        return self._random.choice((Decimal(0), Decimal(0), Decimal(0), min(Decimal(10), goods), goods / 10)).quantize(
            CENT
        )

    # What an order is made of

    def _add_line(self, cursor: Any, order: int, line: Line) -> None:
        product = line.product
        cursor.execute(
            "INSERT INTO order_lines"
            " (order_id, product_id, sku, name, quantity, unit_price, discount, tax_rate, gross, tax)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (order, product.id, product.sku, product.name, line.quantity, line.unit_price, line.discount,
             product.tax_rate, line.gross, tax_in(line.gross, product.tax_rate)),
        )  # fmt: skip

    def _add_discount(self, cursor: Any, order: int, lines: Sequence[Line], amount: Decimal) -> None:
        """One row for each tax rate: the discount lowers the goods of both by their share."""
        if not amount:
            return
        rates = sorted({line.product.tax_rate for line in lines})
        weights = [sum((x.gross for x in lines if x.product.tax_rate == rate), Decimal(0)) for rate in rates]
        for rate, gross in zip(rates, allocate(amount, weights), strict=True):
            cursor.execute(
                "INSERT INTO order_discounts (order_id, code, name, tax_rate, gross, tax)"
                " VALUES (%s, %s, %s, %s, %s, %s)",
                (order, "WELCOME10", "Welcome", rate, gross, tax_in(gross, rate)),
            )

    def _total(self, cursor: Any, order: int, shipping: Decimal | None = None) -> None:
        """Writes the order's totals from its parts; `shipping` None: as it was."""
        if shipping is not None:
            cursor.execute(
                "UPDATE orders SET shipping_gross = %s, shipping_tax = %s WHERE id = %s",
                (shipping, tax_in(shipping, STANDARD_RATE), order),
            )
        cursor.execute(
            "UPDATE orders o SET gross = p.gross + o.shipping_gross, tax = p.tax + o.shipping_tax,"
            " net = p.gross + o.shipping_gross - p.tax - o.shipping_tax, updated_at = now() FROM ("
            " SELECT sum(gross) AS gross, sum(tax) AS tax FROM ("
            " SELECT gross, tax FROM order_lines WHERE order_id = %(order)s UNION ALL"
            " SELECT -gross, -tax FROM order_discounts WHERE order_id = %(order)s) parts) p WHERE o.id = %(order)s",
            {"order": order},
        )

    # Staff

    def _pay(self) -> str | None:
        order = self._take(self._pending)
        if order is None:
            return None
        number, gross, means = self._one(
            "INSERT INTO payments (order_id, means, amount, reference)"
            " SELECT id, %s, gross, %s FROM orders WHERE id = %s"
            " RETURNING (SELECT number FROM orders WHERE id = order_id), amount, means",
            self._random.choice(MEANS), f"tx-{self._seed}-{order}", order,
        )  # fmt: skip
        self._status(order, "paid")
        self._paid.append(order)
        return f"order {number} was paid: {gross} EUR by {means}"

    def _ship(self) -> str | None:
        order = self._take(self._paid)
        if order is None:
            return None
        self._shipped.append(order)
        return f"order {self._status(order, 'shipped')} was shipped"

    def _cancel_unpaid(self) -> str | None:
        order = self._take(self._pending)
        return None if order is None else f"order {self._status(order, 'cancelled')} was cancelled unpaid"

    def _cancel(self) -> str | None:
        order = self._take(self._paid)
        return None if order is None else f"order {self._status(order, 'cancelled')} was cancelled"

    def _edit(self) -> str | None:
        """An order is changed before it ships: a quantity, one line less, or one more. The difference is paid."""
        order = self._peek(self._paid)
        if order is None:
            return None
        lines = self._all("SELECT id, quantity FROM order_lines WHERE order_id = %s ORDER BY id", order)
        line, quantity = self._random.choice(lines)
        with self._now.cursor() as cursor:
            if len(lines) > 1 and self._random.random() < 0.4 and not self._discounted(order):
                cursor.execute("DELETE FROM order_lines WHERE id = %s", (line,))
                said = "lost a line"
            elif self._random.random() < 0.5:
                self._reprice_line(cursor, line, quantity + 1, None)
                said = "got one piece more"
            else:
                self._add_line(cursor, order, self._basket(cursor)[0])
                said = "got another line"
            self._total(cursor, order)
        self._settle_difference(order)
        return f"order {self._number(order)} {said} before it shipped"

    def _discount_open_order(self) -> str | None:
        """A temporary discount on an open order: its lines' prices change."""
        order = self._peek(self._paid)
        if order is None:
            return None
        percent = self._random.choice((5, 10, 20))
        with self._now.cursor() as cursor:
            for line, quantity in self._all(
                "SELECT id, quantity FROM order_lines WHERE order_id = %s ORDER BY id", order
            ):
                self._reprice_line(cursor, line, quantity, Decimal(100 - percent) / 100)
            cursor.execute("DELETE FROM order_discounts WHERE order_id = %s", (order,))
            self._total(cursor, order)
        self._status(order, "discounted")
        self._settle_difference(order)
        return f"order {self._number(order)} got {percent} % off"

    def _discounted(self, order: int) -> bool:
        return bool(self._all("SELECT 1 FROM order_discounts WHERE order_id = %s", order))

    def _reprice_line(self, cursor: Any, line: int, quantity: int, factor: Decimal | None) -> None:
        cursor.execute("SELECT unit_price, discount, tax_rate FROM order_lines WHERE id = %s", (line,))
        unit_price, discount, rate = cursor.fetchone()
        if factor is not None:
            unit_price, discount = (unit_price * factor).quantize(CENT, ROUND_HALF_UP), Decimal(0)
        gross = quantity * unit_price - discount
        cursor.execute(
            "UPDATE order_lines SET quantity = %s, unit_price = %s, discount = %s, gross = %s, tax = %s WHERE id = %s",
            (quantity, unit_price, discount, gross, tax_in(gross, rate), line),
        )

    def _settle_difference(self, order: int) -> None:
        """What was paid follows what is owed, so that a later refund has its money."""
        (owed,) = self._one(
            "SELECT gross - (SELECT coalesce(sum(amount), 0) FROM payments WHERE order_id = o.id)"
            " FROM orders o WHERE id = %s",
            order,
        )
        if owed:
            self._one(
                "INSERT INTO payments (order_id, means, amount) VALUES (%s, 'card', %s) RETURNING id", order, owed
            )

    def _return(self) -> str | None:
        """A buyer sends some of an order back, in three steps of their own: requested, received, refunded."""
        order = self._peek(self._shipped)
        open_lines = [] if order is None else self._returnable(order)
        if order is None or not open_lines:
            return None
        self._status(order, "return_requested")
        (return_id,) = self._one("INSERT INTO returns (order_id) VALUES (%s) RETURNING id", order)
        for line, left, money in self._random.sample(open_lines, self._random.randint(1, min(2, len(open_lines)))):
            quantity = self._random.randint(1, left)
            amount = money if quantity == left else (money * quantity / left).quantize(CENT, "ROUND_DOWN")
            self._one(
                "INSERT INTO return_lines (return_id, order_line_id, quantity, reason, refund_amount)"
                " VALUES (%s, %s, %s, %s, %s) RETURNING id",
                return_id, line, quantity, self._random.choice(REASONS), amount,
            )  # fmt: skip
        self._now.commit()
        self._one("UPDATE returns SET status = 'received', received_at = now() WHERE id = %s RETURNING id", return_id)
        self._status(order, "returned")
        self._now.commit()
        self._one(
            "UPDATE returns SET status = 'refunded', refunded_at = now(), shipping_refund = %s"
            " WHERE id = %s RETURNING id",
            self._shipping_back(order), return_id,
        )  # fmt: skip
        return f"part of order {self._number(order)} came back and was refunded"

    def _returnable(self, order: int) -> list[tuple[int, int, Decimal]]:
        """(line, pieces that the buyer still has, what they cost him after the order's discount)."""
        return self._all(
            "SELECT l.id, (l.quantity - coalesce(r.quantity, 0))::int, greatest(0, l.gross - coalesce(r.money, 0)"
            "  - CASE WHEN o.off > 0 THEN round(l.gross * o.off / o.goods, 2) ELSE 0 END)"
            " FROM order_lines l"
            " CROSS JOIN LATERAL (SELECT sum(x.gross) AS goods, (SELECT coalesce(sum(d.gross), 0)"
            "  FROM order_discounts d WHERE d.order_id = l.order_id) AS off"
            "  FROM order_lines x WHERE x.order_id = l.order_id) o"
            " LEFT JOIN LATERAL (SELECT sum(b.quantity) AS quantity, sum(b.refund_amount) AS money"
            "  FROM return_lines b WHERE b.order_line_id = l.id) r ON true"
            " WHERE l.order_id = %s AND l.quantity > coalesce(r.quantity, 0) ORDER BY l.id",
            order,
        )

    def _shipping_back(self, order: int) -> Decimal:
        """Once an order, and only now and then, the buyer gets the shipping back too."""
        (left,) = self._one(
            "SELECT shipping_gross - (SELECT sum(shipping_refund) FROM returns WHERE order_id = o.id)"
            " FROM orders o WHERE id = %s",
            order,
        )
        return left if self._random.random() < 0.3 else Decimal(0)

    def _change_price(self) -> str:
        """A list price changes; every second time it goes back to what it was."""
        product, sku, price = self._one(
            "SELECT id, sku, price FROM products ORDER BY id OFFSET %s LIMIT 1", self._random.randrange(len(PRODUCTS))
        )
        back = self._normal_price.pop(product, None)
        new = back or (price * self._random.choice((95, 103, 110)) / 100).quantize(CENT, ROUND_HALF_UP)
        if back is None:
            self._normal_price[product] = price
        self._one("UPDATE products SET price = %s, updated_at = now() WHERE id = %s RETURNING id", new, product)
        return f"{sku} costs {new} EUR now" + (" again" if back else "")

    def _temporary_price(self) -> str:
        product, sku, price = self._one(
            "SELECT id, sku, price FROM products ORDER BY id OFFSET %s LIMIT 1", self._random.randrange(len(PRODUCTS))
        )
        new = (price * 4 / 5).quantize(CENT, ROUND_HALF_UP)
        self._one(
            "INSERT INTO product_prices (product_id, price, valid_from, valid_until) VALUES (%s, %s,"
            " date_trunc('day', now()) + interval '1 day', date_trunc('day', now()) + interval '8 days') RETURNING id",
            product, new,
        )  # fmt: skip
        return f"{sku} will cost {new} EUR for a week"

    def _move_house(self) -> str | None:
        if not self._customers:
            return None
        street, postcode, city, country = self._random.choice(PLACES)
        pattern = f"%.{self._seed}.{self._random.randint(1, self._customers)}@example.com"
        moved = self._all(
            "UPDATE addresses a SET street = %s, postcode = %s, city = %s, country = %s FROM customers c"
            " WHERE c.id = a.customer_id AND c.email LIKE %s RETURNING a.id",
            street, postcode, city, country, pattern,
        )  # fmt: skip
        return "a customer moved house" if moved else None

    # Small things

    def _status(self, order: int, status: str) -> str:
        (number,) = self._one(
            "UPDATE orders SET status = %s, updated_at = now() WHERE id = %s RETURNING number", status, order
        )
        return str(number)

    def _number(self, order: int) -> str:
        return str(self._one("SELECT number FROM orders WHERE id = %s", order)[0])

    def _peek(self, among: list[int]) -> int | None:
        return self._random.choice(among) if among else None

    def _take(self, among: list[int]) -> int | None:
        return among.pop(self._random.randrange(len(among))) if among else None

    def _one(self, statement: str, *parameters: object) -> Any:
        return self._all(statement, *parameters)[0]

    def _all(self, statement: str, *parameters: object) -> list[Any]:
        with self._now.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall()


def _only(cursor: Any) -> Any:
    return cursor.fetchone()[0]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Buyers and staff of the sample shop.")
    parser.add_argument("--database-url", required=True, help="the shop's database")
    parser.add_argument("--prepare", action="store_true", help="make tables and catalogue first")
    parser.add_argument("--orders", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two steps")
    options = parser.parse_args()
    if options.prepare:
        prepare(options.database_url)
    Simulator(options.database_url, options.seed).run(options.orders, options.pause, print)


if __name__ == "__main__":
    main()
