"""A clerk in the ERP, beside the sink: edits, delivers, invoices and gives money back by hand, by an order's key.

An act returns False if it cannot be done yet: the order is not there, or the sink is just changing it. What an edited
order comes to is noted in the book. The act `sees` only waits until the order is in the ERP.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final, Protocol

import psycopg2

from deploy.tryton.screen import RefusedError, Screen
from sink.erp.kinds import ErpRef, Milestone
from tests.erp_contract.tryton_clerk import TrytonClerk
from tests.faults.histories_plan import Book

_GIVEN: Final = Decimal("1.00")
_TRIES: Final = 10


class HistoriesClerk(Protocol):
    """The clerk of one ERP."""

    def does(self, name: str, order: int) -> bool:
        """Whether the act is done, or there is nothing left to do."""
        ...

    def close(self) -> None: ...


class SqlClerk:
    """A clerk who writes to the reference ERP's tables."""

    def __init__(self, dsn: str, prefix: str, book: Book) -> None:
        self._connection = psycopg2.connect(dsn)
        self._prefix = prefix
        self._book = book

    def close(self) -> None:
        self._connection.close()

    def does(self, name: str, order: int) -> bool:
        with self._connection as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT id, status FROM orders WHERE external_key LIKE %s FOR UPDATE",
                (f"{self._prefix}/order/{order}/%",),
            )
            found = cursor.fetchone()
            if found is None or found[1] == "cancelled" or name == "sees":
                return found is not None
            getattr(self, f"_{name}")(cursor, order, found[0])
            self._book.note(order, name)
            return True

    def _edits(self, cursor: Any, order: int, id_: int) -> None:
        """One piece more of the first line, at a price that comes to whole amounts."""
        cursor.execute(
            "UPDATE order_lines SET quantity = quantity + 1, net = net + 10, tax = tax + 1, gross = gross + 11"
            " WHERE id = (SELECT min(id) FROM order_lines WHERE order_id = %s AND kind = 'item')",
            (id_,),
        )
        cursor.execute(
            "UPDATE orders SET net = net + 10, tax = tax + 1, gross = gross + 11 WHERE id = %s RETURNING net, tax",
            (id_,),
        )
        self._book.note(order, "edits", cursor.fetchone())

    def _delivers(self, cursor: Any, order: int, id_: int) -> None:
        cursor.execute("UPDATE orders SET status = 'delivered' WHERE id = %s AND status = 'confirmed'", (id_,))

    def _invoices(self, cursor: Any, order: int, id_: int) -> None:
        cursor.execute("UPDATE orders SET status = 'invoiced' WHERE id = %s", (id_,))

    def _credits(self, cursor: Any, order: int, id_: int) -> None:
        cursor.execute(
            "INSERT INTO refunds (order_id, shop_number, currency, refunded_at, net, tax, gross, status)"
            " VALUES (%s, 'by hand', 'EUR', now(), %s, 0, %s, 'draft')",
            (id_, _GIVEN, _GIVEN),
        )


class TrytonDesk:
    """A clerk at Tryton's screens. Tryton refuses what the sink is just changing; the clerk tries again."""

    def __init__(self, screen: Screen, prefix: str, book: Book) -> None:
        self._screen = screen
        self._prefix = prefix
        self._book = book
        self._refused: dict[int, int] = {}
        self._clerk = TrytonClerk(screen, lambda ref: int(ref.external), _never, _never)

    def close(self) -> None:
        """Nothing is open."""

    def does(self, name: str, order: int) -> bool:
        key = [["web_id", "like", f"{self._prefix}/order/{order}/%"]]
        rows = self._screen.rows("sale.sale", key, "state", "shipments", "invoices", "shipment_state", "lines")
        if not rows or rows[0]["state"] in ("draft", "quotation", "confirmed"):
            return False
        (sale,) = rows
        if sale["state"] != "processing" or name == "sees":
            return True  # else it was cancelled
        try:
            done = bool(getattr(self, f"_{name}")(order, sale))
        except RefusedError:
            self._refused[order] = self._refused.get(order, 0) + 1
            done = self._refused[order] >= _TRIES  # half of it may be done
            if not done:
                return False
        if done:
            self._book.note(order, name)
        return True

    def _edits(self, order: int, sale: dict[str, Any]) -> bool:
        """One piece more of a line, by Tryton's own amendment."""
        lines = self._screen.rows(
            "sale.line", [["id", "in", sale["lines"]], ["product.type", "=", "goods"], ["quantity", ">", 0]],
            "product", "unit", "quantity", "unit_price", "description",
        )  # fmt: skip
        if not lines:
            return False
        names = ("product", "unit", "unit_price", "description")
        line = {name: lines[0][name] for name in names} | {"quantity": lines[0]["quantity"] + 1.0}
        slip = {"sale": sale["id"], "lines": [["create", [{"action": "line", "line": lines[0]["id"], **line}]]]}
        (made,) = self._screen("sale.amendment", "create", [slip])
        try:
            self._screen("sale.amendment", "validate_amendment", [made])
        except RefusedError:
            self._screen("sale.amendment", "delete", [made])
            raise
        row = self._screen.row("sale.sale", sale["id"], "untaxed_amount", "tax_amount")
        self._book.note(order, "edits", (row["untaxed_amount"], row["tax_amount"]))
        return True

    def _delivers(self, _: int, sale: dict[str, Any]) -> bool:
        if not sale["shipments"] or sale["shipment_state"] == "sent":
            return False
        self._clerk.sets(ErpRef("order", str(sale["id"])), Milestone.DELIVERED)
        return True

    def _invoices(self, _: int, sale: dict[str, Any]) -> bool:
        states = self._screen.rows("account.invoice", [["id", "in", sale["invoices"]]], "state")
        if not states or any(one["state"] != "draft" for one in states):
            return False
        self._clerk.sets(ErpRef("order", str(sale["id"])), Milestone.INVOICED)
        return True

    def _credits(self, order: int, sale: dict[str, Any]) -> bool:
        self._clerk.gives_back(ErpRef("order", str(sale["id"])), _GIVEN)
        self._book.gave(order, _GIVEN)
        return True


def _never(*_: Any) -> Any:
    raise AssertionError("not at this desk")
