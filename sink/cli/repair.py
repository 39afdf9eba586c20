"""Verbs for what has gone wrong, and for a new release."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sink import wiring
from sink.cli.options import REPAIR, Config, Execute, Json, Person, answer, decided, group, say, settings_of
from sink.commands import migrate, offsets
from sink.commands import rebuild as rebuild_lines
from sink.operations import offsets as reading
from sink.operations import rebuild

app = group()
offsets_app = group("Where the sink resumes reading: Kafka's own committed offsets.")
app.add_typer(offsets_app, name="offsets", rich_help_panel=REPAIR)


@app.command("rebuild", rich_help_panel=REPAIR)
def _rebuild(person: Person, as_json: Json = False, execute: Execute = False, config: Config = None) -> None:
    """Says what a changed profile would change of what is done.

    With --execute those documents are looked at again. Example: `sink rebuild --person Ada`
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
    answer(as_json, lambda: decided(execute, found), lambda: rebuild_lines.lines(found, execute))


@app.command("migrate", rich_help_panel=REPAIR)
def _migrate(execute: Execute = False, as_json: Json = False, config: Config = None) -> None:
    """Brings the middle layer to this release.

    `sink run` does it too, unless staged rows would be lost by it. Example: `sink migrate`, then with `--execute`
    """
    settings = settings_of(config)
    given = (wiring.not_entered(settings), settings.shop, wiring.group(settings), wiring.tables(settings), execute)
    answer(as_json, lambda: migrate.found(*given), lambda: migrate.lines(*given))


@offsets_app.command("show")
def _offsets_show(as_json: Json = False, config: Config = None) -> None:
    """Committed, available and staged offsets per partition.

    Example: `sink offsets show`
    """
    settings = settings_of(config)
    given = (wiring.middle(settings), wiring.group(settings))
    answer(as_json, lambda: reading.show(*given), lambda: offsets.show(*given))


@offsets_app.command("reset")
def _offsets_reset(
    to: Annotated[str, typer.Option(help="earliest, latest, or a time with its zone: 2026-11-23T08:00:00+01:00")],
    execute: Execute = False,
    config: Config = None,
) -> None:
    """Moves where the sink resumes.

    Going back changes nothing in the ERP; going forward leaves a gap that is named.
    Example: `sink offsets reset --to earliest`
    """
    settings = settings_of(config)
    target = offsets.target_of(to)
    say(offsets.reset(wiring.middle(settings), wiring.group(settings), target, execute))
