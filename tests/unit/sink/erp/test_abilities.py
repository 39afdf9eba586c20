"""How many steps an ERP takes in one call."""

from __future__ import annotations

from sink.erp.contract import Abilities


def test_prices_may_be_more_than_other_documents() -> None:
    plain, prices = Abilities({"create": 40}), Abilities({"create": 40, "amend": 20}, prices=100)
    assert [plain.most(kind, "create") for kind in ("order", "price")] == [40, 40]
    assert [prices.most(kind, "amend") for kind in ("order", "price")] == [20, 100]
    assert prices.most("order", "cancel") == 1, "what an ERP does not name goes by itself"
