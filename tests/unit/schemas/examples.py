"""What several tests of this package use: a relation, its facts, prepared parts, Debezium's recorded records."""

import json
from pathlib import Path
from typing import Any

from schemas.model.relation import Column, ColumnFacts, Relation, TableFacts
from schemas.writing.codec import SourceOrigin

ORIGIN = SourceOrigin("shop", "shopdb", "0.1.0")
PREFIX = ORIGIN.transaction(xid=4711, commit_us=1_795_387_678_803_755, last_commit_lsn=423384000, now_ns=10**18 + 7)
LSN_OF_ROW = 423384048
TOPIC = "shop.public.orders"

ORDERS = Relation(
    oid=16400,
    schema="public",
    name="orders",
    replica_identity="d",
    columns=(
        Column("id", 20, -1, True),
        Column("customer_id", 23),
        Column("status", 25),
        Column("total", 1700, (12 << 16 | 2) + 4),
        Column("placed_at", 1184),
        Column("note", 25),
        Column("paid", 16),
        Column("photo", 17),
        Column("rate", 1700),
    ),
)
ORDERS_FACTS = TableFacts(
    primary_key=("id",),
    columns={
        "id": ColumnFacts(not_null=True),
        "status": ColumnFacts(not_null=True, default="'pending'::text"),
        "total": ColumnFacts(not_null=True, comment="with tax"),
    },
)
ROW = (b"7", b"12", b"paid", b"19.90", b"2024-02-29 10:34:56.789123+00", None, b"t", b"\\x00ff", b"1.250")


def debezium_records() -> list[dict[str, Any]]:
    """Records of Debezium 3.7's PostgreSQL connector, as they lay in its topics; two large ones are left out.

    In the file bytes are {"__bytes_hex": …}, and a schema that its topic had before is "as before".
    """
    path = Path(__file__).parents[2] / "data" / "debezium" / "records.jsonl"
    schemas: dict[tuple[str, str], Any] = {}
    found = [json.loads(line, object_hook=_bytes) for line in path.read_text("utf-8").splitlines()]
    for record in found:
        for part in ("key_schema", "value_schema"):
            if record[part] == "as before":
                record[part] = schemas[record["topic"], part]
            elif record[part] is not None:
                schemas[record["topic"], part] = record[part]
    return found


def _bytes(found: dict[str, Any]) -> Any:
    return bytes.fromhex(found["__bytes_hex"]) if set(found) == {"__bytes_hex"} else found
