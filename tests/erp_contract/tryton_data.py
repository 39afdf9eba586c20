"""Reads Tryton's database directly. The contract suite sets it up once for all of its tests."""

from __future__ import annotations

from typing import Any

import psycopg2

_TABLES = """
SELECT table_name FROM information_schema.columns WHERE table_schema = 'public' AND column_name = 'id'
   AND table_name IN (SELECT table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE')
   AND table_name NOT LIKE 'ir\\_%' AND table_name NOT LIKE 'res\\_%' AND table_name NOT LIKE '%\\_\\_history'
 ORDER BY table_name
"""
_IN_USE = " AND id IN (SELECT invoice_address FROM sale_sale UNION SELECT shipment_address FROM sale_sale)"


class TrytonData:
    """What has been added since the set-up."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg2.connect(url)
        self._connection.autocommit = True
        self._tables = [table for (table,) in self.run(_TABLES)]
        self._first = {table: self.run(f'SELECT coalesce(max(id), 0) FROM "{table}"')[0][0] for table in self._tables}

    def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Runs one statement with `%s` for its values."""
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return [tuple(row) for row in cursor.fetchall()] if cursor.description else []

    def clear(self) -> None:
        """Deletes all documents. All of them go, so it need not look at which refers to which."""
        deletes = [f'DELETE FROM "{table}" WHERE id > {first}' for table, first in self._first.items()]
        self.run("BEGIN; SET LOCAL session_replication_role = replica; " + "; ".join(deletes) + "; COMMIT")

    def content(self) -> dict[str, list[str]]:
        """All documents, without who touched them when. An address is made before its order and is used again, so
        addresses that no document has are left out."""
        touched = "ARRAY['create_date', 'create_uid', 'write_date', 'write_uid']"
        parts = [
            f"SELECT '{table}', id, (to_jsonb(t) - {touched})::text FROM \"{table}\" t WHERE id > {first}"
            f"{_IN_USE if table == 'party_address' else ''}"
            for table, first in self._first.items()
        ]
        found: dict[str, list[str]] = {}
        for table, _, row in sorted(self.run(" UNION ALL ".join(parts))):
            found.setdefault(table, []).append(row)
        return found

    def close(self) -> None:
        self._connection.close()
