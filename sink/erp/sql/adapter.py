"""An ERP that is reached through its own database: any that SQLAlchemy knows, its tables mapped in YAML."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import exc

from schemas.errors import SettingsError
from sink.erp.contract import (
    Command,
    ConflictError,
    Done,
    Fields,
    Figures,
    HoldError,
    Key,
    Kind,
    Milestone,
    Observed,
    Probe,
    Record,
    RetryError,
    StopError,
    Value,
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Place(_Strict):
    """One column of a table."""

    table: str
    column: str


class Items(_Strict):
    """The item master."""

    table: str
    sku: str


class Status(_Strict):
    """The column of a document's state, what a new one has, and what a cancelled one."""

    column: str
    new: str
    cancelled: str


class Lines(_Strict):
    """The table of a document's lines. `order_line`: the column that refers to the sold line (of a return)."""

    table: str
    parent: str
    fields: dict[str, str]
    key: str = "external_key"
    id: str = "id"
    order_line: str | None = None


class Document(_Strict):
    """The table of a kind of document. `order`: the column that refers to its order (of a return or refund)."""

    table: str
    fields: dict[str, str]
    reference: str
    key: str = "external_key"
    id: str = "id"
    revision: str = "revision"
    order: str | None = None
    status: Status | None = None
    milestones: dict[str, Milestone] = {}
    lines: Lines | None = None


class Mapped(BaseModel):
    """A whole mapping file."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    identity: Place
    items: Items
    customer: Document
    order: Document
    refund: Document
    price: Document
    return_: Document

    def of(self, kind: Kind) -> Document:
        """The table of a kind."""
        document: Document = getattr(self, "return_" if kind == "return" else kind)
        return document


def load_mapping(path: Path) -> Mapped:
    """Reads a mapping; SettingsError names the keys that are wrong."""
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
        if isinstance(content, dict) and "return" in content:
            content["return_"] = content.pop("return")
        return Mapped.model_validate(content)
    except OSError as error:
        raise SettingsError(f"mapping {path}: {error.strerror}", "set erp.mapping to the YAML file") from None
    except yaml.YAMLError:
        raise SettingsError(
            f"mapping {path} is not YAML", "correct it; deploy/erp/mapping.yaml is an example"
        ) from None
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors(include_input=False))
        raise SettingsError(f"mapping {path}: {wrong}", "deploy/erp/mapping.yaml is an example") from None


class _ExactDecimal(sa.types.TypeDecorator[Decimal]):
    """SQLite has no decimals: text in, and out what the column's scale says."""

    impl = sa.String
    cache_ok = True

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def process_bind_param(self, value: Decimal | None, dialect: sa.Dialect) -> str | None:
        return None if value is None else str(value)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Decimal | None:
        return None if value is None else Decimal(str(value)).quantize(Decimal(1).scaleb(-self.scale))


class SqlErp:
    """The adapter. One transaction per command, ended by the database's own time limit."""

    def __init__(self, url: str, mapping: Mapped, timeout: float = 20.0, connections: int = 8) -> None:
        self._mapping = mapping
        self._timeout = timeout
        self._tables: dict[str, sa.Table] = {}
        try:
            address = sa.make_url(url)
            if address.drivername == "postgresql":  # which driver that means differs between releases of SQLAlchemy
                address = address.set(drivername="postgresql+psycopg2")
            self._engine = sa.create_engine(
                address, pool_pre_ping=True, pool_size=connections, connect_args=_limits(url, timeout)
            )
        except (exc.ArgumentError, exc.NoSuchModuleError, ImportError):
            raise SettingsError("erp.url is not a database URL that is known here", "write postgresql://…") from None
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _own_transactions)
            sa.event.listen(self._engine, "begin", _begin)

    def close(self) -> None:
        """Gives all connections back."""
        self._engine.dispose()

    def check(self) -> str:
        """Tables and columns of the mapping exist; gives the identity."""
        wrong = []
        for kind in ("customer", "order", "return", "refund", "price"):
            document = self._mapping.of(kind)
            wanted = {document.key, document.id, document.revision, document.reference, *document.fields.values()}
            wanted |= {document.status.column} if document.status else set()
            wrong += self._missing(document.table, wanted)
            if document.lines:
                lines = document.lines
                wrong += self._missing(lines.table, {lines.key, lines.id, lines.parent, *lines.fields.values()})
        if wrong:
            raise StopError(f"the ERP has no {', '.join(wrong)}", "correct the mapping, or the rights of the ERP user")
        place = self._mapping.identity
        table = self._table(place.table)
        with self._connection() as connection:
            rows = connection.execute(sa.select(table.c[place.column]).limit(2)).scalars().all()
        if len(rows) != 1:
            raise StopError(
                f"{place.table} of the ERP has not exactly one row", "it must tell this ERP's data from others"
            )
        return str(rows[0])

    def probe(self, kind: Kind, verb: str, key: Key) -> Probe:
        """By the revision that is written with every command."""
        document, table = self._document(kind)
        query = sa.select(table.c[document.revision]).where(table.c[document.key] == key.external)
        with self._connection() as connection:
            revision = connection.execute(query).scalar_one_or_none()
        return Probe.DONE if revision is not None and int(revision) >= key.revision else Probe.NOT_DONE

    def observe(self, kind: Kind, external: str) -> Observed | None:
        """Head and lines in one transaction."""
        table = self._document(kind)[1]
        with self._connection() as connection:
            found = self._observed(connection, kind, table.c[self._mapping.of(kind).key] == external)
        return found.get(external)

    def unknown_items(self, skus: Collection[str]) -> set[str]:
        """SKUs without an item."""
        if not skus:
            return set()
        column = self._table(self._mapping.items.table).c[self._mapping.items.sku]
        with self._connection() as connection:
            known = connection.execute(sa.select(column).where(column.in_(sorted(skus)))).scalars().all()
        return set(skus) - set(known)

    def apply(self, command: Command, key: Key) -> Done:
        """One transaction; a constraint that refuses it leaves nothing behind."""
        kind = command.record.kind
        try:
            with self._connection(write=True) as connection, connection.begin():
                began = time.monotonic()
                act = self._create if command.verb == "create" else self._change
                done = act(connection, command, key)
                # The database limits each statement; many together, or a process that was frozen, end here.
                if time.monotonic() - began > self._timeout:
                    raise RetryError(f"the {kind} took longer than {self._timeout:g} s")
                return done
        except (exc.IntegrityError, exc.DataError) as error:
            if self.observe(kind, key.external) is not None and command.verb == "create":
                raise ConflictError(f"the {kind} was made meanwhile") from None
            name = getattr(getattr(error.orig, "diag", None), "constraint_name", None) or type(error).__name__
            raise HoldError(
                f"the ERP refused the {kind}: {name}",
                "mend it in the shop or the ERP, then `sink retry`",
                "master data",
            ) from None

    def figures(self, kind: Kind, prefix: str) -> Figures:
        """All documents of ours, and how many others there are."""
        document, table = self._document(kind)
        key = table.c[document.key]
        with self._connection() as connection:
            foreign = connection.execute(
                sa.select(sa.func.count()).select_from(table).where(key.is_(None))
            ).scalar_one()
            return Figures(self._observed(connection, kind, key.startswith(prefix, autoescape=True)), int(foreign))

    def _create(self, connection: sa.Connection, command: Command, key: Key) -> Done:
        record = command.record
        document, table = self._document(record.kind)
        values = _values(document.fields, record.fields, table)
        values |= {document.key: key.external, document.revision: key.revision}
        if document.status:
            values[document.status.column] = document.status.new
        if document.order:
            values[document.order] = self._order_id(connection, str(record.fields["order"]))
        connection.execute(sa.insert(table).values(values))
        query = sa.select(table.c[document.id], table.c[document.reference]).where(
            table.c[document.key] == key.external
        )
        row_id, reference = connection.execute(query).one()
        for line_key, fields in record.lines.items():
            self._insert_line(connection, record, key, row_id, line_key, fields)
        return Done(str(reference))

    def _change(self, connection: sa.Connection, command: Command, key: Key) -> Done:
        document, table = self._document(command.record.kind)
        columns = [table.c[document.id], table.c[document.reference], table.c[document.revision]]
        if document.status:
            columns.append(table.c[document.status.column])
        query = sa.select(*columns).where(table.c[document.key] == key.external).with_for_update()
        row = connection.execute(query).one_or_none()
        if row is None:
            raise HoldError("it is no longer in the ERP", "restore it there, then `sink retry`")
        if int(row[2]) >= key.revision:
            if int(row[2]) == key.revision:
                return Done(str(row[1]))
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
            self._change_lines(connection, command, key, row[0])
        connection.execute(sa.update(table).where(table.c[document.id] == row[0]).values(values))
        return Done(str(row[1]))

    def _change_lines(self, connection: sa.Connection, command: Command, key: Key, row_id: Any) -> None:
        lines = self._mapping.of(command.record.kind).lines
        if lines is None:
            return
        table = self._table(lines.table)
        for line_key in command.remove_lines:
            connection.execute(sa.delete(table).where(table.c[lines.key] == f"{key.external}/{line_key}"))
        for line_key, fields in command.set_lines.items():
            values = _values(lines.fields, fields, table)
            changed = sa.update(table).where(table.c[lines.key] == f"{key.external}/{line_key}")
            # A line whose only change is a field that is not mapped still has to exist.
            done = connection.execute(changed.values(values or {lines.key: f"{key.external}/{line_key}"}))
            if done.rowcount == 0:
                self._insert_line(connection, command.record, key, row_id, line_key, command.record.lines[line_key])

    def _insert_line(
        self, connection: sa.Connection, record: Record, key: Key, row_id: Any, line_key: str, fields: Fields
    ) -> None:
        lines = self._mapping.of(record.kind).lines
        if lines is None:
            return
        table = self._table(lines.table)
        values = _values(lines.fields, fields, table) | {lines.key: f"{key.external}/{line_key}", lines.parent: row_id}
        if lines.order_line:
            sold = self._mapping.order.lines
            assert sold is not None  # noqa: S101  a return refers to lines, so orders have them
            sold_table = self._table(sold.table)
            sold_key = f"{record.fields['order']}/{fields['order_line']}"
            query = sa.select(sold_table.c[sold.id]).where(sold_table.c[sold.key] == sold_key)
            values[lines.order_line] = connection.execute(query).scalar_one_or_none()
            if values[lines.order_line] is None:
                raise HoldError("a returned line is not on the ERP's order", "compare both orders, then `sink retry`")
        connection.execute(sa.insert(table).values(values))

    def _order_id(self, connection: sa.Connection, external: str) -> Any:
        document, table = self._document("order")
        found = connection.execute(sa.select(table.c[document.id]).where(table.c[document.key] == external)).scalar()
        if found is None:
            raise HoldError("its order is not in the ERP", "see what holds the order", "master data")
        return found

    def _observed(self, connection: sa.Connection, kind: Kind, which: sa.ColumnElement[bool]) -> dict[str, Observed]:
        document, table = self._document(kind)
        heads = connection.execute(sa.select(table).where(which)).mappings().all()
        lines = self._lines(connection, document, table, which) if document.lines else {}
        returned = self._returned(connection, which) if kind == "order" else {}
        refunded = self._refunded(connection, which) if kind == "order" else {}
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
                Record(kind, fields, own), milestone, str(head[document.reference]), int(head[document.revision]), back,
                refunded.get(row_id, {}),
            )  # fmt: skip
        return found

    def _lines(
        self, connection: sa.Connection, document: Document, heads: sa.Table, which: sa.ColumnElement[bool]
    ) -> dict[Any, dict[str, Fields]]:
        lines = document.lines
        assert lines is not None  # noqa: S101  asked for documents with lines only
        table = self._table(lines.table)
        joined = table.join(heads, table.c[lines.parent] == heads.c[document.id])
        found: dict[Any, dict[str, Fields]] = {}
        for row in connection.execute(sa.select(table).select_from(joined).where(which)).mappings():
            key = str(row[lines.key] or f"by hand {row[lines.id]}")
            found.setdefault(row[lines.parent], {})[key] = {n: _value(row[c]) for n, c in lines.fields.items()}
        return found

    def _returned(
        self, connection: sa.Connection, which: sa.ColumnElement[bool]
    ) -> dict[Any, dict[str, dict[str, Decimal]]]:
        """Per order and sold line: number of the return → quantity, those typed in by hand too."""
        document, heads = self._document("return")
        order, orders = self._document("order")
        lines, sold = document.lines, order.lines
        if lines is None or sold is None or document.order is None or lines.order_line is None:
            return {}
        table, sold_table = self._table(lines.table), self._table(sold.table)
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

    def _refunded(self, connection: sa.Connection, which: sa.ColumnElement[bool]) -> dict[Any, dict[str, Decimal]]:
        document, heads = self._document("refund")
        order, orders = self._document("order")
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

    def _document(self, kind: Kind) -> tuple[Document, sa.Table]:
        document = self._mapping.of(kind)
        return document, self._table(document.table)

    def _missing(self, table: str, columns: set[str]) -> list[str]:
        known = self._reflected(table).c.keys()
        return [f"{table}.{column}" for column in sorted(columns - set(known))]

    def _table(self, name: str) -> sa.Table:
        if name not in self._tables:
            # Two threads may read it at once: all must use one object, else a query has the table in it twice.
            self._tables.setdefault(name, self._reflected(name))
        return self._tables[name]

    def _reflected(self, name: str) -> sa.Table:
        """The table as it is in the ERP now: its columns, and nothing of keys and indexes, which are the ERP's."""
        schema, _, plain = name.rpartition(".")
        try:
            with self._connection() as connection:
                found = sa.inspect(connection).get_columns(plain, schema or None)
        except exc.NoSuchTableError:
            raise StopError(f"the ERP has no table {name}", "correct the mapping, or the rights of its user") from None
        columns = [sa.Column(column["name"], column["type"]) for column in found]
        table = sa.Table(plain, sa.MetaData(), *columns, schema=schema or None)
        if self._engine.dialect.name == "sqlite":
            for column in table.columns:
                if isinstance(column.type, sa.Numeric) and not isinstance(column.type, sa.Float):
                    column.type = _ExactDecimal(column.type.scale or 0)
        return table

    @contextmanager
    def _connection(self, write: bool = False) -> Iterator[sa.Connection]:
        """A connection; the driver's errors become ours, never with values. Reads see one moment (in SQLite always)."""
        options: dict[str, Any] = {"ordertap_write": write}
        if not write and self._engine.dialect.name in ("postgresql", "mysql", "mariadb"):
            options["isolation_level"] = "REPEATABLE READ"
        try:
            with self._engine.connect() as connection:
                yield connection.execution_options(**options)
        except (exc.IntegrityError, exc.DataError, exc.NoSuchTableError):
            raise
        except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError, exc.InternalError) as error:
            text = str(getattr(error, "orig", error))
            if any(word in text for word in ("authentication failed", "does not exist", "Access denied")):
                raise StopError("the ERP's database refuses us", "check user, password and name in erp.url") from None
            raise RetryError(f"the ERP's database: {_reason(error)}") from None
        except exc.ProgrammingError as error:
            raise StopError(f"the ERP's database: {type(error.orig).__name__}", "check mapping and rights") from None


def _reason(error: exc.SQLAlchemyError) -> str:
    """What the driver says of a connection that could not be made; a statement's error may show values."""
    if isinstance(error, exc.DBAPIError) and error.statement is None and str(error.orig).strip():
        return str(error.orig).strip().splitlines()[0]
    return type(error).__name__


def _limits(url: str, timeout: float) -> dict[str, Any]:
    """How each driver is told to end a call by itself."""
    dialect = sa.make_url(url).get_backend_name()
    if dialect == "postgresql":
        limit = int(timeout * 1000)
        settings = f"-c statement_timeout={limit} -c idle_in_transaction_session_timeout={limit}"
        return {"connect_timeout": 10, "options": settings}
    if dialect in ("mysql", "mariadb"):
        return {"connect_timeout": 10, "read_timeout": int(timeout), "write_timeout": int(timeout)}
    return {"timeout": timeout}


def _own_transactions(connection: Any, _: Any) -> None:
    """SQLite: the driver begins a transaction too late, and foreign keys are not looked at unless asked."""
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(connection: sa.Connection) -> None:
    """SQLite: who is going to write waits for the other writer before reading, not after."""
    write = connection.get_execution_options().get("ordertap_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _valid(document: Document, heads: sa.Table) -> sa.ColumnElement[bool]:
    """Cancelled documents count for nothing."""
    if document.status is None:
        return sa.true()
    void = [name for name, milestone in document.milestones.items() if milestone is Milestone.CANCELLED]
    return heads.c[document.status.column].not_in(void)


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


def _value(value: Any) -> Value:
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    result: Value = value
    return result
