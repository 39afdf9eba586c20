"""Payments and lines that the shop has deleted from a document that is still there. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from sink.documents.records import PAID, paid_by
from sink.erp.kinds import ErpRecord, Fields, differing
from sink.erp.money import money
from sink.planning.caps import number
from sink.planning.policy import Absence, Check, Hold
from sink.planning.together import FIGURES, with_groups


class _Payments(NamedTuple):
    """Payments by key: those that are gone, and those that are new."""

    gone: Mapping[str, Fields]
    new: Mapping[str, Fields]


class Present(NamedTuple):
    """What the ERP should have, and a hold on the part that stays as it was last given."""

    desired: ErpRecord
    hold: Hold | None


def with_absent(desired: ErpRecord, applied: ErpRecord, there: ErpRecord, absence: Absence) -> Present:
    """What the ERP should have if the shop has dropped something that the ERP was given. `there`: the ERP's document,
    from which a person may have removed it, too. A cancelled order is never held for this."""
    lines, payments = _lines(desired, applied, there, absence), _payments(desired, applied, absence)
    if isinstance(payments, Hold) and not differing(desired.fields, there.fields, PAID):
        payments = desired  # a person has corrected it in the ERP
    desired = with_groups(desired, PAID, applied) if isinstance(payments, Hold) else payments
    if lines:
        desired = with_groups(desired, {FIGURES}, applied)
    holds = [one for one in (lines, payments) if isinstance(one, Hold)]
    return Present(desired, holds[0] if holds and not desired.fields.get("cancelled") else None)


def _lines(desired: ErpRecord, applied: ErpRecord, there: ErpRecord, absence: Absence) -> Hold | None:
    if desired.kind != "order" or absence.lines == "amend":
        return None
    rows = [(part, key) for part, before in applied.parts.items() for key in before if key in there.parts[part]]
    gone = [f"{part}:{key}" for part, key in rows if key not in desired.parts.get(part, {})]
    if not gone:
        return None
    step = "restore it in the shop, or remove it in the ERP, then `sink retry`; `absent.lines: amend` removes it"
    return Hold(f"gone in the shop, but still in the ERP: {', '.join(gone[:5])}", step, check=Check.ABSENT)


def _payments(desired: ErpRecord, applied: ErpRecord, absence: Absence) -> ErpRecord | Hold:
    """Decides about payments that are gone. A payment replaced by one of the same or a larger amount is no loss."""
    if desired.payments is None or absence.payments == "amend":
        return desired
    if applied.payments is None:  # an earlier release kept only the sum
        lost = not desired.payments and number(applied.fields, "paid") != 0
        found = _Payments({"": applied.fields} if lost else {}, {})
    else:
        found = _gone(desired.payments, applied.payments)
    if not found.gone:
        return desired
    if absence.payments == "keep" and not found.new:
        return _kept(desired, applied, found.gone)
    paid, was, of = number(desired.fields, "paid"), number(applied.fields, "paid"), desired.fields.get("currency")
    if absence.payments == "keep" and paid >= was:
        return desired
    return Hold(
        f"paid: payments that the ERP was told of are gone in the shop: it has {money(paid, of)}, and the ERP was told"
        f" {money(was, of)}",
        "restore them in the shop, or correct it in the ERP; if the ERP is right as it is, `sink accept document`",
        check=Check.ABSENT,
    )


def _gone(now: Mapping[str, Fields], before: Mapping[str, Fields]) -> _Payments:
    """Compares by key. A payment that only has a new key is neither gone nor new."""
    gone = {key: fields for key, fields in before.items() if key not in now}
    new = {key: fields for key, fields in now.items() if key not in before}
    for key, fields in list(gone.items()):
        again = next((other for other, found in new.items() if not differing(fields, found)), None)
        if again is not None:
            del gone[key], new[again]
    return _Payments(gone, new)


def _kept(desired: ErpRecord, applied: ErpRecord, gone: Mapping[str, Fields]) -> ErpRecord:
    """Adds the payments that are gone, as the ERP was given them."""
    payments = {**gone, **(desired.payments or {})}
    before = applied.payments
    if before is None or not any(differing(payments[key], before.get(key, {})) for key in payments):
        paid: Fields = {name: applied.fields.get(name) for name in PAID}
        return replace(desired, fields={**desired.fields, **paid}, payments=before)
    return replace(desired, fields={**desired.fields, **paid_by(payments)}, payments=payments)
