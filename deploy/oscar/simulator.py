"""Buyers and staff of the oscar shop, the same for the same seed. `prepare` once, then `run`, or `step` by step.

From a shell: `python -m deploy.oscar.simulator --database-url postgresql://… --prepare --orders 200 --seed 1`.
"""

import argparse
import random
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from threading import Thread
from typing import Any

from deploy.oscar.connection import connect, disconnect, migrate, publish

PEOPLE = ("Anna Weber", "Jonas Keller", "Mia Brandt", "Paul Krüger", "Lena O'Hara", "Émile Zoller", "Nora Lind")
STREETS = ("Hauptstr.", "Lindenweg", "Am Markt", "Kirchgasse")
TOWNS = (("DE", "20095", "Hamburg"), ("DE", "50667", "Köln"), ("AT", "1010", "Wien"), ("CH", "8001", "Zürich"))
MEANS = ("Card", "PayPal", "Invoice", "Cash on delivery")
PREPAID = ("Card", "PayPal")
REASONS = ("does not fit", "damaged", "changed my mind")


def prepare(url: str, say: Callable[[str], None] = print) -> None:
    """Creates oscar's tables, the catalogue and the publication `ordertap` in an empty database."""
    migrate(url, say)
    from deploy.oscar.catalogue import stock_shop

    stock_shop()
    publish()
    disconnect()


def skus(url: str) -> list[str]:
    """What the shop sells, for the ERP's item master."""
    connect(url)
    from oscar.core.loading import get_model

    records = get_model("partner", "StockRecord").objects.order_by("partner_sku")
    found = list(records.values_list("partner_sku", flat=True))
    disconnect()
    return found


class Simulator:
    """A shop at work. `step` does one thing and says in plain words what. Several may run on one database with
    different seeds: each has buyers and orders of its own."""

    def __init__(self, url: str, seed: int = 1) -> None:
        connect(url)
        from deploy.oscar import checkout, staff

        self._checkout, self._staff = checkout, staff
        self._random = random.Random(seed)
        self._seed = seed
        self._models()
        self.orders = 0
        self._unpaid: list[int] = []
        self._paid: list[int] = []
        self._shipped: list[int] = []
        self._in_hand: dict[int, dict[int, int]] = {}  # shipped order → line → quantity that the buyer still has
        self._shipping_refunded: set[int] = set()
        self._normal_price: dict[str, Decimal] = {}
        self._actions: Sequence[tuple[int, Callable[[], str | None]]] = (
            (60, self._buy),
            (3, self._buy_while_staff_work),
            (2, self._card_declined),
            (8, self._settle),
            (18, self._ship),
            (5, self._return_and_refund),
            (2, self._refund_shipping),
            (2, self._goodwill),
            (3, self._cancel),
            (3, self._correct_address),
            (6, self._reprice),
        )

    def _models(self) -> None:
        from django.contrib.auth import get_user_model
        from oscar.core.loading import get_model

        self._user_model = get_user_model()
        self._order_model = get_model("order", "Order")
        self._shipping_address = get_model("order", "ShippingAddress")
        self._billing_address = get_model("order", "BillingAddress")
        self._products = list(get_model("catalogue", "Product").objects.order_by("id"))
        self._vouchers = list(get_model("voucher", "Voucher").objects.order_by("id"))
        self._stock_records = get_model("partner", "StockRecord").objects.order_by("id")
        self._skus = list(self._stock_records.values_list("partner_sku", flat=True))

    def step(self) -> str:
        """Does one thing, and returns it in plain words."""
        weights = [weight for weight, _ in self._actions]
        while True:
            (_, action) = self._random.choices(self._actions, weights)[0]
            said = action()
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
        """Has every open order paid or cancelled, so that nothing waits for a payment."""
        said = []
        while self._unpaid:
            said.append(self._settle() if self._random.random() < 0.8 else self._cancel())
        return [text for text in said if text]

    # Buyers

    def _buy(self) -> str:
        order, buyer = self._place()
        return f"{buyer} buys order {order.number} for {order.total_incl_tax} {order.currency}"

    def _place(self) -> tuple[Any, str]:
        choose = self._random
        name = choose.choice(PEOPLE)
        guest = choose.random() < 0.35
        email = f"{_ascii(name)}{choose.randrange(1, 9)}@{self._seed}.example.com"
        means = choose.choice(MEANS)
        products = choose.sample(self._products, choose.randint(1, 4))
        goods = [(product, choose.choice((1, 1, 2, 3, 4))) for product in products]
        purchase = self._checkout.Purchase(
            user=None if guest else self._registered(name, email),
            email=choose.choice((email, email.title(), email.upper())),  # as people type it
            goods=goods,
            means=means,
            prepaid=means in PREPAID,
            shipping_address=self._shipping_address(**self._address(name)),
            billing_address=self._billing_address(**self._address(name)) if choose.random() < 0.2 else None,
            voucher=choose.choice(self._vouchers) if choose.random() < 0.3 else None,
            express=choose.random() < 0.2,
        )
        order = self._checkout.Checkout().buy(purchase)
        (self._paid if means in PREPAID else self._unpaid).append(order.id)
        self.orders += 1
        return order, f"{name} (guest)" if guest else name

    def _registered(self, name: str, email: str) -> Any:
        first, last = name.split(" ", 1)
        found = self._user_model.objects.filter(username=email).first()
        return found or self._user_model.objects.create_user(email, email, "secret", first_name=first, last_name=last)

    def _address(self, name: str) -> dict[str, str]:
        country, postcode, town = self._random.choice(TOWNS)
        street = f"{self._random.choice(STREETS)} {self._random.randint(1, 80)}"
        first, last = name.split(" ", 1)
        return {
            "first_name": first,
            "last_name": last,
            "line1": street,
            "line4": town,
            "postcode": postcode,
            "country_id": country,
        }

    def _buy_while_staff_work(self) -> str:
        """Two transactions at once: a change of price commits while the order's transaction is open."""
        from django.db import transaction

        with transaction.atomic():
            order, buyer = self._place()
            bought = set(order.lines.values_list("partner_sku", flat=True))
            sku = self._random.choice([sku for sku in self._skus if sku not in bought])
            price = self._new_price(sku)
            _elsewhere(lambda: self._staff.reprice(sku, price))
        return f"{buyer} buys order {order.number} while {sku} becomes {price}"

    def _card_declined(self) -> str:
        """The bank declines at the last moment: the shop's transaction is rolled back."""
        from django.db import transaction

        before = (self.orders, list(self._paid), list(self._unpaid))
        with transaction.atomic():
            _, buyer = self._place()
            transaction.set_rollback(True)
        self.orders, self._paid, self._unpaid = before
        return f"{buyer}'s bank declines: nothing was bought"

    # Staff

    def _take(self, among: list[int]) -> Any:
        if not among:
            return None
        return self._order_model.objects.get(pk=among.pop(self._random.randrange(len(among))))

    def _settle(self) -> str | None:
        order = self._take(self._unpaid)
        if order is None:
            return None
        self._staff.settle(order, "Bank transfer")
        self._paid.append(order.id)
        return f"order {order.number} is paid"

    def _ship(self) -> str | None:
        order = self._take(self._paid)
        if order is None:
            return None
        self._staff.ship(order)
        self._shipped.append(order.id)
        self._in_hand[order.id] = dict(order.lines.values_list("id", "quantity"))
        return f"order {order.number} is shipped"

    def _cancel(self) -> str | None:
        order = self._take(self._unpaid if self._random.random() < 0.7 else self._paid)
        if order is None:
            return None
        self._staff.cancel(order)
        return f"order {order.number} is cancelled"

    def _some_shipped(self) -> Any:
        if not self._shipped:
            return None
        return self._order_model.objects.get(pk=self._random.choice(self._shipped))

    def _return_and_refund(self) -> str | None:
        order = self._some_shipped()
        if order is None:
            return None
        in_hand = self._in_hand[order.id]
        lines = [line for line in order.lines.all() if in_hand[line.id]]
        if not lines:
            return None
        back = [
            (line, self._random.randint(1, in_hand[line.id]))
            for line in self._random.sample(lines, self._random.randint(1, len(lines)))
        ]
        returned = self._staff.take_back(order, back, self._random.choice(REASONS))
        for line, quantity in back:
            in_hand[line.id] -= quantity
        amount = self._staff.worth(order, back)
        if order.id not in self._shipping_refunded and self._random.random() < 0.3:
            self._shipping_refunded.add(order.id)
            amount += order.shipping_incl_tax
        refunded = self._staff.refund(order, amount, back, returned)
        return f"{sum(q for _, q in back)} pieces of order {order.number} come back, {refunded} is refunded"

    def _refund_shipping(self) -> str | None:
        order = self._some_shipped()
        if order is None or not order.shipping_incl_tax or order.id in self._shipping_refunded:
            return None
        self._shipping_refunded.add(order.id)
        refunded = self._staff.refund(order, order.shipping_incl_tax)
        return f"{refunded} of shipping is refunded for order {order.number}" if refunded else None

    def _goodwill(self) -> str | None:
        order = self._some_shipped()
        if order is None:
            return None
        refunded = self._staff.refund(order, Decimal(self._random.choice(("2.50", "5.00"))))
        return f"{refunded} of goodwill for order {order.number}" if refunded else None

    def _correct_address(self) -> str | None:
        candidates = [*self._unpaid, *self._paid]
        order = self._order_model.objects.get(pk=self._random.choice(candidates)) if candidates else None
        if order is None or order.shipping_address is None:
            return None
        self._staff.correct_address(order, f"{self._random.choice(STREETS)} {self._random.randint(81, 99)}")
        return f"the address of order {order.number} is corrected"

    def _reprice(self) -> str:
        sku = self._random.choice(self._skus)
        price = self._new_price(sku)
        old = self._staff.reprice(sku, price)
        if self._random.random() < 0.2:
            self._staff.reprice(sku, old)
            return f"{sku} costs {price}, no, {old} again"
        return f"{sku} costs {price} instead of {old}"

    def _new_price(self, sku: str) -> Decimal:
        if sku not in self._normal_price:
            self._normal_price[sku] = self._stock_records.get(partner_sku=sku).price
        factor = Decimal(self._random.randint(85, 120)) / 100
        return (self._normal_price[sku] * factor).quantize(Decimal("0.01"))


def _elsewhere(work: Callable[[], object]) -> None:
    """Runs it in another thread, with a connection and transaction of its own."""
    failed: list[BaseException] = []

    def body() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  (raised again in the thread that waits)
            failed.append(error)
        finally:
            disconnect()

    thread = Thread(target=body)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def _ascii(name: str) -> str:
    return "".join(c for c in name.lower() if c.isascii() and c.isalpha())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Buyers and staff of a django-oscar shop.")
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--prepare", action="store_true", help="make oscar's tables and the catalogue first")
    parser.add_argument("--orders", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two steps")
    options = parser.parse_args()
    if options.prepare:
        prepare(options.database_url)
    Simulator(options.database_url, options.seed).run(options.orders, options.pause, print)
    disconnect()


if __name__ == "__main__":
    main()
