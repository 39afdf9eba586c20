"""The captured tables, and the records of a change in one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol, TypeVar

import structlog

from capture.changes.any_bytes import check_names
from capture.changes.notes import tell_of
from capture.changes.versions import Bound, ParkedError, Versions
from capture.kafka.producer import ANY_PARTITION, Fields, Headers
from capture.metrics import SCHEMA_CHANGES
from capture.postgres import pgoutput
from capture.selection import Selection
from schemas.model.change import NEW_KEY_HEADER, OLD_KEY_HEADER, STAMP_HEADER, UNCHANGED, UNCHANGED_HEADER, Cells
from schemas.model.errors import SettingsError
from schemas.model.relation import Relation
from schemas.types.encoders import FAILURES, NEW_LABEL, SPECIAL_NUMBER
from schemas.types.kind import Schema
from schemas.writing.codec import SourcePrefix, WidenError, fill_unchanged

log = structlog.get_logger("capture")

Draft = Fields
"""A change's record; the stream adds the transaction's headers."""

Made = TypeVar("Made")

_NEW_ROW: Final = b"N"  # follows at once in an update that brings nothing of the old row
KEYLESS_PARTITION: Final = 0
"""Rows without a key all go to one partition, which keeps their order."""


class Table:
    """One table at one relation version. Methods return the drafts of one change. `stamp`: the value of its header."""

    __slots__ = (
        "_asked",
        "_renew",
        "_skipped",
        "_tombstones",
        "_unfilled",
        "_widen",
        "encoder",
        "events",
        "name",
        "partition",
        "partitions",
        "place",
        "record",
        "topic",
    )

    def __init__(
        self,
        name: str,
        bound: Bound,
        tombstones: bool,
        widen: Callable[[str], Bound],
        renew: Callable[[], Bound],
        events: dict[str, int],
        skipped: frozenset[str] = frozenset(),
        unfilled: set[str] | None = None,
    ) -> None:
        """`unfilled`: gets the table's name if a row comes under a new key without all of its values."""
        self.name = name
        self._unfilled = set[str]() if unfilled is None else unfilled
        self.events = events  # changes by operation, for the metrics
        self._tombstones = tombstones
        self._skipped = skipped
        self._widen = widen
        self._renew = renew
        self._asked: set[tuple[str, str]] = set()  # columns and labels that the catalogue does not have
        self._use(bound)

    def _use(self, bound: Bound) -> None:
        self.topic, self.partitions, self.encoder = bound
        self.place = self.name, self.topic  # names of the table in the index of commits
        self.record = self.encoder.record
        self.partition = ANY_PARTITION if self.encoder.has_key else KEYLESS_PARTITION

    def _widened(self, change: Callable[[], Made]) -> Made:
        """Makes the change. If a column has a NULL although the catalogue rules it out, makes it again with an encoder
        that takes NULL."""
        while True:
            try:
                made = change()
            except WidenError as error:
                self._use(self._wider(error.column))
                continue
            if not (self.encoder.notes and self._renewed()):
                return made

    def _wider(self, column: str) -> Bound:
        try:
            return self._widen(column)
        except SettingsError as refused:
            if (column, SPECIAL_NUMBER) in self.encoder.notes:
                refused.hint += f"; or set special_numbers: exact, for the NULL of {column} is a {SPECIAL_NUMBER}"
            raise

    def _renewed(self) -> bool:
        """Logs notes about values. Returns whether there is a new encoder, which knows an enum's new labels."""
        notes, codec = set(self.encoder.notes), self.encoder.codec
        self.encoder.notes.clear()
        tell_of(self.name, notes)
        labels = {note for note in notes if note[1].startswith(NEW_LABEL)} - self._asked
        if not labels:
            return False
        self._use(self._renew())
        if self.encoder.codec.value_schema != codec.value_schema:
            return True
        self._asked |= labels  # older names of labels: they are as they are
        return False

    def insert(self, message: bytes, prefix: SourcePrefix, lsn: int, stamp: bytes) -> list[Draft]:
        """Op c, from an Insert message. TOAST values may be missing if it was an update that moved a row into the
        publication's filter."""
        try:
            key, value = self.record(message, prefix, lsn, "c")
        except FAILURES:  # an unusual row: the plain way takes it, or says what is wrong with it
            new = pgoutput.decode_as(pgoutput.Insert, message).new
            return self._widened(lambda: [self._create(prefix, lsn, stamp, new, self._unchanged(new))])
        return [(self.topic, self.partition, key, value, [(STAMP_HEADER, stamp)])]

    def read(self, prefix: SourcePrefix, lsn: int, row: Cells) -> tuple[bytes | None, bytes]:
        """Key and value of op r, a row of a snapshot."""
        return self._widened(lambda: (self.encoder.key(row), self.encoder.read(prefix, lsn, row)))

    def update(self, message: bytes, prefix: SourcePrefix, lsn: int, stamp: bytes) -> list[Draft]:
        """Op u, from an Update message. A change of the key becomes a delete, its tombstone and a create."""
        if message[5:6] == _NEW_ROW:
            try:
                key, value = self.record(message, prefix, lsn, "u")
            except FAILURES:
                pass  # as above
            else:
                return [(self.topic, self.partition, key, value, [(STAMP_HEADER, stamp)])]
        _, old_kind, old, new = pgoutput.decode_as(pgoutput.Update, message)
        return self._widened(lambda: self._update(prefix, lsn, stamp, old_kind, old, new))

    def update_in_part(self, message: bytes, prefix: SourcePrefix, lsn: int, stamp: bytes) -> list[Draft]:
        """The same as update(), without the records of skipped_operations. A change of the key counts as a delete and a
        create. Source: Debezium's EventDispatcher, which asks for each of the two."""
        if "u" in self._skipped and message[5:6] == _NEW_ROW:
            return []
        drafts = self.update(message, prefix, lsn, stamp)
        *gone, new = drafts
        if not gone:
            return [] if "u" in self._skipped else drafts
        return ([] if "d" in self._skipped else gone) + ([] if "c" in self._skipped else [new])

    def _update(
        self, prefix: SourcePrefix, lsn: int, stamp: bytes, old_kind: bytes | None, old: Cells | None, new: Cells
    ) -> list[Draft]:
        encoder = self.encoder
        whole = old if old_kind == b"O" else None
        if old is not None:
            new = fill_unchanged(new, old, encoder.identity if whole is None else None)
        key = encoder.key(new)
        if old is not None and key is not None and encoder.key(old) != key:
            return self._key_change(prefix, lsn, stamp, old, old_kind == b"K", new)
        return [self._draft(key, encoder.update(prefix, lsn, new, whole), stamp, self._unchanged(new))]

    def _key_change(
        self, prefix: SourcePrefix, lsn: int, stamp: bytes, old: Cells, key_only: bool, new: Cells
    ) -> list[Draft]:
        encoder = self.encoder
        new_key = (NEW_KEY_HEADER, encoder.key_json(new))
        gone = self._delete(prefix, lsn, stamp, old, key_only)
        for draft in gone:
            draft[4].append(new_key)
        headers = [*self._unchanged(new), (OLD_KEY_HEADER, encoder.key_json(old))]
        behind = prefix if "d" in self._skipped else prefix.second()
        return [*gone, self._create(behind, lsn, stamp, new, headers)]

    def _create(self, prefix: SourcePrefix, lsn: int, stamp: bytes, new: Cells, headers: Headers) -> Draft:
        if UNCHANGED in new:
            self._unfilled.add(self.name)
        return self._draft(self.encoder.key(new), self.encoder.create(prefix, lsn, new), stamp, headers)

    def delete(self, message: bytes, prefix: SourcePrefix, lsn: int, stamp: bytes) -> list[Draft]:
        """Op d, from a Delete message; for a table with a key, a tombstone follows."""
        _, old_kind, old = pgoutput.decode_as(pgoutput.Delete, message)
        return self._widened(lambda: self._delete(prefix, lsn, stamp, old, old_kind == b"K"))

    def _delete(self, prefix: SourcePrefix, lsn: int, stamp: bytes, old: Cells, key_only: bool) -> list[Draft]:
        encoder = self.encoder
        key = encoder.key(old)
        headers: Headers = []
        if key_only and encoder.key_only_unchanged:
            headers.append((UNCHANGED_HEADER, encoder.key_only_unchanged))
        drafts = [self._draft(key, encoder.delete(prefix, lsn, old, key_only), stamp, headers)]
        if self._tombstones and key is not None:
            drafts.append(self._draft(key, None, stamp, []))
        return drafts

    def truncate(self, prefix: SourcePrefix, lsn: int, stamp: bytes) -> list[Draft]:
        """Op t, once for every partition, so that no row overtakes it."""
        value = self.encoder.truncate(prefix, lsn)
        return [(self.topic, number, None, value, [(STAMP_HEADER, stamp)]) for number in range(self.partitions)]

    def _draft(self, key: bytes | None, value: bytes | None, stamp: bytes, headers: Headers) -> Draft:
        return (self.topic, self.partition, key, value, [(STAMP_HEADER, stamp), *headers])

    def _unchanged(self, new: Cells) -> Headers:
        header = self.encoder.unchanged(new)
        return [] if header is None else [(UNCHANGED_HEADER, header)]


class Patiently(Protocol):
    """Runs a call that may block (catalogue, registry, broker) while the stream keeps the server patient."""

    def __call__(self, call: Callable[[], Made], /) -> Made: ...


def _namesake(one: Relation, other: Relation) -> ParkedError:
    said = f'tables "{one.schema}"."{one.name}" and "{other.schema}"."{other.name}" are both {one.table} here'
    return ParkedError(one.table, said, "leave one of them out of the publication, or rename it")


def _at_once(call: Callable[[], Made]) -> Made:
    return call()


class Tables:
    """The tables by the OID that pgoutput uses. A Relation message makes or replaces one."""

    def __init__(
        self,
        selection: Selection,
        tombstones: bool,
        versions: Versions,
        parked: Iterable[str] = (),
        any_bytes: bool = False,
    ) -> None:
        """`parked`: tables whose changes are not written. `any_bytes`: text may not be UTF-8, which also parks its
        table."""
        self.any_bytes = any_bytes
        self._selection = selection
        self.skipped = selection.skipped
        self._tombstones = tombstones
        self._versions = versions
        self.parked = frozenset(parked)
        self._accounted: frozenset[str] = frozenset()  # empty: unknown
        self.unfilled: set[str] = set()
        """Tables where rows came under a new key without all of their values, until somebody clears it."""
        self.waiting: dict[bytes, Relation] = {}
        """Tables published after the start, by OID as below. Some wait for ever, because the server also names
        partitions whose changes it sends under the root."""
        self._tables: dict[bytes, Table | None] = {}
        self._relations: dict[str, Relation] = {}
        self._events: dict[str, dict[str, int]] = {}
        self.get = self._tables.get
        """The table of an OID as pgoutput sends it, four bytes big-endian; None if it is not captured, or parked."""

    def account(self, names: Iterable[str]) -> None:
        """Notes tables that a snapshot has read or will read. Any other table waits for begin()."""
        self._accounted = frozenset(names)

    def relation(self, relation: Relation, patiently: Patiently = _at_once) -> Table | None:
        """Notes a relation version. None if the table is not captured, is parked, or waits for begin()."""
        table, oid = None, relation.oid.to_bytes(4, "big")
        self.waiting.pop(oid, None)
        if self._selection.table(relation.table):
            if self._accounted and relation.table not in self._accounted:
                self.waiting[oid] = relation
                self._tables[oid] = None
                return None
            before = self._relations.get(relation.table, relation)
            if before.schema != relation.schema:  # either name may contain a dot
                self.park(_namesake(before, relation))
            elif before != relation:
                SCHEMA_CHANGES.labels(relation.table).inc()
            self._relations[relation.table] = relation
            table = None if relation.table in self.parked else self._tried(relation, patiently)
        self._tables[oid] = table
        return table

    def ahead(self, relations: Iterable[Relation]) -> list[tuple[str, Schema]]:
        """Compiles relation versions for the next relation() of each, until forget(). Returns their schemas, (subject,
        schema), so that they can be registered together."""
        if self.any_bytes:  # their names have to be checked first
            return []
        return self._versions.ahead(one for one in relations if one.table not in self.parked)

    def forget(self) -> None:
        """Forgets what was compiled ahead."""
        self._versions.forget()

    def begin(self, oid: bytes, patiently: Patiently) -> Table | None:
        """Begins a waiting table at its first change: no snapshot has its earlier rows. None if it is parked."""
        relation = self.waiting[oid]
        self._accounted |= {relation.table}
        hint = f"capture signal snapshot {relation.table}"
        log.warning("table is new: its earlier rows are not in Kafka", table=relation.table, next=hint)
        return self.relation(relation, patiently)

    def _tried(self, relation: Relation, patiently: Patiently) -> Table | None:
        try:
            return self.compile(relation, patiently)
        except ParkedError as error:
            self.park(error)
            return None

    def compile(self, relation: Relation, patiently: Patiently = _at_once) -> Table:
        """The table of a relation version, for rows from outside the stream. Raises ParkedError."""

        def widen(column: str) -> Bound:
            return patiently(lambda: self._versions.widen(relation, column))

        def renew() -> Bound:
            return patiently(lambda: self._versions.bind(relation))

        if self.any_bytes:
            check_names(relation)
        events = self._events.setdefault(relation.table, dict.fromkeys("crudt", 0))
        bound = self._versions.bind(relation)
        return Table(relation.table, bound, self._tombstones, widen, renew, events, self.skipped, self.unfilled)

    def captures(self, name: str) -> bool:
        """Whether the settings include a table (schema.table)."""
        return self._selection.table(name)

    def check(self, relation: Relation) -> None:
        """SettingsError if the table's columns do not fit the settings."""
        self._versions.check(relation)

    def park(self, error: ParkedError) -> None:
        """Parks a table: from here on its changes are not written."""
        log.error("table is parked", table=error.table, reason=error.message, next=error.hint)
        self.parked |= {error.table}
        relation = self._relations.get(error.table)
        if relation is not None:
            self._tables[relation.oid.to_bytes(4, "big")] = None

    def unpark(self, names: Iterable[str], patiently: Patiently = _at_once) -> frozenset[str]:
        """Writes the tables' changes again from here on, if the registry takes their schemas now. Returns those of
        `names` that were parked."""
        parked = self.parked.intersection(names)
        for name in parked:
            log.info("table is written again", table=name)
            self.parked -= {name}
            if name in self._relations:
                self.relation(self._relations[name], patiently)
        return parked

    def take_events(self) -> Iterator[tuple[str, str, int]]:
        """(table, operation, changes) since the last call."""
        for table, events in list(self._events.items()):  # a chunk's thread may add one
            for op, count in events.items():
                if count:
                    events[op] = 0
                    yield table, op, count
