"""Reads documents from the ERP's tables: heads and lines, with a few queries for many documents."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from sink.database import array_text
from sink.erp.contract import Observed
from sink.erp.kinds import BY_HAND, PARTS, ErpRecord, ErpRef, Fields, Kind, Milestone, PartKind, Sums, Value
from sink.erp.sql.connections import ErpDatabase
from sink.erp.sql.many import SHAPES
from sink.erp.sql.mapping import DocumentTable, LineTable, LinkColumn, Mapped

_Place = tuple[PartKind, str]
_Row = Mapping[str, Any]
_AS_IT_IS = frozenset({str, Decimal, bool, type(None)})
_IN_ARRAYS: Final[Mapping[type, type[sa.types.TypeEngine[Any]]]] = {
    sa.VARCHAR: sa.Text, sa.TEXT: sa.Text,
    sa.SMALLINT: sa.BigInteger, sa.INTEGER: sa.BigInteger, sa.BIGINT: sa.BigInteger,
}  # fmt: skip
"""Column type → type of the elements of an array that the column is compared with. It has no length or range: a value
that the column cannot hold is simply not found."""


@dataclass
class ErpRow:
    """A document as it is in the tables. `lines`: by their place in the record."""

    ref: ErpRef
    head: _Row
    observed: Observed
    lines: dict[_Place, _Row] = field(default_factory=dict)


def rows(
    database: ErpDatabase, connection: sa.Connection, kind: Kind, by: str, values: Collection[Any], lock: bool = False
) -> list[ErpRow]:
    """The documents of a kind that have one of these values in a column, by the ERP's own key. `lock`: nobody else can
    change them before the transaction ends."""
    document, table = database.document(kind)
    heads = look_up(connection, table, document.read, by, document.id, values, lock) if values else []
    if not heads:
        return []
    lines = _lines_of(database, connection, document, [head[document.id] for head in heads], lock)
    named = {
        name: _targets(
            database, connection, link_target(database.mapping, name), link, [head[link.column] for head in heads]
        )
        for name, link in document.links.items()
    }
    sold = _sold(database, connection, document.lines, [line for some in lines.values() for line in some])
    found = []
    for head in heads:
        links: Fields = {str(name): named[name].get(head[link.column]) for name, link in document.links.items()}
        found.append(_row(kind, document, head, lines.get(head[document.id], []), links, sold))
    return found


def look_up(
    connection: sa.Connection,
    table: sa.Table,
    columns: tuple[str, ...],
    by: str,
    order: str,
    values: Collection[Any],
    lock: bool = False,
) -> list[_Row]:
    """Columns of the rows that have one of these values in the column `by`."""
    postgres = connection.dialect.name == "postgresql"
    query = _select(table, columns, by, order, lock, postgres)
    found = connection.execute(query, {"values": among(table.c[by], values, postgres)}).all()
    return [dict(zip(columns, row, strict=True)) for row in found]


@lru_cache(SHAPES)
def _select(
    table: sa.Table, columns: tuple[str, ...], by: str, order: str, lock: bool, postgres: bool
) -> sa.Select[Any]:
    """The statement, made once: making it takes longer than running it."""
    query = sa.select(*[table.c[name] for name in columns]).where(is_among(table.c[by], postgres))
    query = query.order_by(table.c[order])
    return query.with_for_update() if lock else query


def is_among(column: sa.Column[Any], postgres: bool) -> sa.ColumnElement[bool]:
    """The condition that a column has one of the values in the parameter `values`, which `among` makes. PostgreSQL gets
    them as one text, because server, driver and SQLAlchemy would handle thousands of values one by one."""
    if not (postgres and type(column.type) in _IN_ARRAYS):
        return column.in_(sa.bindparam("values", type_=column.type, expanding=True))
    array = postgresql.ARRAY(_IN_ARRAYS[type(column.type)])
    return column == sa.any_(sa.cast(sa.bindparam("values", type_=sa.Text), array))


def among(column: sa.Column[Any], values: Collection[Any], postgres: bool) -> str | list[Any]:
    """The values for `is_among`. None of them is NULL."""
    in_array = postgres and type(column.type) in _IN_ARRAYS
    return array_text(map(str, values)) if in_array else list(values)


def by_key(
    database: ErpDatabase, connection: sa.Connection, kind: Kind, keys: Collection[str], lock: bool = False
) -> dict[str, ErpRow]:
    """Documents by our keys; those that have none of ours, by `hand:` and the ERP's own key. If a key is there twice,
    nothing may be planned on either document."""
    document, table = database.document(kind)
    row_id = table.c[document.id]
    ours = sorted(key for key in keys if not key.startswith(BY_HAND))
    by_hand = [key.removeprefix(BY_HAND) for key in sorted(keys) if key.startswith(BY_HAND)]
    by_id = [typed(row_id, one) for one in by_hand if one.isdigit() or row_id.type.python_type is not int]
    typed_in = rows(database, connection, kind, document.id, by_id, lock)
    found: dict[str, ErpRow] = {}
    for row in rows(database, connection, kind, document.key, ours, lock):
        if row.ref.external in found:
            problem = f"{document.table} of the ERP has more than one row with its key"
            row.observed = replace(row.observed, milestone=None, problem=problem)
        found[row.ref.external] = row
    return found | {row.ref.external: row for row in typed_in if row.ref.external.startswith(BY_HAND)}


def link_target(mapping: Mapped, name: str) -> DocumentTable | LineTable:
    """The table that a link refers to."""
    if name == "account":
        return mapping.customer
    order = mapping.order
    return order.lines if name == "order_line" and order.lines else order


def _targets(
    database: ErpDatabase,
    connection: sa.Connection,
    target: DocumentTable | LineTable,
    link: LinkColumn,
    values: Collection[Any],
) -> dict[Any, ErpRef]:
    """What the values of a link refer to, by value. A document without a key of ours is named by the ERP's."""
    wanted = {value for value in values if value is not None}
    if not wanted:
        return {}
    kind: Kind = "customer" if target is database.mapping.customer else "order"
    table = database.table(target.table)
    by = link.by or target.id
    found = look_up(connection, table, (by, target.key, target.id), by, target.id, wanted)
    return {row[by]: ErpRef(kind, str(row[target.key] or f"{BY_HAND}{row[target.id]}")) for row in found}


def _sold(
    database: ErpDatabase, connection: sa.Connection, lines: LineTable | None, found: Collection[_Row]
) -> dict[Any, ErpRef]:
    link = lines.links.get("order_line") if lines else None
    if link is None or database.mapping.order.lines is None:
        return {}
    return _targets(database, connection, database.mapping.order.lines, link, [row[link.column] for row in found])


def _lines_of(
    database: ErpDatabase, connection: sa.Connection, document: DocumentTable, heads: Collection[Any], lock: bool
) -> dict[Any, list[_Row]]:
    lines = document.lines
    if lines is None:
        return {}
    table = database.table(lines.table)
    found: dict[Any, list[_Row]] = {}
    for row in look_up(connection, table, lines.read, lines.parent, lines.id, heads, lock):
        found.setdefault(row[lines.parent], []).append(row)
    return found


def _row(
    kind: Kind,
    document: DocumentTable,
    head: _Row,
    lines: list[_Row],
    links: Fields,
    sold: Mapping[Any, ErpRef],
) -> ErpRow:
    reference = str(head[document.reference])
    ref = ErpRef(kind, str(head[document.key] or f"{BY_HAND}{head[document.id]}"))
    fields: Fields = {**_fields(document.fields, head), **links}
    parts: dict[PartKind, dict[str, Fields]] = {part: {} for part in PARTS[kind]} if document.lines else {}
    placed: dict[_Place, _Row] = {}
    for line in lines:
        part, key = _place(ref, document.lines, line)
        placed[part, key] = line
        parts[part][key] = _line_fields(document.lines, line, sold)
    state = str(head[document.status]) if document.status else ""
    milestone = document.milestones.get(state) if document.status else Milestone.CONFIRMED
    unknown = f"it is in a state of {document.table} that the mapping does not know: name it in `milestones` there"
    paid = fields.get("paid")
    observed = Observed(
        record=ErpRecord(kind, fields, parts),
        milestone=milestone,
        reference=reference,
        stamp=_stamp(document, head, lines),
        key=int(head[document.revision] or 0),
        state=state,
        problem="" if milestone else unknown,
        paid=paid if isinstance(paid, Decimal) else None,
    )
    return ErpRow(ref, head, observed, placed)


def _place(ref: ErpRef, lines: LineTable | None, line: _Row) -> _Place:
    key = line[lines.key] if lines else None
    return ref.part_and_key(str(key) if key else f"{BY_HAND}{line[lines.id] if lines else ''}")


def _line_fields(lines: LineTable | None, line: _Row, sold: Mapping[Any, ErpRef]) -> Fields:
    if lines is None:
        return {}
    links: Fields = {str(name): sold.get(line[link.column]) for name, link in lines.links.items()}
    fields = _fields(lines.fields, line)
    return {**fields, **links} if links else fields


def _fields(columns: Mapping[str, str], row: Mapping[str, Any]) -> Fields:
    return {
        name: value if type(value := row[column]) in _AS_IT_IS else _value(value) for name, column in columns.items()
    }


def typed(column: sa.Column[Any], text: str) -> Any:
    """A key in its column's type."""
    return int(text) if column.type.python_type is int else text


def by_rate(parts: Mapping[PartKind, Mapping[str, Fields]]) -> dict[Decimal, Sums]:
    """Sums by tax rate. Lines that lack an amount or the rate are left out."""
    found: dict[Decimal, Sums] = {}
    for fields in (fields for rows in parts.values() for fields in rows.values()):
        rate, net, tax, gross = fields.get("tax_rate"), fields.get("net"), fields.get("tax"), fields.get("gross")
        if not (isinstance(rate, Decimal) and isinstance(net, Decimal) and isinstance(tax, Decimal)):
            continue
        if isinstance(gross, Decimal):
            before = found.get(rate, Sums())
            found[rate] = Sums(before.net + net, before.tax + tax, before.gross + gross)
    return found


def _stamp(document: DocumentTable, head: _Row, lines: list[_Row]) -> str:
    """A digest of all mapped columns, lines included, except our step key."""
    seen = [value for name, value in head.items() if name != document.revision]
    for line in lines:
        seen += line.values()
    return hashlib.blake2b("\0".join(map(str, seen)).encode(), digest_size=12).hexdigest()


def _value(value: Any) -> Value:
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    result: Value = value
    return result
