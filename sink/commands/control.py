"""`sink go-live`, `sink pause`, `sink resume`: what a person's word does to applying as a whole."""

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
    """Lets a shop in `mode: plan` send what was planned.

    And all that follows; says first what that is. Example: `sink go-live --person Ada`
    """
    settings = settings_of(config)
    applies = settings.mode == "apply"
    found = going_live.go_live(wiring.middle(settings), applies, settings.require_snapshot, person, execute)
    answer(as_json, lambda: decided(execute, found), lambda: go_live(found, execute))


@app.command("pause", rich_help_panel=DECIDE)
def _pause(
    person: Person,
    reason: Annotated[str, typer.Option(help="Why, for whoever asks `sink status`.")] = "",
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Sends nothing more to the ERP until `sink resume`.

    All copies of the sink stop sending, and go on staging. Example: `sink pause --person Ada --reason "stocktaking"`
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
    """That nothing more is sent."""
    control.pause(connection, person, reason)
    yield "paused: no copy of the sink begins another call to the ERP; one that is under way ends, and staging goes on"
    yield "next: `sink resume --person NAME` when it shall go on"


def resume(connection: Connection, person: str) -> Iterator[str]:
    """That it goes on."""
    yield f"applying goes on; it was paused {control.resume(connection, person)}"


def go_live(found: GoesLive, execute: bool) -> Iterator[str]:
    """What is sent by it."""
    yield from plan.sums(found.planned)
    for cause, count in sorted(found.held.items()):
        yield f"{count} held or waiting ({cause}): they go when that is settled, see `sink held`"
    if found.due:
        yield f"{found.due} are not planned yet"
    yield "they go to the ERP now, and all that follows" if execute else "nothing was changed; --execute sends it"
