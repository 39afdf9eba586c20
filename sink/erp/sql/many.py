"""Writes many rows of a table in as few statements as possible.

PostgreSQL gets them as one JSON text, which the server takes apart by the types of the table's own columns. That costs
the server half, and us a seventh, of a statement with thousands of values.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

_Row = Mapping[str, Any]
SHAPES: Final = 256
"""How many statements are kept, one for each set of columns that is read or written together."""


def insert(connection: sa.Connection, table: sa.Table, rows: Collection[_Row]) -> None:
    """Inserts rows."""
    for names, alike in _alike(rows):
        if _as_json(connection, table, names):
            connection.execute(_insert(table, names), {"rows": _json(table, names, alike)})
        else:
            connection.execute(sa.insert(table), alike)


def update(connection: sa.Connection, table: sa.Table, key: str, rows: Collection[_Row]) -> None:
    """Updates rows by their key, which is among each row's values."""
    for names, alike in _alike(rows):
        if _as_json(connection, table, names):
            connection.execute(_update(table, key, names), {"rows": _json(table, names, alike)})
            continue
        given = {name: sa.bindparam(f"new_{name}", type_=table.c[name].type) for name in names if name != key}
        at = sa.bindparam(f"new_{key}", type_=table.c[key].type)
        changed = sa.update(table).where(table.c[key] == at).values(given)
        connection.execute(changed, [{f"new_{name}": row[name] for name in names} for row in alike])


def _as_json(connection: sa.Connection, table: sa.Table, names: Iterable[str]) -> bool:
    """Whether the rows can be sent as JSON: not if SQLAlchemy does not know the type of a column."""
    known = not any(isinstance(table.c[name].type, sa.types.NullType) for name in names)
    return known and connection.dialect.name == "postgresql"


def _alike(rows: Collection[_Row]) -> Iterable[tuple[tuple[str, ...], list[_Row]]]:
    """Groups rows by their columns."""
    found: dict[tuple[str, ...], list[_Row]] = {}
    for row in rows:
        found.setdefault(tuple(sorted(row)), []).append(row)
    return found.items()


@lru_cache(SHAPES)
def _insert(table: sa.Table, names: tuple[str, ...]) -> sa.Insert:
    return sa.insert(table).from_select(names, sa.select(*_given(table, names).c))


@lru_cache(SHAPES)
def _update(table: sa.Table, key: str, names: tuple[str, ...]) -> sa.Update:
    new = _given(table, names)
    values = {name: new.c[name] for name in names if name != key}
    return sa.update(table).where(table.c[key] == new.c[key]).values(values)


def _given(table: sa.Table, names: tuple[str, ...]) -> sa.TableValuedAlias:
    """The rows of the parameter `rows` as a table with these columns."""
    columns = [sa.column(name, _without_limits(table.c[name].type)) for name in names]
    rows = sa.func.json_to_recordset(sa.bindparam("rows", type_=sa.Text))
    return rows.table_valued(*columns, name="new").render_derived(with_types=True)


def _without_limits(type_: sa.types.TypeEngine[Any]) -> sa.types.TypeEngine[Any]:
    """The type without scale and length: somebody may have widened the column since we looked."""
    if isinstance(type_, sa.Numeric) and not isinstance(type_, sa.Float):
        return sa.Numeric()
    if isinstance(type_, sa.String) and not isinstance(type_, sa.Enum):
        return sa.Text()
    return sa.DateTime(type_.timezone) if isinstance(type_, sa.DateTime) else type_


def _json(table: sa.Table, names: Iterable[str], rows: list[_Row]) -> str:
    """Rows as JSON. Numbers for an integer column are rounded as the server would."""
    for name in names:
        if isinstance(table.c[name].type, sa.Integer) and any(isinstance(row[name], Decimal) for row in rows):
            rows = [{**row, name: _rounded(row[name])} for row in rows]
    return json.dumps(rows, default=str, ensure_ascii=False)


def _rounded(value: Any) -> Any:
    return int(value.to_integral_value(ROUND_HALF_UP)) if isinstance(value, Decimal) else value
