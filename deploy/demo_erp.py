"""The ERPs that the demo can run on: how each is started, its settings for the sink, and its own counts."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Collection
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import psycopg2

from deploy.embedded import Postgres
from deploy.tryton import provision
from deploy.tryton.items import make_items
from deploy.tryton.screen import Screen
from deploy.tryton.server import Tryton

DEPLOY = Path(__file__).parent
Items = Collection[tuple[str, str, Decimal]]
"""SKU, name and tax rate of all that the shop sells."""


class DemoErp(Protocol):
    """One ERP of a run."""

    def begin(self) -> None:
        """Starts what takes long, in the background."""
        ...

    def ready(self, items: Items) -> None:
        """Returns when it can be used and has these items. PartError if not."""
        ...

    def settings(self) -> dict[str, Any]:
        """`sink.erp` of the settings file."""
        ...

    def summary(self) -> str:
        """Its own count of what it has; "" if `sink reconcile` reads the same tables."""
        ...

    def where(self) -> str:
        """Tells a person how to look into it."""
        ...


class Reference:
    """The reference ERP: tables in a database."""

    def __init__(self, postgres: Postgres, folder: Path, stack: ExitStack, say: Callable[[str], None]) -> None:
        self._url = postgres.create_database("erp")
        self._psql = "psql" if shutil.which("psql") else postgres.bin / "psql"

    def begin(self) -> None:
        """It is there at once."""

    def ready(self, items: Items) -> None:
        erp = psycopg2.connect(self._url)
        with erp, erp.cursor() as cursor:
            cursor.execute((DEPLOY / "erp" / "schema.sql").read_text("utf-8"))
            cursor.execute("INSERT INTO company (id, name) VALUES ('demo', 'Demo Ltd') ON CONFLICT DO NOTHING")
            cursor.executemany("INSERT INTO items (sku, name) VALUES (%s, %s)", [item[:2] for item in items])
        erp.close()

    def settings(self) -> dict[str, Any]:
        return {"kind": "sql", "url": self._url, "mapping": str(DEPLOY / "erp" / "mapping.yaml")}

    def summary(self) -> str:
        return ""

    def where(self) -> str:
        return f"the ERP: {self._psql} {self._url}"


class RealTryton:
    """A real Tryton 8.2. A thread of its own sets it up beside all else, and lives as long as the server, which ends
    with the process that started it."""

    def __init__(self, postgres: Postgres, folder: Path, stack: ExitStack, say: Callable[[str], None]) -> None:
        self._server = Tryton(folder / "tryton", postgres, say)
        self._stack, self._say = stack, say
        self._failed: list[Exception] = []
        self._up, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._live, name="Tryton", daemon=True)

    def begin(self) -> None:
        self._thread.start()
        self._stack.callback(self._end)

    def _live(self) -> None:
        try:
            with self._server:
                self._say("Tryton is ready")
                self._up.set()
                self._over.wait()
        except Exception as error:  # noqa: BLE001  (`ready` raises it)
            self._failed.append(error)
        finally:
            self._up.set()

    def _end(self) -> None:
        """Where it is not there yet, it is not waited for: what is half made dies with this process. Says what failed
        since it was ready."""
        self._over.set()
        if self._up.is_set():
            self._thread.join()
        for error in self._failed:
            self._say(f"Tryton did not end as it should: {error}")

    def ready(self, items: Items) -> None:
        self._up.wait()
        if self._failed:
            raise self._failed.pop()
        make_items(self._screen(provision.ADMIN, provision.ADMIN_PASSWORD), items)

    def settings(self) -> dict[str, Any]:
        days = "UTC"  # days in the sample shops are those of their database
        return {**self._server.settings(), "orders": {"goal": "processing"}, "time_zone": days}

    def summary(self) -> str:
        screen = self._screen(self._server.clerk, self._server.clerk_password)
        ours = [["web_shop.name", "=", provision.SHOP], ["state", "!=", "cancelled"]]
        sales = screen.rows("sale.sale", ours, "total_amount", "origin", "invoices", "state")
        orders = [row for row in sales if row["origin"] is None]
        back = [row for row in sales if row["origin"] is not None]
        refunds = [row for row in back if row["total_amount"]]  # a return brings back goods, without a price
        invoices = screen.rows("account.invoice", [["state", "=", "draft"]], "total_amount")
        due, credit = ([row for row in invoices if (row["total_amount"] < 0) is negative] for negative in (False, True))
        prices = screen("product.price_list.line", "search_count", [])
        parties = screen("party.identifier", "search_count", [["code", "like", "ordertap:%"]])
        words = (
            "Tryton itself:",
            f"{_sum(orders)} orders, {len(back) - len(refunds)} returns, {_sum(refunds)} refunds,",
            f"{_sum(due)} draft invoices, {_sum(credit)} draft credit notes,",
            f"{parties} customers, {prices} prices",
        )
        return "\n  ".join(words)

    def where(self) -> str:
        return (
            f"Tryton runs at {self._server.url} until this ends: a Tryton client 8.2, database {self._server.database},"
            f" user {self._server.clerk}, password {self._server.clerk_password}"
        )

    def _screen(self, user: str, password: str) -> Screen:
        return Screen(self._server.url, self._server.database, user, password)


def _sum(rows: Collection[dict[str, Any]]) -> str:
    return f"{sum((row['total_amount'] for row in rows), Decimal(0)):,.2f} EUR in {len(rows)}"


ERPS: dict[str, Callable[[Postgres, Path, ExitStack, Callable[[str], None]], DemoErp]] = {
    "sql": Reference,
    "tryton": RealTryton,
}
