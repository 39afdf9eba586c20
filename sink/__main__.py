"""`sink`: the command line."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from schemas.model.errors import OrdertapError
from schemas.process.command_line import own_version, rewrap_help
from sink.commands import (
    accept,
    brake,
    check,
    control,
    held,
    ignore,
    init,
    link,
    listing,
    migrate,
    offsets,
    plan,
    rebuild,
    reconcile,
    release,
    retry,
    run,
    show,
    status,
)

_RUN = (check, init, run)
_LOOK = (status, held, show, listing, plan, brake, reconcile)
_DECIDE = (retry, control, release, ignore, accept, link)
_REPAIR = (rebuild, migrate, offsets)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Reads a shop's change records from Kafka and carries them into an ERP.\n\n"
    "To begin: `sink check`, then `sink run` and `sink status`; `sink go-live` sends what was planned. Later: "
    "`sink held` shows what waits for a person, `sink retry` looks again, `sink reconcile` compares shop and ERP.",
)
for verb in (*_RUN, *_LOOK, *_DECIDE, *_REPAIR):
    app.add_typer(verb.app)
rewrap_help(app)


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"sink {own_version()}")
        raise typer.Exit


@app.callback()
def _every_verb(
    _version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """The console script. Prints errors that a user can fix once, without a stack trace."""
    try:
        app()
    except OrdertapError as error:
        typer.echo(f"sink: {error.message}" + (f"\n  next: {error.hint}" if error.hint else ""), err=True)
        sys.exit(int(error.exit_code))


if __name__ == "__main__":
    main()
