"""The ERP's database: its tables as they are now, and connections that raise our errors, never with values."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine.interfaces import ReflectedColumn

from schemas.model.errors import SettingsError
from sink.erp.contract import StopError
from sink.erp.kinds import Kind
from sink.erp.sql.errors import LateError, meaning, unfit
from sink.erp.sql.mapping import DocumentTable, Mapped
from sink.erp.sql.silence import Silence

_CLOCK: Final[Mapping[str, str]] = {
    "postgresql": "SELECT clock_timestamp()",
    "sqlite": "SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')",
}
_A_MOMENT: Final = 2.0  # seconds
_DIVISION_BY_ZERO: Final = "22012"
_ANY_CLOCK: Final = "SELECT UTC_TIMESTAMP(6)"


Columns = Mapping[str, ReflectedColumn]


def plain_type(column: ReflectedColumn) -> sa.types.TypeEngine[Any]:
    """A column's type; for a domain, its base type."""
    type_ = column["type"]
    return type_.data_type if isinstance(type_, postgresql.DOMAIN) else type_


class ErpDatabase:
    """The mapped tables. The database's own time limit ends a call, or ours if the database does not answer."""

    def __init__(self, url: str, mapping: Mapped, timeout: float, connections: int) -> None:
        self.mapping = mapping
        self._timeout = timeout
        self._tables: dict[str, sa.Table] = {}
        try:
            address = sa.make_url(url)
            if address.drivername == "postgresql":  # which driver that means differs between releases of SQLAlchemy
                address = address.set(drivername="postgresql+psycopg2")
            self._engine = sa.create_engine(
                address, pool_pre_ping=True, pool_size=connections, connect_args=limits(url, timeout)
            )
        except (exc.ArgumentError, exc.NoSuchModuleError, ImportError):
            raise SettingsError("erp.url is not a database URL that is known here", "write postgresql://…") from None
        self._silence = Silence(self._engine, timeout) if self.dialect == "postgresql" else None
        if self.dialect == "sqlite":
            sa.event.listen(self._engine, "connect", _own_transactions)
            sa.event.listen(self._engine, "begin", _begin)

    @property
    def dialect(self) -> str:
        """`postgresql`, `mariadb`, `mysql`, `sqlite`, …"""
        return self._engine.dialect.name

    @property
    def settles_within(self) -> float:
        """See `settles_within` below."""
        return settles_within(self.dialect, self._timeout)

    @property
    def version(self) -> str:
        """The server's version, once there was a connection."""
        return f"{self.dialect} {'.'.join(map(str, self._engine.dialect.server_version_info or ()))}"

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()
        if self._silence is not None:
            self._silence.close()

    @contextmanager
    def connection(self, write: bool = False) -> Iterator[sa.Connection]:
        """A connection. What goes wrong on it is raised as RetryError, HoldError or StopError. Reads see one moment (in
        SQLite always). Writes that were not given to `commit` are rolled back."""
        options: dict[str, Any] = {"ordertap_write": write}
        if not write and self.dialect in ("postgresql", "mysql", "mariadb"):
            options["isolation_level"] = "REPEATABLE READ"
        try:
            with self._engine.connect() as connection:
                yield connection.execution_options(**options)
        except exc.NoSuchTableError:
            raise
        except exc.SQLAlchemyError as error:
            raise meaning(error) from None
        except (ValueError, ArithmeticError) as error:
            raise unfit(error) from None

    def clock(self, connection: sa.Connection) -> datetime:
        """The server's time now, not at the start of the transaction."""
        found = connection.exec_driver_sql(_CLOCK.get(self.dialect, _ANY_CLOCK)).scalar_one()
        read = found if isinstance(found, datetime) else datetime.fromisoformat(str(found))
        return read if read.tzinfo else read.replace(tzinfo=UTC)

    def run_deferred(self, connection: sa.Connection) -> None:
        """Has the ERP's deferred constraints and triggers run now, after the last write. Inside COMMIT, a trigger could
        change what was already read back, or take longer than the time that is left."""
        if self.dialect == "postgresql":
            connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")

    def commit(self, connection: sa.Connection, not_after: datetime) -> None:
        """Commits, unless the deadline has passed by the server's clock: then LateError, and nothing was changed.

        If the server allows it, clock and COMMIT are one message: a process that freezes between the two would commit
        when another has long decided what to do. SQLite holds the only lock meanwhile; the others have
        `settles_within`. The driver does not know about this COMMIT, so the message ends with BEGIN, to give the driver
        the open transaction that it expects.
        """
        if self.dialect != "postgresql":
            if self.clock(connection) >= not_after:
                raise LateError("the time limit of this call has passed", "no action needed: it is planned again")
            connection.commit()
            return
        try:
            connection.exec_driver_sql("SELECT 1 / (clock_timestamp() < %s)::int; COMMIT; BEGIN", (not_after,))
        except exc.DataError as error:
            if getattr(error.orig, "pgcode", None) != _DIVISION_BY_ZERO:
                raise
            raise LateError("the time limit of this call has passed", "no action needed: it is planned again") from None
        connection.commit()

    def document(self, kind: Kind) -> tuple[DocumentTable, sa.Table]:
        """A kind's mapping, and its table."""
        document = self.mapping.of(kind)
        return document, self.table(document.table)

    def table(self, name: str) -> sa.Table:
        """A table as it was when first asked for."""
        if name not in self._tables:
            # Two threads may read it at once: all must use one object, else a query has the table in it twice.
            self._tables.setdefault(name, self._reflected(name))
        return self._tables[name]

    def quoted(self, table: str) -> str:
        """A table's name, quoted."""
        schema, _, plain = table.rpartition(".")
        return str(
            self._engine.dialect.identifier_preparer.format_table(sa.Table(plain, sa.MetaData(), schema=schema or None))
        )

    def described(self, tables: Collection[str]) -> dict[str, Columns]:
        """The columns that each table has now, by table and name; tables that do not exist are left out."""
        found: dict[str, Columns] = {}
        with self.connection() as connection:
            look = sa.inspect(connection)
            for name in tables:
                schema, _, plain = name.rpartition(".")
                try:
                    found[name] = {column["name"]: column for column in look.get_columns(plain, schema or None)}
                except exc.NoSuchTableError:
                    continue
        return found

    def leading_columns(self, table: str) -> tuple[set[str], set[str]]:
        """The columns that have an index of their own, and those that are unique by themselves."""
        schema, _, plain = table.rpartition(".")
        with self.connection() as connection:
            look = sa.inspect(connection)
            keys: list[Sequence[str | None]] = [look.get_pk_constraint(plain, schema or None)["constrained_columns"]]
            keys += [one["column_names"] for one in look.get_unique_constraints(plain, schema or None)]
            implied = {"include_auto_indexes": True} if self.dialect == "sqlite" else {}
            indexes = look.get_indexes(plain, schema or None, **implied)
        every = [*keys, *(one["column_names"] for one in indexes)]
        unique = [*keys, *(one["column_names"] for one in indexes if one["unique"])]
        return {one[0] for one in every if one and one[0]}, {one[0] for one in unique if len(one) == 1 and one[0]}

    def _reflected(self, name: str) -> sa.Table:
        """The table as it is in the ERP now, with its columns only: keys and indexes are the ERP's."""
        schema, _, plain = name.rpartition(".")
        try:
            with self.connection() as connection:
                found = sa.inspect(connection).get_columns(plain, schema or None)
        except exc.NoSuchTableError:
            raise StopError(f"the ERP has no table {name}", "correct the mapping, or the rights of its user") from None
        columns = [sa.Column(column["name"], plain_type(column)) for column in found]
        table = sa.Table(plain, sa.MetaData(), *columns, schema=schema or None)
        if self.dialect == "sqlite":
            for column in table.columns:
                if isinstance(column.type, sa.Numeric) and not isinstance(column.type, sa.Float):
                    column.type = _ExactDecimal(column.type.scale)
        return table


class _ExactDecimal(sa.types.TypeDecorator[Decimal]):
    """SQLite has no decimals: values are stored as text, and read with the column's scale if it has one."""

    impl = sa.String
    cache_ok = True

    def __init__(self, scale: int | None) -> None:
        super().__init__()
        self.scale = scale

    def process_bind_param(self, value: Decimal | None, dialect: sa.Dialect) -> str | None:
        return None if value is None else str(value)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Decimal | None:
        if value is None or self.scale is None:
            return None if value is None else Decimal(str(value))
        return Decimal(str(value)).quantize(Decimal(1).scaleb(-self.scale))


def settles_within(dialect: str, timeout: float) -> float:
    """Seconds in which a COMMIT may come after its deadline, because a process froze after it had looked at the clock:
    as long as the server lets a transaction stand idle (`limits`), and a moment for the COMMIT. 0.0 if clock and COMMIT
    are one message, or if nobody else can write meanwhile."""
    return 0.0 if dialect in ("postgresql", "sqlite") else max(1, int(timeout)) + _A_MOMENT


def limits(url: str, timeout: float) -> dict[str, Any]:
    """Options that make each driver and its server end a call by themselves, and an idle transaction too."""
    dialect = sa.make_url(url).get_backend_name()
    if dialect == "postgresql":
        limit = int(timeout * 1000)
        settings = f"-c statement_timeout={limit} -c idle_in_transaction_session_timeout={limit}"
        return {"connect_timeout": 10, "options": settings, "tcp_user_timeout": limit, "keepalives_idle": 10}
    if dialect in ("mysql", "mariadb"):
        seconds = max(1, int(timeout))
        idle = "idle_write_transaction_timeout" if dialect == "mariadb" else "wait_timeout"
        ends = {"init_command": f"SET SESSION {idle} = {seconds}"}
        return {"connect_timeout": 10, "read_timeout": seconds, "write_timeout": seconds} | ends
    return {"timeout": timeout}


def _own_transactions(connection: Any, _: Any) -> None:
    """SQLite: the driver would begin a transaction too late, and checks foreign keys only if asked."""
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(connection: sa.Connection) -> None:
    """SQLite: waits for another writer before reading, not after."""
    write = connection.get_execution_options().get("ordertap_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
