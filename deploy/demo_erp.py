"""The ERPs that the demo can run on: what is made of each, what the sink is told of it, and what it says itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import psycopg2

from deploy.embedded import PartError, Postgres
from deploy.tryton import provision
from deploy.tryton.environment import environment
from deploy.tryton.screen import Screen
from deploy.tryton.server import Tryton

DEPLOY = Path(__file__).parent
Items = Collection[tuple[str, str]]
"""SKU and name of all that the shop sells."""


class DemoErp(Protocol):
    """One ERP of a run."""

    def begin(self) -> None:
        """Starts what takes long, beside other things."""
        ...

    def ready(self, items: Items) -> None:
        """Returns when it can be used and has these items; PartError when it cannot."""
        ...

    def settings(self) -> dict[str, Any]:
        """`sink.erp` of the settings file."""
        ...

    def summary(self) -> str:
        """What it has, as it counts itself; "" where that is what the sink's own comparison reads."""
        ...

    def where(self) -> str:
        """How a person looks into it while it runs."""
        ...


class Reference:
    """The reference ERP: tables in a database."""

    def __init__(self, postgres: Postgres, folder: Path, stack: ExitStack, say: Callable[[str], None]) -> None:
        self._url = postgres.create_database("erp")

    def begin(self) -> None:
        """It is there at once."""

    def ready(self, items: Items) -> None:
        erp = psycopg2.connect(self._url)
        with erp, erp.cursor() as cursor:
            cursor.execute((DEPLOY / "erp" / "schema.sql").read_text("utf-8"))
            cursor.execute("INSERT INTO company (id, name) VALUES ('demo', 'Demo Ltd') ON CONFLICT DO NOTHING")
            cursor.executemany("INSERT INTO items (sku, name) VALUES (%s, %s)", list(items))
        erp.close()

    def settings(self) -> dict[str, Any]:
        return {"kind": "sql", "url": self._url, "mapping": str(DEPLOY / "erp" / "mapping.yaml")}

    def summary(self) -> str:
        return ""

    def where(self) -> str:
        return f"the ERP: psql {self._url}"


class RealTryton:
    """A Tryton 8.2, which buyers, taxes and stock are real in."""

    def __init__(self, postgres: Postgres, folder: Path, stack: ExitStack, say: Callable[[str], None]) -> None:
        self._server = Tryton(folder / "tryton", postgres, say)
        self._stack, self._say = stack, say
        self._failed: list[PartError] = []
        self._thread = threading.Thread(target=self._set_up, daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def _set_up(self) -> None:
        try:
            environment(self._say)
        except PartError as error:
            self._failed.append(error)

    def ready(self, items: Items) -> None:
        self._thread.join()
        if self._failed:
            raise self._failed[0]
        self._say("starting Tryton")
        self._stack.enter_context(self._server)
        admin = self._screen(provision.ADMIN, provision.ADMIN_PASSWORD)
        (unit,) = admin.rows("product.uom", [["name", "=", "Unit"]])
        (category,) = admin.rows("product.category", [["name", "=", "19 %"]])
        common = {
            "type": "goods", "default_uom": unit["id"], "sale_uom": unit["id"], "salable": True,
            "list_price": Decimal(0), "account_category": category["id"], "cost_price_method": "fixed",
        }  # fmt: skip
        made = [
            common | {"name": name, "code": sku, "products": [["create", [{"cost_price": Decimal(0)}]]]}
            for sku, name in items
        ]
        admin("product.template", "create", made)

    def settings(self) -> dict[str, Any]:
        days = "UTC"  # the sample shops' days are their database's
        return {**self._server.settings(), "orders": {"goal": "processing"}, "time_zone": days}

    def summary(self) -> str:
        screen = self._screen(self._server.clerk, self._server.clerk_password)
        ours = [["web_shop.name", "=", provision.SHOP], ["state", "!=", "cancelled"]]
        sales = screen.rows("sale.sale", ours, "total_amount", "origin", "invoices", "state")
        orders = [row for row in sales if row["origin"] is None]
        back = [row for row in sales if row["origin"] is not None]
        refunds = [row for row in back if row["total_amount"]]  # a return takes back goods, at no price
        invoices = screen.rows("account.invoice", [["state", "!=", "cancelled"]], "total_amount")
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
    return f"{sum((row['total_amount'] for row in rows), Decimal(0)):.2f} EUR in {len(rows)}"


ERPS: dict[str, Callable[[Postgres, Path, ExitStack, Callable[[str], None]], DemoErp]] = {
    "sql": Reference,
    "tryton": RealTryton,
}
