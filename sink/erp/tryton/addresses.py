"""Document addresses as addresses of Tryton's parties. Pure.

The company becomes the party name, which Tryton prints on top, and the person its contact. Without a company the person
becomes the party name. A company without a person is its own contact. If both names of an address are the same, reading
it back gives neither name nor company, because it could be either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from sink.erp.kinds import Fields, Value
from sink.erp.tryton.catalogue import PartyAddress
from sink.erp.tryton.rpc import Row

Side = Literal["billing", "shipping"]
NAMES: Final = ("party_name", "attn", "street", "postal_code", "city", "country")
"""The fields that are read of a `party.address`."""


def address_of(fields: Fields, side: Side, country: int | None) -> PartyAddress:
    """The address on one side of a document. country: Tryton's id of its country."""
    name, company = _text(fields.get(f"{side}_name")), _text(fields.get(f"{side}_company"))
    street, postcode, city = (_text(fields.get(f"{side}_{part}")) for part in ("street", "postcode", "city"))
    return PartyAddress(company or name, (name or company) if company else None, street, postcode, city, country)


def fields_of(row: Row | None, side: Side, countries: Mapping[int, str]) -> dict[str, Value]:
    """The document's fields for an address of Tryton's. countries: country codes by Tryton's ids."""
    row = row or {}
    found: dict[str, Value] = {
        f"{side}_street": row.get("street") or None,
        f"{side}_postcode": row.get("postal_code") or None,
        f"{side}_city": row.get("city") or None,
        f"{side}_country": countries.get(row.get("country") or 0),
    }
    top, contact = row.get("party_name") or None, row.get("attn") or None
    if contact is None:
        return {**found, f"{side}_name": top, f"{side}_company": None}
    return found if contact == top else {**found, f"{side}_name": contact, f"{side}_company": top}


def _text(value: Value) -> str | None:
    """Stripped, as Tryton strips it; "" is None."""
    return str(value).strip() or None if value is not None else None
