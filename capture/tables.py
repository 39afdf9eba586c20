"""The captured tables: for each relation version a codec with its registered schemas, and the records of a change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from capture.producer import ANY_PARTITION, Headers
from schemas.change import NEW_KEY_HEADER, OLD_KEY_HEADER, UNCHANGED_HEADER, Cells
from schemas.codec import Encoder, SourcePrefix, WidenError, compile_codec, fill_unchanged
from schemas.envelope import Schema, topic_name
from schemas.relation import Relation, TableFacts

log = structlog.get_logger("capture")

Draft = tuple[str, int, bytes | None, bytes | None, int, Headers]
"""A record before its transaction's size is known: topic, partition, key, value, ordinal, headers of its own."""

KEYLESS_PARTITION: Final = 0
"""Rows without key keep their order by lying in one partition."""


@dataclass(slots=True)
class Table:
    """One table at one relation version. `add_*` methods return the drafts of one change."""

    name: str
    topic: str
    partitions: int
    encoder: Encoder
    tombstones: bool
    widen: Callable[[str], Encoder]

    def insert(self, prefix: SourcePrefix, lsn: int, ordinal: int, new: Cells) -> list[Draft]:
        """Op c."""
        while True:
            try:
                encoder = self.encoder
                key, value = encoder.key(new), encoder.create(prefix, lsn, new)
            except WidenError as error:
                self.encoder = self.widen(error.column)
                continue
            return [(self.topic, _partition(key), key, value, ordinal, [])]

    def read(self, prefix: SourcePrefix, lsn: int, row: Cells) -> Draft:
        """Op r, a row of a snapshot."""
        while True:
            try:
                key, value = self.encoder.key(row), self.encoder.read(prefix, lsn, row)
            except WidenError as error:
                self.encoder = self.widen(error.column)
                continue
            return (self.topic, _partition(key), key, value, 0, [])

    def update(
        self, prefix: SourcePrefix, lsn: int, ordinal: int, old_kind: bytes | None, old: Cells | None, new: Cells
    ) -> list[Draft]:
        """Op u; a change of the key becomes a delete, its tombstone and a create."""
        while True:
            try:
                return self._update(prefix, lsn, ordinal, old_kind, old, new)
            except WidenError as error:
                self.encoder = self.widen(error.column)

    def _update(
        self, prefix: SourcePrefix, lsn: int, ordinal: int, old_kind: bytes | None, old: Cells | None, new: Cells
    ) -> list[Draft]:
        encoder = self.encoder
        key = encoder.key(new)
        whole = old if old_kind == b"O" else None
        if whole is not None:
            new = fill_unchanged(new, whole)
        if old is not None and key is not None and encoder.key(old) != key:
            return self._key_change(prefix, lsn, ordinal, old, old_kind == b"K", new)
        return [
            (self.topic, _partition(key), key, encoder.update(prefix, lsn, new, whole), ordinal, self._unchanged(new))
        ]

    def _key_change(
        self, prefix: SourcePrefix, lsn: int, ordinal: int, old: Cells, key_only: bool, new: Cells
    ) -> list[Draft]:
        encoder = self.encoder
        gone = self.delete(prefix, lsn, ordinal, old, key_only)
        new_key = (NEW_KEY_HEADER, encoder.key_json(new))
        for draft in gone:
            draft[5].append(new_key)
        headers = [*self._unchanged(new), (OLD_KEY_HEADER, encoder.key_json(old))]
        key, value = encoder.key(new), encoder.create(prefix, lsn, new)
        return [*gone, (self.topic, _partition(key), key, value, ordinal, headers)]

    def delete(self, prefix: SourcePrefix, lsn: int, ordinal: int, old: Cells, key_only: bool) -> list[Draft]:
        """Op d, with a tombstone behind it for a table with a key."""
        encoder = self.encoder
        key = encoder.key(old)
        headers: Headers = []
        if key_only and encoder.key_only_unchanged:
            headers.append((UNCHANGED_HEADER, encoder.key_only_unchanged))
        drafts: list[Draft] = [
            (self.topic, _partition(key), key, encoder.delete(prefix, lsn, old, key_only), ordinal, headers)
        ]
        if self.tombstones and key is not None:
            drafts.append((self.topic, _partition(key), key, None, ordinal, []))
        return drafts

    def truncate(self, prefix: SourcePrefix, lsn: int, ordinal: int) -> list[Draft]:
        """Op t, to every partition, so that no row overtakes it."""
        value = self.encoder.truncate(prefix, lsn)
        return [(self.topic, partition, None, value, ordinal, []) for partition in range(self.partitions)]

    def _unchanged(self, new: Cells) -> Headers:
        header = self.encoder.unchanged(new)
        return [] if header is None else [(UNCHANGED_HEADER, header)]


def _partition(key: bytes | None) -> int:
    return KEYLESS_PARTITION if key is None else ANY_PARTITION


class Tables:
    """The tables by the OID that pgoutput uses; a Relation message makes or replaces one."""

    def __init__(
        self,
        prefix: str,
        included: frozenset[str],
        as_text: frozenset[str],
        tombstones: bool,
        facts: Callable[[Relation], TableFacts],
        register: Callable[[str, Schema], int],
        partitions: Callable[[str], int],
    ) -> None:
        """`facts` asks the catalogue, `register` the registry (subject, schema), `partitions` makes a new topic."""
        self._prefix = prefix
        self._included = included
        self._as_text = as_text
        self._tombstones = tombstones
        self._facts = facts
        self._register = register
        self._partitions = partitions
        self._tables: dict[int, Table | None] = {}
        self._nullable: dict[str, frozenset[str]] = {}
        self.get = self._tables.get

    def relation(self, relation: Relation) -> Table | None:
        """Takes note of a relation version; None for a table that is not captured."""
        table = self._compile(relation) if not self._included or relation.table in self._included else None
        self._tables[relation.oid] = table
        return table

    def _compile(self, relation: Relation) -> Table:
        topic = topic_name(self._prefix, relation.table)
        encoder = self._encoder(topic, relation)
        partitions = self._partitions(topic)

        def widen(column: str) -> Encoder:
            """The catalogue is ahead of the stream: this row has a NULL where it says NOT NULL."""
            self._nullable[relation.table] = self._nullable.get(relation.table, frozenset()) | {column}
            log.info("column is nullable in the stream", table=relation.table, column=column)
            return self._encoder(topic, relation)

        return Table(relation.table, topic, partitions, encoder, self._tombstones, widen)

    def _encoder(self, topic: str, relation: Relation) -> Encoder:
        columns = frozenset(
            name.rpartition(".")[2] for name in self._as_text if name.rpartition(".")[0] == relation.table
        )
        nullable = self._nullable.get(relation.table, frozenset())
        codec = compile_codec(topic, relation, self._facts(relation), nullable=nullable, text=columns)
        for column, type_name in codec.unknown_types:
            log.warning("type travels as text", table=relation.table, column=column, type=type_name)
        key_id = None if codec.key_schema is None else self._register(f"{topic}-key", codec.key_schema)
        return codec.bind(key_id, self._register(f"{topic}-value", codec.value_schema))
