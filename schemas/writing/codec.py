"""The codec of one relation version: PostgreSQL's text in, Avro bytes out, by straight-line generated Python.

What the generated code (schemas.writing.rowcode) fails on is encoded again cell by cell (RowLayout.careful), which
finds the column and says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Final, NamedTuple

from schemas.model.change import UNCHANGED, Cells, unchanged_header
from schemas.model.errors import DataError
from schemas.model.relation import Column, ColumnFacts, Relation, TableFacts
from schemas.reading.json_text import json_text
from schemas.registry import wire
from schemas.types.defaults import NO_DEFAULT, Default, avro_default
from schemas.types.encoders import FAILURES, LENGTHS, long_bytes, sized
from schemas.types.kind import Schema
from schemas.types.source_type import source_type
from schemas.types.type_table import DEFAULT_MODES, TEXT, Kind, Modes, kind_of, text_kind
from schemas.writing.column_rules import (
    NO_RULES,
    Asterisks,
    ColumnRules,
    Mask,
    Truncated,
    chosen_key,
    kept_columns,
    masked,
)
from schemas.writing.compiled import rowpath
from schemas.writing.envelope import Field, field_names, key_schema, value_schema
from schemas.writing.layout import ColumnCodec, RowLayout, WidenError
from schemas.writing.rowcode import RowCode, generate

__all__ = ["Codec", "Encoder", "SourceOrigin", "SourcePrefix", "WidenError", "compile_codec", "fill_unchanged"]

_NO_FACTS: Final = ColumnFacts()
_NULL: Final = b"\x00"
_SOME: Final = b"\x02"  # branch 1 of ["null", T]


def _tails(origin: bytes = _NULL + _NULL) -> dict[str, bytes]:
    """The bytes after the LSN, by operation: xmin (null), origin and origin_lsn, the transaction block (null), and
    op."""
    return {op: _NULL + origin + _NULL + sized(op.encode()) for op in "crudt"}


_NO_ORIGIN: Final = _tails()


class SourcePrefix(NamedTuple):
    """The parts of `source` and of the envelope that all rows of a transaction share, as Avro bytes."""

    head: bytes  # version … db and the branch of sequence
    sequence: bytes  # the text of sequence up to the row's own LSN
    times: bytes  # ts_us, ts_ns
    xid: bytes  # and the branch of lsn
    clock: bytes  # the envelope's ts_ms, ts_us, ts_ns
    tails: Mapping[str, bytes]  # by op, what follows the LSN: xmin, origin, origin_lsn, the transaction block, op

    def from_origin(self, name: str, lsn: int) -> SourcePrefix:
        """The prefix of a transaction that came from elsewhere (pg_replication_origin), with its commit LSN there."""
        return self._replace(tails=_tails(_SOME + sized(name.encode()) + _SOME + long_bytes(lsn)))

    def placed(self, transaction_id: bytes, total_order: int, collection_order: int) -> SourcePrefix:
        """The prefix of one row, with its place in the transaction and among the transaction's rows of its table, from
        1."""
        block = _SOME + sized(transaction_id) + long_bytes(total_order) + long_bytes(collection_order)
        at = len(sized(b"c"))
        return self._replace(tails={op: tail[: -at - 1] + block + tail[-at:] for op, tail in self.tails.items()})

    def second(self) -> SourcePrefix:
        """The prefix of the second record of the same change: the same, because records do not tell their place."""
        return self


class PlacedPrefix(SourcePrefix):
    """A prefix with the row's place."""

    behind: SourcePrefix

    def second(self) -> SourcePrefix:
        """The prefix with the next place, for the second half of a key change."""
        return self.behind


class SourceOrigin:
    """Where records come from: the topic prefix, the database's name, and our version."""

    def __init__(self, prefix: str, database: str, version: str) -> None:
        compiled = rowpath()
        self._long_bytes = long_bytes if compiled is None else compiled.long_bytes
        self._before = b"".join(sized(name.encode()) for name in (version, "postgresql", prefix))
        self._database = sized(database.encode()) + _SOME
        self._streamed = b"\x00" + sized(b"false") + self._database

    def transaction(self, xid: int, commit_us: int, last_commit_lsn: int, now_ns: int) -> SourcePrefix:
        """What the rows of a streamed transaction share, in all tables. `commit_us`: its commit time (µs since 1970).
        `last_commit_lsn`: the end of the commit before it. `now_ns`: our clock."""
        start = b'["%d","' % last_commit_lsn
        return self._prefix(self._streamed, start, commit_us, _SOME + self._long_bytes(xid) + _SOME, now_ns)

    def alone(self, last_commit_lsn: int, now_ns: int) -> SourcePrefix:
        """The prefix of a logical message outside transactions: no txId, and our clock as commit time."""
        return self._prefix(self._streamed, b'["%d","' % last_commit_lsn, now_ns // 1000, _NULL + _SOME, now_ns)

    def snapshot(self, snapshot_us: int, now_ns: int, marker: str = "true") -> SourcePrefix:
        """What rows of a snapshot share; `marker` is one of Debezium's values of source.snapshot."""
        shown = b"\x00" + sized(marker.encode()) + self._database
        return self._prefix(shown, b'[null,"', snapshot_us, _NULL + _SOME, now_ns)

    def _prefix(self, marker: bytes, sequence: bytes, us: int, xid: bytes, now_ns: int) -> SourcePrefix:
        number = self._long_bytes
        head = self._before + number(us // 1000) + marker
        times = _SOME + number(us) + _SOME + number(us * 1000)
        return SourcePrefix(head, sequence, times, xid, _clock(now_ns), _NO_ORIGIN)


@lru_cache(4)
def _clock(now_ns: int) -> bytes:
    """The envelope's own times, ts_ms, ts_us and ts_ns. A stream looks at its clock once for many transactions."""
    return b"".join(_SOME + long_bytes(number) for number in (now_ns // 10**6, now_ns // 1000, now_ns))


@dataclass(frozen=True, slots=True)
class Codec:
    """What one version of a table becomes: names, schemas, and the generated code.

    `unknown_types` are (column, type name) that travel as text because the type table has no row for them.
    `own_key` are the columns of the table's own key, by which its rows are told apart: the same as `key_columns` unless
    the settings name others, in the order of the identity's index. `field_names` are those of all columns in the log's
    order, None for a column that is left out. `notes` holds what was noted of values until somebody clears it: (column,
    what), see encoders.NotedError. `again` compiles the same codec in another process: it can be pickled, a codec
    cannot.
    """

    topic: str
    table: str
    key_schema: Schema | None
    value_schema: Schema
    key_columns: tuple[str, ...]
    own_key: tuple[str, ...]
    field_names: tuple[str | None, ...]
    unknown_types: tuple[tuple[str, str], ...]
    layout: RowLayout
    notes: set[tuple[str, str]]
    code: RowCode
    table_bytes: bytes
    again: Callable[[], Codec]

    def bind(self, key_schema_id: int | None, value_schema_id: int) -> Encoder:
        """An encoder that writes records of these registered schemas."""
        return Encoder(self, key_schema_id, value_schema_id)


def compile_codec(
    topic: str,
    relation: Relation,
    facts: TableFacts | None,
    *,
    nullable: frozenset[str] = frozenset(),
    text: frozenset[str] = frozenset(),
    modes: Modes = DEFAULT_MODES,
    rules: ColumnRules = NO_RULES,
) -> Codec:
    """Compiles the codec of a relation version.

    `facts` may be ahead of the stream: what they say of columns that are not there is left out. `nullable` are columns
    that had a NULL though the facts forbid it (WidenError). `text` are columns that travel as PostgreSQL's text.
    `modes` say how values travel where there is a choice, `rules` what is left out, what is masked, and what the key
    is. DataError when two columns get the same Avro name, SettingsError for rules that the table cannot keep.
    """
    facts = facts or TableFacts()
    own_key = key_indexes(relation, facts, rules)
    key = chosen_key(relation, rules.key) if rules.key else own_key
    kept = kept_columns(relation, rules, frozenset(own_key + key))
    names = iter(field_names(relation.table, [relation.columns[index].name for index in kept]))
    columns: list[ColumnCodec] = []
    notes: set[tuple[str, str]] = set()
    for index, column in enumerate(relation.columns):
        if index not in kept:
            columns.append(_skipped(column.name))
            continue
        known = facts.columns.get(column.name, _NO_FACTS)
        exact = modes._replace(special_numbers="exact") if index in own_key + key else modes  # a key is never null
        kind = text_kind(modes) if column.name in text else kind_of(column, known, exact)
        may_be_null = column.name in nullable or not (known.not_null or index in own_key)
        mask = rules.masks.get(column.name)
        if mask is not None:
            kind = masked(kind, mask, relation, column, known)
        compiled = _column(column.name, next(names), kind, known, may_be_null, mask)
        columns.append(replace(compiled, field=_described(compiled.field, column, known, rules)))
    own_names = tuple(columns[index].name for index in own_key)
    if facts.identity_index and set(facts.identity_index) <= set(own_names):  # the log flags also what it INCLUDEs
        own_names = facts.identity_index
    flagged = tuple(index for index, column in enumerate(relation.columns) if column.key)
    columns = [replace(column, notes=notes) for column in columns]
    layout = RowLayout(tuple(columns), key, flagged if rules.key else key)
    written = [column for column in columns if not column.skipped]
    return Codec(
        topic=topic,
        table=relation.table,
        key_schema=key_schema(topic, [columns[index].field for index in key]) if key else None,
        value_schema=value_schema(topic, [column.field for column in written]),
        key_columns=tuple(columns[index].name for index in key),
        own_key=own_names,
        field_names=tuple(None if column.skipped else column.field.name for column in columns),
        unknown_types=tuple(
            (column.name, facts.columns.get(column.name, _NO_FACTS).type_name or f"OID {column.type_oid}")
            for column, compiled in zip(relation.columns, columns, strict=True)
            if not compiled.kind.known
        ),
        layout=layout,
        notes=notes,
        code=generate(layout),
        table_bytes=sized(relation.schema.encode()) + sized(relation.name.encode()),
        again=partial(compile_codec, topic, relation, facts, nullable=nullable, text=text, modes=modes, rules=rules),
    )


def key_indexes(relation: Relation, facts: TableFacts, rules: ColumnRules = NO_RULES) -> tuple[int, ...]:
    """Which columns make the record's key, in its order.

    They are the flagged ones, because deletes carry these. If all are flagged (FULL) or none, they are the catalogue's
    primary key, or else its first unique index, if the relation still has all of its columns. An index with a column
    that the rules hide does not count: the key would show it.
    """
    position = {column.name: index for index, column in enumerate(relation.columns)}
    unique = next((columns for columns in facts.unique_indexes if rules.hidden.isdisjoint(columns)), ())
    named = facts.primary_key or unique
    primary = tuple(position[name] for name in named if name in position)
    if len(primary) < len(named):
        primary = ()
    if relation.replica_identity in ("f", "n"):
        return primary
    flagged = tuple(index for index, column in enumerate(relation.columns) if column.key)
    by_index = not flagged and not facts.primary_key  # neither the log nor the catalogue knows a key
    return primary if by_index or set(primary) == set(flagged) else flagged


def _skipped(name: str) -> ColumnCodec:
    return ColumnCodec(name, Field(name, "string", True), TEXT, b"", b"", skipped=True)


def _column(
    name: str, field_name: str, kind: Kind, facts: ColumnFacts, nullable: bool, mask: Mask | None = None
) -> ColumnCodec:
    if mask is None or isinstance(mask, Truncated):
        default = avro_default(kind, facts.default, nullable)
    else:  # the default is a value, too
        default = Default(True, "") if facts.default is not None and not nullable else NO_DEFAULT
    field = Field(field_name, kind.avro, nullable, default.there, default.shown)
    encoded = default.encoded if default.there and mask is None else None
    if not nullable:
        return ColumnCodec(name, field, kind, b"", None, default=encoded)
    if isinstance(mask, Asterisks):
        return ColumnCodec(name, field, kind, _SOME, _SOME + kind.encode(b""))
    # The branch of the default comes first: [T, "null"].
    return ColumnCodec(name, field, kind, *((_NULL, _SOME) if default.there else (_SOME, _NULL)), default=encoded)


def _described(field: Field, column: Column, facts: ColumnFacts, rules: ColumnRules) -> Field:
    """The field with what the settings want its schema to say about the column."""
    source = source_type(column, facts) if column.name in rules.typed else {}
    return replace(field, doc=facts.comment if rules.commented else None, source=source)


def fill_unchanged(cells: Cells, old: Cells, only: tuple[int, ...] | None = None) -> Cells:
    """The new row with the old one's values where the log did not repeat them. `only`: the columns that the old row
    has; None: all (replica identity FULL)."""
    if only is not None:
        old = tuple(was if index in only else UNCHANGED for index, was in enumerate(old))
    return tuple(was if cell is UNCHANGED else cell for cell, was in zip(cells, old, strict=True))


class Encoder:
    """Writes whole Kafka keys and values (wire format) of one codec under its registered schema ids.

    Each method takes `prefix`, which SourceOrigin makes once for each source transaction, and `lsn`, that of the row's
    log message. It raises WidenError and DataError as the module says.
    """

    __slots__ = ("_after", "_before", "_both", "_codec", "_key_head", "key_only_unchanged", "record", "schema_ids")

    def __init__(self, codec: Codec, key_schema_id: int | None, value_schema_id: int) -> None:
        self._codec = codec
        self.schema_ids = key_schema_id, value_schema_id
        self._key_head = None if key_schema_id is None or codec.key_schema is None else wire.prefix(key_schema_id)
        head = wire.prefix(value_schema_id)
        self._after = head + _NULL + _SOME
        self._before = head + _SOME
        self._both = head + _NULL + _NULL
        self.record = codec.code.record(self._key_head, self._after, codec.table_bytes)
        """(key, value) straight from an Insert or Update message: see rowcode.RowCode.record; by op."""
        compiled, columns, key = rowpath(), codec.layout.columns, codec.layout.key
        if compiled is not None and compiled.takes(columns, key):
            self.record = compiled.Record(columns, key, self._key_head, self._after, codec.table_bytes, self.record)
        unsent = [name for i, name in enumerate(codec.field_names) if name and i not in codec.layout.identity]
        self.key_only_unchanged = unchanged_header(unsent) if unsent else None
        """The value of the header `ordertap.unchanged` for a delete if only the key was sent."""

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The names of the key's columns, in its order."""
        return self._codec.key_columns

    @property
    def own_key(self) -> tuple[str, ...]:
        """The names of the columns by which the table itself identifies its rows, in their order."""
        return self._codec.own_key

    @property
    def skipped(self) -> frozenset[str]:
        """The names of the columns that no record has."""
        return frozenset(column.name for column in self._codec.layout.columns if column.skipped)

    @property
    def shares_keys(self) -> bool:
        """Whether rows that are different to the table may have the same key."""
        return not set(self._codec.own_key) <= set(self._codec.key_columns)

    @property
    def identity(self) -> tuple[int, ...]:
        """Which columns an old row has if only a part of it was sent."""
        return self._codec.layout.identity

    @property
    def has_key(self) -> bool:
        """Whether records have a key."""
        return self._key_head is not None

    def key(self, cells: Cells) -> bytes | None:
        """The record's key; None for a table without one."""
        if self._key_head is None:
            return None
        try:
            return self._key_head + self._codec.code.key(cells)
        except FAILURES:
            return self._key_head + self._named(self._codec.layout.careful_key, cells)

    def row_of(self, key: bytes) -> bytes:
        """The part of a key that identifies its row, without the version of the schema."""
        return key[wire.FRAME_SIZE :]

    def key_json(self, cells: Cells) -> bytes:
        """The key as Connect's JSON, the value of `__debezium.newkey` and `__debezium.oldkey`."""
        content = self._named(self._codec.layout.careful_key, cells)
        return json_text(self._codec.key_schema or {})(content)

    @property
    def codec(self) -> Codec:
        """The codec that it uses."""
        return self._codec

    @property
    def notes(self) -> set[tuple[str, str]]:
        """See Codec."""
        return self._codec.notes

    def read_frame(self, prefix: SourcePrefix, lsn: int) -> tuple[bytes | None, bytes, bytes]:
        """What comes before the key (None without one), before the row and after it in each record of op r."""
        return self._key_head, self._after, b"".join(self._source(prefix, lsn, "r"))

    def create(self, prefix: SourcePrefix, lsn: int, cells: Cells) -> bytes:
        """Op c."""
        return b"".join((self._after, self.row(cells), *self._source(prefix, lsn, "c")))

    def read(self, prefix: SourcePrefix, lsn: int, cells: Cells) -> bytes:
        """Op r, a row of a snapshot."""
        return b"".join((self._after, self.row(cells), *self._source(prefix, lsn, "r")))

    def update(self, prefix: SourcePrefix, lsn: int, cells: Cells, old: Cells | None = None) -> bytes:
        """Op u. `old`: the whole old row (replica identity FULL), if the log has it."""
        if old is None:
            return b"".join((self._after, self.row(cells), *self._source(prefix, lsn, "u")))
        return b"".join((self._before, self.row(old), _SOME, self.row(cells), *self._source(prefix, lsn, "u")))

    def delete(self, prefix: SourcePrefix, lsn: int, old: Cells, key_only: bool = False) -> bytes:
        """Op d. `key_only`: only the key's columns of `old` were sent; send `key_only_unchanged` with it."""
        row = self._named(self._codec.layout.key_only, old) if key_only else self.row(old)
        return b"".join((self._before, row, _NULL, *self._source(prefix, lsn, "d")))

    def truncate(self, prefix: SourcePrefix, lsn: int) -> bytes:
        """Op t, without a row."""
        return b"".join((self._both, *self._source(prefix, lsn, "t")))

    def unchanged(self, cells: Cells) -> bytes | None:
        """The value of the header `ordertap.unchanged`; None if every value was sent."""
        if UNCHANGED not in cells:
            return None
        names = self._codec.field_names
        unsent = [name for name, cell in zip(names, cells, strict=True) if cell is UNCHANGED and name]
        return unchanged_header(unsent) if unsent else None

    def row(self, cells: Cells) -> bytes:
        """The row's Avro bytes, as in `before` and `after`."""
        try:
            return self._codec.code.row(cells)
        except FAILURES:
            return self._named(self._codec.layout.careful, cells)

    def _source(self, prefix: SourcePrefix, lsn: int, op: str) -> tuple[bytes, ...]:
        head, sequence, times, xid, clock, tails = prefix
        text = b'%s%d"]' % (sequence, lsn)
        return (
            head, LENGTHS[len(text)], text, times, self._codec.table_bytes, xid, long_bytes(lsn), tails[op], clock,
        )  # fmt: skip

    def _named(self, encode: Callable[[Cells], bytes], cells: Cells) -> bytes:
        try:
            return encode(cells)
        except DataError as error:
            raise DataError(f"table {self._codec.table}: {error.message}", error.hint) from None
