"""A script that somebody might write to bring orders and prices into Tryton: JSON-RPC in batches, with nothing of ours.

It keeps the sink's promises, because a script that forgets half of them is no yardstick: it looks what is there, makes
buyers, drafts and cents, reads each back and compares it, presses each button with the stamps that it has read, and
reads again.
"""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Iterator, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

from tests.benchmarks.erp_sink import BenchOrder

_CENT, _PRICE = Decimal("0.01"), Decimal("0.0001")
_LINE: Final = ("product", "quantity", "unit_price", "amount", "taxes", "note", "description", "_timestamp")
_SALE: Final = (
    "web_id", "number", "reference", "comment", "state", "party", "untaxed_amount", "tax_amount", "total_amount",
    "sale_date", "invoice_address", "shipment_address", "invoice_state", "shipment_state", "_timestamp",
    *(f"lines.{name}" for name in _LINE),
)  # fmt: skip
_BUTTONS: Final = (("quote", "quotation"), ("confirm", "confirmed"), ("process", "processing"))
_PRICE_LINE: Final = ("product", "price_list", "formula", "quantity", "_timestamp")


class Script:
    """One log-in, one connection. `tag`: the beginning of its keys."""

    def __init__(self, port: int, database: str, user: str, password: str, tag: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self._path, self._session, self._tag = f"/{database}/rpc/", "", tag
        self._context: dict[str, Any] = {}
        number, token, *_ = self._send("common.db.login", user, {"password": password})
        self._session = "Session " + base64.b64encode(f"{user}:{number}:{token}".encode()).decode()
        preferences = self("res.user", "get_preferences", True)
        self._context = {"company": preferences["company"]}
        self._look_up()

    def _look_up(self) -> None:
        """Looks up what all orders need, once."""
        (shop, *_) = self._rows("web.shop", [], "warehouses")
        (term, *_) = self._rows("account.invoice.payment_term", [["name", "=", "Direct"]], "id")
        (currency, *_) = self._rows("currency.currency", [["code", "=", "EUR"]], "id")
        self._head = {
            "web_shop": shop["id"], "warehouse": shop["warehouses"][0], "payment_term": term["id"],
            "currency": currency["id"], "invoice_method": "order", "shipment_method": "order",
        }  # fmt: skip
        self._country = {row["code"]: row["id"] for row in self._rows("country.country", [], "code")}
        items = self._rows("product.product", [], "code", "default_uom")
        self._item = {row["code"]: (row["id"], row["default_uom"]) for row in items}
        self._tax = {row["name"]: row["id"] for row in self._rows("account.tax", [], "name")}
        (self._list, *_) = self._rows("product.price_list", [["name", "=", "retail"]], "id")

    def __call__(self, model: str, method: str, *args: Any, **context: Any) -> Any:
        return self._send(f"model.{model}.{method}", *args, {**self._context, **context})

    def orders(self, orders: Sequence[BenchOrder], batch: int) -> None:
        """Brings all orders to `processing`."""
        for some in _parts(orders, batch):
            self._batch(some)

    def _batch(self, orders: Sequence[BenchOrder]) -> None:
        parties = self._parties(orders)
        keys = [f"{self._tag}/{order.number}" for order in orders]
        if self._rows("sale.sale", [["web_id", "in", keys]], "web_id"):
            raise ValueError("some are there already")
        self("sale.sale", "create", [self._sale(order, parties[order.buyer]) for order in orders])
        rows = self._rows("sale.sale", [["web_id", "in", keys]], *_SALE)
        wanted = {f"{self._tag}/{order.number}": order for order in orders}
        for row in rows:
            order = wanted[row["web_id"]]
            has = (row["untaxed_amount"], row["tax_amount"], len([x for x in row["lines."] if not _is_cent(x)]))
            if has != (order.net, order.tax, len(order.lines)):
                raise ValueError(f"{row['web_id']}: Tryton keeps {has}")
        for button, state in _BUTTONS:
            stamps = {f"sale.sale,{row['id']}": row["_timestamp"] for row in rows}
            stamps |= {f"sale.line,{line['id']}": line["_timestamp"] for row in rows for line in row["lines."]}
            self("sale.sale", button, [row["id"] for row in rows], _timestamp=stamps)
            sums = {row["id"]: (row["untaxed_amount"], row["tax_amount"]) for row in rows}
            rows = self._rows("sale.sale", [["web_id", "in", keys]], *_SALE)
            if {row["id"]: (row["untaxed_amount"], row["tax_amount"]) for row in rows} != sums:
                raise ValueError("somebody changed one meanwhile")
            if any(row["state"] not in (state, "processing") for row in rows):
                raise ValueError(f"one is not {state}")
            if all(row["state"] == "processing" for row in rows):
                break

    def _parties(self, orders: Sequence[BenchOrder]) -> dict[str, dict[str, Any]]:
        codes = [f"{self._tag}:{order.buyer}" for order in orders]
        if self._rows("party.identifier", [["code", "in", codes]], "code"):
            raise ValueError("some buyers are there already")
        self("party.party", "create", [self._party(order) for order in orders])
        names = ("code", "name", "addresses", "identifiers.code", "contact_mechanisms.value", "_timestamp")
        found = self._rows("party.party", [["identifiers.code", "in", codes]], *names)
        if len(found) != len(orders):
            raise ValueError("a buyer is missing")
        return {row["identifiers."][0]["code"].partition(":")[2]: row for row in found}

    def _party(self, order: BenchOrder) -> dict[str, Any]:
        country = self._country[order.country]
        address = {"party_name": order.name, "street": order.street, "postal_code": order.postcode, "city": order.city}
        return {
            "name": order.name, "code": f"{self._tag}-{order.buyer}",
            "addresses": [["create", [{**address, "country": country}]]],
            "contact_mechanisms": [["create", [{"type": "email", "value": order.email}]]],
            "identifiers": [["create", [{"code": f"{self._tag}:{order.buyer}"}]]],
        }  # fmt: skip

    def _sale(self, order: BenchOrder, party: dict[str, Any]) -> dict[str, Any]:
        lines, more = [], dict[Decimal, Decimal]()
        for key, sku, name, quantity, rate, net, tax in order.lines:
            item, unit = self._item[sku]
            price = (net / quantity).quantize(_PRICE)
            line = {
                "product": item, "unit": unit, "quantity": float(quantity), "unit_price": price, "base_price": price,
                "description": name, "taxes": [["add", [self._tax[f"VAT {rate.normalize():f} %"]]]],
                "note": json.dumps({"key": key, "net": str(net), "tax": str(tax)}),
            }  # fmt: skip
            lines.append(line)
            theirs = (price * quantity * rate / 100).quantize(_CENT, ROUND_HALF_UP)
            more[rate] = more.get(rate, Decimal(0)) + tax - theirs
        for rate, cents in more.items():
            if cents:
                item, unit = self._item[f"CENT-{rate.normalize():f}"]
                line = {
                    "product": item, "unit": unit, "quantity": float(cents / _CENT), "unit_price": Decimal(0),
                    "taxes": [["add", [self._tax[f"Cent {rate.normalize():f} %"]]]], "note": "cents",
                }  # fmt: skip
                lines.append(line)
        address = party["addresses"][0]
        paid = json.dumps({"paid": str(order.net + order.tax), "placed_at": order.placed_at.isoformat()})
        day = {"__class__": "date", "year": order.placed_at.year, "month": order.placed_at.month}
        return self._head | {
            "party": party["id"], "invoice_address": address, "shipment_address": address, "reference": order.shown,
            "web_id": f"{self._tag}/{order.number}", "comment": paid, "sale_date": {**day, "day": order.placed_at.day},
            "lines": [["create", lines]],
        }  # fmt: skip

    def prices(self, prices: Sequence[tuple[str, Decimal]], batch: int) -> None:
        """Makes prices, or changes those that exist. Looks up their items first, as a new process of the sink does."""
        skus = [sku for sku, _ in prices]
        rows = self._rows("product.product", [["code", "in", skus], ["salable", "=", True]], "code")
        item = {row["code"]: row["id"] for row in rows}
        for some in _parts(prices, batch):
            ids = {item[sku]: amount for sku, amount in some}
            ours = [["price_list", "=", self._list["id"]], ["product", "in", [*ids]]]
            there = {row["product"]: row for row in self._rows("product.price_list.line", ours, *_PRICE_LINE)}
            new = [
                {"price_list": self._list["id"], "product": item, "formula": self._formula(amount), "quantity": 1.0}
                for item, amount in ids.items()
                if item not in there
            ]
            if new:
                self("product.price_list.line", "create", new)
            if there:
                pairs = [part for i, row in there.items() for part in ([row["id"]], {"formula": self._formula(ids[i])})]
                stamps = {f"product.price_list.line,{row['id']}": row["_timestamp"] for row in there.values()}
                self("product.price_list.line", "write", *pairs, _timestamp=stamps)
            now = self._rows("product.price_list.line", ours, *_PRICE_LINE)
            kept = {row["product"]: row["formula"] for row in now}
            if kept != {item: self._formula(amount) for item, amount in ids.items()}:
                raise ValueError("a price is not kept")

    def _formula(self, amount: Decimal) -> str:
        return f"{amount} # {self._tag}"

    def _rows(self, model: str, domain: list[Any], *names: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self(model, "search_read", domain, 0, None, [["id", "ASC"]], [*names])
        return found

    def _send(self, method: str, *params: Any) -> Any:
        body = json.dumps({"id": 1, "method": method, "params": params}, default=_encoded)
        headers = {"Content-Type": "application/json"} | ({"Authorization": self._session} if self._session else {})
        try:
            self._connection.request("POST", self._path, body, headers)
            answer = json.loads(self._connection.getresponse().read(), object_hook=_decoded)
        except (http.client.RemoteDisconnected, ConnectionError):  # it was idle too long, and nothing was sent
            self._connection.close()
            self._connection.request("POST", self._path, body, headers)
            answer = json.loads(self._connection.getresponse().read(), object_hook=_decoded)
        if "error" in answer:
            raise ValueError(f"{method}: {answer['error'][:2]}")
        return answer["result"]


def _is_cent(line: dict[str, Any]) -> bool:
    return bool(line["note"] == "cents")


def _parts(every: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for first in range(0, len(every), size):
        yield every[first : first + size]


def _encoded(value: object) -> object:
    return {"__class__": "Decimal", "decimal": str(value)}


def _decoded(value: dict[str, Any]) -> Any:
    return Decimal(value["decimal"]) if value.get("__class__") == "Decimal" else value
