"""`sink retry`: another look at what is held, or at everything."""

from __future__ import annotations

from typing import Annotated

import typer

from schemas.errors import SettingsError
from sink import wiring
from sink.commands.options import DECIDE, AnyKey, AnyType, Cause, Config, Execute, Json, settings_of, verbs
from sink.commands.output import DRY, answer
from sink.database import Connection
from sink.documents.refs import DocumentRef
from sink.operations import holds

app = verbs()


@app.command("retry", rich_help_panel=DECIDE)
def _retry(
    type_: AnyType = "",
    key: AnyKey = "",
    every: Annotated[bool, typer.Option("--all", help="All that is held or waits.")] = False,
    cause: Cause = "",
    all_states: Annotated[
        bool, typer.Option("--all-states", help="Everything, done ones too; wants --execute.")
    ] = False,
    execute: Execute = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Looks at a held document again, or at all of them.

    What is sent then is only what the rules allow. Example: `sink retry sales_order 17`
    """
    given = (wiring.middle(settings_of(config)), type_, key, every, cause, execute if all_states else None)
    executed = execute or not all_states
    answer(
        as_json,
        lambda: {"executed": executed, "looked_at_again": looked_at_again(*given)},
        lambda: [line(*given)],
    )


def looked_at_again(
    connection: Connection, type_: str, key: str, every: bool = False, cause: str = "", all_states: bool | None = None
) -> int:
    """How many it is done for; SettingsError unless it was said which, once. `all_states`: None, or whether it is done
    or only counted."""
    if [bool(type_ and key), every, bool(cause), all_states is not None].count(True) != 1 or bool(type_) != bool(key):
        hint = "sink retry sales_order 17, --all, --cause 'master data', or --all-states"
        raise SettingsError("say which document, or which of them", hint)
    if all_states is not None:
        return holds.retry_everything(connection, all_states)
    return (
        holds.retry_by(connection, cause)
        if cause
        else holds.retry(connection, None if every else DocumentRef(type_, key))
    )


def line(
    connection: Connection, type_: str, key: str, every: bool = False, cause: str = "", all_states: bool | None = None
) -> str:
    """The same in words."""
    count = looked_at_again(connection, type_, key, every, cause, all_states)
    if all_states is None:
        return f"{count} to be looked at again"
    return f"{count} to be looked at again, done ones too" + ("" if all_states else f"; {DRY}")
