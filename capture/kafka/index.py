"""The index of commits as capture writes it: what the open Kafka transaction brings, and the chain of its records.

schemas.model.commits says what a record is. Each commit is made into bytes as it comes, for there may be many in one
record. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from capture.kafka.producer import Fields
from capture.position import Chain, Position
from schemas.model.change import STAMP_HEADER
from schemas.model.commits import IndexRecord, SnapshotState, TableTopic, dump_index
from schemas.model.errors import SettingsError
from schemas.model.lsn import LSN

RECORD_BYTES: Final = 256 * 1024
"""From this size on, the list continues in another record."""
NOT_COPIED: Final = "no_data"
"""Stands for the id of the first snapshot if none was made."""


class News(NamedTuple):
    """What records that are written bring to the index: a commit or a chunk as schemas.model.commits.Commit has it
    (`counts` empty: none), and snapshots whose state is new."""

    lsn: int = 0
    ts_us: int = 0
    counts: Mapping[TableTopic, int] = {}
    snapshot: str | None = None
    states: tuple[SnapshotState, ...] = ()


class _Numbers(dict[TableTopic, int]):
    """The tables of a record. A table gets the next number when it first occurs."""

    def __missing__(self, table: TableTopic) -> int:
        self[table] = number = len(self)
        return number


class Index:
    """Collects what one session's Kafka transactions bring, and makes the record at the end of each."""

    def __init__(
        self,
        topic: str,
        key: bytes,
        found: Position | None,
        topic_of: Callable[[str], str],
        accounted: frozenset[str] | None = None,
    ) -> None:
        """`found` is the position of the start, whose chain goes on; without one it begins anew. `topic_of` gives the
        topic in which a table's records begin; SettingsError for a table that can have none.

        `accounted` are tables that were copied or reported as not copied; None if this was never recorded.
        """
        self._topic = topic
        self._key = key
        self._topic_of = topic_of
        self._chain = Chain(0, LSN(0)) if found is None or found.chain is None else found.chain
        self._parked: set[str] = set() if found is None else set(found.parked)
        self._begun: list[str] = []
        self._states: dict[str, SnapshotState] = {}
        self.accounted = accounted
        self._accounts = False  # for more tables than the last time
        self._told = False  # a first record of this start has said how all snapshots stand
        self._clear()

    def _clear(self) -> None:
        self._numbers = _Numbers()
        self._shapes: dict[tuple[tuple[TableTopic, int], ...], bytes] = {}
        self._commits: list[bytes] = []
        self._bytes = 0

    @property
    def full(self) -> bool:
        """Whether to write a record now, although the Kafka transaction goes on."""
        return self._bytes > RECORD_BYTES

    def take(self, news: News) -> None:
        """Adds what was just written to the list."""
        lsn, ts_us, counts, snapshot, states = news
        if counts:
            shape = tuple(counts.items())
            entry = b"[%d,%d,[%b]]" % (lsn, ts_us, self._shapes.get(shape) or self._pairs(shape))
            if snapshot is not None:
                entry = b"%b,%b]" % (entry[:-1], json.dumps(snapshot, ensure_ascii=False).encode())
            self._commits.append(entry)
            self._bytes += len(entry)
        for state in states:
            self._states[state.id] = state
            if state.first and state.state == "running":
                self.accounted = frozenset()  # what was copied before is of another generation, or of no use
            if state.state == "completed":
                self.account(state.tables)

    def _pairs(self, shape: tuple[tuple[TableTopic, int], ...]) -> bytes:
        """Numbers and counts of the tables. Most commits of a shop have one of a few shapes, so these are cached."""
        pairs = b",".join([b"%d,%d" % (self._numbers[table], count) for table, count in shape])
        self._shapes[shape] = pairs
        return pairs

    def parked(self, tables: Iterable[str]) -> None:
        """Notes tables that are not written now. The next record names them, even if they are back by then."""
        self._parked.update(tables)

    def begins(self, table: str) -> None:
        """Notes the first change of a table that is not accounted for: no snapshot has its earlier rows."""
        if self.accounted is None or table not in self.accounted:
            self._begun.append(table)
            self.account([table])

    def account(self, tables: Iterable[str]) -> None:
        """Notes tables that were copied, or reported as not copied."""
        now = (self.accounted or frozenset()).union(tables)
        if now and now != self.accounted:
            self.accounted, self._accounts = now, True

    def take_accounted(self) -> frozenset[str] | None:
        """All accounted tables, if there are more than at the last call; else None."""
        taken, self._accounts = self._accounts, False
        return self.accounted if taken else None

    def _followed(self, state: SnapshotState) -> SnapshotState:
        """A snapshot's state with the tables that can have a topic: nothing of another one is ever written, and it must
        not keep the record from being made. Readers follow them before a commit names their topics.
        """
        tables = []
        for name in state.tables:
            try:
                self._numbers[name, self._topic_of(name)]
            except SettingsError:  # said where the table was parked
                continue
            tables.append(name)
        return state._replace(tables=tuple(tables))

    def record(self, position: Position) -> tuple[list[Fields], Position]:
        """The record of all that was taken since the last one, which ends where `position` does, and the position with
        the chain up to it; no record as long as the chain cannot begin.

        The first record of a chain lists nothing: it says where the chain begins. That is not in the middle of a
        commit of which an earlier capture has kept no counts.
        """
        if self._chain.serial == 0:
            self._clear()
            if position.partial is not None and position.partial.counts is None:
                return [], position
            self._chain = Chain(0, position.end_lsn)
        if not self._told:
            self._told = True
            self._states = {state.id: state for state in states_of(position)} | self._states
        states = [self._followed(state) for state in self._states.values()]
        self.parked(position.parked)
        content = dump_index(
            IndexRecord(
                self._chain.serial + 1,
                position.generation,
                self._chain.end,
                position.end_lsn,
                tuple(self._numbers),
                (),
                tuple(sorted(self._parked)),
                tuple(self._begun),
                tuple(states),
                position.heartbeat.at_ms * 1000 if position.heartbeat else 0,
            )
        )
        # No text can have these bytes: a quotation mark inside it has a backslash before it.
        value = content.replace(b'"commits":[]', b'"commits":[%b]' % b",".join(self._commits), 1)
        self._chain = Chain(self._chain.serial + 1, position.end_lsn)
        self._clear()
        self._parked, self._begun, self._states = set(position.parked), [], {}
        stamp = b"%d:%d:0" % (position.generation, position.end_lsn)
        fields: Fields = (self._topic, 0, self._key, value, [(STAMP_HEADER, stamp)])
        return [fields], position._replace(chain=self._chain)


def states_of(position: Position) -> list[SnapshotState]:
    """The states of the snapshots by a position, for readers that have not seen them begin or end. What the position no
    longer knows is left out: tables, rows and LSN of completed snapshots."""
    snapshot, requests = position.snapshot, position.demand.requests
    firsts = {request.first[0] for request in requests if request.first is not None}
    states = []
    if snapshot is None:
        states.append(SnapshotState(NOT_COPIED, "completed", 0, True, (), {}))
    elif snapshot.state == "running":
        states.append(SnapshotState(snapshot.id, "running", position.end_lsn, True, tuple(snapshot.tables_done), {}))
    elif snapshot.state == "completed" and snapshot.id not in firsts:
        states.append(SnapshotState(snapshot.id, "completed", 0, True, (), {}))
    for request in requests:
        whole = tuple(name for name, condition in request.scope if condition is None)
        if request.first is not None:
            identity, done = request.first
            states.append(SnapshotState(identity, "running", request.lsn, True, (*done, *whole), {}))
        states.append(SnapshotState(request.id, "running", request.lsn, False, whole, {}))
    return states
