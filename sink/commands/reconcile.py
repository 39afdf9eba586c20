"""`sink reconcile`: do shop and ERP agree?"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from schemas.model.errors import ExitCode
from sink import wiring
from sink.commands.options import LOOK, Config, Json, expect_many_objects, settings_of, verbs
from sink.commands.output import say
from sink.reconcile.report import Report
from sink.reconcile.source import Say

app = verbs()


@app.command("reconcile", rich_help_panel=LOOK)
def _reconcile(
    config: Config = None,
    as_json: Json = False,
    wait: Annotated[float, typer.Option(min=0, help="How many seconds to wait for both to agree.")] = 0.0,
) -> None:
    """Compares counts and money of shop and ERP.

    Exit code 0 only if both agree in every document, also the held ones. Each difference has a class; `in flight`,
    `held`, `planned`, `ignored` and `accepted` count as explained.

    Example: `sink reconcile --wait 30`
    """
    settings = settings_of(config)
    expect_many_objects()
    with progress(quiet=as_json) as tell:
        report = agreed(lambda: wiring.reconciled(settings, tell), wait)
    say(lines(report, as_json))
    raise typer.Exit(0 if report.agrees else ExitCode.FAILED)


@contextmanager
def progress(quiet: bool) -> Iterator[Say]:
    """Shows the progress in one line on a terminal; nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # imported here: most verbs do not need it

    with Console(stderr=True).status("reads the shop") as line:
        yield line.update


def agreed(look: Callable[[], Report], wait: float) -> Report:
    """Compares until both agree, for at most `wait` seconds, at least once."""
    until = time.monotonic() + wait
    report = look()
    while not report.agrees and time.monotonic() < until:
        time.sleep(0.5)
        report = look()
    return report


def lines(report: Report, as_json: bool) -> Iterable[str]:
    """For people, or for programs."""
    return [json.dumps(report.to_json())] if as_json else report.lines()
