"""`sink migrate`: brings the middle layer to this release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from schemas.model.errors import SettingsError
from sink import layer
from sink.database import Connection, Cursor
from sink.intake.offsets import GroupOffsets
from sink.staging.gaps import FILLED_BY, TableGap, open_gap
from sink.staging.position import NOWHERE


class Migration(NamedTuple):
    """From one schema version (0: none) to another. `again`: tables that are read again from their topics; `cut`: those
    whose topics no longer reach back to their beginning, with the reason. These get a gap."""

    current: int
    target: int
    again: Sequence[str]
    cut: Mapping[str, str]


def plan(connection: Connection, shop: str, group: GroupOffsets, topics: Mapping[str, str]) -> Migration:
    """What `migrate` would do; changes nothing. `topics`: topic → table. Kafka is asked only if tables are read
    again. SettingsError if the layer is of a later release."""
    with layer.as_owner(connection) as cursor:
        current, again = layer.version(cursor, shop), layer.read_again(cursor, shop)
    layer.refuse_newer(current)
    cut = {}
    for partition, low in (group.beginnings() if again else {}).items():
        if low > 0 and topics.get(partition.topic) in again:
            where = f"topic {partition}"
            cut[topics[partition.topic]] = f"{where} begins at offset {low}: earlier records are not kept"
    return Migration(current, layer.VERSION, again, cut)


def migrate(connection: Connection, shop: str, planned: Migration) -> None:
    """Does what was planned, and opens gaps for the tables in `cut`."""

    def gaps(cursor: Cursor) -> None:
        for table, reason in planned.cut.items():
            open_gap(cursor, TableGap(table, "lost", NOWHERE, reason))

    layer.migrate(connection, shop, gaps)


def migrate_unasked(connection: Connection, shop: str, group: GroupOffsets, topics: Mapping[str, str]) -> None:
    """Migrates at the start of `sink run`. SettingsError if rows would be lost: a person has to decide that."""
    planned = plan(connection, shop, group, topics)
    if planned.cut:
        signals = ", ".join(f"`{FILLED_BY.format(table=table)}`" for table in planned.cut)
        raise SettingsError(
            f"the middle layer has schema version {planned.current}; with version {planned.target} its staged tables"
            f" are read again, and the topics of {', '.join(planned.cut)} do not reach back to their beginning",
            f"`sink migrate` says more, `sink migrate --execute` does it anyway; after that, {signals}",
        )
    migrate(connection, shop, planned)
