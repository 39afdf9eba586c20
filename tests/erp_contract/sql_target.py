"""The reference ERP's database as a Target: PostgreSQL, MariaDB, or SQLite in a file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from sink.erp.contract import Erp
from sink.erp.kinds import BY_HAND, ErpRef, Kind, Milestone, Value
from sink.erp.sql.adapter import SqlErp
from sink.erp.sql.mapping import load_mapping
from tests.erp_contract.target import Can, Hook
from tests.fix_erp import ROOT

MARIADB = os.environ.get("ORDERTAP_TEST_MARIADB", "")
"""`mariadb+pymysql://root@127.0.0.1:3306`: a server on which databases may be made. Its driver is not a dependency of
ours, so the suite runs on MariaDB only if a server is named."""
MAPPING = ROOT / "deploy/erp/mapping.yaml"
TABLE: Mapping[Kind, str] = {
    "customer": "customers", "order": "orders", "return": "returns", "refund": "refunds", "price": "prices",
}  # fmt: skip
LINES: Mapping[Kind, tuple[str, str]] = {"order": ("order_lines", "order_id"), "return": ("return_lines", "return_id")}
NOW = "'2026-01-03 00:00:00.000000'"


class SqlClerk:
    """A clerk who writes to the ERP's tables, as its screens would."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Runs one statement; its values are `:v0`, `:v1`, …"""
        with self._engine.begin() as connection:
            result = connection.execute(sa.text(statement), {f"v{n}": value for n, value in enumerate(values)})
            return [tuple(row) for row in result] if result.returns_rows else []

    def edits(self, ref: ErpRef, field: str, value: Value, key: str | None = None) -> None:
        mapped = load_mapping(MAPPING).of(ref.kind)
        given = str(value) if isinstance(value, Decimal) else value
        if key is None:
            self.run(
                f"UPDATE {mapped.table} SET {mapped.fields[field]} = :v0 WHERE external_key = :v1", given, ref.external
            )
        else:
            assert mapped.lines is not None
            line = ref.child("line", key).external
            table, column = mapped.lines.table, mapped.lines.fields[field]
            self.run(f"UPDATE {table} SET {column} = :v0 WHERE external_key = :v1", given, line)

    def edits_own(self, ref: ErpRef) -> None:
        self.run(f"UPDATE {TABLE[ref.kind]} SET credit_limit = 500 WHERE external_key = :v0", ref.external)

    def adds_line(self, order: ErpRef) -> None:
        self.run(
            "INSERT INTO order_lines (order_id, kind, name, quantity, unit_price, discount, tax_rate, net, tax, gross)"
            " SELECT id, 'item', 'gift', 1, 0, 0, 19, 0, 0, 0 FROM orders WHERE external_key = :v0",
            order.external,
        )

    def drops_line(self, order: ErpRef, key: str) -> None:
        self.run("DELETE FROM order_lines WHERE external_key = :v0", order.child("line", key).external)

    def sets(self, ref: ErpRef, milestone: Milestone) -> None:
        state = milestone.value.replace(" ", "_")
        if ref.external.startswith(BY_HAND):
            self.run(f"UPDATE {TABLE[ref.kind]} SET status = :v0 WHERE id = :v1", state, ref.external[len(BY_HAND) :])
        else:
            self.run(f"UPDATE {TABLE[ref.kind]} SET status = :v0 WHERE external_key = :v1", state, ref.external)

    def sets_unknown(self, ref: ErpRef) -> None:
        self.run(f"UPDATE {TABLE[ref.kind]} SET status = 'limbo' WHERE external_key = :v0", ref.external)

    def deletes(self, ref: ErpRef) -> None:
        if ref.kind in LINES:
            table, parent = LINES[ref.kind]
            heads = f"SELECT id FROM {TABLE[ref.kind]} WHERE external_key = :v0"
            self.run(f"DELETE FROM {table} WHERE {parent} IN ({heads})", ref.external)
        self.run(f"DELETE FROM {TABLE[ref.kind]} WHERE external_key = :v0", ref.external)

    def takes_back(self, order: ErpRef, key: str, quantity: Decimal) -> None:
        self.run(
            "INSERT INTO returns (order_id, shop_number, returned_at, status)"
            f" SELECT id, 'by hand', {NOW}, 'confirmed' FROM orders WHERE external_key = :v0",
            order.external,
        )
        self.run(
            "INSERT INTO return_lines (return_id, order_line_id, quantity)"
            " SELECT (SELECT max(id) FROM returns), id, :v0 FROM order_lines WHERE external_key = :v1",
            str(quantity), order.child("line", key).external,
        )  # fmt: skip

    def gives_back(self, order: ErpRef, gross: Decimal) -> None:
        self.run(
            "INSERT INTO refunds (order_id, shop_number, currency, refunded_at, net, tax, gross, status)"
            f" SELECT id, 'by hand', 'EUR', {NOW}, :v0, 0, :v0, 'draft' FROM orders WHERE external_key = :v1",
            str(gross), order.external,
        )  # fmt: skip

    def forgets(self, ref: ErpRef) -> ErpRef:
        ((row_id,),) = self.run(f"SELECT id FROM {TABLE[ref.kind]} WHERE external_key = :v0", ref.external)
        if ref.kind in LINES:
            table, parent = LINES[ref.kind]
            self.run(f"UPDATE {table} SET external_key = NULL WHERE {parent} = :v0", row_id)
        self.run(f"UPDATE {TABLE[ref.kind]} SET external_key = NULL, revision = 0 WHERE id = :v0", row_id)
        return ErpRef(ref.kind, f"{BY_HAND}{row_id}")

    def types_in(self, number: str) -> None:
        self.run("INSERT INTO customers (account_number, name) VALUES (:v0, 'Phone')", number)


def edited(text: str, edits: Mapping[str, str]) -> str:
    """The text with some words replaced. Each must occur."""
    for old, new in edits.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


class SqlTarget:
    """An empty reference ERP in a database. edits: words of schema.sql → words in their place."""

    can = Can()

    def __init__(self, url: str, edits: Mapping[str, str] = {}) -> None:
        self.url = url
        address = sa.make_url(url)
        if address.drivername == "postgresql":
            address = address.set(drivername="postgresql+psycopg2")
        self._engine = sa.create_engine(address, poolclass=sa.NullPool)
        schema = edited((ROOT / "deploy/erp/schema.sql").read_text(), edits)
        if address.get_backend_name() == "sqlite":
            schema = schema.replace(" GENERATED BY DEFAULT AS IDENTITY", "")
        elif address.get_backend_name() != "postgresql":
            schema = schema.replace("GENERATED BY DEFAULT AS IDENTITY", "AUTO_INCREMENT").replace(
                "timestamp", "datetime(6)"
            )
        with self._engine.begin() as connection:
            for statement in schema.split(";\n"):
                if statement.strip():
                    connection.exec_driver_sql(statement)
        self.clerk = SqlClerk(self._engine)
        self.run = self.clerk.run
        self.run("INSERT INTO company VALUES ('erp-1', 'Works')")
        self.run("INSERT INTO items VALUES ('A', 'a'), ('B', 'b')")
        self._opened: list[SqlErp] = []

    def adapter(self, timeout: float = 20.0) -> Erp:
        self._opened.append(SqlErp(self.url, load_mapping(MAPPING), timeout))
        return self._opened[-1]

    def close(self) -> None:
        """Closes the adapters."""
        for adapter in self._opened:
            adapter.close()

    def content(self) -> dict[str, list[tuple[Any, ...]]]:
        tables = [*TABLE.values(), *(table for table, _ in LINES.values())]
        return {table: self.run(f"SELECT * FROM {table} ORDER BY id") for table in tables}

    @contextmanager
    def hooked(self, hook: Hook) -> Iterator[None]:
        def before(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
            if statement.startswith(("INSERT", "UPDATE", "DELETE")) or "COMMIT" in statement:
                hook("before")

        def after(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
            if statement.startswith(("INSERT", "UPDATE", "DELETE")) or "COMMIT" in statement:
                hook("after")

        sa.event.listen(sa.Engine, "before_cursor_execute", before)
        sa.event.listen(sa.Engine, "after_cursor_execute", after)
        try:
            yield
        finally:
            sa.event.remove(sa.Engine, "before_cursor_execute", before)
            sa.event.remove(sa.Engine, "after_cursor_execute", after)

    @contextmanager
    def blocked(self, ref: ErpRef) -> Iterator[None]:
        with self._engine.begin() as clerk:
            clerk.execute(
                sa.text(f"UPDATE {TABLE[ref.kind]} SET status = status WHERE external_key = '{ref.external}'")
            )
            yield

    @contextmanager
    def lacking(self) -> Iterator[str]:
        self.run("ALTER TABLE orders RENAME COLUMN net TO nett")
        yield "orders.net"
        self.run("ALTER TABLE orders RENAME COLUMN nett TO net")

    def copied(self) -> None:
        self.run("UPDATE company SET id = 'erp-2'")


def new_mariadb(server: str) -> str:
    """Makes a database on a server. Returns its address."""
    name = f"contract_{uuid4().hex[:12]}"
    engine = sa.create_engine(server, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} COLLATE utf8mb4_bin")
    return f"{server}/{name}"
