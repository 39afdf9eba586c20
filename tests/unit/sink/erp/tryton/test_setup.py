"""What `sink init` goes on with where a call of it was lost."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from sink.erp.contract import RetryError
from sink.erp.tryton.setup import Maker

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
