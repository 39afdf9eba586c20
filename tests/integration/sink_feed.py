"""Changes and batches made by hand, for tests that feed the staging without Kafka."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from schemas.change import Change, SnapshotNotice, Stamp
from schemas.lsn import LSN
from sink.database import Connection, connect, migrate
from sink.documents.profile import load_profile
from sink.intake.consumer import Batch
from sink.intake.evidence import Partition, Range
from sink.ledger import marks
from sink.staging.stager import Item, Staged, Staging

ORDERS, LINES = "public.orders", "public.order_lines"
COLUMNS: Mapping[str, Mapping[str, str]] = {
    ORDERS: {"id": "bigint", "status": "text", "total": "numeric(12,2)", "placed_at": "timestamptz", "note": "text"},
    LINES: {"id": "bigint", "order_id": "bigint", "sku": "text", "quantity": "integer"},
}
_PROFILE = """
tables: [public.orders, public.order_lines]
documents:
  sales_order:
    model: SalesOrder
    key: orders.id
    touched_by: [orders.id, order_lines.order_id]
"""


class Shop:
    """A sink's staging over a fresh middle layer, and the records of a shop with an offset counter per partition."""

    def __init__(self, url: str, folder: Path) -> None:
        self.connection: Connection = connect(url)
        migrate(self.connection)
        profile = folder / "profile"
        profile.mkdir(exist_ok=True)
        (profile / "profile.yaml").write_text(_PROFILE)
        (profile / "sales_order.sql").write_text("SELECT id AS key FROM orders WHERE id::text = ANY(%(keys)s)")
        self.profile = load_profile(str(profile))
        self.staging = self.another()
        self._next: dict[tuple[str, int], itertools.count[int]] = {}

    def another(self) -> Staging:
        """One more replica's staging."""
        staging = Staging("shop", self.profile, marks.mark)
        staging.prepare(self.connection)
        return staging

    def change(
        self,
        op: str,
        row: dict[str, Any],
        at: tuple[int, int],
        size: dict[str, int] | None = None,
        table: str = ORDERS,
        partition: int = 0,
        **more: Any,
    ) -> Change:
        """A change of a row at (commit LSN, ordinal); `more`: fields of Change."""
        counter = self._next.setdefault((table, partition), itertools.count())
        columns = more.pop("columns", COLUMNS[table])
        values: dict[str, Any] = {
            "table": table,
            "op": op,
            "stamp": Stamp(1, LSN(at[0]), at[1]),
            "transaction_id": None if more.get("snapshot") else f"7:{at[0]}",
            "size": size,
            "snapshot": None,
            "key": {"id": row["id"]} if row else None,
            "before": row if op == "d" else None,
            "after": None if op in "dt" else row,
            "unchanged": frozenset(),
            "key_change": None,
            "ts_us": 0,
            "topic": f"shop.{table}",
            "partition": partition,
            "offset": next(counter),
            "columns": columns,
        }
        return Change(**(values | more))

    def stage(self, *items: Item, staging: Staging | None = None, read: Batch | None = None) -> Staged:
        """Stages items in one batch, whose ranges go from the first to the last item of each partition."""
        batch = read or batch_of(items)
        return (staging or self.staging).stage(self.connection, items, batch)

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(query, values or None)
            return cursor.fetchall()

    def orders(self, columns: str = "id, status") -> list[tuple[Any, ...]]:
        """The orders as the profile's SQL sees them."""
        return self.rows(f"SELECT {columns} FROM shop.orders ORDER BY id")

    def marked(self) -> dict[str, int]:
        return dict(self.rows("SELECT key, marked FROM ordertap.document ORDER BY key"))


def batch_of(items: Sequence[Any]) -> Batch:
    """The batch that these items came in."""
    batch = Batch()
    for item in items:
        topic, number, offset = item.place if hasattr(item, "place") else (item.topic, item.partition, item.offset)
        partition = Partition(topic, "id-1", number)
        known = batch.read.get(partition, Range(offset, offset + 1))
        batch.read[partition] = Range(min(known.start, offset), max(known.until, offset + 1))
    return batch


def completed(snapshot_id: str, rows: dict[str, int], lsn: int, offset: int = 0) -> SnapshotNotice:
    """The notice that a snapshot is complete."""
    tables = tuple(rows)
    return SnapshotNotice(
        "COMPLETED", "shop", snapshot_id, 1, LSN(lsn), tables, None, None, rows, "shop.notification", 0, offset
    )
