"""Addresses of documents, as Tryton's parties have them. Pure.

The company is the name that Tryton prints on top, and the person its contact. Without a company the person is on top.
A company without a person has itself as its contact: of an address with one name twice, nobody can say which it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from sink.erp.kinds import Fields, Value
from sink.erp.tryton.catalogue import PartyAddress
from sink.erp.tryton.rpc import Row

Side = Literal["billing", "shipping"]
NAMES: Final = ("party_name", "attn", "street", "postal_code", "city", "country")
"""What is read of a `party.address`."""


def address_of(fields: Fields, side: Side, country: int | None) -> PartyAddress:
    """Of a document's fields; country: Tryton's id of the one that they name."""
    name, company = _text(fields.get(f"{side}_name")), _text(fields.get(f"{side}_company"))
    street, postcode, city = (_text(fields.get(f"{side}_{part}")) for part in ("street", "postcode", "city"))
    return PartyAddress(company or name, (name or company) if company else None, street, postcode, city, country)


def fields_of(row: Row | None, side: Side, countries: Mapping[int, str]) -> dict[str, Value]:
    """The other way; countries: codes by Tryton's ids."""
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
    """Without what Tryton strips off."""
    return str(value).strip() or None if value is not None else None
