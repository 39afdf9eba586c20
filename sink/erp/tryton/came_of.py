"""Shipments and invoices that came of a sale, and what they no longer let the shop change. Pure.

Tryton's own states of a sale say too little: a parcel with the carrier is still `waiting`, a validated invoice is still
`pending`, and `exception` hides what has left or is posted. So shipments and invoices are asked themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from sink.erp.contract import Change

Row = Mapping[str, Any]

SHIPMENT: Final = "stock.shipment.out"
TAKEN_BACK: Final = "stock.shipment.out.return"
INVOICE: Final = "account.invoice"
MODELS: Final = (SHIPMENT, TAKEN_BACK, INVOICE)
_POSTED: Final = ("posted", "paid")

_BY_SLIP: Final[tuple[Change, ...]] = (
    "change prices", "change tax rates", "change quantities", "add lines", "add charges", "change addresses",
    "change return", "change refund",
)  # fmt: skip
"""What an amendment changes. It makes anew only draft invoices, and shipments that nobody has begun."""
_CANCEL: Final[tuple[Change, ...]] = ("cancel",)
_IN_THE_PARCEL: Final[tuple[Change, ...]] = ("change quantities", "add lines", "change addresses")

_ASSIGNED: Final = "set it back to waiting in Tryton, which would else make it a second time"
_PICKED: Final = "pack it in Tryton, or cancel it and have it made again; else its goods would be picked twice"
_PACKED: Final = "cancel it in Tryton and have it made again; an amendment leaves the parcel as it is"
_SHIPPED: Final = "correct it with a return or a further delivery"
_UNPACKED: Final = "cancel it in Tryton once its goods are back on the shelf"
_RETURNED: Final = "take the goods back by a return, or cancel it in Tryton if the carrier can be stopped"
_VALIDATED: Final = (
    "its invoice is validated: cancel it in Tryton and have it made again; an amendment leaves it as it is"
)
"""Tryton 8.2 has a button that sets it back to draft, and refuses it to everybody."""
_SAID: Final = {"shipped": "with the carrier"}
_KEEPS: Final[Mapping[str, Mapping[str, Collection[Change]]]] = {
    "assigned": {_ASSIGNED: _BY_SLIP},
    "picked": {_UNPACKED: _CANCEL, _PICKED: _BY_SLIP},
    "packed": {_UNPACKED: _CANCEL, _PACKED: _IN_THE_PARCEL},
    "shipped": {_RETURNED: _CANCEL, _SHIPPED: _IN_THE_PARCEL},
}
"""By a shipment's state, the ways out, each with the changes that wait for it."""


def moves(row: Row) -> list[Row]:
    """Its moves of goods."""
    return [move for line in row["lines."] for move in line["moves."]]


def shipments(row: Row) -> dict[str, Row]:
    """Shipments that take its goods to the customer or back, by model and id: `stock.shipment.out,7`. Without those of
    which its goods were cancelled."""
    return {
        str(move["shipment"]): move["shipment."]
        for move in moves(row)
        if move["shipment"] and move["state"] != "cancelled"
    }


def invoices(row: Row) -> dict[int, Row]:
    """Its invoices by their ids."""
    every = [one["invoice."] for line in row["lines."] for one in line["invoice_lines."]]
    return {one["id"]: one for one in every if one}


def open_(row: Row) -> dict[str, Row]:
    """Its shipments and invoices that are not cancelled, by model and id."""
    bills = {f"{INVOICE},{id_}": one for id_, one in invoices(row).items() if one["state"] != "cancelled"}
    return shipments(row) | bills


def gone(row: Row) -> bool:
    """Whether goods have left, or come back."""
    return any(move["state"] == "done" for move in moves(row))


def posted(row: Row) -> bool:
    """Whether an invoice is posted."""
    return any(one["state"] in _POSTED for one in invoices(row).values())


def may_not(row: Row) -> dict[Change, str]:
    """The changes that its shipments and invoices do not allow now, each with the reason and the way out."""
    found: dict[Change, str] = {}
    for name, one in shipments(row).items():
        ways = _KEEPS.get(one["state"], {}) if name.startswith(f"{SHIPMENT},") else {}
        for way_out, changes in ways.items():
            reason = f"its shipment {called(one)} is {_SAID.get(one['state'], one['state'])}: {way_out}"
            found = dict.fromkeys(changes, reason) | found
    if any(one["state"] == "validated" for one in invoices(row).values()):
        found = dict.fromkeys(_BY_SLIP, _VALIDATED) | found
    return found


def called(one: Row) -> str:
    """What people call a shipment or invoice."""
    return str(one["number"] or f"({one['id']})")
