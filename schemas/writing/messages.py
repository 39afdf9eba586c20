"""A logical message as Debezium's op m: schemas and bytes."""

from __future__ import annotations

from typing import Final

from schemas.types.encoders import LENGTHS, long_bytes, sized
from schemas.types.kind import Schema
from schemas.writing.codec import SourcePrefix
from schemas.writing.envelope import static_schema

MESSAGE_KEY: Final = static_schema("MessageKey")
_SOME: Final = b"\x02"
_NULL: Final = b"\x00"


def message_schema() -> Schema:
    """The value's schema, in Debezium 3.x's order of fields."""
    source = static_schema("Source")
    del source["namespace"]  # the enclosing record's namespace applies
    return {
        "type": "record",
        "name": "MessageValue",
        "namespace": "io.debezium.connector.postgresql",
        "fields": [
            {"name": "op", "type": "string"},
            {"name": "ts_ms", "type": ["null", "long"], "default": None},
            {"name": "source", "type": source},
            {"name": "transaction", "type": ["null", static_schema("block")], "default": None},
            {"name": "message", "type": static_schema("Message")},
        ],
        "connect.version": 1,
        "connect.name": "io.debezium.connector.postgresql.MessageValue",
    }


def message_key(prefix: str) -> bytes:
    """Avro of MESSAGE_KEY."""
    return _SOME + sized(prefix.encode())


def message_value(source: SourcePrefix, lsn: int, now_ns: int, prefix: str, content: bytes) -> bytes:
    """Avro of message_schema. `source`: the message's transaction. `now_ns`: our clock."""
    text = b'%s%d"]' % (source.sequence, lsn)
    no_table = sized(b"") * 2  # schema and table
    return b"".join(
        (
            sized(b"m"), _SOME, long_bytes(now_ns // 10**6),
            source.head, LENGTHS[len(text)], text, source.times, no_table, source.xid, long_bytes(lsn),
            source.tails["c"][:-2],  # all but the op, which stands first here
            _SOME, sized(prefix.encode()), _SOME, sized(content),
        )
    )  # fmt: skip
