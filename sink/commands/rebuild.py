"""`sink rebuild`: what a changed profile would change in the ERP."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import typer

from sink import wiring
from sink.columns import in_columns
from sink.commands.options import REPAIR, Config, Execute, Json, Person, settings_of, verbs
from sink.commands.output import answer, decided
from sink.erp.money import money
from sink.operations import rebuild
from sink.operations.rebuild import Rebuild

app = verbs()


@app.command("rebuild", rich_help_panel=REPAIR)
def _rebuild(person: Person, as_json: Json = False, execute: Execute = False, config: Config = None) -> None:
    """Says what a changed profile would change in the ERP.

    --execute looks at these documents again.

    Example: `sink rebuild --person Ada`
    """
    settings = settings_of(config)
    with typer.progressbar(length=1, label="builds documents", file=sys.stderr) as bar:

        def progress(looked_at: int, every: int) -> None:
            bar.length = max(every, looked_at)
            bar.update(looked_at - bar.pos)

        found = rebuild.rebuild(
            wiring.middle(settings),
            wiring.profile(settings),
            settings.shop,
            wiring.rules(settings).policy.placeholder,
            settings.require_snapshot,
            person,
            execute,
            progress,
        )
    answer(as_json, lambda: decided(execute, found), lambda: lines(found, execute))


def lines(found: Rebuild, execute: bool) -> Iterator[str]:
    """A table by type and what would happen."""
    count = sum(one.documents for one in found.changes)
    yield f"{found.looked_at} documents were made by another profile, or by an unknown one; {count} would change"
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
        yield "nothing was changed; --execute looks at them again, once `sink run` is restarted with this profile"
        return
    yield f"{found.marked} are looked at again; what the brake holds waits for `sink release --mass`"
