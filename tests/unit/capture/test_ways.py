"""What a stream writes is the same whether the compiled way takes its usual rows or none: the same drafts by the piece,
counts, positions and index entries, of the same messages."""

import random
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from pydantic import SecretStr

from capture.changes.makers import Makers
from capture.changes.tables import Tables
from capture.changes.transaction import RecordLimit
from capture.changes.versions import Versions
from capture.kafka.index import News
from capture.metrics import Metrics
from capture.position import Partial, Position, first_position
from capture.selection import Lists, Selection
from capture.stream import Options, Stream
from schemas.model.change import UNCHANGED, Cell
from schemas.model.lsn import LSN
from schemas.model.relation import Column, ColumnFacts, Relation, TableFacts
from schemas.process.settings import PURE_PYTHON
from schemas.writing.codec import SourceOrigin
from schemas.writing.compiled import rowpath
from schemas.writing.envelope import topic_name

KEYED = Relation(7, "public", "orders", "d", (Column("id", 20, -1, True), Column("note", 25), Column("at", 1184)))
KEYLESS = Relation(8, "public", "log", "f", (Column("note", 25),))
FACTS = TableFacts(("id",), {"id": ColumnFacts(not_null=True), "note": ColumnFacts(not_null=True)})
RELATIONS = (KEYED, KEYLESS)
START = first_position(1, "system", 1, "slot", LSN(5), "settings")
PIECE = 128  # records; the stream's
pytestmark = pytest.mark.skipif(rowpath() is None, reason="rowpath.pyx is not compiled, or not wanted")


class Message(NamedTuple):
    """A message like psycopg2's."""

    data_start: int
    payload: bytes


class Sent:
    """What a stream hands to its writer, which is ready again after each round."""

    def __init__(self, position: Position, room: float) -> None:
        """Full after `room` additions in a round."""
        self.added: list[tuple[Any, ...]] = []
        self._room = room
        self.empty()
        self.pending = self.behind = False
        self.durable = position
        self.index = SimpleNamespace(begins=lambda _: None)

    def empty(self) -> None:
        """Begins another round."""
        self.full, self._taken = False, 0

    def add(self, records: Sequence[Any], size: int, position: Position, news: Any = None) -> None:
        assert not self.full
        self._taken += 1
        self.full, self.pending = self._taken >= self._room, True
        self.added.append(([(*draft[:4], tuple(draft[4])) for draft in records], size, position, news))

    def advance(self, position: Position) -> None:
        self.added.append((position,))

    def flush(self, _alive: Callable[[], None]) -> None:
        """Makes all that was added durable."""
        self.pending = False
        self.added.append(("flushed",))


def stream(
    messages: list[Message],
    position: Position = START,
    metadata: bool = False,
    skipped: str = "",
    room: float = float("inf"),
    confirmed: int = 0,
) -> tuple[Stream, Sent, Tables]:
    """A stream of these messages."""
    coming: Iterator[Message] = iter(messages)

    def facts(relation: Relation) -> TableFacts:
        return FACTS if relation.oid == KEYED.oid else TableFacts((), {})

    versions = Versions(partial(topic_name, "shop"), frozenset(), facts, lambda *_: 1, lambda _: None, lambda _: 3)
    tables = Tables(Selection(Lists(skipped_operations=tuple(skipped))), True, versions)
    for relation in RELATIONS:
        tables.relation(relation)
    replication: Any = SimpleNamespace(read=lambda: next(coming, None))
    demand: Any = SimpleNamespace(
        committed=lambda _: None,
        window=None,
        demand=position.demand,
        unfilled=lambda names, lsn: [("notice", 0, None, repr((names, lsn)).encode(), [])],
        take_news=News,
    )
    beats: Any = SimpleNamespace(prove=lambda: None)
    own: Any = SimpleNamespace(
        transaction_begin=lambda *told: ("begin", 0, None, repr(told).encode(), []),
        transaction_end=lambda *told: ("end", 0, None, repr(told).encode(), []),
    )
    options = Options("slot", 1.0, 1.0, metadata, SecretStr(""))
    writer: Any = Sent(position, room)
    unused: Any = None
    makers = Makers(tables, unused, own, SourceOrigin("shop", "shop", "0"), RecordLimit(1_000_000, park=False))
    own_messages: Any = SimpleNamespace(heartbeats=beats, incremental=demand)
    made = Stream(replication, writer, makers, own_messages, options, Metrics(1.0))
    made._acknowledger.told(0.0, LSN(confirmed))
    return made, writer, tables


def tuple_data(cells: Sequence[Cell]) -> bytes:
    kinds = {None: b"n", UNCHANGED: b"u"}
    shown = (b"t" + struct.pack(">I", len(cell)) + cell if isinstance(cell, bytes) else kinds[cell] for cell in cells)
    return struct.pack(">H", len(cells)) + b"".join(shown)


def change(rng: random.Random) -> bytes:
    """Mostly usual changes; some have odd values, are of another kind, or of a table that is not captured."""
    relation = rng.choice((KEYED, KEYED, KEYED, KEYLESS))
    row: list[Cell] = [b"%d" % rng.randint(1, 99), b"n" * rng.randint(0, 300), b"2026-11-30 01:02:03.5+00"]
    if rng.random() < 0.1:
        row[1] = UNCHANGED
    if rng.random() < 0.1:
        row[2] = rng.choice((None, b"infinity"))
    new = tuple_data(row if relation is KEYED else row[1:2])
    oid = struct.pack(">I", 99 if rng.random() < 0.05 else relation.oid)
    kind = rng.choice((b"IN",) * 6 + (b"UN",) * 6 + (b"UK", b"DK"))
    if kind[1:] == b"N" or relation is KEYLESS:
        return (kind[:1] if kind[1:] == b"N" else b"I") + oid + b"N" + new
    old = tuple_data([b"7", None, None])
    return kind[:1] + oid + b"K" + old + (b"N" + new if kind == b"UK" else b"")


def transactions(rng: random.Random, lengths: Sequence[int]) -> list[Message]:
    """Transactions of these lengths, one after the other in the log."""
    made, lsn = [], 1000
    for number, length in enumerate(lengths):
        commit = lsn + 10 * length + 10
        made.append(Message(lsn, b"B" + struct.pack(">QqI", commit, number, number + 700)))
        for _ in range(length):
            lsn += 10
            made.append(Message(lsn, change(rng)))
        made.append(Message(commit, b"C\0" + struct.pack(">QQq", commit, commit + 5, number)))
        lsn = commit + 5
    return made


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """The output of the two ways, which must be the same, and their counts."""

    def both(messages: list[Message], **how: Any) -> list[Any]:
        results = []
        for pure in ("1", "0"):
            monkeypatch.setenv(PURE_PYTHON, pure)
            monkeypatch.setattr("time.time_ns", lambda: 10**18)
            made, writer, tables = stream(messages, **how)
            rounds = 0
            while made._read_round() or writer.full:
                writer.empty()
                rounds += 1
            last = made._last_start
            counted = list(tables.take_events())
            results.append((writer.added, counted, made._position, last, tables.unfilled, rounds))
        assert results[0] == results[1]
        return results[1][0]

    return both


def test_both_ways_write_the_same(written: Callable[..., list[Any]]) -> None:
    rng = random.Random(4)
    lengths = [rng.choice((0, 1, 2, 4, 4, 30, PIECE - 1, PIECE, PIECE + 1, 700)) for _ in range(400)]
    added = written(transactions(rng, lengths))
    assert sum(len(each[0]) for each in added if len(each) > 1) > 10_000


def test_a_transaction_that_is_written_in_part_goes_on_behind_that(written: Callable[..., list[Any]]) -> None:
    messages = transactions(random.Random(5), [300, 4])
    for ordinal in (1, 127, 128, 299, 300):
        position = START._replace(partial=Partial(LSN(4010), ordinal, {}, {}))
        drafts = [draft for records, *_ in written(messages, position=position) for draft in records]
        stamps = [dict(draft[4]).get("ordertap.stamp", b"") for draft in drafts]
        of_first = [int(stamp.split(b":")[2]) for stamp in stamps if stamp.startswith(b"1:4010:")]
        assert min(of_first, default=301) > ordinal
        assert bool(of_first) == (ordinal < 300)


def test_nothing_is_read_while_the_writer_is_full(written: Callable[..., list[Any]]) -> None:
    assert len(written(transactions(random.Random(8), [4, 0, 1, 300, 4, 4]), room=1)) > 5


def test_all_is_durable_before_a_message_is_read_that_psycopg2_may_confirm(written: Callable[..., list[Any]]) -> None:
    messages = transactions(random.Random(9), [4] * 60)
    commits = [message.data_start for message in messages if message.payload[:1] == b"C"]
    added = written(messages, confirmed=commits[40])
    assert added.count(("flushed",)) > 30
    assert ("flushed",) not in added[-10:]


def test_what_is_before_the_position_is_passed_by(written: Callable[..., list[Any]]) -> None:
    assert written(transactions(random.Random(6), [4, 4]), position=START._replace(end_lsn=LSN(10**9))) == []


def test_both_ways_write_the_same_where_none_is_compiled(written: Callable[..., list[Any]]) -> None:
    messages = transactions(random.Random(7), [4, 130])
    assert written(messages, metadata=True)
    assert written(messages, skipped="d")
