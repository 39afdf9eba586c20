"""`sink go-live`, `sink pause` and `sink resume`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from sink import wiring
from sink.commands import plan
from sink.commands.options import DECIDE, Config, Execute, Json, Person, settings_of, verbs
from sink.commands.output import answer, decided
from sink.database import Connection
from sink.operations import control
from sink.operations import go_live as going_live
from sink.operations.go_live import GoesLive

app = verbs()


@app.command("go-live", rich_help_panel=DECIDE)
def _go_live(person: Person, as_json: Json = False, execute: Execute = False, config: Config = None) -> None:
    """Sends what was planned for a shop in `mode: plan`.

    And everything that follows. Shows the plan's sums first.

    Example: `sink go-live --person Ada`
    """
    settings = settings_of(config)
    applies = settings.mode == "apply"
    found = going_live.go_live(wiring.middle(settings), applies, settings.require_snapshot, person, execute)
    answer(as_json, lambda: decided(execute, found), lambda: go_live(found, execute))


@app.command("pause", rich_help_panel=DECIDE)
def _pause(
    person: Person,
    reason: Annotated[str, typer.Option(help="Why; `sink status` shows it.")] = "",
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Sends nothing more to the ERP until `sink resume`.

    All sinks stop sending. Staging continues.

    Example: `sink pause --person Ada --reason "stocktaking"`
    """
    lines = list(pause(wiring.middle(settings_of(config)), person, reason))
    answer(as_json, lambda: {"paused": True}, lambda: lines)


@app.command("resume", rich_help_panel=DECIDE)
def _resume(person: Person, as_json: Json = False, config: Config = None) -> None:
    """Ends `sink pause`.

    Example: `sink resume --person Ada`
    """
    given = (wiring.middle(settings_of(config)), person)
    answer(as_json, lambda: {"was_paused": control.resume(*given)}, lambda: resume(*given))


def pause(connection: Connection, person: str, reason: str) -> Iterator[str]:
    """Says that nothing more is sent."""
    control.pause(connection, person, reason)
    yield "paused: no sink starts another call to the ERP; a call under way finishes, and staging continues"
    yield "next: `sink resume --person NAME` to continue"


def resume(connection: Connection, person: str) -> Iterator[str]:
    """Says that applying goes on."""
    yield f"applying resumed; it was paused {control.resume(connection, person)}"


def go_live(found: GoesLive, execute: bool) -> Iterator[str]:
    """The plan's sums, and what is not part of the plan."""
    yield from plan.sums(found.planned)
    for cause, count in sorted(found.held.items()):
        yield f"{count} held or waiting ({cause}): they are sent once that is cleared, see `sink held`"
    if found.due:
        yield f"{found.due} are not planned yet"
    yield "they are sent now, and everything after them" if execute else "nothing was changed; --execute sends it"
