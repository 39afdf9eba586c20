"""Records as JSON text without a schema registry: the Avro record is made as usual, and then shown as JSON.

A TextOf makes, from a schema, the function from its Avro bytes to JSON text: json_text or json_with_schema.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from schemas.model.change import Cells
from schemas.model.errors import DataError
from schemas.reading.json_text import json_text
from schemas.registry.registry import canonical
from schemas.registry.wire import FRAME_SIZE
from schemas.types.kind import Schema
from schemas.writing.codec import Codec, Encoder, SourcePrefix

TextOf: TypeAlias = Callable[[Schema], Callable[[bytes], bytes]]

_ID: Final = 0  # schema id before Avro bytes that nobody sees


class RowText:
    """Makes JSON text of the keys and values that a table's Encoder writes."""

    def __init__(self, codec: Codec, text_of: TextOf = json_text) -> None:
        self._key = None if codec.key_schema is None else text_of(codec.key_schema)
        self._value = text_of(codec.value_schema)

    def key(self, framed: bytes | None) -> bytes | None:
        """The JSON of a key in the wire format; None for None."""
        return None if framed is None or self._key is None else self._key(framed[FRAME_SIZE:])

    def value(self, framed: bytes) -> bytes:
        """The JSON of a value in the wire format."""
        return self._value(framed[FRAME_SIZE:])

    def before(self, produce: Callable[..., object]) -> Callable[..., object]:
        """A function with the parameters of `produce` (topic, value, key and more), but with value and key in the wire
        format."""

        def produce_text(topic: str, value: bytes, key: bytes | None, *more: Any) -> None:
            produce(topic, self.value(value), self.key(key), *more)

        return produce_text


class JsonEncoder(Encoder):
    """An Encoder whose keys and values are JSON text. Its codec, and the `read_frame` for snapshots, are Avro's;
    RowText makes text of them."""

    __slots__ = ("_text", "text_of")

    def __init__(self, codec: Codec, text_of: TextOf = json_text) -> None:
        super().__init__(codec, None if codec.key_schema is None else _ID, _ID)
        self.text_of = text_of
        self._text = text = RowText(codec, text_of)
        record = self.record

        def record_text(message: bytes, prefix: SourcePrefix, lsn: int, op: str) -> tuple[bytes | None, bytes]:
            key, value = record(message, prefix, lsn, op)
            return text.key(key), text.value(value)

        self.record = record_text

    def key(self, cells: Cells) -> bytes | None:
        """See Encoder. A key is `{"id":1}`."""
        return self._text.key(super().key(cells))

    def row_of(self, key: bytes) -> bytes:
        """See Encoder."""
        return key if self.text_of is json_text else json.dumps(json.loads(key)["payload"]).encode()

    def create(self, prefix: SourcePrefix, lsn: int, cells: Cells) -> bytes:
        """See Encoder."""
        return self._text.value(super().create(prefix, lsn, cells))

    def read(self, prefix: SourcePrefix, lsn: int, cells: Cells) -> bytes:
        """See Encoder."""
        return self._text.value(super().read(prefix, lsn, cells))

    def update(self, prefix: SourcePrefix, lsn: int, cells: Cells, old: Cells | None = None) -> bytes:
        """See Encoder."""
        return self._text.value(super().update(prefix, lsn, cells, old))

    def delete(self, prefix: SourcePrefix, lsn: int, old: Cells, key_only: bool = False) -> bytes:
        """See Encoder."""
        return self._text.value(super().delete(prefix, lsn, old, key_only))

    def truncate(self, prefix: SourcePrefix, lsn: int) -> bytes:
        """See Encoder."""
        return self._text.value(super().truncate(prefix, lsn))


class JsonRegistry:
    """Takes the place of a Registry: takes every schema, and gives ids that nobody outside this process sees."""

    def __init__(self, text_of: TextOf = json_text) -> None:
        self.text_of = text_of
        self._ids: dict[str, int] = {}
        self._schemas: list[Schema] = []
        self._texts: dict[int, Callable[[bytes], bytes]] = {}

    def frame(self, schema_id: int, avro: bytes) -> bytes:
        """A whole Kafka key or value: JSON text of a registered schema's Avro bytes."""
        if schema_id not in self._texts:
            self._texts[schema_id] = self.text_of(self.schema(schema_id))
        return self._texts[schema_id](avro)

    def register(self, subject: str, schema: Schema) -> int:
        """See Registry."""
        known = self._ids.setdefault(canonical(schema), len(self._schemas))
        if known == len(self._schemas):
            self._schemas.append(schema)
        return known

    def register_all(self, schemas: Sequence[tuple[str, Schema]]) -> None:
        """See Registry. register() takes no time."""

    def schema(self, schema_id: int) -> Schema:
        """See Registry."""
        if not 0 <= schema_id < len(self._schemas):
            raise DataError(f"schema {schema_id} is not one of this process")
        return self._schemas[schema_id]

    def latest(self, subject: str) -> Schema | None:
        """See Registry. No former versions are kept."""

    def check(self) -> None:
        """See Registry. It is always there."""

    def try_out(self, subject: str, schema: Schema) -> None:
        """See Registry. Every schema is compatible here."""

    def close(self) -> None:
        """See Registry. Nothing is open."""
