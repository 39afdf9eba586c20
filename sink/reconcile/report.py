"""The result of reconcile, for people and for programs. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, Literal

from sink.erp.kinds import KINDS, Kind
from sink.erp.money import money

Class = Literal[
    "agree",
    "in flight",
    "held",
    "ignored",
    "accepted",
    "planned",
    "missing in the ERP",
    "in the ERP only",
    "differs",
    "invalid",
]
EXPLAINED: Final = ("agree", "in flight", "held", "ignored", "accepted", "planned")
MOST_LISTED: Final = 10_000
_ZERO: Final = Decimal(0)
_WITH_MONEY: Final = ("order", "refund")


@dataclass(frozen=True)
class Difference:
    """A finding about one document. `difference`: shop less ERP in money, or, if the sum is right, the gross that is
    under a wrong tax rate. `number`: for people."""

    type: str
    key: str
    result: Class
    detail: str = ""
    difference: Decimal = _ZERO
    number: str | None = None
    currency: str | None = None

    @property
    def line(self) -> str:
        """For people."""
        number = f" ({self.number})" if self.number else ""
        amount = f"{money(self.difference, self.currency)} {self.currency or ''}".rstrip()
        return f"{self.result}: {self.type} {self.key}{number}: {self.detail} ({amount})"


@dataclass
class KindSums:
    """Counts and money of one kind of document. Cancelled documents count without their money."""

    shop: int = 0
    erp: int = 0
    shop_money: Decimal = _ZERO
    erp_money: Decimal = _ZERO

    def add(self, other: KindSums) -> None:
        """Adds the sums of other documents."""
        self.shop += other.shop
        self.erp += other.erp
        self.shop_money += other.shop_money
        self.erp_money += other.erp_money


@dataclass
class Report:
    """`agreed`: documents per kind that agree; `foreign`: documents per kind that were typed into the ERP. These are no
    difference, unless they return or refund something of a shop's order.

    `findings`: the first ones; `classes`: counts of all. `as_of`, `lsn`: the moment of the shop that was compared.
    """

    findings: list[Difference] = field(default_factory=list)
    classes: Counter[Class] = field(default_factory=Counter)
    difference: Decimal = _ZERO  # the sum of differences without sign, so that errors do not cancel out
    agreed: Counter[str] = field(default_factory=Counter)
    foreign: Counter[str] = field(default_factory=Counter)
    sums: dict[str, KindSums] = field(default_factory=lambda: defaultdict(KindSums))
    as_of: datetime | None = None
    lsn: str = ""

    def add_finding(self, one: Difference) -> None:
        """Counts a finding, and lists it if there is room: an ERP that lacks everything must not fill memory."""
        self.classes[one.result] += 1
        self.difference += abs(one.difference)
        if len(self.findings) < MOST_LISTED:
            self.findings.append(one)

    def add_only_in_erp(self, kind: Kind, one: Difference) -> None:
        """Counts a document that only the ERP has."""
        self.sums[kind].erp += 1
        self.sums[kind].erp_money -= one.difference
        self.add_finding(one)

    def add(self, other: Report) -> None:
        """Adds the report of other documents."""
        room = MOST_LISTED - len(self.findings)
        self.findings += other.findings[:room]
        self.classes += other.classes
        self.difference += other.difference
        self.agreed.update(other.agreed)
        self.foreign.update(other.foreign)
        for kind, sums in other.sums.items():
            self.sums[kind].add(sums)

    @property
    def agrees(self) -> bool:
        """Whether there are no findings, not even explained ones."""
        return not self.classes

    @property
    def explained(self) -> bool:
        """Whether each finding has a known reason."""
        return all(result in EXPLAINED for result in self.classes)

    @property
    def not_listed(self) -> int:
        """How many findings are counted but not listed."""
        return self.classes.total() - len(self.findings)

    def summary(self) -> str:
        """The result in one line. It begins with `agree` only if all documents do."""
        counted = f"{self.agreed['order']} orders, {self.agreed['return']} returns, {self.agreed['price']} prices"
        if self.agrees:
            return f"agree: {counted}, difference {money(self.difference)}"
        parts = ", ".join(f"{count} {name}" for name, count in sorted(self.classes.items()))
        return f"DISAGREE: {parts}; agreed {counted}, difference {money(self.difference)}"

    def lines(self) -> list[str]:
        """For people. The summary is the last line."""
        listed = sorted(self.findings, key=lambda one: (one.type, one.key))
        lines = [one.line for one in listed]
        if self.not_listed:
            lines.append(f"and {self.not_listed} more, counted below")
        if self.foreign.total():
            counted = ", ".join(f"{count} {kind}s" for kind, count in sorted(self.foreign.items()) if count)
            lines.append(f"typed in by hand in the ERP, and not compared: {counted}")
        if self.as_of is not None:
            lines.append(f"the shop as of {self.as_of.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC, {self.lsn} in its log")
        return [*lines, *self._table(), self.summary()]

    def _table(self) -> Iterator[str]:
        """Counts and money of shop and ERP, in columns. Prices and customers have no sum."""
        yield f"{'':10} {'shop':>8} {'ERP':>8} {'shop, money':>16} {'ERP, money':>16} {'difference':>12}"
        for kind in KINDS:
            one = self.sums.get(kind)
            if one is not None:
                shop, erp, left = map(money, (one.shop_money, one.erp_money, one.shop_money - one.erp_money))
                sums = f"{shop:>16} {erp:>16} {left:>12}"
                yield f"{kind + 's':10} {one.shop:8,} {one.erp:8,} {sums if kind in _WITH_MONEY else ''}".rstrip()

    def to_json(self) -> dict[str, Any]:
        """For programs. Amounts are text."""
        return {
            "agrees": self.agrees,
            "explained": self.explained,
            "agreed": dict(self.agreed),
            "foreign": dict(self.foreign),
            "difference": str(self.difference),
            "as_of": self.as_of and self.as_of.isoformat(),
            "lsn": self.lsn,
            "not_listed": self.not_listed,
            "findings": [{**vars(finding), "difference": str(finding.difference)} for finding in self.findings],
        }
