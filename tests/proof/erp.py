"""The reference ERP against the sample shop: one document for each, and the same money to the cent."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

import psycopg2

from tests.proof.rules import Finding

_SHOP = {
    "order": "SELECT number, net, tax, gross FROM orders WHERE status NOT IN ('pending', 'cancelled')",
    "cancelled order": "SELECT number FROM orders WHERE status = 'cancelled'",
    "return": "SELECT o.number || '/' || r.id, l.quantity FROM returns r JOIN orders o ON o.id = r.order_id "
    "JOIN LATERAL (SELECT sum(quantity) AS quantity FROM return_lines WHERE return_id = r.id) l ON true "
    "WHERE r.received_at IS NOT NULL",
    "refund": "SELECT o.number || '/' || r.id, r.shipping_refund + l.amount FROM returns r "
    "JOIN orders o ON o.id = r.order_id "
    "JOIN LATERAL (SELECT sum(refund_amount) AS amount FROM return_lines WHERE return_id = r.id) l ON true "
    "WHERE r.refunded_at IS NOT NULL",
    "price": "SELECT sku, price FROM products",
    "temporary price": "SELECT p.sku, t.price, t.valid_from AT TIME ZONE 'UTC' FROM product_prices t "
    "JOIN products p ON p.id = t.product_id",
}
_KEY = "split_part(shop_number, '-', 1) || '/' || regexp_replace(shop_number, '^.*[^0-9]', '')"
_ERP = {
    "order": "SELECT shop_number, net, tax, gross FROM orders WHERE status <> 'cancelled'",
    "cancelled order": "SELECT shop_number FROM orders WHERE status = 'cancelled'",
    "return": f"SELECT {_KEY}, l.quantity FROM returns r "
    "JOIN LATERAL (SELECT sum(quantity) AS quantity FROM return_lines WHERE return_id = r.id) l ON true",
    "refund": f"SELECT {_KEY}, gross FROM refunds",
    "price": "SELECT sku, amount FROM prices WHERE valid_from IS NULL",
    "temporary price": "SELECT sku, amount, valid_from FROM prices WHERE valid_from IS NOT NULL",
}


def check_erp(shop_dsn: str, erp_dsn: str) -> tuple[list[Finding], Decimal]:
    """Compares all documents; the second value is the difference of the money in orders, refunds and prices."""
    found: list[Finding] = []
    difference = Decimal(0)
    for kind, statement in _SHOP.items():
        shop, erp = _rows(shop_dsn, statement), _rows(erp_dsn, _ERP[kind])
        # Cancelled before the ERP has heard of it: it may stay away. A cancelled document keeps the figures it had.
        for row, missing in (shop - erp).items() if kind != "cancelled order" else ():
            found.append(Finding("lost", f"{kind} {row[0]}: not in the ERP as the shop has it ({missing})"))
        for row, more in (erp - shop).items():
            found.append(Finding("double", f"{kind} {row[0]}: in the ERP beyond what the shop has ({more})"))
        if kind in ("order", "refund", "price"):
            difference += abs(_money(shop) - _money(erp))
    return found, difference


def _rows(dsn: str, statement: str) -> Counter[tuple[Any, ...]]:
    connection = psycopg2.connect(dsn)
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return Counter(cursor.fetchall())  # Decimals that are equal hash alike, whatever their scale
    finally:
        connection.close()


def _money(rows: Counter[tuple[Any, ...]]) -> Decimal:
    """The sum of the last amount of each row."""
    amounts = [[value for value in row if isinstance(value, Decimal)][-1] * n for row, n in rows.items()]
    return sum(amounts, Decimal(0))
