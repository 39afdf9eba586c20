"""Reads Kafka records back to changes: ours, and those of Debezium's PostgreSQL connector. Slow, value by value with
fastavro: tests compare capture's encoder and the sink's decoder with it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple, cast

import fastavro

from schemas.model import change
from schemas.model.change import Stamp, TransactionMark
from schemas.model.errors import DataError
from schemas.model.lsn import LSN
from schemas.reading.json_text import without_logical_types
from schemas.reading.values import Convert, column_value
from schemas.registry import wire
from schemas.registry.registry import Registry
from schemas.types.kind import Schema
from schemas.writing import records

Headers = Sequence[tuple[str, bytes]]

_ENVELOPE: Final = ".Envelope"
_TRANSACTION: Final = "io.debezium.connector.common.TransactionMetadataValue"
_NOTIFICATION: Final = "io.debezium.connector.common.Notification"
_NO_MARK: Final = TransactionMark(None, None, None)
_STREAMED: Final = frozenset((None, "false"))
_NOTHING: Final[frozenset[str]] = frozenset()

parse_transaction = lru_cache(1024)(change.parse_transaction)
parse_unchanged = lru_cache(1024)(change.parse_unchanged)


@dataclass(frozen=True, slots=True)
class Change:
    """One record of a table topic. Values are Python's, without loss (see `schemas.reading.values`).

    For a record that Debezium wrote, `stamp` comes from `source` and `transaction_id` is the xid alone. A column in
    `unchanged` is in neither `before` nor `after`. `key_change` says which half of a key change this is: "old" a
    delete, "new" a create. `columns` gives the PostgreSQL type of each column for a table that can hold it; the same
    object for all records of one schema. `ts_us` is the commit time, µs since 1970.
    """

    table: str
    op: Literal["c", "u", "d", "r", "t"]
    stamp: Stamp
    transaction_id: str | None
    size: Mapping[str, int] | None
    snapshot: str | None
    key: dict[str, Any] | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    unchanged: frozenset[str]
    key_change: Literal["old", "new"] | None
    ts_us: int
    topic: str
    partition: int
    offset: int
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TransactionEnd:
    """The end of a source transaction with its changes per table, from the topic `<prefix>.transaction`."""

    stamp: Stamp
    transaction_id: str
    size: Mapping[str, int]
    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class SnapshotNotice:
    """One step of a snapshot, from the topic `<prefix>.notification`.

    TABLE_SCAN_COMPLETED has `table` and `rows_scanned`, COMPLETED has `rows` of all tables.
    """

    step: str
    connector: str
    snapshot_id: str
    generation: int
    lsn: LSN
    tables: tuple[str, ...]
    table: str | None
    rows_scanned: int | None
    rows: Mapping[str, int] | None
    topic: str
    partition: int
    offset: int


class RecordError(DataError):
    """A record cannot be read. Says where it is and why, without its values."""

    def __init__(self, topic: str, partition: int, offset: int, reason: str) -> None:
        hint = "see what wrote it; `sink offsets reset` can go past it, which leaves a gap that the sink names"
        super().__init__(f"{topic} [{partition}] offset {offset}: {reason}", hint)
        self.topic, self.partition, self.offset = topic, partition, offset


class Place(NamedTuple):
    """A record's position in Kafka."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class RowReader:
    """What is needed to read records of one schema: the Avro schema, its name, the columns and their converters."""

    parsed: Any
    name: str
    columns: Mapping[str, str]
    converters: tuple[tuple[str, Convert], ...]

    def record(self, avro: bytes) -> dict[str, Any]:
        """The record as fastavro reads it, without logical types."""
        return cast("dict[str, Any]", fastavro.schemaless_reader(io.BytesIO(avro), self.parsed, None))

    def row(self, fields: dict[str, Any] | None, unchanged: frozenset[str] = _NOTHING) -> dict[str, Any] | None:
        """The row with Python values, without columns that were not sent."""
        if fields is None:
            return None
        for name in unchanged:
            fields.pop(name, None)
        for name, convert in self.converters:
            value = fields.get(name)
            if value is not None:
                fields[name] = convert(value)
        return fields


class RecordReader:
    """Reads records of all topics of a prefix. Schemas are cached."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._readers: dict[int, RowReader] = {}
        self._readable: dict[str, Callable[[Place, RowReader, bytes, bytes | None, dict[str, bytes]], Any]] = {
            _TRANSACTION: self._transaction,
            _NOTIFICATION: self._notification,
        }

    def read(
        self,
        topic: str,
        partition: int,
        offset: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None,
    ) -> Change | SnapshotNotice | TransactionEnd | None:
        """The content of a record; None for tombstones, heartbeats, BEGINs and records of others.

        RecordError if it should be readable and is not, UnavailableError if the registry does not answer.
        """
        if value is None:
            return None
        place = Place(topic, partition, offset)
        try:
            schema_id, avro = wire.parse(value)
            reader = self._readers.get(schema_id) or self._learn(schema_id)
            if reader.name.endswith(_ENVELOPE):
                return self._change(place, reader, avro, key, dict(headers or ()))
            read = self._readable.get(reader.name)
            return None if read is None else read(place, reader, avro, key, dict(headers or ()))
        except DataError as error:
            raise RecordError(topic, partition, offset, error.message) from None
        except (EOFError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
            # Raised by fastavro and the converters if bytes do not fit the schema. The message may contain values.
            reason = f"not what its schema says ({type(error).__name__}, {len(value)} bytes)"
            raise RecordError(topic, partition, offset, reason) from None

    def _learn(self, schema_id: int) -> RowReader:
        reader = row_reader(self._registry.schema(schema_id))
        self._readers[schema_id] = reader
        return reader

    def _key(self, key: bytes | None) -> dict[str, Any] | None:
        if key is None:
            return None
        schema_id, avro = wire.parse(key)
        reader = self._readers.get(schema_id) or self._learn(schema_id)
        return reader.row(reader.record(avro))

    def _change(
        self, place: Place, reader: RowReader, avro: bytes, key: bytes | None, headers: dict[str, bytes]
    ) -> Change | None:
        record = reader.record(avro)
        op = record["op"]
        if op == "m":
            return None
        source = record["source"]
        stamp, mark, unchanged = _told(record, headers)
        return Change(
            table=f"{source['schema']}.{source['table']}",
            op=op,
            stamp=stamp,
            transaction_id=mark.transaction_id,
            size=mark.size,
            snapshot=mark.snapshot,
            key=self._key(key),
            before=reader.row(record["before"], unchanged if op == "d" else _NOTHING),
            after=reader.row(record["after"], unchanged),
            unchanged=unchanged,
            key_change="old"
            if change.NEW_KEY_HEADER in headers
            else "new"
            if change.OLD_KEY_HEADER in headers
            else None,
            ts_us=source["ts_us"] if source.get("ts_us") is not None else source["ts_ms"] * 1000,
            topic=place.topic,
            partition=place.partition,
            offset=place.offset,
            columns=reader.columns,
        )

    def _transaction(
        self, place: Place, reader: RowReader, avro: bytes, _key: bytes | None, headers: dict[str, bytes]
    ) -> TransactionEnd | None:
        record = reader.record(avro)
        if record["status"] != "END":
            return None
        size = {part["data_collection"]: part["event_count"] for part in record["data_collections"] or ()}
        if change.STAMP_HEADER in headers:
            stamp = change.parse_stamp(headers[change.STAMP_HEADER])
        else:
            # Debezium's id is `txid:LSN of the transaction's last change`.
            stamp = Stamp(0, LSN(int(record["id"].rpartition(":")[2])), record["event_count"] or 0)
        transaction_id = record["id"] if change.STAMP_HEADER in headers else _xid_of(record["id"])
        return TransactionEnd(stamp, transaction_id, size, *place)

    def _notification(
        self, place: Place, reader: RowReader, avro: bytes, _key: bytes | None, _headers: dict[str, bytes]
    ) -> SnapshotNotice | None:
        record = reader.record(avro)
        data = record["additional_data"] or {}
        if (
            record["aggregate_type"] not in (records.SNAPSHOT_NOTICE, records.INCREMENTAL_NOTICE)
            or "snapshot_id" not in data
        ):
            return None
        return SnapshotNotice(
            step=record["type"],
            connector=data["connector_name"],
            snapshot_id=data["snapshot_id"],
            generation=int(data["generation"]),
            lsn=LSN(int(data["lsn"])),
            tables=tuple(filter(None, data["data_collections"].split(","))),
            table=data.get("scanned_collection"),
            rows_scanned=int(data["total_rows_scanned"]) if "total_rows_scanned" in data else None,
            rows=json.loads(data["rows"]) if "rows" in data else None,
            topic=place.topic,
            partition=place.partition,
            offset=place.offset,
        )


def _told(record: dict[str, Any], headers: dict[str, bytes]) -> tuple[Stamp, TransactionMark, frozenset[str]]:
    """Stamp and transaction from our headers, or from Debezium's `source` if there are none."""
    if change.STAMP_HEADER not in headers:
        return _debezium_stamp(record), _debezium_mark(record), _unavailable(record["after"])
    transaction, unchanged = headers.get(change.TRANSACTION_HEADER), headers.get(change.UNCHANGED_HEADER)
    return (
        change.parse_stamp(headers[change.STAMP_HEADER]),
        _NO_MARK if transaction is None else parse_transaction(transaction),
        _NOTHING if unchanged is None else parse_unchanged(unchanged),
    )


def row_reader(schema: Schema) -> RowReader:
    """The reader for a schema: for an envelope's row, or else for the record itself (a key)."""
    name = f"{schema.get('namespace', '')}.{schema.get('name', '')}"
    columns: dict[str, str] = {}
    converters: list[tuple[str, Convert]] = []
    named: dict[str, Any] = {}
    for one in _row_fields(schema):
        value = column_value(one["type"], named)
        columns[one["name"]] = value.type
        if value.convert is not None:
            converters.append((one["name"], value.convert))
    parsed = fastavro.parse_schema(without_logical_types(schema))
    return RowReader(parsed, name, columns, tuple(converters))


def _row_fields(schema: Schema) -> list[Schema]:
    fields: list[Schema] = schema.get("fields", [])
    if schema.get("name") != "Envelope":
        return fields if schema.get("name") == "Key" else []
    before = next(field for field in fields if field["name"] == "before")
    row: Schema = next(branch for branch in before["type"] if branch != "null")
    return list(row["fields"])


def _debezium_stamp(record: dict[str, Any]) -> Stamp:
    """The order of a record that Debezium wrote.

    The second part of `sequence` is the row's own LSN, `lsn` the same; both grow along the log inside a transaction,
    but transactions come in the order of their commits, which is the first part (the commit before). So changes are
    ordered by (commit before, own LSN); a snapshot row has its consistent point and 0.
    """
    source = record["source"]
    lsn = source["lsn"]
    if lsn is None:
        return Stamp(0, LSN(0), 0)
    if source["snapshot"] not in _STREAMED:
        return Stamp(0, LSN(lsn), 0)
    last_commit, own = json.loads(source["sequence"])
    return Stamp(0, LSN(int(last_commit or lsn)), int(own or lsn))


def _debezium_mark(record: dict[str, Any]) -> TransactionMark:
    source, block = record["source"], record["transaction"]
    snapshot = None if source["snapshot"] in _STREAMED else "debezium"
    return TransactionMark(_xid_of(block["id"]) if block else None, None, snapshot)


def _xid_of(transaction_id: str) -> str:
    """Debezium's BEGIN, rows and END have different LSNs for one transaction; only the xid is the same."""
    return transaction_id.partition(":")[0]


def _unavailable(row: dict[str, Any] | None) -> frozenset[str]:
    """The columns with Debezium's placeholder, by which they are recognized if there is no header."""
    text, content = change.UNAVAILABLE, change.UNAVAILABLE.encode()
    return frozenset(name for name, value in (row or {}).items() if value in (text, content, [text], [content]))
