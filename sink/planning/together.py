"""Which fields of a document stand or fall together. Pure.

A hold of one field keeps all of its group as the ERP has it, and no field of another group. What adds up is one group:
an order's amounts with its lines, charges and discounts; a refund's with its components; a return with its lines; a
price as a whole. So is what makes sense only as a whole: each address, who a customer is. What was paid is no part of
what was sold for: it is written though the amounts are not, and though a person has written down other means.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final

from sink.erp.contract import Observed
from sink.erp.kinds import ErpRecord, Kind, Milestone

FIGURES: Final = "figures"
"""The name of what adds up; other groups are `billing`, `shipping`, `identity`, and a field that stands alone."""

_ADDING_UP: Final[Mapping[Kind, frozenset[str]]] = {
    "customer": frozenset(),
    "order": frozenset({"net", "tax", "gross", "currency", "tax_included"}),
    "return": frozenset({"order"}),
    "refund": frozenset({"net", "tax", "gross", "currency", "order"}),
    "price": frozenset(),
}
_IDENTITY: Final = frozenset({"name", "company", "tax_id", "kind"})


def group_of(kind: Kind, part: str, name: str) -> str:
    """Of a field of the head (`part` is ""), or of a child: all of those are one group."""
    if part or kind == "price" or name in _ADDING_UP[kind]:
        return FIGURES
    if kind == "customer" and name in _IDENTITY:
        return "identity"
    address = name.partition("_")[0]
    return address if address in ("billing", "shipping") else name


def with_groups(record: ErpRecord, groups: Collection[str], other: ErpRecord) -> ErpRecord:
    """A record with these groups as another one has them."""
    theirs = {name for name in {*record.fields, *other.fields} if group_of(record.kind, "", name) in groups}
    fields = {name: value for name, value in record.fields.items() if name not in theirs}
    fields |= {name: value for name, value in other.fields.items() if name in theirs}
    parts = other.parts if FIGURES in groups else record.parts
    payments = other.payments if "paid" in groups else record.payments
    return replace(record, fields=fields, parts=parts, payments=payments)


def as_in_erp(applied: ErpRecord, observed: Observed) -> ErpRecord:
    """What the ERP has: what was written, with what it shows of it."""
    seen = observed.record
    cancelled = {"cancelled": observed.milestone is Milestone.CANCELLED} if "cancelled" in applied.fields else {}
    parts = dict(applied.parts)
    for part, rows in seen.parts.items():
        before = applied.parts.get(part, {})
        parts[part] = {key: {**before.get(key, {}), **fields} for key, fields in rows.items()}
    return replace(applied, fields={**applied.fields, **seen.fields, **cancelled}, parts=parts)
