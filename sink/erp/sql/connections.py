"""The ERP's database: its tables as they are there now, and connections whose errors are ours, never with values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from schemas.errors import SettingsError
from sink.erp.contract import RetryError, StopError
from sink.erp.kinds import Kind
from sink.erp.sql.mapping import DocumentTable, Mapped


class ErpDatabase:
    """The tables of a mapping. A call is ended by the database's own time limit."""

    def __init__(self, url: str, mapping: Mapped, timeout: float, connections: int) -> None:
        self.mapping = mapping
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

    @contextmanager
    def connection(self, write: bool = False) -> Iterator[sa.Connection]:
        """A connection. Reads see one moment (in SQLite always)."""
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

    def document(self, kind: Kind) -> tuple[DocumentTable, sa.Table]:
        """How a kind is mapped, and its table."""
        document = self.mapping.of(kind)
        return document, self.table(document.table)

    def table(self, name: str) -> sa.Table:
        """A table as it was when it was first asked for."""
        if name not in self._tables:
            # Two threads may read it at once: all must use one object, else a query has the table in it twice.
            self._tables.setdefault(name, self._reflected(name))
        return self._tables[name]

    def missing(self, table: str, columns: set[str]) -> list[str]:
        """Those of the columns that the table does not have now."""
        known = self._reflected(table).c.keys()
        return [f"{table}.{column}" for column in sorted(columns - set(known))]

    def _reflected(self, name: str) -> sa.Table:
        """The table as it is in the ERP now: its columns, and nothing of keys and indexes, which are the ERP's."""
        schema, _, plain = name.rpartition(".")
        try:
            with self.connection() as connection:
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
