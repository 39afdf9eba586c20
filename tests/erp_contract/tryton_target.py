"""A Tryton server as a Target. Its tables are reset for each test; the set-up is made once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx2
import psycopg2

from deploy.tryton import provision
from deploy.tryton.screen import Screen
from deploy.tryton.server import Tryton
from sink.erp.contract import Erp
from sink.erp.kinds import BY_HAND, ErpRef, Kind
from sink.erp.tryton.adapter import TrytonErp
from sink.erp.tryton.settings import TrytonSettings
from tests.erp_contract.target import Can, Hook, Moment
from tests.erp_contract.tryton_clerk import TrytonClerk
from tests.erp_contract.tryton_data import TrytonData

READS = frozenset({"read", "search", "search_read", "search_count", "get_preferences", "fields_get", "login", "logout"})
GROUP = "Sales Administrator"
NO_LINE = "Tryton cannot add lines to an order in processing: enter them by hand as a separate order, or cancel it"
NARROWS = {
    "a line more, processing": NO_LINE,
    "a charge more, processing": NO_LINE,
    "a charge more, and paid, processing": NO_LINE,
    "an order discount, processing": NO_LINE,
    "another tax rate, processing": "once an order is in processing, Tryton cannot change the tax of a line",
    "another day, processing": "once an order is in processing, Tryton cannot change the date, the buyer",
}


class TrytonTarget:
    """An empty Tryton: documents of other tests are deleted first."""

    can = Can(adopts=("customer",), at_once=False, narrows=NARROWS)

    def __init__(self, server: Tryton, data: TrytonData) -> None:
        data.clear()
        self._server, self._data = server, data
        screen = Screen(server.url, server.database, server.clerk, server.clerk_password)
        self._admin = Screen(server.url, server.database, provision.ADMIN, provision.ADMIN_PASSWORD)
        self.clerk = TrytonClerk(screen, self._find, self._forget, data.run)
        self._opened: list[Erp] = []
        self._copied = False

    def adapter(self, timeout: float = 50.0, **others: Any) -> Erp:
        """others: settings that replace the usual ones."""
        settings = {
            "kind": "tryton", "url": self._server.url, "database": self._server.database, "user": self._server.user,
            "password": self._server.password, "web_shop": provision.SHOP, "payment_term": provision.PAYMENT_TERM,
            "timeout_seconds": timeout, "settles_seconds": self._server.settles_within,
        }  # fmt: skip
        self._opened.append(TrytonErp(TrytonSettings.model_validate({**settings, **others})))
        return self._opened[-1]

    def close(self) -> None:
        """Closes the adapters."""
        for adapter in self._opened:
            adapter.close()
        if self._copied:
            self._moves_set_up("-1 day")

    def content(self) -> dict[str, list[str]]:
        return self._data.content()

    @contextmanager
    def hooked(self, hook: Hook) -> Iterator[None]:
        send = httpx2.Client.send

        def hooked(client: httpx2.Client, request: httpx2.Request, **options: Any) -> httpx2.Response:
            writes = _writes(request)
            _tell(hook, "before", writes)
            response = send(client, request, **options)
            _tell(hook, "after", writes)
            return response

        httpx2.Client.send = hooked  # type: ignore[method-assign,assignment]
        try:
            yield
        finally:
            httpx2.Client.send = send  # type: ignore[method-assign]

    @contextmanager
    def blocked(self, ref: ErpRef) -> Iterator[None]:
        with psycopg2.connect(self._server.postgres.dsn(self._server.database)) as other, other.cursor() as cursor:
            cursor.execute(f"SELECT FROM {TABLE[ref.kind]} WHERE id = %s FOR UPDATE", (self._find(ref),))
            yield
            time.sleep(self._server.settles_within)
        other.close()

    @contextmanager
    def lacking(self, name: str = GROUP) -> Iterator[str]:
        """The user is not in the group, nor in one that has its rights, too: that is below it."""
        (user,) = self._admin.rows("res.user", [["login", "=", self._server.user]], "groups")
        below = self._admin.rows("res.group", ["OR", ["name", "=", name], ["parent.name", "=", name]])
        groups = [row["id"] for row in below if row["id"] in user["groups"]]
        self._admin("res.user", "write", [user["id"]], {"groups": [["remove", groups]]})
        try:
            yield name
        finally:
            self._admin("res.user", "write", [user["id"]], {"groups": [["add", groups]]})

    def copied(self) -> None:
        """Changes the time at which its web shop was made."""
        self._moves_set_up("1 day")
        self._copied = True

    def _moves_set_up(self, by: str) -> None:
        self._data.run(f"UPDATE web_shop SET create_date = create_date + interval '{by}'")

    def _find(self, ref: ErpRef) -> int:
        if ref.external.startswith(BY_HAND):
            return int(ref.external.removeprefix(BY_HAND))
        ((found,),) = self._data.run(KEYS[ref.kind], ref.external)
        assert isinstance(found, int)
        return found

    def _forget(self, ref: ErpRef, number: int) -> ErpRef:
        if ref.kind == "customer":
            self._data.run("DELETE FROM party_identifier WHERE code LIKE 'ordertap:%%' AND party = %s", number)
        else:
            self._data.run("UPDATE sale_sale SET web_shop = NULL, web_id = NULL, comment = NULL WHERE id = %s", number)
            self._data.run("UPDATE sale_line SET note = NULL WHERE sale = %s", number)
        return ErpRef(ref.kind, f"{BY_HAND}{number}")


TABLE: Mapping[Kind, str] = {
    "customer": "party_party", "order": "sale_sale", "return": "sale_sale", "refund": "sale_sale",
    "price": "product_price_list_line",
}  # fmt: skip
_SALE = "SELECT id FROM sale_sale WHERE web_id = %s"
KEYS: Mapping[Kind, str] = {
    "customer": "SELECT party FROM party_identifier WHERE code = 'ordertap:' || %s",
    "order": _SALE, "return": _SALE, "refund": _SALE,
    "price": "SELECT id FROM product_price_list_line WHERE strpos(formula, '# ' || %s || '#') > 0",
}  # fmt: skip
"""The field that has our key, by kind."""


def _writes(request: httpx2.Request) -> bool:
    method = json.loads(request.read())["method"]
    return method.rpartition(".")[2] not in READS


def _tell(hook: Hook, moment: Moment, writes: bool) -> None:
    if writes:
        hook(moment)
