"""Logical messages (pg_logical_emit_message) as records: Debezium's op m, or records of other topics by the outbox
pattern.

Messages whose prefix nobody wants are dropped at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple

import structlog

from capture.kafka.producer import ANY_PARTITION, Fields, Headers
from capture.postgres.pgoutput import LogicalMessage
from schemas.model.change import STAMP_HEADER
from schemas.model.errors import SettingsError
from schemas.registry import wire
from schemas.registry.wire import Frame
from schemas.types.kind import Schema
from schemas.writing.codec import SourcePrefix
from schemas.writing.messages import MESSAGE_KEY, message_key, message_schema, message_value

log = structlog.get_logger("capture")

COLLECTION: Final = "message"
"""What a transaction's counts call messages on `<prefix>.message`. Outbox messages count under their topic's name."""
_FIELD: Final = re.compile(r"\{(\w+)\}")
_KEYLESS_PARTITION: Final = 0
_LONGEST_TOPIC: Final = 249


class Route(NamedTuple):
    """The outbox pattern for messages whose whole prefix matches the regular expression `prefix`.

    With `payload` json the content is an object: its field `payload_field` becomes the record's value (JSON text),
    `key_field` the key, `header_fields` headers; `topic` may name fields in braces. With bytes it is the value itself.
    """

    prefix: str
    topic: str
    payload: Literal["json", "bytes"] = "json"
    payload_field: str = "payload"
    key_field: str = "aggregateid"
    header_fields: tuple[str, ...] = ("id", "type")


def refuse_taken(routes: Iterable[Route], taken: Callable[[str], bool]) -> None:
    """SettingsError for a route whose topic belongs to something else. If the message names the topic, each message is
    checked instead."""
    for route in routes:
        if taken(route.topic):
            raise SettingsError(
                f"outbox_routing: topic {route.topic} of prefix {route.prefix} is capture's own, Kafka's, or a table's",
                "give the route a topic of its own",
            )


class Counted:
    """The counts of one collection."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.events = {"m": 0}


class Messages:
    """Selects the messages that become records, and makes the records."""

    def __init__(
        self,
        prefix: str,
        included: Sequence[str],
        routes: Sequence[Route],
        internal: frozenset[str],
        register: Callable[[str, Schema], int],
        partitions: Callable[[str], int],
        taken: Callable[[str], bool],
        frame: Frame = wire.frame,
        in_utf8: Callable[[bytes], bytes] = bytes,
    ) -> None:
        """`included` are regular expressions of whole message prefixes, `internal` prefixes that are never captured.

        `register` (subject, schema) and `partitions` (makes a new topic) are called at the first message;
        a topic that is `taken` is no route's, whatever a message says: anybody in the shop may write one;
        `frame` makes keys and values of op m, what an outbox route makes is written as it is; `in_utf8` makes that of
        a text in the database's encoding, which is what the log has of a message.
        """
        self._topic = f"{prefix}.message"
        self._included = [re.compile(one) for one in included]
        self._routes = [(re.compile(route.prefix), route) for route in routes]
        self._internal = internal
        self._register = register
        self._partitions = partitions
        self._taken = taken
        self._frame = frame
        self._in_utf8 = in_utf8
        self._ids: tuple[int, int] | None = None
        self._counted: dict[str, Counted] = {}
        self._wanted: dict[str, bool] = {}

    def wants(self, prefix: str) -> bool:
        """Whether messages of this prefix become records."""
        if prefix in self._internal:
            return False
        known = self._wanted.get(prefix)
        if known is None:
            patterns = [*self._included, *(pattern for pattern, _ in self._routes)]
            known = any(pattern.fullmatch(prefix) for pattern in patterns)
            if len(self._wanted) < 1_000:  # others may write any number of prefixes
                self._wanted[prefix] = known
        return known

    def record(
        self, message: LogicalMessage, source: SourcePrefix, now_ns: int, stamp: bytes
    ) -> tuple[Counted, Fields]:
        """The record of a wanted message, and where it is counted. May ask registry and broker."""
        for pattern, route in self._routes:
            if pattern.fullmatch(message.prefix):
                routed = self._routed(route, message, stamp)
                if routed is not None and not self._taken(routed[0]):
                    self._partitions(routed[0])
                    return self._count(routed[0]), routed
                log.warning("message is not what its outbox route expects", prefix=message.prefix, lsn=str(message.lsn))
                break
        if self._ids is None:
            self._partitions(self._topic)
            key, value = (
                self._register(f"{self._topic}-key", MESSAGE_KEY),
                self._register(f"{self._topic}-value", message_schema()),
            )
            self._ids = key, value
        key_id, value_id = self._ids
        value_bytes = self._frame(value_id, message_value(source, message.lsn, now_ns, message.prefix, message.content))
        key_bytes = self._frame(key_id, message_key(message.prefix))
        headers: Headers = [(STAMP_HEADER, stamp)]
        return self._count(COLLECTION), (self._topic, ANY_PARTITION, key_bytes, value_bytes, headers)

    def _routed(self, route: Route, message: LogicalMessage, stamp: bytes) -> Fields | None:
        if route.payload == "json" and not message.content.isascii():
            message = message._replace(content=self._in_utf8(message.content))
        return _routed(route, message, stamp)

    def take_events(self) -> Iterator[tuple[str, str, int]]:
        """(collection, operation, messages) since the last call."""
        for counted in self._counted.values():
            if counted.events["m"]:
                yield counted.name, "m", counted.events["m"]
                counted.events["m"] = 0

    def _count(self, name: str) -> Counted:
        return self._counted.setdefault(name, Counted(name))


def _routed(route: Route, message: LogicalMessage, stamp: bytes) -> Fields | None:
    """The record of an outbox message; None if the route cannot read the content."""
    headers: Headers = [(STAMP_HEADER, stamp)]
    if route.payload == "bytes":
        return None if _FIELD.search(route.topic) else (route.topic, _KEYLESS_PARTITION, None, message.content, headers)
    try:
        content = json.loads(message.content)
        payload, key = content[route.payload_field], content.get(route.key_field)
        topic = re.sub(r"[^A-Za-z0-9._-]", "_", _FIELD.sub(lambda found: _text(content[found[1]]), route.topic))
        headers += [(name, _bytes(content[name])) for name in route.header_fields if content.get(name) is not None]
        place = _KEYLESS_PARTITION if key is None else ANY_PARTITION
        routed = (topic, place, _bytes(key), _bytes(payload), headers)
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):  # errors that foreign JSON may raise
        return None
    return routed if len(topic) <= _LONGEST_TOPIC and topic not in (".", "..") else None


def _bytes(value: Any) -> bytes | None:
    return None if value is None else _text(value).encode()


def _text(value: Any) -> str:
    """A string as it is, anything else as compact JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
