"""What is fuzzed, and which errors each may end in."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from capture.changes.tables import Table, Tables
from capture.changes.versions import Versions
from capture.demand import Signal, parse_signal
from capture.position import Chain, Heartbeat, InitialSnapshot, Partial, Position, parse_heartbeat, parse_position
from capture.postgres import pgoutput
from capture.selection import Selection
from capture.snapshot.chunk_reader import Watermark, parse_watermark
from capture.snapshot.copytext import Frame, Outlet, line_writer, parse_copy_line
from schemas.model.change import (
    STAMP_HEADER,
    TRANSACTION_HEADER,
    UNCHANGED_HEADER,
    Cells,
    parse_stamp,
    parse_transaction,
    parse_unchanged,
)
from schemas.model.commits import Commit, IndexRecord, SnapshotState, dump_index, parse_index
from schemas.model.errors import OrdertapError
from schemas.model.lsn import LSN
from schemas.model.relation import Column, ColumnFacts
from schemas.registry import wire
from schemas.registry.registry import open_registry
from schemas.types.defaults import avro_default
from schemas.types.encoders import FAILURES
from schemas.types.type_table import Modes, kind_of
from schemas.writing.codec import Codec, SourceOrigin, compile_codec
from schemas.writing.envelope import topic_name
from tests.fuzzing.corpus import Corpus
from tests.fuzzing.mutate import mutate
from tests.record_reader import RecordReader, row_reader

TOPIC_OF = partial(topic_name, "shop")
ORIGIN = SourceOrigin("shop", "test", "0")
PREFIX = ORIGIN.transaction(7, 1, 1, 1)
READABLE = (EOFError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError)
"""What tests.record_reader.RecordReader turns into a RecordError."""

MODES = (
    Modes(),
    Modes("string", "isostring", "base64", "string", "map"),
    Modes("double", "nanoseconds", "hex"),
    Modes(time_precision_mode="connect", binary_handling_mode="base64-url-safe", money_fraction_digits=0),
)


class Target(NamedTuple):
    """A function, inputs to break for it, and the errors that are part of its contract."""

    name: str
    inputs: list[bytes]
    call: Callable[[bytes], object]
    errors: tuple[type[Exception], ...] = (OrdertapError,)

    def run(self, rng: random.Random) -> bytes:
        """Breaks an input and calls the function; raises what it must not raise."""
        data = mutate(rng, rng.choice(self.inputs), self.inputs)
        try:
            self.call(data)
        except self.errors:
            pass
        except Exception as error:
            raise Broken(self.name, data) from error
        return data


class Broken(Exception):  # noqa: N818  a finding, with the input that shows it
    """An input that ended in an error that is not ours."""

    def __init__(self, target: str, data: bytes) -> None:
        super().__init__(f"{target}: {data[:400]!r}{'…' if len(data) > 400 else ''}")


def targets(corpus: Corpus, folder: Path) -> list[Target]:
    """Everything that reads foreign bytes; `folder` is for a registry."""
    return [
        Target("a message of pgoutput", corpus.messages, pgoutput.decode),
        *_streamed(corpus),
        *_copied(corpus),
        *_texts(corpus),
        *_records(corpus, folder),
        *_small(),
    ]


def _streamed(corpus: Corpus) -> Iterator[Target]:
    """Whole messages into records, as the stream does it."""
    table = _table(corpus)
    ways = {b"I": table.insert, b"U": table.update, b"D": table.delete}
    for kind, way in ways.items():
        messages = [message for message in corpus.messages if message[:1] == kind]

        def change(data: bytes, kind: bytes = kind, way: Any = way) -> object:
            return way(kind + data[1:], PREFIX, 1, b"1:1:1")

        yield Target(f"a message {kind.decode()} into records", messages, change)


def _table(corpus: Corpus) -> Table:
    versions = Versions(TOPIC_OF, frozenset(), lambda _: corpus.facts, lambda *_: 1, lambda _: None, lambda _: 3)
    tables = Tables(Selection(), True, versions)
    table = tables.relation(corpus.relation)
    assert table is not None
    return table


def _copied(corpus: Corpus) -> Iterator[Target]:
    """Lines of COPY into records, as the snapshot does it."""
    encoder = compile_codec("t", corpus.relation, corpus.facts).bind(1, 2)

    def careful(cells: Cells) -> tuple[bytes | None, bytes]:
        return encoder.key(cells), encoder.row(cells)

    def produce(*_: object) -> None:
        return None

    outlet = Outlet(produce, produce, "t", 0, [], lambda: None)
    write = line_writer(encoder.codec.layout, Frame(*encoder.read_frame(PREFIX, 1)), careful, outlet).write
    plain = [line for line in corpus.lines if b"\\" not in line] or corpus.lines
    yield Target("a line of COPY", corpus.lines, lambda data: parse_copy_line(data))
    yield Target("a line of COPY into a record", corpus.lines, write)
    yield Target("a plain line of COPY into a record", plain, write)


def _texts(corpus: Corpus) -> Iterator[Target]:
    """Texts of each type in each mode: refused by name, or written so that the reader gets on with it."""
    names = {column.name: column for column in corpus.types.columns}
    for name, texts in corpus.texts.items():
        if not texts:
            continue
        relation = replace(corpus.types, columns=(names[name],), replica_identity="n")
        facts = replace(corpus.type_facts, primary_key=())
        seen: list[object] = []
        for modes in MODES:
            codec = compile_codec("t", relation, facts, modes=modes)
            kind = codec.layout.columns[0].kind
            if kind.avro in seen:
                continue
            seen.append(kind.avro)
            yield Target(f"{name}, encoded", texts, kind.encode, FAILURES)
            yield Target(f"{name}, there and back", texts, _there_and_back(codec), (OrdertapError, *READABLE))


def _there_and_back(codec: Codec) -> Callable[[bytes], object]:
    encoder, reader = codec.bind(None, 1), row_reader(codec.value_schema)

    def call(data: bytes) -> object:
        value = _only_ours(lambda: encoder.create(PREFIX, 1, (data,)))
        return None if value is None else reader.row(reader.record(value[5:])["after"])

    return call


def _only_ours(call: Callable[[], bytes]) -> bytes | None:
    """The record, None when it was refused; any other error is not forgiven, whatever the target forgives."""
    try:
        return call()
    except OrdertapError:
        return None
    except Exception as error:
        raise AssertionError(type(error).__name__) from error


def _records(corpus: Corpus, folder: Path) -> Iterator[Target]:
    """Records of a topic, with keys and headers, as the sink reads them."""
    registry = open_registry(folder.as_uri())
    codec = compile_codec("shop.public.t", corpus.relation, corpus.facts)
    value_id = registry.register("shop.public.t-value", codec.value_schema)
    key_id = registry.register("shop.public.t-key", codec.key_schema or {})
    encoder = codec.bind(key_id, value_id)
    rows = [parse_copy_line(line[:-1]) for line in corpus.lines]
    values = [encoder.create(PREFIX, 1, row) for row in rows] + [encoder.delete(PREFIX, 1, row) for row in rows]
    keys = [encoder.key(row) or b"" for row in rows]
    reader = RecordReader(registry)
    stamp, transaction, unchanged = b"1:2:3", b"7:2", b'["text"]'
    headers = [(STAMP_HEADER, stamp), (TRANSACTION_HEADER, transaction), (UNCHANGED_HEADER, unchanged)]

    def read(key: bytes, value: bytes, *more: tuple[str, bytes]) -> object:
        return reader.read("t", 0, 0, key, value, [*headers, *more])

    def framed(data: bytes) -> bytes:
        return wire.frame(value_id, data[5:])

    yield Target("a record's value", values, lambda data: read(keys[0], data))
    yield Target("a record's Avro", values, lambda data: read(keys[0], framed(data)))
    yield Target("a record's Avro without headers", values, lambda data: reader.read("t", 0, 0, None, framed(data), []))
    yield Target("a record's key", keys, lambda data: read(data, values[0]))
    for name, content in headers:
        yield Target(f"header {name}", [content], lambda data, name=name: read(keys[0], values[0], (name, data)))


def _small() -> Iterator[Target]:
    """Positions, headers, heartbeats, LSNs, expressions of defaults."""
    position = Position(
        1, "7318", 1, "ordertap", LSN(9), LSN(8), "ab",
        Partial(LSN(9), 3, {"public.t": 3}, {("public.t", "s.public.t"): 3}), InitialSnapshot("id", "running"),
        Heartbeat("r", 1), LSN(5), chain=Chain(7, LSN(8)),
    )  # fmt: skip
    beat = b'{"run":"a","number":3,"slot":"ordertap","at_ms":5}'
    yield Target("a position", [position.dump()], parse_position)
    yield Target("a heartbeat", [beat], lambda data: parse_heartbeat(data, "ordertap", LSN(9)))
    signal = Signal("ordertap", "id", "execute-snapshot", ("public.t",), "id > 5").dump().encode()
    yield Target("a signal", [signal], _signal)
    yield Target("a mark", [Watermark("reader", 3, low=True).dump().encode()], parse_watermark)
    yield Target("ordertap.stamp", [b"1:25802600:3"], parse_stamp)
    yield Target("ordertap.transaction", [b"7:9", b"snapshot:x", b'{"id":"7:9","size":{"t":1}}'], parse_transaction)
    chunk = Commit(9, 0, ((0, 5),), "id")
    listed = IndexRecord(7, 1, LSN(8), LSN(9), (("t", "s.t"),), (Commit(8, 5, ((0, 3),)), chunk), ("t",), ("t",))
    snapshot = SnapshotState("id", "completed", LSN(8), True, ("t",), {"t": 5})
    yield Target("the index", [dump_index(listed._replace(snapshots=(snapshot,)))], parse_index)
    yield Target("ordertap.unchanged", [b'["a","b"]'], parse_unchanged)
    yield Target("an LSN", [b"16/B374D848", b"0/0"], lambda data: LSN.parse(data.decode("latin-1")))
    expressions = [b"'it''s'::text", b"(-5)", b"'2024-01-01'::date", b"true", b"1.50", b"'{}'::text[]", b"now()"]
    yield Target("a default", expressions, _default)


def _signal(data: bytes) -> None:
    signal = parse_signal(data, "ordertap")
    if signal is not None:
        signal.is_signed(b"key")


def _default(data: bytes) -> None:
    for oid in (23, 25, 1700, 1114, 1009, 17, 600):
        avro_default(kind_of(Column("v", oid), ColumnFacts()), data.decode("utf-8", "replace"), True)
