"""`sink retry`: another look at held documents, or at all."""

from __future__ import annotations

from typing import Annotated

import typer

from schemas.model.errors import SettingsError
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
    every: Annotated[bool, typer.Option("--all", help="Everything that is held or waits.")] = False,
    cause: Cause = "",
    all_states: Annotated[
        bool, typer.Option("--all-states", help="All documents, even those that are done. Needs --execute.")
    ] = False,
    execute: Execute = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Looks at a held document again, or at all of them.

    The usual rules decide what is sent.

    Example: `sink retry sales_order 17`
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
    """How many documents are looked at again. SettingsError unless exactly one of document, `every`, `cause` and
    `all_states` is given. `all_states`: None, or whether to do it or only count."""
    if [bool(type_ and key), every, bool(cause), all_states is not None].count(True) != 1 or bool(type_) != bool(key):
        hint = "sink retry sales_order 17, --all, --cause 'master data', or --all-states"
        raise SettingsError("say which documents to look at", hint)
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
