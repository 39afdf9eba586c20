"""Reduces a batch of records to the latest one of each key, decoded to lines of COPY text. Pure.

Records that cannot be decoded are set aside, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from schemas.model import change
from schemas.model.errors import DataError
from schemas.registry.wire import FRAME_SIZE
from sink.intake.copy_text import WRITER_HINT
from sink.intake.decoder import NEITHER, Decoder, KeyDecoder, Neither
from sink.staging.assembly import Row, snapshot_of, stamp_of

_NOTHING: Final[frozenset[str]] = frozenset()
_FIRST: Final = 0


class Decoders(Protocol):
    """Compiled decoders by a record's schema id, four bytes. UnavailableError if the registry is away."""

    def value(self, schema_id: bytes) -> Decoder: ...

    def key(self, schema_id: bytes) -> KeyDecoder: ...


class GroupId(NamedTuple):
    """Rows with the same id are written in one statement."""

    table: str
    schema_id: bytes  # of the value; of the key for deletes
    unchanged: frozenset[str]
    snapshot: str | None
    deletes: bool


@dataclass(slots=True)
class Group:
    """Rows that one statement writes, no key twice."""

    id: GroupId
    decoder: Decoder | KeyDecoder
    lines: list[bytes] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


class Truncate(NamedTuple):
    """A TRUNCATE of a table."""

    table: str
    stamp: tuple[int, int, int]


class KeyChange(NamedTuple):
    """A change of a row's key. `old`, `new`: column → PostgreSQL's text; `stamp`: that of both halves."""

    table: str
    stamp: tuple[int, int, int]
    old: Mapping[str, str]
    new: Mapping[str, str]


class Unreadable(NamedTuple):
    """A record that cannot be decoded, and why."""

    row: Row
    reason: str


def reason_of(error: DataError) -> str:
    """The reason that is kept with a parked record: the message and the next step."""
    return f"{error.message}; next: {error.hint}" if error.hint else error.message


@dataclass(slots=True)
class Batch:
    """Groups by round. A record that needs the values of the record before it of the same key is in a later round.
    TRUNCATEs come last; they concern older rows only.

    `went`, `came`: changes of keys by topic and stamp, from their delete and from their create. Each half names both
    keys, since the other one may be in another batch.
    """

    rounds: list[list[Group]] = field(default_factory=list)
    truncates: list[Truncate] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    went: dict[tuple[str, bytes], KeyChange] = field(default_factory=dict)
    came: dict[tuple[str, bytes], KeyChange] = field(default_factory=dict)


_Rounds = list[dict[bytes, Row]]


def make_batch(rows: Iterable[Row], tables: Mapping[str, str], decoders: Decoders) -> Batch:
    """Makes a batch of records in the order of their partitions. `tables`: topic → table."""
    batch = Batch()
    latest = _latest(rows, tables, decoders, batch)
    groups: list[dict[GroupId, Group]] = []
    for (topic, snapshot), rounds in latest.items():
        for number, chosen in enumerate(rounds):
            while len(groups) <= number:
                groups.append({})
            _decode(tables[topic], snapshot, chosen.values(), decoders, groups[number], batch)
    batch.rounds = [[group for group in one.values() if group.rows] for one in groups]
    return batch


def _latest(
    rows: Iterable[Row], tables: Mapping[str, str], decoders: Decoders, batch: Batch
) -> dict[tuple[str, str | None], _Rounds]:
    """The latest record of each key, by topic and snapshot. One that needs the record before it does not replace
    it."""
    latest: dict[tuple[str, str | None], _Rounds] = {}
    last_mark, snapshot = b"", None
    for row in rows:
        if row[6] != last_mark:
            last_mark, snapshot = row[6], snapshot_of(row[6])
        rounds = latest.get((row[0], snapshot))
        if rounds is None:
            rounds = latest[row[0], snapshot] = [{}]
        key = row[3]
        if key is None:
            _without_key(row, tables[row[0]], decoders, batch)
        elif row[7] and not _note_key_change(row, tables[row[0]], decoders, batch):
            continue
        elif row[7] and _needs_the_last(row):
            _after_the_others(rounds, key[FRAME_SIZE:], row)
        else:
            rounds[_FIRST][key[FRAME_SIZE:]] = row
            for later in rounds[1:]:
                later.pop(key[FRAME_SIZE:], None)
    return latest


def _note_key_change(row: Row, table: str, decoders: Decoders, batch: Batch) -> bool:
    """Notes what a half of a change of key says. Returns whether the record can be read; if not, it is set aside."""
    headers, key = dict(row[7]), row[3] or b""
    is_create = change.OLD_KEY_HEADER in headers
    other = headers.get(change.OLD_KEY_HEADER if is_create else change.NEW_KEY_HEADER)
    if other is None:
        return True
    try:
        decoder = decoders.key(key[1:FRAME_SIZE])
        its, others = decoder.texts(key, FRAME_SIZE), decoder.texts_of_json(other)
    except DataError as error:
        batch.unreadable.append(Unreadable(row, reason_of(error)))
        return False
    if is_create:
        batch.came[row[0], row[5]] = KeyChange(table, stamp_of(row[5]), others, its)
    else:
        batch.went[row[0], row[5]] = KeyChange(table, stamp_of(row[5]), its, others)
    return True


def _needs_the_last(row: Row) -> bool:
    """Whether a record needs the values of the record before it: it leaves values out, or deletes a row that goes on
    under another key and may take them over."""
    headers = dict(row[7])
    return change.NEW_KEY_HEADER in headers or (change.UNCHANGED_HEADER in headers and row[4] is not None)


def _after_the_others(rounds: _Rounds, key: bytes, row: Row) -> None:
    """Puts a row into the round after the last one with its key, and a row with a new key after all rounds."""
    rekeyed = any(name == change.OLD_KEY_HEADER for name, _ in row[7])
    last = max((n for n, one in enumerate(rounds) if rekeyed or key in one), default=-1)
    while len(rounds) <= last + 1:
        rounds.append({})
    rounds[last + 1][key] = row


def _without_key(row: Row, table: str, decoders: Decoders, batch: Batch) -> None:
    """A record without key: a TRUNCATE, or a row of a table without key, which cannot be staged."""
    value = row[4] or b""
    try:
        keyed = decoders.value(value[1:FRAME_SIZE]).line(value, FRAME_SIZE, b"") is NEITHER
        reason = "" if keyed else f"{table}: its records have no key; next: give the table a primary key"
    except DataError as error:
        reason = reason_of(error)
    if reason:
        batch.unreadable.append(Unreadable(row, reason))
        return
    batch.truncates.append(Truncate(table, stamp_of(row[5])))


def _decode(
    table: str,
    snapshot: str | None,
    rows: Iterable[Row],
    decoders: Decoders,
    groups: dict[GroupId, Group],
    batch: Batch,
) -> None:
    """Adds the rows to their groups. Most rows of a batch are in one group, so it is looked up only when the schema
    changes."""
    schema_id = b""
    group: Group | None = None
    line = None
    for row in rows:
        value = row[4]
        try:
            if value is None or row[7]:
                _decode_other(table, snapshot, row, decoders, groups)
                continue
            if group is None or value[1:FRAME_SIZE] != schema_id:
                schema_id = value[1:FRAME_SIZE]
                group = _group(groups, GroupId(table, schema_id, _NOTHING, snapshot, False), decoders)
                line = group.decoder.line
            text = line(value, FRAME_SIZE, row[5].replace(b":", b"\t"))  # type: ignore[misc, call-arg]
            if text is None:
                _delete(table, row, decoders, groups)
                continue
            _add(group, text, row)
        except DataError as error:
            batch.unreadable.append(Unreadable(row, reason_of(error)))


def _decode_other(table: str, snapshot: str | None, row: Row, decoders: Decoders, groups: dict[GroupId, Group]) -> None:
    """A half of a change of key, a record that leaves values out, or a tombstone without its delete."""
    value, headers = row[4], dict(row[7])
    if value is None:
        _delete(table, row, decoders, groups)
        return
    header = headers.get(change.UNCHANGED_HEADER)
    unchanged = _NOTHING if header is None else change.parse_unchanged(header)
    group = _group(groups, GroupId(table, value[1:FRAME_SIZE], unchanged, snapshot, False), decoders)
    decoder = group.decoder
    assert isinstance(decoder, Decoder)  # noqa: S101  of a value
    line = decoder.line_without(unchanged) if unchanged else decoder.line
    text = line(value, FRAME_SIZE, row[5].replace(b":", b"\t"))
    if text is None:
        _delete(table, row, decoders, groups)
    else:
        _add(group, text, row)


def _add(group: Group, line: bytes | Neither, row: Row) -> None:
    if isinstance(line, Neither):
        raise DataError("a key, and neither the row before nor the one after", WRITER_HINT)
    group.lines.append(line)
    group.rows.append(row)


def _delete(table: str, row: Row, decoders: Decoders, groups: dict[GroupId, Group]) -> None:
    key = row[3] or b""
    group = _group(groups, GroupId(table, key[1:FRAME_SIZE], _NOTHING, None, True), decoders)
    assert isinstance(group.decoder, KeyDecoder)  # noqa: S101  of a key
    group.lines.append(group.decoder.line(key, FRAME_SIZE) + b"\t" + row[5].replace(b":", b"\t") + b"\n")
    group.rows.append(row)


def _group(groups: dict[GroupId, Group], wanted: GroupId, decoders: Decoders) -> Group:
    group = groups.get(wanted)
    if group is None:
        decoder = decoders.key(wanted.schema_id) if wanted.deletes else decoders.value(wanted.schema_id)
        group = groups[wanted] = Group(wanted, decoder)
    return group
