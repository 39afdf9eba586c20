"""Verbs that only look: nothing is changed by them, neither here nor in the ERP."""

from __future__ import annotations

from typing import Annotated

import typer

from schemas.errors import ExitCode
from sink import wiring
from sink.cli.options import LOOK, Config, Json, answer, group, say, settings_of
from sink.commands import held, reconcile, status
from sink.operations import holds

app = group()


@app.command("status", rich_help_panel=LOOK)
def _status(as_json: Json = False, config: Config = None) -> None:
    """How many documents are where, the lag, and gaps.

    Example: `sink status --json`
    """
    settings = settings_of(config)
    connection, offsets = wiring.middle(settings), wiring.group(settings)
    whole = settings.require_snapshot
    answer(
        as_json,
        lambda: status.found(connection, offsets, whole),
        lambda: status.lines(connection, offsets, whole),
    )


@app.command("held", rich_help_panel=LOOK)
def _held(as_json: Json = False, config: Config = None) -> None:
    """Each document that waits for someone: why, and what to do.

    Example: `sink held`
    """
    found = holds.held(wiring.middle(settings_of(config)))
    answer(as_json, lambda: found, lambda: held.lines(found))


@app.command("reconcile", rich_help_panel=LOOK)
def _reconcile(
    config: Config = None,
    as_json: Json = False,
    wait: Annotated[float, typer.Option(help="Seconds to wait for agreement before saying so.")] = 0.0,
) -> None:
    """Compares counts and money of shop and ERP.

    Exit code 0 only when both agree, held documents included. Each difference has a class; `in flight`, `held`,
    `planned` and `ignored` are explained, see `--json`. Example: `sink reconcile --wait 30`
    """
    settings = settings_of(config)
    with reconcile.progress(quiet=as_json) as tell:
        report = reconcile.agreed(lambda: wiring.reconciled(settings, tell), wait)
    say(reconcile.lines(report, as_json))
    raise typer.Exit(0 if report.agrees else ExitCode.FAILED)
