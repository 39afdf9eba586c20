"""Amounts as people write them."""

from decimal import Decimal

import pytest

from sink.erp.money import money


@pytest.mark.parametrize(
    ("amount", "currency", "said"),
    [
        ("1234567.5", "EUR", "1,234,567.50"),
        ("-1000", None, "-1,000.00"),
        ("1235", "JPY", "1,235"),
        ("1235.5", "JPY", "1,235.5"),
        ("1.5", "KWD", "1.500"),
        ("0.0425", "EUR", "0.0425"),
        ("4.14000", "EUR", "4.14"),
        ("0", "EUR", "0.00"),
    ],
)
def test_an_amount_has_its_thousands_and_the_decimals_of_its_currency(
    amount: str, currency: str | None, said: str
) -> None:
    assert money(Decimal(amount), currency) == said


def test_no_amount_is_said_as_nothing() -> None:
    assert money(None, "EUR") == ""
