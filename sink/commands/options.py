"""Options that several verbs have, and the settings."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Annotated, Final

import typer

from schemas.process.settings import load
from sink.settings import SinkSettings

RUN: Final = "Run"
LOOK: Final = "Look"
DECIDE: Final = "Decide: dry runs without --execute; retry, pause, resume act at once"
REPAIR: Final = "Repair"
"""The panels of `sink --help`."""


def _named(person: str) -> str:
    if not person.strip():
        raise typer.BadParameter("say your name, which the history keeps")
    return person.strip()


Person = Annotated[str, typer.Option(help="Your name, for the history.", callback=_named)]
Execute = Annotated[bool, typer.Option("--execute", help="Do it. Without this it is a dry run.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")]
Config = Annotated[Path | None, typer.Option("--config", "-c", "-F", help="The YAML file; its `sink` section is read.")]
DocumentType = Annotated[str, typer.Argument(metavar="TYPE", help="As `sink held` shows it: sales_order")]
Cause = Annotated[
    str, typer.Option(help="Only this cause: decision, data, 'master data', waits, retry; or this check: totals.")
]
DocumentKey = Annotated[str, typer.Argument(metavar="KEY", help="The shop's key: 17")]


AnyType = Annotated[str, typer.Argument(metavar="[TYPE", help="As `sink held` shows it.")]
AnyKey = Annotated[str, typer.Argument(metavar="KEY]")]


def expect_many_objects() -> None:
    """Makes Python's garbage collector run less often. A sink has many small objects without cycles (records that wait,
    pages of documents), and by default the collector would scan them after every 700 new ones."""
    gc.freeze()
    gc.set_threshold(50_000)


def settings_of(config: Path | None) -> SinkSettings:
    """The settings: the part `sink` of the file."""
    return load("sink", SinkSettings, config)


def verbs(text: str = "") -> typer.Typer:
    """A group for verbs. `text`: the help of a verb with subcommands."""
    return typer.Typer(no_args_is_help=True, help=text or None)
