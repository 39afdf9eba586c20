"""What of a chunk is written when its rows change while it is read."""

import time

import pytest

from capture.demand import Demand, Request
from capture.incremental import Incremental
from capture.own_records import OwnRecords
from capture.producer import Cluster, Topics
from capture.selection import Lists, Selection
from capture.tables import Table, Tables
from capture.versions import Versions
from capture.watermark import Chunk, Mark, Visibility
from schemas import wire
from schemas.change import Cells
from schemas.codec import SourceOrigin
from schemas.lsn import LSN
from schemas.relation import Column, Relation, TableFacts

PEOPLE = Relation(7, "public", "people", "f", (Column("id", 20, -1, True), Column("city", 25, -1, True)))
PREFIX = SourceOrigin("shop", "shop", "0").snapshot(1, 1)
ROWS: list[Cells] = [(b"1", b"Ulm"), (b"2", b"Ulm"), (b"3", b"Rom")]
NAME = "public.people"


def open_table(lists: Lists) -> Table:
    selection = Selection(lists)
    versions = Versions(
        "shop", frozenset(), lambda _: TableFacts(("id",)), lambda *_: 1, lambda _: None, lambda _: 1,
        rules=selection.rules,
    )  # fmt: skip
    table = Tables(selection, True, versions).relation(PEOPLE)
    assert table is not None
    return table


def written_after(lists: Lists, changed: int) -> list[int]:
    """How many rows each reading of the chunk writes, while the row of this number changes in the first window."""
    table = open_table(lists)
    rows = [table.read(PREFIX, 1, row) for row in ROWS]
    own = OwnRecords("shop", "shop", Topics(Cluster("", {}), "shop", 1, 1, -1), lambda *_: 1, wire.frame)
    request = Request("s", LSN(1), ((NAME, None),), ((NAME, None),))
    visible = Visibility(100, frozenset())
    incremental = Incremental(Demand((request,)), lambda *_: Chunk(table, rows, None, visible), "me", own, 1)
    counts = []
    for number in (1, 2):
        incremental.step(time.monotonic() + number)
        assert incremental.mark(Mark("me", number, low=True), LSN(10)) is None
        if number == 1:
            incremental.saw([(table.topic, 0, *rows[changed], [])])
        found = incremental.mark(Mark("me", number, low=False), LSN(20))
        counts.append(sum(topic == table.topic for topic, *_ in found or ()))
        if not incremental.demand.requests:
            break
    incremental.close()
    return counts


def test_a_row_that_changed_is_left_to_the_stream() -> None:
    assert written_after(Lists(), changed=0) == [2]


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_where_rows_share_a_key_a_chunk_is_read_until_none_changed(changed: int) -> None:
    assert written_after(Lists(keys=[(NAME, ("city",))]), changed) == [0, 3]


def test_a_chosen_key_that_tells_rows_apart_is_as_the_table_s_own() -> None:
    assert written_after(Lists(keys=[(NAME, ("city", "id"))]), changed=0) == [2]
