"""What the people in the shop do after the sale, through oscar's EventHandler, payment sources and stock records.

Import it after `connect`. Each function is a request to the dashboard, and one transaction.
"""

from decimal import Decimal

from django.db import transaction
from oscar.core.loading import get_class, get_model

EventHandler = get_class("order.processing", "EventHandler")
PaymentEventType = get_model("order", "PaymentEventType")
ShippingEventType = get_model("order", "ShippingEventType")
SourceType = get_model("payment", "SourceType")
StockRecord = get_model("partner", "StockRecord")

SHIPPED, RETURNED = "Shipped", "Returned"
SETTLED, REFUNDED = "Settled", "Refunded"


@transaction.atomic
def settle(order, means):
    """The money for an open order has come in."""
    reference = f"{order.number}-debit"
    source_type, _ = SourceType.objects.get_or_create(name=means)
    source = order.sources.create(source_type=source_type, currency=order.currency, reference=reference)
    source.allocate(order.total_incl_tax, reference)
    source.debit(order.total_incl_tax, reference)
    event_type, _ = PaymentEventType.objects.get_or_create(name=SETTLED)
    EventHandler().handle_payment_event(order, event_type, order.total_incl_tax, reference=reference)
    EventHandler().handle_order_status_change(order, "Paid")


@transaction.atomic
def ship(order):
    """Everything leaves the house."""
    desk = EventHandler()
    lines = list(order.lines.all())
    quantities = [line.quantity for line in lines]
    desk.consume_stock_allocations(order, lines, quantities)
    desk.handle_shipping_event(
        order, ShippingEventType.objects.get(name=SHIPPED), lines, quantities, reference=f"parcel {order.number}"
    )
    desk.handle_order_status_change(order, "Shipped")


@transaction.atomic
def take_back(order, returned, reason):
    """Goods come back: returned is [(line, quantity)]; no money moves."""
    lines, quantities = zip(*returned, strict=True)
    event_type = ShippingEventType.objects.get(name=RETURNED)
    return EventHandler().handle_shipping_event(order, event_type, lines, quantities, reference=reason)


def worth(order, returned):
    """What oscar counts for these lines: unit prices rounded to the cent, so not always the line's own price."""
    lines, quantities = zip(*returned, strict=True)
    event_type = PaymentEventType.objects.get(name=REFUNDED)
    return EventHandler().calculate_payment_event_subtotal(event_type, lines, quantities)


@transaction.atomic
def refund(order, amount, returned=(), shipping_event=None):
    """Money goes back, for lines [(line, quantity)] or for none; never more than was paid. Returns what went back.

    With the shipping event by which goods came back, the payment event is linked to it.
    """
    source = order.sources.select_for_update().first()
    amount = min(Decimal(amount), source.amount_available_for_refund)
    if amount <= 0:
        return Decimal(0)
    reference = f"{order.number}-refund-{order.payment_events.count()}"
    source.refund(amount, reference)
    lines, quantities = zip(*returned, strict=True) if returned else ((), ())
    event_type = PaymentEventType.objects.get(name=REFUNDED)
    event = EventHandler().handle_payment_event(
        order, event_type, amount, list(lines), list(quantities), reference=reference
    )
    if shipping_event:
        event.shipping_event = shipping_event
        event.save()
    return amount


@transaction.atomic
def cancel(order):
    """Nothing is delivered; what was paid goes back."""
    EventHandler().cancel_stock_allocations(order)
    EventHandler().handle_order_status_change(order, "Cancelled", note_msg="Cancelled on request")
    if order.sources.exists():
        refund(order, order.total_incl_tax, [(line, line.quantity) for line in order.lines.all()])


def correct_address(order, street):
    """The buyer has mistyped the street."""
    order.shipping_address.line1 = street
    order.shipping_address.save()


def reprice(sku, price):
    """A new net price for a SKU; returns the old one."""
    record = StockRecord.objects.get(partner_sku=sku)
    old, record.price = record.price, Decimal(price)
    record.save()
    return old
