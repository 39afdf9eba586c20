"""What the ERP's tables say of documents: heads, lines, and what came back of an order."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from sink.erp.contract import HoldError, Observed
from sink.erp.kinds import ErpRecord, Fields, Kind, Milestone, Value
from sink.erp.sql.connections import ErpDatabase
from sink.erp.sql.mapping import DocumentTable


def observed(
    database: ErpDatabase, connection: sa.Connection, kind: Kind, which: sa.ColumnElement[bool]
) -> dict[str, Observed]:
    """The documents of a kind that meet a condition on their table, by external key, as they are now."""
    document, table = database.document(kind)
    heads = connection.execute(sa.select(table).where(which)).mappings().all()
    lines = _lines(database, connection, document, table, which) if document.lines else {}
    returned = _returned(database, connection, which) if kind == "order" else {}
    refunded = _refunded(database, connection, which) if kind == "order" else {}
    found = {}
    for head in heads:
        status = head[document.status.column] if document.status else None
        milestone = Milestone.CONFIRMED if status is None else document.milestones.get(str(status))
        if milestone is None:
            reason = f"it is in a state of {document.table} that the mapping does not know"
            raise HoldError(reason, "name the state in `milestones` of the mapping, then `sink retry`")
        row_id, external = head[document.id], str(head[document.key])
        own = {key.removeprefix(f"{external}/"): fields for key, fields in lines.get(row_id, {}).items()}
        back = {key.removeprefix(f"{external}/"): counts for key, counts in returned.get(row_id, {}).items()}
        fields = {name: _value(head[column]) for name, column in document.fields.items()}
        found[external] = Observed(
            ErpRecord(kind, fields, own), milestone, str(head[document.reference]), int(head[document.revision]), back,
            refunded.get(row_id, {}),
        )  # fmt: skip
    return found


def _lines(
    database: ErpDatabase,
    connection: sa.Connection,
    document: DocumentTable,
    heads: sa.Table,
    which: sa.ColumnElement[bool],
) -> dict[Any, dict[str, Fields]]:
    lines = document.lines
    assert lines is not None  # noqa: S101  asked for documents with lines only
    table = database.table(lines.table)
    joined = table.join(heads, table.c[lines.parent] == heads.c[document.id])
    found: dict[Any, dict[str, Fields]] = {}
    for row in connection.execute(sa.select(table).select_from(joined).where(which)).mappings():
        key = str(row[lines.key] or f"by hand {row[lines.id]}")
        found.setdefault(row[lines.parent], {})[key] = {n: _value(row[c]) for n, c in lines.fields.items()}
    return found


def _returned(
    database: ErpDatabase, connection: sa.Connection, which: sa.ColumnElement[bool]
) -> dict[Any, dict[str, dict[str, Decimal]]]:
    """Per order and sold line: number of the return → quantity, those typed in by hand too."""
    document, heads = database.document("return")
    order, orders = database.document("order")
    lines, sold = document.lines, order.lines
    if lines is None or sold is None or document.order is None or lines.order_line is None:
        return {}
    table, sold_table = database.table(lines.table), database.table(sold.table)
    joined = (
        table.join(heads, table.c[lines.parent] == heads.c[document.id])
        .join(orders, heads.c[document.order] == orders.c[order.id])
        .join(sold_table, table.c[lines.order_line] == sold_table.c[sold.id])
    )
    number = heads.c[document.fields.get("number", document.id)]
    query = sa.select(
        orders.c[order.id], sold_table.c[sold.key], number, table.c[lines.fields["quantity"]]
    ).select_from(joined)
    found: dict[Any, dict[str, dict[str, Decimal]]] = {}
    for order_id, line, of, quantity in connection.execute(query.where(which, _valid(document, heads))):
        counts = found.setdefault(order_id, {}).setdefault(str(line), {})
        counts[str(of)] = counts.get(str(of), Decimal(0)) + Decimal(quantity)
    return found


def _refunded(
    database: ErpDatabase, connection: sa.Connection, which: sa.ColumnElement[bool]
) -> dict[Any, dict[str, Decimal]]:
    document, heads = database.document("refund")
    order, orders = database.document("order")
    if document.order is None:
        return {}
    joined = heads.join(orders, heads.c[document.order] == orders.c[order.id])
    number = heads.c[document.fields.get("number", document.id)]
    query = sa.select(orders.c[order.id], number, heads.c[document.fields["gross"]]).select_from(joined)
    found: dict[Any, dict[str, Decimal]] = {}
    for order_id, of, gross in connection.execute(query.where(which, _valid(document, heads))):
        sums = found.setdefault(order_id, {})
        sums[str(of)] = sums.get(str(of), Decimal(0)) + Decimal(gross)
    return found


def _valid(document: DocumentTable, heads: sa.Table) -> sa.ColumnElement[bool]:
    """Cancelled documents count for nothing."""
    if document.status is None:
        return sa.true()
    void = [name for name, milestone in document.milestones.items() if milestone is Milestone.CANCELLED]
    return heads.c[document.status.column].not_in(void)


def _value(value: Any) -> Value:
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    result: Value = value
    return result
