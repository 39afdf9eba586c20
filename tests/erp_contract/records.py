"""Documents of a small shop, as records for the ERP."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from sink.erp.contract import Basis, Erp, Found, HowFar, NotDone, Observed, Step, StepResult, Verb, basis
from sink.erp.kinds import ErpRecord, ErpRef, Kind, Milestone, Value
from sink.planning.planner import Standpoint, plan
from sink.planning.policy import Hold, Policy

D = Decimal
ALL: tuple[Kind, ...] = ("customer", "order", "return", "refund", "price")
REF = {kind: ErpRef(kind, f"shop/{kind}/1/1") for kind in ALL}
POLICY = Policy("shop")
Lines = Mapping[str, Mapping[str, Value]]


def line(quantity: str, unit: str, sku: str | None = "A", kind: str = "item") -> dict[str, Value]:
    """A line, or a charge, at 19 %."""
    gross = D(quantity) * D(unit)
    net = (gross / D("1.19")).quantize(D("0.01"))
    amounts: dict[str, Value] = {"net": net, "tax": gross - net, "gross": gross, "tax_rate": D(19)}
    return amounts | {
        "kind": kind, "sku": sku, "name": "x", "quantity": D(quantity), "unit_price": D(unit), "discount": D(0),
    }  # fmt: skip


def sale(lines: Lines, charges: Lines = {}, **fields: Value) -> ErpRecord:  # noqa: B006  never changed
    """An order with these lines and charges."""
    rows = [*lines.values(), *charges.values()]
    sums: dict[str, Value] = {name: sum((D(str(row[name])) for row in rows), D(0)) for name in ("net", "tax", "gross")}
    head: dict[str, Value] = {
        "number": "S-1", "account": REF["customer"], "placed_at": datetime(2026, 1, 1, 10, 0, tzinfo=UTC),
        "currency": "EUR", "tax_included": True, "paid": sums["gross"], "payment_means": "card",
        "payment_reference": None, "billing_name": "Ann", "shipping_name": "Ann", "cancelled": False,
    }  # fmt: skip
    return ErpRecord("order", head | sums | fields, {"line": lines, "charge": charges, "discount": {}})


def changed(record: ErpRecord, **fields: Value) -> ErpRecord:
    """The record with other head fields."""
    return replace(record, fields={**record.fields, **fields})


CUSTOMER = ErpRecord("customer", {"number": "100001", "name": "Ann", "email": "a@example.org", "kind": "registered"})
LINES = {"1": line("3", "10.00"), "2": line("1", "0.35", "B")}
CHARGES = {"1": line("1", "4.90", None, "charge")}
SALE = sale(LINES, CHARGES)
CHEAPER = sale({"1": line("3", "9.00"), "3": line("2", "1.00", "B")}, CHARGES)
RETURN = ErpRecord(
    "return",
    {"order": REF["order"], "number": "R-1", "returned_at": datetime(2026, 1, 5, 10, 0, tzinfo=UTC)},
    {"line": {"r1": {"order_line": REF["order"].child("line", "1"), "quantity": D(2), "reason": "too small"}}},
)
REFUND = ErpRecord(
    "refund",
    {"order": REF["order"], "number": "F-1", "currency": "EUR", "means": "card",
     "refunded_at": datetime(2026, 1, 6, 10, 0, tzinfo=UTC), "net": D("16.81"), "tax": D("3.19"), "gross": D("20.00")},
    {"component": {"c1": {"kind": "line", "order_line": REF["order"].child("line", "1"), "tax_rate": D(19),
                          "net": D("16.81"), "tax": D("3.19"), "gross": D("20.00")}}},
)  # fmt: skip
PRICE = ErpRecord(
    "price",
    {"sku": "A", "price_list": "retail", "currency": "EUR", "amount": D("10.00"), "tax_included": True,
     "valid_from": None, "valid_until": None, "minimum_quantity": D(1)},
)  # fmt: skip
BY_KIND: Mapping[Kind, ErpRecord] = {
    "customer": CUSTOMER, "order": SALE, "return": RETURN, "refund": REFUND, "price": PRICE,
}  # fmt: skip


def fewer_back(quantity: str) -> ErpRecord:
    """The return, with a line r2 of this quantity in place of r1."""
    return replace(RETURN, parts={"line": {"r2": {**RETURN.parts["line"]["r1"], "quantity": D(quantity)}}})


class Sink:
    """Plays the sink with the adapter of one process: plans from what it sees, and applies."""

    def __init__(self, erp: Erp) -> None:
        self.erp = erp

    def soon(self, seconds: float = 60) -> datetime:
        """The time in `seconds` by the ERP's clock."""
        return self.erp.clock() + timedelta(seconds=seconds)

    def apply(self, *steps: Step) -> list[StepResult]:
        """Applies steps with a deadline that is far enough away."""
        return list(self.erp.apply(steps, self.soon()))

    def done(self, step: Step) -> Observed:
        """Applies one step, which must succeed."""
        (result,) = self.apply(step)
        assert isinstance(result, Observed), result
        return result

    def seed(self, *kinds: Kind) -> None:
        """Makes one document of each kind."""
        for kind in kinds:
            self.done(create(BY_KIND[kind], REF[kind]))

    def see(self, ref: ErpRef) -> Observed:
        """Observes a document, which must exist."""
        return self.erp.observe([ref])[ref]

    def plans(self, ref: ErpRef, desired: ErpRecord | None, applied: ErpRecord | None) -> list[Step] | Hold:
        """The steps or the hold that the planner decides on."""
        kind = ref.kind
        order = self.erp.observe([REF["order"]]).get(REF["order"]) if kind in ("return", "refund") else None
        seen = self.erp.observe([ref]).get(ref) if applied else None
        return plan(ref, desired, Standpoint(applied), seen, POLICY, Found(REF["order"], order) if order else None)

    def planned(self, ref: ErpRef, desired: ErpRecord | None, applied: ErpRecord | None) -> Step:
        """The one step that the planner plans."""
        steps = self.plans(ref, desired, applied)
        assert isinstance(steps, list), steps
        assert len(steps) == 1
        return steps[0]

    def held(self, ref: ErpRef, desired: ErpRecord | None, applied: ErpRecord | None) -> str:
        """The reason why the planner plans nothing."""
        found = self.plans(ref, desired, applied)
        assert isinstance(found, Hold), found
        return found.reason

    def how_far(self, step: Step) -> HowFar:
        """How far a step came."""
        return self.erp.progress([step])[0].how_far


def create(record: ErpRecord, ref: ErpRef, key: int = 1) -> Step:
    """The first step of a document."""
    return Step(ref, "create", record, None, POLICY.goal_of(record.kind), key)


def step(verb: Verb, ref: ErpRef, want: ErpRecord, before: Observed, key: int) -> Step:
    """A later step of a document, planned on `before`."""
    on = basis(before)
    assert isinstance(on, Basis)
    goal = Milestone.CANCELLED if verb in ("cancel", "remove") else on.milestone
    return Step(ref, verb, want, on, goal, key)


def refused(results: Collection[StepResult]) -> list[str]:
    """The class of each error; "" for a step that was done."""
    return [type(one.error).__name__ if isinstance(one, NotDone) else "" for one in results]
