"""`sink migrate`: what this release changes in the middle layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sink import wiring
from sink.commands.options import REPAIR, Config, Execute, Json, settings_of, verbs
from sink.commands.output import answer
from sink.database import Connection
from sink.intake.offsets import GroupOffsets
from sink.operations import migration
from sink.operations.migration import Migration
from sink.staging.gaps import FILLED_BY

app = verbs()


@app.command("migrate", rich_help_panel=REPAIR)
def _migrate(execute: Execute = False, as_json: Json = False, config: Config = None) -> None:
    """Migrates the middle layer to this release.

    `sink run` does it, too, unless staged rows would be lost.

    Example: `sink migrate`, then with `--execute`
    """
    settings = settings_of(config)
    given = (wiring.not_entered(settings), settings.shop, wiring.group(settings), wiring.tables(settings), execute)
    answer(as_json, lambda: found(*given), lambda: lines(*given))


def lines(
    connection: Connection, shop: str, group: GroupOffsets, topics: Mapping[str, str], execute: bool
) -> Iterator[str]:
    """What the migration would do; `execute` does it."""
    planned = migration.plan(connection, shop, group, topics)
    yield from told(planned, shop)
    if planned.current == planned.target:
        return
    if not execute:
        yield "nothing was changed; --execute does it"
        return
    migration.migrate(connection, shop, planned)
    yield "done; next: start `sink run`" + "".join(f", then `{FILLED_BY.format(table=table)}`" for table in planned.cut)


def found(
    connection: Connection, shop: str, group: GroupOffsets, topics: Mapping[str, str], execute: bool
) -> Mapping[str, object]:
    """The same for programs."""
    planned = migration.plan(connection, shop, group, topics)
    if execute:
        migration.migrate(connection, shop, planned)
    return {"executed": execute, **planned._asdict()}


def told(planned: Migration, shop: str) -> Iterator[str]:
    """The versions, and what happens to the tables."""
    if planned.current == planned.target:
        yield f"the middle layer of shop {shop} has schema version {planned.current}, that of this release"
        return
    yield f"the middle layer of shop {shop}: from schema version {planned.current or 'none'} to {planned.target}"
    if planned.again:
        yield f"staged rows are dropped and read again from Kafka: {', '.join(planned.again)}"
        yield "ledger, accounts, history and decisions stay; nothing is planned until the copy has read past them"
    for table, reason in planned.cut.items():
        yield f"gap: {table}: {reason}\n    next: `{FILLED_BY.format(table=table)}`, after the migration"
