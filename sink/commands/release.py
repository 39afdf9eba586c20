"""`sink release`: what may pass, said before it is done."""

from __future__ import annotations

from collections.abc import Iterator

from sink.commands.accept import DRY
from sink.documents.refs import DocumentRef
from sink.operations.release import Released


def lines(ref: DocumentRef, found: Released, execute: bool) -> Iterator[str]:
    """Which check, and what it found."""
    passes = "passes" if execute else "would pass"
    yield f"{ref} {passes} check `{found.check}` as it is now: {found.reason}"
    if not execute:
        yield DRY
