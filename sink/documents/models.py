"""The canonical documents: what a business person would print, whatever the shop and whatever the ERP.

Pure data. Amounts are `Decimal` in the document's currency, never float. For each row with `net`, `tax` and `gross`,
net + tax = gross. Quantities and amounts of a return or refund are positive. A `key` is the shop's primary key as text
(several columns joined by `:`); it identifies the document for ever, or one row among those of its kind in a document,
and a `number` is what people read.
"""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeVar, get_args

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field


def _in_the_calendar(value: datetime) -> datetime:
    """Refuses times outside the years 1 to 9999 of UTC. ERPs keep UTC, where Python's first and last hours do not
    exist."""
    try:
        if value.tzinfo is not None:
            value.astimezone(UTC)
    except OverflowError:
        raise ValueError("it is not in the years 1 to 9999 of UTC") from None
    return value


Key = Annotated[str, BeforeValidator(str), Field(min_length=1)]
Amount = Annotated[Decimal, Field(allow_inf_nan=False)]
Moment = Annotated[datetime, AfterValidator(_in_the_calendar)]  # without a zone it is UTC
Instant = Annotated[AwareDatetime, AfterValidator(_in_the_calendar)]
Positive = Annotated[Decimal, Field(gt=0, allow_inf_nan=False)]


class Part(BaseModel):
    """A part of a document. It refuses unknown columns: a misspelt column would lose data silently."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Keyed(Part):
    """A part that its key tells apart from its siblings."""

    key: Key


_Row = TypeVar("_Row", bound=Keyed)


def _told_apart(rows: tuple[_Row, ...]) -> tuple[_Row, ...]:
    """Refuses two rows with one key: the ERP would get only one of them. The cause is a join that finds a row twice, or
    half a key."""
    seen: set[str] = set()
    for row in rows:
        if row.key in seen:
            raise ValueError(f"two of them have the key {row.key}")
        seen.add(row.key)
    return rows


Rows = Annotated[tuple[_Row, ...], AfterValidator(_told_apart)]


class Address(Part):
    key: Key | None = None
    kind: Literal["billing", "shipping"]
    name: str = ""
    company: str = ""
    street: str = ""
    postcode: str = ""
    city: str = ""
    country: str = ""  # ISO 3166-1 alpha-2


def _one_of_each(addresses: tuple[Address, ...]) -> tuple[Address, ...]:
    """Refuses two addresses of one kind: the ERP's order has one."""
    for kind in ("billing", "shipping"):
        if sum(one.kind == kind for one in addresses) > 1:
            raise ValueError(f"several of them are {kind} addresses, and the ERP's order has one")
    return addresses


class Customer(Part):
    """A buyer. The key binds a buyer to one ERP account for ever, so the profile's choice of key decides who counts as
    one buyer."""

    key: Key
    number: str | None = None
    kind: Literal["registered", "guest", "company"]
    name: str
    email: str | None = None
    email_verified: bool | None = Field(None, exclude=True)  # the shop has checked the address; no ERP is told
    company: str | None = None
    tax_id: str | None = None
    addresses: tuple[Address, ...] = ()


class Line(Keyed):
    """A sold line. net, tax and gross are for the whole quantity, after the line's own discount."""

    sku: str
    name: str = ""
    quantity: Positive
    unit_price: Amount  # before discount; gross if the order's tax_included, else net
    discount: Amount = Decimal(0)  # for the whole line, same tax basis as unit_price, positive
    tax_rate: Amount  # percent: 19 is 19 %
    net: Amount
    tax: Amount
    gross: Amount


class Discount(Keyed):
    """A discount on the whole order, in positive amounts, with one row for each tax rate that it lowers."""

    name: str = ""
    code: str | None = None
    tax_rate: Amount
    net: Amount
    tax: Amount
    gross: Amount


class Charge(Keyed):
    """Shipping, payment fee, gift wrap: what is paid beside the goods."""

    kind: str
    tax_rate: Amount
    net: Amount
    tax: Amount
    gross: Amount


class Payment(Keyed):
    means: str
    amount: Amount
    paid_at: Instant | None = None
    reference: str | None = None  # the payment provider's transaction id
    refund: Key | None = None  # for money given back, a negative amount: the Refund that has it; `paid` leaves it out

    @property
    def is_of_refund(self) -> bool:
        """Whether a Refund carries this payment."""
        return self.refund is not None and self.amount < 0


class SalesOrder(Part):
    """sum(lines) + sum(charges) - sum(discounts) = (net, tax, gross); `totals.py` checks it."""

    key: Key
    number: str
    customer: Key | None  # key of the Customer document
    placed_at: Instant
    currency: str
    status: Literal["open", "cancelled"]
    tax_included: bool
    net: Amount
    tax: Amount
    gross: Amount
    lines: Rows[Line]
    discounts: Rows[Discount] = ()
    charges: Rows[Charge] = ()
    payments: Rows[Payment] = ()
    addresses: Annotated[tuple[Address, ...], AfterValidator(_one_of_each)] = ()  # as copied on the order


class ReturnLine(Keyed):
    order_line: Key
    quantity: Positive
    reason: str | None = None


class ReturnOrder(Part):
    """Goods that come back. Money goes back by a Refund."""

    key: Key
    number: str
    order: Key
    returned_at: Instant
    lines: Rows[ReturnLine]


class RefundComponent(Keyed):
    kind: Literal["line", "charge", "goodwill"]
    order_line: Key | None = None
    tax_rate: Amount
    net: Amount
    tax: Amount
    gross: Amount


class Refund(Part):
    """Money that goes back to the buyer."""

    key: Key
    number: str
    order: Key
    return_order: Key | None = None
    currency: str
    refunded_at: Instant
    means: str = ""
    gross: Amount
    components: Rows[RefundComponent]


class Price(Part):
    """One price of one SKU on one list, for a validity window and from a minimum quantity on."""

    key: Key
    sku: str
    price_list: str
    currency: str
    amount: Amount
    tax_included: bool
    valid_from: Moment | None = None
    valid_until: Moment | None = None
    minimum_quantity: Amount = Decimal(1)


Document = Customer | SalesOrder | ReturnOrder | Refund | Price
MODEL_VERSION: Final = 1
"""Raise this by one when the same shop rows give a different document or record. `sink rebuild` then says what
changes."""
MODELS: dict[str, type[Part]] = {model.__name__: model for model in (Customer, SalesOrder, ReturnOrder, Refund, Price)}


def part_of(annotation: Any) -> type[Part] | None:
    """The model of a tuple field's items."""
    for argument in get_args(annotation):
        if isinstance(argument, type) and issubclass(argument, Part):
            return argument
    return None


class NotReady(NamedTuple):
    """The document exists, but is not to be carried over yet: `ready` is false, or `ready_at` is still to come
    (`until`)."""

    until: datetime | None = None


class Missing(NamedTuple):
    """The shop does not have the document, or no longer has it."""


class Invalid(NamedTuple):
    """The shop's data makes no valid document, or some of it has not arrived. `reason` names the row and the field. Of
    values it shows only numbers and kinds, nothing personal."""

    reason: str
    next_step: str = "fix it in the shop, or the profile"


Built = Document | NotReady | Missing | Invalid
