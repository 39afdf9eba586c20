"""Which fields of a document are held or sent together. Pure.

A hold on one field keeps its whole group as the ERP has it, and no other group. What adds up is one group: an order's
amounts with its lines, charges and discounts; a refund's with its components; a return with its lines; a whole price.
So is what makes sense only as a whole: each address, and a customer's identity. What was paid is a group of its own: it
is sent even if the amounts are held, or a person has changed the means of payment in the ERP.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final

from sink.erp.contract import Observed
from sink.erp.kinds import ErpRecord, Kind, Milestone

FIGURES: Final = "figures"
"""The group of what adds up. Other groups: `billing`, `shipping`, `identity`, and each other field by itself."""

_FIRST: Final = frozenset({"paid", "payment_means", "payment_reference", "billing", "shipping"})
"""An order's groups that wait for nothing else."""

_ADDING_UP: Final[Mapping[Kind, frozenset[str]]] = {
    "customer": frozenset(),
    "order": frozenset({"net", "tax", "gross", "currency", "tax_included"}),
    "return": frozenset({"order"}),
    "refund": frozenset({"net", "tax", "gross", "currency", "order"}),
    "price": frozenset(),
}
_IDENTITY: Final = frozenset({"name", "company", "tax_id", "kind"})


def group_of(kind: Kind, part: str, name: str) -> str:
    """The group of a field of the head (`part` is ""), or of a child: all children are in FIGURES."""
    if part or kind == "price" or name in _ADDING_UP[kind]:
        return FIGURES
    if kind == "customer" and name in _IDENTITY:
        return "identity"
    address = name.partition("_")[0]
    return address if address in ("billing", "shipping") else name


def after_others(groups: Collection[str]) -> set[str]:
    """The groups that are sent by themselves once the ERP has refused all of these in one: payment and addresses go
    first. Empty if all would go first, or none."""
    first = _FIRST.intersection(groups)
    return set(groups) - first if first else set()


def with_groups(record: ErpRecord, groups: Collection[str], other: ErpRecord) -> ErpRecord:
    """`record`, with these groups taken from `other`."""
    if not groups:
        return record
    theirs = {name for name in {*record.fields, *other.fields} if group_of(record.kind, "", name) in groups}
    fields = {name: value for name, value in record.fields.items() if name not in theirs}
    fields |= {name: value for name, value in other.fields.items() if name in theirs}
    parts = other.parts if FIGURES in groups else record.parts
    payments = other.payments if "paid" in groups else record.payments
    return replace(record, fields=fields, parts=parts, payments=payments)


def as_in_erp(applied: ErpRecord, observed: Observed) -> ErpRecord:
    """What the ERP has: the record written last, overlaid with what the ERP shows."""
    seen = observed.record
    cancelled = {"cancelled": observed.milestone is Milestone.CANCELLED} if "cancelled" in applied.fields else {}
    parts = dict(applied.parts)
    for part, rows in seen.parts.items():
        before = applied.parts.get(part, {})
        parts[part] = {key: {**before.get(key, {}), **fields} for key, fields in rows.items()}
    return replace(applied, fields={**applied.fields, **seen.fields, **cancelled}, parts=parts)
