"""`sink accept`: a dry run first, then done, with the name in the history."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from schemas.model.change import Stamp
from schemas.model.commits import SnapshotState
from schemas.model.errors import SettingsError
from schemas.model.lsn import LSN
from sink.commands import accept
from sink.database import Connection, connect, transaction
from sink.intake import evidence
from sink.intake.evidence import PARKED, SKIPPED, Gap, Partition, Range, Seen
from sink.layer import migrate
from sink.staging import snapshots
from sink.staging.gaps import TableGap, open_gap
from sink.staging.position import Position, load_position, save_position

TABLE, TOPIC = "public.orders", "shop.public.orders"


@pytest.fixture
def middle(database: str) -> Iterator[Connection]:
    connection = connect(database, "ordertap_shop")
    migrate(connection, "shop")
    yield connection
    connection.close()


def rows(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def test_a_gap_is_accepted_by_a_name(middle: Connection) -> None:
    with transaction(middle) as cursor:
        open_gap(cursor, TableGap(TABLE, "lost", Stamp(1, LSN(5), 0), "2 changes are missing"))
    gaps = "SELECT table_name FROM ordertap_shop.table_gap"
    told = list(accept.gap(middle, TABLE, TOPIC, "Ada", execute=False))
    assert told[0] == "lost: 2 changes are missing"
    assert told[-1] == "nothing was changed; --execute does it"
    assert rows(middle, gaps) == [(TABLE,)]
    list(accept.gap(middle, TABLE, TOPIC, "Ada", execute=True))
    assert rows(middle, gaps) == []
    history = "SELECT type, key, event, detail, person FROM ordertap_shop.history"
    assert rows(middle, history) == [("table", TABLE, "gap accepted", "lost: 2 changes are missing", "Ada")]
    with pytest.raises(SettingsError, match="has no gap"):
        list(accept.gap(middle, TABLE, TOPIC, "Ada", execute=True))


def test_offsets_that_were_skipped_are_accepted_with_the_gaps_of_their_table(middle: Connection) -> None:
    partition, other = Partition(TOPIC, "id", 1), Partition("shop.public.lines", "id", 1)
    parked, kept = Gap(partition, Range(2, 3), PARKED), Gap(other, Range(5, 10), SKIPPED)
    with transaction(middle) as cursor:
        found = {partition: Seen(20, (parked, Gap(partition, Range(5, 10), SKIPPED))), other: Seen(20, (kept,))}
        evidence.save(cursor, {}, found)
    told = list(accept.gap(middle, TABLE, TOPIC, "Ada", execute=True))
    assert told[0] == f"skipped: offsets 5 to 9 of {TOPIC} [1]"
    with transaction(middle) as cursor:
        assert evidence.open_gaps(cursor) == [kept, parked]
    with pytest.raises(SettingsError, match="has no gap"):
        list(accept.gap(middle, TABLE, TOPIC, "Ada", execute=True))


def test_a_first_snapshot_is_accepted_by_a_name(middle: Connection) -> None:
    accepted = "SELECT state, accepted_by FROM ordertap_shop.snapshot WHERE id NOT IN ('old', 'demand', 'first')"
    with transaction(middle) as cursor:  # another generation's, one on demand, and the first one, which has no end
        save_position(cursor, Position(Stamp(2, LSN(5), 0), "steady"), None)
        for name, generation, first in (("old", 1, True), ("demand", 2, False), ("first", 2, True)):
            state = SnapshotState(name, "running" if name == "first" else "completed", 5, first, (), {})
            snapshots.note(cursor, generation, state)
        cursor.execute("UPDATE snapshot SET state = 'complete' WHERE state = 'announced'")
    list(accept.snapshot(middle, "Ada", execute=False))
    assert rows(middle, accepted) == []
    list(accept.snapshot(middle, "Ada", execute=True))
    assert rows(middle, accepted) == [("complete", "Ada")]
    with transaction(middle) as cursor:
        save_position(cursor, Position(Stamp(2, LSN(6), 0), "steady"), None)
        assert load_position(cursor).state == "steady"
    with pytest.raises(SettingsError, match="complete already"):
        list(accept.snapshot(middle, "Ada", execute=True))
