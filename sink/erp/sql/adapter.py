"""An ERP that is reached through its own database: any that SQLAlchemy knows, its tables mapped in YAML."""

from __future__ import annotations

import time
from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy import exc

from sink.erp.contract import (
    Applied,
    Command,
    ConflictError,
    Figures,
    HoldError,
    Key,
    Observed,
    Probe,
    RetryError,
    StopError,
)
from sink.erp.kinds import KINDS, Kind
from sink.erp.sql import writes
from sink.erp.sql.connections import ErpDatabase
from sink.erp.sql.mapping import Mapped
from sink.erp.sql.reads import observed


class SqlErp:
    """The adapter. One transaction per command, ended by the database's own time limit."""

    def __init__(self, url: str, mapping: Mapped, timeout: float = 20.0, connections: int = 8) -> None:
        self._timeout = timeout
        self._database = ErpDatabase(url, mapping, timeout, connections)

    def close(self) -> None:
        """Gives all connections back."""
        self._database.close()

    def check(self) -> str:
        """Tables and columns of the mapping exist; gives the identity."""
        wrong = [column for kind in KINDS for column in self._missing(kind)]
        if wrong:
            raise StopError(f"the ERP has no {', '.join(wrong)}", "correct the mapping, or the rights of the ERP user")
        place = self._database.mapping.identity
        table = self._database.table(place.table)
        with self._database.connection() as connection:
            rows = connection.execute(sa.select(table.c[place.column]).limit(2)).scalars().all()
        if len(rows) != 1:
            raise StopError(
                f"{place.table} of the ERP has not exactly one row", "it must tell this ERP's data from others"
            )
        return str(rows[0])

    def probe(self, kind: Kind, verb: str, key: Key) -> Probe:
        """By the revision that is written with every command."""
        document, table = self._database.document(kind)
        query = sa.select(table.c[document.revision]).where(table.c[document.key] == key.external)
        with self._database.connection() as connection:
            revision = connection.execute(query).scalar_one_or_none()
        return Probe.DONE if revision is not None and int(revision) >= key.revision else Probe.NOT_DONE

    def observe(self, kind: Kind, external: str) -> Observed | None:
        """Head and lines in one transaction."""
        document, table = self._database.document(kind)
        with self._database.connection() as connection:
            found = observed(self._database, connection, kind, table.c[document.key] == external)
        return found.get(external)

    def unknown_items(self, skus: Collection[str]) -> set[str]:
        """SKUs without an item."""
        if not skus:
            return set()
        items = self._database.mapping.items
        column = self._database.table(items.table).c[items.sku]
        with self._database.connection() as connection:
            known = connection.execute(sa.select(column).where(column.in_(sorted(skus)))).scalars().all()
        return set(skus) - set(known)

    def apply(self, command: Command, key: Key) -> Applied:
        """One transaction; a constraint that refuses it leaves nothing behind."""
        kind = command.record.kind
        try:
            with self._database.connection(write=True) as connection, connection.begin():
                began = time.monotonic()
                act = writes.create if command.verb == "create" else writes.change
                done = act(self._database, connection, command, key)
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
        document, table = self._database.document(kind)
        key = table.c[document.key]
        with self._database.connection() as connection:
            foreign = connection.execute(
                sa.select(sa.func.count()).select_from(table).where(key.is_(None))
            ).scalar_one()
            ours = observed(self._database, connection, kind, key.startswith(prefix, autoescape=True))
            return Figures(ours, int(foreign))

    def _missing(self, kind: Kind) -> list[str]:
        """Columns that the mapping names and the ERP has not."""
        document = self._database.mapping.of(kind)
        wanted = {document.key, document.id, document.revision, document.reference, *document.fields.values()}
        wanted |= {document.status.column} if document.status else set()
        wrong = self._database.missing(document.table, wanted)
        if document.lines:
            lines = document.lines
            wrong += self._database.missing(lines.table, {lines.key, lines.id, lines.parent, *lines.fields.values()})
        return wrong
