"""Which rows of a chunk are written when rows change while it is read."""

import time
from collections.abc import Sequence
from concurrent.futures import wait
from functools import partial
from itertools import chain, repeat

import pytest

from capture.changes.own_records import OwnRecords
from capture.changes.tables import Table, Tables
from capture.changes.versions import Versions
from capture.demand import Demand, Request, Signal
from capture.kafka.cluster import Cluster, Making
from capture.kafka.producer import Fields
from capture.kafka.topics import Topics
from capture.metrics import SNAPSHOT_ROWS
from capture.selection import Lists, Selection
from capture.snapshot import incremental as incremental_module
from capture.snapshot.chunk_reader import ChunkRows, Visibility, Watermark
from capture.snapshot.incremental import Incremental, Window
from schemas.model.change import UNCHANGED_HEADER, Cells
from schemas.model.errors import DataError, SettingsError, UnavailableError
from schemas.model.lsn import LSN
from schemas.model.relation import Column, ColumnFacts, Relation, TableFacts
from schemas.registry import wire
from schemas.writing.codec import SourceOrigin
from schemas.writing.connect_schema import json_with_schema
from schemas.writing.envelope import topic_name

TOPIC_OF = partial(topic_name, "shop")
PEOPLE = Relation(7, "public", "people", "f", (Column("id", 20, -1, True), Column("city", 25, -1, True)))
PREFIX = SourceOrigin("shop", "shop", "0").snapshot(1, 1)
ROWS: list[Cells] = [(b"1", b"Ulm"), (b"2", b"Ulm"), (b"3", b"Rom")]
NAME = "public.people"


def open_table(lists: Lists) -> Table:
    selection = Selection(lists)
    versions = Versions(TOPIC_OF, frozenset(), lambda _: TableFacts(("id",)), lambda *_: 1, lambda _: None, lambda _: 1,
        rules=selection.rules,
    )  # fmt: skip
    table = Tables(selection, True, versions).relation(PEOPLE)
    assert table is not None
    return table


def streaming(lists: Lists, request: Request, running: Sequence[set[int]] = ()) -> tuple[Incremental, Table]:
    """Each chunk has all rows; a table `gone` fails; the transactions of `running` run while each chunk is read."""
    table = open_table(lists)
    rows = [table.read(PREFIX, 1, row) for row in ROWS]
    unknown = frozenset(running[0] if running else ())
    every = chain(running, repeat(set[int]()))
    own = OwnRecords("shop", "shop", Topics(Cluster("", {}), "shop", Making(1, 1, {})), lambda *_: 1, wire.frame)

    def read(number: int, name: str, *_: object) -> ChunkRows:
        if name == "public.locked" and number < 3:
            raise UnavailableError("a schema change has the table")
        if name == "public.gone":
            raise SettingsError("not published")
        if name == "public.broken":
            raise DataError("a value that is none")
        return ChunkRows(table, rows, None, Visibility(100, frozenset(next(every))))

    return Incremental(Demand((request,)), read, "me", own, 1, unknown), table


def asking(*tables: str) -> Request:
    scope = tuple((name, None) for name in tables)
    return Request("s", LSN(1), scope, scope)


def written_after(lists: Lists, changed: int) -> list[int]:
    """How many rows each reading of the chunk writes, while the row of this number changes in the first window."""
    incremental, table = streaming(lists, asking(NAME))
    rows = [table.read(PREFIX, 1, row) for row in ROWS]
    counts = []
    for number in (1, 2):
        incremental.step(time.monotonic() + number)
        assert incremental.mark(Watermark("me", number, low=True), LSN(10)) is None
        if number == 1:
            seen(incremental, (table.topic, 0, *rows[changed], []))
        found = incremental.mark(Watermark("me", number, low=False), LSN(20))
        counts.append(sum(topic == table.topic for topic, *_ in found or ()))
        if not incremental.demand.requests:
            break
    incremental.close()
    return counts


def test_a_row_that_changed_is_left_to_the_stream() -> None:
    before = SNAPSHOT_ROWS.labels(NAME)._value.get()
    assert written_after(Lists(), changed=0) == [2]
    assert SNAPSHOT_ROWS.labels(NAME)._value.get() - before == 2


def test_a_table_that_cannot_be_read_just_now_is_tried_again_later_each_time() -> None:
    incremental, table = streaming(Lists(), asking("public.locked"))
    for now, number in ((0.0, 1), (1.0, 2)):
        incremental.step(now)
        while incremental.step(now) is None and incremental._chunk is not None:
            time.sleep(0.001)
        assert incremental._number == number
    incremental.step(2.9)
    assert incremental._number == 2, "the second pause is of two seconds"
    incremental.step(3.0)
    assert marked(incremental, 3, low=True) == []
    assert marked(incremental, 3, low=False).count(table.topic) == len(ROWS)
    incremental.close()


def test_a_key_is_the_same_under_another_version_of_its_schema() -> None:
    incremental, table = streaming(Lists(), asking(NAME))
    incremental.step(0)
    marked(incremental, 1, low=True)
    key, value = table.read(PREFIX, 1, ROWS[0])
    assert key is not None
    seen(incremental, (table.topic, 0, wire.prefix(4711) + key[wire.FRAME_SIZE :], value, []))
    assert marked(incremental, 1, low=False).count(table.topic) == len(ROWS) - 1
    incremental.close()


def test_a_row_that_changed_is_left_to_the_stream_when_its_json_key_shows_another_schema() -> None:
    """ALTER TYPE … ADD VALUE sends no Relation message: the stream's keys show the labels of before, a chunk's all."""
    kinds = Relation(8, "public", "kinds", "d", (Column("kind", 5000, -1, True),))

    def kinds_with(*labels: str) -> Table:
        facts = TableFacts(("kind",), {"kind": ColumnFacts(True, type_name="kind", type_kind="e", labels=labels)})
        versions = Versions(TOPIC_OF, frozenset(), lambda _: facts, lambda *_: 1, lambda _: None, lambda _: 1,
            text_of=json_with_schema,
        )  # fmt: skip
        return Tables(Selection(Lists()), True, versions).compile(kinds)

    stream, today = kinds_with("old", "older"), kinds_with("old", "older", "new")
    rows = [today.read(PREFIX, 1, (label,)) for label in (b"old", b"older")]
    key, value = stream.read(PREFIX, 1, (b"old",))
    assert key not in [chunk_key for chunk_key, _ in rows]
    window, chunk = Window(), ChunkRows(today, rows, None, Visibility(100, frozenset()))
    window.saw([(stream.topic, 0, key, value, [])])
    assert window.untouched(chunk) == rows[1:]
    window.saw([(stream.topic, 0, key, value, [(UNCHANGED_HEADER, b'["note"]')])])
    assert window.spoils(chunk) is not None


@pytest.mark.parametrize("cause", ["unchanged TOAST", "another Relation message"])
def test_a_chunk_is_read_again_where_the_stream_does_not_stand_in_for_it(cause: str) -> None:
    incremental, table = streaming(Lists(), asking(NAME))
    incremental.step(0)
    marked(incremental, 1, low=True)
    if cause == "unchanged TOAST":
        key, value = table.read(PREFIX, 1, ROWS[0])
        seen(incremental, (table.topic, 0, key, value, [(UNCHANGED_HEADER, b'["city"]')]))
    else:
        incremental.altered(NAME)
    assert marked(incremental, 1, low=False) == []
    incremental.step(time.monotonic() + 1)
    marked(incremental, 2, low=True)
    assert marked(incremental, 2, low=False).count(table.topic) == len(ROWS)
    incremental.close()


def test_what_a_later_change_says_whole_is_enough() -> None:
    incremental, table = streaming(Lists(), asking(NAME))
    incremental.step(0)
    marked(incremental, 1, low=True)
    key, value = table.read(PREFIX, 1, ROWS[0])
    seen(incremental, (table.topic, 0, key, value, [(UNCHANGED_HEADER, b'["city"]')]))
    seen(incremental, (table.topic, 0, key, None, []))
    assert marked(incremental, 1, low=False).count(table.topic) == len(ROWS) - 1
    incremental.close()


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_where_rows_share_a_key_a_chunk_is_read_until_none_changed(changed: int) -> None:
    assert written_after(Lists(keys=[(NAME, ("city",))]), changed) == [0, 3]


def test_a_chosen_key_that_tells_rows_apart_is_as_the_table_s_own() -> None:
    assert written_after(Lists(keys=[(NAME, ("city", "id"))]), changed=0) == [2]


def seen(incremental: Incremental, draft: Fields) -> None:
    """A change that the stream writes while a chunk is open."""
    assert incremental.window is not None
    incremental.window.saw([draft])


def marked(incremental: Incremental, number: int, low: bool) -> list[str]:
    """The topics that a mark makes it write to."""
    return [topic for topic, *_ in incremental.mark(Watermark("me", number, low), LSN(20)) or ()]


def await_chunk(incremental: Incremental) -> None:
    """Waits for a chunk that is being read."""
    if incremental._chunk is not None:
        wait([incremental._chunk])


def stepped(incremental: Incremental) -> list[str]:
    """The topics that the next step writes to, once a chunk that is being read has arrived."""
    await_chunk(incremental)
    return [topic for topic, *_ in incremental.step(time.monotonic()) or ()]


def test_what_has_no_key_and_truncates_of_other_tables_take_no_row_from_a_chunk() -> None:
    incremental, table = streaming(Lists(), asking(NAME))
    incremental.step(0)
    marked(incremental, 1, low=True)
    other, *_ = table.read(PREFIX, 1, ROWS[0])
    seen(incremental, ("shop.public.log", 0, None, b"a row without key", []))
    seen(incremental, ("shop.public.other", 0, other, b"a row with a key that looks the same", []))
    incremental.truncated("public.other")
    assert marked(incremental, 1, low=False).count(table.topic) == len(ROWS)
    incremental.close()


def test_a_truncate_takes_the_rows_of_a_chunk() -> None:
    incremental, table = streaming(Lists(), asking(NAME))
    incremental.step(0)
    marked(incremental, 1, low=True)
    incremental.truncated(NAME)
    assert marked(incremental, 1, low=False).count(table.topic) == 0
    assert incremental.demand.requests == ()
    incremental.close()


def test_a_chunk_of_a_snapshot_that_was_stopped_is_none_of_the_next_one() -> None:
    incremental, table = streaming(Lists(), asking("public.before"))
    incremental.step(0)
    marked(incremental, 1, low=True)
    incremental.signal(Signal("tap", "stop", "stop-snapshot"), LSN(15))
    incremental.signal(Signal("tap", "new", "execute-snapshot", (NAME,)), LSN(16))
    assert marked(incremental, 1, low=False) == []
    [request] = incremental.demand.requests
    assert request.tables == ((NAME, None),)
    incremental.step(0)
    marked(incremental, 2, low=True)
    assert marked(incremental, 2, low=False).count(table.topic) == len(ROWS)
    incremental.close()


def test_a_request_with_nothing_left_to_read_is_completed() -> None:
    """A crash between the last table and the end leaves one."""
    incremental, _ = streaming(Lists(), asking()._replace(first=("a", {NAME: 3})))
    assert stepped(incremental) == ["shop.notification"] * 2
    assert incremental.demand.requests == ()
    incremental.close()


def test_a_stop_leaves_what_the_initial_snapshot_had_done() -> None:
    """Rows of a snapshot that has no end count for nothing."""
    incremental, _ = streaming(Lists(), asking(NAME)._replace(first=("a", {"public.done": 3})))
    aborted, completed = incremental.signal(Signal("tap", "stop", "stop-snapshot"), LSN(15)) or ()
    assert b"ABORTED" in (aborted[3] or b"")
    assert b"COMPLETED" in (completed[3] or b"")
    assert b'{"public.done":3}' in (completed[3] or b"")
    assert incremental.demand.requests == ()
    incremental.close()


def test_chunks_wait_for_transactions_of_before_the_start_and_for_no_others() -> None:
    """Their commits may have been read before a restart."""
    incremental, table = streaming(Lists(), asking(NAME, NAME), [{7, 8}, {8, 90}, {90}, {91}])
    counts = []
    for number in (1, 2, 3, 4):
        incremental.step(time.monotonic() + number)
        marked(incremental, number, low=True)
        counts.append(marked(incremental, number, low=False).count(table.topic))
    assert counts == [0, 0, len(ROWS), len(ROWS)]
    incremental.close()


@pytest.mark.parametrize("marks", [False, True])
def test_a_table_that_cannot_be_read_is_left_out_alone(marks: bool) -> None:
    incremental, table = streaming(Lists(), asking("public.gone", NAME))
    incremental.step(0)
    if marks:  # it failed behind its low mark
        marked(incremental, 1, low=True)
    assert stepped(incremental) == []
    [request] = incremental.demand.requests
    assert request.scope == request.tables == ((NAME, None),)
    incremental.step(0)
    marked(incremental, 2, low=True)
    assert marked(incremental, 2, low=False).count(table.topic) == len(ROWS)
    incremental.close()


def test_a_snapshot_of_which_no_table_can_be_read_is_aborted() -> None:
    incremental, _ = streaming(Lists(), asking("public.gone"))
    incremental.step(0)
    assert stepped(incremental) == ["shop.notification"]
    assert incremental.demand.requests == ()
    incremental.close()


def test_a_table_is_read_once_more_when_a_row_moved_without_values_while_it_was_read() -> None:
    incremental, _ = streaming(Lists(), asking(NAME, "public.later"))
    assert incremental.unfilled({NAME}, LSN(9)) == [], "all of it is still to be read"
    incremental.step(0)
    marked(incremental, 1, low=True)
    assert incremental.unfilled({"public.later"}, LSN(11)) == [], "all of it is still to be read"
    assert [topic for topic, *_ in incremental.unfilled({NAME}, LSN(12))] == ["shop.notification"]
    assert incremental.unfilled({NAME}, LSN(13)) == [], "once is enough"
    marked(incremental, 1, low=False)
    first, again = incremental.demand.requests
    assert first.tables == (("public.later", None),)
    assert (again.tables, again.lsn, again.id == first.id) == (((NAME, None),), LSN(12), False)
    incremental.close()


def test_a_window_remembers_no_more_rows_than_memory_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incremental_module, "_REMEMBERED_ROWS", 10)
    table, window = open_table(Lists()), Window()
    rows = [table.read(PREFIX, 1, row) for row in ROWS]
    chunk = ChunkRows(table, rows, None, Visibility(100, frozenset()))
    for number in range(50):
        window.saw([("elsewhere", 0, wire.frame(1, b"%d" % number), b"", [])])
        assert (window.spoils(chunk) is None) == (number < 11)
    assert len(window._changed) == 11


def test_a_row_that_cannot_be_read_leaves_its_table_out_and_not_capture() -> None:
    incremental, table = streaming(Lists(), asking("public.broken", NAME))
    incremental.step(0)
    await_chunk(incremental)
    assert incremental.step(0) == []
    assert [name for name, _ in incremental.demand.requests[0].tables] == [NAME]
    incremental.step(0)
    marked(incremental, 2, low=True)
    assert marked(incremental, 2, low=False).count(table.topic) == len(ROWS)
    incremental.close()


def test_commits_that_a_chunk_shows_are_not_asked_for_again() -> None:
    incremental, _ = streaming(Lists(), asking(NAME))
    for xid in (5, 7):
        incremental.committed(xid)
    incremental.step(0)
    marked(incremental, 1, low=True)
    assert marked(incremental, 1, low=False) != []
    assert incremental._before == frozenset()
    incremental.close()
