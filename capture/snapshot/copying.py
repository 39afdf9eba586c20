"""One reader of a snapshot: COPY from PostgreSQL into Kafka, chunk by chunk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Final, NamedTuple, Self

from capture.changes.any_bytes import other_bytes
from capture.changes.tables import KEYLESS_PARTITION
from capture.kafka.producer import ANY_PARTITION, Headers, TransactionalProducer
from capture.postgres.replication import Connection, any_bytes, database_errors
from capture.snapshot.copytext import Careful, Frame, MarkedLines, Outlet, line_writer, parse_copy_line
from capture.snapshot.marks import NO_MARKS, Mark, Marks
from schemas.model.change import STAMP_HEADER, TRANSACTION_HEADER, Cells, Stamp, snapshot_header, stamp_header
from schemas.model.errors import DataError, OrdertapError
from schemas.writing.codec import Codec, Encoder, SourceOrigin, WidenError
from schemas.writing.json_output import RowText, TextOf

_TRANSACTION_SECONDS: Final = 10.0
"""Ends a Kafka transaction: what takes longer to read takes several, and none comes near transaction.timeout.ms."""


class Blueprint(NamedTuple):
    """A table's encoder in a form for another process, which compiles its codec again."""

    table: str
    topic: str
    compile: Callable[[], Codec]
    key_schema_id: int | None
    value_schema_id: int
    text_of: TextOf | None = None

    def encoder(self) -> Encoder:
        """The encoder again, of Avro; with `text_of` its records become JSON text."""
        return self.compile().bind(self.key_schema_id, self.value_schema_id)


class Chunk(NamedTuple):
    """A part of a table: the table's number, the COPY statement for the part, about how many bytes it has, and the
    marks of its rows."""

    table: int
    statement: str
    size: int
    marks: Marks = NO_MARKS


class CopiedChunk(NamedTuple):
    """What came of a chunk: its rows, and notes on values (column, what). `refused`: the column with a value
    that was not UTF-8; the rows after it were not copied."""

    rows: int
    notes: frozenset[tuple[str, str]] = frozenset()
    refused: str | None = None


class Copied(NamedTuple):
    """What all rows of a snapshot have in common: id, stamp, time (µs since 1970) and source."""

    snapshot: str
    stamp: Stamp
    snapshot_us: int
    origin: SourceOrigin


class Copier:
    """Reads chunks at the exported snapshot, some together in a Kafka transaction."""

    def __init__(
        self,
        reader: Connection,
        producer: TransactionalProducer,
        timeout: float,
        blueprints: Sequence[Blueprint],
        copied: Copied,
        pause: Callable[[], object],
    ) -> None:
        """`reader`: at the snapshot (locks.reader_at). `pause`: called often, and may raise to end it."""
        self._reader = reader
        self._producer = producer
        self._timeout = timeout
        self._copied = copied
        self._pause = pause
        self._blueprints = blueprints
        self._headers: Headers = [
            (STAMP_HEADER, stamp_header(copied.stamp)),
            (TRANSACTION_HEADER, snapshot_header(copied.snapshot)),
        ]

    def copy(self, chunks: Sequence[Chunk]) -> list[CopiedChunk]:
        """Copies chunks in one Kafka transaction, or several if it takes long. All of them are durable when this
        returns."""
        self._producer.begin_transaction()
        outcomes = []
        with _InTime(self._renew, min(_TRANSACTION_SECONDS, self._producer.open_seconds / 3)) as in_time:
            for chunk in chunks:
                outcomes.append(self._read(chunk, in_time))
                self._pause()
        self._producer.commit(self._timeout)
        return outcomes

    def _read(self, chunk: Chunk, in_time: _InTime) -> CopiedChunk:
        """Reads one chunk, and queues its records."""
        blueprint = self._blueprints[chunk.table]
        encoder = blueprint.encoder()
        now_ns, lsn = time.time_ns(), int(self._copied.stamp.commit_lsn)

        def frame(mark: Mark) -> Frame:
            prefix = self._copied.origin.snapshot(self._copied.snapshot_us, now_ns, mark)
            return Frame(*encoder.read_frame(prefix, lsn))

        careful, outlet = _careful(encoder, blueprint.table), self._outlet(blueprint, encoder)
        writer = line_writer(encoder.codec.layout, frame("true"), careful, outlet)
        marked = MarkedLines(writer, *(frame(mark).after_row for mark in ("true", *chunk.marks, chunk.marks.only)))
        write = in_time.within(writer.write if chunk.marks == NO_MARKS else marked.write)
        lines = _Utf8Lines(encoder, write) if any_bytes(self._reader) else None
        with (
            database_errors(f"copying {blueprint.table}"),
            self._producer.errors(f"writing to topic {blueprint.topic}"),
            self._reader.cursor() as cursor,
        ):
            cursor.copy_expert(chunk.statement, SimpleNamespace(write=lines.write if lines else write))
            with in_time.lock:
                marked.finish()
        return CopiedChunk(writer.rows(), frozenset(encoder.notes), lines.refused if lines else None)

    def _outlet(self, blueprint: Blueprint, encoder: Encoder) -> Outlet:
        produce: Callable[..., object] = self._producer.produce_one
        patiently: Callable[..., object] = self._producer.produce_patiently
        if blueprint.text_of is not None:
            text = RowText(encoder.codec, blueprint.text_of)
            produce, patiently = text.before(produce), text.before(patiently)
        partition = KEYLESS_PARTITION if blueprint.key_schema_id is None else ANY_PARTITION
        return Outlet(produce, patiently, blueprint.topic, partition, self._headers, self._pause)

    def _renew(self) -> None:
        self._producer.commit(self._timeout)
        self._producer.begin_transaction()


class _InTime:
    """Calls `renew` every so many seconds between two lines of COPY, also while the database takes long over the next
    one: the broker gives up a transaction that stays open."""

    def __init__(self, renew: Callable[[], None], seconds: float) -> None:
        self._renew, self._seconds = renew, seconds
        self.lock = threading.Lock()
        self._ended = threading.Event()
        self._failure: OrdertapError | None = None
        self._thread = threading.Thread(target=self._run, name="renewing transactions", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if self._failure is not None and kind is None:
            raise self._failure

    def within(self, write: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """`write`, but not while it renews. What `renew` raised in the meantime is raised there."""
        lock = self.lock

        def written(line: bytes) -> None:
            with lock:
                if self._failure is not None:
                    raise self._failure
                write(line)

        return written

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            with self.lock:
                try:
                    self._renew()
                except OrdertapError as error:
                    self._failure = error
                    return


class _Utf8Lines:
    """Passes COPY's lines on until the first that is not UTF-8. It raises nothing, because an error would end the
    session."""

    def __init__(self, encoder: Encoder, write: Callable[[bytes], None]) -> None:
        self._encoder = encoder
        self._write = write
        self.refused: str | None = None

    def write(self, line: bytes) -> None:
        if self.refused is None and not line.isascii():
            self.refused = other_bytes(self._encoder, parse_copy_line(line[:-1]))
        if self.refused is None:
            self._write(line)


def _careful(encoder: Encoder, table: str) -> Careful:
    def careful(cells: Cells) -> tuple[bytes | None, bytes]:
        try:
            return encoder.key(cells), encoder.row(cells)
        except WidenError as error:  # the lock keeps SET NOT NULL away
            raise DataError(
                f'table {table}: column "{error.column}" has a NULL, or a NaN that would be null in Kafka, '
                "although the catalogue says NOT NULL",
                "find the row and fix it, then start again; for NaN see special_numbers",
            ) from None

    return careful
