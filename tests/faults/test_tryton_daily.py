"""One order per buyer and day in a real Tryton: one sale has all lines, each with its order's number, and what comes
back refers to the line that was sold."""

from __future__ import annotations

from decimal import Decimal

from deploy.tryton.screen import Screen
from sink.documents.profile import load_profile
from sink.documents.refs import DocumentRef
from sink.erp.kinds import ErpRef
from sink.reconcile.sides import reconcile
from tests.daily_shop import DAY, PROFILE, of_day, open_daily_shop
from tests.erp_contract.tryton_target import TrytonTarget
from tests.faults.tryton_chain import worker
from tests.fix_erp import drain, held

SALE = ErpRef("order", f"shop/order/7:{DAY}/1")


def test_a_day_is_one_sale(tryton_place: TrytonTarget, tryton_clerk: Screen, database: str) -> None:
    erp = tryton_place.adapter(orders={"goal": "processing"})
    with open_daily_shop(database) as shop:
        shop.copied(f"{DAY}T23:00Z")
        shop.order(1)
        shop.order(2, pieces=3)
        shop.mark(DocumentRef("customer", "7"))
        shop.mark(of_day())
        drain(sink := worker(shop.middle, PROFILE, erp))
        (sale,) = tryton_clerk.rows("sale.sale", [["web_id", "=", SALE.external]], "sale_date", "reference", "lines")
        lines = tryton_clerk.rows("sale.line", [["id", "in", sale["lines"]]], "description", "quantity")
        sold = sorted((row["description"], row["quantity"]) for row in lines)
        assert sold == [("S1: Bolt", 2), ("S2: Bolt", 3), ("shipping", 1), ("shipping", 1)]
        assert (sale["sale_date"]["day"], sale["reference"]) == (15, f"D7-{DAY}")

        shop.comes_back(5, line=20)
        shop.mark(DocumentRef("return_order", "5"), DocumentRef("refund", "5"), unit=of_day())
        drain(sink)
        assert held(shop.middle) == []
        (moved,) = [one.returned for key, one in erp.observe([SALE])[SALE].moved.items() if key == "20"]
        assert [*moved.values()] == [Decimal(1)]

        shop.order(3)  # a latecomer, when the sale is in processing
        shop.mark(of_day())
        drain(sink)
        (reason,) = held(shop.middle)
        assert "Tryton cannot add lines to an order in processing" in reason
        shop.sql("UPDATE orders SET status = 'pending' WHERE id = 3")
        shop.mark(of_day())
        drain(sink)
        report = reconcile(shop.middle, None, "shop", load_profile(PROFILE), erp, False, compare_prices=False)
        assert report.agrees, report.findings
