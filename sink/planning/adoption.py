"""Links the shop's document to one that people typed into the ERP, and matches their lines. Pure.

A line of the shop and one of the ERP match if SKU and quantity are equal (for a return: the sold line; for a charge:
its kind); if several do, the amount has to be equal, too. Then lines match that are the only ones left of their SKU.
Equal lines are paired if both sides have the same number of them; otherwise they are ambiguous.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import NamedTuple, TypeAlias

from sink.erp.contract import Observed, Step, TypedIn, basis
from sink.erp.kinds import BY_HAND, ErpRecord, ErpRef, Fields, Milestone, PartKind, Value
from sink.planning.policy import Check, Hold

_UNLINK = "`sink unlink` if it is another one"


class Target(NamedTuple):
    """The ERP's document that a person has named. `seen` None: it is gone, or has our keys already."""

    ref: ErpRef
    seen: Observed | None


def as_target(hand: ErpRef, observed: Mapping[ErpRef, Observed], becoming: Mapping[ErpRef, ErpRef]) -> Target:
    """The target as the ERP shows it. References to documents that get our keys first (`becoming`) are replaced by
    those keys."""
    seen = observed.get(hand)
    if seen is None:
        return Target(hand, None)
    links = {name: becoming[to] for name, to in seen.record.fields.items() if isinstance(to, ErpRef) and to in becoming}
    return Target(hand, replace(seen, record=replace(seen.record, fields={**seen.record.fields, **links})))


class Child(NamedTuple):
    """A line, charge, discount or component of one side."""

    part: PartKind
    key: str
    fields: Fields

    @property
    def named(self) -> str:
        """For people."""
        return f"{self.part}:{self.key}"


class Matched(NamedTuple):
    """Pairs of ours and theirs, those on one side only, and ours that are ambiguous."""

    pairs: Sequence[tuple[Child, Child]]
    ours: Sequence[Child]
    theirs: Sequence[Child]
    unclear: Sequence[Child]


def matched(desired: ErpRecord, found: ErpRecord) -> Matched:
    """Matches the children of both sides. Of the ERP's, only those typed in by hand: the others have keys."""
    ours, theirs = list(_children(desired)), [one for one in _children(found) if one.key.startswith(BY_HAND)]
    pairs: list[tuple[Child, Child]] = []
    unclear: list[Child] = []
    for alike in (_exactly, _by_quantity, _by_item):
        for some, others in _groups(ours, theirs, alike):
            if len(some) == len(others) == 1 or (alike is _exactly and len(some) == len(others)):
                pairs += zip(some, others, strict=True)
            elif alike is _by_quantity:
                unclear += some
            else:
                continue
            ours = [one for one in ours if one not in some]
            theirs = [one for one in theirs if one not in others]
    return Matched(pairs, ours, theirs, unclear)


def adopt(ref: ErpRef, desired: ErpRecord, target: Target, key: int) -> list[Step] | Hold:
    """The step that gives our keys to the ERP's document and changes nothing else. `key`: that of the last step."""
    seen = target.seen
    if seen is None:
        gone = "which the ERP no longer has, or which has a key of ours"
        reason = f"it was linked to {target.ref.external}, {gone}"
        return Hold(reason, f"look it up in the ERP; {_UNLINK}", check=Check.LINK)
    if (on := basis(seen)) is None:
        return Hold(seen.problem, "correct it in the ERP, then `sink retry`", check=Check.UNREADABLE)
    found = matched(desired, seen.record)
    if found.unclear:
        return Hold(unclear(found), f"make them distinct in the ERP, then `sink retry`; {_UNLINK}", check=Check.LINK)
    children = {theirs.key: ref.child(ours.part, ours.key).external for ours, theirs in found.pairs}
    want = with_keys(desired, seen, found)
    return [Step(ref, "adopt", want, on, on.milestone, max(key, seen.key) + 1, TypedIn(target.ref.external, children))]


def with_keys(desired: ErpRecord, seen: Observed, found: Matched) -> ErpRecord:
    """The ERP's document with our keys. Fields that this ERP does not keep are the shop's."""
    fields = {**desired.fields, **seen.record.fields}
    if "cancelled" in desired.fields:
        fields["cancelled"] = seen.milestone is Milestone.CANCELLED
    parts: dict[PartKind, dict[str, Fields]] = {
        part: {} if part in seen.record.parts else {**rows} for part, rows in desired.parts.items()
    }
    taken = {theirs.key for _, theirs in found.pairs}
    for one in _children(seen.record):
        if one.key not in taken:
            parts.setdefault(one.part, {})[one.key] = one.fields
    for ours, theirs in found.pairs:
        parts[ours.part][ours.key] = {**ours.fields, **theirs.fields}
    return ErpRecord(desired.kind, fields, parts, desired.payments)


def unclear(found: Matched) -> str:
    """Names the ambiguous lines, for people."""
    names = ", ".join(one.named for one in found.unclear[:5])
    return f"the ERP has several lines that could be {names}, or fewer than the shop"


_Alike: TypeAlias = Callable[[Child], tuple[str, ...]]


def _groups(ours: Sequence[Child], theirs: Sequence[Child], alike: _Alike) -> Iterator[tuple[list[Child], list[Child]]]:
    """Groups of equal children that both sides have."""
    for what in dict.fromkeys(map(alike, ours)):
        some, others = ([one for one in side if alike(one) == what] for side in (ours, theirs))
        if others:
            yield some, others


def _by_item(one: Child) -> tuple[str, ...]:
    sold = one.fields.get("order_line")
    what = one.fields.get("sku") or (sold.external if isinstance(sold, ErpRef) else None)
    return (str(what), "") if what else ("", str(one.fields.get("kind")))


def _by_quantity(one: Child) -> tuple[str, ...]:
    return (*_by_item(one), _plain(one.fields.get("quantity")))


def _exactly(one: Child) -> tuple[str, ...]:
    return (*_by_quantity(one), _plain(one.fields.get("gross")))


def _plain(value: Value) -> str:
    """1.0 is 1.00."""
    return f"{value.normalize():f}" if isinstance(value, Decimal) else str(value)


def _children(record: ErpRecord) -> Iterator[Child]:
    for part, rows in record.parts.items():
        for key, fields in rows.items():
            yield Child(part, key, fields)
