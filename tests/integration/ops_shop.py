"""A shop as a careful DBA gives it to capture: with a role of its own and the least rights, made from what init
prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2

from capture.commands.findings import Finding
from capture.commands.preflight import check
from capture.plan import Plan, plan_of
from capture.settings import Settings
from deploy.embedded import Postgres
from schemas.process.settings import load
from tests.programs import write_settings

TABLES = """
    CREATE TABLE orders (id bigint PRIMARY KEY, note text);
    CREATE TABLE lines (order_id bigint, number int, sku text, PRIMARY KEY (order_id, number));
    CREATE TABLE other (id int PRIMARY KEY);
    INSERT INTO orders SELECT n, 'note ' || n FROM generate_series(1, 50) n
"""


@dataclass
class OpsShop:
    """A database with tables and nothing else, and the settings file of its capture."""

    server: Postgres
    database: str
    config: Path
    settings: dict[str, Any]
    role: str = field(init=False)

    def __post_init__(self) -> None:
        self.role = self.settings["database_user"]
        self.write({})

    def write(self, more: Mapping[str, Any]) -> None:
        """Writes the settings file with these changes."""
        self.settings.update(more)
        write_settings(self.config, capture=self.settings)

    def plan(self) -> Plan:
        """What the settings say."""
        return plan_of(load("capture", Settings, self.config, environ={}))

    def findings(self) -> dict[str, Finding]:
        """What check finds wrong, by its text."""
        return {finding.what: finding for finding in check(self.plan()) if finding.level != "ok"}

    def sql(self, *statements: str, user: str = "postgres") -> None:
        """Runs each statement in its own transaction."""
        connection = psycopg2.connect(self.server.dsn(self.database), user=user)
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        connection.close()

    def value(self, query: str) -> Any:
        """The first column of the first row."""
        connection = psycopg2.connect(self.server.dsn(self.database))
        with connection, connection.cursor() as cursor:
            cursor.execute(query)
            row = cursor.fetchone()
        connection.close()
        return row[0] if row else None
