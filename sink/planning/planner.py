"""What to do in the ERP: desired against applied against what the ERP shows. Pure, and ruled by a table.

The table is for an accountant to read: a row per change that the shop can make, a column per state that the ERP's
document can be in. `send` makes the change in the ERP; a sentence holds the document and says why. Every change of a
document needs its cell to be `send`; the first cell that is not holds it as a whole.

What else the shop changed is written before `cancel`, so that a cancelled order shows the shop's last figures. An order
that was cancelled before the ERP was told of it gets no document.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, Literal, NamedTuple

from sink.erp.contract import Cause, Command, Observed
from sink.erp.kinds import ErpRecord, Fields, Kind, Milestone, Value

SEND: Final = "send"
POSTED: Final = (
    "the ERP has invoiced it, and posted documents are not changed: credit it or invoice the difference there"
)
SHIPPED: Final = "goods have left: correct it by a return or a further delivery"
CLOSED: Final = "its accounting period is closed: book it in an open one"
UNDONE: Final = "it is cancelled in the ERP"

_COLUMNS: Final = tuple(Milestone)

#                         draft  confirmed  part delivered  delivered  invoiced  paid    closed  cancelled
_ORDER: Final = {
    "change prices":      (SEND, SEND,      SEND,           SEND,      POSTED,   POSTED, CLOSED, UNDONE),
    "change quantities":  (SEND, SEND,      SHIPPED,        SHIPPED,   POSTED,   POSTED, CLOSED, UNDONE),
    "change addresses":   (SEND, SEND,      SHIPPED,        SHIPPED,   POSTED,   POSTED, CLOSED, UNDONE),
    "change payment":     (SEND, SEND,      SEND,           SEND,      SEND,     SEND,   CLOSED, UNDONE),
    "change head":        (SEND, SEND,      SHIPPED,        SHIPPED,   POSTED,   POSTED, CLOSED, UNDONE),
    "cancel":             (SEND, SEND,      SHIPPED,        SHIPPED,   POSTED,   POSTED, CLOSED, SEND),
    "reopen":             (UNDONE,) * 8,
    "return goods":       (SEND, SEND,      SEND,           SEND,      SEND,     SEND,   CLOSED, UNDONE),
    "refund money":       (SEND, SEND,      SEND,           SEND,      SEND,     SEND,   CLOSED, SEND),
}  # fmt: skip
_OTHER: Final = {
    "change return":      (SEND, SEND,      SHIPPED,        SHIPPED,   POSTED,   POSTED, CLOSED, UNDONE),
    "change refund":      (SEND, POSTED,    POSTED,         POSTED,    POSTED,   POSTED, CLOSED, UNDONE),
    "change customer":    (SEND,) * 6 + (CLOSED, UNDONE),
    "change price list":  (SEND,) * 6 + (CLOSED, UNDONE),
    "remove price":       (SEND,) * 6 + (CLOSED, SEND),
}  # fmt: skip

TABLE: Final[Mapping[str, Mapping[Milestone, str]]] = {
    change: dict(zip(_COLUMNS, cells, strict=True)) for change, cells in (_ORDER | _OTHER).items()
}
_CHANGE_OF: Final[Mapping[Kind, str]] = {
    "customer": "change customer",
    "return": "change return",
    "refund": "change refund",
    "price": "change price list",
}


class Hold(NamedTuple):
    """The document waits for a person (or for the ERP's master data)."""

    reason: str
    next_step: str
    cause: Cause = "decision"


@dataclass(frozen=True)
class Policy:
    """What the settings decide."""

    prices_owner: Literal["shop", "erp"]
    order_deleted: Literal["hold", "keep"] = "hold"


def plan(
    desired: ErpRecord | None,
    applied: ErpRecord | None,
    observed: Observed | None,
    policy: Policy,
    order: Observed | None = None,
) -> list[Command] | Hold:
    """The commands that make the ERP's document what the shop wants, or why a person must look.

    desired: None when the shop has it no more. applied: what we wrote last, None before the first create. observed:
    what the ERP shows now. order: for returns and refunds, what the ERP shows of their order.
    """
    if desired is None:
        return _deleted(applied, observed, policy)
    if desired.kind == "price" and policy.prices_owner == "erp":
        return []
    capped = _cap(desired, order)
    if applied is None:
        return capped or _create(desired, observed)
    if observed is None:
        return Hold(
            "it was made in the ERP and is no longer there; it is not made a second time",
            "restore it in the ERP, then `sink retry`",
        )
    edited = _edited_in_erp(desired, applied, observed)
    if edited is not None:
        return edited
    changes = _changes(desired, applied)
    if not changes:
        return []
    for change in changes:
        refused = _refused(change, observed.milestone)
        if refused is not None:
            return refused
    return capped or _commands(desired, applied, changes, observed.milestone)


def same(one: Value, other: Value) -> bool:
    """Equal by value: 1.0 is 1.00, an instant is one in any zone, an empty text is no text."""
    if isinstance(one, datetime) and isinstance(other, datetime):
        return _instant(one) == _instant(other)
    return (None if one == "" else one) == (None if other == "" else other)


def _instant(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value


def differing(one: Fields, other: Fields, names: Iterable[str] | None = None) -> list[str]:
    """The names of fields whose values differ; a field that is not there counts as empty."""
    every = sorted({*one, *other}) if names is None else sorted(names)
    return [name for name in every if not same(one.get(name), other.get(name))]


def _create(desired: ErpRecord, observed: Observed | None) -> list[Command] | Hold:
    if observed is not None:
        return Hold(
            "the ERP has a document with this key that the ledger knows nothing of",
            "restore the ledger's backup, or remove the document from the ERP, then `sink retry`",
        )
    if desired.fields.get("cancelled"):
        return []
    if desired.kind in ("order", "return") and not desired.lines:
        return Hold(f"the {desired.kind} has no lines", "mend it in the shop", "data")
    return [Command("create", desired)]


def _deleted(applied: ErpRecord | None, observed: Observed | None, policy: Policy) -> list[Command] | Hold:
    """A delete in the shop is not by itself a cancellation: a shop purges old orders too."""
    if applied is None or applied.kind == "customer":
        return []
    if applied.kind == "price":
        if policy.prices_owner == "erp" or observed is None or observed.milestone is Milestone.CANCELLED:
            return []
        return _refused("remove price", observed.milestone) or [Command("remove", applied, expected=observed.milestone)]
    if policy.order_deleted == "keep":
        return []
    return Hold(
        f"the {applied.kind} was deleted in the shop; the ERP has it still",
        "cancel it in the ERP if it is void, or set order_deleted: keep",
    )


def _cap(desired: ErpRecord, order: Observed | None) -> Hold | None:
    if desired.kind not in ("return", "refund") or order is None:
        return None
    change = "return goods" if desired.kind == "return" else "refund money"
    refused = _refused(change, order.milestone, "its order: ")
    if refused is not None:
        return refused
    return _return_cap(desired, order) if desired.kind == "return" else _refund_cap(desired, order)


def _return_cap(desired: ErpRecord, order: Observed) -> Hold | None:
    """Never more than was sold less what the ERP shows as come back, by whomever."""
    wanted: dict[str, Decimal] = {}
    for line in desired.lines.values():
        name, quantity = str(line["order_line"]), line["quantity"]
        wanted[name] = wanted.get(name, Decimal(0)) + (quantity if isinstance(quantity, Decimal) else Decimal(0))
    for name, quantity in sorted(wanted.items()):
        sold = _number(order.record.lines.get(name, {}), "quantity")
        others = order.returned.get(name, {})
        back = sum((count for number, count in others.items() if number != desired.fields["number"]), Decimal(0))
        if quantity > sold - back:
            return Hold(
                f"{name}: {quantity.normalize():f} come back, sold {sold.normalize():f}, "
                f"back already {back.normalize():f}",
                "compare the returns in shop and ERP, then `sink retry`",
            )
    return None


def _refund_cap(desired: ErpRecord, order: Observed) -> Hold | None:
    """Never more money than was paid less what the ERP shows as given back."""
    paid = _number(order.record.fields, "paid")
    others = (sum_ for number, sum_ in order.refunded.items() if number != desired.fields["number"])
    given = sum(others, Decimal(0))
    gross = _number(desired.fields, "gross")
    if gross <= paid - given:
        return None
    return Hold(
        f"{gross} to give back, paid {paid}, already given back {given}", "compare shop and ERP, then `sink retry`"
    )


def _edited_in_erp(desired: ErpRecord, applied: ErpRecord, observed: Observed) -> Hold | None:
    """A field that the shop owns and someone changed in the ERP, to something else than what the shop wants now."""
    found = _edits("", desired.fields, applied.fields, observed.record.fields)
    for key in sorted({*applied.lines, *observed.record.lines}):
        was, now = applied.lines.get(key), observed.record.lines.get(key)
        if was is None or now is None:
            if (key in desired.lines) != (now is not None):
                found.append(f"{key} is {'missing' if now is None else 'new'}")
        else:
            found += _edits(f"{key} ", desired.lines.get(key, {}), was, now)
    cancelled = observed.milestone is Milestone.CANCELLED
    if cancelled and not applied.fields.get("cancelled") and not desired.fields.get("cancelled"):
        found.append("it was cancelled")
    if not found:
        return None
    return Hold(
        f"changed in the ERP: {'; '.join(found[:5])}",
        "undo it in the ERP, or make the same change in the shop, then `sink retry`",
    )


def _edits(where: str, desired: Fields, applied: Fields, observed: Fields) -> list[str]:
    """Only fields that the adapter maps are in `observed`."""
    return [
        f"{where}{name}: we wrote {_shown(applied.get(name))}, the ERP has {_shown(observed[name])}"
        for name in observed
        if not same(observed[name], applied.get(name)) and not same(observed[name], desired.get(name))
    ]


def _shown(value: Value) -> str:
    return "nothing" if value is None or value == "" else f"{value}"


def _changes(desired: ErpRecord, applied: ErpRecord) -> list[str]:
    """The rows of the table that the difference falls under; none where both sides have cancelled it."""
    if desired.fields.get("cancelled") and applied.fields.get("cancelled"):
        return []
    if desired.kind != "order":
        same_lines = desired.lines.keys() == applied.lines.keys() and not any(
            differing(fields, applied.lines[key]) for key, fields in desired.lines.items()
        )
        return [] if same_lines and not differing(desired.fields, applied.fields) else [_CHANGE_OF[desired.kind]]
    found = {_head_change(name, desired) for name in differing(desired.fields, applied.fields)}
    for key in {*desired.lines, *applied.lines}:
        one, other = desired.lines.get(key), applied.lines.get(key)
        if one is None or other is None:
            found.add("change quantities" if key.startswith("line:") else "change prices")
            continue
        names = differing(one, other)
        if names:
            found.add("change quantities" if {"quantity", "sku"} & {*names} else "change prices")
    return [change for change in TABLE if change in found]


def _head_change(name: str, desired: ErpRecord) -> str:
    if name == "cancelled":
        return "cancel" if desired.fields.get(name) else "reopen"
    if name in ("net", "tax", "gross"):
        return "change prices"
    if name.startswith(("billing_", "shipping_")):
        return "change addresses"
    return "change payment" if name in ("paid", "payment_means", "payment_reference") else "change head"


def _refused(change: str, milestone: Milestone, whose: str = "") -> Hold | None:
    cell = TABLE[change][milestone]
    return None if cell == SEND else Hold(f"{whose}{change}, but {cell}", "settle it in the ERP, then `sink retry`")


def _commands(desired: ErpRecord, applied: ErpRecord, changes: list[str], milestone: Milestone) -> list[Command]:
    """What else changed comes before a cancellation: the ERP's cancelled order shows the shop's last figures."""
    if "cancel" not in changes:
        return [_amend(desired, applied, milestone)]
    cancel = Command("cancel", desired, expected=milestone)
    if changes == ["cancel"]:
        return [cancel]
    open_still = ErpRecord(desired.kind, {**desired.fields, "cancelled": False}, desired.lines)
    return [_amend(open_still, applied, milestone), cancel]


def _amend(desired: ErpRecord, applied: ErpRecord, milestone: Milestone) -> Command:
    fields = {name: desired.fields.get(name) for name in differing(desired.fields, applied.fields)}
    lines: dict[str, Fields] = {}
    for key, line in desired.lines.items():
        before = applied.lines.get(key)
        names = list(line) if before is None else differing(line, before)
        if names:
            lines[key] = {name: line.get(name) for name in names}
    removed = tuple(sorted(applied.lines.keys() - desired.lines.keys()))
    return Command("amend", desired, fields, lines, removed, milestone)


def _number(fields: Fields, name: str) -> Decimal:
    value = fields.get(name)
    return value if isinstance(value, Decimal) else Decimal(0)
