"""The records beside the tables' changes: transaction ends, snapshot notices, heartbeats, in Debezium's own schemas."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import fastavro

from schemas.types.kind import Schema
from schemas.writing.envelope import static_schema

TRANSACTION_KEY: Final = static_schema("TransactionMetadataKey")
TRANSACTION_VALUE: Final = static_schema("TransactionMetadataValue")
NOTIFICATION_KEY: Final = static_schema("NotificationKey")
NOTIFICATION_VALUE: Final = static_schema("Notification")
HEARTBEAT_KEY: Final = static_schema("ServerNameKey")
HEARTBEAT_VALUE: Final = static_schema("Heartbeat")

SNAPSHOT_NOTICE: Final = "Initial Snapshot"
INCREMENTAL_NOTICE: Final = "Incremental Snapshot"
STARTED: Final = "STARTED"
TABLE_SCAN_COMPLETED: Final = "TABLE_SCAN_COMPLETED"
COMPLETED: Final = "COMPLETED"
ABORTED: Final = "ABORTED"


def encode(schema: Schema, record: Mapping[str, Any]) -> bytes:
    """A record as Avro bytes, without the frame that has the schema's id. For rare records; rows have the codec."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, _parsed(json.dumps(schema)), dict(record))
    return out.getvalue()


@lru_cache(64)
def _parsed(schema: str) -> Any:
    return fastavro.parse_schema(json.loads(schema))


def transaction_begin(transaction_id: str, ts_ms: int) -> dict[str, Any]:
    """The value of a BEGIN on `<prefix>.transaction`."""
    return {"status": "BEGIN", "id": transaction_id, "event_count": None, "data_collections": None, "ts_ms": ts_ms}


def transaction_end(transaction_id: str, size: Mapping[str, int], ts_ms: int) -> dict[str, Any]:
    """The value of an END: changes per captured table and their sum."""
    collections = [{"data_collection": table, "event_count": count} for table, count in size.items()]
    return {
        "status": "END",
        "id": transaction_id,
        "event_count": sum(size.values()),
        "data_collections": collections,
        "ts_ms": ts_ms,
    }


def snapshot_notice(
    step: str,
    *,
    notification_id: str,
    connector: str,
    snapshot_id: str,
    generation: int,
    lsn: int,
    tables: Sequence[str],
    timestamp_ms: int,
    table: str | None = None,
    rows_scanned: int | None = None,
    rows: Mapping[str, int] | None = None,
    incremental: bool = False,
) -> dict[str, Any]:
    """The value of a notification about a snapshot. `table` and `rows_scanned`: for TABLE_SCAN_COMPLETED. `rows` (of
    all tables): for COMPLETED."""
    data = {
        "connector_name": connector,
        "snapshot_id": snapshot_id,
        "generation": str(generation),
        "lsn": str(int(lsn)),
        "data_collections": ",".join(tables),
    }
    if table is not None:
        data["scanned_collection"] = table
    if rows_scanned is not None:
        data["total_rows_scanned"] = str(rows_scanned)
    if rows is not None:
        data["rows"] = json.dumps(dict(rows), separators=(",", ":"))
    return {
        "id": notification_id,
        "type": step,
        "aggregate_type": INCREMENTAL_NOTICE if incremental else SNAPSHOT_NOTICE,
        "additional_data": data,
        "timestamp": timestamp_ms,
    }
