"""What a Tryton must have before the first order comes: what it lacks, and how each of these things is made.

It only adds. People decide about what exists already, and about how the company calculates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import timedelta
from decimal import Decimal
from functools import cached_property, partial
from typing import Any, Final

from sink.erp.contract import HoldError, Lack, LogIn, Sells, StopError
from sink.erp.kinds import count
from sink.erp.tryton.catalogue import INACTIVE_TOO, MasterData
from sink.erp.tryton.rpc import Row, Rpc, WriteCalls, now
from sink.erp.tryton.settings import TrytonSettings

MADE_BY: Final = "`sink init` makes it"
_CHARGED: Final = ("shipping", "payment", "charge", "discount", "refund")
_CENT: Final = Decimal("0.01")
_NAMED: Final = 20
_NO_LIST: Final = "Tryton has no price list {!r}: its prices are held"
_AT_MOST: Final = timedelta(minutes=5)


class TrytonSetup:
    """The setup for one shop. It may use another log-in than the sink's, such as an administrator's, but works in the
    company of the sink's user."""

    def __init__(self, settings: TrytonSettings, sells: Sells, other: LogIn | None = None) -> None:
        if other:
            company = settings.company or _company_of(settings)
            log_in = {"user": other.user, "password": other.password, "company": company}
            settings = settings.model_copy(update=log_in)
        self._rpc = _rpc(settings)
        self._needs = Needs(self._rpc, MasterData(self._rpc, settings), sells)

    def lacks(self) -> Sequence[Lack]:
        """What is missing. What other things refer to comes first."""
        return [*self._needs.lacks()]

    def close(self) -> None:
        """Logs out."""
        self._rpc.close()


def _rpc(settings: TrytonSettings) -> Rpc:
    password = settings.password.get_secret_value()
    return Rpc(settings.url, settings.database, settings.user, password, settings.company, settings.timeout_seconds, 1)


def _company_of(settings: TrytonSettings) -> str:
    """The name of the company that the sink's user works in."""
    with closing(_rpc(settings)) as rpc:
        (row,) = rpc.call("company.company", "read", [rpc.company], ["party.name"])
        return str(row["party."]["name"])


def _named(told: Mapping[str, str]) -> str:
    """The first of them by SKU, and how many more there are."""
    more = f" and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
    return ", ".join(told[sku] for sku in sorted(told)[:_NAMED]) + more


def _with(taxes: bool) -> str:
    return "with" if taxes else "without"


class Needs:
    """What a shop's documents refer to, by the settings and by what the shop sells."""

    def __init__(self, rpc: Rpc, master: MasterData, sells: Sells) -> None:
        self._rpc = rpc
        self._master = master
        self._settings = master.settings
        self._sells = sells
        self._make = Maker(rpc, master)

    def lacks(self) -> Iterator[Lack]:
        """What is missing now."""
        self._master.forget()
        yield from self._for_every_order()
        yield from self._price_lists()
        yield from self._units()
        taken: set[str] = set()
        for rate in sorted({rate.normalize() for rate in (*self._master.rates(), *self._sells.rates)}):
            yield from self._of_a_rate(rate, taken)

    def _for_every_order(self) -> Iterator[Lack]:
        settings = self._settings
        if not self._rpc.search("web.shop", [("name", "=", settings.web_shop)], ["name"]):
            yield self._web_shop()
        term = [("name", "=", settings.payment_term)]
        if not self._rpc.search("account.invoice.payment_term", term, ["name"]):
            message = f"Tryton has no payment term {settings.payment_term!r}"
            yield Lack(message, f"{MADE_BY}: all is due at once", self._make.payment_term)
        allowed = self._rpc.call("party.configuration", "read", [1], ["identifier_types"])[0]["identifier_types"]
        if allowed and settings.tax_identifier and settings.tax_identifier not in allowed:
            message = f"Tryton's parties may have no identifier {settings.tax_identifier}: tax numbers get no type"
            yield Lack(message, "`sink init` allows it", partial(self._make.identifier_type, allowed))
        if not self._master.countries(fresh=True):
            hint = "`trytond_import_countries -c trytond.conf -d DATABASE`, on Tryton's server"
            yield Lack("Tryton has no countries: orders with an address are held", hint)

    def _web_shop(self) -> Lack:
        name, named = self._settings.web_shop, self._settings.warehouse
        domain = [("type", "=", "warehouse"), *([("name", "=", named)] if named else [])]
        found = self._rpc.search("stock.location", domain, ["name"])
        message = f"Tryton has no web shop {name!r}"
        if len(found) != 1:
            which = f"{len(found)} warehouses" + (f" {named!r}" if named else "")
            return Lack(f"{message}, and has {which}", "name in erp.warehouse the one that it sells from")
        return Lack(message, f"{MADE_BY}, selling from {found[0]['name']}", partial(self._make.web_shop, found[0]))

    def _price_lists(self) -> Iterator[Lack]:
        lists, sold = self._settings.price_lists, self._sells.price_lists
        for ours in dict.fromkeys((*lists, *sold)):
            name = lists.get(ours, ours)
            domain = [("name", "=", name), ("company", "=", self._master.company)]
            found = self._rpc.search("product.price_list", domain, ["name", "tax_included"])
            if len(found) > 1:
                yield Lack(f"Tryton has {len(found)} price lists {name!r}: their prices are held", "rename all but one")
            elif not found and ours not in sold:
                hint = "let `sink run` read from the shop whether its prices include tax; then `sink init` makes it"
                yield Lack(_NO_LIST.format(name), hint)
            elif not found:
                how = f"{MADE_BY}, {_with(sold[ours])} taxes in its prices"
                yield Lack(_NO_LIST.format(name), how, partial(self._make.price_list, name, sold[ours]))
            elif ours in sold and bool(found[0]["tax_included"]) is not sold[ours]:
                theirs = f"the prices of Tryton's price list {name!r} are {_with(not sold[ours])} taxes"
                hint = "set the list's Tax Included in Tryton, or name another list in erp.price_lists"
                yield Lack(f"{theirs}, the shop's {_with(sold[ours])}: they are held", hint)

    def _units(self) -> Iterator[Lack]:
        """What the shop's quantities and prices may not mean in Tryton."""
        packed = self._master.packed(self._sells.skus)
        units = {sku: f"{sku} (by {one.sold_by.name}, not {one.stocked_by.name})" for sku, one in packed.items()}
        if units:
            message = f"Tryton sells {len(units)} of the shop's SKUs by another unit than it stocks: {_named(units)}"
            hint = "orders are booked by the unit of sale, and prices are held, as price lists are by that of stock;"
            yield Lack(message, f"{hint} if the shop means the unit of stock, make it the product's Sale UOM")
        items = self._master.items(self._sells.decimals)
        parts = {
            sku: f"{sku} (decimals: {decimals}, in Tryton {items[sku].digits})"
            for sku, decimals in self._sells.decimals.items()
            if sku in items and decimals > items[sku].digits
        }
        if parts:
            message = f"the shop sells parts of a unit that Tryton does not divide: {_named(parts)}: they are held"
            yield Lack(message, "give the products a Sale UOM with more digits")

    def _of_a_rate(self, rate: Decimal, taken: set[str]) -> Iterator[Lack]:
        """A rate's tax, and the products with that tax. taken: codes that another rate already uses."""
        try:
            tax = self._master.tax(rate)
        except HoldError as error:
            yield Lack(error.message, error.hint)
            return
        kinds = (*_CHARGED, "cent") if self._settings.rounding == "line" else _CHARGED
        codes = {self._settings.item(kind, rate): kind for kind in kinds}
        missing = {*codes} - taken - self._master.salable(codes)
        closed = self._rpc.among("product.product", "code", missing, ["code"], INACTIVE_TOO)
        for code in sorted(missing):
            there = any(row["code"] == code for row in closed)
            yield self._item(code, codes[code], rate, tax, there)
        taken.update(codes)
        if "cent" in kinds and self._settings.item("cent", rate) not in missing:
            yield from self._wrong_cent(rate)

    def _item(self, code: str, kind: str, rate: Decimal, tax: int, there: bool) -> Lack:
        """there: the product exists and is not salable. People decide about it, since somebody had a reason."""
        message = f"Tryton has no item {code}: a {kind} at {count(rate)} % is held"
        what, make = f"a service with the tax of {count(rate)} %", partial(self._make.item, code, rate, tax)
        if kind == "cent":
            message = f"Tryton has no item {code}: a cent of tax at {count(rate)} % cannot be added"
            what, make = "a service with a fixed tax of 0.01", partial(self._make.cent, code, rate, tax)
        if there:
            return Lack(message, "it is there: make it active and salable")
        if self._make.revenue_account is None:
            hint = "set the default revenue account in Tryton's accounting configuration; then `sink init` makes it"
            return Lack(message, hint)
        return Lack(message, f"{MADE_BY}: {what}", make)

    def _wrong_cent(self, rate: Decimal) -> Iterator[Lack]:
        try:
            self._master.cent(rate)
        except HoldError as error:
            yield Lack(f"a cent of tax at {count(rate)} % cannot be added: {error.message}", error.hint)


class Maker:
    """Makes one thing at a time, each by calls of its own."""

    def __init__(self, rpc: Rpc, master: MasterData) -> None:
        self._rpc = rpc
        self._settings = master.settings
        self._categories: dict[str, int] = {}

    @cached_property
    def revenue_account(self) -> int | None:
        """Id of the default revenue account; None if none is set."""
        name = "default_category_account_revenue"
        found: int | None = self._rpc.call("account.configuration", "read", [1], [name])[0][name]
        return found

    @cached_property
    def _unit(self) -> int:
        """Id of the unit "piece"."""
        return int(self._rpc.call("ir.model.data", "get_id", "product", "uom_unit"))

    def web_shop(self, warehouse: Row) -> None:
        """Makes the web shop, with the guest party that Tryton requires. No order is booked to it."""
        name = self._settings.web_shop
        guest = self._one("party.party", {"name": f"Guest of {name}"})
        self._one("web.shop", {"name": name, "guest_party": guest, "warehouses": [["add", [warehouse["id"]]]]})

    def payment_term(self) -> None:
        """Makes a payment term: everything is due at once."""
        line = {"type": "remainder"}
        self._one("account.invoice.payment_term", {"name": self._settings.payment_term, "lines": [["create", [line]]]})

    def identifier_type(self, allowed: Sequence[str]) -> None:
        """Allows one more type of identifier."""
        types = [*allowed, self._settings.tax_identifier]
        self._write("party.configuration", "write", [1], {"identifier_types": types})

    def price_list(self, name: str, tax_included: bool) -> None:
        """Makes an empty price list: a product without a line in it sells at its own price."""
        self._one("product.price_list", {"name": name, "tax_included": tax_included, "price": "list_price"})

    def item(self, code: str, rate: Decimal, tax: int) -> None:
        """Makes a service product with the tax of a rate."""
        self._product(code, f"{self._settings.web_shop} {count(rate)} %", tax)

    def cent(self, code: str, rate: Decimal, tax: int) -> None:
        """Makes a service product whose tax is one cent, on the same accounts and tax return boxes as the rate's own
        tax."""
        name = f"{self._settings.web_shop} cent {count(rate)} %"
        domain = [("name", "=", name), ("type", "=", "fixed"), ("company", "=", self._rpc.company)]
        rows = self._rpc.search("account.tax", domain, ["name"])
        cent = int(rows[0]["id"]) if rows else self._cent_tax(name, tax)
        if not self._boxes(cent):  # of a tax that is there, too: the call that was to make them may have been lost
            self._copy_boxes(tax, cent)
        self._product(code, name, cent)

    def _cent_tax(self, name: str, tax: int) -> int:
        made = {"name": name, "description": name, "type": "fixed", "rate": None, "amount": _CENT, "template": None}
        (cent,) = self._write("account.tax", "copy", [tax], made)
        return int(cent)

    def _boxes(self, tax: int) -> list[int]:
        """The lines of the tax return that a tax adds to."""
        domain = [("tax", "=", tax), ("amount", "=", "tax")]
        return [row["id"] for row in self._rpc.search("account.tax.code.line", domain, ["code"])]

    def _copy_boxes(self, tax: int, cent: int) -> None:
        if boxes := self._boxes(tax):
            self._write("account.tax.code.line", "copy", boxes, {"tax": cent, "template": None})

    def _product(self, code: str, name: str, tax: int) -> None:
        self._one(
            "product.template",
            {
                "name": code, "code": code, "type": "service", "default_uom": self._unit, "sale_uom": self._unit,
                "salable": True,
                "list_price": Decimal(0), "account_category": self._category(name, tax),
                "products": [["create", [{}]]],
            },
        )  # fmt: skip

    def _category(self, name: str, tax: int) -> int:
        """Id of the category that gives products their tax and account: one for each rate."""
        if name not in self._categories:
            domain = [("name", "=", name), ("accounting", "=", True)]
            rows = self._rpc.search("product.category", domain, ["name"])
            values = {"name": name, "accounting": True, "account_revenue": self.revenue_account}
            taxed = values | {"customer_taxes": [["add", [tax]]]}
            self._categories[name] = int(rows[0]["id"]) if rows else self._one("product.category", taxed)
        return self._categories[name]

    def _one(self, model: str, values: Mapping[str, Any]) -> int:
        (made,) = self._write(model, "create", [values])
        return int(made)

    def _write(self, model: str, method: str, *args: Any) -> Any:
        try:
            return WriteCalls(self._rpc, now() + _AT_MOST).call(model, method, *args)
        except HoldError as error:
            hint = "give a user that may: `sink init --user NAME --password-file FILE`, or make it in Tryton"
            raise StopError(error.message, hint) from None
