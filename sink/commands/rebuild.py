"""`sink rebuild`: what a changed profile would make of what the ERP has."""

from __future__ import annotations

from collections.abc import Iterator

from sink.columns import in_columns
from sink.erp.money import money
from sink.operations.rebuild import Rebuild


def lines(found: Rebuild, execute: bool) -> Iterator[str]:
    """By kind and what would become of it."""
    count = sum(one.documents for one in found.changes)
    yield f"{found.looked_at} documents were made by another profile, or nobody knows by which; {count} would change"
    if found.changes:
        rows = [
            (
                one.documents,
                one.alike.type,
                one.alike.would,
                one.alike.currency or "",
                money(one.before, one.alike.currency),
                money(one.after, one.alike.currency),
            )
            for one in found.changes
        ]
        yield from in_columns(("documents", "document", "would", "currency", "in the ERP", "after it"), rows)
    if not execute:
        yield "nothing was changed; --execute has those looked at anew, once `sink run` was restarted with this profile"
        return
    yield f"{found.marked} are looked at anew; more than the brake lets pass wait for `sink release --mass`"
