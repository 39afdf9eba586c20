"""`sink link` and `sink unlink`: which documents of shop and ERP are one, and what differs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sink.commands.accept import DRY
from sink.erp.commands import ChangedField, value
from sink.erp.kinds import is_personal
from sink.erp.money import money
from sink.operations.link import Linked, LinkedRow, Unlinked


def lines(found: Linked, execute: bool) -> Iterator[str]:
    """Both sides, line by line, and what differs."""
    yield f"{found.ref} {'is' if execute else 'would be'} taken for {_which(found)}"
    for ours, theirs in found.lines.items():
        yield f"    {ours} is the ERP's {theirs}"
    for one in found.differences:
        yield f"    {_differs(one, found.currency)}"
    if not execute:
        yield DRY


def of_file(found: Sequence[LinkedRow], execute: bool) -> Iterator[str]:
    """Each line of it, and how many are well."""
    for one in found:
        if one.linked:
            yield f"line {one.number}: {one.ref} is {_which(one.linked)}; {len(one.linked.differences)} differences"
        else:
            yield f"line {one.number}: {one.ref} is left out: {one.refused}; next: {one.next_step}"
    well = sum(one.linked is not None for one in found)
    yield f"{well} of {len(found)} {'are' if execute else 'would be'} linked"
    if not execute:
        yield DRY


def undone(found: Unlinked, execute: bool) -> Iterator[str]:
    """What comes of it."""
    yield f"{found.ref} {'is' if execute else 'would be'} no more taken for {found.hand}; the ERP gets one of its own"
    if not execute:
        yield DRY


def _which(found: Linked) -> str:
    ours, theirs = (money(amount, found.currency) for amount in (found.ours, found.theirs))
    amounts = f": {ours} in the shop, {theirs or 'nothing'} in the ERP" if ours else ""
    return f"{found.hand} of the ERP ({found.reference}, {found.milestone}){amounts}"


def _differs(one: ChangedField, currency: str | None) -> str:
    if not one.part and is_personal(one.name):
        return f"{one.name} differs"
    ours, theirs = (value(side, one.name, currency) for side in (one.one, one.other))
    return f"{one.where}: the shop has {ours}, the ERP has {theirs}"
