"""A person's decisions about a document, and their effect on the plan. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self, cast

from sink.documents.records import fields_from_json, fields_to_json
from sink.erp.contract import Observed
from sink.erp.kinds import ErpRecord, Fields, Milestone, PartKind, differing
from sink.planning.policy import Check, Disputed
from sink.planning.together import FIGURES, group_of


@dataclass(frozen=True)
class Decisions:
    """`fields`: accepted differences. `kept`: the version that stays as the ERP has it, "" for none. `released`: check
    → the version that may pass it. `overruled`: fields changed in the ERP that version `overruled_of` may overwrite.
    `linked`: the ERP's document that this one is (`hand:7`), "" for none."""

    fields: tuple[Disputed, ...] = ()
    kept: str = ""
    released: Mapping[str, str] = field(default_factory=dict)
    linked: str = ""
    overruled: tuple[Disputed, ...] = ()
    overruled_of: str = ""

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> Self:
        """From the column `decisions`; None: no decision."""
        if not value:
            return cls()
        fields = disputed_from_json(value.get("fields", []))
        overruled = disputed_from_json(value.get("overruled", []))
        kept, linked, of = (value.get(name, "") for name in ("settled", "linked", "overruled_of"))
        return cls(fields, kept, value.get("released", {}), linked, overruled, of)

    def to_json(self) -> dict[str, Any]:
        """For the ledger."""
        return {
            "fields": disputed_to_json(self.fields),
            "settled": self.kept,
            "released": dict(self.released),
            "linked": self.linked,
            "overruled": disputed_to_json(self.overruled),
            "overruled_of": self.overruled_of,
        }

    def accepting(self, fields: Iterable[Disputed]) -> Self:
        """Adds accepted fields. A new decision about a field replaces the old one."""
        new = {one[:3]: one for one in fields}
        return replace(self, fields=(*(one for one in self.fields if one[:3] not in new), *new.values()))

    def releasing(self, check: str, version: str, fields: Iterable[Disputed]) -> Self:
        """Lets a version pass a check. For changes in the ERP this goes field by field: the shop's values are written
        over these values once, and not over later ones. The ledger deletes `overruled` with the outcome."""
        if check == Check.CHANGED:
            return replace(self, overruled=tuple(fields), overruled_of=version)
        return replace(self, released={**self.released, check: version})

    def about(self, version: str) -> Self:
        """Without the decisions about another version. They are used up once the shop is seen to have this one: if the
        other one comes again, the ERP may have something else by then. All stay if `version` is "" (not built)."""
        if not version:
            return self
        kept = self.kept if self.kept == version else ""
        released = {check: of for check, of in self.released.items() if of == version}
        return replace(self, kept=kept, released=released)

    def keeps(self, version: str) -> bool:
        """Whether this version stays as the ERP has it."""
        return bool(version) and self.kept == version

    def overrules(self, version: str) -> tuple[Disputed, ...]:
        """The fields in the ERP that this version may overwrite."""
        return self.overruled if version and self.overruled_of == version else ()

    def passes(self, version: str) -> frozenset[str]:
        """The checks that this version may pass."""
        return frozenset(check for check, of in self.released.items() if version and of == version)


def disputed_to_json(fields: Iterable[Disputed]) -> list[dict[str, Any]]:
    """For the ledger."""
    return [
        {**one._asdict(), **{side: fields_to_json(getattr(one, side)) for side in ("ours", "theirs", "wrote")}}
        for one in fields
    ]


def disputed_from_json(values: Iterable[Mapping[str, Any]]) -> tuple[Disputed, ...]:
    """The inverse of `disputed_to_json`."""
    return tuple(
        Disputed(
            *(one[name] for name in ("part", "key", "name")),
            *(fields_from_json(one[side]) for side in ("ours", "theirs", "wrote")),
            *(one.get(name, "") for name in ("by", "at")),  # earlier releases did not write these
        )
        for one in values
    )


def agreed(
    desired: ErpRecord, applied: ErpRecord, observed: Observed, accepted: Iterable[Disputed]
) -> tuple[ErpRecord, ErpRecord]:
    """Both records with the ERP's value of each accepted field, as long as shop and ERP have the accepted values. If
    either has changed, the field is compared again as if nothing had been accepted; one of the figures takes all
    accepted figures with it."""
    if not (said := list(accepted)):
        return desired, applied
    seen = _with_state(observed)
    changed = [one for one in said if not _stands(one, desired, seen)]
    if any(_adds_up(desired, one) for one in changed):
        changed += [one for one in said if _adds_up(desired, one) and one not in changed]
    for one in changed:
        if not _like(_value(desired, one), one.theirs):
            applied = as_written(applied, [one])
    stands = [one for one in said if one not in changed]
    return as_erp_has_it(desired, stands), as_erp_has_it(applied, stands)


def with_overruled(applied: ErpRecord, observed: Observed, overruled: Iterable[Disputed]) -> ErpRecord:
    """What counts as written for fields that a person has released: the ERP's present values. So they are no edits any
    more, and the shop's values are a change of them."""
    if not (released := list(overruled)):
        return applied
    seen = _with_state(observed)
    return as_erp_has_it(applied, [one for one in released if _like(_value(seen, one), one.theirs)])


def _stands(one: Disputed, desired: ErpRecord, seen: ErpRecord) -> bool:
    """Whether shop and ERP still have the accepted values."""
    return _like(_value(desired, one), one.ours) and (_unknown(seen, one) or _like(_value(seen, one), one.theirs))


def _adds_up(record: ErpRecord, one: Disputed) -> bool:
    return group_of(record.kind, one.part, one.name) == FIGURES


def as_erp_has_it(record: ErpRecord, fields: Iterable[Disputed]) -> ErpRecord:
    """A record with the ERP's values of these fields."""
    for one in fields:
        record = _with(record, one, one.theirs)
    return record


def as_written(applied: ErpRecord, fields: Iterable[Disputed]) -> ErpRecord:
    """The record that was written, before accepted values of the ERP replaced these fields."""
    for one in fields:
        if _like(_value(applied, one), one.theirs):
            applied = _with(applied, one, one.wrote)
    return applied


def _with_state(observed: Observed) -> ErpRecord:
    cancelled = observed.milestone is Milestone.CANCELLED
    return replace(observed.record, fields={**observed.record.fields, "cancelled": cancelled})


def _all_of(record: ErpRecord, one: Disputed) -> Fields | None:
    return record.parts.get(cast(PartKind, one.part), {}).get(one.key) if one.part else record.fields


def _value(record: ErpRecord, one: Disputed) -> Fields | None:
    fields = _all_of(record, one)
    return fields if fields is None or not one.name else {one.name: fields.get(one.name)}


def _unknown(seen: ErpRecord, one: Disputed) -> bool:
    """Whether this ERP does not give the field back."""
    if one.part and one.part not in seen.parts:
        return True
    fields = _all_of(seen, one)
    return bool(one.name) and fields is not None and one.name not in fields


def _like(one: Fields | None, other: Fields | None) -> bool:
    if one is None or other is None:
        return one is other
    return not differing(one, other)


def _with(record: ErpRecord, one: Disputed, side: Fields | None) -> ErpRecord:
    if not one.part:
        return replace(record, fields={**record.fields, **(side or {})})
    part = cast(PartKind, one.part)
    rows = dict(record.parts.get(part, {}))
    if not one.name and side is None:
        rows.pop(one.key, None)
    elif not one.name:
        rows[one.key] = side or {}
    elif one.key in rows:
        rows[one.key] = {**rows[one.key], **(side or {})}
    return replace(record, parts={**record.parts, part: rows})
