"""Confluent's wire format: a zero byte, the schema id (big-endian, 4 bytes), then Avro's binary encoding."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from schemas.model.errors import DataError

MAGIC = 0
_PREFIX = struct.Struct(">BI")
FRAME_SIZE: Final = _PREFIX.size
"""Number of bytes before the Avro bytes."""

Frame = Callable[[int, bytes], bytes]
"""Makes a whole Kafka key or value from a schema id and Avro bytes, like `frame`."""


def prefix(schema_id: int) -> bytes:
    """The five bytes before the Avro bytes in every record of that schema."""
    return _PREFIX.pack(MAGIC, schema_id)


def frame(schema_id: int, avro: bytes) -> bytes:
    """A whole Kafka key or value."""
    return _PREFIX.pack(MAGIC, schema_id) + avro


def parse(payload: bytes) -> tuple[int, bytes]:
    """Splits a Kafka key or value into (schema id, Avro bytes). DataError if it is not in this format."""
    if len(payload) < _PREFIX.size:
        raise DataError(f"not an Avro record: {len(payload)} bytes, a schema id alone takes {_PREFIX.size}")
    magic, schema_id = _PREFIX.unpack_from(payload)
    if magic != MAGIC:
        raise DataError(
            f"not an Avro record: it starts with byte {magic}, not 0", "look at what else writes to this topic"
        )
    return schema_id, payload[_PREFIX.size :]
