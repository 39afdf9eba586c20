"""The index of commits, topic `ordertap.<prefix>.commits`: which commits there are, in order, and what belongs to each.

It has one partition. Each Kafka transaction of capture's stream ends with a record of it. With the index, a
`read_committed` reader knows which commits it must have, and when it has all of one. Like the position, its records are
JSON, so that any consumer and an operator's console can read them. LSNs are integers of up to 64 bits. Pure.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from schemas.model.errors import DataError
from schemas.model.lsn import LSN

TableTopic: TypeAlias = tuple[str, str]
"""A table (schema.table) and the topic of its records: the usual one, a routed one, or that of a later version."""

SnapshotStep: TypeAlias = Literal["running", "completed", "aborted"]


def index_topic(prefix: str) -> str:
    """The topic's name. It is outside `<prefix>.`, because consumers subscribe to that by pattern."""
    return f"ordertap.{prefix}.commits"


class Commit(NamedTuple):
    """A commit of the shop, or a chunk of a snapshot on demand (then `snapshot` is its id, and `lsn` its mark in the
    log).

    `changes`: pairs of a number in the record's `tables` and the number of changes there: of distinct (ordinal, half of
    a key change). So a delete and its tombstone count once, the two halves of a key change twice, and a TRUNCATE once
    although it is in every partition. For a chunk: its rows. A commit that wrote to no topic is not listed. `ts_us`:
    the commit's time, µs since 1970 (0 for a chunk).
    """

    lsn: int
    ts_us: int
    changes: tuple[tuple[int, int], ...]
    snapshot: str | None = None


class SnapshotState(NamedTuple):
    """A snapshot and its state. `lsn`: its consistent point (`first`), or its signal's place in the log. `tables`:
    those that are read as a whole; a row of theirs with an older stamp that did not come is gone. `rows`: how many rows
    of each table it brought, known once it is completed."""

    id: str
    state: SnapshotStep
    lsn: int
    first: bool
    tables: tuple[str, ...]
    rows: Mapping[str, int]


class IndexRecord(NamedTuple):
    """One record. `serial` counts the connector's records from 1; `previous` is the `end` of the record before.

    All commits of `generation` between `previous` and `end` are listed, and everything up to `end` is in Kafka as a
    whole. `parked`: tables with a change since the record before that is not written. `begun`: tables that have their
    first change without a copy of the rows before it. `tables`: the tables of its commits and snapshots, each with the
    topic in which it begins. `snapshots`: those whose state is new; in the first record of each start of capture, all
    that matter. `beat_us`: time of the last heartbeat before `end`, µs since 1970 (0: none): all that was committed
    until then is in Kafka.
    """

    serial: int
    generation: int
    previous: int
    end: int
    tables: tuple[TableTopic, ...] = ()
    commits: tuple[Commit, ...] = ()
    parked: tuple[str, ...] = ()
    begun: tuple[str, ...] = ()
    snapshots: tuple[SnapshotState, ...] = ()
    beat_us: int = 0


_VERSION: Final = 1


def dump_index(record: IndexRecord) -> bytes:
    """The value of a record. See `parse_index` for its form."""
    content = {
        "version": _VERSION,
        "serial": record.serial,
        "generation": record.generation,
        "previous": int(record.previous),
        "end": int(record.end),
        "tables": [list(pair) for pair in record.tables],
        "commits": [
            [int(one.lsn), one.ts_us, [number for pair in one.changes for number in pair]]
            + ([one.snapshot] if one.snapshot is not None else [])
            for one in record.commits
        ],
        "parked": list(record.parked),
        "begun": list(record.begun),
        "snapshots": [{**one._asdict(), "lsn": int(one.lsn), "rows": dict(one.rows)} for one in record.snapshots],
        "beat_us": record.beat_us,
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def parse_index(value: bytes) -> IndexRecord:
    """Parses the value of a record. DataError if it is not one of ours.

    `tables` is a list of [table, topic]; `commits` one of [commit LSN, µs, [table number, changes, …]], with the
    snapshot's id as a fourth element for a chunk; the rest are the fields of IndexRecord by name.
    """
    try:
        content = json.loads(value)
        if content["version"] != _VERSION:
            raise DataError(
                f"the index of commits has a record of version {content['version']!r}",
                "a newer capture has written it: run the release of this one, or a newer one",
            )
        return IndexRecord(
            operator.index(content["serial"]),
            operator.index(content["generation"]),
            LSN(content["previous"]),
            LSN(content["end"]),
            tuple((table, topic) for table, topic in content["tables"]),
            tuple(_commit(*one) for one in content["commits"]),
            tuple(content["parked"]),
            tuple(content["begun"]),
            tuple(_snapshot(one) for one in content["snapshots"]),
            operator.index(content.get("beat_us", 0)),  # an earlier capture wrote none
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        raise DataError(
            f"a record of the index of commits ({len(value)} bytes) was not written by capture",
            "look at what else writes to the topic",
        ) from None


def _commit(lsn: int, ts_us: int, numbers: Sequence[int], snapshot: str | None = None) -> Commit:
    return Commit(lsn, ts_us, tuple(zip(numbers[::2], numbers[1::2], strict=True)), snapshot)


def _snapshot(content: Mapping[str, Any]) -> SnapshotState:
    return SnapshotState(**{**content, "tables": tuple(content["tables"])})
