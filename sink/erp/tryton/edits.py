"""The least that must be written to turn a sale as it is into one with the wanted values. Pure.

A draft takes one write. In processing, Tryton takes changes to lines and parties only by an amendment (a slip that is
made and then validated), and by a write only comment, reference and notes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

from sink.erp.contract import Change, HoldError
from sink.erp.kinds import BY_HAND
from sink.erp.tryton import notes
from sink.erp.tryton.lines import ROUNDING, child_of

Row = Mapping[str, Any]
Place = tuple[str, str]

_HEAD: Final = (
    "reference", "comment", "party", "invoice_address", "shipment_address", "sale_date", "currency", "origin",
)  # fmt: skip
_AT_ANY_TIME: Final = ("reference", "comment")
_BY_PARTIES: Final = ("invoice_address", "shipment_address")
_LINE: Final = ("product", "unit", "quantity", "unit_price", "description", "taxes", "note")
_BY_SLIP: Final = ("product", "unit", "quantity", "unit_price", "description")


_NAMES: Final = {"sale_date": "the date", "origin": "the order that it belongs to"}
_CANNOT: Final = "once an order is in processing, Tryton cannot change "
NO_MORE_LINES: Final = (
    "Tryton cannot add lines to an order in processing: enter them by hand as a separate order, or cancel it there"
)
NO_ROUNDING: Final = (
    "Tryton cannot add lines to an order in processing, and the shop's tax is not Tryton's at {} %, which"
    " would need a line of cents"
)
_AS_IT_WAS_SOLD: Final[Mapping[Change, str]] = {
    "change tax rates": f"{_CANNOT}the tax of a line",
    "change head": f"{_CANNOT}the date, the buyer, the currency",
}
BY_A_PERSON: Final = "settle it in Tryton, then `sink retry`; if it stays as it is there, `sink accept document`"


class Edit(NamedTuple):
    """head: values to write. changed: values by the line's id. new: values of new lines. gone: ids of lines to
    delete."""

    head: dict[str, Any]
    changed: dict[int, dict[str, Any]]
    new: list[dict[str, Any]]
    gone: list[int]

    def __bool__(self) -> bool:
        return bool(self.head or self.changed or self.new or self.gone)


def edit(values: Row, row: Row) -> Edit:
    """What differs. values: those that the whole sale must have, its lines as a create takes them; without `lines`, the
    lines stay."""
    head = {name: values[name] for name in _HEAD if name in values and not _same(values[name], row.get(name))}
    if "lines" not in values:
        return Edit(head, {}, [], [])
    there = {place(line): line for line in row["lines."] if line["type"] == "line" and line["quantity"]}
    wanted = {place(line): line for line in values["lines"]}
    changed: dict[int, dict[str, Any]] = {}
    for where, line in wanted.items():
        if where in there:
            differs = {name: line[name] for name in _LINE if not _same(line[name], there[where][name])}
            if "unit_price" in differs and "base_price" in line:
                differs["base_price"] = line["base_price"]
            if differs:
                changed[there[where]["id"]] = differs
    new = [line for where, line in wanted.items() if where not in there]
    return Edit(head, changed, new, [line["id"] for where, line in there.items() if where not in wanted])


def as_write(change: Edit, row: Row) -> dict[str, Any]:
    """The values for a write to a draft."""
    taxes = {line["id"]: line["taxes"] for line in row["lines."]}
    lines: list[Any] = [("write", [one], _with_taxes(some, taxes[one])) for one, some in change.changed.items()]
    if change.gone:
        lines.append(("delete", change.gone))
    if change.new:
        lines.append(("create", [created(line) for line in change.new]))
    return change.head | ({"lines": lines} if lines else {})


def created(line: Row) -> dict[str, Any]:
    """The values for a create of a line."""
    return {**line, "taxes": [("add", line["taxes"])]}


def is_notes(change: Edit) -> bool:
    """Whether only fields change that can be written in any state."""
    others = any(name != "note" for some in change.changed.values() for name in some)
    return not (others or change.new or change.gone or change.head.keys() - {*_AT_ANY_TIME})


def may_not(row: Row) -> dict[Change, str]:
    """The changes that Tryton does not take in the sale's state, each with the reason. Whether the shop's tax needs one
    more line of cents is not known before the change is worked out."""
    if row["state"] not in ("processing", "done"):
        return {}
    if any(line["type"] == "line" and not line["quantity"] for line in row["lines."]):
        return {**_AS_IT_WAS_SOLD}  # a new line takes its place
    return {"add lines": NO_MORE_LINES, "add charges": NO_MORE_LINES, **_AS_IT_WAS_SOLD}


def in_processing(change: Edit, row: Row) -> Edit:
    """The same edit without new and deleted lines. A new line takes over one that is no longer wanted and has the same
    tax; what is left of those gets the quantity 0. HoldError if Tryton cannot do it."""
    # In one order, with or without a quantity: a step that is continued must give each line the same place.
    free = [line for line in row["lines."] if line["type"] == "line"]
    free = [line for line in free if line["id"] in change.gone or not line["quantity"]]
    changed = {one: {**some} for one, some in change.changed.items()}
    missing: list[Place] = []
    for line in change.new:
        used = next((one for one in free if one["taxes"] == line["taxes"]), None)
        if used is None:
            missing.append(place(line))
            continue
        free.remove(used)
        changed[used["id"]] = {name: line[name] for name in _LINE if not _same(line[name], used[name])}
    changed |= {one["id"]: {"quantity": 0.0} for one in free if one["quantity"]}
    _refuse(change, changed, missing)
    return Edit(change.head, changed, [], [])


def _refuse(change: Edit, changed: Mapping[int, Row], missing: Collection[Place]) -> None:
    wrong = [_NAMES.get(name, name) for name in change.head if name not in (*_AT_ANY_TIME, *_BY_PARTIES)]
    wrong += ["the tax of a line"] if any("taxes" in some for some in changed.values()) else []
    if wrong:
        raise HoldError(f"{_CANNOT}{', '.join(wrong)}", BY_A_PERSON)
    cents = [rate for what, rate in missing if what == ROUNDING]
    if len(cents) < len(missing):
        raise HoldError(NO_MORE_LINES, BY_A_PERSON)
    if cents:
        raise HoldError(NO_ROUNDING.format(" % and ".join(cents)), BY_A_PERSON)


def as_slip(change: Edit, row: Row) -> list[dict[str, Any]]:
    """The lines of an amendment; none if only comment, reference and notes change."""
    rows = {line["id"]: line for line in row["lines."]}
    found: list[dict[str, Any]] = []
    for one, some in change.changed.items():
        if any(name in some for name in _BY_SLIP):
            whole = {name: some.get(name, rows[one][name]) for name in _BY_SLIP}
            quantity = float(whole["quantity"])
            found.append({"action": "line", "line": one, **whole, "quantity": quantity})
    if any(name in change.head for name in _BY_PARTIES):
        sides = {name: change.head.get(name, row[name]) for name in _BY_PARTIES}
        found.append({"action": "party", "party": row["party"], **sides})
    return found


def as_notes(change: Edit) -> dict[str, Any]:
    """The values that can be written in any state."""
    lines = [("write", [one], {"note": some["note"]}) for one, some in change.changed.items() if "note" in some]
    head = {name: change.head[name] for name in _AT_ANY_TIME if name in change.head}
    return head | ({"lines": lines} if lines else {})


def place(line: Row) -> Place:
    """What identifies a line: our key, the rate of a rounding line, or else Tryton's id."""
    noted = notes.read(line["note"])
    if ROUNDING in noted:
        return ROUNDING, str(noted[ROUNDING])
    return child_of(noted) or ("line", f"{BY_HAND}{line['id']}")


def _with_taxes(some: dict[str, Any], taxes: list[int]) -> dict[str, Any]:
    if "taxes" not in some:
        return some
    gone = [one for one in taxes if one not in some["taxes"]]
    return {**some, "taxes": [("remove", gone), ("add", [one for one in some["taxes"] if one not in taxes])]}


def _same(one: Any, other: Any) -> bool:
    """Equal by value: 1.0 equals 1, and None equals ""."""
    if isinstance(one, float | Decimal) and isinstance(other, int | float | Decimal):
        return Decimal(str(one)) == Decimal(str(other))
    return (one or None) == (other or None)
