"""Verbs that only look: nothing is changed by them, neither here nor in the ERP."""

from __future__ import annotations

from typing import Annotated

import typer

from schemas.model.errors import ExitCode
from sink import wiring
from sink.cli.options import LOOK, Cause, Config, Json, answer, expect_many_objects, group, say, settings_of
from sink.commands import brake as brake_lines
from sink.commands import held, listing, plan, reconcile, show, status
from sink.ledger.outcomes import State
from sink.operations import brake, holds
from sink.operations import listing as documents
from sink.operations.show import show as shown

app = group()


@app.command("status", rich_help_panel=LOOK)
def _status(as_json: Json = False, config: Config = None) -> None:
    """How many documents are where, the lag, and gaps.

    Example: `sink status --json`
    """
    settings = settings_of(config)
    connection, offsets = wiring.middle(settings), wiring.group(settings)
    asked = (settings.require_snapshot, wiring.profile(settings).version)
    answer(
        as_json,
        lambda: status.found(connection, offsets, *asked),
        lambda: status.lines(connection, offsets, *asked),
    )


@app.command("held", rich_help_panel=LOOK)
def _held(
    cause: Cause = "",
    limit: Annotated[int, typer.Option(min=0, help="How many documents of each reason.")] = 20,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """What waits for someone, by cause and reason, with its money.

    What is tried again by itself is listed, too. Example: `sink held --cause decision --limit 5`
    """
    found = holds.held(wiring.middle(settings_of(config)), cause, limit)
    answer(as_json, lambda: found, lambda: held.lines(found))


@app.command("show", rich_help_panel=LOOK)
def _show(
    asked: Annotated[list[str], typer.Argument(metavar="ORDER | TYPE KEY", help="A number or key, or type and key.")],
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Everything about an order: both sides, and each step.

    Or about any other document. It shows names and addresses. Examples: `sink show SO-1001`, `sink show sales_order 17`
    """
    settings = settings_of(config)
    connection, profile = wiring.middle(settings), wiring.profile(settings)
    unit = shown(connection, profile, settings.shop, lambda: wiring.erp(settings), asked)
    answer(as_json, lambda: unit, lambda: show.lines(unit))


@app.command("list", rich_help_panel=LOOK)
def _list(
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Only those of this type: sales_order")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, the oldest first.")] = 50,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Documents by state, with number and money.

    Example: `sink list --state held --type sales_order`
    """
    settings = settings_of(config)
    names = wiring.profile(settings).documents
    found = documents.listing(wiring.middle(settings), state, type_, limit, names)
    answer(as_json, lambda: found, lambda: listing.lines(found, limit))


@app.command("plan", rich_help_panel=LOOK)
def _plan(
    limit: Annotated[int, typer.Option(min=0, help="How many documents; the sums are of all.")] = 20,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """What would be sent, each command with amounts; sums by kind.

    With `mode: plan`, all that the ERP lacks. Example: `sink plan --limit 0`
    """
    found = documents.planned(wiring.middle(settings_of(config)), limit)
    answer(as_json, lambda: found, lambda: plan.lines(found))


@app.command("brake", rich_help_panel=LOOK)
def _brake(as_json: Json = False, config: Config = None) -> None:
    """What waits because the shop changed too much at once.

    And where the brake's counters stand.
    Example: `sink brake`
    """
    settings = settings_of(config)
    found = brake.show(wiring.middle(settings), wiring.rules(settings).brake)
    answer(as_json, lambda: found, lambda: brake_lines.lines(found))


@app.command("reconcile", rich_help_panel=LOOK)
def _reconcile(
    config: Config = None,
    as_json: Json = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for agreement before saying so.")] = 0.0,
) -> None:
    """Compares counts and money of shop and ERP.

    Exit code 0 only when both agree, held documents included. Each difference has a class; `in flight`, `held`,
    `planned` and `ignored` are explained, see `--json`. Example: `sink reconcile --wait 30`
    """
    settings = settings_of(config)
    expect_many_objects()
    with reconcile.progress(quiet=as_json) as tell:
        report = reconcile.agreed(lambda: wiring.reconciled(settings, tell), wait)
    say(reconcile.lines(report, as_json))
    raise typer.Exit(0 if report.agrees else ExitCode.FAILED)
