"""`sink release`: what may pass, said before it is done."""

from __future__ import annotations

from collections.abc import Iterator

from sink.commands import held
from sink.commands.accept import DRY, both_sides
from sink.documents.refs import DocumentRef
from sink.operations.release import Released, ReleasedAll


def all_lines(found: ReleasedAll, execute: bool) -> Iterator[str]:
    """What the check holds, as `sink held` shows it; and that it may go."""
    yield from held.lines(found.held)
    count = found.released if execute else sum(group.documents for group in found.held)
    yield f"{count} {'pass' if execute else 'would pass'} check `{found.check}` as they are now; the brake counts them"
    if not execute:
        yield DRY


def lines(ref: DocumentRef, found: Released, execute: bool) -> Iterator[str]:
    """Which check, and what it found."""
    passes = "passes" if execute else "would pass"
    yield f"{ref} {passes} check `{found.check}` as it is now: {found.reason}"
    yield from both_sides(found.fields, found.currency)
    if not execute:
        yield DRY
