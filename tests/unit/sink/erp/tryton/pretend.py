"""Tryton's master data and its arithmetic, without Tryton: what the pure halves of the adapter are tried on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, NamedTuple

D = Decimal
RATES: Mapping[Decimal, int] = {D(19): 1, D(7): 2, D(0): 3}
CENTS: Mapping[Decimal, int] = {rate: tax + 3 for rate, tax in RATES.items()}
CODES: list[str] = ["A", "B", "C"]
SHOP = 1


class Thing(NamedTuple):
    id: int
    unit: int = 1
    digits: int = 0


class Master:
    """Has every item and service that it is asked for."""

    web_shop = SHOP

    def item(self, sku: str) -> Thing:
        if sku not in CODES:
            CODES.append(sku)
        return Thing(CODES.index(sku) + 1)

    def service(self, kind: str, rate: Decimal) -> Thing:
        return self.item(f"{kind.upper()}-{rate.normalize():f}")

    def tax(self, rate: Decimal) -> int:
        return RATES[rate]

    def cent(self, rate: Decimal) -> int:
        return CENTS[rate]

    def rate_of(self, tax_ids: Collection[int]) -> Decimal | None:
        return next((rate for rate, tax in RATES.items() if [tax] == list(tax_ids)), None)

    def is_cent(self, tax_ids: Collection[int]) -> bool:
        return any([tax] == list(tax_ids) for tax in CENTS.values())

    def day(self, when: datetime) -> date:
        return when.astimezone(UTC).date()

    def midnight(self, day: date) -> datetime:
        return datetime(day.year, day.month, day.day, tzinfo=UTC)


def cents(value: Decimal) -> Decimal:
    return value.quantize(D("0.01"), ROUND_HALF_EVEN)


def lines_row(values: Sequence[Mapping[str, Any]], first: int = 1) -> list[dict[str, Any]]:
    """Lines as Tryton shows them after they were written."""
    return [line_row(line, number) for number, line in enumerate(values, first)]


def line_row(line: Mapping[str, Any], number: int) -> dict[str, Any]:
    quantity = D(str(line["quantity"]))
    code = CODES[line["product"] - 1]
    return {
        "moves.": [], "invoice_lines.": [], "actual_quantity": None, **line, "id": number, "_timestamp": "1",
        "product.": {"code": code, "type": "service" if "-" in code else "goods"}, "quantity": quantity,
        "amount": cents(quantity * line["unit_price"]), "description": line["description"].strip(),
    }  # fmt: skip


def sale_row(
    values: Mapping[str, Any], web_id: str, lines: Sequence[Mapping[str, Any]], state: str = "draft"
) -> dict[str, Any]:
    """A sale as Tryton shows it, with the sums that it makes."""
    net = sum((line["amount"] for line in lines), D(0))
    tax = sum((_tax(line) for line in lines), D(0))
    return {
        "id": 1, "web_shop": SHOP, "web_id": web_id, "number": None, "state": state, "invoice_state": "none",
        "shipment_state": "none", "party.": {"identifiers.": [{"code": "ordertap:shop/customer/1/1"}]},
        "currency.": {"code": "EUR", "digits": 2}, "untaxed_amount": net, "tax_amount": tax, "total_amount": net + tax,
        "origin": None, "_timestamp": "1", "invoices_ignored": [], "amendments.": [], "invoice_address.": None,
        "shipment_address.": None,
        **values, "lines.": list(lines),
    }  # fmt: skip


def _tax(line: Mapping[str, Any]) -> Decimal:
    master, amount = Master(), line["quantity"] * line["unit_price"]
    if master.is_cent(line["taxes"]):
        return cents(line["quantity"] * D("0.01"))
    rate = master.rate_of(line["taxes"])
    assert rate is not None
    return cents(amount * rate / 100)
