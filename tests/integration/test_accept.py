"""A person's word: a dry run first, then done, with the name in the history."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from schemas.change import Stamp
from schemas.errors import SettingsError
from schemas.lsn import LSN
from sink.commands import accept
from sink.database import Connection, connect, transaction
from sink.layer import migrate
from sink.staging.gaps import TableGap, open_gap

TABLE = "public.orders"


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
    told = list(accept.gap(middle, TABLE, "Ada", execute=False))
    assert told[0] == "lost: 2 changes are missing"
    assert told[-1] == "nothing was changed; --execute does it"
    assert rows(middle, gaps) == [(TABLE,)]
    list(accept.gap(middle, TABLE, "Ada", execute=True))
    assert rows(middle, gaps) == []
    history = "SELECT type, key, event, detail FROM ordertap_shop.history"
    assert rows(middle, history) == [("table", TABLE, "gap accepted", "lost: 2 changes are missing; Ada")]
    with pytest.raises(SettingsError, match="has no gap"):
        list(accept.gap(middle, TABLE, "Ada", execute=True))


def test_a_first_snapshot_is_accepted_by_a_name(middle: Connection) -> None:
    snapshots = "SELECT state, accepted_by FROM ordertap_shop.snapshot"
    list(accept.snapshot(middle, "Ada", execute=False))
    assert rows(middle, snapshots) == []
    list(accept.snapshot(middle, "Ada", execute=True))
    assert rows(middle, snapshots) == [("complete", "Ada")]
    with pytest.raises(SettingsError, match="complete already"):
        list(accept.snapshot(middle, "Ada", execute=True))
