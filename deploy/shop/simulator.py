"""A day in the sample shop, the same for the same seed on an empty database. `prepare` once, then `run`, or `step`.

From a shell: `python -m deploy.shop.simulator --database-url postgresql://… --prepare --orders 200 --seed 1`.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from contextlib import closing

import psycopg2
import psycopg2.extensions

from deploy.shop.catalogue import prepare, skus
from deploy.shop.checkout import Checkout
from deploy.shop.order import write_status
from deploy.shop.staff import Staff

__all__ = ["Simulator", "prepare", "skus"]

Cursor = psycopg2.extensions.cursor


class Simulator:
    """A shop at work. `step` does one thing and says in plain words what. Several may run on one database, in turn or
    at once: each has orders and buyers of its own."""

    def __init__(self, url: str, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._connections = [psycopg2.connect(url) for _ in range(3)]
        self._checkout, self._staff = Checkout(self._random), Staff(self._random)
        self.orders = 0
        self._pending: list[int] = []
        self._paid: list[int] = []
        self._shipped: list[int] = []
        self._requested: list[int] = []  # returns
        self._received: list[int] = []
        self._actions: Sequence[tuple[int, Callable[[Cursor], str | None]]] = (
            (50, self._buy),
            (4, self._buy_at_once),
            (3, self._give_up),
            (50, self._pay),
            (30, self._ship),
            (6, self._edit),
            (5, self._discount_open_order),
            (9, self._request_return),
            (8, self._receive_return),
            (8, self._refund),
            (3, self._cancel),
            (5, self._change_price),
            (3, self._temporary_price),
            (3, self._move_house),
        )

    def close(self) -> None:
        """Closes the connections. What is not committed is rolled back."""
        for connection in self._connections:
            connection.close()

    def step(self) -> str:
        """Does one thing in a transaction or several, and returns it in plain words."""
        weights = [weight for weight, _ in self._actions]
        while True:
            (_, action) = self._random.choices(self._actions, weights)[0]
            said = self._do(action)
            if said is not None:
                return said

    def run(self, orders: int, pause: float = 0.0, say: Callable[[str], None] | None = None) -> None:
        """Steps until `orders` orders are placed, then closes the day: every open order is paid or cancelled, and most
        of what came back is looked at."""
        while self.orders < orders:
            said = self.step()
            if say:
                say(said)
            time.sleep(pause)
        for said in self.close_day():
            if say:
                say(said)

    def close_day(self) -> list[str]:
        """Has every open order paid or cancelled, so that nothing waits for a payment. Parcels come back meanwhile, so
        that a short day has refunds as well; a third of the returns stays for tomorrow."""
        said = []
        while self._pending:
            said.append(self._do(self._pay if self._random.random() < 0.85 else self._cancel_unpaid))
        said += [self._do(self._request_return) for _ in range(1 + len(self._shipped) // 6)]
        said += [self._do(self._receive_return) for _ in range(_two_thirds(self._requested))]
        said += [self._do(self._refund) for _ in range(_two_thirds(self._received))]
        return [text for text in said if text]

    def _do(self, action: Callable[[Cursor], str | None]) -> str | None:
        with self._connections[0] as connection, connection.cursor() as cursor:
            said = action(cursor)
        self._checkout.committed()
        return said

    # Buyers

    def _buy(self, cursor: Cursor) -> str:
        order = self._checkout.place(cursor)
        self._placed(order)
        cursor.execute("SELECT number, gross FROM orders WHERE id = %s", (order,))
        (number, gross) = cursor.fetchone() or ("", "")
        return f"order {number} was placed over {gross} EUR"

    def _buy_at_once(self, cursor: Cursor) -> str:
        """Three buyers with open transactions, whose rows interleave in the log. They commit in another order."""
        for connection in self._connections:
            with connection.cursor() as other:
                self._placed(self._checkout.place(other))
        for connection in self._random.sample(self._connections, len(self._connections)):
            connection.commit()
        return "three buyers ordered at the same moment"

    def _give_up(self, cursor: Cursor) -> str:
        """A checkout that fails at the last step and is rolled back."""
        self._checkout.place(cursor)
        cursor.connection.rollback()
        self._checkout.rolled_back()
        return "a checkout failed and was rolled back"

    def _placed(self, order: int) -> None:
        self._pending.append(order)
        self.orders += 1

    def _request_return(self, cursor: Cursor) -> str | None:
        order = self._peek(self._shipped)
        asked = None if order is None else self._staff.request_return(cursor, order)
        if asked is None:
            return None
        return_id, said = asked
        self._requested.append(return_id)
        return said

    def _move_house(self, cursor: Cursor) -> str | None:
        return self._checkout.move_house(cursor)

    # Staff

    def _pay(self, cursor: Cursor) -> str | None:
        order = self._move(self._pending, self._paid)
        return None if order is None else self._staff.pay(cursor, order)

    def _ship(self, cursor: Cursor) -> str | None:
        order = self._move(self._paid, self._shipped)
        return None if order is None else f"order {write_status(cursor, order, 'shipped')} was shipped"

    def _cancel_unpaid(self, cursor: Cursor) -> str | None:
        order = self._move(self._pending, None)
        return None if order is None else f"order {write_status(cursor, order, 'cancelled')} was cancelled unpaid"

    def _cancel(self, cursor: Cursor) -> str | None:
        order = self._move(self._paid, None)
        return None if order is None else f"order {write_status(cursor, order, 'cancelled')} was cancelled"

    def _edit(self, cursor: Cursor) -> str | None:
        order = self._peek(self._paid)
        return None if order is None else self._staff.edit(cursor, order, self._checkout.one_line(cursor))

    def _discount_open_order(self, cursor: Cursor) -> str | None:
        order = self._peek(self._paid)
        return None if order is None else self._staff.discount(cursor, order)

    def _receive_return(self, cursor: Cursor) -> str | None:
        return_id = self._move(self._requested, self._received)
        return None if return_id is None else self._staff.receive_return(cursor, return_id)

    def _refund(self, cursor: Cursor) -> str | None:
        return_id = self._move(self._received, None)
        return None if return_id is None else self._staff.refund(cursor, return_id)

    def _change_price(self, cursor: Cursor) -> str:
        return self._staff.change_price(cursor)

    def _temporary_price(self, cursor: Cursor) -> str:
        return self._staff.temporary_price(cursor)

    def _peek(self, among: list[int]) -> int | None:
        return self._random.choice(among) if among else None

    def _move(self, source: list[int], target: list[int] | None) -> int | None:
        if not source:
            return None
        one = source.pop(self._random.randrange(len(source)))
        if target is not None:
            target.append(one)
        return one


def _two_thirds(returns: list[int]) -> int:
    """Two thirds of the returns, rounded up."""
    return (2 * len(returns) + 2) // 3


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
    with closing(Simulator(options.database_url, options.seed)) as simulator:
        simulator.run(options.orders, options.pause, print)


if __name__ == "__main__":
    main()
