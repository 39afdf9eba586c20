"""Differences between desired and applied (the shop's changes), and between applied and observed (edits in the ERP).
Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final

from sink.erp.contract import Change, Observed
from sink.erp.kinds import (
    BY_HAND,
    ErpRecord,
    ErpRef,
    Fields,
    Kind,
    Milestone,
    PartKind,
    Value,
    differing,
    is_personal,
    not_kept,
    same,
    shown,
)
from sink.planning.policy import Check, Disputed, Hold
from sink.planning.together import as_in_erp, group_of

_CHANGE_OF: Final[Mapping[Kind, Change]] = {
    "customer": "change customer",
    "return": "change return",
    "refund": "change refund",
    "price": "change price list",
}


def changes(desired: ErpRecord, applied: ErpRecord) -> set[Change]:
    """The rows of the planner's table for the difference. Empty if both are cancelled."""
    if desired.fields.get("cancelled") and applied.fields.get("cancelled"):
        return set()
    names = [name for name in differing(desired.fields, applied.fields) if not _stays(name, desired, applied)]
    if desired.kind != "order":
        differs = names or _children(desired, applied)
        return {_CHANGE_OF[desired.kind]} if differs else set()
    found = {_of_head(name, desired) for name in names}
    grown = _grown(desired, applied)
    for part, _, wanted, was in _children(desired, applied):
        found |= _of_child(part, wanted, was, grown)
    return found


def of_groups(
    desired: ErpRecord, applied: ErpRecord, observed: Observed, groups: Collection[str]
) -> tuple[Disputed, ...]:
    """The differing fields of these groups, with the values of shop and ERP."""
    found = []
    for name in differing(desired.fields, applied.fields):
        if group_of(desired.kind, "", name) in groups and not _stays(name, desired, applied):
            known = as_in_erp(applied, observed).fields
            found.append(_disputed(("", ""), name, desired.fields, known, applied.fields))
    for part, key, wanted, was in _children(desired, applied):
        if group_of(desired.kind, part, "") in groups:
            rows = observed.record.parts.get(part, applied.parts[part])
            found.append(Disputed(part, key, "", wanted, rows.get(key), was))
    return tuple(found)


def together(edits: Collection[Disputed], more: Collection[Disputed]) -> tuple[Disputed, ...]:
    """Joins fields that a person has changed in the ERP with the shop's changes in the same groups. A child that the
    shop has changed appears once, as a whole."""
    whole = {one[:2] for one in more if not one.name}
    found = {one[:3]: one for one in edits if one[:2] not in whole or not one.part}
    return tuple(found.values()) + tuple(one for one in more if one[:3] not in found)


def groups_of(which: Collection[Change], desired: ErpRecord, applied: ErpRecord) -> set[str]:
    """The groups of the fields that these changes touch."""
    if not which:
        return set()
    kind, other = desired.kind, _CHANGE_OF.get(desired.kind)
    found = {
        group_of(kind, "", name)
        for name in differing(desired.fields, applied.fields)
        if (other or _of_head(name, desired)) in which and not _stays(name, desired, applied)
    }
    grown = _grown(desired, applied)
    for part, _, wanted, was in _children(desired, applied):
        if not ({other} if other else _of_child(part, wanted, was, grown)).isdisjoint(which):
            found.add(group_of(kind, part, ""))
    return found


def edited_in_erp(desired: ErpRecord, applied: ErpRecord, observed: Observed) -> Hold | None:
    """The hold for fields of the shop that someone changed in the ERP, unless the shop wants the same value now."""
    currency = applied.fields.get("currency")
    found = _edits(("", ""), desired.fields, applied.fields, observed.record.fields, currency)
    for part, rows in observed.record.parts.items():  # only the kinds of children that this ERP keeps
        if part not in applied.parts:
            continue
        wanted, before = desired.parts.get(part, {}), applied.parts[part]
        for key in sorted({*before, *rows}):
            was, now = before.get(key), rows.get(key)
            if was is not None and now is not None:
                found += _edits((part, key), wanted.get(key), was, now, currency)
            elif (key in wanted) != (now is not None):
                said = f"{part}:{key} is {'missing' if now is None else 'new'}"
                found.append((said, Disputed(part, key, "", wanted.get(key), now, was)))
    cancelled = observed.milestone is Milestone.CANCELLED
    both = {bool(one.fields.get("cancelled")) for one in (desired, applied)}
    if both == {not cancelled}:
        ours, theirs = {"cancelled": desired.fields.get("cancelled")}, {"cancelled": cancelled}
        said = "it was cancelled" if cancelled else "it was opened again"
        found.append((said, Disputed("", "", "cancelled", ours, theirs, ours)))
    if not found:
        return None
    return Hold(
        f"changed in the ERP: {'; '.join(said for said, _ in found[:5])}",
        "undo it in the ERP, or make the same change in the shop, then `sink retry`",
        check=Check.CHANGED,
        disputed=tuple(one for _, one in found),
    )


def done_by_hand(desired: ErpRecord, applied: ErpRecord, observed: Observed) -> ErpRecord | None:
    """What counts as written after a person did in the ERP what the shop wants; None if nobody did.

    A cancellation or a reopening counts by itself, everything else only as a whole. Fields that the ERP does not give
    back are not compared, and are no sign that something was done.
    """
    was, now = bool(applied.fields.get("cancelled")), observed.milestone is Milestone.CANCELLED
    if was is not now and now is bool(desired.fields.get("cancelled")):
        return replace(applied, fields={**applied.fields, "cancelled": now})
    stays = {name for name in applied.fields if name == "cancelled" or _stays(name, desired, applied)}
    wanted = replace(desired, fields={**desired.fields, **{name: applied.fields[name] for name in stays}})
    done = not not_kept(wanted, observed.record) and not_kept(applied, observed.record)
    return wanted if done else None


def _stays(name: str, desired: ErpRecord, applied: ErpRecord) -> bool:
    """Whether the field is a collective account on both sides. The order then stays on the account that it is booked
    to."""
    both = (desired.fields.get(name), applied.fields.get(name))
    return all(isinstance(value, ErpRef) and value.external.startswith(BY_HAND) for value in both)


def _children(one: ErpRecord, other: ErpRecord) -> list[tuple[PartKind, str, Fields | None, Fields | None]]:
    """Kind, key and both sides of each child that differs. Kinds that an earlier release did not write are no
    change."""
    found: list[tuple[PartKind, str, Fields | None, Fields | None]] = []
    for part in one.parts.keys() & other.parts.keys():
        here, there = one.parts[part], other.parts[part]
        for key in {**here, **there}:
            fields, others = here.get(key), there.get(key)
            if fields is None or others is None or differing(fields, others):
                found.append((part, key, fields, others))
    return found


def _grown(desired: ErpRecord, applied: ErpRecord) -> set[PartKind]:
    """The kinds of children of which the order has more than before: lines, if there are more lines; the others, if
    there are more children in all. A child in place of another is no added one."""
    now, before = ({part: len(rows) for part, rows in one.parts.items()} for one in (desired, applied))
    found: set[PartKind] = {"charge", "discount"} if sum(now.values()) > sum(before.values()) else set()
    return found | {"line"} if now.get("line", 0) > before.get("line", 0) else found


def _of_child(part: PartKind, wanted: Fields | None, was: Fields | None, grown: Collection[PartKind]) -> set[Change]:
    if was is None and part in grown:
        return {"add lines" if part == "line" else "add charges"}
    if wanted is None or was is None:
        return {"change quantities" if part == "line" else "change prices"}
    names = {*differing(wanted, was)}
    found: set[Change] = {"change tax rates"} if "tax_rate" in names else set()
    if part == "line" and {"quantity", "sku"} & names:
        found.add("change quantities")
    return found or {"change prices"}


def _of_head(name: str, desired: ErpRecord) -> Change:
    if name == "cancelled":
        return "cancel" if desired.fields.get(name) else "reopen"
    if name in ("net", "tax", "gross", "tax_included"):
        return "change prices"
    if name == "number":
        return "change number"
    if name.startswith(("billing_", "shipping_")):
        return "change addresses"
    return "change payment" if name in ("paid", "payment_means", "payment_reference") else "change head"


def _edit(where: str, name: str, applied: Fields, observed: Fields, currency: Value) -> str:
    """The edit in words, without the values of personal fields."""
    if not where and is_personal(name):
        return f"{name}: it is not what we wrote"
    was, now = (shown(fields.get(name), name, currency) for fields in (applied, observed))
    return f"{where}{name}: we wrote {was}, the ERP has {now}"


def _disputed(place: tuple[str, str], name: str, ours: Fields, theirs: Fields, wrote: Fields) -> Disputed:
    return Disputed(*place, name, {name: ours.get(name)}, {name: theirs.get(name)}, {name: wrote.get(name)})


def _edits(
    place: tuple[str, str], desired: Fields | None, applied: Fields, observed: Fields, currency: Value
) -> list[tuple[str, Disputed]]:
    """Each edit in words, and with both values. `observed` has only fields that the ERP gives back. `desired` None: the
    shop no longer has the child."""
    where, wanted = f"{':'.join(place)} " if place[0] else "", desired or {}
    return [
        (
            _edit(where, name, applied, observed, currency),
            Disputed(*place, "", None, observed, applied)
            if desired is None
            else _disputed(place, name, wanted, observed, applied),
        )
        for name in observed
        if not same(observed[name], applied.get(name)) and not same(observed[name], wanted.get(name))
    ]
