"""`sink`: the command line."""

from __future__ import annotations

import typer

from schemas.process import command_line
from schemas.process.command_line import offer_version, own_version, rewrap_help
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
offer_version(app, lambda: f"sink {own_version()}")


def main() -> None:
    """The console script."""
    command_line.run(app, "sink")


if __name__ == "__main__":
    main()
