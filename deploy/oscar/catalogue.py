"""The shop's data before the first buyer: products, stock, offers, vouchers, countries, kinds of event. Import it after
`connect`.

Made with oscar's models and rules, in one transaction.
"""

from datetime import timedelta
from decimal import Decimal

from django.db import transaction
from django.utils import timezone
from oscar.core.loading import get_model

Country = get_model("address", "Country")
Product = get_model("catalogue", "Product")
ProductClass = get_model("catalogue", "ProductClass")
Partner = get_model("partner", "Partner")
StockRecord = get_model("partner", "StockRecord")
Range = get_model("offer", "Range")
Condition = get_model("offer", "Condition")
Benefit = get_model("offer", "Benefit")
ConditionalOffer = get_model("offer", "ConditionalOffer")
Voucher = get_model("voucher", "Voucher")
ShippingEventType = get_model("order", "ShippingEventType")
PaymentEventType = get_model("order", "PaymentEventType")

COUNTRIES = {"DE": "Germany", "AT": "Austria", "CH": "Switzerland"}
GOODS = {
    "Coffee": [("Espresso, 1 kg", "17.29"), ("Filter roast, 500 g", "8.41"), ("Decaf, 250 g", "6.07")],
    "Books": [("Roasting at home", "23.36"), ("The coffee atlas", "32.71"), ("A short history of tea", "11.21")],
    "Gear": [("Hand grinder", "75.63"), ("Gooseneck kettle", "41.97"), ("Paper filters, 100", "3.35"), ("Mug", "9.99")],
    "Courses": [("Latte art, online", "49.00")],
}
VOUCHERS = ("WELCOME10", "SPRING15")


@transaction.atomic
def stock_shop():
    """Fills an empty shop."""
    for code, name in COUNTRIES.items():
        Country.objects.create(iso_3166_1_a2=code, printable_name=name, name=name, is_shipping_country=True)
    for name in ("Shipped", "Returned"):
        ShippingEventType.objects.create(name=name)
    for name in ("Settled", "Refunded"):
        PaymentEventType.objects.create(name=name)
    partner = Partner.objects.create(name="Own warehouse")
    for class_name, goods in GOODS.items():
        _shelf(partner, class_name, goods)
    _offers()


def _shelf(partner, class_name, goods):
    downloads = class_name == "Courses"
    product_class = ProductClass.objects.create(
        name=class_name, requires_shipping=not downloads, track_stock=not downloads
    )
    for number, (title, price) in enumerate(goods, start=1):
        sku = f"{class_name[:3].upper()}-{number:03}"
        product = Product.objects.create(product_class=product_class, title=title, upc=sku, structure="standalone")
        StockRecord.objects.create(
            product=product, partner=partner, partner_sku=sku, price=Decimal(price), num_in_stock=1_000_000
        )


def _offers():
    everything = Range.objects.create(name="Everything", includes_all_products=True)
    books = _range("Books")
    coffee = _range("Coffee")
    _offer("Coffee week", (coffee, Condition.COUNT, 1), (coffee, Benefit.PERCENTAGE, "12.5"), priority=2)
    _offer("Three books for two", (books, Condition.COUNT, 3), (books, Benefit.MULTIBUY, None), priority=1)
    _offer("Free shipping", (everything, Condition.VALUE, 150), (None, Benefit.SHIPPING_PERCENTAGE, 100))
    welcome, spring = VOUCHERS
    _voucher(welcome, (everything, Condition.VALUE, 50), (everything, Benefit.FIXED, 10), Voucher.ONCE_PER_CUSTOMER)
    _voucher(spring, (everything, Condition.COUNT, 1), (everything, Benefit.PERCENTAGE, 15), Voucher.MULTI_USE)


def _range(class_name):
    found = Range.objects.create(name=class_name)
    for product in Product.objects.filter(product_class__name=class_name).order_by("id"):
        found.add_product(product)
    return found


def _offer(name, condition, benefit, kind=ConditionalOffer.SITE, priority=0):
    (condition_range, condition_type, threshold), (benefit_range, benefit_type, value) = condition, benefit
    return ConditionalOffer.objects.create(
        name=name,
        offer_type=kind,
        exclusive=False,
        priority=priority,
        condition=Condition.objects.create(range=condition_range, type=condition_type, value=threshold),
        benefit=Benefit.objects.create(range=benefit_range, type=benefit_type, value=value),
    )


def _voucher(code, condition, benefit, usage):
    now = timezone.now()
    voucher = Voucher.objects.create(
        name=code.title(), code=code, usage=usage,
        start_datetime=now - timedelta(days=1), end_datetime=now + timedelta(days=365),
    )  # fmt: skip
    voucher.offers.add(_offer(f"Voucher {code}", condition, benefit, ConditionalOffer.VOUCHER))
