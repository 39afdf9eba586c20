"""Compares shop and ERP document by document. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from sink.documents import totals
from sink.documents.models import Document, Invalid, Refund, ReturnOrder, SalesOrder
from sink.documents.records import record
from sink.documents.refs import DocumentRef
from sink.erp.contract import Moved, Observed
from sink.erp.kinds import ErpRecord, Fields, Kind, Milestone, Sums, differing
from sink.ledger.outcomes import Standing, State
from sink.planning.decisions import Decisions, agreed
from sink.planning.policy import Disputed
from sink.reconcile.report import EXPLAINED, Class, Difference, Report

_ZERO: Final = Decimal(0)


@dataclass(frozen=True)
class ErpSide:
    """The ERP's documents of a kind with our key, by external key, and how many were typed in by hand."""

    records: Mapping[str, Observed]
    foreign: int = 0


@dataclass(frozen=True)
class Sides:
    """Both sides and the ledger between them. `kinds`: type of a document → what the ERP keeps of it."""

    shop: str
    desired: Mapping[DocumentRef, Document | Invalid]
    in_erp: Mapping[Kind, ErpSide]
    ledger: Mapping[DocumentRef, Standing]
    kinds: Mapping[str, Kind]
    collective: bool


def compare(sides: Sides) -> Report:
    """Gives each difference a class."""
    comparison = _Comparison(sides)
    void = _void(sides)
    for ref, document in sorted(sides.desired.items()):
        kind = sides.kinds[ref.type]
        if kind in sides.in_erp and not (isinstance(document, ReturnOrder | Refund) and document.order in void):
            comparison.look(ref, kind, document)
    comparison.orders(sides.desired)
    comparison.left_over()
    return comparison.report


def _void(sides: Sides) -> set[str]:
    """Keys of orders that were cancelled before the ERP heard of them: it needs neither them nor what came of them."""
    known = sides.in_erp["order"].records if "order" in sides.in_erp else {}
    orders = {ref: one for ref, one in sides.desired.items() if isinstance(one, SalesOrder)}
    return {
        order.key
        for ref, order in orders.items()
        if order.status == "cancelled" and not (ref in sides.ledger and sides.ledger[ref].external in known)
    }


class _Comparison:
    """Fills a report; takes what it has seen out of `in_erp`."""

    def __init__(self, sides: Sides) -> None:
        self.report = Report(foreign=Counter({kind: found.foreign for kind, found in sides.in_erp.items()}))
        self._name = sides.shop
        self._entries = sides.ledger
        self._in_erp = {kind: dict(found.records) for kind, found in sides.in_erp.items()}
        self._collective = sides.collective
        self._kinds = frozenset(sides.in_erp)
        self._refs = {one.external: ref for ref, one in sides.ledger.items() if one.external}
        self._agreed_orders: dict[DocumentRef, Observed] = {}

    def look(self, ref: DocumentRef, kind: Kind, document: Document | Invalid) -> None:
        """Compares one document with the ERP's."""
        entry = self._entries.get(ref)
        observed = self._in_erp[kind].pop(entry.external, None) if entry and entry.external else None
        if kind == "customer" and observed is None and (self._collective or entry is None or not entry.needed):
            return
        if observed is None and entry is not None and entry.state is State.EARLY:
            return
        if observed is None and isinstance(document, SalesOrder) and document.status == "cancelled":
            return  # cancelled before the ERP heard of it: neither side counts it
        self._add(kind, document, observed)
        if isinstance(document, Invalid):
            money = -_amount(observed.record) if observed else _ZERO
            self._found(ref, "invalid", f"the shop's data make no {kind}: {document.reason}", money)
            return
        detail, money = _compare(document, observed)
        if detail and _is_accepted(entry, document, observed):
            self._found(ref, "accepted", detail, money)
            return
        if detail:
            self._found(ref, "differs" if observed else "missing in the ERP", detail, money)
            return
        self.report.agreed[kind] += 1
        if isinstance(document, SalesOrder) and document.status == "open" and observed is not None:
            self._agreed_orders[ref] = observed

    def _add(self, kind: Kind, document: Document | Invalid, observed: Observed | None) -> None:
        sums = self.report.sums[kind]
        sums.shop += 1
        if not isinstance(document, Invalid) and not (
            isinstance(document, SalesOrder) and document.status == "cancelled"
        ):
            sums.shop_money += _amount(record(document, {}))
        if observed is not None:
            sums.erp += 1
            sums.erp_money += _ZERO if observed.milestone is Milestone.CANCELLED else _amount(observed.record)

    def orders(self, desired: Mapping[DocumentRef, Document | Invalid]) -> None:
        """What remains of each order: goods sold less come back, and money given back, whoever booked it."""
        goods, money, parts = _given_back(desired)
        for ref, observed in sorted(self._agreed_orders.items()):
            back = goods.get(ref[1], {}) if "return" in self._kinds else None
            refunded = money.get(ref[1], _ZERO) if "refund" in self._kinds else None
            detail, difference = _remains(observed, back, refunded)
            if not detail:
                continue
            of_parts = [one for one in self.report.findings if (one.type, one.key) in parts.get(ref[1], ())]
            reason = of_parts[0].result if of_parts else "differs"
            self.report.agreed["order"] -= 1
            self._found(ref, reason if reason in EXPLAINED else "differs", detail, difference)

    def left_over(self) -> None:
        """What the ERP has under our key and the shop has not."""
        for kind, records in sorted(self._in_erp.items()):
            for external, observed in records.items():
                if observed.milestone is Milestone.CANCELLED:
                    continue
                ref = self._refs.get(external) or DocumentRef(kind, external)
                entry = self._entries.get(ref)
                gone = entry is not None and entry.state is State.GONE and not entry.dirty
                if gone and kind == "customer":
                    continue  # the shop deletes buyers, the ERP's books keep them
                detail = f"{kind} {observed.reference}" + (", deleted in the shop and kept" if gone else "")
                self._found(ref, "ignored" if gone else "in the ERP only", detail, -_amount(observed.record))

    def _found(self, ref: DocumentRef, result: Class, detail: str, money: Decimal) -> None:
        entry = self._entries.get(ref)
        if entry is None:
            detail += "; the sink has not heard of it"
        self.report.findings.append(Difference(*ref, _explanation(entry) or result, detail, money))


def _explanation(entry: Standing | None) -> Class | None:
    """Why a difference is no surprise. A document that the ledger does not know is one: it may be lost."""
    if entry is None:
        return None
    if entry.state in (State.HELD, State.WAITS):
        return "held"
    if entry.state is State.IGNORED:
        return "ignored"
    if entry.dirty or entry.state in (State.DUE, State.SETTLING, State.RETRY):
        return "in flight"
    return "planned" if entry.state is State.PLANNED else None


def _given_back(
    desired: Mapping[DocumentRef, Document | Invalid],
) -> tuple[dict[str, dict[str, Decimal]], dict[str, Decimal], dict[str, set[DocumentRef]]]:
    """Per order: quantity that came back by line, money given back, and the documents that say so."""
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
    """What differs of the order after returns and refunds; None: the shop does not know of them.

    Its lines are known to be the same on both sides.
    """
    found = []
    for line, sold in sorted(observed.record.parts.get("line", {}).items()) if goods is not None else ():
        quantity = _number(sold, "quantity")
        ours = quantity - (goods or {}).get(line, _ZERO)
        theirs = quantity - sum(observed.moved.get(line, Moved()).returned.values())
        if ours != theirs:
            found.append(f"line:{line}: {ours.normalize():f} remain in the shop, {theirs.normalize():f} in the ERP")
    difference = _ZERO
    if money is not None:
        refunded = sum(observed.refunded.values(), _ZERO)
        difference = refunded - money
        if difference:
            found.append(f"{money} given back in the shop, {refunded} in the ERP")
    return "; ".join(found), difference


def _is_accepted(entry: Standing | None, document: Document, observed: Observed | None) -> bool:
    """Whether a person has accepted all that differs."""
    said = Decisions.from_json(entry.decisions if entry else None)
    if said.settled and entry and entry.state is State.DONE:
        return True
    return bool(said.fields and observed and not _compare(document, observed, said.fields)[0])


def _compare(document: Document, observed: Observed | None, accepted: Collection[Disputed] = ()) -> tuple[str, Decimal]:
    """What differs, '' for nothing, and the money of it."""
    cancelled = isinstance(document, SalesOrder) and document.status == "cancelled"
    wanted = record(document, {"cancelled": cancelled} if isinstance(document, SalesOrder) else {})
    if observed is not None and accepted:
        wanted, _ = agreed(wanted, wanted, observed, accepted)
        cancelled = bool(wanted.fields.get("cancelled"))
    if observed is None:
        return "not in the ERP", _amount(wanted)
    if observed.milestone is None:
        return observed.problem, _amount(wanted) - _amount(observed.record)
    if cancelled or observed.milestone is Milestone.CANCELLED:
        same = cancelled and observed.milestone is Milestone.CANCELLED
        return ("", _ZERO) if same else ("cancelled on one side only", _amount(wanted))
    names = differing(wanted.fields, observed.record.fields, wanted.fields.keys() & observed.record.fields.keys())
    children = _differing_children(wanted, observed.record)
    rates, moved = _rates(document, observed) if isinstance(document, SalesOrder) else ([], _ZERO)
    if not names and not children:
        return "", _ZERO
    return ", ".join([*names, *children, *rates]), _amount(wanted) - _amount(observed.record) or moved


def _rates(order: SalesOrder, observed: Observed) -> tuple[list[str], Decimal]:
    """Per tax rate whose net or tax differs: both sides; and how much gross is under a wrong rate. Nothing where the
    ERP does not say."""
    ours, theirs = totals.per_rate(order), observed.rates
    found, moved = [], _ZERO
    for rate in sorted({*ours, *theirs}) if theirs else ():
        one, other = ours.get(rate, Sums()), theirs.get(rate, Sums())
        if one != other:
            moved += abs(one.gross - other.gross)
            found.append(
                f"{rate.normalize():f} %: net {one.net} tax {one.tax}, the ERP net {other.net} tax {other.tax}"
            )
    return found, moved


def _differing_children(one: ErpRecord, other: ErpRecord) -> list[str]:
    """Of the kinds that the ERP keeps."""
    found = []
    for part, rows in other.parts.items():
        wanted = one.parts.get(part, {})
        found += [f"{part}:{key}" for key in {*wanted, *rows} if not _same_child(wanted.get(key), rows.get(key))]
    return sorted(found)


def _same_child(one: Fields | None, other: Fields | None) -> bool:
    if one is None or other is None:
        return False
    names = (one.keys() & other.keys()) - {"sku", "name"}  # a placeholder item is no difference
    return not differing(one, other, names)


def _amount(value: ErpRecord) -> Decimal:
    return _number(value.fields, "amount" if value.kind == "price" else "gross")


def _number(fields: Fields, name: str) -> Decimal:
    found = fields.get(name)
    return found if isinstance(found, Decimal) else _ZERO
