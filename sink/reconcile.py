"""Do shop and ERP agree in counts and money? Reads both sides anew, and gives each difference a class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from sink.build import Missing, NotReady, all_keys, build
from sink.database import Connection, transaction
from sink.documents import Document, SalesOrder
from sink.erp import Erp, Kind, Milestone, Observed, Record
from sink.planner import differing
from sink.profile import Profile
from sink.records import KIND_OF, record

Class = Literal["agree", "in flight", "held", "ignored", "missing in the ERP", "in the ERP only", "differs"]
EXPLAINED = ("agree", "in flight", "held", "ignored")


@dataclass(frozen=True)
class Finding:
    """One document; `difference` is shop less ERP in money."""

    type: str
    key: str
    result: Class
    detail: str = ""
    difference: Decimal = Decimal(0)


@dataclass
class Report:
    """All of it. `agreed` counts documents per kind."""

    findings: list[Finding] = field(default_factory=list)
    agreed: Counter[str] = field(default_factory=Counter)

    @property
    def difference(self) -> Decimal:
        """Money that differs, added without sign so that errors do not cancel out."""
        return sum((abs(finding.difference) for finding in self.findings), Decimal(0))

    @property
    def agrees(self) -> bool:
        """Whether nothing is left to do or to explain: a held or late document does not agree yet."""
        return not self.findings

    @property
    def explained(self) -> bool:
        """Whether each difference has a reason that is known."""
        return all(finding.result in EXPLAINED for finding in self.findings)

    def summary(self) -> str:
        """The one line for people."""
        counted = f"{self.agreed['order']} orders, {self.agreed['return']} returns, {self.agreed['price']} prices"
        if self.agrees:
            return f"agree: {counted}, difference {self.difference:.2f}"
        classes = Counter(finding.result for finding in self.findings)
        parts = ", ".join(f"{count} {name}" for name, count in sorted(classes.items()))
        return f"DISAGREE: {parts}; agreed {counted}, difference {self.difference:.2f}"

    def to_json(self) -> dict[str, Any]:
        """For machines; amounts as text."""
        return {
            "agrees": self.agrees,
            "explained": self.explained,
            "agreed": dict(self.agreed),
            "difference": str(self.difference),
            "findings": [{**vars(finding), "difference": str(finding.difference)} for finding in self.findings],
        }


def reconcile(
    middle: Connection, shop: Connection | None, name: str, profile: Profile, erp: Erp, collective: bool
) -> Report:
    """Compares. `shop`: the shop's own database, read-only; None: what is staged of it."""
    desired = _desired(shop or middle, "public" if shop else name, profile)
    with transaction(middle) as cursor:
        cursor.execute("SELECT type, key, state, incarnation, needed, seen < marked FROM ordertap.document")
        entries = {(row[0], row[1]): row[2:] for row in cursor.fetchall()}
    kinds: set[Kind] = {KIND_OF[rule.model] for rule in profile.documents.values()}
    in_erp = {kind: dict(erp.figures(kind, f"{name}/").records) for kind in kinds}
    report = Report()
    for (type_, key), document in sorted(desired.items()):
        kind = KIND_OF[type(document)]
        state, incarnation, needed, dirty = entries.get((type_, key), ("due", 1, False, True))
        observed = in_erp[kind].pop(f"{name}/{type_}/{key}/{incarnation}", None)
        if kind == "customer" and observed is None and (collective or not needed):
            continue
        detail, money = _compare(document, observed)
        if not detail:
            report.agreed[kind] += 1
        else:
            result = _class(state, dirty, observed)
            report.findings.append(Finding(type_, key, result, detail, money))
    _left_over(report, in_erp, entries, name)
    return report


def _left_over(
    report: Report, in_erp: Mapping[Kind, Mapping[str, Observed]], entries: Mapping[Any, Any], name: str
) -> None:
    for kind, records in in_erp.items():
        for external, observed in records.items():
            if observed.milestone is Milestone.CANCELLED:
                continue
            type_, key, _ = external.removeprefix(f"{name}/").split("/", 1)[0], external.split("/", 2)[2], None
            key = key.rpartition("/")[0]
            held = entries.get((type_, key), ("",))[0] == "held"
            money = -_amount(observed.record)
            result: Class = "held" if held else "in the ERP only"
            report.findings.append(Finding(type_, key, result, f"{kind} {observed.reference}", money))


def _class(state: str, dirty: bool, observed: Observed | None) -> Class:
    if state in ("held", "waits"):
        return "held"
    if state == "ignored":
        return "ignored"
    if dirty or state in ("due", "settling", "retry", "planned"):
        return "in flight"
    return "missing in the ERP" if observed is None else "differs"


def _desired(connection: Connection, path: str, profile: Profile) -> dict[tuple[str, str], Document]:
    found: dict[tuple[str, str], Document] = {}
    with transaction(connection, "REPEATABLE READ READ ONLY") as cursor:
        cursor.execute("SELECT set_config('search_path', quote_ident(%s), true)", (path,))
        for name, rule in profile.documents.items():
            keys = all_keys(cursor, rule)
            for key, built in build(cursor, rule, keys).items():
                if isinstance(built, (Missing, NotReady)):
                    continue
                if not isinstance(built, tuple):
                    found[name, key] = built
    return found


def _compare(document: Document, observed: Observed | None) -> tuple[str, Decimal]:
    """What differs, '' for nothing, and the money of it."""
    wanted = record(document, {})
    cancelled = isinstance(document, SalesOrder) and document.status == "cancelled"
    if observed is None:
        return ("", Decimal(0)) if cancelled else ("not in the ERP", _amount(wanted))
    if cancelled or observed.milestone is Milestone.CANCELLED:
        same = cancelled and observed.milestone is Milestone.CANCELLED
        return ("", Decimal(0)) if same else ("cancelled on one side only", _amount(wanted))
    names = differing(wanted.fields, observed.record.fields, wanted.fields.keys() & observed.record.fields.keys())
    lines = [key for key in {*wanted.lines, *observed.record.lines} if not _same_line(wanted, observed.record, key)]
    if not names and not lines:
        return "", Decimal(0)
    return ", ".join([*names, *sorted(lines)]), _amount(wanted) - _amount(observed.record)


def _same_line(one: Record, other: Record, key: str) -> bool:
    if key not in one.lines or key not in other.lines:
        return False
    names = (one.lines[key].keys() & other.lines[key].keys()) - {"sku", "name"}  # a placeholder item is no difference
    return not differing(one.lines[key], other.lines[key], names)


def _amount(value: Record) -> Decimal:
    found = value.fields.get("amount" if value.kind == "price" else "gross")
    return found if isinstance(found, Decimal) else Decimal(0)
