"""`sink init`: what the ERP lacks before the first document."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from schemas.model.errors import ExitCode
from sink import wiring
from sink.commands.options import RUN, Config, Execute, Json, settings_of, verbs
from sink.commands.output import answer, decided
from sink.operations import init
from sink.operations.init import Init

NOTHING_HERE = "nothing is made in an ERP of this kind: `sink check` names what it lacks"

app = verbs()


@app.command("init", rich_help_panel=RUN)
def _init(
    user: Annotated[str, typer.Option(help="An administrator of the ERP; default: the sink's own user.")] = "",
    password_file: Annotated[Path | None, typer.Option(help="A file with that user's password.")] = None,
    execute: Execute = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Says what the ERP lacks for the shop's documents.

    --execute makes it; what exists is not changed.

    Example: `sink init --user admin --password-file /run/secrets/erp_admin`
    """
    if bool(user) is (password_file is None):
        raise typer.BadParameter("give both --user and --password-file, or neither")
    setup = wiring.setup(settings_of(config), user, password_file)
    with closing(setup) if setup else nullcontext():
        found = init.init(setup, execute) if setup else None
    answer(as_json, lambda: decided(execute, found) if found else {"executed": False}, lambda: lines(found, execute))
    raise typer.Exit(ExitCode.FAILED if found and found.refused else 0)


def lines(found: Init | None, execute: bool) -> Iterator[str]:
    """What is lacking, one by one. None: we do not set up this kind of ERP."""
    if found is None:
        yield NOTHING_HERE
        return
    for one in found.to_make:
        if one.message in found.made:
            yield f"made: {one.message}"
        elif one.message in found.refused:
            refused = found.refused[one.message]
            yield f"NOT made: {one.message}: {refused.message}\n    next: {refused.hint}"
        else:
            yield f"{one.message}\n    {one.hint}"
    for one in found.by_hand:
        yield f"by hand: {one.message}\n    next: {one.hint}"
    yield _end(found, execute)


def _end(found: Init, execute: bool) -> str:
    if not found.to_make:
        return "nothing is left to make"
    if not execute:
        return f"nothing was changed; --execute makes these {len(found.to_make)}"
    return f"{len(found.made)} of {len(found.to_make)} made; next: `sink check`"
