"""Kafka's records as plain data: every record of a prefix that a `read_committed` consumer sees, decoded."""

from __future__ import annotations

import io
import json
import time
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import fastavro
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

READ_SECONDS = 60.0


class Stamp(NamedTuple):
    """Generation, commit LSN and ordinal: the order of all changes."""

    generation: int
    commit_lsn: int
    ordinal: int


@dataclass(frozen=True, slots=True)
class Record:
    """One record. `value`: None for a tombstone. `types`: the Connect type of each column that has one. `transaction`:
    has the `id` of the source transaction (xid:LSN), or of the `snapshot` that read the row. `old_key`: the row's key
    before it changed, as in `key`."""

    topic: str
    partition: int
    offset: int
    key: str | None
    value: dict[str, Any] | None
    stamp: Stamp | None = None
    transaction: dict[str, str] = field(default_factory=dict)
    unchanged: frozenset[str] = frozenset()
    key_change: str | None = None
    types: dict[str, str] = field(default_factory=dict)
    old_key: str | None = None

    @property
    def op(self) -> str:
        """Debezium's op, `tombstone` for a null value."""
        return "tombstone" if self.value is None else str(self.value["op"])

    @property
    def where(self) -> str:
        """Topic, partition and offset, for findings."""
        return f"{self.topic}/{self.partition}@{self.offset}"


class Schemas:
    """Writer schemas by id, from `file://` or `http(s)://`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._parsed: dict[int, tuple[Any, dict[str, str]]] = {}

    def decode(self, payload: bytes) -> tuple[Any, dict[str, str]]:
        """The Python value of a record in the Confluent wire format, and the Connect types of the columns in it."""
        if payload[0] != 0:
            raise ValueError("not in the Confluent wire format")
        schema_id = int.from_bytes(payload[1:5], "big")
        if schema_id not in self._parsed:
            schema = self._load(schema_id)
            self._parsed[schema_id] = (fastavro.parse_schema(json.loads(json.dumps(schema))), _connect_types(schema))
        parsed, types = self._parsed[schema_id]
        return fastavro.schemaless_reader(io.BytesIO(payload[5:]), parsed, None), types

    def _load(self, schema_id: int) -> Any:
        if self._url.startswith("file:"):
            return json.loads((Path(unquote(urlsplit(self._url).path)) / f"{schema_id}.json").read_text())
        with urllib.request.urlopen(f"{self._url}/schemas/ids/{schema_id}", timeout=10) as answer:  # noqa: S310
            return json.loads(json.load(answer)["schema"])


def _connect_types(schema: Any) -> dict[str, str]:
    """The Connect name of each column of an envelope (`before` holds the row's record)."""
    fields = {part["name"]: part["type"] for part in schema.get("fields", [])} if isinstance(schema, dict) else {}
    rows = [branch for branch in fields.get("before", []) if isinstance(branch, dict)]
    return {column["name"]: _connect_name(column["type"]) for row in rows for column in row["fields"]}


def _connect_name(avro: Any) -> str:
    branches = avro if isinstance(avro, list) else [avro]
    named = [branch for branch in branches if isinstance(branch, dict)]
    return str(next((branch.get("connect.name", "") for branch in named), ""))


def read_topics(bootstrap_servers: str, registry_url: str, prefix: str) -> list[Record]:
    """All committed records of the prefix's topics from the beginning, in order within each partition. Errors as in
    read_messages."""
    schemas = Schemas(registry_url)
    return [record(message, schemas) for message in read_messages(bootstrap_servers, prefix)]


def read_messages(bootstrap_servers: str, prefix: str) -> list[Any]:
    """All committed messages of the prefix's topics. TimeoutError if a transaction stays open, or a partition does not
    end, for READ_SECONDS."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    partitions = _partitions(admin, prefix)
    _await_no_open_transaction(admin, partitions)
    return read_partitions(bootstrap_servers, f"{prefix}-proof", partitions)


def read_partitions(bootstrap_servers: str, group: str, partitions: list[TopicPartition]) -> list[Any]:
    """All committed messages from the partitions' offsets on. Errors as in read_messages."""
    consumer = _consumer(bootstrap_servers, group)
    try:
        return list(_until_end(consumer, partitions))
    finally:
        consumer.close()


def _consumer(bootstrap_servers: str, group: str) -> Consumer:
    settings: dict[str, str | int | float | bool | None] = {
        "bootstrap.servers": bootstrap_servers,
        "group.id": group,
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
    }
    return Consumer(settings)


def _partitions(admin: AdminClient, prefix: str) -> list[TopicPartition]:
    topics = admin.list_topics(timeout=10).topics
    return [
        TopicPartition(name, number, 0)
        for name, topic in topics.items()
        if name.startswith(f"{prefix}.") and name != f"{prefix}.position"  # written by a capture before the index
        for number in topic.partitions
    ]


def _await_no_open_transaction(admin: AdminClient, partitions: list[TopicPartition]) -> None:
    deadline = time.monotonic() + READ_SECONDS
    while True:
        late = time.monotonic() > deadline
        try:
            stable, high = (_latest(admin, partitions, level) for level in IsolationLevel)
        except KafkaException:  # a broker that stood still or was just started takes a moment to lead its partitions
            if late:
                raise
            admin.list_topics(timeout=10)  # else librdkafka repeats its request with the old leader epoch
        else:
            if stable == high:
                return
            if late:
                raise TimeoutError(f"a transaction stays open in {[key for key in high if high[key] != stable[key]]}")
        time.sleep(0.2)


def _latest(admin: AdminClient, partitions: list[TopicPartition], level: IsolationLevel) -> dict[tuple[str, int], int]:
    asked = {TopicPartition(part.topic, part.partition): OffsetSpec.latest() for part in partitions}
    answers = admin.list_offsets(asked, isolation_level=level, request_timeout=10)
    return {(part.topic, part.partition): future.result().offset for part, future in answers.items()}


def _until_end(consumer: Consumer, partitions: list[TopicPartition]) -> Iterator[Any]:
    open_ = {(part.topic, part.partition) for part in partitions}
    consumer.assign(partitions)
    deadline = time.monotonic() + READ_SECONDS
    while open_:
        for message in consumer.consume(1000, timeout=0.05):
            error = message.error()
            if error is None:
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:
                open_.discard((message.topic(), message.partition()))
            else:
                raise KafkaException(error)
        if time.monotonic() > deadline:
            raise TimeoutError(f"no end of {sorted(open_)} within {READ_SECONDS:.0f} s")


def record(message: Any, schemas: Schemas) -> Record:
    """Decodes a Kafka message. The key is JSON, so that equal keys are equal."""
    headers = dict(message.headers() or ())
    value, types = schemas.decode(message.value()) if message.value() is not None else (None, {})
    key = schemas.decode(message.key())[0] if message.key() is not None else None
    stamp = headers.get("ordertap.stamp")
    old_key = headers.get("__debezium.oldkey")
    halves = {"__debezium.newkey": "old", "__debezium.oldkey": "new"}
    return Record(
        message.topic(),
        message.partition(),
        message.offset(),
        None if key is None else json.dumps(key, sort_keys=True, default=str),
        value,
        None if stamp is None else Stamp(*map(int, stamp.split(b":"))),
        _transaction(headers.get("ordertap.transaction")),
        frozenset(json.loads(headers.get("ordertap.unchanged", b"[]"))),
        next((half for name, half in halves.items() if name in headers), None),
        types,
        json.dumps(json.loads(old_key), sort_keys=True) if old_key is not None else None,
    )


def _transaction(header: bytes | None) -> dict[str, str]:
    if header is None:
        return {}
    kind, _, name = header.decode().partition(":")
    return {"snapshot": name} if kind == "snapshot" else {"id": header.decode()}


@dataclass(frozen=True, slots=True)
class Listing:
    """One record of the index of commits, parsed from JSON. `stamp`: its header."""

    offset: int
    stamp: Stamp
    content: dict[str, Any]


def read_index(bootstrap_servers: str, prefix: str) -> list[Listing]:
    """The index of commits from the beginning to its end as of now, once that is committed. It is never at rest,
    because heartbeats are added. Errors as in read_messages."""
    place = TopicPartition(f"ordertap.{prefix}.commits", 0, 0)
    [end] = _latest(
        AdminClient({"bootstrap.servers": bootstrap_servers}), [place], IsolationLevel.READ_UNCOMMITTED
    ).values()
    consumer = _consumer(bootstrap_servers, f"{prefix}-proof")
    found: list[Listing] = []
    try:
        consumer.assign([place])
        deadline = time.monotonic() + READ_SECONDS
        while consumer.position([place])[0].offset < end:
            found += [_listing(message) for message in consumer.consume(1000, timeout=0.05) if message.error() is None]
            if time.monotonic() > deadline:
                raise TimeoutError(f"the index of {prefix} could not be read up to {end}")
    finally:
        consumer.close()
    return found


def _listing(message: Any) -> Listing:
    stamp = dict(message.headers())["ordertap.stamp"]
    return Listing(message.offset(), Stamp(*map(int, stamp.split(b":"))), json.loads(message.value()))


def table_of(record: Record, prefix: str) -> str | None:
    """`public.orders` for a record of a table topic, None for the prefix's other topics."""
    rest = record.topic.removeprefix(f"{prefix}.")
    return rest if "." in rest else None


def changes(records: Iterable[Record], prefix: str) -> dict[str, list[Record]]:
    """The records of the table topics, by table."""
    found: dict[str, list[Record]] = {}
    for each in records:
        table = table_of(each, prefix)
        if table is not None:
            found.setdefault(table, []).append(each)
    return found
