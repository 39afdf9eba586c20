"""Taxes, shipping, fees and vouchers of this shop, in the classes that oscar lets a shop override. Import it after
`connect`.

Oscar's own checkout places an order in one transaction, as with `ATOMIC_REQUESTS`.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.db import transaction
from oscar.core.loading import get_class, get_classes, get_model

OrderPlacementMixin = get_class("checkout.mixins", "OrderPlacementMixin")
OrderTotalCalculator = get_class("checkout.calculators", "OrderTotalCalculator")
SurchargeApplicator = get_class("checkout.applicator", "SurchargeApplicator")
FlatCharge = get_class("checkout.surcharges", "FlatCharge")
Applicator = get_class("offer.applicator", "Applicator")
EventHandler = get_class("order.processing", "EventHandler")
FixedPrice = get_class("shipping.methods", "FixedPrice")
Repository = get_class("shipping.repository", "Repository")
UseFirstStockRecord, StockRequired, FixedRateTax, Structured = get_classes(
    "partner.strategy", ["UseFirstStockRecord", "StockRequired", "FixedRateTax", "Structured"]
)
Basket = get_model("basket", "Basket")
Source = get_model("payment", "Source")
SourceType = get_model("payment", "SourceType")

STANDARD, REDUCED = "19", "7"  # this shop's tax codes are the rates in percent
REDUCED_CLASSES = ("Books", "Coffee")
SETTLED = "Settled"


def tax_code(product):
    """The tax code of a product, by its class."""
    return REDUCED if product.get_product_class().name in REDUCED_CLASSES else STANDARD


class TaxedPrices(UseFirstStockRecord, StockRequired, FixedRateTax, Structured):
    """Stock records have net prices. A unit's tax is rounded to the cent, and each line has its tax code."""

    exponent = Decimal("0.01")

    def get_rate(self, product, stockrecord):
        return Decimal(tax_code(product)) / 100

    def pricing_policy(self, product, stockrecord):
        price = super().pricing_policy(product, stockrecord)
        price.tax_code = tax_code(product)
        return price


class Delivery(FixedPrice):
    """Shipping at a fixed price, with its tax code."""

    def __init__(self, code, name, charge_excl_tax, charge_incl_tax):
        super().__init__(Decimal(charge_excl_tax), Decimal(charge_incl_tax))
        self.code, self.name = code, name

    def calculate(self, basket):
        charge = super().calculate(basket)
        charge.tax_code = STANDARD
        return charge


class Deliveries(Repository):
    methods = (Delivery("parcel", "Parcel", "4.12", "4.90"), Delivery("express", "Express", "8.32", "9.90"))


class CashOnDelivery(FlatCharge):
    """The carrier's fee for cash on delivery."""

    name = "Cash on delivery"
    code = "cash-on-delivery"

    def calculate(self, basket, **kwargs):
        charge = super().calculate(basket, **kwargs)
        charge.tax_code = STANDARD
        return charge


class Fees(SurchargeApplicator):
    def get_surcharges(self, basket, **kwargs):
        fee = CashOnDelivery(excl_tax=Decimal("2.52"), incl_tax=Decimal("3.00"))
        return (fee,) if self.context == "Cash on delivery" else ()


@dataclass(frozen=True)
class Purchase:
    """What a buyer has chosen. `user` None: a guest, whom the shop knows only by `email`."""

    user: Any
    email: str
    goods: list  # of (product, quantity)
    means: str
    prepaid: bool
    shipping_address: Any
    billing_address: Any = None
    voucher: Any = None
    express: bool = False


class Checkout(OrderPlacementMixin):
    """One buyer's checkout. `buy` is one request and one transaction."""

    @transaction.atomic
    def buy(self, purchase):
        """Places the order and returns it. A voucher that does not apply to the basket is left out."""
        basket = self._basket(purchase)
        user = purchase.user or AnonymousUser()
        Applicator().apply(basket, user)
        methods = Deliveries().get_shipping_methods(basket)
        method = methods[-1] if purchase.express else methods[0]
        charge = method.calculate(basket)
        fees = Fees(context=purchase.means).get_applicable_surcharges(basket)
        total = OrderTotalCalculator().calculate(basket, charge, fees)
        number = self.generate_order_number(basket)
        if purchase.prepaid:
            self._take_payment(number, total, purchase.means)
        order = self.place_order(
            number,
            user,
            basket,
            purchase.shipping_address if basket.is_shipping_required() else None,
            method,
            charge,
            total,
            billing_address=purchase.billing_address,
            surcharges=fees,
            **({} if purchase.user else {"guest_email": purchase.email}),
        )
        basket.submit()
        if purchase.prepaid:
            EventHandler().handle_order_status_change(order, "Paid")
        return order

    def _basket(self, purchase):
        basket = Basket.objects.create(owner=purchase.user)
        basket.strategy = TaxedPrices()
        for product, quantity in purchase.goods:
            basket.add_product(product, quantity)
        voucher = purchase.voucher
        if voucher and voucher.is_active() and self._earns(basket, purchase.user, voucher):
            basket.vouchers.add(voucher)
        return basket

    def _earns(self, basket, user, voucher):
        available, _ = voucher.is_available_to_user(user or AnonymousUser())
        return available and any(offer.is_condition_satisfied(basket) for offer in voucher.offers.all())

    def _take_payment(self, number, total, means):
        reference = f"{number}-debit"
        source_type, _ = SourceType.objects.get_or_create(name=means)
        source = Source(
            source_type=source_type,
            currency=total.currency,
            amount_allocated=total.incl_tax,
            amount_debited=total.incl_tax,
            reference=reference,
        )
        source.create_deferred_transaction("Debit", total.incl_tax, reference)
        self.add_payment_source(source)
        self.add_payment_event(SETTLED, total.incl_tax, reference)
