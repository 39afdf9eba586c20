"""What the comparison of shop and ERP came to: for people, and for machines. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, Literal

from sink.erp.kinds import KINDS

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
_ZERO: Final = Decimal(0)
_WITH_MONEY: Final = ("order", "refund")


@dataclass(frozen=True)
class Difference:
    """One document; `difference` is shop less ERP in money, or what moved between tax rates where the sum is right."""

    type: str
    key: str
    result: Class
    detail: str = ""
    difference: Decimal = _ZERO


@dataclass
class KindSums:
    """Of one kind of document: how many there are and what they come to, cancelled ones without their money."""

    shop: int = 0
    erp: int = 0
    shop_money: Decimal = _ZERO
    erp_money: Decimal = _ZERO


@dataclass
class Report:
    """All of it. `agreed` counts documents per kind, `foreign` those of the ERP that no shop knows: typed in by hand.
    Those belong to the ERP and are no difference; what they take back or refund of a shop's order is."""

    findings: list[Difference] = field(default_factory=list)
    agreed: Counter[str] = field(default_factory=Counter)
    foreign: Counter[str] = field(default_factory=Counter)
    sums: dict[str, KindSums] = field(default_factory=lambda: defaultdict(KindSums))

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
