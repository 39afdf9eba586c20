"""What both command lines share: --version, errors that are printed once, and help that fits any terminal."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import typer

from schemas.model.errors import OrdertapError


def run(app: typer.Typer, program: str) -> None:
    """Runs the command line. Prints an error that a user can fix once, without a stack trace, and exits with its
    code."""
    try:
        app()
    except OrdertapError as error:
        typer.echo(f"{program}: {error}", err=True)
        sys.exit(int(error.exit_code))


def offer_version(app: typer.Typer, says: Callable[[], str]) -> None:
    """Adds --version, which prints what `says` returns."""

    def tell(asked: bool) -> None:
        if asked:
            typer.echo(says())
            raise typer.Exit

    @app.callback()
    def every_command(
        _version: bool = typer.Option(
            False, "--version", callback=tell, is_eager=True, help="Show the version and exit."
        ),
    ) -> None:
        pass


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
