"""Tryton's own sums by tax rate, and its units: what a sale's totals do not show."""

from __future__ import annotations

import random
from dataclasses import replace
from decimal import ROUND_HALF_EVEN, Decimal

import pytest

from deploy.tryton import provision
from deploy.tryton.screen import Screen
from deploy.tryton.server import Tryton
from sink.erp.contract import NotDone, Step, StopError
from sink.erp.kinds import ErpRecord, Milestone, Sums, Value
from tests.erp_contract.records import PRICE, REF, SALE, Sink, changed, create
from tests.erp_contract.tryton_data import TrytonData
from tests.erp_contract.tryton_target import TrytonTarget

D = Decimal
ORDER = REF["order"]
ALL_THE_WAY = {"goal": "processing"}
SKUS = {D(19): "A", D(7): "C", D(0): "D"}
BY_RATE = """
SELECT substring(tax.name from '(\\d+) %')::numeric, sum(base) FILTER (WHERE tax.type = 'percentage'),
       sum(invoiced.amount)
  FROM account_invoice_tax AS invoiced JOIN account_tax AS tax ON tax.id = invoiced.tax GROUP BY 1
"""
"""The taxes of all invoices; a cent of tax counts at the rate that it is for."""


@pytest.fixture
def admin(tryton: Tryton) -> Screen:
    return Screen(tryton.url, tryton.database, provision.ADMIN, provision.ADMIN_PASSWORD)


def line(rate: Decimal, quantity: Decimal, gross: Decimal) -> dict[str, Value]:
    """A line of a shop that rounds the tax of each line."""
    net = (gross / (1 + rate / 100)).quantize(D("0.01"), ROUND_HALF_EVEN)
    return {
        "kind": "item", "sku": SKUS[rate], "name": "x", "quantity": quantity, "unit_price": gross / quantity,
        "discount": D(0), "tax_rate": rate, "net": net, "tax": gross - net, "gross": gross,
    }  # fmt: skip


def sale(*lines: dict[str, Value]) -> ErpRecord:
    sums = {name: sum((D(str(one[name])) for one in lines), D(0)) for name in ("net", "tax", "gross")}
    rows = {str(number): one for number, one in enumerate(lines, 1)}
    return ErpRecord("order", {**SALE.fields, **sums}, {"line": rows, "charge": {}, "discount": {}})


def to_processing(record: ErpRecord) -> Step:
    return replace(create(record, ORDER), goal=Milestone.PROCESSING)


def test_the_draft_invoice_has_the_shops_taxes_by_rate(tryton_place: TrytonTarget, tryton_data: TrytonData) -> None:
    """A sale has no sums by rate. What we say of them is what Tryton calculates."""
    chance = random.Random(4711)
    lines = []
    for _ in range(40):
        quantity, rate = D(chance.randint(1, 9)), chance.choice(list(SKUS))
        lines.append(line(rate, quantity, quantity * D(chance.randint(1, 9_999)) / 100))
    wanted: dict[Decimal, list[Decimal]] = {}
    for one in lines:
        sums = wanted.setdefault(D(str(one["tax_rate"])), [D(0), D(0)])
        sums[0] += D(str(one["net"]))
        sums[1] += D(str(one["tax"]))
    sink = Sink(tryton_place.adapter(orders=ALL_THE_WAY))
    sink.seed("customer")
    seen = sink.done(to_processing(sale(*lines)))
    assert seen.milestone is Milestone.PROCESSING
    assert {rate: [net, tax] for rate, net, tax in tryton_data.run(BY_RATE)} == wanted
    assert seen.rates == {rate: Sums(net, tax, net + tax) for rate, (net, tax) in wanted.items()}


def test_taxes_that_are_rounded_by_document_stop_all(
    tryton_place: TrytonTarget, tryton_data: TrytonData, admin: Screen
) -> None:
    """Rounded like that, the taxes of this order are a cent higher at 19 % and a cent lower at 7 %, and its sums are
    the shop's."""
    at_19, at_7 = line(D(19), D(1), D("0.15")), line(D(7), D(1), D("0.09"))
    record = sale(at_19, at_19, at_7, at_7)
    erp = tryton_place.adapter(orders=ALL_THE_WAY)
    sink = Sink(erp)
    sink.seed("customer")
    admin("account.configuration", "write", [1], {"tax_rounding": "document"})
    try:
        with pytest.raises(StopError, match="rounds taxes by document"):
            erp.check()
        (result,) = sink.apply(to_processing(record))
        assert tryton_data.run("SELECT count(*) FROM sale_sale") == [(0,)]
    finally:
        admin("account.configuration", "write", [1], {"tax_rounding": "line"})
    assert isinstance(result, NotDone)
    assert isinstance(result.error, StopError), result.error
    sink.done(to_processing(record))
    assert sorted(tryton_data.run(BY_RATE)) == [(7, D("0.16"), D("0.02")), (19, D("0.26"), D("0.04"))]


def test_what_is_sold_by_the_bag_leaves_by_the_bag(
    tryton_place: TrytonTarget, tryton_data: TrytonData, admin: Screen
) -> None:
    """Three bags of 25 kg are 75 kg of stock, and the money is the shop's."""
    (kilo,) = admin.rows("product.uom", [["symbol", "=", "kg"]], "category")
    (taxed,) = admin.rows("product.category", [["name", "=", "19 %"]])
    bag = {"name": "Bag 25 kg", "symbol": "bag", "category": kilo["category"], "digits": 0, "rounding": 1.0}
    (unit,) = admin("product.uom", "create", [bag | {"factor": 25.0, "rate": 0.04}])
    units = {"default_uom": kilo["id"], "sale_uom": unit}
    flour = {"name": "Flour", "code": "BAG", "type": "goods", "salable": True, "account_category": taxed["id"]}
    cost = {"list_price": D(1), "cost_price_method": "fixed", "products": [["create", [{"cost_price": D(1)}]]]}
    admin("product.template", "create", [flour | units | cost])
    sink = Sink(tryton_place.adapter(orders=ALL_THE_WAY))
    sink.seed("customer")
    three = line(D(19), D(3), D("59.70")) | {"sku": "BAG"}
    sink.done(to_processing(sale(three)))
    moved = "SELECT DISTINCT quantity, internal_quantity FROM stock_move WHERE shipment IS NOT NULL"
    assert tryton_data.run(moved) == [(3.0, 75.0)]
    (held,) = sink.apply(create(changed(PRICE, sku="BAG"), REF["price"]))
    assert isinstance(held, NotDone)
    assert "the shop's price is for one Bag 25 kg" in held.error.message
