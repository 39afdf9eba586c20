"""The records beside the tables' changes: transaction ends, snapshot notices, heartbeats; their schemas registered."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from capture.kafka.producer import Headers, Record
from capture.kafka.topics import Topics
from schemas.model.change import STAMP_HEADER, Stamp, stamp_header
from schemas.registry.wire import Frame
from schemas.types.kind import Schema
from schemas.writing import records


class OwnRecords:
    """Makes Debezium's transaction, notification and heartbeat records of one connector."""

    def __init__(
        self,
        connector: str,
        prefix: str,
        topics: Topics,
        register: Callable[[str, Schema], int],
        frame: Frame,
    ) -> None:
        """Registers the schemas (subjects by topic name) at once: `register` takes subject and schema.

        `frame` makes keys and values of Avro bytes.
        """
        self._frame = frame
        self._connector = connector
        self._prefix = prefix
        self._topics = topics
        kinds = {
            topics.transaction: (records.TRANSACTION_KEY, records.TRANSACTION_VALUE),
            topics.notification: (records.NOTIFICATION_KEY, records.NOTIFICATION_VALUE),
            topics.heartbeat: (records.HEARTBEAT_KEY, records.HEARTBEAT_VALUE),
        }
        self._kinds = {
            topic: ((key, register(f"{topic}-key", key)), (value, register(f"{topic}-value", value)))
            for topic, (key, value) in kinds.items()
        }

    def transaction_begin(self, transaction_id: str, ts_ms: int) -> Record:
        """BEGIN on the transaction topic."""
        value = records.transaction_begin(transaction_id, ts_ms)
        return self._record(self._topics.transaction, {"id": transaction_id}, value, [])

    def transaction_end(self, transaction_id: str, stamp: Stamp, size: Mapping[str, int], ts_ms: int) -> Record:
        """END with the counts per table; `stamp` is that of the transaction's last change."""
        value = records.transaction_end(transaction_id, size, ts_ms)
        headers: Headers = [(STAMP_HEADER, stamp_header(stamp))]
        return self._record(self._topics.transaction, {"id": transaction_id}, value, headers)

    def heartbeat(self, ts_ms: int) -> Record:
        """A heartbeat on Debezium's heartbeat topic."""
        return self._record(self._topics.heartbeat, {"serverName": self._prefix}, {"ts_ms": ts_ms}, [])

    def snapshot(
        self, step: str, stamp: Stamp, snapshot_id: str, tables: Sequence[str], ms: int, **more: Any
    ) -> Record:
        """A notice of the snapshot; `more` as records.snapshot_notice takes it (table, rows_scanned, rows)."""
        notification_id = str(uuid.uuid4())
        value = records.snapshot_notice(
            step,
            notification_id=notification_id,
            connector=self._connector,
            snapshot_id=snapshot_id,
            generation=stamp.generation,
            lsn=stamp.commit_lsn,
            tables=tables,
            timestamp_ms=ms,
            **more,
        )
        return self._record(self._topics.notification, {"id": notification_id}, value, [])

    def _record(self, topic: str, key: Mapping[str, Any], value: Mapping[str, Any], headers: Headers) -> Record:
        (key_schema, key_id), (value_schema, value_id) = self._kinds[topic]
        key_bytes = self._frame(key_id, records.encode(key_schema, key))
        return Record(topic, 0, key_bytes, self._frame(value_id, records.encode(value_schema, value)), headers)
