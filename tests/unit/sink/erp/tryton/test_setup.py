"""What `sink init` goes on with where a call of it was lost, and whose company it works in."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import closing
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from sink.erp.contract import LogIn, RetryError, Sells, StopError
from sink.erp.tryton.settings import TrytonSettings
from sink.erp.tryton.setup import Maker, TrytonSetup
from tests.unit.sink.erp.tryton.test_rpc import Answer, Server

TAX, BOXES, CENT = 1, [11, 12], 2


class Rpc:
    """Knows taxes and the boxes of the tax return. `lost`: a method of a model, and its first call does not arrive."""

    company = 4

    def __init__(self, lost: str = "") -> None:
        self.lost = lost
        self.taxes: list[int] = []
        self.boxes = {TAX: BOXES}
        self.made: list[str] = []

    def session(self) -> str:
        return "Session x"

    def call(self, _: str, method: str, *__: object) -> Any:
        return 1 if method == "get_id" else [{"default_category_account_revenue": 1}]

    def search(self, model: str, domain: Sequence[Any], *_: object) -> list[dict[str, Any]]:
        if model == "account.tax":
            return [{"id": one} for one in self.taxes]
        if model == "account.tax.code.line":
            return [{"id": one} for one in self.boxes.get({name: of for name, _, of in domain}["tax"], [])]
        return []

    def send(self, _: str, method: str, args: Sequence[Any], __: object) -> Any:
        if method == self.lost:
            self.lost = ""
            raise RetryError("away")
        self.made.append(method)
        if method == "model.account.tax.copy":
            self.taxes.append(CENT)
        if method == "model.account.tax.code.line.copy":
            self.boxes[args[1]["tax"]] = [one + 10 for one in args[0]]
        return [CENT]


def make(rpc: Rpc) -> None:
    known: Any = SimpleNamespace(settings=SimpleNamespace(web_shop="Web"))
    the_rpc: Any = rpc
    Maker(the_rpc, known).cent("CENT-19", Decimal(19), TAX)


def test_a_cent_of_tax_gets_the_boxes_that_were_lost_on_the_way() -> None:
    """Without them the tax return would miss each cent, and nothing else would show it."""
    rpc = Rpc("model.account.tax.code.line.copy")
    with pytest.raises(RetryError):
        make(rpc)
    assert (rpc.taxes, CENT in rpc.boxes) == ([CENT], False)
    make(rpc)
    assert (rpc.taxes, rpc.boxes[CENT]) == ([CENT], [21, 22])


def test_boxes_that_are_there_are_not_made_twice() -> None:
    rpc = Rpc("model.product.template.create")
    with pytest.raises(RetryError):
        make(rpc)
    make(rpc)
    assert rpc.made.count("model.account.tax.code.line.copy") == 1
    assert rpc.made.count("model.account.tax.copy") == 1


class TwoCompanies(Server):
    """The administrator's own company is 5; everybody else's is 4."""

    def answer(self, method: str, params: list[Any], session: str) -> Answer | None:
        user = base64.b64decode(session.partition(" ")[2]).decode().partition(":")[0]
        if method == "model.res.user.get_preferences" and user == "admin":
            return 200, {"result": {"company": 5, "companies": [4, 5]}}
        return super().answer(method, params, session)


@pytest.mark.parametrize(
    ("company", "other", "used"), [("", True, 4), ("", False, 4), ("Works 5", True, 5), ("Works 4", True, 4)]
)
def test_an_administrator_works_in_the_company_of_the_settings_user(company: str, other: bool, used: int) -> None:
    """Otherwise the web shop and its items would be made in the administrator's company, where orders find none."""
    with closing(TwoCompanies()) as server:
        server.script["model.web.shop.search_read"] = [(403, None)]
        settings = TrytonSettings.model_validate(
            {
                "kind": "tryton", "url": server.url, "database": "tryton", "user": "ordertap", "password": "secret",
                "company": company, "web_shop": "Web", "payment_term": "Direct",
            }
        )  # fmt: skip
        log_in = LogIn("admin", SecretStr("secret")) if other else None
        with closing(TrytonSetup(settings, Sells(), log_in)) as setup, pytest.raises(StopError):
            setup.lacks()
        (sent,) = [params for method, params in server.calls if method == "model.web.shop.search_read"]
        assert sent[-1]["company"] == used
