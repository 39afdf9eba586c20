"""Stages a batch in one transaction of the middle layer: rows of whole shop commits, what they touch, the evidence.

Kafka's offsets are committed after it, so a crash in between makes a replay, which the evidence drops. Replicas take
turns under one advisory lock for the short time that this takes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, TypeAlias

import structlog

from schemas import change
from schemas.change import Change, SnapshotNotice, Stamp, TransactionEnd
from schemas.commits import index_topic, parse_index
from schemas.envelope import topic_name
from schemas.errors import DataError
from schemas.lsn import LSN
from schemas.reader import RecordReader, row_reader
from schemas.registry import Registry
from sink.database import Connection, Cursor, transaction
from sink.documents.profile import Profile
from sink.documents.refs import DocumentRef
from sink.intake import evidence
from sink.intake.consumer import Batch, KafkaRecord
from sink.intake.evidence import Gap, Partition, Range, Seen
from sink.ledger import blocked
from sink.staging import inbox, snapshots, touches
from sink.staging import parked as parked_rows
from sink.staging.jsonb import refuse_unfit
from sink.staging.row_writer import RowWriter
from sink.staging.rows import NEW_HALF, OLD_HALF, PARKED_OP, WHOLE, RowChange, row_change
from sink.staging.tables import StagedTables

log = structlog.get_logger()

_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('ordertap.staging', 0))"


class Unreadable(NamedTuple):
    """A record that cannot be read, with what its headers still say."""

    record: KafkaRecord
    reason: str
    table: str
    stamp: Stamp | None
    transaction_id: str | None
    size: Mapping[str, int] | None

    @property
    def place(self) -> tuple[str, int, int]:
        return self.record[:3]


Item: TypeAlias = Change | SnapshotNotice | TransactionEnd | Unreadable


@dataclass(slots=True)
class Staged:
    """What a batch came to, in counts; `gaps` are those that it found."""

    rows: int = 0
    replays: int = 0
    parked: int = 0
    marked: int = 0
    gaps: list[Gap] = field(default_factory=list)


class Staging:
    """Stages the records of a shop by its profile.

    `mark` is the ledger's; it is called inside the transaction. `columns` says what columns a table has of which no
    record came yet (`registered_columns`), so that a profile's SQL runs on an empty table, too.
    """

    def __init__(
        self,
        shop: str,
        profile: Profile,
        mark: Callable[[Cursor, Mapping[DocumentRef, str]], None],
        columns: Callable[[str], Mapping[str, str]] = lambda _table: {},
    ) -> None:
        self._columns = columns
        self._profile = profile
        self._names = frozenset(profile.tables)
        self._mark = mark
        self._tables = StagedTables(shop)
        self._rows = RowWriter(profile, self._tables)

    def prepare(self, connection: Connection) -> None:
        """Makes the shop's schema with the views. Call once before the first batch."""
        with transaction(connection) as cursor:
            cursor.execute(_LOCK)
            self._declare(cursor)

    def _declare(self, cursor: Cursor) -> None:
        """Empty views for the tables without a record, by the profile's own columns, else by the registered ones."""
        empty = [name for name in self._profile.tables if self._tables.get(cursor, name) is None]
        self._tables.declare(cursor, {name: self._profile.columns.get(name) or self._columns(name) for name in empty})

    def stage(self, connection: Connection, items: Sequence[Item], batch: Batch) -> Staged:
        """Stages items, of which `batch` says the offsets read; all or nothing.

        UnavailableError when the database is lost on the way: the batch is to be read again.
        """
        done = False
        try:
            with transaction(connection) as cursor:
                cursor.execute(_LOCK)
                self._tables.forget()  # another replica may have changed them since we had the lock
                result = self._stage(cursor, items, batch)
            done = True
        finally:
            if not done:
                self._tables.forget()
        return result

    def _stage(self, cursor: Cursor, items: Sequence[Item], batch: Batch) -> Staged:
        before = evidence.load(cursor, batch.read)
        before |= {p: Seen(first) for p, first in batch.first.items() if p not in before}
        ids = {(partition.topic, partition.number): partition for partition in batch.read}
        fresh = [item for item in items if not _is_replay(item, before, ids)]
        result = Staged(replays=len(items) - len(fresh))
        ready, refs, parked = self._sort_out(cursor, fresh, batch, result)
        refs |= self._rows.apply(cursor, ready)
        refs |= self._block_parked(cursor, ready)
        done = snapshots.complete(cursor, self._tables, self._names)
        if done:
            self._declare(cursor)
        refs |= touches.every_document(cursor, self._profile, self._tables, done)
        now = {p: evidence.after(before.get(p), p, read) for p, read in batch.read.items()}
        for partition, offset in parked:
            seen = now[partition]
            gap = Gap(partition, Range(offset, offset + 1), evidence.PARKED)
            now[partition] = Seen(seen.next_offset, (*seen.gaps, gap))
        result.gaps = [gap for gap in evidence.save(cursor, before, now) if gap.cause == evidence.SKIPPED]
        refs |= self._block_gaps(cursor, ready)
        self._mark(cursor, touches.units(cursor, self._profile, self._tables, refs))
        result.rows, result.marked = len(ready), len(refs)
        return result

    def _sort_out(
        self, cursor: Cursor, items: Sequence[Item], batch: Batch, result: Staged
    ) -> tuple[list[RowChange], set[DocumentRef], list[tuple[Partition, int]]]:
        """What can be applied now, documents that a repaired record frees, and the places of parked records."""
        raw = {record[:3]: record for record in batch.records}
        by_place = {(p.topic, p.number): p for p in batch.read}
        changes: list[tuple[tuple[str, int, int], RowChange]] = []
        parked: list[tuple[Partition, int]] = []
        for item in items:
            if isinstance(item, Change):
                if item.table not in self._names:
                    continue
                converted = row_change(item)
                place = (item.topic, item.partition, item.offset)
                try:
                    if item.op != "t":
                        self._tables.fit(cursor, converted)
                        refuse_unfit(item.table, converted.columns, converted.values)
                    changes.append((place, converted))
                    continue
                except DataError as error:
                    record = raw.get(place, KafkaRecord(*place, None, None, ()))
                    item = Unreadable(record, error.message, item.table, item.stamp, item.transaction_id, item.size)
            if isinstance(item, Unreadable):
                parked_rows.park(cursor, item.record, item.transaction_id, item.reason)
                log.warning("record parked", reason=item.reason)
                parked.append((by_place[item.place[:2]], item.place[2]))
                changes += [(item.place, stand_in) for stand_in in _stand_in(item)]
        result.parked = len(parked)
        snapshots.note(cursor, (item for item in items if isinstance(item, SnapshotNotice)))
        ends = [item for item in items if isinstance(item, TransactionEnd) and not self._names.isdisjoint(item.size)]
        if ends:
            inbox.forget_old_sizes(cursor)
        parked_places = {(p.topic, p.number, offset) for p, offset in parked}
        repaired = parked_rows.unpark(cursor, [place for place, _ in changes if place not in parked_places])
        applied, freed = self._repaired(cursor, repaired)
        direct = [c for place, c in changes if c.transaction_id is None or place in applied]
        waiting = [
            c
            for place, c in changes
            if c.transaction_id is not None and place not in applied and not self._truncated_before(cursor, c)
        ]
        return direct + inbox.whole(cursor, waiting, ends, self._names), freed, parked

    def _repaired(
        self, cursor: Cursor, repaired: Mapping[tuple[str, int, int], str | None]
    ) -> tuple[set[tuple[str, int, int]], set[DocumentRef]]:
        """Places of parked records that can be read now while their transaction is applied; the documents freed."""
        ids = {transaction_id for transaction_id in repaired.values() if transaction_id}
        cursor.execute(
            "SELECT DISTINCT transaction_id FROM ordertap.inbox WHERE transaction_id = ANY(%s)", (list(ids),)
        )
        waiting = {row[0] for row in cursor.fetchall()}
        cursor.execute(
            "SELECT DISTINCT transaction_id FROM ordertap.parked WHERE transaction_id = ANY(%s)", (list(ids),)
        )
        still = {row[0] for row in cursor.fetchall()}
        cursor.execute(
            "DELETE FROM ordertap.inbox WHERE op = %s AND transaction_id = ANY(%s)",
            (PARKED_OP, sorted(waiting - still)),
        )
        freed = blocked.unblock(cursor, [f"transaction:{name}" for name in sorted(ids - still - waiting)])
        return {place for place, name in repaired.items() if name and name not in waiting}, freed

    def _truncated_before(self, cursor: Cursor, row: RowChange) -> bool:
        """Whether this is the copy of a TRUNCATE from another partition: its transaction is done."""
        if row.op != "t":
            return False
        table = self._tables.get(cursor, row.table)
        return table is not None and table.truncated is not None and table.truncated >= row.stamp

    def _block_parked(self, cursor: Cursor, changes: Iterable[RowChange]) -> set[DocumentRef]:
        """Blocks what whole transactions with an unreadable record touch."""
        parked = {row.transaction_id for row in changes if row.op == PARKED_OP}
        refs: set[DocumentRef] = set()
        for transaction_id in sorted(filter(None, parked)):
            keys: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
            for row in changes:
                if row.transaction_id == transaction_id and row.key and row.op != PARKED_OP:
                    keys[row.table].append(row.key)
            found = touches.touched(cursor, self._profile, self._tables, keys)
            reason = (
                "a record of its shop commit cannot be read; see ordertap.parked, mend what wrote it, read it again"
            )
            blocked.block(cursor, found, f"transaction:{transaction_id}", reason)
            refs |= found
        return refs

    def _block_gaps(self, cursor: Cursor, done: Iterable[RowChange]) -> set[DocumentRef]:
        """Blocks what commits with changes in a skipped range touch; frees those that are whole now."""
        refs = blocked.unblock(cursor, sorted({f"gap:{c.transaction_id}" for c in done if c.transaction_id}))
        topics = {gap.partition.topic for gap in evidence.open_gaps(cursor) if gap.cause == evidence.SKIPPED}
        if not topics:
            return refs
        for entry in inbox.waiting(cursor):
            short = [t for t, count in (entry.size or {}).items() if t in self._names and entry.come.get(t, 0) < count]
            if not any(topic.endswith(f".{table}") for table in short for topic in topics):
                continue
            keys: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
            for row in inbox.rows(cursor, [entry.transaction_id]):
                if row.key and self._tables.get(cursor, row.table) is not None:
                    keys[row.table].append(row.key)
            found = touches.touched(cursor, self._profile, self._tables, keys)
            reason = f"gap: records of {', '.join(short)} were skipped; reset the offsets back to before the gap"
            blocked.block(cursor, found, f"gap:{entry.transaction_id}", reason)
            refs |= found
        return refs


def registered_columns(registry: Registry, prefix: str) -> Callable[[str], Mapping[str, str]]:
    """The columns of a table from the newest schema that capture registered; none where there is none yet."""

    def columns(table: str) -> Mapping[str, str]:
        schema = registry.latest(f"{topic_name(prefix, table)}-value")
        return {} if schema is None else row_reader(schema).columns

    return columns


def decode(reader: RecordReader, records: Iterable[KafkaRecord], prefix: str) -> list[Item]:
    """What records say; those that cannot be read come as Unreadable. UnavailableError when the registry is away."""
    items: list[Item] = []
    for record in records:
        try:
            if record.topic == index_topic(prefix):
                items += _ends(record)
                continue
            item = reader.read(*record[:5], list(record.headers))
        except DataError as error:
            items.append(_unreadable(record, error.message, prefix))
        else:
            if isinstance(item, Change) and _is_listed(record):
                item = replace(item, transaction_id=_commit_id(item.stamp))
            if item is not None:
                items.append(item)
    return items


def _commit_id(stamp: Stamp) -> str:
    """What the index of commits and the headers of rows have in common."""
    return f"{stamp.generation}:{int(stamp.commit_lsn)}"


def _is_listed(record: KafkaRecord) -> bool:
    """Whether the sizes of the record's transaction are in the index of commits, and not in this header or an END."""
    header = dict(record.headers).get(change.TRANSACTION_HEADER, b"{")
    return not header.startswith((b"{", b"snapshot:"))


def _ends(record: KafkaRecord) -> list[Item]:
    """The commits that a record of the index lists."""
    found = parse_index(record.value or b"")
    ends: list[Item] = []
    for commit in found.commits:
        if commit.snapshot is None:
            stamp = Stamp(found.generation, LSN(commit.lsn), 0)
            size: dict[str, int] = {inbox.HALVES: 0}
            for number, count in commit.changes:
                table = found.tables[number][0]
                size[table] = size.get(table, 0) + count
            ends.append(TransactionEnd(stamp, _commit_id(stamp), size, *record[:3]))
    return ends


def _unreadable(record: KafkaRecord, reason: str, prefix: str) -> Unreadable:
    found = dict(record.headers)
    stamp, mark = None, None
    with suppress(DataError):
        if change.STAMP_HEADER in found:
            stamp = change.parse_stamp(found[change.STAMP_HEADER])
        if change.TRANSACTION_HEADER in found:
            mark = change.parse_transaction(found[change.TRANSACTION_HEADER])
    table = record.topic.removeprefix(f"{prefix}.")
    if mark is None:
        return Unreadable(record, reason, table, stamp, None, None)
    transaction_id = _commit_id(stamp) if stamp is not None and _is_listed(record) else mark.transaction_id
    return Unreadable(record, reason, table, stamp, transaction_id, mark.size)


def _is_replay(item: Item, seen: Mapping[Partition, Seen], ids: Mapping[tuple[str, int], Partition]) -> bool:
    topic, number, offset = item.place if isinstance(item, Unreadable) else (item.topic, item.partition, item.offset)
    found = seen.get(ids[topic, number])
    return found is not None and found.has(offset)


def _stand_in(item: Unreadable) -> list[RowChange]:
    """Counts an unreadable change as seen, where its headers say which one it is."""
    if item.stamp is None or item.transaction_id is None:
        return []
    found = dict(item.record.headers)
    half = OLD_HALF if change.NEW_KEY_HEADER in found else NEW_HALF if change.OLD_KEY_HEADER in found else WHOLE
    return [RowChange(item.table, PARKED_OP, item.stamp, half, item.transaction_id, item.size, None, None, {}, {})]
