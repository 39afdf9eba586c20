"""What both command lines share: the installed release, and help that fits any terminal."""

from __future__ import annotations

import inspect
from importlib.metadata import PackageNotFoundError, version

import typer


def own_version() -> str:
    """The version of ordertap."""
    try:
        return version("ordertap")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"


def rewrap_help(app: typer.Typer) -> None:
    """Leaves it to the terminal where the lines of each command's help end: Typer keeps the docstring's own line ends
    in all but the first paragraph."""
    for command in app.registered_commands:
        paragraphs = (command.help or inspect.getdoc(command.callback) or "").split("\n\n")
        command.help = "\n\n".join(" ".join(each.split("\n")) for each in paragraphs)
    for group in app.registered_groups:
        if group.typer_instance:
            rewrap_help(group.typer_instance)
