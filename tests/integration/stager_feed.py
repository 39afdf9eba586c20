"""A real stager on a real Kafka and middle layer, fed by hand: commits in any pieces, and their index."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from schemas.model import change
from schemas.model.commits import Commit, IndexRecord, SnapshotState, dump_index, index_topic
from schemas.model.errors import OrdertapError, UnavailableError
from schemas.model.relation import Column, Relation
from schemas.registry import wire
from schemas.registry.registry import FolderRegistry
from schemas.writing import records
from schemas.writing.codec import Codec, compile_codec
from schemas.writing.envelope import topic_name
from sink.database import Connection, Cursor, NotNowError, connect, names_of, reading, schema_of
from sink.documents.profile import Profile, load_profile
from sink.intake.consumer import ShopConsumer
from sink.intake.decoding import RegistryDecoders
from sink.intake.offsets import GroupOffsets, Offsets
from sink.layer import migrate
from sink.staging import leadership
from sink.staging.schema import Catalogue
from sink.staging.stager import Stager
from sink.staging.writer import CopyWriter

ORDERS, LINES = "public.orders", "public.order_lines"
PARTITIONS = 2
TYPES: Mapping[str, Mapping[str, tuple[int, int]]] = {
    ORDERS: {"id": (20, -1), "status": (25, -1), "total": (1700, (12 << 16 | 2) + 4), "note": (25, -1)},
    LINES: {"id": (20, -1), "order_id": (20, -1), "sku": (25, -1), "quantity": (23, -1)},
}
"""Table → columns with type OID and typmod."""
PROFILE = """
tables:
  public.orders: {id: bigint, status: text, total: numeric, note: text}
  public.order_lines: {id: bigint, order_id: bigint, sku: text, quantity: integer}
documents:
  sales_order:
    model: SalesOrder
    key: orders.id
    touched_by:
      orders: id
      order_lines: order_id
"""
START = 1_000
SECONDS = 20.0
_numbers = itertools.count(1)
running_now: list[Running] = []
"""Running stagers. What ends one also ends the test that waits for it."""


class Piece(NamedTuple):
    """A record to write: a change of a row, with its place in its commit."""

    table: str
    op: str
    row: Mapping[str, Any]
    lsn: int
    ordinal: int
    partition: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()
    snapshot: str | None = None
    key: Mapping[str, Any] | None = None
    row_bytes: bytes | None = None  # in place of the value


@dataclass
class Feed:
    """Writes what capture would write, for a stager that reads it. LSNs are the test's."""

    folder: Path
    servers: str
    prefix: str
    url: str
    types: dict[str, dict[str, tuple[int, int]]] = field(
        default_factory=lambda: {table: dict(columns) for table, columns in TYPES.items()}
    )
    profile_text: str = PROFILE
    shop: str = "shop"
    serial: int = 0
    end: int = START
    generation: int = 1
    last: int = START
    topics: dict[str, str] = field(default_factory=dict)
    """Tables whose topic is not the usual one."""

    def __post_init__(self) -> None:
        self._codecs: dict[tuple[str, tuple[Column, ...]], tuple[Codec, int, int]] = {}
        self.registry = FolderRegistry(self.folder / "registry")
        self.producer = self.another_producer()
        self.admin = AdminClient({"bootstrap.servers": self.servers, "log_level": "2"})
        self.group = f"g-{self.prefix}"
        self.make_topics({self.topic(table): PARTITIONS for table in self.types} | {index_topic(self.prefix): 1})
        self.connection: Connection = connect(self.url, schema_of(self.shop))
        migrate(self.connection, self.shop)

    def make_topics(self, partitions: Mapping[str, int]) -> None:
        """Makes topics with this many partitions each."""
        for future in self.admin.create_topics([NewTopic(*pair, 1) for pair in partitions.items()]).values():
            future.result(20)

    def make_again(self, topic: str, partitions: int) -> None:
        """Deletes a topic and makes it again, which the broker refuses until the old one is gone."""
        self.admin.delete_topics([topic])[topic].result(20)

        def made() -> bool:
            try:
                self.make_topics({topic: partitions})
            except KafkaException:
                return False
            return True

        until(made, f"topic {topic} is made again")
        self.producer = self.another_producer()  # a client that knew the old topic asks for it for a while

    def another_producer(self) -> Producer:
        """A producer whose transactions end when the test wants."""
        transactional_id = f"feed-{self.prefix}-{next(_numbers)}"
        made = Producer({"bootstrap.servers": self.servers, "transactional.id": transactional_id, "log_level": "2"})
        made.init_transactions(30)
        return made

    @property
    def profile(self) -> Profile:
        folder = self.folder / "profile"
        folder.mkdir(exist_ok=True)
        (folder / "profile.yaml").write_text(self.profile_text)
        (folder / "sales_order.sql").write_text("SELECT id AS key FROM orders WHERE id = ANY (%(keys)s::bigint[])")
        return load_profile(str(folder))

    def topic(self, table: str) -> str:
        return topic_name(self.prefix, table)

    def place(self) -> int:
        """A place in the log after all others."""
        self.last = max(self.last, self.end) + 100
        return self.last

    # What is written

    def write(
        self,
        *pieces: Piece,
        index: IndexRecord | None = None,
        commit: bool = True,
        producer: Producer | None = None,
    ) -> None:
        """Writes one Kafka transaction. If it is not committed, it is in Kafka all the same."""
        producer = producer or self.producer
        made = [(piece, *self._record(piece)) for piece in pieces]
        producer.begin_transaction()
        for piece, key, value, headers in made:
            topic = self.topics.get(piece.table, self.topic(piece.table))
            producer.produce(topic, value, key, partition=piece.partition, headers=headers)
            if piece.op == "d":
                producer.produce(topic, None, key, partition=piece.partition, headers=headers)
        if index is not None:
            producer.produce(index_topic(self.prefix), dump_index(index), partition=0)
        producer.flush(20)
        if commit:
            producer.commit_transaction(20)

    def indexed(
        self,
        commits: Sequence[tuple[int, Mapping[str, int]]] = (),
        end: int | None = None,
        chunks: Sequence[tuple[int, Mapping[str, int], str]] = (),
        **more: Any,
    ) -> IndexRecord:
        """The next record of the index: commits by LSN with their changes per table, chunks also with their
        snapshot."""
        tables = tuple(self.types)
        listed = [(lsn, counts, None) for lsn, counts in commits] + list(chunks)
        made = tuple(
            Commit(lsn, lsn * 1000, tuple((tables.index(t), n) for t, n in counts.items()), snapshot)
            for lsn, counts, snapshot in sorted(listed, key=lambda one: one[0])
        )
        last = max((lsn for lsn, _, _ in listed), default=self.end)
        previous, self.end = self.end, end if end is not None else max(self.end, last + 1)
        self.serial += 1
        pairs = tuple((table, self.topics.get(table, self.topic(table))) for table in tables)
        return IndexRecord(self.serial, self.generation, previous, self.end, pairs, made, **more)

    def begin(self) -> None:
        """Writes the chain's first record, as a start of capture does, and a first snapshot without rows."""
        state = SnapshotState("first", "completed", START, True, (), {})
        self.write(index=self.indexed(snapshots=(state,)))

    def commit(self, lsn: int, *pieces: Piece) -> None:
        """Writes a commit and its index entry in one Kafka transaction."""
        self.write(*pieces, index=self.indexed([(lsn, counts(pieces))]))

    def _record(self, piece: Piece) -> tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]:
        columns = tuple(
            Column(name, oid, typmod, name == "id") for name, (oid, typmod) in self.types[piece.table].items()
        )
        codec, value_id, key_id = self._codec(piece.table, columns)
        assert codec.key_schema is not None
        schema, _, name = piece.table.partition(".")
        row = {name: piece.row.get(name) for name in self.types[piece.table]}
        key = piece.key or {"id": piece.row.get("id")}
        key_bytes = None if piece.op == "t" else wire.frame(key_id, records.encode(codec.key_schema, key))
        value = {
            "before": {name: key.get(name) for name in row} if piece.op == "d" else None,
            "after": None if piece.op in "dt" else row,
            "source": _source(self.prefix, schema, name, piece.lsn),
            "op": piece.op,
            "ts_ms": 0,
        }
        stamp = b"%d:%d:%d" % (self.generation, piece.lsn, piece.ordinal)
        mark = f"snapshot:{piece.snapshot}" if piece.snapshot else f"7:{piece.lsn}"
        headers = [(change.STAMP_HEADER, stamp), *piece.headers, (change.TRANSACTION_HEADER, mark.encode())]
        if piece.row_bytes is not None:
            return key_bytes, wire.frame(value_id, piece.row_bytes), headers
        return key_bytes, wire.frame(value_id, records.encode(codec.value_schema, value)), headers

    def _codec(self, table: str, columns: tuple[Column, ...]) -> tuple[Codec, int, int]:
        """How a table with these columns is written, with the schema ids of value and key."""
        if (table, columns) not in self._codecs:
            schema, _, name = table.partition(".")
            codec = compile_codec(self.topic(table), Relation(1, schema, name, "d", columns), None)
            assert codec.key_schema is not None
            ids = [
                self.registry.register(f"{codec.topic}-{part}", found)
                for part, found in (("value", codec.value_schema), ("key", codec.key_schema))
            ]
            self._codecs[table, columns] = (codec, *ids)
        return self._codecs[table, columns]

    # What is staged

    def writer(self) -> CopyWriter:
        profile = self.profile
        reads = {table: frozenset(profile.columns.get(table, ())) or None for table in profile.tables}
        return CopyWriter(
            "shop", profile, Catalogue("shop", reads), RegistryDecoders(self.registry),
            lambda table: profile.columns.get(table, {}),
        )  # fmt: skip

    def stager(self) -> Stager:
        topics = {table: self.topic(table) for table in self.profile.tables}
        return Stager(self.writer(), topics, index_topic(self.prefix))

    def consumer(self, staged: Any) -> ShopConsumer:
        properties = {
            "bootstrap.servers": self.servers,
            "group.id": self.group,
            "session.timeout.ms": "6000",  # a static member stays in the group this long after its end
            "topic.metadata.refresh.interval.ms": "1000",
        }
        topics = [self.topic(table) for table in self.profile.tables]
        return ShopConsumer(properties, topics, index_topic(self.prefix), staged)

    @contextmanager
    def running(self) -> Iterator[Running]:
        """Runs a stager in a thread until the end of the block."""
        running = Running(self)
        running_now.append(running)
        running.start()
        try:
            yield running
        finally:
            running_now.remove(running)
            running.stop()

    # What an operator does

    def offsets(self) -> list[Offsets]:
        """The group's offsets of the tables' topics."""
        return self._group().show({})

    def set_offsets(self, choose: Callable[[Offsets], int | None]) -> None:
        """Does what the Kafka tool does, once the group has no live member. None leaves a partition as it is."""
        until(lambda: not self._group().members(), "no member in the group")
        chosen = [(one.partition, choose(one)) for one in self.offsets()]
        parts = [TopicPartition(where.topic, where.number, at) for where, at in chosen if at is not None]
        request = ConsumerGroupTopicPartitions(self.group, parts)
        for future in self.admin.alter_consumer_group_offsets([request]).values():
            future.result()

    def _group(self) -> GroupOffsets:
        return GroupOffsets(
            {"bootstrap.servers": self.servers}, self.group, [self.topic(t) for t in self.profile.tables]
        )

    # What is to be seen

    @contextmanager
    def watched(self, *queries: str) -> Iterator[set[tuple[Any, ...]]]:
        """Collects the results of all queries together, each time in one snapshot, as often as possible during the
        block."""
        found: set[tuple[Any, ...]] = set()
        stop = threading.Event()
        connection = connect(self.url, "ordertap_shop")

        def look() -> None:
            while not stop.is_set():
                with suppress(NotNowError), reading(connection) as cursor, names_of(cursor, "shop"):
                    state = []
                    for query in queries:
                        cursor.execute(query)
                        state.append(tuple(cursor.fetchall()))
                    found.add(tuple(state))

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield found
        finally:
            stop.set()
            thread.join(SECONDS)
            connection.close()

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(query, values or None)
            return cursor.fetchall() if cursor.description else []

    def orders(self, columns: str = "id, status") -> list[tuple[Any, ...]]:
        """The orders as the profile's SQL sees them."""
        return self.rows(f"SELECT {columns} FROM shop.orders ORDER BY id")

    def lines(self) -> list[tuple[Any, ...]]:
        return self.rows("SELECT id, order_id FROM shop.order_lines ORDER BY id")

    def marked(self) -> dict[str, int]:
        return dict(self.rows("SELECT key, marked FROM ordertap_shop.document ORDER BY key"))

    def gaps(self) -> list[tuple[str, str]]:
        return [
            (row[0], row[1]) for row in self.rows("SELECT table_name, cause FROM ordertap_shop.table_gap ORDER BY 1, 2")
        ]

    def stands_at(self) -> int:
        found = self.rows("SELECT lsn FROM ordertap_shop.copy WHERE state <> 'catching up'")
        return int(found[0][0]) if found else 0

    def waits(self) -> str:
        found = self.rows("SELECT waits_for FROM ordertap_shop.copy")
        return str(found[0][0]) if found else ""

    def until_at(self, lsn: int) -> None:
        """Waits until the copy stands there or later."""
        until(lambda: self.stands_at() >= lsn, f"the copy at {lsn}")


class Running:
    """A running stager, restarted after each outage as in `sink run`. `stop` raises any other error."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._stop = threading.Event()
        self.error: BaseException | None = None
        self.turns = 0
        self.statements = 0
        self.outages: list[str] = []
        self.blocked: set[str] = set()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def until_turned(self, times: int = 3) -> None:
        """Waits until it has looked this often at all that is there."""
        wanted = self.turns + times
        until(lambda: self.turns >= wanted, f"{times} turns")

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with closing(connect(self._feed.url, "ordertap_shop")) as connection:
                    connection.cursor_factory = self._counting()
                    self._lead(connection)
            except UnavailableError as error:
                self.outages.append(error.message)
                self._stop.wait(0.2)
            except BaseException as error:  # noqa: BLE001  raised by stop()
                self.error = error
                return

    def _lead(self, connection: Connection) -> None:
        while not leadership.lead(connection):
            if self._stop.wait(0.1):
                return
        self._feed.stager().run(connection, self._feed.consumer, self._stop.is_set, self._turned)

    def _counting(self) -> type[Cursor]:
        """Cursors that count their statements."""
        running = self

        class Counting(Cursor):
            def execute(self, *arguments: Any) -> None:
                running.statements += 1
                super().execute(*arguments)

        return Counting

    def _turned(self, blocked: str) -> None:
        self.turns += 1
        self.blocked.add(blocked)

    def ask_to_stop(self) -> None:
        self._stop.set()

    def stop(self) -> None:
        self.ask_to_stop()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error


def counts(pieces: Sequence[Piece]) -> dict[str, int]:
    """Changes per table."""
    found: dict[str, set[object]] = {}
    for piece in pieces:
        half = [name for name, _ in piece.headers if name.startswith("__debezium")]
        found.setdefault(piece.table, set()).add((piece.ordinal, tuple(half)) if piece.ordinal else object())
    return {table: len(ordinals) for table, ordinals in found.items()}


def order(number: int, lsn: int, ordinal: int = 1, status: str = "paid", op: str = "c", **more: Any) -> Piece:
    """A change of an order."""
    row = {"id": number, "status": status, "total": "19.90", "note": "x"}
    partition = more.pop("partition", number % PARTITIONS)
    row |= more.pop("row", {})
    row["total"] = Decimal(row["total"])
    return Piece(ORDERS, op, row, lsn, ordinal, partition, **more)


def line(number: int, lsn: int, ordinal: int = 1, of: int = 17, op: str = "c", **more: Any) -> Piece:
    """A change of an order's line."""
    row = {"id": number, "order_id": of, "sku": "A", "quantity": 1}
    return Piece(LINES, op, row, lsn, ordinal, more.pop("partition", number % PARTITIONS), **more)


def until(come: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
    """Waits until this holds."""
    deadline = time.monotonic() + seconds
    while not come():
        for stager in running_now:
            if stager.error is not None:
                raise stager.error
        assert time.monotonic() < deadline, f"not in {seconds:.0f} s: {what}"
        time.sleep(0.05)


def _source(prefix: str, schema: str, table: str, lsn: int) -> dict[str, Any]:
    return {
        "version": "test", "connector": "postgresql", "name": prefix, "ts_ms": 0, "snapshot": "false", "db": "shop",
        "sequence": None, "ts_us": 0, "ts_ns": 0, "schema": schema, "table": table, "txId": 7, "lsn": lsn, "xmin": None,
        "origin": None, "origin_lsn": None,
    }  # fmt: skip


__all__ = ["Feed", "OrdertapError", "Piece", "line", "order", "until"]
