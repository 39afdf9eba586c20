"""`sink check`, `sink init` and `sink run`: from a first look to a process that stays."""

from __future__ import annotations

import sys
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from schemas.model.errors import ExitCode
from schemas.process.service import HealthServer, configure_logs, reread_event, stop_event
from sink import wiring
from sink.cli.options import (
    RUN,
    Config,
    Execute,
    Json,
    answer,
    decided,
    expect_many_objects,
    group,
    say,
    settings_of,
)
from sink.commands import check, init, output
from sink.commands.check import PartCheck
from sink.operations import init as operation
from sink.pipeline import Sink

app = group()


@app.command("check", rich_help_panel=RUN)
def _check(as_json: Json = False, config: Config = None) -> None:
    """Looks at each part that is needed, and says what mends it.

    The parts are profile, middle layer, ERP, its master data, registry, topics, shop.
    Example: `sink check -c config.yaml`
    """
    bad = 0
    found: list[PartCheck] = []
    for look in check.check(wiring.looks(settings_of(config))):
        bad += look.error is not None
        found.append(look)
        say([] if as_json else [look.line])
    say(output.said(check.report(found), [f"{bad} to mend" if bad else "all is well"], as_json))
    raise typer.Exit(ExitCode.FAILED if bad else 0)


@app.command("init", rich_help_panel=RUN)
def _init(
    user: Annotated[str, typer.Option(help="An administrator of the ERP; default: the sink's own user.")] = "",
    password_file: Annotated[Path | None, typer.Option(help="A file with that user's password.")] = None,
    execute: Execute = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Says what the ERP lacks for the shop's documents.

    With --execute it is made, once: what is there is left as it is.
    Example: `sink init --user admin --password-file /run/secrets/tryton_admin`
    """
    if bool(user) is (password_file is None):
        raise typer.BadParameter("say both, --user and --password-file, or none of them")
    setup = wiring.setup(settings_of(config), user, password_file)
    with closing(setup) if setup else nullcontext():
        found = operation.init(setup, execute) if setup else None
    answer(
        as_json, lambda: decided(execute, found) if found else {"executed": False}, lambda: init.lines(found, execute)
    )
    raise typer.Exit(ExitCode.FAILED if found and found.refused else 0)


@app.command("run", rich_help_panel=RUN)
def _run(config: Config = None) -> None:
    """Stages and applies until SIGTERM or Ctrl-C.

    Any number of copies may run: one stages, all apply. Example: `sink run -c config.yaml`
    """
    settings = settings_of(config)
    configure_logs(settings.log_level, settings.log_json)
    stop = stop_event()
    # A thread that comes back from PostgreSQL waits so long for the one that computes: with the usual 5 ms a COPY of
    # many pieces took three times as long.
    sys.setswitchinterval(0.0002)
    expect_many_objects()
    # What is wrong at a start is said at once. The ERP may be away: orders are staged meanwhile.
    wiring.migrate(settings)
    wiring.middle(settings).close()
    wiring.registry(settings).check()
    wiring.group(settings).partitions()
    sink = Sink(wiring.parts(settings), stop, reread=reread_event())
    if not settings.health_port:
        sink.run()
        return
    with HealthServer(settings.health_host, settings.health_port, sink.live, sink.ready):
        sink.run()
