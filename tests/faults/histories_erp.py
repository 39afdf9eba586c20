"""The ERPs that histories can run on: how each is made, reached through a proxy, worked in by a clerk, and read."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Protocol

import psycopg2

from deploy.embedded import Postgres
from deploy.shop.catalogue import PRODUCTS
from deploy.tryton import provision
from deploy.tryton.items import make_items
from deploy.tryton.screen import Screen
from deploy.tryton.server import Tryton
from tests.faults import histories_read
from tests.faults.histories_clerk import HistoriesClerk, SqlClerk, TrytonDesk
from tests.faults.histories_http import HttpProxy
from tests.faults.histories_plan import Book
from tests.faults.histories_proof import Doc, Sums
from tests.faults.proxy import Proxy
from tests.programs import ROOT

_SQL_SECONDS: Final = 3.0
_TRYTON_SECONDS: Final = 20.0


class LosesAnswers(Protocol):
    """What every proxy can do."""

    lost: int

    def lose_answer(self) -> None: ...
    def calm(self) -> None: ...
    def close(self) -> None: ...


class HistoriesErp(Protocol):
    """An ERP that has the sample shop's items and no document. `lease`: seconds for which the work of a killed sink
    waits."""

    lease: float

    def proxy(self) -> LosesAnswers: ...
    def settings(self, proxy: Any) -> dict[str, Any]:
        """`erp` for a sink that reaches the ERP through this proxy, and the settings that go with it."""
        ...

    def clerk(self, book: Book) -> HistoriesClerk: ...
    def documents(self) -> list[Doc]: ...
    def sums(self) -> Sums | None:
        """The ERP's own sums by party, if it has any."""
        ...


class Reference:
    """The reference ERP, which is tables in a database."""

    lease = _SQL_SECONDS + 2

    def __init__(self, server: Postgres, prefix: str) -> None:
        self._server = server
        self._prefix = prefix
        self._dsn = server.create_database(f"{prefix}_erp")
        with closing(psycopg2.connect(self._dsn)) as connection, connection, connection.cursor() as cursor:
            cursor.execute((ROOT / "deploy/erp/schema.sql").read_text("utf-8"))
            cursor.execute("INSERT INTO company VALUES (%s, 'The factory')", (prefix,))
            cursor.executemany("INSERT INTO items VALUES (%s, %s)", [(sku, sku) for sku in _skus()])

    def proxy(self) -> Proxy:
        return Proxy(self._server.port)

    def settings(self, proxy: Proxy) -> dict[str, Any]:
        mapping = str(ROOT / "deploy/erp/mapping.yaml")
        url = proxy.url(self._dsn)
        return {
            "erp": {"kind": "sql", "url": url, "mapping": mapping, "timeout_seconds": _SQL_SECONDS},
            "lease_seconds": self.lease,
        }

    def clerk(self, book: Book) -> SqlClerk:
        return SqlClerk(self._dsn, self._prefix, book)

    def documents(self) -> list[Doc]:
        return histories_read.of_sql(self._dsn)

    def sums(self) -> None:
        return None


class RealTryton:
    """A running Tryton. Orders go as far as processing, so that it makes shipments and draft invoices."""

    def __init__(self, server: Tryton, prefix: str) -> None:
        self.lease = _TRYTON_SECONDS + 2 + server.settles_within
        self._server = server
        self._prefix = prefix
        admin = Screen(server.url, server.database, provision.ADMIN, provision.ADMIN_PASSWORD)
        there = {row["code"] for row in admin.rows("product.product", [], "code")}
        if missing := [one for one in zip(_skus(), PRODUCTS, strict=True) if one[0] not in there]:
            make_items(admin, [(sku, name, rate) for sku, (name, _, rate) in missing])
        self._screen = Screen(server.url, server.database, server.clerk, server.clerk_password)

    def proxy(self) -> HttpProxy:
        return HttpProxy(self._server.port)

    def settings(self, proxy: HttpProxy) -> dict[str, Any]:
        server = self._server
        erp = {
            "kind": "tryton", "url": proxy.url, "database": server.database, "user": server.user,
            "password": server.password, "web_shop": provision.SHOP, "payment_term": provision.PAYMENT_TERM,
            "settles_seconds": server.settles_within, "timeout_seconds": _TRYTON_SECONDS,
            "orders": {"goal": "processing"}, "time_zone": "UTC",
        }  # fmt: skip
        return {"erp": erp, "lease_seconds": _TRYTON_SECONDS + 2, "batch": 10}

    def clerk(self, book: Book) -> TrytonDesk:
        return TrytonDesk(self._screen, self._prefix, book)

    def documents(self) -> list[Doc]:
        return histories_read.OfTryton(self._screen, self._prefix).documents()

    def sums(self) -> Sums:
        return histories_read.OfTryton(self._screen, self._prefix).sums()


def tryton_of(folder: Path, server: Postgres) -> Tryton:
    """A Tryton server of its own, not started yet."""
    return Tryton(folder / "tryton", server)


def _skus() -> Sequence[str]:
    """The sample shop's SKUs."""
    return [f"P-{number:04}" for number in range(1, len(PRODUCTS) + 1)]
