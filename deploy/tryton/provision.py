"""Fills a new Tryton with the data of a small company: accounts, taxes, items, users. What a web shop needs comes from
`sink init`.

Tryton's own Python runs it once, in the process of the server (proteus): `provision.py URL SETTINGS`.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

MODULES = (
    "sale", "account_invoice_stock", "product_price_list", "product_price_list_dates", "sale_price_list",
    "sale_discount", "web_shop", "sale_complaint", "sale_amendment",
)  # fmt: skip
# The server listens on this machine only.
ADMIN, ADMIN_PASSWORD = "admin", "admin-Pass-1"
API, API_PASSWORD = "ordertap", "Ordertap-Pass-1"
CLERK, CLERK_PASSWORD = "clerk", "Clerk-Pass-12"
SHOP = "Web"
PAYMENT_TERM = "Direct"
RATES = ("19", "7", "0")
ITEMS = {"A": "19", "B": "19", "C": "7", "D": "0"}  # and the rate of each
PRICE_LISTS = {"list": True, "net": False, "retail": True, "wholesale": False}  # whether their prices include tax
COUNTRIES = {
    "AT": "Austria", "BE": "Belgium", "CH": "Switzerland", "DE": "Germany", "DK": "Denmark", "ES": "Spain",
    "FR": "France", "GB": "United Kingdom", "IT": "Italy", "LU": "Luxembourg", "NL": "Netherlands", "PL": "Poland",
    "SE": "Sweden", "US": "United States",
}  # fmt: skip
API_GROUPS = (
    "sale.group_sale", "sale.group_sale_admin", "sale_amendment.group_sale_amendment", "product.group_product_admin",
    "account.group_account", "stock.group_stock",
)  # fmt: skip
PLENTY = 1_000_000.0


class Provision:
    """One database, through proteus."""

    def __init__(self, url: str, settings: str) -> None:
        from proteus import Model, config

        self._get = Model.get
        self._config = config.set_trytond(url, user=ADMIN, config_file=settings)

    def everything(self) -> None:
        """Makes everything, in the order in which one thing needs another."""
        for item in self.get("ir.module.config_wizard.item").find([("state", "!=", "done")]):
            item.state = "done"
            item.save()
        for code, name in COUNTRIES.items():
            self.get("country.country")(name=name, code=code).save()
        self._company()
        self._accounts()
        self._products()
        self._stock()
        self._users()

    def get(self, model: str) -> Any:
        """A model's class."""
        return self._get(model)

    def _company(self) -> None:
        from trytond.modules.company.tests.tools import create_company, get_company

        party = self.get("party.party")(name="Demo Shop Ltd")
        party.save()
        create_company(party, "EUR")
        self._owner = get_company()
        self._config._context = self.get("res.user").get_preferences(True, {})

    def _accounts(self) -> None:
        from trytond.modules.account.tests.tools import create_chart, create_fiscalyear, get_accounts
        from trytond.modules.account_invoice.tests.tools import set_fiscalyear_invoice_sequences

        create_chart(self._owner)
        self._account = get_accounts(self._owner)
        today = datetime.now(UTC).date()
        whole = (today.replace(month=1, day=1), today.replace(year=today.year + 1, month=12, day=31))
        year = set_fiscalyear_invoice_sequences(create_fiscalyear(self._owner, whole))
        year.save()
        year.click("create_period")
        configuration = self.get("account.configuration")(1)
        configuration.tax_rounding = "line"
        configuration.save()
        self._payment_method()
        self._sold_at = {rate: self._category(f"{rate} %", self._tax(rate)) for rate in RATES}

    def _payment_method(self) -> None:
        (journal, *_) = self.get("account.journal").find([("type", "=", "cash")])
        method = self.get("account.invoice.payment.method")(name="Cash", journal=journal)
        method.credit_account = method.debit_account = self._account["cash"]
        method.save()

    def _tax(self, rate: str) -> Any:
        """A tax with this rate in percent."""
        from trytond.modules.account.tests.tools import create_tax

        tax = create_tax(Decimal(rate) / 100, self._owner)
        tax.name = tax.description = f"VAT {rate} %"
        tax.save()
        return tax

    def _category(self, name: str, tax: Any) -> Any:
        """An accounting category, by which products have their taxes."""
        category = self.get("product.category")(name=name, accounting=True)
        category.account_expense, category.account_revenue = self._account["expense"], self._account["revenue"]
        category.customer_taxes.append(tax)
        category.save()
        return category

    def _products(self) -> None:
        (unit,) = self.get("product.uom").find([("name", "=", "Unit")])
        for code, rate in ITEMS.items():
            template = self.get("product.template")(name=code, code=code, type="goods", default_uom=unit, salable=True)
            template.list_price, template.account_category = Decimal(10), self._sold_at[rate]
            template.save()

    def _stock(self) -> None:
        (storage,) = self.get("stock.location").find([("code", "=", "STO")])
        inventory = self.get("stock.inventory")(location=storage)
        for product in self.get("product.product").find([("type", "=", "goods")]):
            inventory.lines.new(product=product, quantity=PLENTY, expected_quantity=0.0)
        inventory.click("confirm")

    def _users(self) -> None:
        group_id = self.get("ir.model.data").get_id
        needed = [group_id(name, self._config.context) for name in API_GROUPS]
        every = [group.id for group in self.get("res.group").find([])]
        for login, password, groups in ((API, API_PASSWORD, needed), (CLERK, CLERK_PASSWORD, every)):
            user = self.get("res.user")(name=login, login=login, password=password)
            user.save()
            for group in groups:
                user.groups.append(self.get("res.group")(group))
            user.companies.append(self.get("company.company")(self._owner.id))
            user.company = self._owner
            user.save()


if __name__ == "__main__":
    Provision(*sys.argv[1:]).everything()
