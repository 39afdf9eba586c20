"""What staff do after the sale, through oscar's EventHandler, payment sources and stock records. Import it after
`connect`.

Each function is one request to the dashboard and one transaction.
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
    """The payment for an open order arrives."""
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
    """All goods of an order are shipped."""
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
    """Goods come back, without a refund. `returned`: [(line, quantity)]."""
    lines, quantities = zip(*returned, strict=True)
    event_type = ShippingEventType.objects.get(name=RETURNED)
    return EventHandler().handle_shipping_event(order, event_type, lines, quantities, reference=reason)


def worth(order, returned):
    """Oscar's amount for these lines: unit prices rounded to the cent, so not always the line's own price."""
    lines, quantities = zip(*returned, strict=True)
    event_type = PaymentEventType.objects.get(name=REFUNDED)
    return EventHandler().calculate_payment_event_subtotal(event_type, lines, quantities)


@transaction.atomic
def refund(order, amount, returned=(), shipping_event=None):
    """Refunds money, for lines [(line, quantity)] or none, but never more than was paid. Returns the amount.

    If goods came back, the payment event is linked to their shipping event.
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
    """Cancels an order that is not shipped, and refunds what was paid."""
    EventHandler().cancel_stock_allocations(order)
    EventHandler().handle_order_status_change(order, "Cancelled", note_msg="Cancelled on request")
    if order.sources.exists():
        refund(order, order.total_incl_tax, [(line, line.quantity) for line in order.lines.all()])


def correct_address(order, street):
    """Corrects the street of an order."""
    order.shipping_address.line1 = street
    order.shipping_address.save()


def reprice(sku, price):
    """Sets a new net price, and returns the old one."""
    record = StockRecord.objects.get(partner_sku=sku)
    old, record.price = record.price, Decimal(price)
    record.save()
    return old
