"""A shop's items in Tryton, each in the category of its tax rate.

If a line has another rate than its item, Tryton asks whoever posts the invoice.
"""

from __future__ import annotations

from collections.abc import Collection
from decimal import Decimal

from deploy.tryton.screen import Screen

Item = tuple[str, str, Decimal | int]
"""SKU, name, rate in percent."""


def make_items(admin: Screen, items: Collection[Item]) -> None:
    """Makes salable goods, in the categories of provision.py."""
    (unit,) = admin.rows("product.uom", [["name", "=", "Unit"]])
    categories = {row["name"]: row["id"] for row in admin.rows("product.category", [], "name")}
    common = {
        "type": "goods", "default_uom": unit["id"], "sale_uom": unit["id"], "salable": True, "list_price": Decimal(0),
        "cost_price_method": "fixed", "products": [["create", [{"cost_price": Decimal(0)}]]],
    }  # fmt: skip
    made = [
        common | {"code": sku, "name": name, "account_category": categories[f"{Decimal(rate).normalize():f} %"]}
        for sku, name, rate in items
    ]
    admin("product.template", "create", made)
