"""Compares what shop and ERP have after all histories. Pure, and knows nothing of the sink.

If a document differs, it must be held, or the clerk must have changed it. A hold must be explained by something in its
order's history: an act of the clerk, or a change in the shop that the ERP can no longer take. Even such a document has
only amounts that shop or clerk have given it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Final, Literal, NamedTuple

from tests.faults.histories_plan import Book, Figures
from tests.proof.rules import Finding

Kind = Literal["customer", "order", "return", "refund", "price", "temporary price"]
Key = tuple[Kind, str]
Amounts = tuple[Decimal, Decimal]
"""Net and tax."""
Rates = Mapping[Decimal, Amounts]
"""Rate in percent → net and tax."""
Days = tuple[date | None, date | None]
"""First and last day of a price; None: open."""

_ZERO: Final = Decimal(0)
_CENT: Final = Decimal("0.01")
_REASONS: Final = (
    (r"but the ERP has invoiced it", {"invoices"}),
    (r"but goods have left", {"delivers"}),
    (r"^changed in the ERP: ", {"edits"}),
    (r" was deleted in the shop", {"delete"}),
    (r"^refund of .* is too high: ", {"credits", "HELD"}),
    (r" returned now, but ", {"edits", "HELD"}),
    (r"^a returned line is not on the ERP's order", {"HELD"}),
    (r"Tryton cannot add lines to an order in processing", {"edit", "discount"}),
    (r"in processing, Tryton cannot change (the date, the buyer|party|.*, party)", {"merge"}),
    (r"^number, date or buyer no longer match what was sent", {"merge"}),
    (r"^(waits for|its order: )", {"HELD"}),
    (r"^its order: it is cancelled in the ERP, so ", {"cancel"}),
)
"""A reason for a hold, and the acts of which at least one must be in the order's history. HELD: the order itself is
held."""


class Doc(NamedTuple):
    """One document on one side. order: the key of its order (of an order, its own). party: its buyer; "" if that side
    has none. rates: None if that side has none. items: SKU → quantity. days: of a price."""

    key: Key
    order: int
    party: str = ""
    cancelled: bool = False
    net: Decimal = _ZERO
    tax: Decimal = _ZERO
    rates: Rates | None = None
    items: Mapping[str, Decimal] = {}
    days: Days = (None, None)

    @property
    def gross(self) -> Decimal:
        return self.net + self.tax


class Sides(NamedTuple):
    """shop: the documents that an ERP must have. erp: what it has under keys of ours. held: reasons by key. made: keys
    of all that the ERP was ever given; an order that was cancelled before it was sent need not be there."""

    shop: Sequence[Doc]
    erp: Sequence[Doc]
    held: Mapping[Key, str]
    made: frozenset[Key]


def compare(sides: Sides, book: Book) -> tuple[list[Finding], Decimal]:
    """What is wrong, and the amount by which shop and ERP differ without a reason."""
    found = [
        Finding("double", f"{' '.join(key)}: {count} times in the ERP")
        for key, count in Counter(doc.key for doc in sides.erp).items()
        if count > 1
    ]
    found += unexplained(sides, book)
    shop, erp = {doc.key: doc for doc in _of_buyers(sides)}, {doc.key: doc for doc in sides.erp}
    difference = _ZERO
    for key in sorted({*shop, *erp}):
        for finding, money in _of(key, shop.get(key), erp.get(key), sides, book):
            found.append(finding)
            difference += abs(money)
    return found, difference


def _of_buyers(sides: Sides) -> Iterator[Doc]:
    """The shop's documents. A return or refund has the buyer whom its order has in the ERP: the order is compared by
    itself, and may be held with its old buyer."""
    buyers = {doc.order: doc.party for doc in sides.erp if doc.key[0] == "order"}
    for doc in sides.shop:
        yield doc._replace(party=buyers.get(doc.order, doc.party)) if doc.key[0] in ("return", "refund") else doc


def unexplained(sides: Sides, book: Book) -> Iterator[Finding]:
    """Holds that nothing in the history explains."""
    orders = {doc.key: doc.order for doc in (*sides.erp, *sides.shop)}
    for key, reason in sides.held.items():
        order = orders.get(key, _order_of(key, book))
        done = book.done.get(order, set()) | ({"HELD"} if ("order", str(order)) in sides.held else set())
        if not any(re.search(pattern, reason) and not done.isdisjoint(acts) for pattern, acts in _REASONS):
            said = ", ".join(sorted(done)) or "nothing"
            yield Finding("wrong", f"held {' '.join(key)} (order {order}): {reason}; in its history: {said}")


def touched(order: int, sides: Sides, book: Book) -> bool:
    """Whether the order's amounts in the ERP may differ from the shop's."""
    return ("order", str(order)) in sides.held or "edits" in book.done.get(order, ())


def _order_of(key: Key, book: Book) -> int:
    """The order of a document that neither side has any more; 0 if unknown."""
    kind, name = key
    if kind == "order":
        return int(name)
    return book.orders.get(int(name), 0) if kind in ("return", "refund") else 0


def _of(key: Key, shop: Doc | None, erp: Doc | None, sides: Sides, book: Book) -> Iterator[tuple[Finding, Decimal]]:
    name, held = " ".join(key), sides.held.get(key)
    if erp is None:
        assert shop is not None
        if not held and not (shop.cancelled and key not in sides.made):
            yield Finding("lost", f"{name}: not in the ERP"), shop.gross
        return
    if shop is None:
        if not held and not erp.cancelled and not (key[0] == "customer" and key[1] in book.customers):
            yield Finding("double", f"{name}: in the ERP, and not in the shop"), erp.gross
        return
    if held or (key[0] == "order" and touched(shop.order, sides, book)):
        if not shop.cancelled and (erp.net, erp.tax) not in _given(shop, book):
            yield Finding("wrong", f"{name}: {erp.net} + {erp.tax}, which nobody has given it"), shop.gross - erp.gross
        return
    if shop.cancelled and erp.cancelled:
        return
    for what, ours, theirs in _fields(shop, erp):
        if ours != theirs:
            yield Finding("wrong", f"{name}: {what}: shop {ours}, ERP {theirs}"), shop.gross - erp.gross


def _given(shop: Doc, book: Book) -> set[Figures]:
    given: set[Figures] = {(shop.net, shop.tax)}
    return given | book.figures.get(shop.order, set()) if shop.key[0] == "order" else given


def _fields(shop: Doc, erp: Doc) -> Iterator[tuple[str, object, object]]:
    yield "cancelled", shop.cancelled, erp.cancelled
    yield "net and tax", (shop.net, shop.tax), (erp.net, erp.tax)
    yield "quantities", {**shop.items}, {**erp.items}
    yield "days", shop.days, erp.days
    if erp.party:
        yield "customer", shop.party, erp.party
    if shop.rates is not None and erp.rates is not None:
        yield "net and tax by rate", {**shop.rates}, {**erp.rates}


class Goods(NamedTuple):
    """Pieces of one SKU of one order. invoiced: less what is credited. delivered: less what was taken back. Both count
    what is planned, too; `posted` and `done` do not."""

    order: int
    sku: str
    invoiced: Decimal = _ZERO
    delivered: Decimal = _ZERO
    posted: Decimal = _ZERO
    done: Decimal = _ZERO


class Sums(NamedTuple):
    """An ERP's own sums. sold: orders less refunds by party, those that the clerk made by hand too. invoiced: invoices
    less credit notes, by party and rate in percent. goods: of each order that has invoices or deliveries."""

    sold: Mapping[str, Decimal]
    invoiced: Mapping[str, Rates]
    goods: Sequence[Goods] = ()


class Pair(NamedTuple):
    """What shop and ERP have invoiced to one party at one rate, less credit notes."""

    party: str
    rate: Decimal
    shop: Amounts
    erp: Amounts


def compare_sums(sides: Sides, sums: Sums, book: Book) -> Iterator[tuple[Finding, Decimal]]:
    """Finds parties whose sold and invoiced sums differ, parties whose sums by rate are not the shop's, and orders of
    which other goods are invoiced than delivered.

    An order that the clerk changed after its invoice was posted has two invoices, and the tax of each is rounded.
    """
    edited = {doc.party for doc in sides.erp if "edits" in book.done.get(doc.order, ())}
    for party in sorted({*sums.sold, *sums.invoiced}):
        sold, rates = sums.sold.get(party, _ZERO), sums.invoiced.get(party, {})
        invoiced = sum((net + tax for net, tax in rates.values()), _ZERO)
        if abs(sold - invoiced) > (_CENT * len(rates) if party in edited else _ZERO):
            yield Finding("wrong", f"party {party}: sold {sold}, invoiced {invoiced}"), sold - invoiced
    for pair in pairs(sides, sums, book):
        if pair.shop != pair.erp:
            name = f"party {pair.party} at {pair.rate:f} %"
            yield (
                Finding("wrong", f"{name}: shop {pair.shop}, invoices {pair.erp}"),
                sum(pair.shop, _ZERO) - sum(pair.erp, _ZERO),
            )
    for finding in _goods(sums, book):
        yield finding, _ZERO


def pairs(sides: Sides, sums: Sums, book: Book) -> list[Pair]:
    """The amounts of each party at each rate, without those of documents whose order is held or edited by the clerk:
    they are taken from both sides. What the clerk gave back by hand counts as the shop's."""
    shop: dict[str, dict[Decimal, Amounts]] = {}
    erp = {party: {**rates} for party, rates in sums.invoiced.items()}
    for doc in sides.shop:
        if doc.rates and not (doc.cancelled or _left_out(doc, sides, book)):
            _add(shop.setdefault(doc.party, {}), doc.rates, _sign(doc))
    for doc in sides.erp:
        if doc.rates and _left_out(doc, sides, book):
            _add(erp.setdefault(doc.party, {}), doc.rates, -_sign(doc))
        if doc.key[0] == "order" and (given := book.given.get(doc.order)):
            _add(shop.setdefault(doc.party, {}), {_ZERO: (given, _ZERO)}, -1)
    of_each = {(party, rate) for side in (shop, erp) for party, rates in side.items() for rate in rates}
    found = [
        Pair(party, rate, *(side.get(party, {}).get(rate, (_ZERO, _ZERO)) for side in (shop, erp)))
        for party, rate in sorted(of_each)
    ]
    return [pair for pair in found if any(pair.shop) or any(pair.erp)]


def _left_out(doc: Doc, sides: Sides, book: Book) -> bool:
    return doc.key in sides.held or touched(doc.order, sides, book)


def _sign(doc: Doc) -> int:
    return -1 if doc.key[0] == "refund" else 1


def _goods(sums: Sums, book: Book) -> Iterator[Finding]:
    """Compares what is posted with what has left only if the clerk did both, to an order that he did not edit."""
    for one in sums.goods:
        done = book.done.get(one.order, set())
        both = {"delivers", "invoices"} <= done and "edits" not in done and one.posted and one.done
        if one.invoiced != one.delivered or (both and one.posted != one.done):
            yield Finding("wrong", f"goods: {one}")


def by_clerk(sums: Sums) -> int:
    """Orders of which goods have left or are on posted invoices."""
    return len({one.order for one in sums.goods if one.posted or one.done})


def _add(to: dict[Decimal, Amounts], rates: Rates, sign: int) -> None:
    for rate, (net, tax) in rates.items():
        had = to.get(rate, (_ZERO, _ZERO))
        to[rate] = (had[0] + sign * net, had[1] + sign * tax)


def summed(rows: Iterable[tuple[Decimal, Decimal, Decimal]]) -> dict[Decimal, Amounts]:
    """Sums rows of rate, net and tax by rate."""
    found: dict[Decimal, Amounts] = {}
    for rate, net, tax in rows:
        _add(found, {rate.normalize(): (net, tax)}, 1)
    return {rate: amounts for rate, amounts in found.items() if any(amounts)}
