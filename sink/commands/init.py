"""`sink init`: what the ERP lacks before a first document, said before it is made."""

from __future__ import annotations

from collections.abc import Iterator

from sink.operations.init import Init

NOTHING_HERE = (
    "nothing is made in an ERP of this kind: its tables and items are its own, and `sink check` names what it needs"
)


def lines(found: Init | None, execute: bool) -> Iterator[str]:
    """One by one; None: this kind of ERP is not set up by us."""
    if found is None:
        yield NOTHING_HERE
        return
    for one in found.to_make:
        if one.message in found.made:
            yield f"made: {one.message}"
        elif one.message in found.refused:
            refused = found.refused[one.message]
            yield f"NOT made: {one.message}: {refused.message}\n    next: {refused.hint}"
        else:
            yield f"{one.message}\n    {one.hint}"
    for one in found.by_hand:
        yield f"by hand: {one.message}\n    next: {one.hint}"
    yield _end(found, execute)


def _end(found: Init, execute: bool) -> str:
    if not found.to_make:
        return "nothing is left to make"
    if not execute:
        return f"nothing was changed; --execute makes these {len(found.to_make)}"
    return f"{len(found.made)} of {len(found.to_make)} made; next: `sink check`"
