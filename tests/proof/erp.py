"""Compares the reference ERP with the sample shop: one document for each, and the same money to the cent.

An order that was cancelled before the ERP got it need not be there. If the ERP has it, it must be cancelled, with the
shop's last figures. An order that was cancelled unpaid must never have reached the ERP.
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

import psycopg2

from tests.proof.rules import Finding

_SHOP = {
    "order": "SELECT number, net, tax, gross FROM orders WHERE status NOT IN ('pending', 'cancelled')",
    "cancelled order": "SELECT number, net, tax, gross FROM orders o WHERE status = 'cancelled'"
    " AND EXISTS (SELECT FROM payments p WHERE p.order_id = o.id)",
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
    "cancelled order": "SELECT shop_number, net, tax, gross FROM orders WHERE status = 'cancelled'",
    "return": f"SELECT {_KEY}, l.quantity FROM returns r "
    "JOIN LATERAL (SELECT sum(quantity) AS quantity FROM return_lines WHERE return_id = r.id) l ON true",
    "refund": f"SELECT {_KEY}, gross FROM refunds",
    "price": "SELECT sku, amount FROM prices WHERE valid_from IS NULL",
    "temporary price": "SELECT sku, amount, valid_from FROM prices WHERE valid_from IS NOT NULL",
}


_MADE = """
SELECT DISTINCT number FROM {0}.document JOIN {0}.history USING (type, key)
 WHERE type = 'sales_order' AND event = 'create'
"""
_WRONG_SUMS = """
SELECT shop_number FROM orders o JOIN LATERAL (
    SELECT sum(net) AS net, sum(tax) AS tax, sum(gross) AS gross FROM order_lines l WHERE l.order_id = o.id) l ON true
 WHERE (o.net, o.tax, o.gross) IS DISTINCT FROM (l.net, l.tax, l.gross) OR o.net + o.tax <> o.gross
"""


def check_erp(shop_dsn: str, erp_dsn: str, middle_dsn: str, ledger: str) -> tuple[list[Finding], Decimal]:
    """Compares all documents. Returns the findings, and by how much orders, refunds and prices differ. `ledger`: the
    schema of the sink's documents and history."""
    made = {number for (number,) in _rows(middle_dsn, _MADE.format(ledger))}
    found: list[Finding] = []
    difference = Decimal(0)
    for kind, statement in _SHOP.items():
        shop, erp = _rows(shop_dsn, statement), _rows(erp_dsn, _ERP[kind])
        for row, missing in (shop - erp).items():
            if kind == "cancelled order" and row[0] not in made:
                continue
            found.append(Finding("lost", f"{kind} {row[0]}: not in the ERP as the shop has it ({missing})"))
        for row, more in (erp - shop).items():
            found.append(Finding("double", f"{kind} {row[0]}: in the ERP beyond what the shop has ({more})"))
        if kind in ("order", "refund", "price"):
            difference += abs(_money(shop) - _money(erp))
    found += [Finding("lost", f"order {number}: its lines do not add up") for (number,) in _rows(erp_dsn, _WRONG_SUMS)]
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
