"""What came back of orders by the ERP's tables: goods and money, whoever booked it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from sink.erp.contract import Moved, Observed
from sink.erp.kinds import BY_HAND, Milestone
from sink.erp.sql.connections import ErpDatabase
from sink.erp.sql.mapping import DocumentTable
from sink.erp.sql.reads import ErpRow, among, by_rate, is_among


def with_moved(database: ErpDatabase, connection: sa.Connection, orders: Collection[ErpRow]) -> list[Observed]:
    """Orders with what came back of them, and with their sums by tax rate, in their order. Two queries for all."""
    returned = _returned(database, connection, orders)
    refunded = _refunded(database, connection, orders)
    found = []
    for number, order in enumerate(orders):
        moved = {line: Moved(counts) for line, counts in returned.get(number, {}).items()}
        rates = by_rate(order.observed.record.parts)
        found.append(replace(order.observed, moved=moved, refunded=refunded.get(number, {}), rates=rates))
    return found


def _returned(
    database: ErpDatabase, connection: sa.Connection, orders: Collection[ErpRow]
) -> Mapping[int, dict[str, dict[str, Decimal]]]:
    """Number of the order → its line → the return's key → quantity."""
    document, heads = database.document("return")
    lines, sold = document.lines, database.mapping.order.lines
    link = lines.links.get("order_line") if lines else None
    if lines is None or sold is None or link is None:
        return {}
    places = {
        row[link.by or sold.id]: (number, key)
        for number, order in enumerate(orders)
        for (_, key), row in order.lines.items()
    }
    table = database.table(lines.table)
    joined = table.join(heads, table.c[lines.parent] == heads.c[document.id])
    of = table.c[link.column]
    query = sa.select(of, *_named(document, heads), table.c[lines.fields["quantity"]]).select_from(joined)
    found: dict[int, dict[str, dict[str, Decimal]]] = {}
    for value, who, quantity in _each(connection, query, of, places, document, heads):
        number, line = places[value]
        counts = found.setdefault(number, {}).setdefault(line, {})
        counts[who] = counts.get(who, Decimal(0)) + quantity
    return found


def _refunded(
    database: ErpDatabase, connection: sa.Connection, orders: Collection[ErpRow]
) -> Mapping[int, dict[str, Decimal]]:
    """Number of the order → the refund's key → amount."""
    document, heads = database.document("refund")
    link, gross = document.links.get("order"), document.fields.get("gross")
    if link is None or gross is None:
        return {}
    places = {order.head[link.by or database.mapping.order.id]: number for number, order in enumerate(orders)}
    of = heads.c[link.column]
    query = sa.select(of, *_named(document, heads), heads.c[gross])
    found: dict[int, dict[str, Decimal]] = {}
    for value, who, money in _each(connection, query, of, places, document, heads):
        sums = found.setdefault(places[value], {})
        sums[who] = sums.get(who, Decimal(0)) + money
    return found


def _named(document: DocumentTable, heads: sa.Table) -> tuple[sa.Column[Any], sa.Column[Any]]:
    return heads.c[document.key], heads.c[document.id]


def _each(
    connection: sa.Connection,
    query: sa.Select[Any],
    of: sa.Column[Any],
    values: Collection[Any],
    document: DocumentTable,
    heads: sa.Table,
) -> Iterator[tuple[Any, str, Decimal]]:
    """Rows that refer to one of the values: the value, the document's key, and the amount. Cancelled documents are left
    out."""
    if not values:
        return
    postgres, known = connection.dialect.name == "postgresql", [value for value in values if value is not None]
    query = query.where(is_among(of, postgres))
    if document.status:
        void = [state for state, milestone in document.milestones.items() if milestone is Milestone.CANCELLED]
        query = query.where(heads.c[document.status].not_in(void))
    for value, key, row_id, amount in connection.execute(query, {"values": among(of, known, postgres)}).all():
        yield value, str(key or f"{BY_HAND}{row_id}"), Decimal(amount or 0)
