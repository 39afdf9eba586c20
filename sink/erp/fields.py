"""The fields of the shop's documents, and the types of their values. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from sink.erp.kinds import Kind

ValueType = Literal["text", "money", "number", "yes or no", "time"]


class FieldType(NamedTuple):
    """`empty`: the shop may leave it empty."""

    type: ValueType
    empty: bool = False


_TEXT: Final = FieldType("text")
_ANY_TEXT: Final = FieldType("text", empty=True)
_MONEY: Final = FieldType("money")
_NUMBER: Final = FieldType("number")
_FLAG: Final = FieldType("yes or no")
_TIME: Final = FieldType("time")
_ANY_TIME: Final = FieldType("time", empty=True)

_AMOUNTS: Final = {"net": _MONEY, "tax": _MONEY, "gross": _MONEY}


def _address(kind: str) -> dict[str, FieldType]:
    return {f"{kind}_{name}": _ANY_TEXT for name in ("name", "company", "street", "postcode", "city", "country")}


FIELDS: Final[Mapping[Kind, Mapping[str, FieldType]]] = {
    "customer": {
        "number": _TEXT, "name": _TEXT, "email": _ANY_TEXT, "company": _ANY_TEXT, "tax_id": _ANY_TEXT, "kind": _TEXT,
        **_address("billing"),
    },
    "order": {
        "number": _TEXT, "placed_at": _TIME, "currency": _TEXT, "tax_included": _FLAG, **_AMOUNTS, "paid": _MONEY,
        "payment_means": _ANY_TEXT, "payment_reference": _ANY_TEXT, **_address("billing"), **_address("shipping"),
    },
    "return": {"number": _TEXT, "returned_at": _TIME},
    "refund": {"number": _TEXT, "currency": _TEXT, "refunded_at": _TIME, "means": _ANY_TEXT, **_AMOUNTS},
    "price": {
        "sku": _TEXT, "price_list": _TEXT, "currency": _TEXT, "amount": _MONEY, "tax_included": _FLAG,
        "valid_from": _ANY_TIME, "valid_until": _ANY_TIME, "minimum_quantity": _NUMBER,
    },
}  # fmt: skip
"""The fields of heads. Whether an order was cancelled is no field: its state says so."""

_BOOKED: Final = {
    "kind": _TEXT, "sku": _ANY_TEXT, "name": _ANY_TEXT, "quantity": _NUMBER, "unit_price": _MONEY, "discount": _MONEY,
    "tax_rate": _NUMBER, **_AMOUNTS,
}  # fmt: skip
CHILD_FIELDS: Final[Mapping[Kind, Mapping[str, FieldType]]] = {
    "customer": {},
    "order": _BOOKED,
    "return": {"quantity": _NUMBER, "reason": _ANY_TEXT},
    "refund": _BOOKED,
    "price": {},
}
"""The fields of children, whatever their part."""

LINKS: Final[Mapping[Kind, tuple[str, ...]]] = {
    "customer": (), "order": ("account",), "return": ("order",), "refund": ("order",), "price": (),
}  # fmt: skip
CHILD_LINKS: Final[Mapping[Kind, tuple[str, ...]]] = {
    "customer": (), "order": (), "return": ("order_line",), "refund": ("order_line",), "price": (),
}  # fmt: skip
