"""A step as people read it: what is done to which kind of document, and what changes in it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

from sink.erp.contract import Step, Verb
from sink.erp.kinds import (
    ErpRecord,
    Fields,
    Kind,
    PartKind,
    Value,
    count,
    differing,
    is_personal,
    shown,
)
from sink.erp.money import money

_MOST: Final = 12


class Command(NamedTuple):
    """`goal`: the milestone to reach. `before`, `after`: the document's gross (a price: its amount); None if there is
    none. `changes`: fields as `gross: 11.90 → 9.90`, personal ones by name only, and lines; for a `create`, only
    lines."""

    verb: str
    kind: Kind
    goal: str
    currency: str | None
    before: Decimal | None
    after: Decimal | None
    changes: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """The ledger's form of it."""
        amounts = {
            name: None if one is None else str(one) for name, one in (("before", self.before), ("after", self.after))
        }
        return {**self._asdict(), **amounts, "changes": list(self.changes)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Command:
        """The reverse of `to_json`."""
        amounts = {name: None if value[name] is None else Decimal(value[name]) for name in ("before", "after")}
        return cls(**{**value, **amounts})


class ChangedField(NamedTuple):
    """`part` and `key` name a child; both are "" for the head. A child on one side only has no `name`, and None on the
    other side."""

    part: str
    key: str
    name: str
    one: Value | Fields
    other: Value | Fields

    @property
    def where(self) -> str:
        """For people: `line l1 quantity`."""
        return " ".join(filter(None, (self.part, self.key, self.name)))


def command(verb: Verb, goal: str, was: ErpRecord | None, want: ErpRecord) -> Command:
    """The command of a step that turns `was` (None: no document) into `want`."""
    currency = want.fields.get("currency")
    told = list(_lines(want) if was is None else (_told(one, currency) for one in changed_fields(was, want)))
    left = len(told) - _MOST
    changes = told if left <= 0 else [*told[:_MOST], f"and {left} more"]
    after = Decimal(0) if verb in ("cancel", "remove") else amount_of(want)
    before = None if was is None else amount_of(was)
    return Command(verb, want.kind, goal, str(currency) if currency else None, before, after, changes)


def commands(was: ErpRecord | None, steps: Sequence[Step]) -> Iterator[Command]:
    """The commands of one document's successive steps."""
    for step in steps:
        yield command(step.verb, step.goal, was, step.written)
        was = step.written


def amount_of(record: ErpRecord) -> Decimal | None:
    """Gross of a document, the amount of a price; None if it has no money."""
    found = record.fields.get("amount" if record.kind == "price" else "gross")
    return found if isinstance(found, Decimal) else None


def changed_fields(was: ErpRecord, now: ErpRecord) -> Iterator[ChangedField]:
    """The differences: first in the head, then in children of the kinds that both sides have."""
    for name in differing(was.fields, now.fields):
        yield ChangedField("", "", name, was.fields.get(name), now.fields.get(name))
    for part in [part for part in now.parts if part in was.parts]:
        yield from _changed_children(part, was.parts[part], now.parts[part])


def _changed_children(part: PartKind, was: Mapping[str, Fields], now: Mapping[str, Fields]) -> Iterator[ChangedField]:
    for key in {**was, **now}:
        if key in was and key in now:
            for name in differing(was[key], now[key]):
                yield ChangedField(part, key, name, was[key].get(name), now[key].get(name))
        else:
            yield ChangedField(part, key, "", was.get(key), now.get(key))


def unlike(want: ErpRecord, found: ErpRecord) -> Iterator[ChangedField]:
    """How an ERP's record (`other`) differs from what is wanted (`one`), in the fields and parts that both have."""
    for name in differing(want.fields, found.fields, want.fields.keys() & found.fields.keys()):
        yield ChangedField("", "", name, want.fields[name], found.fields[name])
    for part in [part for part in found.parts if part in want.parts]:
        rows = {
            key: {name: value for name, value in fields.items() if name in found.parts[part].get(key, fields)}
            for key, fields in want.parts[part].items()
        }
        there = {
            key: {name: value for name, value in fields.items() if name in rows.get(key, fields)}
            for key, fields in found.parts[part].items()
        }
        yield from _changed_children(part, rows, there)


def _lines(want: ErpRecord) -> Iterator[str]:
    for part, rows in want.parts.items():
        for key, fields in rows.items():
            yield f"{part} {key}: {_child(fields, want.fields.get('currency'))}"


def _told(one: ChangedField, currency: Value) -> str:
    if not one.part and is_personal(one.name):
        return one.name
    if not one.name:
        fields = one.other or one.one
        said = _child(fields, currency) if isinstance(fields, Mapping) else ""
        return f"{one.where}: {'new' if one.one is None else 'gone'}, {said}"
    return f"{one.where}: {value(one.one, one.name, currency)} → {value(one.other, one.name, currency)}"


def value(of: Value | Fields, name: str, currency: Value = None) -> str:
    """For people: a field's value, or a child in a few words."""
    return _child(of, currency) if isinstance(of, Mapping) else shown(of, name, currency)


def _child(fields: Fields, currency: Value) -> str:
    quantity, gross, what = fields.get("quantity"), fields.get("gross"), fields.get("sku") or fields.get("name")
    said = " x ".join(filter(None, (count(quantity) if isinstance(quantity, Decimal) else "", str(what or ""))))
    return f"{said}, {money(gross, currency)}" if isinstance(gross, Decimal) else said
