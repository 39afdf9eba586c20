"""How an address of the shop is one of Tryton's."""

import pytest

from sink.erp.kinds import ErpRecord, Fields, not_kept
from sink.erp.tryton.addresses import address_of, fields_of
from sink.erp.tryton.catalogue import PartyAddress

PLACE: Fields = {"billing_street": "Way 1\nBack", "billing_postcode": "53111", "billing_city": "Bonn"}


def _fields(name: str | None, company: str | None) -> Fields:
    return {**PLACE, "billing_country": "DE", "billing_name": name, "billing_company": company}


@pytest.mark.parametrize(
    ("name", "company", "top", "contact"),
    [
        ("Ann", None, "Ann", None),
        ("Ann", "", "Ann", None),
        ("Ann", "Works", "Works", "Ann"),
        (None, "Works", "Works", "Works"),
        ("Ann", "Ann", "Ann", "Ann"),
        (None, None, None, None),
        (" Ann ", None, "Ann", None),
    ],
)
def test_a_company_is_on_top_and_a_person_its_contact(
    name: str | None, company: str | None, top: str | None, contact: str | None
) -> None:
    found = address_of(_fields(name, company), "billing", 7)
    assert found == PartyAddress(top, contact, "Way 1\nBack", "53111", "Bonn", 7)
    back = fields_of(found._asdict(), "billing", {7: "DE"})
    want, have = (ErpRecord("customer", one) for one in (_fields(name and name.strip(), company), back))
    assert not_kept(want, have) == ""


def test_an_address_with_one_name_twice_says_not_whose_it_is() -> None:
    back = fields_of({"party_name": "Ann", "attn": "Ann"}, "billing", {})
    assert not {"billing_name", "billing_company"} & back.keys()


def test_no_address_is_an_empty_one() -> None:
    assert {*fields_of(None, "shipping", {}).values()} == {None}
    assert address_of({}, "shipping", None) == PartyAddress(*[None] * 6)
