"""What a command writes into the ERP's tables."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from sink.erp.contract import Applied, Command, ConflictError, HoldError, Key
from sink.erp.kinds import ErpRecord, Fields
from sink.erp.sql.connections import ErpDatabase


def create(database: ErpDatabase, connection: sa.Connection, command: Command, key: Key) -> Applied:
    """A new document, in a transaction of the caller's."""
    record = command.record
    document, table = database.document(record.kind)
    values = _values(document.fields, record.fields, table)
    values |= {document.key: key.external, document.revision: key.revision}
    if document.status:
        values[document.status.column] = document.status.new
    if document.order:
        values[document.order] = _order_id(database, connection, str(record.fields["order"]))
    connection.execute(sa.insert(table).values(values))
    query = sa.select(table.c[document.id], table.c[document.reference]).where(table.c[document.key] == key.external)
    row_id, reference = connection.execute(query).one()
    for line_key in record.lines:
        _insert_line(database, connection, record, key, row_id, line_key)
    return Applied(str(reference))


def change(database: ErpDatabase, connection: sa.Connection, command: Command, key: Key) -> Applied:
    """Amends, cancels or removes a document that is there, if it is as the plan took it to be."""
    document, table = database.document(command.record.kind)
    columns = [table.c[document.id], table.c[document.reference], table.c[document.revision]]
    if document.status:
        columns.append(table.c[document.status.column])
    query = sa.select(*columns).where(table.c[document.key] == key.external).with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        raise HoldError("it is no longer in the ERP", "restore it there, then `sink retry`")
    if int(row[2]) >= key.revision:
        if int(row[2]) == key.revision:
            return Applied(str(row[1]))
        raise ConflictError("a later command was done already")
    if command.expected and document.status and document.milestones.get(row[3]) is not command.expected:
        raise ConflictError("its state in the ERP changed meanwhile")
    values: dict[str, Any] = {document.revision: key.revision}
    if command.verb in ("cancel", "remove"):
        if document.status is None:
            raise HoldError("this ERP cannot cancel it", "do it in the ERP by hand")
        values[document.status.column] = document.status.cancelled
    else:
        values |= _values(document.fields, command.fields, table)
        _change_lines(database, connection, command, key, row[0])
    connection.execute(sa.update(table).where(table.c[document.id] == row[0]).values(values))
    return Applied(str(row[1]))


def _change_lines(database: ErpDatabase, connection: sa.Connection, command: Command, key: Key, row_id: Any) -> None:
    lines = database.mapping.of(command.record.kind).lines
    if lines is None:
        return
    table = database.table(lines.table)
    for line_key in command.remove_lines:
        connection.execute(sa.delete(table).where(table.c[lines.key] == f"{key.external}/{line_key}"))
    for line_key, fields in command.set_lines.items():
        values = _values(lines.fields, fields, table)
        changed = sa.update(table).where(table.c[lines.key] == f"{key.external}/{line_key}")
        # A line whose only change is a field that is not mapped still has to exist.
        done = connection.execute(changed.values(values or {lines.key: f"{key.external}/{line_key}"}))
        if done.rowcount == 0:
            _insert_line(database, connection, command.record, key, row_id, line_key)


def _insert_line(
    database: ErpDatabase, connection: sa.Connection, record: ErpRecord, key: Key, row_id: Any, line_key: str
) -> None:
    fields = record.lines[line_key]
    lines = database.mapping.of(record.kind).lines
    if lines is None:
        return
    table = database.table(lines.table)
    values = _values(lines.fields, fields, table) | {lines.key: f"{key.external}/{line_key}", lines.parent: row_id}
    if lines.order_line:
        sold = database.mapping.order.lines
        assert sold is not None  # noqa: S101  a return refers to lines, so orders have them
        sold_table = database.table(sold.table)
        sold_key = f"{record.fields['order']}/{fields['order_line']}"
        query = sa.select(sold_table.c[sold.id]).where(sold_table.c[sold.key] == sold_key)
        values[lines.order_line] = connection.execute(query).scalar_one_or_none()
        if values[lines.order_line] is None:
            raise HoldError("a returned line is not on the ERP's order", "compare both orders, then `sink retry`")
    connection.execute(sa.insert(table).values(values))


def _order_id(database: ErpDatabase, connection: sa.Connection, external: str) -> Any:
    document, table = database.document("order")
    found = connection.execute(sa.select(table.c[document.id]).where(table.c[document.key] == external)).scalar()
    if found is None:
        raise HoldError("its order is not in the ERP", "see what holds the order", "master data")
    return found


def _values(columns: Mapping[str, str], fields: Fields, table: sa.Table) -> dict[str, Any]:
    """What to write: mapped fields only; times in UTC where the column knows no zone."""
    values: dict[str, Any] = {}
    for name, column in columns.items():
        if name in fields:
            value = fields[name]
            if isinstance(value, datetime):
                zoned = value if value.tzinfo else value.replace(tzinfo=UTC)
                aware = bool(getattr(table.c[column].type, "timezone", False))
                value = zoned if aware else zoned.astimezone(UTC).replace(tzinfo=None)
            values[column] = value
    return values
