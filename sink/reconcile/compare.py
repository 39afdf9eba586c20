"""Compares shop and ERP document by document. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Final

from sink.documents import totals
from sink.documents.models import Document, Invalid, Refund, ReturnOrder, SalesOrder
from sink.documents.records import PAID, record
from sink.documents.refs import DocumentRef
from sink.erp.contract import Found, Moved, Observed
from sink.erp.kinds import ErpRecord, Fields, Kind, Milestone, Sums, count, same
from sink.erp.money import money as said
from sink.ledger.outcomes import Standing, State
from sink.planning.decisions import Decisions, agreed
from sink.reconcile.report import EXPLAINED, Class, Difference, Report

_ZERO: Final = Decimal(0)
_UNHEARD: Final = "; the sink does not know of it"


@dataclass(frozen=True)
class Sides:
    """Whole units: their documents in shop and ERP, and in the ledger.

    `kinds`: type of document → kind in the ERP. `since`: the ledger's time at which the shop was read; None: the shop's
    side is the copy. `changed`: documents whose row in the ledger changed while both sides were read.
    """

    desired: Mapping[DocumentRef, Document | Invalid]
    observed: Mapping[DocumentRef, Observed]
    ledger: Mapping[DocumentRef, Standing]
    kinds: Mapping[str, Kind]
    collective: bool = False
    since: datetime | None = None
    changed: Collection[DocumentRef] = ()

    def of(self, refs: Collection[DocumentRef]) -> Sides:
        """The same with only these documents of the shop."""
        return replace(self, desired={ref: one for ref, one in self.desired.items() if ref in refs})


def compare(sides: Sides) -> Report:
    """Compares the documents, and gives each difference a class."""
    comparison = _Comparison(sides)
    void = _void(sides)
    for ref, document in sides.desired.items():
        if isinstance(document, ReturnOrder | Refund) and document.order in void:
            comparison.void(ref)
        else:
            comparison.look(ref, document)
    comparison.orders()
    return comparison.report


def changed_since(one: Standing, since: datetime | None) -> bool:
    """Whether the shop may have changed the document after it was read."""
    return since is not None and one.marked_at > since


def in_erp_only(found: Found, ref: DocumentRef | None, entry: Standing | None, changed: bool) -> Difference | None:
    """The finding for a document of the ERP with our key that the shop does not have; None if that is as it should
    be."""
    kind, observed = found.ref.kind, found.observed
    if observed.milestone is Milestone.CANCELLED:
        return None
    gone = entry is not None and entry.state is State.GONE and entry.written and not entry.dirty
    if gone and kind == "customer":
        return None  # the shop deletes buyers, the ERP's books keep them
    detail = f"{kind} {observed.reference}" + (", deleted in the shop and kept" if gone else "")
    result = _explanation(entry, changed) or ("ignored" if gone else "in the ERP only")
    named = ref or DocumentRef(kind, found.ref.external)
    detail = detail if entry else detail + _UNHEARD
    return Difference(*named, result, detail, -_amount(observed.record), *_named(observed.record.fields))


def _void(sides: Sides) -> set[str]:
    """Keys of orders that were cancelled before the ERP got them. It needs neither them nor their returns and
    refunds."""
    orders = {ref: one for ref, one in sides.desired.items() if isinstance(one, SalesOrder)}
    return {one.key for ref, one in orders.items() if one.status == "cancelled" and ref not in sides.observed}


class _Comparison:
    """Fills a report."""

    def __init__(self, sides: Sides) -> None:
        self.report = Report()
        self._sides = sides
        self._kinds = frozenset(sides.kinds.values())
        self._agreed_orders: dict[DocumentRef, Observed] = {}

    def look(self, ref: DocumentRef, document: Document | Invalid) -> None:
        """Compares one document with the ERP's."""
        kind, entry, observed = self._sides.kinds[ref.type], self._sides.ledger.get(ref), self._sides.observed.get(ref)
        own = entry is not None and entry.needed and not entry.account and not self._sides.collective
        if kind == "customer" and observed is None and not own:
            return
        if observed is None and entry is not None and entry.state is State.EARLY:
            return
        if observed is None and isinstance(document, SalesOrder) and document.status == "cancelled":
            return  # cancelled before the ERP got it: neither side counts it
        if isinstance(document, Invalid):
            self._add(kind, None, observed)
            money = -_amount(observed.record) if observed else _ZERO
            self._found(ref, "invalid", f"the shop's data cannot make a {kind}: {document.reason}", money)
            return
        wanted = _wanted(document)
        self._add(kind, None if wanted.fields.get("cancelled") else wanted, observed)
        detail, money = _compare(document, wanted, observed, _payments_kept(document, observed, entry))
        if detail and _is_accepted(entry, document, wanted, observed):
            self._found(ref, "accepted", detail, money)
            return
        if detail:
            self._found(ref, "differs" if observed else "missing in the ERP", detail, money)
            return
        self.report.agreed[kind] += 1
        if isinstance(document, SalesOrder) and document.status == "open" and observed is not None:
            self._agreed_orders[ref] = observed

    def void(self, ref: DocumentRef) -> None:
        """A return or refund of such an order: the ERP should not have it either."""
        observed = self._sides.observed.get(ref)
        if observed is not None and observed.milestone is not Milestone.CANCELLED:
            detail = f"{self._sides.kinds[ref.type]} {observed.reference}"
            self._found(ref, "in the ERP only", detail, -_amount(observed.record))

    def _add(self, kind: Kind, wanted: ErpRecord | None, observed: Observed | None) -> None:
        """Counts a document of the shop. `wanted` None: without money."""
        sums = self.report.sums[kind]
        sums.shop += 1
        sums.shop_money += _amount(wanted) if wanted else _ZERO
        if observed is not None:
            sums.erp += 1
            sums.erp_money += _ZERO if observed.milestone is Milestone.CANCELLED else _amount(observed.record)

    def orders(self) -> None:
        """Compares what remains of each order: quantities less returns, and money refunded, whoever booked them."""
        goods, money, parts = _given_back(self._sides.desired)
        for ref, observed in self._agreed_orders.items():
            back = goods.get(ref[1], {}) if "return" in self._kinds else None
            refunded = money.get(ref[1], _ZERO) if "refund" in self._kinds else None
            detail, difference = _remains(observed, back, refunded)
            if not detail:
                continue
            of_parts = [one for one in self.report.findings if (one.type, one.key) in parts.get(ref[1], ())]
            reason = of_parts[0].result if of_parts else "differs"
            if reason not in EXPLAINED:
                reason = "in flight" if self._on_its_way(ref) else "differs"
            self.report.agreed["order"] -= 1
            self._found(ref, reason, detail, difference)

    def _on_its_way(self, order: DocumentRef) -> bool:
        """Whether a document of its unit is in flight, even one that came after the shop was read."""
        entry = self._sides.ledger.get(order)
        unit = [ref for ref, one in self._sides.ledger.items() if entry and one.unit == entry.unit]
        return any(self._sides.ledger[ref].pending or self._has_changed(ref) for ref in unit)

    def _has_changed(self, ref: DocumentRef) -> bool:
        entry = self._sides.ledger.get(ref)
        return ref in self._sides.changed or (entry is not None and changed_since(entry, self._sides.since))

    def _found(self, ref: DocumentRef, result: Class, detail: str, money: Decimal) -> None:
        entry = self._sides.ledger.get(ref)
        explained = _explanation(entry, self._has_changed(ref))
        detail, named = detail if entry else detail + _UNHEARD, self._named(ref)
        self.report.add_finding(Difference(*ref, explained or result, detail, money, *named))

    def _named(self, ref: DocumentRef) -> tuple[str | None, str | None]:
        document, observed = self._sides.desired.get(ref), self._sides.observed.get(ref)
        if document is not None and not isinstance(document, Invalid):
            return getattr(document, "number", None), getattr(document, "currency", None)
        return _named(observed.record.fields) if observed else (None, None)


def _named(fields: Fields) -> tuple[str | None, str | None]:
    """Number and currency, for people."""
    number, currency = (fields.get(name) for name in ("number", "currency"))
    return str(number) if number else None, str(currency) if currency else None


def _explanation(entry: Standing | None, changed: bool) -> Class | None:
    """The class that explains a difference, or None. A document that the ledger does not know is unexplained: it may be
    lost."""
    if entry is None:
        return "in flight" if changed else None
    if entry.state in (State.HELD, State.WAITS):
        return "held"
    if entry.state is State.IGNORED:
        return "ignored"
    if entry.pending or changed:
        return "in flight"
    return "planned" if entry.state is State.PLANNED else None


def _given_back(
    desired: Mapping[DocumentRef, Document | Invalid],
) -> tuple[dict[str, dict[str, Decimal]], dict[str, Decimal], dict[str, set[DocumentRef]]]:
    """Per order, in the shop: returned quantity by line, refunded money, and the documents of both."""
    goods: dict[str, dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    money: dict[str, Decimal] = defaultdict(Decimal)
    parts: dict[str, set[DocumentRef]] = defaultdict(set)
    for ref, document in desired.items():
        if isinstance(document, ReturnOrder):
            for line in document.lines:
                goods[document.order][line.order_line] += line.quantity
        elif isinstance(document, Refund):
            money[document.order] += document.gross
        else:
            continue
        parts[document.order].add(ref)
    return goods, money, parts


def _remains(observed: Observed, goods: Mapping[str, Decimal] | None, money: Decimal | None) -> tuple[str, Decimal]:
    """What differs after returns and refunds, in words, and its money. `goods` or `money` None: the profile has no such
    documents.

    The order's lines already agree.
    """
    found = []
    lines = observed.record.parts.get("line", {}) if goods or observed.moved else {}  # most orders have no returns
    for line, sold in sorted(lines.items()) if goods is not None else ():
        quantity = _number(sold, "quantity")
        ours = quantity - (goods or {}).get(line, _ZERO)
        theirs = quantity - sum(observed.moved.get(line, Moved()).returned.values())
        if ours != theirs:
            found.append(f"line:{line}: {count(ours)} remain in the shop, {count(theirs)} in the ERP")
    difference = _ZERO
    if money is not None:
        refunded = sum(observed.refunded.values(), _ZERO)
        difference = refunded - money
        if difference:
            sums = [said(amount, observed.record.fields.get("currency")) for amount in (money, refunded)]
            found.append(f"{sums[0]} refunded in the shop, {sums[1]} in the ERP")
    return "; ".join(found), difference


def _wanted(document: Document) -> ErpRecord:
    return record(document, {"cancelled": document.status == "cancelled"} if isinstance(document, SalesOrder) else {})


def _is_accepted(entry: Standing | None, document: Document, wanted: ErpRecord, observed: Observed | None) -> bool:
    """Whether a person has accepted everything that differs."""
    said = Decisions.from_json(entry.decisions if entry else None)
    if said.kept and entry and entry.state is State.DONE:
        return True
    if not said.fields or observed is None:
        return False
    return not _compare(document, agreed(wanted, wanted, observed, said.fields)[0], observed)[0]


def _payments_kept(document: Document, observed: Observed | None, entry: Standing | None) -> bool:
    """Whether the ERP shows as paid what it was told, and the shop has purged payments since that `absent.payments`
    keeps."""
    if observed is None or entry is None or entry.dirty or entry.state is not State.DONE:
        return False
    if not isinstance(document, SalesOrder):
        return False
    paid = sum((one.amount for one in document.payments if not one.is_of_refund), _ZERO)
    return observed.record.fields.get("paid") == entry.paid and entry.paid is not None and paid < entry.paid


def _compare(
    document: Document, wanted: ErpRecord, observed: Observed | None, payments_kept: bool = False
) -> tuple[str, Decimal]:
    """What differs, "" for nothing, and its money."""
    cancelled = bool(wanted.fields.get("cancelled"))
    if observed is None:
        return "not in the ERP", _amount(wanted)
    if observed.milestone is None:
        return observed.problem, _amount(wanted) - _amount(observed.record)
    if cancelled or observed.milestone is Milestone.CANCELLED:
        both = cancelled and observed.milestone is Milestone.CANCELLED
        return ("", _ZERO) if both else ("cancelled on one side only", _amount(wanted))
    names = _differing(wanted.fields, observed.record.fields)
    if payments_kept:
        names = [name for name in names if name not in PAID]
    children = _differing_children(wanted, observed.record)
    if not names and not children:
        return "", _ZERO
    rates, shifted = _rates(document, observed) if isinstance(document, SalesOrder) else ([], _ZERO)
    return ", ".join([*names, *children, *rates]), _amount(wanted) - _amount(observed.record) or shifted


def _rates(order: SalesOrder, observed: Observed) -> tuple[list[str], Decimal]:
    """Both sides of each tax rate whose net or tax differs, and how much gross is under a wrong rate. Empty if the ERP
    does not give sums by rate."""
    ours, theirs = totals.per_rate(order), observed.rates
    found, shifted = [], _ZERO
    for rate in sorted({*ours, *theirs}) if theirs else ():
        one, other = ours.get(rate, Sums()), theirs.get(rate, Sums())
        if one != other:
            shifted += abs(one.gross - other.gross)
            sums = [said(amount, order.currency) for amount in (one.net, one.tax, other.net, other.tax)]
            found.append(f"{count(rate)} %: net {sums[0]} tax {sums[1]}, the ERP net {sums[2]} tax {sums[3]}")
    return found, shifted


def _differing(one: Fields, other: Fields) -> list[str]:
    """Names of fields that both sides have with different values. The fast comparison first: nearly all are equal."""
    unequal = [name for name, value in one.items() if name in other and value != other[name]]
    return sorted(name for name in unequal if not same(one[name], other[name])) if unequal else unequal


def _differing_children(one: ErpRecord, other: ErpRecord) -> list[str]:
    """Children that differ, of the kinds that the ERP keeps."""
    found = []
    for part, rows in other.parts.items():
        wanted = one.parts.get(part, {})
        if wanted == rows:
            continue  # most are
        found += [f"{part}:{key}" for key in {*wanted, *rows} if not _same_child(wanted.get(key), rows.get(key))]
    return sorted(found)


def _same_child(one: Fields | None, other: Fields | None) -> bool:
    if one is None or other is None:
        return False
    return {"sku", "name"}.issuperset(_differing(one, other))  # a placeholder item is no difference


def _amount(value: ErpRecord) -> Decimal:
    return _number(value.fields, "amount" if value.kind == "price" else "gross")


def _number(fields: Fields, name: str) -> Decimal:
    found = fields.get(name)
    return found if isinstance(found, Decimal) and found.is_finite() else _ZERO  # a NaN would make all sums NaN
