"""Our place in the source: the record that every Kafka transaction carries on `ordertap.<prefix>.position`. It is JSON,
so that an operator can read it with any console consumer. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple

from capture.demand import UNREADABLE, Demand, parse_demand
from schemas.model.change import Stamp
from schemas.model.commits import TableTopic
from schemas.model.errors import DataError
from schemas.model.lsn import LSN
from schemas.types.type_modes import Modes

SHAPES_RECORDS: Final = frozenset(
    {"topic_prefix", "publication_name", "topic_routing", "output", "json_schemas_enable"}
    | {"table_include_list", "table_exclude_list", "message_prefix_include_list", "outbox_routing"}
    | {"column_include_list", "column_exclude_list", "columns_as_text", "message_key_columns", "skipped_operations"}
    | {"column_mask_with_length_chars", "column_truncate_to_length_chars", "column_mask_hash"}
    | {"tombstones_on_delete", "provide_transaction_metadata", *Modes._fields}
)
"""Settings that decide which records there are and what is in them. A position knows them by a hash."""
_MOVED: Final = "moved_to"
_ACCOUNTED: Final = b"/tables"
_LOOK: Final = "look at what else writes to the position topic"


class Partial(NamedTuple):
    """How far a transaction is written: its commit LSN, the last change's ordinal, and its counts so far.

    `size`: the counts for its END, by collection, if there are ENDs. `counts`: those for the index of commits. A
    capture from before the index kept no counts (None); the index then begins after this transaction.
    """

    commit_lsn: LSN
    ordinal: int
    size: dict[str, int]
    counts: dict[TableTopic, int] | None = None


class Chain(NamedTuple):
    """The last record of the index of commits: its serial number, and its `end`."""

    serial: int
    end: LSN


class InitialSnapshot(NamedTuple):
    """The initial snapshot: `making` its slot, `running`, or `completed` (then the demand may have the rest of it).

    `tables_done` (with numbers of rows) are completely in Kafka, as they were at its consistent point, which is the
    position's end_lsn. `workers` had transactional ids of their own, which a successor fences.
    """

    id: str
    state: Literal["making", "running", "completed"]
    tables_done: Mapping[str, int] = {}
    workers: int = 0


class Heartbeat(NamedTuple):
    """The last heartbeat that came back through the log: the run that wrote it, its number, time and place (0:
    unknown)."""

    run: str
    number: int
    at_ms: int = 0
    lsn: LSN = LSN(0)


class Position(NamedTuple):
    """Once a first snapshot is made, everything before `end_lsn` is in Kafka, except what `demand` has still to read
    and the tables in `parked`.

    `end_lsn` is the end of the last whole source transaction (or of a heartbeat after it), `last_commit_lsn` its commit
    record: nobody here reads that any more, but an earlier release that goes on from this position does. `settings` is
    a hash of the settings that shape records. `stopped_lsn` is the slot's confirmed LSN at a clean stop, None while
    running; if the slot is ahead of it later, somebody else moved it. `chain` is None until the first record of the
    index of commits.
    """

    generation: int
    system_identifier: str
    timeline: int
    slot: str
    end_lsn: LSN
    last_commit_lsn: LSN
    settings: str
    partial: Partial | None = None
    snapshot: InitialSnapshot | None = None
    heartbeat: Heartbeat | None = None
    stopped_lsn: LSN | None = None
    demand: Demand = Demand()
    parked: tuple[str, ...] = ()
    chain: Chain | None = None

    def at(self, end_lsn: LSN, commit_lsn: LSN) -> Position:
        """The position after a whole source transaction. One is made for each, so without _replace, which is slow."""
        generation, identifier, timeline, slot, _, _, settings, _, snapshot, beat, _, demand, parked, chain = self
        return tuple.__new__(
            Position,
            (
                generation, identifier, timeline, slot, end_lsn, commit_lsn, settings, None, snapshot, beat, None,
                demand, parked, chain,
            ),
        )  # fmt: skip

    def covers(self, stamp: Stamp) -> bool:
        """Whether a record with this stamp is in Kafka, by this position."""
        if stamp.generation != self.generation:
            return stamp.generation < self.generation
        if self.partial is not None and stamp.commit_lsn == self.partial.commit_lsn:
            return stamp.ordinal <= self.partial.ordinal
        return (stamp.commit_lsn, stamp.ordinal) <= (self.end_lsn, 0)  # records outside of transactions have 0

    def dump(self) -> bytes:
        """The value of the record."""
        parts = {name: None if part is None else part._asdict() for name, part in self._parts()}
        parts["demand"] = self.demand.shown()
        if self.partial is not None and self.partial.counts is not None:
            counts = [[*table_topic, count] for table_topic, count in self.partial.counts.items()]
            parts["partial"] = self.partial._asdict() | {"counts": counts}
        return json.dumps(self._asdict() | parts, separators=(",", ":")).encode()

    def _parts(self) -> tuple[tuple[str, Partial | InitialSnapshot | Heartbeat | Chain | None], ...]:
        named = ("partial", self.partial), ("snapshot", self.snapshot), ("heartbeat", self.heartbeat)
        return *named, ("chain", self.chain)


def first_position(generation: int, identifier: str, timeline: int, slot: str, lsn: LSN, settings: str) -> Position:
    """The position of a new slot."""
    return Position(generation, identifier, timeline, slot, lsn, lsn, settings)


def parse_position(value: bytes) -> Position:
    """Reads the record's value. DataError if it is not one of ours."""
    try:
        content = json.loads(value)
        partial, snapshot, heartbeat = content.pop("partial"), content.pop("snapshot"), content.pop("heartbeat")
        stopped = content.pop("stopped_lsn")
        demand = parse_demand(content.pop("demand", None))
        parked = tuple(content.pop("parked", ()))
        chain = content.pop("chain", None)
        for name in ("end_lsn", "last_commit_lsn"):
            content[name] = LSN(content[name])
        if newer := sorted(content.keys() - set(Position._fields)):
            raise DataError(
                f"the position record has {', '.join(newer)}, which this version does not know",
                "a newer capture has written it: run that one",
            )
        return Position(
            **content,
            partial=_partial(partial) if partial else None,
            snapshot=InitialSnapshot(**snapshot) if snapshot else None,
            heartbeat=Heartbeat(**{**heartbeat, "lsn": LSN(heartbeat.get("lsn", 0))}) if heartbeat else None,
            stopped_lsn=None if stopped is None else LSN(stopped),
            demand=demand,
            parked=parked,
            chain=Chain(chain["serial"], LSN(chain["end"])) if chain else None,
        )
    except UNREADABLE:
        raise DataError(
            f"the position record ({len(value)} bytes) was not written by capture",
            _LOOK,
        ) from None


def accounted_key(key: bytes) -> bytes:
    """The key of the record beside the position that lists accounted tables. That list seldom changes and may be long,
    while the position is written with each Kafka transaction."""
    return key + _ACCOUNTED


def is_accounted_key(key: bytes) -> bool:
    """Whether accounted_key() made the key."""
    return key.endswith(_ACCOUNTED)


def dump_accounted(tables: Iterable[str]) -> bytes:
    """The value of that record: tables that were copied, or reported as changing without a copy."""
    return json.dumps(sorted(tables), separators=(",", ":")).encode()


def parse_accounted(value: bytes) -> frozenset[str]:
    """The reverse. DataError if it is not one of ours."""
    try:
        return frozenset(map(str, json.loads(value)))
    except UNREADABLE:
        raise DataError("the record of tables beside the position was not written by capture", _LOOK) from None


def _partial(content: Mapping[str, Any]) -> Partial:
    counts = content.get("counts")
    counted = None if counts is None else {(table, topic): count for table, topic, count in counts}
    return Partial(LSN(content["commit_lsn"]), content["ordinal"], content["size"], counted)


def moved(value: bytes, topic: str) -> bytes:
    """The value for the earlier releases' topic once the position has moved to `topic`: the old position with a field
    that those releases do not know, so that none of them starts from it."""
    return json.dumps({**json.loads(value), _MOVED: topic}, separators=(",", ":")).encode()


def is_moved(value: bytes) -> bool:
    """Whether moved() made the value."""
    try:
        return _MOVED in json.loads(value)
    except UNREADABLE:
        return False


def parse_heartbeat(content: bytes, slot: str, lsn: LSN) -> Heartbeat | None:
    """The heartbeat at `lsn`; None for another slot's, and for anything else under the prefix."""
    try:
        found = json.loads(content)
        beat = Heartbeat(str(found["run"]), int(found["number"]), int(found.get("at_ms", 0)), lsn)
        return beat if found["slot"] == slot else None
    except UNREADABLE:
        return None
