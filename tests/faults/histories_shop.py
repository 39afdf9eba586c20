"""Buyers and staff of the sample shop, who do what a history says. What an order comes to by each act is noted."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import psycopg2

from deploy.shop.checkout import Checkout
from deploy.shop.order import write_status
from deploy.shop.staff import Staff
from tests.faults.histories_plan import Book, Figures, History

_OF_RETURNS = "(SELECT id FROM returns WHERE order_id = %(order)s)"
_DELETE = (
    f"DELETE FROM return_lines WHERE return_id IN {_OF_RETURNS}",
    *(
        f"DELETE FROM {table} WHERE order_id = %(order)s"
        for table in ("returns", "payments", "order_discounts", "order_lines", "order_addresses")
    ),
    "DELETE FROM orders WHERE id = %(order)s",
)
_ANOTHER = """
SELECT c.id FROM customers c JOIN customers own ON own.id = %s
 WHERE c.kind = own.kind AND c.id <> own.id ORDER BY c.id DESC OFFSET %s LIMIT 1
"""


class HistoriesShop:
    """Plays acts in the shop, each in one transaction."""

    def __init__(self, dsn: str, seed: int, book: Book) -> None:
        self._random = random.Random(f"{seed}/shop")
        self._connection = psycopg2.connect(dsn)
        self._checkout, self._staff = Checkout(self._random), Staff(self._random)
        self._book = book

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def does(self, name: str, history: History) -> None:
        """Does one act. An act that is no longer possible (nothing is left to return) does nothing."""
        with self._connection as connection, connection.cursor() as cursor:
            if name == "buy":
                history.order = self._checkout.place(cursor)
            assert history.order is not None
            self._do(cursor, name, history, history.order)
            self._book.note(history.order, name, _figures(cursor, history.order))
        self._checkout.committed()

    def _do(self, cursor: Any, name: str, history: History, order: int) -> None:
        staff = self._staff
        does: dict[str, Callable[[], object]] = {
            "buy": lambda: self._note_buyer(cursor, order),
            "pay": lambda: staff.pay(cursor, order),
            "edit": lambda: staff.edit(cursor, order, self._checkout.one_line(cursor)),
            "discount": lambda: staff.discount(cursor, order),
            "price": lambda: staff.change_price(cursor),
            "temporary price": lambda: staff.temporary_price(cursor),
            "ship": lambda: write_status(cursor, order, "shipped"),
            "cancel": lambda: write_status(cursor, order, "cancelled"),
            "merge": lambda: self._merge(cursor, order),
            "delete": lambda: [cursor.execute(statement, {"order": order}) for statement in _DELETE],
            "ask to return": lambda: self._ask_to_return(cursor, history, order),
            "receive": lambda: self._receive(cursor, history),
            "refund": lambda: history.received and staff.refund(cursor, history.received.pop(0)),
        }
        does[name]()

    def _note_buyer(self, cursor: Any, order: int) -> None:
        cursor.execute("SELECT customer_id::text FROM orders WHERE id = %s", (order,))
        self._book.customers.add(cursor.fetchone()[0])

    def _ask_to_return(self, cursor: Any, history: History, order: int) -> None:
        if asked := self._staff.request_return(cursor, order):
            history.returns.append(asked[0])
            self._book.orders[asked[0]] = order

    def _receive(self, cursor: Any, history: History) -> None:
        if history.returns:
            history.received.append(history.returns.pop(0))
            self._staff.receive_return(cursor, history.received[-1])

    def _merge(self, cursor: Any, order: int) -> None:
        """Merges the buyer's account into another: all its orders move there, and the account is deleted."""
        cursor.execute("SELECT customer_id FROM orders WHERE id = %s", (order,))
        (customer,) = cursor.fetchone()
        cursor.execute(_ANOTHER, (customer, self._random.randrange(3)))
        if (other := cursor.fetchone()) is None:
            return
        cursor.execute("UPDATE orders SET customer_id = %s WHERE customer_id = %s RETURNING id", (other[0], customer))
        for (moved,) in cursor.fetchall():
            self._book.note(moved, "merge")
        cursor.execute("DELETE FROM addresses WHERE customer_id = %s", (customer,))
        cursor.execute("DELETE FROM customers WHERE id = %s", (customer,))
        self._checkout.gone(customer)


def _figures(cursor: Any, order: int) -> Figures | None:
    cursor.execute("SELECT net, tax FROM orders WHERE id = %s", (order,))
    found: Figures | None = cursor.fetchone()
    return found
