"""`sink release`: what may pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from schemas.model.errors import SettingsError
from sink import wiring
from sink.commands import brake as brake_lines
from sink.commands import held
from sink.commands.accept import both_sides
from sink.commands.options import DECIDE, AnyKey, AnyType, Config, Execute, Json, Person, settings_of, verbs
from sink.commands.output import DRY, answer, decided
from sink.documents.refs import DocumentRef
from sink.operations import brake
from sink.operations.release import Released, ReleasedAll, let_all_pass, let_pass

app = verbs()


@app.command("release", rich_help_panel=DECIDE)
def _release(
    person: Person,
    type_: AnyType = "",
    key: AnyKey = "",
    mass: Annotated[bool, typer.Option("--mass", help="Everything that the brake holds.")] = False,
    kind: Annotated[str, typer.Option(help="With --mass: only orders, or only prices.")] = "",
    cause: Annotated[str, typer.Option(help="Everything that this check holds: 'changed in the ERP'.")] = "",
    as_json: Json = False,
    execute: Execute = False,
    config: Config = None,
) -> None:
    """Releases a held document as it is now.

    Its next change is checked again. --cause releases everything that a check holds; the brake counts it. --mass
    releases everything that the brake holds, once, and restarts its count.

    Example: `sink release sales_order 17 --person Ada`
    """
    if [mass, bool(cause), bool(type_ and key)].count(True) != 1 or bool(type_) != bool(key):
        raise SettingsError("say what to release", "`sink release TYPE KEY`, or --mass, or --cause 'totals'")
    connection = wiring.middle(settings_of(config))
    if cause:
        every = let_all_pass(connection, cause, person, execute)
        answer(as_json, lambda: decided(execute, every), lambda: all_lines(every, execute))
        return
    if mass:
        masses = brake.release_mass(connection, kind, person, execute)
        answer(as_json, lambda: decided(execute, masses), lambda: brake_lines.released(masses))
        return
    ref = DocumentRef(type_, key)
    found = let_pass(connection, ref, person, execute)
    answer(as_json, lambda: decided(execute, found), lambda: lines(ref, found, execute))


def all_lines(found: ReleasedAll, execute: bool) -> Iterator[str]:
    """What the check holds, as `sink held` shows it, and how many pass."""
    yield from held.lines(found.held)
    count = found.released if execute else sum(group.documents for group in found.held)
    yield f"{count} {'pass' if execute else 'would pass'} check `{found.check}` as they are now; the brake counts them"
    if not execute:
        yield DRY


def lines(ref: DocumentRef, found: Released, execute: bool) -> Iterator[str]:
    """The check, its reason, and the fields that are overwritten."""
    passes = "passes" if execute else "would pass"
    yield f"{ref} {passes} check `{found.check}` as it is now: {found.reason}"
    yield from both_sides(found.fields, found.currency)
    if not execute:
        yield DRY
