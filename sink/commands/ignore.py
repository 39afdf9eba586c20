"""`sink ignore`: what is left alone, and what stays in the ERP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sink.commands.accept import DRY
from sink.ledger.decisions import Left


def lines(found: Sequence[Left], undo: bool, execute: bool) -> Iterator[str]:
    """Each document with what the ERP has of it."""
    done = ("is" if execute else "would be") + (" looked after again" if undo else " ignored for ever")
    for one in found:
        stays = "the ERP has nothing of it" if one.reference is None else f"{one.reference or 'it'} stays in the ERP"
        yield f"{one.ref} {done}; {stays}"
    if not execute:
        yield DRY
