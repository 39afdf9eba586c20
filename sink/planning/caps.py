"""Caps returns and refunds at what was sold and paid, whoever booked the earlier ones. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from sink.erp.contract import Found, Moved, Observed, Step
from sink.erp.kinds import ErpRecord, ErpRef, Fields, count
from sink.erp.money import money
from sink.planning.policy import Check, Hold

_ZERO = Decimal(0)


def cap(ref: ErpRef, desired: ErpRecord, order: Found) -> Hold | None:
    """The hold of a return or refund that exceeds what is left of its order in the ERP. Its own earlier version does
    not count."""
    return _return_cap(ref, desired, order) if desired.kind == "return" else _refund_cap(ref, desired, order)


def with_step(order: Found, step: Step) -> Found:
    """The order as it will be after the step, for the documents planned next."""
    seen = order.observed
    if step.want.kind == "refund":
        refunded = {**seen.refunded, step.ref.external: number(step.want.fields, "gross")}
        return order._replace(observed=replace(seen, refunded=refunded))
    moved = {line: _without(one, step.ref) for line, one in seen.moved.items()}
    for line, quantity in _coming_back(step.want, order.ref).items():
        before = moved.get(line, Moved())
        moved[line] = before._replace(returned={**before.returned, step.ref.external: quantity})
    return order._replace(observed=replace(seen, moved=moved))


def as_planned(ref: ErpRef, steps: Sequence[Step], seen: Observed | None) -> Found:
    """An order as it will be after its steps, in `mode: plan`, so that documents that depend on it can be planned."""
    want, goal = steps[-1].want, steps[-1].goal
    paid = want.fields.get("paid")
    known = paid if isinstance(paid, Decimal) else None
    return Found(ref, replace(seen or Observed(want, goal, "", ""), record=want, milestone=goal, paid=known))


def number(fields: Fields, name: str) -> Decimal:
    """An amount or quantity; 0 if there is none."""
    value = fields.get(name)
    return value if isinstance(value, Decimal) else _ZERO


def _without(moved: Moved, ref: ErpRef) -> Moved:
    return moved._replace(returned={key: count for key, count in moved.returned.items() if key != ref.external})


def _coming_back(desired: ErpRecord, order: ErpRef) -> dict[str, Decimal]:
    """Quantities by line of the order."""
    found: dict[str, Decimal] = {}
    for fields in desired.parts.get("line", {}).values():
        sold = fields.get("order_line")
        line = order.part_and_key(sold.external)[1] if isinstance(sold, ErpRef) else "no line"
        found[line] = found.get(line, _ZERO) + number(fields, "quantity")
    return found


def _return_cap(ref: ErpRef, desired: ErpRecord, order: Found) -> Hold | None:
    lines = order.observed.record.parts.get("line", {})
    for line, quantity in sorted(_coming_back(desired, order.ref).items()):
        sold = number(lines.get(line, {}), "quantity")
        others = _without(order.observed.moved.get(line, Moved()), ref)
        back = sum(others.returned.values(), _ZERO)
        if quantity > sold - back:
            return Hold(
                f"line:{line}: {count(quantity)} returned now, but {count(sold)} were sold and {count(back)} already"
                " returned",
                "compare the returns in shop and ERP, then `sink retry`",
                check=Check.CAP,
            )
    return None


def _refund_cap(ref: ErpRef, desired: ErpRecord, order: Found) -> Hold | None:
    """The cap is what was paid, or the order's gross if the ERP does not say what was paid."""
    seen = order.observed
    paid = number(seen.record.fields, "gross") if seen.paid is None else seen.paid
    given = sum((sum_ for key, sum_ in seen.refunded.items() if key != ref.external), _ZERO)
    gross, of = number(desired.fields, "gross"), desired.fields.get("currency")
    if gross <= paid - given:
        return None
    came_in = f"{money(paid, of)} was paid" if seen.paid is not None else f"it was sold for {money(paid, of)}"
    return Hold(
        f"refund of {money(gross, of)} is too high: {came_in}, {money(given, of)} already refunded",
        "compare shop and ERP, then `sink retry`; if the shop has it as a payment, too, name it in the profile's"
        " column `refund` of payments, or `sink ignore` it, since `paid` is already less",
        check=Check.CAP,
    )
