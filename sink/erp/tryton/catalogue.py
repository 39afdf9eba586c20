"""Tryton's master data that our documents refer to, by Tryton's ids.

What was found is known for at most a minute: people change master data while the sink runs. What was not found is
looked for again at once.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from threading import Lock
from typing import Any, Final, Literal, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

from sink.erp.contract import HoldError, StopError
from sink.erp.kinds import BY_HAND, ErpRef, count
from sink.erp.tryton.rpc import Row, Rpc, WriteCalls
from sink.erp.tryton.settings import TrytonSettings

_K = TypeVar("_K")
_T = TypeVar("_T")
Service = Literal["shipping", "payment", "charge", "discount", "refund", "cent"]
KEY: Final = "ordertap:"
"""Stands before our key of a customer among a party's identifiers."""

INACTIVE_TOO: Final = ("active", "in", [True, False])
"""A clause of a domain. Without it Tryton shows active records only."""
_MOST_MERGES: Final = 10
_A_MINUTE: Final = 60.0
_CENT: Final = Decimal("0.01")
_PERCENT: Final = Decimal(100)
_ADDRESS: Final = ("party", "party_name", "attn", "street", "postal_code", "city", "country")


class ProductUnits(NamedTuple):
    """A product, and the ids of its units: orders are for units of sale, price lists and stock for units of stock."""

    id: int
    sold_by: int
    stocked_by: int


class Measure(NamedTuple):
    """A unit. digits: decimals of a quantity in it. factor: how many of its category's base unit it is."""

    name: str
    digits: int
    factor: Decimal


class Item(NamedTuple):
    """A product, and the unit that it is sold by. digits: decimals of a quantity in that unit."""

    id: int
    unit: int
    digits: int


class Packed(NamedTuple):
    """The units of a product if one unit of sale is more or less than one unit of stock."""

    sold_by: Measure
    stocked_by: Measure


class PartyAddress(NamedTuple):
    """An address in Tryton's fields. Equal addresses of one party are the same address."""

    party_name: str | None
    attn: str | None
    street: str | None
    postal_code: str | None
    city: str | None
    country: int | None


class _Known(NamedTuple):
    """What was found, and when it was asked for, by the monotonic clock."""

    value: Any
    at: float

    def is_older(self, seconds: float) -> bool:
        return time.monotonic() - self.at >= seconds


class EveryMinute:
    """Says at most once a minute that something is to be done anew; at first at once."""

    def __init__(self) -> None:
        self._said = -math.inf

    def is_due(self) -> bool:
        now = time.monotonic()
        if now - self._said < _A_MINUTE:
            return False
        self._said = now
        return True


class MasterData:
    """Looks up master data. Errors say what to do about data that is missing. Threads may share it."""

    def __init__(self, rpc: Rpc, settings: TrytonSettings) -> None:
        self._rpc = rpc
        self._lock = Lock()
        self._known: dict[tuple[str, Any], _Known] = {}
        self.settings = settings
        self.zone: ZoneInfo = settings.zone

    def forget(self) -> None:
        """Makes each look-up ask Tryton again."""
        with self._lock:
            self._known.clear()

    @property
    def web_shop(self) -> int:
        """Id of the web shop of the settings. StopError if it is missing, as in the next three."""
        return int(self._shop()["id"])

    @property
    def company(self) -> int:
        """Id of the company of the web shop; of the company we work in before there is a web shop."""
        found = self._shops()
        return int(found[0]["company"]) if found else self._rpc.company

    @property
    def warehouse(self) -> int:
        """Id of the warehouse of the settings, or else of the web shop's only one."""
        if name := self.settings.warehouse:
            kind = [("type", "=", "warehouse")]
            return self._named("stock.location", name, "warehouse", "erp.warehouse", kind)
        every = self._shop()["warehouses"]
        if len(every) != 1:
            raise StopError(f"Tryton's web shop has {len(every)} warehouses", "name the one to use in erp.warehouse")
        return int(every[0])

    @property
    def payment_term(self) -> int:
        """Id of the payment term of the settings."""
        name = self.settings.payment_term
        return self._named("account.invoice.payment_term", name, "payment term", "erp.payment_term")

    def identity(self) -> str:
        """Names this Tryton's data: no other installation made its web shop at the same moment."""
        shop = self._shop()
        return f"{self.settings.database}/{shop['name']}/{shop['create_date'].isoformat()}"

    @property
    def abandons_drafts(self) -> bool:
        """Whether Tryton cancels drafts of the web shop after a while."""
        return self._shop()["sale_draft_abandon_delay"] is not None

    def demand_rounding_by_line(self) -> None:
        """Asks how Tryton rounds taxes. StopError unless it is line by line, as we calculate them: rounded by document,
        the taxes of two rates may differ from the shop's while their sum does not, and a sale shows the sum alone."""
        names = ["tax_rounding"]
        rounding = self._rpc.call("account.configuration", "read", [1], names)[0]["tax_rounding"]
        if rounding != "line":
            hint = "set Tax Rounding to Per Line in the accounting configuration of the web shop's company"
            raise StopError(f"Tryton rounds taxes by {rounding}, so taxes by rate may differ from the shop's", hint)

    def rates(self) -> list[Decimal]:
        """Tax rates in percent: those of the settings, or else each rate that only one tax for sales has."""
        if self.settings.taxes:
            return sorted(Decimal(rate) for rate in self.settings.taxes)
        every = self._taxes(fresh=True).values()
        rates = [row["rate"] * _PERCENT for row in every if row["type"] == "percentage" and _may_be_sold_with(row)]
        return sorted({rate.normalize() for rate in rates if rates.count(rate) == 1})

    def currency(self, code: str) -> int:
        """Id of a currency by its ISO code. HoldError if it is missing, as in all methods below."""
        return self._coded("currency.currency", code, "currency")

    def minor(self, currency: str) -> Decimal:
        """The smallest amount of a currency, to which Tryton must round."""

        def look() -> Decimal:
            found = self._rpc.among("currency.currency", "code", [currency], ["digits", "rounding"])
            if not found:
                hint = "load it there, then `sink retry`"
                raise HoldError(f"the ERP has no currency {currency}", hint, "master data")
            minor, rounding = Decimal(1).scaleb(-found[0]["digits"]), Decimal(found[0]["rounding"])
            if rounding != minor:
                hint = f"set the currency's Rounding Factor to {minor}, then `sink retry`"
                raise HoldError(f"the ERP rounds {currency} to {rounding.normalize():f}", hint, "master data")
            return minor

        return Decimal(self._found("minor", currency, look))

    def least_price(self) -> Decimal:
        """The smallest step of a line's unit price."""

        def look() -> Decimal:
            digits = self._rpc.call("sale.line", "fields_get", ["unit_price"])["unit_price"]["digits"]
            return Decimal(1).scaleb(-json.loads(digits)[1])  # it comes as "[null, 4]"

        return Decimal(self._found("least price", None, look))

    def country(self, code: str | None) -> int | None:
        """Id of a country by its two-letter ISO code."""
        if not code:
            return None
        for fresh in (False, True):
            for one, known in self.countries(fresh).items():
                if known == code.upper():
                    return one
        raise HoldError(f"the ERP has no country {code}", "load it there", "master data")

    def countries(self, fresh: bool = False) -> Mapping[int, str]:
        """Codes of all countries by id."""

        def look() -> dict[int, str]:
            return {row["id"]: row["code"] for row in self._rpc.search("country.country", [], ["code"])}

        found: Mapping[int, str] = self._found("countries", None, look, fresh)
        return found

    def strangers(self) -> Sequence[int]:
        """Ids of parties that are no customers: the companies in this Tryton, and the web shops' guests."""

        def look() -> list[int]:
            every = [row["party"] for row in self._rpc.search("company.company", [], ["party"])]
            return every + [row["guest_party"] for row in self._rpc.search("web.shop", [], ["guest_party"])]

        return [one for one in self._found("strangers", None, look) if one]

    def tax(self, rate: Decimal) -> int:
        """Id of the active tax for a rate in percent."""
        for fresh in (False, True):
            ids = self._of_rate(rate, self._taxes(fresh))
            if len(ids) == 1:
                return ids[0]
        which = f"{len(ids)} taxes" if ids else "no tax"
        hint = f'name the one to use: erp.taxes, "{count(rate)}": its name' if ids else "make it there"
        raise HoldError(f"the ERP has {which} of {count(rate)} % for sales", hint, "master data")

    def rate_of(self, taxes: Collection[int]) -> Decimal | None:
        """The rate in percent of a line's taxes, which may be inactive by now; None unless it is one tax with a
        percentage."""
        found = self._only_one(taxes)
        return found["rate"] * _PERCENT if found and found["type"] == "percentage" else None

    def cent(self, rate: Decimal) -> int:
        """Id of the tax that adds one cent at a rate: the default tax of that rate's `cent` product."""
        item = self.service("cent", rate).id
        for fresh in (False, True):
            every, taxes = self._taxes(fresh), self._taxes_of(item, fresh)
            if len(taxes) == 1 and (tax := every.get(taxes[0])) and tax["amount"] == _CENT and tax["active"]:
                return taxes[0]
        reason = f"the tax of item {self.settings.item('cent', rate)} is not an active one of 0.01"
        raise HoldError(reason, "give it a fixed tax of 0.01", "master data")

    def is_cent(self, taxes: Collection[int]) -> bool:
        """Whether a line's taxes are the tax of one cent."""
        found = self._only_one(taxes)
        return found is not None and found["amount"] == _CENT

    def products(self, skus: Collection[str]) -> dict[str, ProductUnits]:
        """The SKUs that are codes of salable products, with their products and units."""
        # By the template: Tryton takes twice as long for the same fields of the product.
        names = ["code", "template.sale_uom", "template.default_uom"]

        def look(missing: Collection[str]) -> dict[str, ProductUnits]:
            rows = self._rpc.among("product.product", "code", missing, names, ("salable", "=", True))
            return {row["code"]: _product(row) for row in rows}

        return self._each("product", skus, look)

    def items(self, skus: Collection[str]) -> dict[str, Item]:
        """The same, with what an order's line needs of the unit of sale."""
        found = self.products(skus)
        units = self._units({one.sold_by for one in found.values()})
        return {sku: Item(one.id, one.sold_by, units[one.sold_by].digits) for sku, one in found.items()}

    def packed(self, skus: Collection[str]) -> dict[str, Packed]:
        """The SKUs whose unit of sale is more or less than their unit of stock: a bag of 25 kg, and a kg."""
        differ = {sku: one for sku, one in self.products(skus).items() if one.sold_by != one.stocked_by}
        units = self._units({unit for one in differ.values() for unit in (one.sold_by, one.stocked_by)})
        found = {sku: Packed(units[one.sold_by], units[one.stocked_by]) for sku, one in differ.items()}
        return {sku: one for sku, one in found.items() if one.sold_by.factor != one.stocked_by.factor}

    def salable(self, skus: Collection[str]) -> set[str]:
        """The SKUs that are salable now, or were a minute ago."""
        return {*self.products(skus)}

    def priced(self, sku: str) -> int:
        """Id of the salable product of a SKU, for a price list. HoldError if the list's price is for another unit than
        the shop's, which is for what the shop sells."""
        product = self._product(sku)
        if product.sold_by == product.stocked_by:
            return product.id
        sold_by, stocked_by = self._unit(product.sold_by), self._unit(product.stocked_by)
        if sold_by.factor != stocked_by.factor:
            hint = f"enter it there by hand, or let the product be sold by {stocked_by.name}; then `sink retry`"
            message = f"the shop's price is for one {sold_by.name}, the ERP's price lists are for one {stocked_by.name}"
            raise HoldError(message, hint, "master data")
        return product.id

    def item(self, sku: str) -> Item:
        """The salable product of a SKU, with its unit of sale."""
        product = self._product(sku)
        return Item(product.id, product.sold_by, self._unit(product.sold_by).digits)

    def service(self, kind: str, rate: Decimal) -> Item:
        """The service product for a charge ("shipping", "payment", or any other word), or for "discount", "refund" or
        "cent", at a rate in percent."""
        return self.item(self.settings.item(kind, rate))

    def price_list(self, name: str) -> int:
        """Id of the price list that the shop calls by this name."""
        theirs = self.settings.price_lists.get(name, name)
        try:
            company = [("company", "=", self.company)]
            return self._named("product.price_list", theirs, "price list", "erp.price_lists", company)
        except StopError as error:
            raise HoldError(error.message, error.hint, "master data") from None

    def day(self, when: datetime) -> date:
        """The day in the shop's time zone."""
        return when.astimezone(self.zone).date()

    def midnight(self, day: date) -> datetime:
        """When a day begins in the shop's time zone."""
        return datetime(day.year, day.month, day.day, tzinfo=self.zone)

    def day_after(self, day: date) -> datetime:
        """When the next day begins in the shop's time zone."""
        return self.midnight(day + timedelta(days=1))

    def accounts(self, refs: Collection[ErpRef]) -> dict[ErpRef, int]:
        """Ids of parties by our keys, and by `hand:` and their id. A merged party's name leads to the one that is left.
        Missing ones are left out."""
        by_key = {f"{KEY}{ref.external}": ref for ref in refs if not ref.external.startswith(BY_HAND)}
        rows = self._rpc.among("party.identifier", "code", by_key, ["code", "party", "active"], INACTIVE_TOO)
        found = {by_key[row["code"]]: int(row["party"]) for row in active_last(rows)}
        hand = {ref: int(ref.external[len(BY_HAND) :]) for ref in refs if _is_by_hand(ref)}
        left = self._left_of({*hand.values()})
        return found | {ref: left[one] for ref, one in hand.items() if one in left}

    def _left_of(self, parties: Collection[int]) -> dict[int, int]:
        """By party: the active one that it was merged into, or itself. Tryton follows no chain of merges."""
        at = {one: one for one in parties}
        for _ in range(_MOST_MERGES):
            names = ["active", "replaced_by"]
            rows = {row["id"]: row for row in self._rpc.among("party.party", "id", at.values(), names, INACTIVE_TOO)}
            to = {one: row["id"] if row["active"] else row["replaced_by"] for one, row in rows.items()}
            before, at = at, {one: to[place] for one, place in at.items() if to.get(place)}
            if at == before:
                break
        return at

    def addresses(
        self, wanted: Collection[tuple[int, PartyAddress]], calls: WriteCalls
    ) -> dict[tuple[int, PartyAddress], int]:
        """Ids of these addresses of parties. An equal address is used again; the others are made. Asks only for
        addresses with these names and postcodes: a collective account has one for each order."""
        alike = [
            (name, "in", _texts(getattr(one, name) for _, one in wanted)) for name in ("party_name", "postal_code")
        ]
        rows = self._rpc.among("party.address", "party", {party for party, _ in wanted}, _ADDRESS, *alike)
        found: dict[tuple[int, PartyAddress], int] = {}
        for row in rows:
            found.setdefault((row["party"], address_in(row)), row["id"])
        fresh = [one for one in dict.fromkeys(wanted) if one not in found]
        if fresh:
            values = [{"party": party} | address._asdict() for party, address in fresh]
            found |= zip(fresh, calls.call("party.address", "create", values), strict=True)
        return {one: found[one] for one in wanted}

    def _product(self, sku: str) -> ProductUnits:
        found: ProductUnits = self._found("product", sku, lambda: _of(sku, self.products([sku])))
        return found

    def _unit(self, one: int) -> Measure:
        found: Measure = self._found("unit", one, lambda: self._units([one])[one])
        return found

    def _units(self, ids: Collection[int]) -> dict[int, Measure]:
        def look(missing: Collection[int]) -> dict[int, Measure]:
            rows = self._rpc.among("product.uom", "id", missing, ["name", "digits", "factor"], INACTIVE_TOO)
            return {row["id"]: Measure(row["name"], int(row["digits"]), Decimal(row["factor"])) for row in rows}

        return self._each("unit", ids, look)

    def _of_rate(self, rate: Decimal, taxes: Mapping[int, Row]) -> list[int]:
        """Ids of the taxes that new lines of a rate in percent may have."""
        named = self.settings.tax_name(rate)
        return [
            one
            for one, row in taxes.items()
            if _may_be_sold_with(row) and row["rate"] is not None and row["rate"] * _PERCENT == rate
            if (row["name"] == named if named else row["type"] == "percentage")
        ]

    def _only_one(self, taxes: Collection[int]) -> Row | None:
        """The row of a line's tax; None unless there is just one."""
        if len(taxes) != 1:
            return None
        (one,) = taxes
        return self._taxes().get(one) or self._taxes(fresh=True).get(one)

    def _taxes(self, fresh: bool = False) -> Mapping[int, Row]:
        """All taxes of the company by id, inactive ones too: old lines have them."""
        names = ["name", "type", "rate", "amount", "active", "parent", "group.kind"]

        def look() -> dict[int, Row]:
            rows = self._rpc.search("account.tax", [("company", "=", self.company), INACTIVE_TOO], names)
            return {row["id"]: row for row in rows}

        found: Mapping[int, Row] = self._found("taxes", None, look, fresh)
        return found

    def _taxes_of(self, product: int, fresh: bool) -> list[int]:
        """Ids of the taxes that a product has by default."""

        def look() -> list[int]:
            names = ["account_category.customer_taxes_used"]
            rows = self._rpc.call("product.product", "read", [product], names)
            return [*(rows[0]["account_category."] or {}).get("customer_taxes_used", ())]

        found: list[int] = self._found("taxes of", product, look, fresh)
        return found

    def _shop(self) -> Row:
        return _one(self._shops(), f"web shop {self.settings.web_shop!r}", "erp.web_shop", made=True)

    def _shops(self) -> Sequence[Row]:
        def look() -> list[dict[str, Any]]:
            names = ["name", "company", "warehouses", "guest_party", "create_date", "sale_draft_abandon_delay"]
            return self._rpc.search("web.shop", [("name", "=", self.settings.web_shop)], names)

        found: Sequence[Row] = self._found("shop", None, look) or self._found("shop", None, look, fresh=True)
        return found

    def _named(self, model: str, name: str, what: str, setting: str, more: Sequence[Any] = ()) -> int:
        def look() -> int:
            rows = self._rpc.search(model, [("name", "=", name), *more], ["name"])
            return int(_one(rows, f"{what} {name!r}", setting, made=what != "warehouse")["id"])

        return int(self._found(model, name, look))

    def _coded(self, model: str, code: str, what: str) -> int:
        def look() -> int:
            rows = self._rpc.search(model, [("code", "=", code)], ["code"])
            if not rows:
                raise HoldError(f"the ERP has no {what} {code}", "load it there", "master data")
            return int(rows[0]["id"])

        return int(self._found(model, code, look))

    def _found(self, what: str, key: Any, look: Callable[[], Any], fresh: bool = False) -> Any:
        """The known value, or else what `look` finds. Two threads may look at once and find the same."""
        with self._lock:
            known = self._known.get((what, key))
        if known and not (fresh or known.is_older(_A_MINUTE)):
            return known.value
        at = time.monotonic()
        found = look()
        with self._lock:
            self._known[what, key] = _Known(found, at)
        return found

    def _each(self, what: str, keys: Collection[_K], look: Callable[[Collection[_K]], Mapping[_K, _T]]) -> dict[_K, _T]:
        """The same for several keys at once. Those that `look` does not find are left out. It looks after half a
        minute, so that a batch does not look for its keys one by one when their minute is over."""
        with self._lock:
            known = {key: self._known[what, key] for key in keys if (what, key) in self._known}
        found: dict[_K, _T] = {key: one.value for key, one in known.items() if not one.is_older(_A_MINUTE / 2)}
        missing = [key for key in keys if key not in found]
        at = time.monotonic()
        fresh = look(missing) if missing else {}
        with self._lock:
            for key in missing:
                self._known.pop((what, key), None)
            self._known |= {(what, key): _Known(one, at) for key, one in fresh.items()}
        return {**found, **fresh}


def _may_be_sold_with(tax: Row) -> bool:
    """Whether a new line of a sale may have the tax."""
    return tax["active"] and tax["parent"] is None and (tax["group."] or {}).get("kind") != "purchase"


def _of(sku: str, found: Mapping[str, _T]) -> _T:
    if sku not in found:
        raise HoldError(f"the ERP has no item {sku}", "make it there, or make it salable", "master data")
    return found[sku]


def _product(row: Row) -> ProductUnits:
    of = row["template."]
    return ProductUnits(row["id"], of["sale_uom"] or of["default_uom"], of["default_uom"])


def key_of(identifiers: Iterable[Row]) -> str:
    """Our key among the active identifiers of a party, the oldest if there are several; "" where it has none."""
    ours = [row for row in identifiers if str(row["code"]).startswith(KEY)]
    return str(min(ours, key=lambda row: row["id"])["code"]).removeprefix(KEY) if ours else ""


def active_last(rows: Iterable[Row]) -> list[Row]:
    """Rows in an order in which the last one with a key counts."""
    return sorted(rows, key=lambda row: bool(row["active"]))


def address_in(row: Row) -> PartyAddress:
    """The address in a row of `party.address`."""
    return PartyAddress(*(row[name] or None for name in PartyAddress._fields))


def _texts(values: Iterable[str | None]) -> list[str | None]:
    """The values to look for: an empty field may be "" or None."""
    found = {*values}
    return sorted(one for one in found if one) + (["", None] if None in found else [])


def _is_by_hand(ref: ErpRef) -> bool:
    return ref.external.startswith(BY_HAND) and ref.external[len(BY_HAND) :].isdigit()


def _one(rows: Sequence[Row], what: str, setting: str, made: bool) -> Row:
    """The only row; StopError if there are none or several. made: whether `sink init` can make it."""
    if len(rows) != 1:
        how = "no" if not rows else f"{len(rows)} times the"
        where = "let `sink init` make it" if made else "make it there"
        raise StopError(f"Tryton has {how} {what}", f"correct {setting}, or {where}; and allow erp.user to read it")
    return rows[0]
