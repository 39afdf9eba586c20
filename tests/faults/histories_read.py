"""Reads what shop, ledger and ERPs have, each with queries of its own, as documents that can be compared."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

import psycopg2

from deploy.tryton.screen import Screen
from tests.faults.histories_proof import Doc, Goods, Key, Kind, Rates, Sums, summed

_CENT: Final = Decimal("0.01")
_ZERO: Final = Decimal(0)
_KINDS: Final[Mapping[str, Kind]] = {
    "sales_order": "order", "return_order": "return", "refund": "refund", "customer": "customer", "price": "price",
    "temporary_price": "temporary price",
}  # fmt: skip
_OURS: Final[Mapping[str, Kind]] = {
    "order": "order", "return": "return", "refund": "refund", "customer": "customer", "price": "price",
    "price.temporary": "temporary price",
}  # fmt: skip

_ORDERS = """
SELECT id, customer_id::text, status = 'cancelled', net, tax FROM orders o
 WHERE status <> 'pending' AND (status <> 'cancelled' OR EXISTS (SELECT FROM payments p WHERE p.order_id = o.id))
"""
_AMOUNTS = """
SELECT order_id, tax_rate, gross - tax, tax FROM order_lines UNION ALL
SELECT order_id, tax_rate, tax - gross, -tax FROM order_discounts UNION ALL
SELECT id, shipping_tax_rate, shipping_gross - shipping_tax, shipping_tax FROM orders
"""
_SOLD = "SELECT order_id, sku, sum(quantity) FROM order_lines GROUP BY 1, 2"
_RETURNS = "SELECT id, order_id FROM returns WHERE received_at IS NOT NULL"
_CAME_BACK = """
SELECT r.return_id, l.sku, sum(r.quantity)
  FROM return_lines r JOIN order_lines l ON l.id = r.order_line_id GROUP BY 1, 2
"""
_REFUNDS = """
SELECT r.id, r.order_id, o.customer_id::text FROM returns r JOIN orders o ON o.id = r.order_id
 WHERE refunded_at IS NOT NULL
"""
_GIVEN_BACK = """
SELECT r.return_id, l.tax_rate, r.refund_amount FROM return_lines r JOIN order_lines l ON l.id = r.order_line_id
UNION ALL
SELECT r.id, o.shipping_tax_rate, r.shipping_refund FROM returns r JOIN orders o ON o.id = r.order_id
"""
_PRICES = "SELECT id, price FROM products"
_TEMPORARY = """
SELECT id, price, (valid_from AT TIME ZONE 'UTC')::date, (valid_until AT TIME ZONE 'UTC' - interval '1 us')::date
  FROM product_prices
"""


def of_shop(dsn: str) -> list[Doc]:
    """The documents of the shop that an ERP must have."""
    amounts, sold = _rates(rows(dsn, _AMOUNTS)), _items(rows(dsn, _SOLD))
    found = [
        Doc(("order", str(id_)), id_, party, cancelled, net, tax, amounts.get(id_, {}), sold.get(id_, {}))
        for id_, party, cancelled, net, tax in rows(dsn, _ORDERS)
    ]
    back = _items(rows(dsn, _CAME_BACK))
    found += [Doc(("return", str(id_)), order, items=back[id_]) for id_, order in rows(dsn, _RETURNS)]
    parts = rows(dsn, _GIVEN_BACK)
    given = _rates((id_, rate, gross - _tax(gross, rate), _tax(gross, rate)) for id_, rate, gross in parts)
    for id_, order, party in rows(dsn, _REFUNDS):
        net, tax = (sum((one[n] for one in given[id_].values()), _ZERO) for n in (0, 1))
        found.append(Doc(("refund", str(id_)), order, party, False, net, tax, given[id_]))
    found += [Doc(("price", str(id_)), 0, net=amount) for id_, amount in rows(dsn, _PRICES)]
    for id_, amount, *days in rows(dsn, _TEMPORARY):
        found.append(Doc(("temporary price", str(id_)), 0, net=amount, days=(days[0], days[1])))
    buyers = {doc.party for doc in found if doc.key[0] == "order" and not doc.cancelled}
    return found + [Doc(("customer", party), 0) for party in buyers]


def held(dsn: str, ledger: str) -> dict[Key, str]:
    """Why documents are held or wait, by key."""
    said = f"SELECT type, key, reason FROM {ledger}.document WHERE state IN ('held', 'waits')"
    return {(_KINDS[type_], key): str(reason) for type_, key, reason in rows(dsn, said)}


def made(dsn: str, ledger: str) -> frozenset[Key]:
    """Keys of all documents that the ERP was ever given."""
    told = f"SELECT DISTINCT type, key FROM {ledger}.history WHERE event = 'create'"
    return frozenset((_KINDS[type_], key) for type_, key in rows(dsn, told))


def of_sql(dsn: str) -> list[Doc]:
    """The documents in the reference ERP."""
    lines = "SELECT order_id, tax_rate, net, tax FROM order_lines"
    rates = _rates(rows(dsn, lines))
    items = _items(rows(dsn, "SELECT order_id, sku, sum(quantity) FROM order_lines WHERE kind = 'item' GROUP BY 1, 2"))
    found, by_id = list[Doc](), dict[int, int]()
    orders = (
        "SELECT o.id, o.external_key, c.external_key, o.status, o.net, o.tax FROM orders o"
        " JOIN customers c USING (account_number)"
    )
    for id_, key, party, status, net, tax in rows(dsn, orders):
        by_id[id_] = int(_key(key)[1])
        found.append(
            Doc(_key(key), by_id[id_], _key(party)[1], status == "cancelled", net, tax, rates[id_], items[id_])
        )
    back = _items(rows(dsn, _CAME_BACK))
    returns = "SELECT id, external_key, order_id, status FROM returns WHERE external_key IS NOT NULL"
    for id_, key, order, status in rows(dsn, returns):
        found.append(Doc(_key(key), by_id[order], cancelled=status == "cancelled", items=back[id_]))
    refunds = "SELECT external_key, order_id, status, net, tax FROM refunds WHERE external_key IS NOT NULL"
    for key, order, status, net, tax in rows(dsn, refunds):
        found.append(Doc(_key(key), by_id[order], "", status == "cancelled", net, tax))
    prices = "SELECT external_key, amount, status, valid_from::date, (valid_until - interval '1 us')::date FROM prices"
    for key, amount, status, *days in rows(dsn, prices):
        found.append(Doc(_key(key), 0, "", status == "cancelled", amount, days=(days[0], days[1])))
    return found + [Doc(_key(key), 0) for (key,) in rows(dsn, "SELECT external_key FROM customers")]


def rows(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    """The rows of one query."""
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


class OfTryton:
    """The documents in a Tryton, read as a person's client reads them. Tryton itself has made their sums, taxes and
    states."""

    def __init__(self, screen: Screen, prefix: str) -> None:
        self._screen = screen
        self._prefix = prefix
        names = {row["id"]: str(row["name"]) for row in screen.rows("account.tax", [], "name")}
        # Taxes are named `VAT 19 %`, and those of `sink init` `Web cent 19 %`.
        self._rate = {id_: Decimal(name.split()[-2]).normalize() for id_, name in names.items()}

    def documents(self) -> list[Doc]:
        """All documents with a key of ours."""
        return [*self._sales(), *self._prices(), *self._customers()]

    def sums(self) -> Sums:
        """What each party was sold, less what was given back, and what was invoiced, less credit notes."""
        parties = self._parties()
        sold: dict[str, Decimal] = defaultdict(Decimal)
        undone = self._undone()
        for row in self._screen.rows("sale.sale", [["state", "!=", "cancelled"]], "party", "total_amount"):
            if row["id"] not in undone:
                sold[parties[row["party"]]] += row["total_amount"]
        of_party = {
            row["id"]: parties[row["party"]]
            for row in self._screen.rows("account.invoice", [["state", "!=", "cancelled"]], "party")
        }
        invoiced: dict[str, list[tuple[Decimal, Decimal, Decimal]]] = defaultdict(list)
        for invoice, rate, net, tax in self._taxes():
            if invoice in of_party:
                invoiced[of_party[invoice]].append((rate, net, tax))
        return Sums(sold, {party: summed(some) for party, some in invoiced.items()}, self._goods())

    def _goods(self) -> list[Goods]:
        """Goods on each order's invoices and moves. A move comes in if its line is one of a return."""
        orders = {
            row["id"]: int(row["web_id"].split("/")[2])
            for row in self._screen.rows("sale.sale", [["web_id", "like", f"{self._prefix}/order/%"]], "web_id")
        }
        states = {row["id"]: row["state"] for row in self._screen.rows("account.invoice", [], "state")}
        billed = {
            row["id"]: (states.get(row["invoice"], "draft"), row["quantity"])
            for row in self._screen.rows("account.invoice.line", [], "invoice", "quantity")
        }
        moved = {
            row["id"]: (row["state"], row["quantity"])
            for row in self._screen.rows("stock.move", [], "state", "quantity")
        }
        found: dict[tuple[int, str], Goods] = {}
        names = ("sale", "product.code", "moves", "invoice_lines")
        for line in self._screen.rows("sale.line", [["product.type", "=", "goods"]], *names):
            if (order := orders.get(line["sale"])) is None:
                continue
            key = (order, line["product."]["code"])
            had = found.setdefault(key, Goods(*key))
            bills, moves = [billed[one] for one in line["invoice_lines"]], [moved[one] for one in line["moves"]]
            found[key] = had._replace(
                invoiced=had.invoiced + _pieces(bills), posted=had.posted + _pieces(bills, "posted", "paid"),
                delivered=had.delivered + _pieces(moves), done=had.done + _pieces(moves, "done"),
            )  # fmt: skip
        return [*found.values()]

    def _taxes(self) -> list[tuple[int, Decimal, Decimal, Decimal]]:
        found = self._screen.rows("account.invoice.tax", [], "invoice", "tax", "base", "amount")
        # The cents' tax has the rate of its lines and a base of 0, because they have no price.
        return [(row["invoice"], self._rate[row["tax"]], row["base"], row["amount"]) for row in found]

    def _parties(self) -> dict[int, str]:
        """Our key of each party, or else Tryton's id."""
        found = {row["id"]: f"by hand {row['id']}" for row in self._screen.rows("party.party", [], "id")}
        for party, key in self._keys():
            found[party] = key
        return found

    def _keys(self) -> list[tuple[int, str]]:
        ours = [["code", "like", f"ordertap:{self._prefix}/%"]]
        found = self._screen.rows("party.identifier", ours, "party", "code")
        return [(row["party"], str(row["code"]).split("/")[2]) for row in found]

    def _customers(self) -> list[Doc]:
        return [Doc(("customer", key), 0) for _, key in self._keys()]

    def _undone(self) -> set[int]:
        """Sales that were cancelled in processing: Tryton leaves them as done."""
        states = {row["id"]: row["state"] for row in self._screen.rows("account.invoice", [], "state")}
        moves = {row["id"]: row["state"] for row in self._screen.rows("stock.move", [], "state")}
        of_sale: dict[int, list[str]] = defaultdict(list)
        for line in self._screen.rows("sale.line", [], "sale", "moves"):
            of_sale[line["sale"]] += [moves[one] for one in line["moves"]]
        after = [["state", "in", ["processing", "done"]]]
        for sale in self._screen.rows("sale.sale", after, "invoices", "invoices_ignored"):
            of_sale[sale["id"]] += [states[one] for one in {*sale["invoices"], *sale["invoices_ignored"]}]
        return {sale for sale, some in of_sale.items() if some and set(some) == {"cancelled"}}

    def _sales(self) -> list[Doc]:
        ours = [["web_id", "like", f"{self._prefix}/%"]]
        names = ("web_id", "state", "party", "untaxed_amount", "tax_amount", "origin", "invoices")
        sales = self._screen.rows("sale.sale", ours, *names)
        orders = {row["id"]: int(row["web_id"].split("/")[2]) for row in sales}
        parties, undone = self._parties(), self._undone()
        open_ = {row["id"] for row in self._screen.rows("account.invoice", [["state", "!=", "cancelled"]], "state")}
        taxes: dict[int, list[tuple[Decimal, Decimal, Decimal]]] = defaultdict(list)
        for invoice, *amounts in self._taxes():
            if invoice in open_:
                taxes[invoice].append((amounts[0], amounts[1], amounts[2]))
        items = self._items()
        found = []
        for row in sales:
            key = _key(row["web_id"])
            order = orders[row["id"]] if key[0] == "order" else orders[int(str(row["origin"]).rpartition(",")[2])]
            sign = 1 if key[0] == "order" else -1
            rates = summed(one for invoice in row["invoices"] for one in taxes[invoice])
            found.append(
                Doc(
                    key, order, parties[row["party"]], row["state"] == "cancelled" or row["id"] in undone,
                    sign * row["untaxed_amount"], sign * row["tax_amount"],
                    {rate: (sign * net, sign * tax) for rate, (net, tax) in rates.items()},
                    {sku: sign * quantity for sku, quantity in items.get(row["id"], {}).items()},
                )
            )  # fmt: skip
        return found

    def _items(self) -> dict[int, dict[str, Decimal]]:
        """Quantities of goods, by sale and SKU."""
        goods = [["product.type", "=", "goods"]]
        found = self._screen.rows("sale.line", goods, "sale", "product.code", "quantity")
        return _items((row["sale"], row["product."]["code"], Decimal(str(row["quantity"]))) for row in found)

    def _prices(self) -> list[Doc]:
        found = []
        for row in self._screen.rows("product.price_list.line", [], "formula", "start_date", "end_date"):
            if mark := re.match(rf"([\d.]+) # ({self._prefix}/\S+)#\d+", str(row["formula"])):
                days = (_day(row["start_date"]), _day(row["end_date"]))
                found.append(Doc(_key(mark[2]), 0, net=Decimal(mark[1]), days=days))
        return found


def _pieces(found: Iterable[tuple[str, float]], *states: str) -> Decimal:
    """The sum of those in these states; without any, of all that are not cancelled."""
    some = (number for state, number in found if (state in states if states else state != "cancelled"))
    return sum((Decimal(str(number)) for number in some), _ZERO)


def _day(value: Any) -> date | None:
    """A date as Tryton's JSON has it."""
    return value and date(value["year"], value["month"], value["day"])


def _key(external: str) -> Key:
    """`shop/order/17/1` is the key of order 17."""
    _, kind, key, _ = external.split("/")
    return _OURS[kind], key


def _tax(gross: Decimal, rate: Decimal) -> Decimal:
    return (gross * rate / (100 + rate)).quantize(_CENT, ROUND_HALF_UP)


def _rates(found: Iterable[tuple[Any, ...]]) -> dict[int, Rates]:
    by_id: dict[int, list[tuple[Decimal, Decimal, Decimal]]] = defaultdict(list)
    for id_, rate, net, tax in found:
        by_id[id_].append((rate, net, tax))
    return defaultdict(dict, {id_: summed(some) for id_, some in by_id.items()})


def _items(found: Iterable[tuple[Any, ...]]) -> dict[int, dict[str, Decimal]]:
    by_id: dict[int, dict[str, Decimal]] = defaultdict(dict)
    for id_, sku, quantity in found:
        if quantity:
            by_id[id_][sku] = by_id[id_].get(sku, _ZERO) + quantity
    return by_id
