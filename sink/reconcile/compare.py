"""Do shop and ERP agree in counts and money? Reads both sides anew, and gives each difference a class."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple

from sink.database import Connection, transaction
from sink.documents import totals
from sink.documents.build import Invalid, Missing, NotReady, all_keys, build
from sink.documents.models import Document, Refund, ReturnOrder, SalesOrder
from sink.documents.profile import Profile
from sink.documents.records import KIND_OF, record
from sink.erp.contract import Erp, Observed
from sink.erp.kinds import KINDS, ErpRecord, Fields, Kind, Milestone
from sink.planning.planner import differing

Class = Literal[
    "agree", "in flight", "held", "ignored", "planned", "missing in the ERP", "in the ERP only", "differs", "invalid"
]
EXPLAINED: Final = ("agree", "in flight", "held", "ignored", "planned")
_ZERO: Final = Decimal(0)
_WITH_MONEY: Final = ("order", "refund")
Key = tuple[str, str]  # type and key of a document


@dataclass(frozen=True)
class Finding:
    """One document; `difference` is shop less ERP in money, or what moved between tax rates where the sum is right."""

    type: str
    key: str
    result: Class
    detail: str = ""
    difference: Decimal = _ZERO


@dataclass
class Sums:
    """Of one kind of document: how many there are and what they come to, cancelled ones without their money."""

    shop: int = 0
    erp: int = 0
    shop_money: Decimal = _ZERO
    erp_money: Decimal = _ZERO


@dataclass
class Report:
    """All of it. `agreed` counts documents per kind, `foreign` those of the ERP that no shop knows: typed in by hand.
    Those belong to the ERP and are no difference; what they take back or refund of a shop's order is."""

    findings: list[Finding] = field(default_factory=list)
    agreed: Counter[str] = field(default_factory=Counter)
    foreign: Counter[str] = field(default_factory=Counter)
    sums: dict[str, Sums] = field(default_factory=lambda: defaultdict(Sums))

    @property
    def difference(self) -> Decimal:
        """Money that differs, added without sign so that errors do not cancel out."""
        return sum((abs(finding.difference) for finding in self.findings), _ZERO)

    @property
    def agrees(self) -> bool:
        """Whether nothing is left to do or to explain: a held or late document does not agree yet."""
        return not self.findings

    @property
    def explained(self) -> bool:
        """Whether each difference has a reason that is known."""
        return all(finding.result in EXPLAINED for finding in self.findings)

    def summary(self) -> str:
        """The one line for people. `agree` is said only of all documents."""
        counted = f"{self.agreed['order']} orders, {self.agreed['return']} returns, {self.agreed['price']} prices"
        if self.agrees:
            return f"agree: {counted}, difference {self.difference:.2f}"
        classes = Counter(finding.result for finding in self.findings)
        parts = ", ".join(f"{count} {name}" for name, count in sorted(classes.items()))
        return f"DISAGREE: {parts}; agreed {counted}, difference {self.difference:.2f}"

    def lines(self) -> list[str]:
        """For people; the summary is the last one."""
        lines = [f"{one.result}: {one.type} {one.key}: {one.detail} ({one.difference:.2f})" for one in self.findings]
        if self.foreign.total():
            counted = ", ".join(f"{count} {kind}s" for kind, count in sorted(self.foreign.items()) if count)
            lines.append(f"typed in by hand in the ERP, and not compared: {counted}")
        return [*lines, *self._table(), self.summary()]

    def _table(self) -> Iterator[str]:
        """Counts and money of both sides, side by side; prices and customers have no sum."""
        yield f"{'':10} {'shop':>8} {'ERP':>8} {'shop, money':>16} {'ERP, money':>16} {'difference':>12}"
        for kind in KINDS:
            one = self.sums.get(kind)
            if one is not None:
                money = f"{one.shop_money:16,.2f} {one.erp_money:16,.2f} {one.shop_money - one.erp_money:12,.2f}"
                yield f"{kind + 's':10} {one.shop:8} {one.erp:8} {money if kind in _WITH_MONEY else ''}".rstrip()

    def to_json(self) -> dict[str, Any]:
        """For machines; amounts as text."""
        return {
            "agrees": self.agrees,
            "explained": self.explained,
            "agreed": dict(self.agreed),
            "foreign": dict(self.foreign),
            "difference": str(self.difference),
            "findings": [{**vars(finding), "difference": str(finding.difference)} for finding in self.findings],
        }


class _Entry(NamedTuple):
    """What the ledger says of a document."""

    state: str
    incarnation: int
    needed: bool
    dirty: bool
    marked: int


def reconcile(
    middle: Connection,
    shop: Connection | None,
    name: str,
    profile: Profile,
    erp: Erp,
    collective: bool,
    compare_prices: bool = True,
) -> Report:
    """Compares. `shop`: the shop's own database, read-only; None: what is staged of it."""
    before = _ledger(middle)
    desired = _desired(shop or middle, "public" if shop else name, profile)
    figures = {kind: erp.figures(kind, f"{name}/") for kind in _kinds(profile, compare_prices)}
    entries = {
        ref: entry._replace(dirty=entry.dirty or ref not in before or before[ref].marked != entry.marked)
        for ref, entry in _ledger(middle).items()
    }
    comparison = _Comparison(name, entries, {kind: dict(found.records) for kind, found in figures.items()}, collective)
    void = _void(desired, figures["order"].records if "order" in figures else {})
    comparison.report.foreign.update({kind: found.foreign for kind, found in figures.items()})
    for (type_, key), document in sorted(desired.items()):
        kind = KIND_OF[profile.documents[type_].model]
        if kind in figures and not (isinstance(document, ReturnOrder | Refund) and document.order in void):
            comparison.look((type_, key), kind, document)
    comparison.orders(desired)
    comparison.left_over()
    return comparison.report


def _void(desired: Mapping[Key, Document | Invalid], in_erp: Iterable[str]) -> set[str]:
    """Keys of orders that were cancelled before the ERP heard of them: it needs neither them nor what came of them."""
    known = {external.rpartition("/")[0].rpartition("/")[2] for external in in_erp}
    orders = (document for document in desired.values() if isinstance(document, SalesOrder))
    return {order.key for order in orders if order.status == "cancelled" and order.key not in known}


class _Comparison:
    """Fills a report; takes what it has seen out of `in_erp`."""

    def __init__(
        self, name: str, entries: Mapping[Key, _Entry], in_erp: dict[Kind, dict[str, Observed]], collective: bool
    ) -> None:
        self.report = Report()
        self._name = name
        self._entries = entries
        self._in_erp = in_erp
        self._collective = collective
        self._kinds = frozenset(in_erp)
        self._agreed_orders: dict[Key, Observed] = {}

    def look(self, ref: Key, kind: Kind, document: Document | Invalid) -> None:
        """Compares one document with the ERP's."""
        entry = self._entries.get(ref)
        external = f"{self._name}/{ref[0]}/{ref[1]}/{entry.incarnation if entry else 1}"
        observed = self._in_erp[kind].pop(external, None)
        if kind == "customer" and observed is None and (self._collective or entry is None or not entry.needed):
            return
        if observed is None and isinstance(document, SalesOrder) and document.status == "cancelled":
            return  # cancelled before the ERP heard of it: neither side counts it
        self._add(kind, document, observed)
        if isinstance(document, Invalid):
            money = -_amount(observed.record) if observed else _ZERO
            self._found(ref, "invalid", f"the shop's data make no {kind}: {document.reason}", money)
            return
        detail, money = _compare(document, observed)
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

    def orders(self, desired: Mapping[Key, Document | Invalid]) -> None:
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
                type_, _, rest = external.removeprefix(f"{self._name}/").partition("/")
                ref = (type_, rest.rpartition("/")[0])
                entry = self._entries.get(ref)
                gone = entry is not None and entry.state == "gone" and not entry.dirty
                if gone and kind == "customer":
                    continue  # the shop deletes buyers, the ERP's books keep them
                detail = f"{kind} {observed.reference}" + (", deleted in the shop and kept" if gone else "")
                self._found(ref, "ignored" if gone else "in the ERP only", detail, -_amount(observed.record))

    def _found(self, ref: Key, result: Class, detail: str, money: Decimal) -> None:
        entry = self._entries.get(ref)
        if entry is None:
            detail += "; the sink has not heard of it"
        self.report.findings.append(Finding(*ref, _explanation(entry) or result, detail, money))


def _explanation(entry: _Entry | None) -> Class | None:
    """Why a difference is no surprise. A document that the ledger does not know is one: it may be lost."""
    if entry is None:
        return None
    if entry.state in ("held", "waits"):
        return "held"
    if entry.state == "ignored":
        return "ignored"
    if entry.dirty or entry.state in ("due", "settling", "retry"):
        return "in flight"
    return "planned" if entry.state == "planned" else None


def _ledger(middle: Connection) -> dict[Key, _Entry]:
    with transaction(middle) as cursor:
        cursor.execute("SELECT type, key, state, incarnation, needed, seen < marked, marked FROM ordertap.document")
        return {(row[0], row[1]): _Entry(*row[2:]) for row in cursor.fetchall()}


def _kinds(profile: Profile, prices: bool) -> set[Kind]:
    """Where the ERP owns the prices they carry no key of ours."""
    kinds: set[Kind] = {KIND_OF[rule.model] for rule in profile.documents.values()}
    return kinds if prices else kinds - {"price"}


def readable(shop: Connection, profile: Profile) -> None:
    """Whether the profile's SQL runs in the shop; SettingsError when it does not."""
    with transaction(shop, "REPEATABLE READ READ ONLY") as cursor:
        cursor.execute("SET LOCAL search_path = public")
        for rule in profile.documents.values():
            build(cursor, rule, ["0"])  # a key that need not exist: the names and rights are looked at all the same


def _desired(connection: Connection, path: str, profile: Profile) -> dict[Key, Document | Invalid]:
    found: dict[Key, Document | Invalid] = {}
    with transaction(connection, "REPEATABLE READ READ ONLY") as cursor:
        cursor.execute("SELECT set_config('search_path', quote_ident(%s), true)", (path,))
        for name, rule in profile.documents.items():
            keys = all_keys(cursor, rule)
            for key, built in build(cursor, rule, keys).items():
                if not isinstance(built, (Missing, NotReady)):
                    found[name, key] = built
    return found


def _given_back(
    desired: Mapping[Key, Document | Invalid],
) -> tuple[dict[str, dict[str, Decimal]], dict[str, Decimal], dict[str, set[Key]]]:
    """Per order: quantity that came back by line, money given back, and the documents that say so."""
    goods: dict[str, dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    money: dict[str, Decimal] = defaultdict(Decimal)
    parts: dict[str, set[Key]] = defaultdict(set)
    for ref, document in desired.items():
        if isinstance(document, ReturnOrder):
            for line in document.lines:
                goods[document.order][f"line:{line.order_line}"] += line.quantity
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
    for line, sold in sorted(observed.record.lines.items()) if goods is not None else ():
        quantity = _number(sold, "quantity")
        ours = quantity - (goods or {}).get(line, _ZERO)
        theirs = quantity - sum(observed.returned.get(line, {}).values())
        if ours != theirs:
            found.append(f"{line}: {ours.normalize():f} remain in the shop, {theirs.normalize():f} in the ERP")
    difference = _ZERO
    if money is not None:
        refunded = sum(observed.refunded.values(), _ZERO)
        difference = refunded - money
        if difference:
            found.append(f"{money} given back in the shop, {refunded} in the ERP")
    return "; ".join(found), difference


def _compare(document: Document, observed: Observed | None) -> tuple[str, Decimal]:
    """What differs, '' for nothing, and the money of it."""
    wanted = record(document, {})
    cancelled = isinstance(document, SalesOrder) and document.status == "cancelled"
    if observed is None:
        return "not in the ERP", _amount(wanted)
    if cancelled or observed.milestone is Milestone.CANCELLED:
        same = cancelled and observed.milestone is Milestone.CANCELLED
        return ("", _ZERO) if same else ("cancelled on one side only", _amount(wanted))
    names = differing(wanted.fields, observed.record.fields, wanted.fields.keys() & observed.record.fields.keys())
    lines = [key for key in {*wanted.lines, *observed.record.lines} if not _same_line(wanted, observed.record, key)]
    rates, moved = _rates(document, observed.record) if isinstance(document, SalesOrder) else ([], _ZERO)
    if not names and not lines:
        return "", _ZERO
    return ", ".join([*names, *sorted(lines), *rates]), _amount(wanted) - _amount(observed.record) or moved


def _rates(order: SalesOrder, in_erp: ErpRecord) -> tuple[list[str], Decimal]:
    """Per tax rate whose net or tax differs: both sides; and how much gross is under a wrong rate."""
    ours = totals.per_rate(order)
    theirs: dict[Decimal, totals.Sums] = {}
    for line in in_erp.lines.values():
        rate = _number(line, "tax_rate")
        added = totals.Sums(_number(line, "net"), _number(line, "tax"), _number(line, "gross"))
        theirs[rate] = totals.total([theirs.get(rate, totals.Sums()), added])
    found, moved = [], _ZERO
    for rate in sorted({*ours, *theirs}):
        one, other = ours.get(rate, totals.Sums()), theirs.get(rate, totals.Sums())
        if one != other:
            moved += abs(one.gross - other.gross)
            found.append(
                f"{rate.normalize():f} %: net {one.net} tax {one.tax}, the ERP net {other.net} tax {other.tax}"
            )
    return found, moved


def _same_line(one: ErpRecord, other: ErpRecord, key: str) -> bool:
    if key not in one.lines or key not in other.lines:
        return False
    names = (one.lines[key].keys() & other.lines[key].keys()) - {"sku", "name"}  # a placeholder item is no difference
    return not differing(one.lines[key], other.lines[key], names)


def _amount(value: ErpRecord) -> Decimal:
    return _number(value.fields, "amount" if value.kind == "price" else "gross")


def _number(fields: Fields, name: str) -> Decimal:
    found = fields.get(name)
    return found if isinstance(found, Decimal) else _ZERO
